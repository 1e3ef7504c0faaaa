"""The Go programs that measuring needs, built below `.bench`, each from a module of its own: etcd
from its modules in `etcd`, the load generator from `grpc_load` and what Go's plugins make of
`proto/`.

Made from exactly these sources, or made anew; what they need is pinned in their go.sum. Afterwards
nothing more is fetched.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coordsvc.testing.cluster import ClusterError

ROOT: Final = Path(__file__).resolve().parents[1]
BUILT: Final = ROOT / ".bench"
PROTO: Final = ROOT / "proto"
PROTO_PYTHON: Final = ROOT / ".venv-proto" / "bin" / "python"
STAMP: Final = "made-from"


@dataclass(frozen=True, slots=True)
class GoProgram:
    name: str
    sources: Path
    generated_from: Path | None = None
    """Where the .proto files are, of which it has the stubs below `gen`."""

    @property
    def directory(self) -> Path:
        return BUILT / self.name

    @property
    def file(self) -> Path:
        """What is run."""
        return self.directory / self.name

    def why_not(self) -> str:
        """Why it cannot be had here; empty: it can."""
        if self.is_built() or shutil.which("go") is not None:
            return ""
        return "not installed: go"

    def is_built(self) -> bool:
        stamp = self.directory / STAMP
        return self.file.exists() and stamp.exists() and stamp.read_text() == self.wanted()

    def wanted(self) -> str:
        """A line for each file it is made from."""
        folders = [self.sources, *([] if self.generated_from is None else [self.generated_from])]
        files = sorted(file for each in folders for file in each.rglob("*") if file.is_file())
        return "".join(
            f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.relative_to(each)}\n"
            for each in folders
            for file in files
            if file.is_relative_to(each)
        )

    def prepare(self, say: Callable[[str], None] = print) -> None:
        """Build it, unless it was built from just this. ClusterError: what the tool said."""
        if self.is_built():
            return
        wanted = self.wanted()
        say(f"building {self.name}, for which Go fetches modules the first time ...")
        shutil.rmtree(self.directory, ignore_errors=True)
        source = self.directory / "source"
        shutil.copytree(self.sources, source)
        if self.generated_from is not None:
            _generate(self.generated_from, source / "gen")
        _go(source, "vet", "./...")
        _go(source, "build", "-trimpath", "-o", str(self.file), ".")
        # The mark of all being there.
        (self.directory / STAMP).write_text(wanted)


ETCD_PROGRAM: Final = GoProgram("etcd", ROOT / "bench" / "etcd")
GRPC_LOAD: Final = GoProgram("grpc_load", ROOT / "bench" / "grpc_load", generated_from=PROTO)


def _generate(protos: Path, destination: Path) -> None:
    """By the plugins that the module pins."""
    _run([str(ROOT / "scripts" / "setup.sh"), "proto"], ROOT)
    tools = destination / "bin"
    tools.mkdir(parents=True)
    _go(destination.parent, "install", "tool", environment={"GOBIN": str(tools)})
    command = [str(PROTO_PYTHON), "-m", "grpc_tools.protoc", f"-I{protos}"]
    for plugin in ("go", "go-grpc"):
        command += [f"--plugin=protoc-gen-{plugin}={tools / f'protoc-gen-{plugin}'}"]
        command += [f"--{plugin}_out={destination}", f"--{plugin}_opt=paths=source_relative"]
    _run([*command, *sorted(str(file.relative_to(protos)) for file in protos.rglob("*.proto"))])


def _go(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
    flags = {"GOFLAGS": "-mod=readonly -buildvcs=false", "CGO_ENABLED": "0"}
    _run(["go", *arguments], folder, {**os.environ, **flags, **(environment or {})})


def _run(
    command: Sequence[str], folder: Path = ROOT, environment: dict[str, str] | None = None
) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
