"""PySyncObj made drivable: the only file that knows the library's private names.

The library keeps the Raft state (term, vote, role, log, next and match index), counts elections and
calls back; its message handling, commit rule, apply and sending are replaced by `node.py`, because
each of them loses or invents entries under faults (see docs/decisions/0002). A method that a
subclass names `_SyncObj__x` overrides the library's `self.__x`, so the replaced ones stand here by
their mangled names. `LIBRARY_METHODS` lists all that is replaced or relied on; a test compares a
hash of each one's source, so that another version of the library cannot slip in unread.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pysyncobj.syncobj as library
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.journal import Journal
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from coordsvc.core.commands import ENTRY_PREFIX, NO_OP_PAYLOAD
from coordsvc.raft.clock import Clock, SystemClock
from coordsvc.raft.settings import ReplicaSettings

LIBRARY_VERSION = "0.3.17"

REPLACED = (
    "_onTick",
    "_SyncObj__onMessageReceived",
    "_SyncObj__applyLogEntries",
    "_SyncObj__sendAppendEntries",
    "_checkCommandsToApply",
    "_SyncObj__tryLogCompaction",
    "_SyncObj__loadDumpFile",
    "_SyncObj__generateRaftTimeout",
)
RELIED_ON = (
    "__init__",
    "_SyncObj__onMessageReceived",
    "_SyncObj__onBecomeLeader",
    "_SyncObj__setCurrentTerm",
    "_SyncObj__setState",
    "_SyncObj__onLeaderChanged",
    "_SyncObj__getCurrentLogIndex",
    "_SyncObj__getCurrentLogTerm",
    "transferLeadership",
)
LIBRARY_METHODS = tuple(sorted(set(REPLACED + RELIED_ON)))

FOLLOWER = library._RAFT_STATE.FOLLOWER
CANDIDATE = library._RAFT_STATE.CANDIDATE
LEADER = library._RAFT_STATE.LEADER

NO_OP = NO_OP_PAYLOAD
"""Payload of the entry the library adds when a leader starts."""
REGULAR = ENTRY_PREFIX
"""First byte of the payload of an entry of ours."""

_library_clock: Clock = SystemClock()
_create_library_journal = library.createJournal


def use_library_clock(clock: Clock) -> None:
    """The library reads one clock per process; a simulation replaces it for all its replicas."""
    global _library_clock
    _library_clock = clock


def _journal_or_library(journal: Any) -> Any:
    """The library makes its journal from a file name in its configuration; ours comes in its
    place, through the same field."""
    return journal if isinstance(journal, Journal) else _create_library_journal(journal)


library.monotonicTime = lambda: _library_clock.monotonic()
library.createJournal = _journal_or_library


class LibraryPathError(AssertionError):
    """A path of the library that must not be reached was reached: a bug here, end the process."""


class _DirectTransport(Transport):  # type: ignore[misc]
    """Hands what the library says to the node; connections are not the library's business."""

    ready = True

    def __init__(self, node: RaftAdapter, self_node: Node, other_nodes: set[Node]) -> None:
        super().__init__(node, self_node, other_nodes)
        self._node = node

    def tryGetReady(self) -> None:
        pass

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        self._node.send_library_message(int(node.id), message)
        return True

    def addNode(self, node: Node) -> None:
        raise LibraryPathError("membership is static")

    def dropNode(self, node: Node) -> None:
        raise LibraryPathError("membership is static")

    def destroy(self) -> None:
        pass


