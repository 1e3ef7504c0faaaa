"""Who is told of which change, at this replica: the watches of every stream and connection.

Every applied entry comes here before anything is answered that shows it. Its changes go into the
history, and into the buffers of those who watch; a stream empties its watcher's buffer when it can
send. What may be told is decided when the change is applied, with the ACL the znode had and the
identities the watcher has at that moment.

With no watch set, an entry costs what the history costs and nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coordsvc.core.commands import AppliedEntry, AuthId, Change
from coordsvc.core.history import History
from coordsvc.core.state import State
from coordsvc.core.watches import WatchTable
from coordsvc.server.config_model import LimitsConfig
from coordsvc.server.watch_messages import Spec, specs_from_messages
from coordsvc.server.watcher import Listener, Watcher, tell

__all__ = ["Spec", "WatchHub", "WatchHubStatistics", "Watcher", "specs_from_messages"]


@dataclass(frozen=True)
class WatchHubStatistics:
    watches: int
    watchers: int
    gaps_total: int
    history_bytes: int
    history_from_zxid: int
    """The first zxid from which on a watch can be resumed without a gap."""


class WatchHub:
    """Make it when `state` is loaded, and give it every entry that is applied from then on."""

    def __init__(self, state: State, limits: LimitsConfig) -> None:
        self.state = state
        self.limits = limits
        self.history = History(state.zxid, bytes_max=limits.watch_history_bytes_max)
        self.table = WatchTable()
        self.watches = 0
        """Watches in use: set, being resumed, or with an event that waits to be told."""
        self.gaps_total = 0
        self.on_sessions_closed: Callable[[tuple[int, ...]], None] = lambda session_ids: None
        """Told after the changes of their end are in the buffers."""
        self._watchers: set[Listener] = set()

    def open(self, ids: Callable[[], tuple[AuthId, ...]], on_items: Callable[[], None]) -> Watcher:
        """A watcher without watches; whoever opens it closes it. `ids()` are its identities at
        that moment. `on_items()` is called when something waits, and then not again before the
        next `take`."""
        watcher = Watcher(self, ids, on_items)
        self.opened(watcher)
        return watcher

    def opened(self, watcher: Listener) -> None:
        """From now on it may be in the table, until it is `closed`. More than once is the same as
        once."""
        self._watchers.add(watcher)

    def count_gap(self) -> None:
        self.gaps_total += 1

    def closed(self, watcher: Listener) -> None:
        self._watchers.discard(watcher)

    def on_applied(self, applied: AppliedEntry) -> None:
        if applied.changes:
            self.history.append(applied.changes)
            if self.table:
                self._tell(applied.changes)
        if applied.closed_sessions:
            self.on_sessions_closed(applied.closed_sessions)

    def _tell(self, changes: tuple[Change, ...]) -> None:
        told: dict[Listener, object] = {}
        for change in changes:
            for match in self.table.match(change):
                tell(change, match)
                told.update(match[3])
            if change.last_of_zxid and told:
                for watcher in told:
                    watcher.end_group()
                told = {}

    def statistics(self) -> WatchHubStatistics:
        return WatchHubStatistics(
            watches=self.watches,
            watchers=len(self._watchers),
            gaps_total=self.gaps_total,
            history_bytes=self.history.bytes,
            history_from_zxid=self.history.complete_after + 1,
        )
