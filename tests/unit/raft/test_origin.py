"""The origin: numbering, sending again, and what each caller is told.

Goal: whatever is lost, doubled or given up between replicas, each write is applied at most once and
its caller hears what is certain. Method: the log and the state machine's origin table are played
by hand, with the rules of `core` for batches.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from coordsvc.core.commands import (
    APPLIED,
    DUPLICATE,
    GAP,
    NO_CALLER,
    VOID,
    AppliedBatch,
    Batch,
    Deleted,
    DeleteOp,
    OriginRegistered,
    RegisterOrigin,
    Reply,
    Write,
)
from coordsvc.errors import (
    LimitExceededError,
    NoQuorumError,
    OutcomeUnknownError,
    ShuttingDownError,
)
from coordsvc.raft.origin import Origin, SentBatch
from coordsvc.raft.settings import ReplicaSettings

INCARNATION = 10
FAR = 1000.0
decode = msgspec.msgpack.Decoder(Batch).decode


class Table:
    """The state machine's side: runs each batch once, in order of its number."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.last = 0
        self.zxid = 100
        self.ran: list[str] = []

    def apply(self, raw: bytes, now: float = 0.0) -> int:
        batch = decode(raw)
        replies: tuple[Reply, ...] = ()
        if batch.incarnation != INCARNATION:
            status = VOID
        elif batch.seq == self.last + 1:
            status, self.last = APPLIED, batch.seq
            replies = tuple(self._run(command) for command in batch.commands)  # type: ignore[arg-type]
        else:
            status = DUPLICATE if batch.seq <= self.last else GAP
        applied = AppliedBatch(
            batch.replica_id, batch.incarnation, batch.seq, status, self.last + 1, replies
        )
        for future, reply in self.origin.on_applied(applied, now):
            if not future.done():
                future.set_result(reply)
        return status

    def _run(self, command: Write) -> Reply:
        self.zxid += 1
        assert isinstance(command.op, DeleteOp)
        self.ran.append(command.op.path)
        return Reply(self.zxid, Deleted())


class Scene:
    def __init__(self, **limits: int) -> None:
        self.origin = Origin(ReplicaSettings(1, **limits), b"n" * 16)
        self.origin.registered(Reply(INCARNATION, OriginRegistered(INCARNATION)), 0.0)
        self.table = Table(self.origin)

    def submit(
        self, path: str = "/x", deadline: float = FAR, now: float = 0.0
    ) -> asyncio.Future[Reply]:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.origin.submit_to(Write(NO_CALLER, DeleteOp(path)), deadline, now, future)
        return future

    def cut(self, now: float = 0.0) -> list[SentBatch]:
        return list(self.origin.cut(now))


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    yield Scene()


def paths(batch: SentBatch) -> list[str]:
    return [command.op.path for command in decode(batch.raw).commands]  # type: ignore[union-attr]


# ---------------------------------------------------------------------- registration


async def test_a_registration_is_a_batch_of_its_own() -> None:
    origin = Origin(ReplicaSettings(3), b"n" * 16)
    assert decode(origin.registration) == Batch(3, 0, 0, (RegisterOrigin(3, b"n" * 16),))
    assert origin.incarnation == 0


async def test_a_repeated_registration_changes_nothing(scene: Scene) -> None:
    scene.origin.registered(Reply(99, OriginRegistered(99)), 0.0)
    assert scene.origin.incarnation == INCARNATION


async def test_nothing_is_numbered_before_the_registration() -> None:
    origin = Origin(ReplicaSettings(1), b"n" * 16)
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    origin.submit_to(Write(NO_CALLER, DeleteOp("/x")), FAR, 0.0, future)
    with pytest.raises(AssertionError, match="incarnation"):
        next(origin.cut(0.0))
    assert not future.done()


# ---------------------------------------------------------------------- batches


async def test_one_turn_is_one_batch_with_the_next_number(scene: Scene) -> None:
    for path in ("/a", "/b"):
        scene.submit(path)
    (first,) = scene.cut()
    scene.submit("/c")
    (second,) = scene.cut()
    assert (first.seq, paths(first)) == (1, ["/a", "/b"])
    assert (second.seq, paths(second)) == (2, ["/c"])
    assert scene.cut() == []