class RaftAdapter(SyncObj):  # type: ignore[misc]
    """The library's state under plain names. A member's node id is its decimal replica id;
    addresses live in the transport, so a replica may come back at another one."""

    _SyncObj__raftLeader: Any

    def __init__(
        self,
        settings: ReplicaSettings,
        journal: Journal,
        clock: Clock,
        rng: random.Random,
        on_role: Callable[[int, int], None],
        applied_index: int,
    ) -> None:
        # The library's constructor walks dir(self), so everything properties read comes first.
        self.settings = settings
        self.journal = journal
        self.clock = clock
        self.rng = rng
        self.nodes = {i: Node(str(i)) for i in settings.peer_ids}
        use_library_clock(clock)
        super().__init__(
            Node(str(settings.replica_id)),
            set(self.nodes.values()),
            SyncObjConf(
                autoTick=False,
                journalFile=journal,
                fullDumpFile=None,
                useFork=False,
                commandsWaitLeader=False,
                dynamicMembershipChange=False,
                appendEntriesUseBatch=True,
                appendEntriesPeriod=settings.heartbeat_s,
                appendEntriesBatchSizeBytes=settings.append_bytes_max,
                raftMinTimeout=settings.election_timeout_s_min,
                raftMaxTimeout=settings.election_timeout_s_max,
                connectionTimeout=2 * settings.election_timeout_s_max,
                leaderFallbackTimeout=settings.leader_fallback_s,
                onStateChanged=on_role,
            ),
            transportClass=_DirectTransport,
        )
        # What a checkpoint covers was committed; what the log holds beyond it may not be.
        self._SyncObj__raftLastApplied = applied_index
        self._SyncObj__raftCommitIndex = applied_index

    # ------------------------------------------------------------ replaced, see node.py

    def tick(self, now: float) -> None:
        raise NotImplementedError

    def send_library_message(self, peer: int, message: dict[str, Any]) -> None:
        raise NotImplementedError

    def send_entries(self) -> None:
        raise NotImplementedError

    def _onTick(self, timeToWait: float = 0.0) -> None:
        self.tick(self.clock.monotonic())

    def _SyncObj__sendAppendEntries(self) -> None:
        self.send_entries()

    def _SyncObj__generateRaftTimeout(self) -> float:
        return self.rng.uniform(
            self.settings.election_timeout_s_min, self.settings.election_timeout_s_max
        )

    def _SyncObj__onMessageReceived(self, node: Node, message: dict[str, Any]) -> None:
        """Only requests to vote and leadership transfers are the library's to handle."""
        if message["type"] not in ("request_vote", "timeout_now"):
            raise LibraryPathError(f"the library must not handle {message['type']}")
        SyncObj._SyncObj__onMessageReceived(self, node, message)

    def _SyncObj__applyLogEntries(self) -> bool:
        raise LibraryPathError("entries are applied by the replica, in slices")

    def _checkCommandsToApply(self) -> None:
        raise LibraryPathError("the library's command queue is never used")

    def _SyncObj__tryLogCompaction(self) -> None:
        raise LibraryPathError("the log is compacted by the replica, in slices")

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        raise LibraryPathError("snapshots never travel through the library")

    # ------------------------------------------------------------ the library's state

    @property
    def role(self) -> int:
        return self._SyncObj__raftState  # type: ignore[no-any-return]

    @role.setter
    def role(self, role: int) -> None:
        self._SyncObj__setState(role)

    @property
    def is_leader(self) -> bool:
        return bool(self.role == LEADER)

    @property
    def term(self) -> int:
        return self._SyncObj__raftCurrentTerm  # type: ignore[no-any-return]

    def set_term(self, term: int, voted_for: str | None) -> None:
        self._SyncObj__setCurrentTerm(term, voted_for)

    @property
    def leader_id(self) -> int | None:
        node = self._SyncObj__raftLeader
        return None if node is None else int(node.id)

    def set_leader(self, replica_id: int | None) -> None:
        node = None if replica_id is None else self.nodes[replica_id]
        if self._SyncObj__raftLeader != node:
            self._SyncObj__raftLeader = node
            self._SyncObj__onLeaderChanged()

    @property
    def election_deadline(self) -> float:
        return float(self._SyncObj__raftElectionDeadline)

    @election_deadline.setter
    def election_deadline(self, deadline: float) -> None:
        self._SyncObj__raftElectionDeadline = deadline

    @property
    def transfer_in_progress(self) -> bool:
        return bool(self._SyncObj__transferInProgress)

    @transfer_in_progress.setter
    def transfer_in_progress(self, value: bool) -> None:
        self._SyncObj__transferInProgress = value

    @property
    def commit_index(self) -> int:
        return self._SyncObj__raftCommitIndex

    @commit_index.setter
    def commit_index(self, index: int) -> None:
        assert index >= self._SyncObj__raftCommitIndex, "the commit index never falls"
        self._SyncObj__raftCommitIndex = index

    @property
    def applied_index(self) -> int:
        return self._SyncObj__raftLastApplied

    @applied_index.setter
    def applied_index(self, index: int) -> None:
        self._SyncObj__raftLastApplied = index

    @property
    def noop_index(self) -> int:
        """Of the entry this leader began its term with."""
        return self._SyncObj__noopIDx or 0

    def next_index(self, peer: int) -> int:
        return self._SyncObj__raftNextIndex[self.nodes[peer]]  # type: ignore[no-any-return]

    def set_next_index(self, peer: int, index: int) -> None:
        self._SyncObj__raftNextIndex[self.nodes[peer]] = index

    def match_index(self, peer: int) -> int:
        return self._SyncObj__raftMatchIndex.get(self.nodes[peer], 0)  # type: ignore[no-any-return]

    def set_match_index(self, peer: int, index: int) -> None:
        self._SyncObj__raftMatchIndex[self.nodes[peer]] = index

    def heard_at(self, peer: int) -> float:
        """When a leader last heard that this follower follows it."""
        return self._SyncObj__lastResponseTime[self.nodes[peer]]  # type: ignore[no-any-return]

    def set_heard_at(self, peer: int, now: float) -> None:
        self._SyncObj__lastResponseTime[self.nodes[peer]] = now

    def become_leader(self) -> None:
        """Adds the no-op of the new term and sends it."""
        self._SyncObj__onBecomeLeader()

    def let_library_handle(self, peer: int, message: dict[str, Any]) -> None:
        self._SyncObj__onMessageReceived(self.nodes[peer], message)
