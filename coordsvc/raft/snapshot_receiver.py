"""The follower's side of a snapshot: takes it from the leader it follows in this term only.

Chunks are written as they come, in order; what is out of order is dropped, for the leader asks
again where to go on. While it receives, the replica follows as ever. When all is there and verified
it stops for good (`on_complete`), the snapshot takes the place of its state on disk, and its
process starts anew from that. A snapshot of a state that it has reached by itself is not needed.
One that its disk does not take, because it is full, say, is refused; the leader tries again later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from coordsvc.raft.messages import (
    SNAPSHOT_DAMAGED,
    SNAPSHOT_NOT_NEEDED,
    SNAPSHOT_RECEIVED,
    SNAPSHOT_REFUSED,
    PeerProtocolError,
    SnapshotAck,
    SnapshotChunk,
    SnapshotOffer,
)
from coordsvc.raft.node import RaftNode
from coordsvc.raft.outbox import Outbox
from coordsvc.raft.replica_types import IncomingSnapshot

logger = logging.getLogger(__name__)

SNAPSHOT_ID_BYTES = 16


@dataclass(eq=False)
class Reception:
    """One snapshot, from its first offer on."""

    leader: int
    term: int
    offer: SnapshotOffer
    """The latest; its attempt is the one that counts."""
    has_begun: bool = False
    received: int = 0
    """Bytes handed to the disk."""

    def is_of(self, offer: SnapshotOffer) -> bool:
        return _identity(self.offer) == _identity(offer)


def _identity(offer: SnapshotOffer) -> tuple[bytes, int, int, int, int]:
    """What is the same in every offer of one snapshot."""
    return (offer.snapshot_id, offer.index, offer.term, offer.digest, offer.size_bytes)


class SnapshotReceiver:
    """`on_complete` stops the replica before the snapshot is installed, `on_installed` comes
    after; `on_event` schedules a turn."""

    def __init__(
        self,
        node: RaftNode,
        outbox: Outbox,
        port: IncomingSnapshot | None,
        *,
        on_event: Callable[[], None],
        on_complete: Callable[[], None],
        on_installed: Callable[[], None],
    ) -> None:
        self._node = node
        self._outbox = outbox
        self._port = port
        self._on_event = on_event
        self._on_complete = on_complete
        self._on_installed = on_installed
        self._reception: Reception | None = None
        self.rejected = 0

    @property
    def receiving(self) -> tuple[int, int] | None:
        """(bytes received, bytes in all)."""
        reception = self._reception
        return None if reception is None else (reception.received, reception.offer.size_bytes)

    # ------------------------------------------------------------------ messages

    def on_offer(self, leader: int, offer: SnapshotOffer) -> None:
        if len(offer.snapshot_id) != SNAPSHOT_ID_BYTES or offer.size_bytes < 1 or offer.index < 1:
            raise PeerProtocolError(f"no snapshot is of {offer.size_bytes} bytes at {offer.index}")
        if self._port is None:
            return
        self.check()
        if offer.index <= self._node.applied_index:
            self._answer(leader, offer, SNAPSHOT_NOT_NEEDED, self._node.applied_index)
            return
        reception = self._reception
        if reception is not None and reception.is_of(offer):
            reception.offer = offer
            if reception.has_begun:
                self._acknowledge(reception, reception.received)
        else:
            self._begin(leader, offer, self._port)

    def _begin(self, leader: int, offer: SnapshotOffer, port: IncomingSnapshot) -> None:
        self._discard()
        reception = self._reception = Reception(leader, self._node.term, offer)
        logger.info(
            "snapshot.receiving",
            extra={"peer": leader, "index": offer.index, "bytes": offer.size_bytes},
        )

        def begun() -> None:
            if self._reception is reception:
                reception.has_begun = True
                self._acknowledge(reception, 0)

        def refused() -> None:
            if self._reception is reception:
                self._reception = None
                self._answer(leader, reception.offer, SNAPSHOT_REFUSED, 0)

        port.begin(offer.snapshot_id, offer, offer.size_bytes, begun, refused)

    def on_chunk(self, chunk: SnapshotChunk) -> None:
        self.check()
        reception = self._reception
        if reception is None or not reception.has_begun:
            return
        offer = reception.offer
        if (chunk.snapshot_id, chunk.attempt) != (offer.snapshot_id, offer.attempt):
            return
        if chunk.offset != reception.received:
            return
        end = chunk.offset + len(chunk.data)
        if not chunk.data or end > offer.size_bytes:
            raise PeerProtocolError(f"a chunk up to {end} of a snapshot of {offer.size_bytes}")
        reception.received = end

        def written() -> None:
            if self._reception is reception:
                self._acknowledge(reception, end)
                if end == reception.offer.size_bytes:
                    self._verify(reception)

        assert self._port is not None
        self._port.write(chunk.offset, chunk.data, written)

    def check(self) -> None:
        """Lets go of what came from an earlier leader, or is not needed any more."""
        reception = self._reception
        if reception is None:
            return
        is_of_this_term = reception.term == self._node.term
        if not is_of_this_term or reception.offer.index <= self._node.applied_index:
            self._discard()

    def stop(self) -> None:
        """Nothing is received, verified or installed from here on."""
        self._discard()

    def _discard(self) -> None:
        if self._reception is not None:
            self._reception = None
            assert self._port is not None
            self._port.discard()

    # ------------------------------------------------------------------ the end

    def _verify(self, reception: Reception) -> None:
        def verified(is_good: bool) -> None:
            if self._reception is not reception:
                return
            self.check()
            if self._reception is not reception:
                self._on_event()
            elif is_good:
                self._install(reception)
            else:
                self._reject(reception)

        assert self._port is not None
        self._port.verify(verified)

    def _install(self, reception: Reception) -> None:
        offer = reception.offer
        logger.warning(
            "snapshot.installing",
            extra={"peer": reception.leader, "index": offer.index, "term": offer.term},
        )
        self._on_complete()
        assert self._port is not None
        self._port.install(self._on_installed)

    def _reject(self, reception: Reception) -> None:
        self.rejected += 1
        logger.warning(
            "snapshot.rejected",
            extra={"peer": reception.leader, "index": reception.offer.index},
        )
        self._discard()
        self._answer(reception.leader, reception.offer, SNAPSHOT_DAMAGED, 0)

    # ------------------------------------------------------------------ answers

    def _acknowledge(self, reception: Reception, position: int) -> None:
        self._answer(reception.leader, reception.offer, SNAPSHOT_RECEIVED, position)

    def _answer(self, leader: int, offer: SnapshotOffer, status: int, position: int) -> None:
        memoryless = self._node.memoryless
        ack = SnapshotAck(offer.snapshot_id, offer.attempt, status, position, memoryless)
        self._outbox.send(leader, ack)
        self._on_event()
