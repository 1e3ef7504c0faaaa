"""What a running command has at hand, and what it leaves behind."""

from __future__ import annotations

from coordsvc.core.commands import Acl, AuthId, Change, Stat
from coordsvc.core.state import State


class Transaction:
    """One entry's work in progress. The machine sets the caller's part anew for each command;
    the effects gather until the entry is done."""

    __slots__ = (
        "attached_sessions",
        "changes",
        "closed_sessions",
        "heard_sessions",
        "ids",
        "is_group",
        "opened_sessions",
        "session_id",
        "state",
        "time_ms",
        "zxid",
    )

    def __init__(self, state: State) -> None:
        self.state = state
        self.zxid = 0
        self.time_ms = 0
        self.session_id = 0
        self.ids: tuple[AuthId, ...] = ()
        self.is_group = False
        """More changes of the same zxid may follow: only `end_group` knows the last."""
        self.begin_entry()

    def begin_entry(self) -> None:
        self.time_ms = self.state.time_ms
        self.changes: list[Change] = []
        self.opened_sessions: list[int] = []
        self.closed_sessions: list[int] = []
        self.attached_sessions: list[int] = []
        self.heard_sessions: dict[int, None] = {}

    def note_change(
        self,
        change_type: int,
        path: str,
        acl: tuple[Acl, ...],
        parent_acl: tuple[Acl, ...],
        data: bytes | None,
        stat: Stat | None,
    ) -> None:
        self.changes.append(
            Change(change_type, path, self.zxid, acl, parent_acl, data, stat, not self.is_group)
        )

    def begin_group(self) -> int:
        """Begin a command that may make several changes; returns where they begin."""
        self.is_group = True
        return len(self.changes)

    def end_group(self, start: int) -> None:
        """Mark the last change of the group, if it made any."""
        self.is_group = False
        if len(self.changes) > start:
            last = self.changes[-1]
            self.changes[-1] = Change(
                last.type,
                last.path,
                last.zxid,
                last.acl,
                last.parent_acl,
                last.data,
                last.stat,
                True,
            )

    def drop_group(self, start: int) -> None:
        """Forget the changes of a group that was rolled back."""
        self.is_group = False
        del self.changes[start:]
