"""The commands of docs/tls.md, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordsvc.core.auth import digest_id
from coordsvc.server.identities import ids_of_certificate
from coordsvc.testing.cluster import wait_for
from coordsvc.testing.ports import free_port, is_free

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tls.md").read_text()
BLOCK = re.compile(r"^```(\w+)( serve)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECONDS_MAX = 30


class Reader:
    """Does what the page says, in a folder of its own, on another port."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_port()
        self._served: list[subprocess.Popen[bytes]] = []

    def run(self, script: str) -> str:
        command = ["bash", "-euo", "pipefail", "-c", self._here(script)]
        done = subprocess.run(
            command,
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def serve(self, script: str) -> None:
        log_path = self._directory / "log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self._here(script)}"],
                cwd=self._directory,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        self._served.append(process)
        wait_for(lambda: not is_free(self._port) or process.poll() is not None, "it to listen")
        assert process.poll() is None, log_path.read_text()

    def end(self) -> None:
        for process in self._served:
            process.kill()
            process.wait(SECONDS_MAX)

    def _here(self, script: str) -> str:
        return script.replace("7401", str(self._port))

    @property
    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.end()


def test_the_page_is_true(reader: Reader, tmp_path: Path) -> None:
    said: list[str] = []
    subject = ""
    for language, serve, text in BLOCK.findall(PAGE):
        if language == "text":
            subject = text.strip()
        elif serve:
            reader.serve(text)
        else:
            said.append(reader.run(text))
    (alice,) = ids_of_certificate((tmp_path / "alice.pem").read_bytes())
    assert alice.id == subject
    made, created, digest = said
    assert not made and "/greeting" in created
    assert digest.strip() == digest_id("super:change-me")
