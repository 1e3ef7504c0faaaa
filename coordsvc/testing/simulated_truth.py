"""What the replicas of a simulation really did, and that they all did the same.

`Truth` sees every entry as each replica applies it. What the first one did is the truth, and goes
into the history; all others must do the same. It also holds consensus against what Raft promises
(Ref: Raft, figure 3): one leader in a term, who has everything that was ever applied; logs that
agree in an entry agree in all before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from coordsvc.core import leader_commands, sessions
from coordsvc.core.commands import (
    CREATED,
    DATA_CHANGED,
    DELETED,
    AppliedEntry,
    Change,
    SessionOpened,
)
from coordsvc.core.records import Session
from coordsvc.core.transaction import Transaction
from coordsvc.raft.messages import AppendEntries, Message
from coordsvc.raft.replica import Replica
from coordsvc.testing import history
from coordsvc.testing.history import Recorder
from coordsvc.testing.violation import Violation

DIGEST_EVERY = 16
"""Entries."""

MATCHED_ENTRIES_MAX = 64
"""How far back two logs are compared each time."""

_NAMES = {CREATED: "created", DATA_CHANGED: "data_changed", DELETED: "deleted"}


@dataclass(frozen=True)
class _Entry:
    term: int
    payload_sum: int
    applied: AppliedEntry


class Truth:
    """`replica_of(id)` is the one that runs under this id."""

    def __init__(self, recorder: Recorder, replica_of: Callable[[int], Replica | None]) -> None:
        self.violations: list[Violation] = []
        self.leaders: dict[int, int] = {}
        """By term."""
        self._recorder = recorder
        self._replica_of = replica_of
        self._entries: dict[int, _Entry] = {}
        self._last = 0
        """Index of the last entry that anybody applied."""
        self._digests: dict[int, int] = {}
        self._closings: list[tuple[int, int, bool]] = []
        """(zxid, session, expired) of the entry that is being applied."""
        self._reached: dict[Replica, int] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within, the ends of sessions are noticed."""
        end_session = sessions.end_session

        def closed(txn: Transaction, session: Session) -> None:
            self._closings.append((txn.zxid, session.session_id, False))
            end_session(txn, session)

        def expired(txn: Transaction, session: Session) -> None:
            self._closings.append((txn.zxid, session.session_id, True))
            end_session(txn, session)

        with (
            mock.patch.object(sessions, "end_session", closed),
            mock.patch.object(leader_commands, "end_session", expired),
        ):
            yield

    def broken(self, check: str, text: str) -> None:
        self.violations.append(Violation(check, text, self._recorder.time))

    # ------------------------------------------------------------------------------- applying

    def on_applied(self, replica: Replica, applied: AppliedEntry) -> None:
        closings, self._closings = self._closings, []
        index = replica.applied_index + 1
        payload, _, term = replica.journal.record(index)
        entry = _Entry(term, zlib.crc32(payload), applied)
        known = self._entries.get(index)
        if known is None:
            self._entries[index] = entry
            self._note_first(replica, index, applied, closings)
        elif (known.term, known.payload_sum) != (entry.term, entry.payload_sum):
            self.broken(
                "state machine safety",
                f"replica {replica.replica_id} applied entry {index} of term {term}, another one"
                f" applied an entry {index} of term {known.term}",
            )
        elif known.applied != applied:
            self.broken(
                "determinism", f"replica {replica.replica_id} answered entry {index} otherwise"
            )
        self._check_digest(replica, index)

    def _note_first(
        self,
        replica: Replica,
        index: int,
        applied: AppliedEntry,
        closings: list[tuple[int, int, bool]],
    ) -> None:
        if index < self._last:
            # No-ops are not seen here, so indexes may be left out, but none comes later.
            self.broken(
                "state machine safety",
                f"replica {replica.replica_id} applied entry {index}, which was none before: up to"
                f" {self._last} others had applied",
            )
        self._last = max(self._last, index)
        for record in _records(self._recorder.time, applied, closings):
            self._recorder.add(record)

    def _check_digest(self, replica: Replica, index: int) -> None:
        if index % DIGEST_EVERY:
            return
        digest = replica.machine.digest()
        known = self._digests.setdefault(index, digest)
        if known != digest:
            self.broken(
                "equal digests", f"replica {replica.replica_id} differs after entry {index}"
            )

    # ------------------------------------------------------------------------------- leaders

    def on_frame(self, source: int, target: int, term: int, message: Message) -> None:
        if not isinstance(message, AppendEntries):
            return
        leader = self.leaders.get(term)
        if leader is None:
            self.leaders[term] = source
            self._check_completeness(source, term)
        elif leader != source:
            self.broken("election safety", f"replicas {leader} and {source} lead in term {term}")

    def _check_completeness(self, leader: int, term: int) -> None:
        """It has every entry that anybody has applied."""
        replica = self._replica_of(leader)
        if replica is None:
            return
        journal = replica.journal
        for index in range(self._last, journal.base_index, -1):
            known = self._entries.get(index)
            if known is None:
                continue
            if index > journal.last_index or journal.term_at(index) != known.term:
                self.broken(
                    "leader completeness",
                    f"replica {leader} leads in term {term} without entry {index} of term"
                    f" {known.term}, which was applied",
                )
                return

    # ------------------------------------------------------------------------------- logs

    def check_logs(self, replicas: Iterable[Replica]) -> None:
        """As they are now."""
        several = list(replicas)
        for place, one in enumerate(several):
            for other in several[:place]:
                self._check_match(one, other)
        for replica in several:
            reached = self._reached.get(replica, 0)
            if replica.commit_index < reached:
                self.broken(
                    "commit index",
                    f"replica {replica.replica_id} had committed {reached}, now"
                    f" {replica.commit_index}",
                )
            self._reached[replica] = replica.commit_index

    def _check_match(self, one: Replica, other: Replica) -> None:
        a, b = one.journal, other.journal
        first = max(a.base_index, b.base_index) + 1
        index = min(a.last_index, b.last_index)
        while index >= first and a.term_at(index) != b.term_at(index):
            index -= 1
        for at in range(index, max(first, index - MATCHED_ENTRIES_MAX) - 1, -1):
            if a.record(at) != b.record(at):
                self.broken(
                    "log matching",
                    f"replicas {one.replica_id} and {other.replica_id} agree in entry {index} and"
                    f" differ in entry {at}",
                )
                return


