"""A client that Go's stock plugins make from proto/ alone. What it checks is in the Go files.

Building it takes a while, so it runs in `make interop-grpc` only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interop.conftest import is_required

FOLDER = Path(__file__).parent / "go"
BUILD_SECONDS_MAX = 300


@pytest.fixture(scope="module")
def client() -> Path:
    """The built program; its generated code lands beside it, and is not committed."""
    if not is_required():
        pytest.skip("runs in `make interop-grpc` only")
    assert shutil.which("go") is not None, "go is not on PATH"
    generated = FOLDER / "gen"
    generated.mkdir(exist_ok=True)
    tools = generated / "bin"
    # The plugins are pinned in go.mod, like the libraries.
    environment = {**os.environ, "GOBIN": str(tools), "GOFLAGS": "-mod=readonly -buildvcs=false"}
    run_in_go(["go", "install", "tool"], environment)
    root = FOLDER.parents[2]
    names = sorted(path.name for path in (root / "proto" / "coordsvc" / "v1").glob("*.proto"))
    protoc = [str(root / ".venv-proto" / "bin" / "python"), "-m", "grpc_tools.protoc"]
    protoc += [f"-I{root / 'proto'}"]
    for plugin in ("go", "go-grpc"):
        protoc += [f"--plugin=protoc-gen-{plugin}={tools / f'protoc-gen-{plugin}'}"]
        protoc += [f"--{plugin}_out={generated}", f"--{plugin}_opt=paths=source_relative"]
    run_in_go([*protoc, *(f"coordsvc/v1/{name}" for name in names)], environment)
    run_in_go(["go", "vet", "."], environment)
    run_in_go(["go", "build", "-o", "gen/client", "."], environment)
    return generated / "client"


def run_in_go(command: list[str], environment: dict[str, str]) -> None:
    finished = subprocess.run(
        command,
        cwd=FOLDER,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS_MAX,
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout}{finished.stderr}"


@pytest.mark.timeout(2 * BUILD_SECONDS_MAX)
def test_go_client(client: Path, endpoint: str) -> None:
    finished = subprocess.run([client, endpoint], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "ok " in finished.stdout
