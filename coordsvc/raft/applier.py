"""Applies committed entries in slices, in order, and answers whose they were.

The state machine never raises for a request; whatever does come out of it is a bug or a damaged
entry, and goes up to end the process: an entry is never skipped and never tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coordsvc.core.commands import Batch, Entry, RegisterOrigin, Reply
from coordsvc.core.machine import Machine, decode_entry
from coordsvc.errors import CoordError, NotCaughtUpError
from coordsvc.raft.adapter import NO_OP
from coordsvc.raft.clock import Clock
from coordsvc.raft.hooks import Hooks
from coordsvc.raft.node import RaftNode
from coordsvc.raft.origin import Origin
from coordsvc.raft.replica_types import Waiter

Answer = tuple[Waiter, Reply]


class DigestMismatchError(AssertionError):
    """This replica's state differs from its leader's: it must not serve, and stops."""

    def __init__(self, zxid: int, leaders: int, own: int) -> None:
        super().__init__(
            f"this replica's state differs from its leader's at zxid {zxid} (digest {own:016x}, "
            f"the leader's {leaders:016x}): it stops. `coordsvc rejoin DATA_DIR`, run on this "
            "replica's data directory, makes it start anew from what the others hold"
        )


class ClusterMismatchError(AssertionError):
    """The log names another cluster than the data directory does."""


class Applier:
    """`on_noop(index, term)` is called when a leader's first entry is applied."""

    def __init__(
        self,
        machine: Machine,
        node: RaftNode,
        origin: Origin,
        clock: Clock,
        hooks: Hooks,
        on_noop: Callable[[int, int], None],
        cluster_id: bytes,
    ) -> None:
        self._machine = machine
        self._node = node
        self._origin = origin
        self._clock = clock
        self._hooks = hooks
        self._on_noop = on_noop
        self.cluster_id = cluster_id
        self._zxid_waiters: list[tuple[int, asyncio.Future[None], float]] = []

    def apply_slice(self, now: float) -> bool:
        """Applies for a few milliseconds at most; True when it applied anything."""
        node = self._node
        if node.applied_index >= node.commit_index:
            return False
        answers: list[Answer] = []
        until = now + node.settings.apply_slice_s
        while node.applied_index < node.commit_index:
            index = node.applied_index + 1
            payload, entry_index, term = node.journal.record(index)
            assert entry_index == node.applied_index + 1, f"entry {entry_index} at {index}"
            if payload == NO_OP:
                self._on_noop(index, term)
            else:
                self._apply_entry(decode_entry(payload[1:]), term, now, answers)
            node.applied_index = index
            if self._clock.monotonic() >= until:
                break
        for waiter, reply in answers:
            if not waiter.done():
                waiter.set_result(reply)
        self._resolve_zxid_waiters()
        return True

    def _apply_entry(self, entry: Entry, term: int, now: float, answers: list[Answer]) -> None:
        state = self._machine.state
        readers = self._origin.readers_in(entry.batches)
        applied = self._machine.apply_entry(entry, term, readers)
        if applied.digest_mismatch is not None:
            raise DigestMismatchError(*applied.digest_mismatch)
        if state.cluster_id != self.cluster_id and state.cluster_id:
            self._name_cluster(state.cluster_id)
        for applied_batch, batch in zip(applied.batches, entry.batches, strict=True):
            if applied_batch.replica_id != self._node.settings.replica_id:
                continue
            if applied_batch.seq:
                answers.extend(self._origin.on_applied(applied_batch, now))
            elif applied_batch.replies and self._is_own_registration(batch):
                self._origin.registered(applied_batch.replies[0], now)
        self._hooks.on_applied(applied)

    def name_loaded_cluster(self) -> None:
        """Of a loaded checkpoint. Raises ClusterMismatchError when the data directory is of another
        cluster."""
        loaded = self._machine.state.cluster_id
        if loaded and loaded != self.cluster_id:
            self._name_cluster(loaded)

    def _name_cluster(self, cluster_id: bytes) -> None:
        if self.cluster_id:
            raise ClusterMismatchError(
                f"the log or its checkpoint is of cluster {cluster_id.hex()}, "
                f"the data directory of {self.cluster_id.hex()}"
            )
        self.cluster_id = cluster_id
        self._hooks.on_cluster_id(cluster_id)

    def _is_own_registration(self, batch: Batch) -> bool:
        """Not one of an earlier process of this replica, still in the log."""
        command = batch.commands[0] if batch.commands else None
        return isinstance(command, RegisterOrigin) and command.nonce == self._origin.nonce

    # ------------------------------------------------------------------ waiting for a zxid

    def wait_applied(
        self, zxid: int, deadline: float, loop: asyncio.AbstractEventLoop
    ) -> asyncio.Future[None]:
        future: asyncio.Future[None] = loop.create_future()
        if self._machine.state.zxid >= zxid:
            future.set_result(None)
        else:
            self._zxid_waiters.append((zxid, future, deadline))
        return future

    def _resolve_zxid_waiters(self) -> None:
        if not self._zxid_waiters:
            return
        at, kept = self._machine.state.zxid, []
        for waiter in self._zxid_waiters:
            if waiter[0] > at:
                kept.append(waiter)
            elif not waiter[1].done():
                waiter[1].set_result(None)
        self._zxid_waiters = kept

    def refuse_all(self, error: CoordError) -> None:
        waiters, self._zxid_waiters = self._zxid_waiters, []
        for _, future, _ in waiters:
            if not future.done():
                future.set_exception(error)

    def check_deadlines(self, now: float) -> None:
        at, kept = self._machine.state.zxid, []
        for zxid, future, deadline in self._zxid_waiters:
            if future.done():
                continue
            if deadline <= now:
                future.set_exception(
                    NotCaughtUpError(f"zxid {zxid} was asked for, this replica is at {at}")
                )
            else:
                kept.append((zxid, future, deadline))
        self._zxid_waiters = kept
