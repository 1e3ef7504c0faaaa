"""What connections and messages mean: the transport tells, the parts of the replica act."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, get_args

from coordsvc.raft.adapter import LEADER
from coordsvc.raft.applier import Applier
from coordsvc.raft.clock import Clock
from coordsvc.raft.confirm import Confirmations
from coordsvc.raft.messages import (
    FORMAT_VERSION,
    FORMAT_VERSION_MIN,
    MAGIC,
    AppendReply,
    Forward,
    Held,
    Hello,
    Message,
    ReadIndex,
    ReadIndexReply,
    ReplicaInfo,
    ResponseVote,
    Round,
    RoundReply,
    SnapshotAck,
    SnapshotChunk,
    SnapshotOffer,
    Touch,
    TouchAck,
)
from coordsvc.raft.node import RaftNode
from coordsvc.raft.outbox import Outbox
from coordsvc.raft.peer_memory import HeldNotices, PeerMemories
from coordsvc.raft.proposer import Proposer
from coordsvc.raft.snapshot_receiver import SnapshotReceiver
from coordsvc.raft.snapshot_sender import SnapshotSender
from coordsvc.raft.transport import LinkInfo, hello_fault

_Snapshot: TypeAlias = SnapshotOffer | SnapshotChunk | SnapshotAck
_TermBound: TypeAlias = Round | RoundReply | Forward | ReadIndex | ReadIndexReply | _Snapshot
"""Messages that mean something within their term only."""
_TERM_BOUND = get_args(_TermBound)


class PeerEvents:
    """`uuid` is the data directory's, `process` random per process. `on_event` schedules a turn;
    `on_forgotten(peer)` is called when a peer says that this replica holds less than it once
    acknowledged; `on_failed` ends the process."""

    def __init__(
        self,
        node: RaftNode,
        outbox: Outbox,
        proposer: Proposer,
        confirmations: Confirmations,
        applier: Applier,
        sender: SnapshotSender,
        receiver: SnapshotReceiver,
        clock: Clock,
        *,
        uuid: bytes,
        process: bytes,
        on_event: Callable[[], None],
        on_forgotten: Callable[[int], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        self._node = node
        self._outbox = outbox
        self._proposer = proposer
        self._confirmations = confirmations
        self._applier = applier
        self._sender = sender
        self._receiver = receiver
        self._clock = clock
        self._uuid = uuid
        self._process = process
        self._on_event = on_event
        self.told_forgotten = on_forgotten
        self.failed = on_failed
        self._memories = PeerMemories(node.settings.peer_ids)
        self._notices = HeldNotices(node, outbox.send)
        self.handlers: dict[type, Callable[[int, Any], None]] = {}
        """Who takes side messages, by type."""
        self.is_deaf = False
        """This replica has stopped taking part; its connections are being closed."""

    # ------------------------------------------------------------------ links

    def hello(self, peer: int) -> Hello:
        settings = self._node.settings
        return Hello(
            MAGIC,
            FORMAT_VERSION,
            FORMAT_VERSION_MIN,
            self._applier.cluster_id,
            settings.replica_id,
            peer,
            self._uuid,
            self._node.term,
            self._node.journal.last_index,
            settings.frame_bytes_max,
            settings.member_ids,
            self._process,
        )

    def judge_hello(self, hello: Hello) -> tuple[str, bool]:
        fault = hello_fault(self._node.settings, self.hello(0), hello)
        return fault, not fault and self._memories.has_forgotten(hello)

    def link_up(self, peer: int, info: LinkInfo) -> None:
        if self.is_deaf:
            return
        self._outbox.forget(peer)
        self._memories.linked(peer, info)
        self._notices.link_up(peer)
        self._node.link_up(peer, forgotten=info.forgotten)
        # Whoever leads when this is over, what the old connection carried may be lost.
        self._proposer.leader_link_renewed()
        self._confirmations.link_up(peer)
        self._sender.link_up(peer)
        self._on_event()

    def link_down(self, peer: int) -> None:
        self._outbox.forget(peer)
        now = self._clock.monotonic()
        self._node.link_down(peer, now)
        self._sender.link_down(peer, now)
        self._on_event()

    def housekeep(self) -> None:
        """A few times a second."""
        self._notices.turn()

    # ------------------------------------------------------------------ messages

    def received(self, peer: int, term: int, message: Message) -> None:
        if self.is_deaf:
            return
        now = self._clock.monotonic()
        if isinstance(message, (Touch, TouchAck, ReplicaInfo)):
            handler = self.handlers.get(type(message))
            if handler is not None:
                handler(peer, message)
        elif isinstance(message, Held):
            self._memories.acknowledged(peer, term, message.index)
        elif isinstance(message, _TERM_BOUND):
            if self._node.admit(peer, term, message, now):
                self._dispatch(peer, message, now)
        else:
            self._node.receive(peer, term, message, now)
            if isinstance(message, (AppendReply, ResponseVote)) and term == self._node.term:
                index = self._node.match_index(peer) if self._node.role == LEADER else 0
                self._memories.acknowledged(peer, term, index)
        self._on_event()

    def _dispatch(self, peer: int, message: _TermBound, now: float) -> None:
        if isinstance(message, Round):
            self._confirmations.on_round(peer, message, now)
        elif isinstance(message, RoundReply):
            self._confirmations.on_round_reply(peer, message, now)
        elif isinstance(message, Forward):
            self._proposer.on_forward(peer, message)
        elif isinstance(message, ReadIndex):
            self._confirmations.on_read_index(peer, message.request)
        elif isinstance(message, ReadIndexReply):
            self._confirmations.on_read_index_reply(message)
        elif isinstance(message, SnapshotAck):
            self._sender.on_ack(peer, message, now)
        else:
            self._node.follow(peer, now)
            if isinstance(message, SnapshotOffer):
                self._receiver.on_offer(peer, message)
            else:
                self._receiver.on_chunk(message)
