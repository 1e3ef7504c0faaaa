"""Readers: who looks at the state between two commands of an entry."""

from __future__ import annotations

from coordsvc.core.commands import (
    APPLIED,
    DUPLICATE,
    NO_CALLER,
    VOID,
    Batch,
    ClientCommand,
    CreateOp,
    DeleteOp,
    Entry,
    SetDataOp,
    Write,
)
from coordsvc.core.machine import Reader
from tests.unit.core.harness import TERM, Harness


class Look:
    """Notes what is at /a, and the zxid."""

    def __init__(self, harness: Harness) -> None:
        self._state = harness.state
        self.seen: list[tuple[bytes | None, int]] = []

    def read(self) -> None:
        znode = self._state.znodes.get("/a")
        self.seen.append((znode.data if znode is not None else None, self._state.zxid))


def write(op: CreateOp | SetDataOp | DeleteOp) -> ClientCommand:
    return Write(NO_CALLER, op)


def test_a_reader_sees_its_command_and_not_the_next() -> None:
    harness = Harness()
    look = Look(harness)
    zxid = harness.state.zxid
    batch = Batch(
        1,
        harness.incarnation,
        1,
        (
            write(CreateOp("/a", b"0")),
            write(SetDataOp("/a", b"1")),
            write(SetDataOp("/missing", b"")),
            write(DeleteOp("/a")),
        ),
    )
    readers: dict[int, list[Reader]] = {0: [look, look], 1: [look], 2: [look], 3: [look]}
    applied = harness.machine.apply_entry(Entry(1, 1, (batch,)), TERM, {0: readers})
    assert applied.batches[0].status == APPLIED
    assert [reply.zxid for reply in applied.batches[0].replies] == [zxid + n for n in (1, 2, 3, 4)]
    assert look.seen == [
        (b"0", zxid + 1),
        (b"0", zxid + 1),
        (b"1", zxid + 2),
        (b"1", zxid + 3),
        (None, zxid + 4),
    ]


def test_nobody_reads_where_nothing_runs() -> None:
    """A batch that came again, or that nobody can number: its writes did not run here and now."""
    harness = Harness()
    harness.submit(write(CreateOp("/a", b"0")))
    look = Look(harness)
    again = Batch(1, harness.incarnation, 1, (write(SetDataOp("/a", b"1")),))
    void = Batch(1, harness.incarnation + 1, 2, (write(SetDataOp("/a", b"2")),))
    entry = Entry(1, 1, (again, void))
    readers = {0: {0: [look]}, 1: {0: [look]}}
    applied = harness.machine.apply_entry(entry, TERM, readers)
    assert [batch.status for batch in applied.batches] == [DUPLICATE, VOID]
    assert not look.seen


def test_batches_have_readers_of_their_own() -> None:
    harness = Harness()
    first, second = Look(harness), Look(harness)
    batches = tuple(
        Batch(1, harness.incarnation, seq, (op,))
        for seq, op in ((1, write(CreateOp("/a", b"1"))), (2, write(SetDataOp("/a", b"2"))))
    )
    readers = {0: {0: [first]}, 1: {0: [second]}}
    harness.machine.apply_entry(Entry(1, 1, batches), TERM, readers)
    assert [data for data, _ in first.seen + second.seen] == [b"1", b"2"]
