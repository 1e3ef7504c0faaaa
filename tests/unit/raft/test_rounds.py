"""Rounds: what a leader may conclude from answers, and a follower from what it is told."""

from __future__ import annotations

import random

import pytest

from coordsvc.raft.messages import Round
from coordsvc.raft.rounds import KEPT, NEVER, UNDER_WAY_MAX, LeaderRounds


def leading(size: int = 3) -> LeaderRounds:
    rounds = LeaderRounds(1, tuple(range(2, size + 1)), period_s=0.1)
    rounds.begin_term()
    return rounds


def begin(rounds: LeaderRounds, now: float, *, memoryless: bool = False) -> Round:
    assert rounds.begin_due(now, memoryless), "no round is due"
    rounds.begun()
    return rounds.message(2)


def test_a_majority_confirms_and_says_when_the_round_began() -> None:
    rounds = leading()
    first = begin(rounds, 10.0)
    assert rounds.confirmed_at == NEVER
    rounds.on_reply(2, first.number, False)
    assert (rounds.confirmed, rounds.confirmed_at) == (first.number, 10.0)


def test_one_of_four_others_is_no_majority() -> None:
    rounds = leading(5)
    number = begin(rounds, 10.0).number
    rounds.on_reply(2, number, False)
    rounds.on_reply(2, number, False)
    assert rounds.confirmed < number
    rounds.on_reply(4, number, False)
    assert rounds.confirmed == number


def test_a_cluster_of_one_confirms_itself() -> None:
    rounds = leading(1)
    told: list[bool] = []
    rounds.confirm(told.append)
    assert told == [], "only when the round begins"
    begin(rounds, 10.0)
    assert told == [True]


def test_who_asks_waits_for_a_round_begun_afterwards() -> None:
    rounds = leading()
    before = begin(rounds, 10.0)
    told: list[bool] = []
    rounds.confirm(told.append)
    rounds.on_reply(2, before.number, False)
    rounds.on_reply(3, before.number, False)
    assert told == []
    after = begin(rounds, 10.001)
    rounds.on_reply(3, before.number, False)
    assert told == []
    rounds.on_reply(3, after.number, False)
    assert told == [True]


def test_a_later_answer_stands_for_the_earlier_rounds() -> None:
    rounds = leading()
    told: list[str] = []
    rounds.confirm(lambda leads: told.append(f"first {leads}"))
    begin(rounds, 10.0)
    rounds.confirm(lambda leads: told.append(f"second {leads}"))
    second = begin(rounds, 10.01)
    rounds.on_reply(3, second.number, False)
    assert told == ["first True", "second True"]


def test_majorities_are_counted_per_round() -> None:
    rounds = leading(5)
    first = begin(rounds, 10.0)
    second = begin(rounds, 10.2)
    rounds.on_reply(2, second.number, False)
    rounds.on_reply(3, first.number, False)
    assert rounds.confirmed == first.number, "2 and 3 and itself answered the first at least"


def test_one_in_doubt_counts_only_with_everybody() -> None:
    rounds = leading()
    number = begin(rounds, 10.0).number
    rounds.on_reply(2, number, True)
    assert rounds.confirmed < number
    rounds.on_reply(3, number, False)
    assert rounds.confirmed == number


def test_a_leader_in_doubt_does_not_count_itself() -> None:
    rounds = leading(3)
    number = begin(rounds, 10.0, memoryless=True).number
    rounds.on_reply(2, number, False)
    assert rounds.confirmed < number
    rounds.on_reply(3, number, False)
    assert rounds.confirmed == number
    number = begin(rounds, 10.2, memoryless=False).number
    rounds.on_reply(2, number, False)
    assert rounds.confirmed == number, "it remembers again"


def test_who_remembers_again_counts_again() -> None:
    rounds = leading()
    number = begin(rounds, 10.0).number
    rounds.on_reply(2, number, True)
    number = begin(rounds, 10.1).number
    rounds.on_reply(2, number, False)
    assert rounds.confirmed == number


def test_answers_to_rounds_that_never_began_do_not_count() -> None:
    rounds = leading()
    number = begin(rounds, 10.0).number
    rounds.on_reply(2, number + 1, False)
    rounds.on_reply(3, number + 1000, False)
    assert rounds.confirmed < number


def test_leaving_the_term_fails_those_who_wait() -> None:
    rounds = leading()
    told: list[bool] = []
    rounds.confirm(told.append)
    number = begin(rounds, 10.0).number
    rounds.confirm(told.append)
    rounds.end_term()
    assert told == [False, False]
    rounds.on_reply(2, number, False)
    rounds.begin_term()
    assert told == [False, False]


def test_answers_of_an_earlier_term_confirm_nothing_in_the_next() -> None:
    rounds = leading()
    old = begin(rounds, 10.0).number
    rounds.begin_term()
    told: list[bool] = []
    rounds.confirm(told.append)
    new = begin(rounds, 11.0).number
    rounds.on_reply(2, old, False)
    assert told == [] and new > old
    assert rounds.confirmed_at == NEVER


