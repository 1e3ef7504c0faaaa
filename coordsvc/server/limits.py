"""What a replica takes on at most: one table of limits, their refusals, and the counts of these.

A part that enforces a limit asks `refusal(...)` for the error and raises it. The error carries the
limit's name, so that it is counted in one place, where it leaves the replica (`Limits.count`),
whichever part refused. docs/limits.md is this table for people; a test holds one against the other.

Three kinds: a request that is too large by itself is refused for good (LIMIT_EXCEEDED; of a path
BAD_ARGUMENTS); one that finds the replica full or too busy may come again later (THROTTLED, and
UNAVAILABLE where another replica may well take it); and what cannot be refused, because nobody
asked, makes something else happen, which the table's `effect` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from coordsvc.errors import CoordError, ErrorCode, error_from_code
from coordsvc.server.config_keys import KEYS, Key
from coordsvc.server.config_model import ServerConfig


@dataclass(frozen=True)
class Limit:
    """`name` is the metric's label, `key` the configuration's. `counted` is what the number counts,
    in words; `code` what a request above it is refused with, None for one that refuses nothing,
    whose `effect` says what happens instead. `hint` is what the caller can do. `retry_after_ms` 0:
    trying again does not help."""

    name: str
    key: Key
    counted: str
    code: ErrorCode | None
    hint: str = ""
    effect: str = ""
    retry_after_ms: int = 0


_EXCEEDED, _THROTTLED = ErrorCode.LIMIT_EXCEEDED, ErrorCode.THROTTLED


def _limit(
    name: str,
    key: str,
    counted: str,
    code: ErrorCode | None,
    hint: str = "",
    *,
    effect: str = "",
    retry_after_ms: int = 0,
) -> Limit:
    return Limit(name, KEYS[key], counted, code, hint, effect, retry_after_ms)


_ALL = (
    # One request.
    _limit("message", "message_size_bytes_max", "bytes of a request", _EXCEEDED,
           "send less at once"),
    _limit("data", "data_size_bytes_max", "bytes of a znode's data", _EXCEEDED,
           "keep large data elsewhere, and its place here"),
    _limit("path", "path_size_bytes_max", "bytes of a path in UTF-8", ErrorCode.BAD_ARGUMENTS,
           "use shorter names"),
    _limit("multi", "multi_operations_max", "operations of a multi", _EXCEEDED,
           "split it"),
    _limit("zookeeper_packet", "zookeeper_packet_bytes_max",
           "bytes of a packet of a ZooKeeper client", None,
           effect="its connection is closed; the session lives on"),
    # Sessions and connections.
    _limit("outstanding_requests", "outstanding_requests_max",
           "requests of a Session stream that are not answered", None,
           effect="the stream is not read until some are answered"),
    _limit("sessions", "sessions_max", "sessions of the cluster", _EXCEEDED,
           "close sessions that are not used"),
    _limit("connections_per_address", "connections_per_address_max",
           "connections from one address, of gRPC those with calls under way", _EXCEEDED,
           "share connections, or spread over replicas"),
    _limit("openings", "openings_per_s_max",
           "sessions and streams opened in a second; fewer while the loop lags", _THROTTLED,
           "try again after the time given", retry_after_ms=100),
    _limit("openings_burst", "openings_burst_max",
           "sessions and streams opened at once; a quarter is kept for those that come back", None,
           effect="those above it are refused by `openings`"),
    _limit("zookeeper_connections", "zookeeper_connections_max",
           "connections of ZooKeeper's clients", None,
           effect="a connection above it is closed at once"),
    # Watches.
    _limit("watches_per_stream", "watches_per_stream_max", "watches of a stream", _EXCEEDED,
           "use PERSISTENT_RECURSIVE, or several streams"),
    _limit("watches", "watches_max", "watches at this replica", _EXCEEDED,
           "use PERSISTENT_RECURSIVE, or another replica"),
    _limit("watch_buffer_bytes", "watch_buffer_bytes_max",
           "bytes of events that wait for one stream", None,
           effect="a WatchGap takes their place; the watches stay"),
    _limit("watch_buffer_events", "watch_buffer_events_max",
           "events that wait for one stream", None,
           effect="a WatchGap takes their place; the watches stay"),
    _limit("watch_history_bytes", "watch_history_bytes_max",
           "bytes of past events, from which watches are resumed", None,
           effect="the oldest go; who resumes from before them gets a WatchGap"),
    _limit("frame", "frame_size_bytes_max", "bytes of a frame to a client", None,
           effect="the frame is closed, and the next one begun"),
    # What waits.
    _limit("reads_waiting", "reads_waiting_max",
           "reads that wait: for a leader, a zxid, or an earlier write", _THROTTLED,
           "read less at once, or at another replica", retry_after_ms=200),
    _limit("write_bytes_waiting", "write_bytes_waiting_max",
           "bytes of writes taken here that are not decided", ErrorCode.NO_QUORUM,
           "write less at once", retry_after_ms=200),
    # The disk.
    _limit("disk_free", "disk_free_bytes_min", "bytes free below data_dir, at least", _EXCEEDED,
           "free space on the disk, or delete znodes", retry_after_ms=1_000),
)  # fmt: skip

LIMITS: dict[str, Limit] = {limit.name: limit for limit in _ALL}
"""By name, in the order in which people are shown them."""

assert len(LIMITS) == len(_ALL), "two limits have one name"


def refusal(
    name: str,
    what: str,
    value: int,
    *,
    path: str | None = None,
    retry_after_ms: int = 0,
) -> CoordError:
    """The error of a request that limit `name` refuses: `what` is wrong, in words that say how much
    it is; `value` is the limit's. `retry_after_ms` 0: as the table has it."""
    limit = LIMITS[name]
    assert limit.code is not None, f"{name} refuses nothing"
    error = error_from_code(
        limit.code,
        f"{what}; {limit.key.label} is {value}: {limit.hint}",
        path=path,
        retry_after_ms=retry_after_ms or limit.retry_after_ms,
    )
    error.limit = name
    return error


@dataclass(frozen=True)
class LimitStatistics:
    """`current` is None where nothing is counted that lasts, as with a request's size."""

    name: str
    maximum: int
    current: float | None
    refusals_total: int


class Limits:
    """One replica's limits: their values, their refusals so far, and how near each one is.

    `refusals_total` is by the limit's name and has every limit that can refuse, from the start."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.refusals_total: Counter[str] = Counter(
            {limit.name: 0 for limit in LIMITS.values() if limit.code is not None}
        )
        self._current: dict[str, Callable[[], float]] = {}

    def count(self, error: CoordError) -> None:
        """Note that `error` leaves the replica."""
        if error.limit:
            self.refusals_total[error.limit] += 1

    def measure(self, name: str, current: Callable[[], float]) -> None:
        """Say how the current value of limit `name` is found when somebody asks."""
        assert name in LIMITS, f"there is no limit {name}"
        self._current[name] = current

    def statistics(self) -> tuple[LimitStatistics, ...]:
        """All limits in the table's order."""
        return tuple(self._statistics(limit) for limit in LIMITS.values())

    def _statistics(self, limit: Limit) -> LimitStatistics:
        current = self._current.get(limit.name)
        return LimitStatistics(
            name=limit.name,
            maximum=limit.key.value_in(self.config),
            current=current() if current is not None else None,
            refusals_total=self.refusals_total[limit.name],
        )
