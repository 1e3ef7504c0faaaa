from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = "/dev/shm"


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A directory for what only LMDB must see as files, while the disk under test is a fake one:
    in memory, where there is such a place, for real ones are slow to rename and to unlink."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="coordsvc-test-", dir=MEMORY) as directory:
        yield Path(directory)