async def test_answers_go_to_their_callers(scene: Scene) -> None:
    futures = [scene.submit(f"/{n}") for n in range(3)]
    (batch,) = scene.cut()
    assert scene.table.apply(batch.raw) == APPLIED
    assert [(await future).zxid for future in futures] == [101, 102, 103]
    assert scene.origin.undecided == 0


async def test_a_batch_is_cut_by_commands_and_by_bytes() -> None:
    scene = Scene(entry_commands_max=3)
    for n in range(7):
        scene.submit(f"/{n}")
    assert [batch.commands for batch in scene.cut()] == [3, 3, 1]
    one = len(msgspec.msgpack.encode(Write(NO_CALLER, DeleteOp("/0"))))
    scene = Scene(entry_bytes_max=2 * one)
    for n in range(5):
        scene.submit(f"/{n}")
    assert [batch.commands for batch in scene.cut()] == [2, 2, 1]


async def test_a_sent_batch_never_changes(scene: Scene) -> None:
    kept, gone = scene.submit("/kept"), scene.submit("/gone", deadline=5.0)
    (batch,) = scene.cut()
    before = batch.raw
    gone.cancel()
    scene.submit("/later")
    scene.origin.check_deadlines(6.0)
    scene.cut(6.0)
    assert [each.raw for each in scene.origin.sent()][0] == before
    assert not kept.cancelled()


async def test_what_was_not_applied_is_sent_again_in_order(scene: Scene) -> None:
    for n in range(4):
        scene.submit(f"/{n}")
        scene.cut()
    first, *others = scene.origin.sent()
    scene.table.apply(first.raw)
    assert [batch.seq for batch in scene.origin.sent()] == [2, 3, 4]
    assert scene.origin.sent() == others


# ---------------------------------------------------------------------- faults between replicas


async def test_a_copy_runs_once_and_answers_once(scene: Scene) -> None:
    future = scene.submit("/a")
    (batch,) = scene.cut()
    assert [scene.table.apply(batch.raw) for _ in range(3)] == [APPLIED, DUPLICATE, DUPLICATE]
    assert scene.table.ran == ["/a"]
    assert (await future).zxid == 101


async def test_a_gap_asks_for_all_to_be_sent_again(scene: Scene) -> None:
    futures = []
    for path in ("/a", "/b"):
        futures.append(scene.submit(path))
        scene.cut()
    assert not scene.origin.resend_due
    assert scene.table.apply(scene.origin.sent()[1].raw) == GAP
    assert scene.origin.resend_due
    for batch in scene.origin.sent():
        scene.table.apply(batch.raw)
    assert scene.table.ran == ["/a", "/b"]
    assert [(await future).zxid for future in futures] == [101, 102]


async def test_an_earlier_process_of_this_replica_answers_nobody(scene: Scene) -> None:
    future = scene.submit()
    (batch,) = scene.cut()
    old = AppliedBatch(1, INCARNATION - 3, batch.seq, APPLIED, 2, (Reply(7, Deleted()),))
    assert scene.origin.on_applied(old, 0.0) == []
    assert scene.origin.on_applied(AppliedBatch(1, INCARNATION - 3, 9, VOID, 0), 0.0) == []
    assert not future.done()


async def test_registered_anew_by_a_late_copy_it_starts_over(scene: Scene) -> None:
    """What was sent under the old incarnation is answered as unknown, and the next registration
    begins a new one, with numbers from 1."""
    undecided = scene.submit()
    (batch,) = scene.cut()
    assert scene.origin.on_applied(AppliedBatch(1, INCARNATION, batch.seq, VOID, 1), 0.0) == []
    with pytest.raises(OutcomeUnknownError):
        await undecided
    assert scene.origin.incarnation == 0 and not scene.origin.sent()

    scene.origin.registered(Reply(INCARNATION + 5, OriginRegistered(INCARNATION + 5)), 0.0)
    scene.submit()
    (again,) = scene.cut()
    assert (scene.origin.incarnation, again.seq) == (INCARNATION + 5, 1)


