"""Loaded by every Python process that has this folder in PYTHONPATH: its wall clock is off by as
many nanoseconds as the file $CLOCK_OFFSET_FILE says (eight bytes, signed), which may change while
it runs.

This is time.time_ns, which a replica stamps its entries with. time.time stays right, for gRPC takes
it together with a clock of its own, to tell how long a call has left: were a machine's clock wrong,
both would be wrong alike.
"""

import mmap
import os
import time

with open(os.environ["CLOCK_OFFSET_FILE"], "rb") as _file:
    _offset = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)

_right_time_ns = time.time_ns


def _time_ns() -> int:
    return _right_time_ns() + int.from_bytes(_offset[:8], "little", signed=True)


time.time_ns = _time_ns
