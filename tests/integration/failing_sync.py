"""Becomes a replica whose syncs fail once a file is there: `python failing_sync.py FILE PROGRAM -m
MODULE ARGUMENTS`, as a launcher of `LocalCluster`."""

from __future__ import annotations

import errno
import os
import runpy
import sys

_fdatasync = os.fdatasync


def main(trigger: str, module: str, arguments: list[str]) -> None:
    def fdatasync(handle: int) -> None:
        if os.path.exists(trigger):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        _fdatasync(handle)

    os.fdatasync = fdatasync
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    assert sys.argv[3] == "-m", sys.argv
    main(sys.argv[1], sys.argv[4], sys.argv[5:])
