"""A client that Node's stock packages make from proto/ alone. What it checks is in client.js."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interop.conftest import skip_or_fail

FOLDER = Path(__file__).parent / "node"


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None:
        skip_or_fail("node is not on PATH")
    if not (FOLDER / "node_modules").is_dir():
        skip_or_fail("node's packages are not installed: run `make interop-node-deps`")
    assert found is not None
    return found


def test_node_client(node: str, endpoint: str) -> None:
    finished = subprocess.run(
        [node, "client.js", endpoint], cwd=FOLDER, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "ok " in finished.stdout
