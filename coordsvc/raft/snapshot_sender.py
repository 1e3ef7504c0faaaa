"""The leader's side of a snapshot's way to a follower whose next entry the log no longer holds.

A copy of the checkpoint is offered; the follower says from which byte on it lacks it; chunks
follow, a window of them unacknowledged, all peers together within a rate. After a broken
connection, or when no acknowledgement comes, the same copy is offered again and goes on where it
stopped. One copy serves all who need one at the time. It stays good while the leader makes newer
checkpoints, and the log after it is kept (`reserved`), up to a cap beyond which the transfer starts
over with a newer one. A follower that is done starts anew from its disk and answers an append: that
ends the transfer. A copy that this disk does not take, or the follower's, is tried again later.

Lives for one term: whoever stops leading drops its copies, and the next leader makes its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coordsvc.raft.adapter import LEADER
from coordsvc.raft.messages import (
    SNAPSHOT_DAMAGED,
    SNAPSHOT_NOT_NEEDED,
    SNAPSHOT_REFUSED,
    PeerProtocolError,
    SnapshotAck,
    SnapshotChunk,
    SnapshotOffer,
)
from coordsvc.raft.node import RaftNode
from coordsvc.raft.outbox import Outbox
from coordsvc.raft.replica_types import OutgoingSnapshots

logger = logging.getLogger(__name__)

RETRY_S_MAX = 60.0
"""Longest wait before the next copy, after those that could not be made, or that a peer found
damaged or had no room for."""
DAMAGED_TOLERATED = 3
"""So many damaged in a row may be chance; what follows is reported as an error."""


@dataclass(eq=False)
class Transfer:
    """To one peer. `agreed`: it has said where to go on in this attempt."""

    snapshot: Any = None
    attempt: int = 0
    agreed: bool = False
    sent: int = 0
    acknowledged: int = 0
    heard_at: float = 0.0
    lost_at: float | None = None
    """When its connection broke."""
    failures: int = 0
    """Copies in vain, whatever the reason; `damaged` of them for that one."""
    damaged: int = 0
    not_before: float = 0.0

    def give(self, snapshot: Any) -> None:
        self.snapshot = snapshot
        self.sent = self.acknowledged = 0
        self.agreed = False
        self.heard_at = float("-inf")


class _Rate:
    def __init__(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._allowed = 0.0
        self._at = float("-inf")

    def refill(self, now: float) -> None:
        """Time unused counts for a moment only."""
        gained = (now - self._at) * self._bytes_per_s if self._at > 0 else 0.0
        self._allowed = min(self._allowed + gained, self._bytes_per_s * 0.05)
        self._at = now

    def take(self, size: int) -> bool:
        """A chunk may overdraw what is allowed; the next one waits for it."""
        if self._allowed < 0:
            return False
        self._allowed -= size
        return True


class SnapshotSender:
    """`on_event` schedules a turn."""

    def __init__(
        self,
        node: RaftNode,
        outbox: Outbox,
        port: OutgoingSnapshots | None,
        on_event: Callable[[], None],
    ) -> None:
        self._node = node
        self._settings = node.settings
        self._outbox = outbox
        self._port = port
        self._on_event = on_event
        self._transfers: dict[int, Transfer] = {}
        self._copies: list[Any] = []
        """Each as often as it was made: the store may make one twice."""
        self._newest: Any = None
        """The copy that whoever needs one now is given."""
        self._making: object | None = None
        self._made_from = 0
        self._copies_failed = 0
        """In a row: this replica's own disk did not take them."""
        self._make_not_before = 0.0
        self._catching_up: dict[int, tuple[int, int, float]] = {}
        """Peers that have the state now: (up to where they have the log, the log's end then, since
        when they have not moved)."""
        self._attempt = 0
        self._rate = _Rate(node.settings.snapshot_bytes_per_s)
        self.bytes_sent = 0
        self.snapshots_sent = 0

    # ------------------------------------------------------------------ facts

    @property
    def sending(self) -> tuple[int, ...]:
        return tuple(sorted(self._transfers))

    def reserved(self) -> int | None:
        """The lowest index whose successors a follower that is being helped will need."""
        indexes = [t.snapshot.info.index for t in self._transfers.values() if t.snapshot]
        indexes.extend(match for match, _, _ in self._catching_up.values())
        if self._making is not None:
            indexes.append(self._made_from)
        return min(indexes, default=None)

    # ------------------------------------------------------------------ links and terms

    def link_up(self, peer: int) -> None:
        transfer = self._transfers.get(peer)
        if transfer is not None:
            transfer.lost_at = None
            transfer.agreed = False
            transfer.heard_at = float("-inf")  # Offered again at once.

    def link_down(self, peer: int, now: float) -> None:
        transfer = self._transfers.get(peer)
        if transfer is not None:
            transfer.lost_at = now
            transfer.agreed = False

    def end_term(self) -> None:
        self._transfers.clear()
        self._catching_up.clear()
        self._newest = self._making = None
        self._drop_unused()

    # ------------------------------------------------------------------ turns

    def turn(self, now: float) -> None:
        """The leader's, once a turn."""
        node = self._node
        if self._port is None or node.role != LEADER:
            return
        if not (self._transfers or self._catching_up or node.needs_snapshot or self._copies):
            return
        for peer in node.needs_snapshot & node.linked:
            self._transfers.setdefault(peer, Transfer())
        self._end_transfers(now)
        self._watch_catching_up(now)
        self._hand_out_copies(now)
        self._drop_unused()
        self._rate.refill(now)
        # Who has the least comes first: the first takes what the rate allows.
        for peer, transfer in sorted(self._transfers.items(), key=lambda item: item[1].sent):
            if transfer.snapshot is not None and peer in node.linked:
                self._go_on(peer, transfer, now)

    def _end_transfers(self, now: float) -> None:
        node, base = self._node, self._node.journal.base_index
        for peer, transfer in list(self._transfers.items()):
            if transfer.lost_at is not None:
                if now - transfer.lost_at > self._settings.snapshot_keep_s:
                    del self._transfers[peer]
            elif peer not in node.needs_snapshot and node.is_following_log(peer):
                self._has_arrived(peer, node.match_index(peer), now)
            if transfer.snapshot is not None and transfer.snapshot.info.index < base:
                logger.warning(
                    "snapshot.outdated",
                    extra={"peer": peer, "index": transfer.snapshot.info.index, "base": base},
                )
                transfer.give(None)

    def _has_arrived(self, peer: int, index: int, now: float) -> None:
        """It goes on from the log after `index`, which is kept for it until it has."""
        del self._transfers[peer]
        self.snapshots_sent += 1
        last = self._node.journal.last_index
        self._catching_up[peer] = (min(index, last), last, now)
        logger.info("snapshot.sent", extra={"peer": peer, "index": index})

    def _watch_catching_up(self, now: float) -> None:
        for peer, (match, end, since) in list(self._catching_up.items()):
            # Which may not be known to match yet: it is what the peer said that it has applied.
            reached = max(match, self._node.match_index(peer))
            is_lost = reached < self._node.journal.base_index
            if reached >= end or is_lost or now - since > self._settings.snapshot_keep_s:
                del self._catching_up[peer]
            elif reached > match:
                self._catching_up[peer] = (reached, end, now)

    def _hand_out_copies(self, now: float) -> None:
        for peer, transfer in self._transfers.items():
            if transfer.snapshot is not None or peer not in self._node.linked:
                continue
            if now < transfer.not_before:
                continue
            base = self._node.journal.base_index
            if self._newest is not None and self._newest.info.index >= base:
                transfer.give(self._newest)
            elif self._making is None and now >= self._make_not_before:
                self._make(now)

    def _make(self, now: float) -> None:
        assert self._port is not None
        self._made_from = self._node.journal.base_index
        making = self._making = object()
        self._make_not_before = now + _retry_after(self._copies_failed + 1)

        def made(snapshot: Any | None) -> None:
            is_wanted = self._making is making
            if is_wanted:
                self._making = None
                self._on_event()
            if snapshot is None:
                self._copies_failed += 1
                return
            self._copies_failed, self._make_not_before = 0, 0.0
            self._copies.append(snapshot)
            if is_wanted:
                self._newest = snapshot
            else:
                self._drop_unused()  # The term it was made in is over.

        self._port.make(made)

    def _drop_unused(self) -> None:
        """The newest copy too, when nobody is being sent it or waits for one."""
        used = {t.snapshot.snapshot_id for t in self._transfers.values() if t.snapshot}
        if self._newest is not None and self._newest.snapshot_id not in used:
            if any(transfer.snapshot is None for transfer in self._transfers.values()):
                used.add(self._newest.snapshot_id)
            else:
                self._newest = None
        copies, self._copies = self._copies, []
        for copy in copies:
            if copy.snapshot_id in used:
                self._copies.append(copy)
            else:
                assert self._port is not None
                self._port.drop(copy)

    # ------------------------------------------------------------------ sending

    def _go_on(self, peer: int, transfer: Transfer, now: float) -> None:
        if now - transfer.heard_at >= self._settings.snapshot_resend_s:
            self._offer(peer, transfer, now)
        elif transfer.agreed:
            self._send_chunks(peer, transfer)

    def _offer(self, peer: int, transfer: Transfer, now: float) -> None:
        self._attempt += 1
        transfer.attempt, transfer.agreed, transfer.heard_at = self._attempt, False, now
        snapshot, info = transfer.snapshot, transfer.snapshot.info
        offer = SnapshotOffer(
            snapshot.snapshot_id,
            transfer.attempt,
            info.index,
            info.term,
            info.zxid,
            info.digest,
            snapshot.size_bytes,
        )
        self._outbox.send(peer, offer)

    def _send_chunks(self, peer: int, transfer: Transfer) -> None:
        settings, size = self._settings, transfer.snapshot.size_bytes
        while transfer.sent < size:
            chunk = min(settings.snapshot_chunk_bytes, size - transfer.sent)
            in_flight = transfer.sent + chunk - transfer.acknowledged
            if in_flight > settings.snapshot_window_bytes or not self._rate.take(chunk):
                return
            self._send_chunk(peer, transfer, transfer.sent, chunk)
            transfer.sent += chunk

    def _send_chunk(self, peer: int, transfer: Transfer, offset: int, size: int) -> None:
        assert self._port is not None
        snapshot, attempt = transfer.snapshot, transfer.attempt

        def read(data: bytes | None) -> None:
            is_current = self._transfers.get(peer) is transfer and transfer.attempt == attempt
            if data is None:
                if is_current and transfer.snapshot is snapshot:
                    self._start_over(transfer, self._node.clock.monotonic())
                return
            assert len(data) == size, f"read {len(data)} bytes of {size} at {offset}"
            if is_current and peer in self._node.linked:
                chunk = SnapshotChunk(snapshot.snapshot_id, attempt, offset, data)
                self._outbox.send(peer, chunk)
                self.bytes_sent += size
                self._on_event()

        self._port.read(snapshot, offset, size, read)

    # ------------------------------------------------------------------ answers

    def on_ack(self, peer: int, ack: SnapshotAck, now: float) -> None:
        """Raises PeerProtocolError for a position that nobody sent."""
        if self._node.role != LEADER:
            return
        self._node.heard_follower(peer, ack.memoryless, now)
        transfer = self._transfers.get(peer)
        if transfer is None or transfer.attempt != ack.attempt or transfer.snapshot is None:
            return
        if ack.snapshot_id != transfer.snapshot.snapshot_id:
            return
        if ack.status == SNAPSHOT_NOT_NEEDED:
            self._has_arrived(peer, ack.position, now)
            self._node.holds_applied(peer, ack.position)
        elif ack.status == SNAPSHOT_DAMAGED:
            self._damaged(peer, transfer, now)
        elif ack.status == SNAPSHOT_REFUSED:
            self._start_over(transfer, now)
            logger.warning("snapshot.refused", extra={"peer": peer, "times": transfer.failures})
        else:
            self._received(transfer, ack.position, now)

    def _received(self, transfer: Transfer, position: int, now: float) -> None:
        if not 0 <= position <= transfer.snapshot.size_bytes:
            raise PeerProtocolError(f"{position} bytes received of a snapshot")
        if not transfer.agreed:
            transfer.agreed = True
            transfer.sent = transfer.acknowledged = position
            transfer.heard_at = now
        elif position > transfer.acknowledged:
            transfer.acknowledged = position
            transfer.heard_at = now

    def _damaged(self, peer: int, transfer: Transfer, now: float) -> None:
        transfer.damaged += 1
        level = logging.WARNING if transfer.damaged <= DAMAGED_TOLERATED else logging.ERROR
        logger.log(level, "snapshot.damaged", extra={"peer": peer, "times": transfer.damaged})
        self._start_over(transfer, now)

    def _start_over(self, transfer: Transfer, now: float) -> None:
        """Later, and with another copy: this one may be the damaged one, and it takes room."""
        transfer.failures += 1
        transfer.not_before = now + _retry_after(transfer.failures)
        if self._newest is transfer.snapshot:
            self._newest = None
        transfer.give(None)


def _retry_after(failures: int) -> float:
    return min(RETRY_S_MAX, 2.0 ** min(failures, 16) / 2)
