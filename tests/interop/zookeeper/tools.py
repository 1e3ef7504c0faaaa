"""Where the clients of other languages are: `make interop-packages` puts them there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.interop.conftest import is_required

ROOT = Path(__file__).resolve().parents[3]
BUILT = ROOT / ".interop" / "curator"
C_SHELL = "/usr/lib/zookeeper/bin/cli_mt"


def only_when_required() -> None:
    if not is_required():
        pytest.skip("runs in `make interop` only")


def java_command(main: str) -> list[str]:
    """`java`, and the class to run of what Maven fetched and compiled. A missing one is a
    failure."""
    only_when_required()
    java = shutil.which("java")
    assert java is not None, "java is not on PATH"
    assert (BUILT / "lib").is_dir(), "not built: run `make interop-packages`"
    class_path = os.pathsep.join((str(BUILT / "classes"), str(BUILT / "lib" / "*")))
    # The second compiler takes longer than it saves here.
    return [java, "-XX:TieredStopAtLevel=1", "-Xmx256m", "-cp", class_path, main]


def c_shell_command() -> list[str]:
    only_when_required()
    found = shutil.which("cli_mt") or (C_SHELL if os.access(C_SHELL, os.X_OK) else None)
    assert found is not None, "cli_mt is not here: run `make interop-packages` as root"
    return [found]
