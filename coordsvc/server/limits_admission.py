"""What is asked of a request before it is let in: one object for all doors of a replica.

It knows neither gRPC nor the state: it is told who comes, for what, and what time it is. Refusals
are raised as typed errors of the table in `limits.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coordsvc.core.commands import Op
from coordsvc.errors import CoordError
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.disk_space import DiskSpace
from coordsvc.server.limits import Limits, refusal
from coordsvc.server.limits_connections import Connections
from coordsvc.server.limits_openings import Openings


class Admission:
    """`disk` None: there is always room. Whoever is let in by `enter` or `begin_read` must be let
    out again. Times are of the replica's monotonic clock."""

    def __init__(self, config: ServerConfig, disk: DiskSpace | None = None) -> None:
        self.limits = Limits(config)
        self.disk = disk
        self._cluster = config.cluster
        self._replica = config.limits
        self.openings = Openings(config.limits)
        self.connections = Connections(config.limits)
        self._sessions_opening = 0
        self._reads_waiting = 0
        measure = self.limits.measure
        measure("openings_burst", lambda: self.openings.burst_used)
        measure("connections_per_address", lambda: self.connections.most_of_an_address)
        measure("reads_waiting", lambda: self._reads_waiting)
        if disk is not None:
            measure("disk_free", lambda: disk.free_bytes or 0)

    def turn(self, now: float) -> None:
        """Once a turn of the server's timer."""
        self.openings.turn(now)

    def refused(self, error: CoordError) -> None:
        """`error` is being sent to a client."""
        self.limits.count(error)

    # ---------------------------------------------------------------------------------- the door

    def enter(self, peer: str) -> None:
        """A call of connection `peer` begins. Raises LimitExceededError."""
        self.connections.enter(peer)

    def leave(self, peer: str) -> None:
        self.connections.leave(peer)

    def check_message(self, size: int) -> CoordError | None:
        """What is wrong with a request of so many bytes."""
        maximum = self._cluster.message_size_bytes_max
        if size <= maximum:
            return None
        return refusal("message", f"the request has {size} bytes", maximum)

    # ------------------------------------------------------------------------ sessions and streams

    @contextmanager
    def opening_session(self, sessions: int, now: float) -> Iterator[None]:
        """Around the opening of a new session, `sessions` being how many there are. Raises
        LimitExceededError or ThrottledError. Those being opened count as if they were there; those
        being opened at other replicas are not known, so the limit may be passed by as many."""
        maximum = self._cluster.sessions_max
        if sessions + self._sessions_opening >= maximum:
            raise refusal("sessions", f"the cluster has {sessions} sessions", maximum)
        if self.disk is not None:
            self.disk.check_opening()
        self.openings.admit(now)
        self._sessions_opening += 1
        try:
            yield
        finally:
            self._sessions_opening -= 1

    def attach_session(self, now: float) -> None:
        """A session comes back, on a stream of its own. Raises ThrottledError."""
        self.openings.admit(now, is_returning=True)

    def open_watch_stream(self, now: float, *, is_resumed: bool) -> None:
        """Raises ThrottledError."""
        self.openings.admit(now, is_returning=is_resumed)

    # ------------------------------------------------------------------------------------ requests

    def check_write(self, op: Op) -> None:
        """Raises LimitExceededError while there is no room for it."""
        if self.disk is not None:
            self.disk.check_write(op)

    @property
    def is_disk_low(self) -> bool:
        """Whether `check_write` may refuse any."""
        return self.disk is not None and self.disk.is_low

    @property
    def reads_waiting(self) -> int:
        return self._reads_waiting

    def begin_read(self) -> None:
        """A read begins that may have to wait. Raises ThrottledError."""
        if self._reads_waiting >= self._replica.reads_waiting_max:
            raise refusal(
                "reads_waiting",
                f"{self._reads_waiting} reads wait here",
                self._replica.reads_waiting_max,
            )
        self._reads_waiting += 1

    def end_read(self) -> None:
        assert self._reads_waiting > 0
        self._reads_waiting -= 1