def test_rounds_come_by_themselves_and_at_once_when_wanted() -> None:
    rounds = leading()
    assert rounds.begin_due(10.0, False)
    assert not rounds.begin_due(10.05, False)
    assert rounds.begin_due(10.1, False)
    rounds.confirm(lambda leads: None)
    assert rounds.begin_due(10.101, False), "somebody waits"
    assert not rounds.begin_due(10.102, False)


def test_with_a_long_way_to_the_peers_those_who_ask_share_a_round() -> None:
    """A round for each turn would pile up, and the beginning of each be forgotten before it is
    confirmed: then nobody would ever be sure of the leader."""
    rounds = leading()
    begun: list[tuple[float, Round]] = []
    told: list[bool] = []
    for turn in range(4000):
        now = 10.0 + turn * 0.001
        rounds.confirm(told.append)
        if rounds.begin_due(now, False):
            rounds.begun()
            begun.append((now, rounds.message(2)))
        while begun and now - begun[0][0] >= 0.5:
            rounds.on_reply(2, begun.pop(0)[1].number, False)
        assert len(begun) <= UNDER_WAY_MAX + 5, "those of the period come in addition"
        if turn > 1000:
            assert now - rounds.confirmed_at <= 0.7
    assert len(told) > 3000 and all(told)


def test_what_was_under_way_in_an_earlier_term_does_not_fill_the_next() -> None:
    rounds = leading()
    for turn in range(2 * UNDER_WAY_MAX):
        begin(rounds, 10.0 + turn)
    rounds.begin_term()
    begin(rounds, 500.0)
    rounds.confirm(lambda leads: None)
    assert rounds.begin_due(500.001, False), "somebody waits, and there is room"


def test_a_caller_may_ask_again_from_its_answer() -> None:
    rounds = leading()
    told: list[bool] = []
    rounds.confirm(lambda leads: rounds.confirm(told.append))
    first = begin(rounds, 10.0)
    rounds.on_reply(2, first.number, False)
    assert told == []
    second = begin(rounds, 10.0)
    rounds.on_reply(2, second.number, False)
    assert told == [True]


def test_what_is_remembered_of_unanswered_rounds_is_bounded() -> None:
    rounds = leading()
    for turn in range(4 * KEPT):
        begin(rounds, 10.0 + turn)
    assert len(rounds._began) <= KEPT
    last = begin(rounds, 9999.0)
    rounds.on_reply(3, last.number, False)
    assert rounds.confirmed_at == 9999.0
    assert rounds._began == {}


# ---------------------------------------------------------------------- what followers are told


def test_a_follower_learns_a_time_before_the_confirmed_round_began() -> None:
    rounds = leading()
    first = begin(rounds, 10.0)
    assert first.echo == 0.0
    rounds.on_reply(2, first.number, False, said_at=500.0)
    second = begin(rounds, 10.1)
    assert second.echo == 0.0, "nothing was heard of its clock before the first began"
    rounds.on_reply(2, second.number, False, said_at=500.1)
    assert begin(rounds, 10.2).echo == 500.0


def test_each_peer_gets_its_own_time_back() -> None:
    rounds = leading()
    for turn in range(3):
        number = begin(rounds, 10.0 + turn).number
        rounds.on_reply(2, number, False, said_at=500.0 + turn)
        rounds.on_reply(3, number, False, said_at=7.0 + turn)
    assert begin(rounds, 13.0).echo == 501.0
    assert rounds.message(3).echo == 8.0


def test_no_majority_no_time() -> None:
    rounds = leading(5)
    for turn in range(5):
        number = begin(rounds, 10.0 + turn).number
        rounds.on_reply(2, number, False, said_at=500.0 + turn)
    assert begin(rounds, 20.0).echo == 0.0


def test_a_new_connection_may_be_another_process_with_another_clock() -> None:
    rounds = leading()
    for turn in range(3):
        number = begin(rounds, 10.0 + turn).number
        rounds.on_reply(2, number, False, said_at=500.0 + turn)
    pending = begin(rounds, 13.0).number
    rounds.link_up(2)
    assert rounds.message(2).echo == 0.0
    rounds.on_reply(3, pending, False, said_at=1.0)
    assert rounds.message(2).echo == 0.0, "not from what was noted before either"


@pytest.mark.parametrize("seed", range(20))
def test_a_follower_is_never_more_sure_than_the_leader(seed: int) -> None:
    """Loss and any delay in both directions: the time a follower is told lies before the beginning
    of a round that a majority answered."""
    rng = random.Random(seed)
    rounds = leading()
    to_follower: list[Round] = []
    to_leader: list[tuple[int, float]] = []
    now, believed, learnt = 0.0, NEVER, 0
    for _ in range(600):
        now += rng.random() * 0.1
        if rounds.begin_due(now, False):
            rounds.begun()
            to_follower.append(rounds.message(2))
        if to_follower and rng.random() < 0.6:
            message = to_follower.pop(0)
            if message.echo and message.echo > believed:
                believed, learnt = message.echo, learnt + 1
            if rng.random() < 0.8:
                to_leader.append((message.number, now))
        if to_leader and rng.random() < 0.6:
            number, said_at = to_leader.pop(0)
            rounds.on_reply(2, number, False, said_at)
        assert believed <= rounds.confirmed_at
    assert learnt > 20