def _records(
    time: float, applied: AppliedEntry, closings: list[tuple[int, int, bool]]
) -> Iterator[history.Applied]:
    by_zxid: dict[int, history.Applied] = {}

    def at(zxid: int) -> history.Applied:
        return by_zxid.setdefault(
            zxid, history.Applied(time, zxid, changes=[], opened=[], closed=[])
        )

    for change in applied.changes:
        at(change.zxid).changes.append(_change(change))
    for batch in applied.batches:
        for reply in batch.replies:
            result = reply.result
            if isinstance(result, SessionOpened) and result.session_id in applied.opened_sessions:
                record = at(reply.zxid)
                if _hex(result.session_id) not in record.opened:
                    record.opened.append(_hex(result.session_id))
    for zxid, session_id, is_expired in closings:
        record = at(zxid)
        record.closed.append(_hex(session_id))
        record.expired = is_expired
    return iter([by_zxid[zxid] for zxid in sorted(by_zxid)])


def _change(change: Change) -> history.Change:
    data = None if change.data is None else change.data.decode(errors="backslashreplace")
    owner = change.stat.ephemeral_owner if change.stat is not None else 0
    return history.Change(_NAMES[change.type], change.path, data, _hex(owner) if owner else "")


def _hex(session_id: int) -> str:
    return f"{session_id:016x}"
