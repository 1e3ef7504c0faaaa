"""A client's shell as a process: lines go in, and what it says is waited for."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

PATIENCE_SECONDS = 30.0
END_SECONDS = 20.0


class Shell:
    """What it writes to its error output counts as what it says."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = command
        self._environment = environment
        self._changed = threading.Condition()
        self._text = ""
        self._read_up_to = 0
        self._is_at_end = False

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            while data := output.read1():  # type: ignore[attr-defined]  # It is buffered.
                with self._changed:
                    self._text += data.decode(errors="replace")
                    self._changed.notify_all()
        with self._changed:
            self._is_at_end = True
            self._changed.notify_all()

    @property
    def text(self) -> str:
        """All that it has said so far."""
        with self._changed:
            return self._text

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def expect(self, pattern: str) -> str:
        """What it says up to the pattern, from where the last call ended."""
        with self._changed:

            def found() -> re.Match[str] | bool:
                match = re.compile(pattern, re.MULTILINE).search(self._text, self._read_up_to)
                return match or self._is_at_end

            match = self._changed.wait_for(found, PATIENCE_SECONDS)
            assert isinstance(match, re.Match), (
                f"waited in vain for {pattern!r}; it said:\n{self._text[self._read_up_to :]}"
            )
            said = self._text[self._read_up_to : match.end()]
            self._read_up_to = match.end()
            return said

    def find(self, pattern: str) -> re.Match[str]:
        """The first place of the pattern in all that it ever says."""
        with self._changed:
            match = self._changed.wait_for(
                lambda: re.search(pattern, self._text) or self._is_at_end, PATIENCE_SECONDS
            )
            assert isinstance(match, re.Match), (
                f"waited in vain for {pattern!r}; it said:\n{self._text}"
            )
            return match

    def ask(self, line: str, pattern: str) -> str:
        self.send(line)
        return self.expect(pattern)

    def end(self) -> int:
        """Its exit status, once its input has ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(END_SECONDS)