async def test_no_progress_for_an_election_timeout_is_noticed(scene: Scene) -> None:
    assert not scene.origin.stuck(99.0), "nothing is under way"
    scene.submit(now=5.0)
    scene.cut(5.0)
    assert not scene.origin.stuck(5.9)
    assert scene.origin.stuck(6.0)


async def test_progress_is_what_is_applied_not_what_is_sent(scene: Scene) -> None:
    scene.submit(now=5.0)
    (first,) = scene.cut(5.0)
    scene.submit(now=5.9)
    scene.cut(5.9)
    assert scene.origin.stuck(6.0)
    scene.table.apply(first.raw, now=6.0)
    assert not scene.origin.stuck(6.9)


@pytest.mark.parametrize("seed", range(30))
async def test_loss_copies_and_cancels_leave_each_write_applied_once(seed: int) -> None:
    rng = random.Random(seed)
    scene = Scene(entry_commands_max=3)
    under_way: list[bytes] = []
    futures: dict[str, asyncio.Future[Reply]] = {}
    now = 0.0
    for step in range(400):
        now += 0.01
        if step < 300 and rng.random() < 0.5:
            path = f"/{step}"
            futures[path] = scene.submit(path, deadline=FAR, now=now)
        if rng.random() < 0.1 and futures:
            rng.choice(list(futures.values())).cancel()
        if scene.origin.resend_due or scene.origin.stuck(now) or step > 380:
            scene.origin.resend_due = False
            scene.origin.progress_at = now
            under_way.extend(batch.raw for batch in scene.origin.sent())
        under_way.extend(batch.raw for batch in scene.cut(now) if rng.random() < 0.8)
        if under_way:
            raw = under_way[0] if rng.random() < 0.7 else rng.choice(under_way)
            if rng.random() < 0.9:
                under_way.remove(raw)
            if rng.random() < 0.9:
                scene.table.apply(raw, now)
    for batch in scene.origin.sent():
        scene.table.apply(batch.raw, now)
    ran = scene.table.ran
    assert len(ran) == len(set(ran)), "a write ran twice"
    assert ran == sorted(ran, key=lambda path: int(path[1:])), "out of order"
    for path, future in futures.items():
        assert future.done()
        if not future.cancelled():
            assert ran.count(path) == 1 and (await future).zxid == 101 + ran.index(path)
    assert scene.origin._bytes == 0
    assert len(ran) > 100


# ---------------------------------------------------------------------- deadlines, callers, bounds


async def test_a_deadline_before_sending_means_certainly_not_applied(scene: Scene) -> None:
    late = scene.submit("/late", deadline=5.0)
    kept = scene.submit("/kept")
    scene.origin.check_deadlines(5.0)
    assert isinstance(late.exception(), NoQuorumError)
    (batch,) = scene.cut(5.0)
    assert paths(batch) == ["/kept"] and not kept.done()


async def test_a_deadline_that_passes_before_the_next_check_counts_too(scene: Scene) -> None:
    late = scene.submit("/late", deadline=5.0)
    assert scene.cut(5.1) == []
    assert isinstance(late.exception(), NoQuorumError)


class Submitted:
    """A write that is its own waiter. `then()` is called when it is refused."""

    def __init__(self, path: str, then: Callable[[], None] = lambda: None) -> None:
        self.command = Write(NO_CALLER, DeleteOp(path))
        self.deadline = FAR
        self.error: BaseException | None = None
        self._then = then

    def done(self) -> bool:
        return self.error is not None

    def set_result(self, reply: Reply, /) -> None:
        raise AssertionError(reply)

    def set_exception(self, error: BaseException, /) -> None:
        self.error = error
        self._then()


async def test_many_at_once_are_taken_in_order_until_one_refuses_those_behind_it() -> None:
    """A stream refuses what is behind a write that found no room; what is taken stays."""
    scene = Scene(origin_commands_max=2)
    behind = Submitted("/d")
    third = Submitted("/c", lambda: behind.set_exception(OutcomeUnknownError("behind")))
    scene.origin.submit_all([Submitted("/a"), Submitted("/b"), third, behind], 0.0)
    assert isinstance(third.error, NoQuorumError)
    assert isinstance(behind.error, OutcomeUnknownError)
    (batch,) = scene.cut()
    assert paths(batch) == ["/a", "/b"]


