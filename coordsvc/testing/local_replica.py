"""A replica without a network or a disk, for tests of what lies above it: a real Machine, and a
log of one. It promises what `raft/replica.py` promises, and misbehaves only when told to:

* `is_automatic = False`: writes wait until `apply()` is called.
* `has_quorum = False`: nothing is decided, and nobody is confirmed to lead.
* `apply_elsewhere(...)`: something is committed that this replica has not seen; a read-index, or
  `catch_up()`, makes it catch up.
* `hold_confirmations = True`: rounds wait until `confirm()`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from coordsvc.core.commands import (
    AppliedEntry,
    Batch,
    ClientCommand,
    Entry,
    InitCluster,
    LeaderCommand,
    RegisterOrigin,
    Reply,
)
from coordsvc.core.machine import Machine, Reader, Readers, decode_entry
from coordsvc.errors import NoQuorumError, NotCaughtUpError
from coordsvc.raft.clock import Clock, SystemClock
from coordsvc.raft.messages import SideMessage
from coordsvc.raft.replica_types import Submission, Waiter

_ELSEWHERE = 999
"""The replica id under which commands of other replicas come."""

_encode = msgspec.msgpack.Encoder().encode


class LocalReplica:
    """A cluster of one that leads in term 1 from the start."""

    def __init__(self, *, replica_id: int = 1, clock: Clock | None = None) -> None:
        self.replica_id = replica_id
        self.clock: Clock = clock or SystemClock()
        self.machine = Machine()
        self.term = 1
        self.is_leader = True
        self.leader_id: int | None = replica_id
        self.is_ready = True
        self.applied_index = 0
        self.commit_index = 0
        self.is_automatic = True
        self.has_quorum = True
        self.hold_confirmations = False
        self.on_applied: Callable[[AppliedEntry], None] = lambda applied: None
        self.proposals: list[LeaderCommand] = []
        self.sent: list[tuple[int, SideMessage]] = []
        self.submitted: list[ClientCommand] = []
        self._waiting: list[tuple[ClientCommand, Waiter, float]] = []
        self._unseen: list[ClientCommand] = []
        self._confirmations: list[Callable[[bool], None]] = []
        self._zxid_waiters: list[tuple[int, asyncio.Future[None], asyncio.TimerHandle]] = []
        self._handlers: dict[type, Callable[[int, Any], None]] = {}
        self._seqs: dict[int, int] = {}
        self._incarnations: dict[int, int] = {}
        for origin in (replica_id, _ELSEWHERE):
            self._register(origin)
        self._apply_entry((), (InitCluster(1, b"\x07" * 16),))

    # ------------------------------------------------------------------------- a replica's calls

    def submit(self, command: ClientCommand, deadline: float) -> asyncio.Future[Reply]:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.submit_to(command, deadline, future)
        return future

    def submit_to(self, command: ClientCommand, deadline: float, waiter: Waiter) -> None:
        self.submitted.append(command)
        if not self.has_quorum:
            waiter.set_exception(NoQuorumError("no majority"))
            return
        self._waiting.append((command, waiter, deadline))
        if self.is_automatic:
            asyncio.get_running_loop().call_soon(self.apply)

    def submit_all(self, writes: Sequence[Submission]) -> None:
        for write in writes:
            if not write.done():
                self.submit_to(write.command, write.deadline, write)

    def read_index(self, deadline: float) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self.has_quorum:
            future.set_exception(NoQuorumError("no majority"))
            return future

        def done() -> None:
            self.catch_up()
            if not future.done():
                future.set_result(None)

        asyncio.get_running_loop().call_soon(done)
        return future

    def wait_applied(self, zxid: int, deadline: float) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if self.machine.state.zxid >= zxid:
            future.set_result(None)
            return future

        def late() -> None:
            if not future.done():
                future.set_exception(NotCaughtUpError(f"zxid {zxid} is not applied here"))

        timer = loop.call_later(max(0.0, deadline - self.clock.monotonic()), late)
        self._zxid_waiters.append((zxid, future, timer))
        return future

    def leader_confirmed_age(self) -> float:
        return 0.0 if self.has_quorum else 1e9

    def confirm_leadership(self, done: Callable[[bool], None]) -> None:
        if not self.is_leader:
            done(False)
        elif self.hold_confirmations or not self.has_quorum:
            self._confirmations.append(done)
        else:
            done(True)

    def propose(self, command: LeaderCommand) -> bool:
        if not self.is_leader or command.term != self.term:
            return False
        self.proposals.append(command)
        if self.is_automatic:
            asyncio.get_running_loop().call_soon(self._apply_entry, (), (command,))
        return True

    def send_peer(self, peer: int, message: SideMessage) -> None:
        self.sent.append((peer, message))

    def set_handler(self, message_type: type, handler: Callable[[int, Any], None]) -> None:
        self._handlers[message_type] = handler

    async def hand_over(self) -> bool:
        return False

    # ------------------------------------------------------------------------ what a test tells it

    def apply(self) -> None:
        """Decide everything that was submitted, in one entry, in its order."""
        # As the real one: what was given up before it was sent is not sent.
        waiting = [each for each in self._waiting if not each[1].done()]
        self._waiting = []
        if not waiting:
            return
        commands = tuple(command for command, _, _ in waiting)
        # Only a waiter that was submitted together with others has readers.
        readers = {
            place: behind
            for place, (_, waiter, _) in enumerate(waiting)
            if (behind := getattr(waiter, "readers", ()))
        }
        applied = self._apply_batch(self.replica_id, commands, readers)
        replies = applied.batches[0].replies
        for (_, waiter, _), reply in zip(waiting, replies, strict=True):
            if not waiter.done():
                waiter.set_result(reply)

    def fail_submitted(self, error: Exception) -> None:
        """Answer everything that was submitted with `error`."""
        waiting, self._waiting = self._waiting, []
        for _, waiter, _ in waiting:
            if not waiter.done():
                waiter.set_exception(error)

    def apply_elsewhere(self, *commands: ClientCommand) -> None:
        """Commit `commands` of another replica, unseen here."""
        self._unseen.extend(commands)

    def catch_up(self) -> tuple[Reply, ...]:
        """Apply what was committed elsewhere; its replies."""
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return ()
        return self._apply_batch(_ELSEWHERE, tuple(unseen)).batches[0].replies

    def confirm(self, *, confirmed: bool = True) -> None:
        waiting, self._confirmations = self._confirmations, []
        for done in waiting:
            done(confirmed)

    def receive(self, peer: int, message: SideMessage) -> None:
        """A side message of `peer` arrives."""
        self._handlers[type(message)](peer, message)

    # ------------------------------------------------------------------------------------ applying

    def _register(self, origin: int) -> None:
        batch = Batch(origin, 0, 0, (RegisterOrigin(origin, b"nonce"),))
        applied = self._apply_entry((batch,), ())
        self._incarnations[origin] = applied.batches[0].replies[0].zxid
        self._seqs[origin] = 0

    def _apply_batch(
        self,
        origin: int,
        commands: tuple[ClientCommand, ...],
        readers: Mapping[int, Sequence[Reader]] | None = None,
    ) -> AppliedEntry:
        self._seqs[origin] += 1
        batch = Batch(origin, self._incarnations[origin], self._seqs[origin], commands)
        return self._apply_entry((batch,), (), {0: readers} if readers else {})

    def _apply_entry(
        self,
        batches: tuple[Batch, ...],
        leader_commands: tuple[LeaderCommand, ...],
        readers: Readers = MappingProxyType({}),
    ) -> AppliedEntry:
        """Through bytes and back, as an entry of the log goes."""
        clock_ms = int(self.clock.monotonic() * 1000)
        entry = Entry(self.clock.wall_ms(), clock_ms, batches, leader_commands)
        applied = self.machine.apply_entry(decode_entry(_encode(entry)), self.term, readers)
        self.applied_index = self.commit_index = self.applied_index + 1
        self.on_applied(applied)
        kept = []
        for zxid, future, timer in self._zxid_waiters:
            if zxid > self.machine.state.zxid:
                kept.append((zxid, future, timer))
            elif not future.done():
                timer.cancel()
                future.set_result(None)
        self._zxid_waiters = kept
        return applied
