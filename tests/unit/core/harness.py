"""Drives a Machine as a replica does: every command through an entry's bytes, in one batch of one
registered origin, and every invariant checked after each entry."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coordsvc.core.commands import (
    APPLIED,
    NO_CALLER,
    AppliedEntry,
    Batch,
    Caller,
    Change,
    ClientCommand,
    CreateOp,
    Entry,
    LeaderCommand,
    Op,
    OpenSession,
    OriginRegistered,
    RegisterOrigin,
    Reply,
    Result,
    SessionOpened,
    Write,
)
from coordsvc.core.invariants import check_machine
from coordsvc.core.machine import Machine, decode_entry
from coordsvc.core.state import State

PASSWORD = b"0123456789abcdef"
TERM = 7


def rebuilt(machine: Machine) -> Machine:
    """A machine made from the records of another, as after a restart."""
    return Machine(State.from_records(list(machine.state.export_records())))


class Harness:
    """One machine and one origin, replica 1."""

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine or Machine()
        self.time_ms = 1_000
        self.clock_ms = 0
        self.payloads: list[bytes] = []
        self.changes: list[Change] = []
        self.last_applied = AppliedEntry()
        reply = self.apply((Batch(1, 0, 0, (RegisterOrigin(1, b"nonce"),)),)).batches[0].replies[0]
        assert isinstance(reply.result, OriginRegistered)
        self.incarnation = reply.result.incarnation
        self.seq = 0

    @property
    def state(self) -> State:
        return self.machine.state

    def apply(
        self,
        batches: tuple[Batch, ...] = (),
        leader_commands: tuple[LeaderCommand, ...] = (),
        *,
        term: int = TERM,
        digest: tuple[int, int] = (0, 0),
    ) -> AppliedEntry:
        entry = Entry(self.time_ms, self.clock_ms, batches, leader_commands, *digest)
        self.payloads.append(msgspec.msgpack.encode(entry))
        applied = self.machine.apply_entry(decode_entry(self.payloads[-1]), term)
        check_machine(self.machine)
        self.changes += applied.changes
        self.last_applied = applied
        return applied

    def submit(self, *commands: ClientCommand) -> tuple[Reply, ...]:
        """Run the commands in one entry; their replies."""
        self.seq += 1
        applied = self.apply((Batch(1, self.incarnation, self.seq, commands),))
        assert applied.batches[0].status == APPLIED
        return applied.batches[0].replies

    def write(self, op: Op, caller: Caller = NO_CALLER) -> Reply:
        return self.submit(Write(caller, op))[0]

    def result(self, op: Op, caller: Caller = NO_CALLER) -> Result:
        return self.write(op, caller).result

    def create(self, *paths: str) -> None:
        """Create plain znodes with empty data."""
        for path in paths:
            self.write(CreateOp(path, b""))
            assert path in self.state.znodes

    def lead(self, *commands: LeaderCommand, term: int = TERM) -> AppliedEntry:
        """Apply commands of the leader's, in an entry of `term`."""
        return self.apply((), commands, term=term)

    def open_session(
        self, timeout_ms: int = 10_000, *, attached: bool = False, name: str = ""
    ) -> int:
        reply = self.submit(OpenSession(timeout_ms, PASSWORD, name, attached))[0]
        assert isinstance(reply.result, SessionOpened)
        return reply.result.session_id

    def take_changes(self) -> Sequence[Change]:
        changes, self.changes = self.changes, []
        return changes
