"""How a `coordsvc` process ends: one table, for people, scripts and supervisors.

A supervisor may restart a replica after 70 and 6 at once. It should leave 3, 4, 5 and 7 to a
person: starting again changes nothing. A process that a second SIGTERM or SIGINT cut short ends
with 128 plus the signal's number, as shells report a killed one.
"""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """The status a process ends with."""

    OK = 0
    """It did what it was asked to; for a replica, it was told to stop and did."""

    REFUSED = 1
    """Commands of the client only: the service refused the request, or was not reached."""

    USAGE = 2
    """The command line or the configuration is wrong. Nothing was touched."""

    ADDRESS_IN_USE = 3
    """An address to listen on is taken or not of this machine. The message names its option."""

    DATA_DIR_REFUSED = 4
    """data_dir is in use, or belongs to another replica, cluster or newer version."""

    CORRUPTION = 5
    """What is on disk is not what was written. The replica never starts on less than it had."""

    DISK = 6
    """The disk is full or failed. Nothing was acknowledged that is not safe."""

    DIVERGED = 7
    """This replica's state differs from its leader's. It stopped before it could serve it;
    `coordsvc rejoin DATA_DIR` has it fetch everything from the others."""

    BUG = 70
    """Something happened that must not. The log has the details."""
