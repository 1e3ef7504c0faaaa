"""Read-index, the asking side: who waits for what, and who is told.

Goal: no reader is let go before the state is as new as it was anywhere when the reader came, and
none is forgotten. Method: the questions are answered by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from coordsvc.errors import NoQuorumError
from coordsvc.raft.reads import ASK_AGAIN_S, ReadIndexes


class Scene:
    def __init__(self) -> None:
        self.asked: list[int] = []
        self.leader_is_known = True
        self.reads = ReadIndexes(asyncio.get_running_loop(), self.ask)

    def ask(self, request: int) -> bool:
        if self.leader_is_known:
            self.asked.append(request)
        return self.leader_is_known

    def ask_for(self, deadline: float = 100.0, now: float = 0.0) -> asyncio.Future[None]:
        future = self.reads.submit(deadline)
        self.reads.turn(now)
        return future


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    yield Scene()


async def test_all_who_come_in_one_turn_share_a_question(scene: Scene) -> None:
    futures = [scene.reads.submit(100.0) for _ in range(5)]
    scene.reads.turn(0.0)
    assert len(scene.asked) == 1
    scene.reads.on_index(scene.asked[0], 7, applied=7)
    assert all(future.done() for future in futures)


async def test_who_comes_after_a_question_was_asked_gets_another(scene: Scene) -> None:
    first = scene.ask_for()
    second = scene.ask_for()
    scene.reads.on_index(scene.asked[0], 7, applied=7)
    assert first.done() and not second.done()
    scene.reads.on_index(scene.asked[1], 7, applied=7)
    assert second.done()


async def test_the_index_must_be_applied(scene: Scene) -> None:
    future = scene.ask_for()
    scene.reads.on_index(scene.asked[0], 9, applied=7)
    scene.reads.on_applied(8)
    assert not future.done()
    scene.reads.on_applied(9)
    assert future.done()


async def test_lower_indexes_are_served_first(scene: Scene) -> None:
    late = scene.ask_for()
    early = scene.ask_for()
    scene.reads.on_index(scene.asked[0], 20, applied=1)
    scene.reads.on_index(scene.asked[1], 10, applied=1)
    scene.reads.on_applied(15)
    assert early.done() and not late.done()


async def test_a_cluster_of_one_answers_before_the_question_returns() -> None:
    reads: ReadIndexes

    def ask(request: int) -> bool:
        reads.on_index(request, 3, applied=3)
        return True

    reads = ReadIndexes(asyncio.get_running_loop(), ask)
    future = reads.submit(100.0)
    reads.turn(0.0)
    assert future.done()


async def test_without_a_leader_the_question_waits(scene: Scene) -> None:
    scene.leader_is_known = False
    future = scene.ask_for()
    scene.leader_is_known = True
    assert scene.reads.pending
    scene.reads.turn(0.1)
    scene.reads.on_index(scene.asked[0], 1, applied=1)
    assert future.done()


async def test_when_the_leader_left_its_term_the_next_is_asked(scene: Scene) -> None:
    future = scene.ask_for()
    scene.reads.on_failed(scene.asked[0])
    scene.reads.turn(0.1)
    assert len(set(scene.asked)) == 2
    scene.reads.on_index(scene.asked[0], 1, applied=1)
    assert not future.done(), "that answer is to a question that was given up"
    scene.reads.on_index(scene.asked[1], 1, applied=1)
    assert future.done()


async def test_a_question_whose_answer_is_lost_is_asked_again(scene: Scene) -> None:
    scene.ask_for()
    scene.reads.check_deadlines(ASK_AGAIN_S / 2)
    scene.reads.turn(ASK_AGAIN_S / 2)
    assert len(scene.asked) == 1
    scene.reads.check_deadlines(ASK_AGAIN_S)
    scene.reads.turn(ASK_AGAIN_S)
    assert len(scene.asked) == 2


async def test_a_new_connection_to_the_leader_asks_all_again(scene: Scene) -> None:
    first, second = scene.ask_for(), scene.ask_for()
    scene.reads.ask_again()
    scene.reads.turn(0.1)
    assert len(scene.asked) == 3
    scene.reads.on_index(scene.asked[2], 1, applied=1)
    assert first.done() and second.done()


async def test_the_deadline_ends_the_wait_in_every_stage(scene: Scene) -> None:
    applying = scene.ask_for(5.0)
    scene.reads.on_index(scene.asked[0], 50, applied=1)
    asked = scene.ask_for(5.0)
    scene.leader_is_known = False
    gathering = scene.ask_for(5.0)
    scene.reads.check_deadlines(4.9)
    assert not (applying.done() or asked.done() or gathering.done())
    scene.reads.check_deadlines(5.0)
    for future in (applying, asked, gathering):
        assert isinstance(future.exception(), NoQuorumError)


async def test_a_reader_that_goes_away_takes_nothing_with_it(scene: Scene) -> None:
    gone, stays = scene.reads.submit(100.0), scene.reads.submit(100.0)
    scene.reads.turn(0.0)
    gone.cancel()
    scene.reads.on_index(scene.asked[0], 9, applied=1)
    scene.reads.on_applied(9)
    assert stays.done() and gone.cancelled()
    assert scene.ask_for().cancel()
    scene.reads.on_failed(scene.asked[1])
    scene.reads.check_deadlines(1.0)
    scene.reads.turn(1.0)
    assert not scene.reads.pending


async def test_without_a_majority_all_who_are_unanswered_are_refused(scene: Scene) -> None:
    asked = scene.ask_for()
    scene.leader_is_known = False
    gathering = scene.ask_for()
    scene.reads.refuse_all(NoQuorumError("nobody"))
    for future in (asked, gathering):
        assert isinstance(future.exception(), NoQuorumError)
    assert not scene.reads.pending


async def test_an_answer_nobody_waits_for_is_harmless(scene: Scene) -> None:
    scene.reads.on_index(12345, 1, applied=1)
    scene.reads.on_failed(12345)
    scene.reads.on_applied(99)