async def test_a_deadline_in_the_past_is_refused_at_once(scene: Scene) -> None:
    assert isinstance(scene.submit(deadline=4.0, now=4.0).exception(), NoQuorumError)
    assert scene.origin.waiting == 0


async def test_a_deadline_after_sending_means_unknown(scene: Scene) -> None:
    future = scene.submit("/a", deadline=2.0)
    (batch,) = scene.cut()
    scene.origin.check_deadlines(2.0)
    assert isinstance(future.exception(), OutcomeUnknownError)
    assert scene.origin.sent() == [batch], "it stays until it is seen applied"
    scene.table.apply(batch.raw)
    assert scene.table.ran == ["/a"]


async def test_what_is_undecided_for_long_is_answered_whatever_the_deadline(scene: Scene) -> None:
    future = scene.submit(deadline=FAR)
    scene.cut(1.0)
    limit = 1.0 + ReplicaSettings(1).unknown_outcome_after_s
    scene.origin.check_deadlines(limit - 0.1)
    assert not future.done()
    scene.origin.check_deadlines(limit)
    assert isinstance(future.exception(), OutcomeUnknownError)


async def test_cancelled_before_sending_is_not_proposed(scene: Scene) -> None:
    scene.submit("/gone").cancel()
    scene.submit("/kept")
    (batch,) = scene.cut()
    assert paths(batch) == ["/kept"]


async def test_cancelled_after_sending_is_applied_and_its_neighbours_are_answered(
    scene: Scene,
) -> None:
    gone, kept = scene.submit("/gone"), scene.submit("/kept")
    (batch,) = scene.cut()
    gone.cancel()
    scene.table.apply(batch.raw)
    assert scene.table.ran == ["/gone", "/kept"]
    assert (await kept).zxid == 102


async def test_too_large_a_write_is_refused_for_good() -> None:
    scene = Scene(entry_bytes_max=100)
    assert isinstance(scene.submit("/" + "x" * 100).exception(), LimitExceededError)


async def test_the_bound_counts_what_waits_and_what_is_sent() -> None:
    scene = Scene(origin_bytes_max=1000)
    taken = []
    while not (future := scene.submit("/" + "x" * 80)).done():
        taken.append(future)
        scene.cut()
    assert isinstance(future.exception(), NoQuorumError)
    assert 5 <= len(taken) <= 10
    taken[0].cancel()
    assert scene.submit("/" + "x" * 80).done(), "what was sent still waits to be applied"
    for batch in scene.origin.sent():
        scene.table.apply(batch.raw)
    assert not scene.submit("/" + "x" * 80).done()


async def test_bytes_come_back_whichever_way_a_write_ends(scene: Scene) -> None:
    scene.submit("/cancelled").cancel()
    scene.submit("/late", deadline=1.0)
    scene.submit("/kept")
    scene.origin.check_deadlines(1.0)
    for batch in scene.cut(1.0):
        scene.table.apply(batch.raw)
    scene.submit("/refused")
    scene.origin.refuse_waiting(NoQuorumError("nobody"))
    scene.submit("/cancelled later").cancel()
    scene.cut(1.0)
    assert scene.origin._bytes == 0


async def test_without_a_majority_only_what_was_not_sent_is_refused(scene: Scene) -> None:
    sent = scene.submit("/sent")
    scene.cut()
    waiting = scene.submit("/waiting")
    scene.origin.refuse_waiting(NoQuorumError("nobody"))
    assert isinstance(waiting.exception(), NoQuorumError)
    assert not sent.done()


async def test_closing_refuses_what_was_not_sent_and_all_that_comes(scene: Scene) -> None:
    sent = scene.submit("/sent")
    (batch,) = scene.cut()
    waiting = scene.submit("/waiting")
    scene.origin.close()
    assert isinstance(waiting.exception(), ShuttingDownError)
    assert isinstance(scene.submit().exception(), ShuttingDownError)
    scene.table.apply(batch.raw)
    assert sent.done() and sent.exception() is None
