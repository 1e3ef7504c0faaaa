"""Rounds: what a leader may conclude from answers, and a follower from what it is told."""

from __future__ import annotations

import random

import pytest

from coordsvc.raft.messages import Round
from coordsvc.raft.rounds import KEPT, FollowedRounds, LeaderRounds

NEVER = -1e9


def leading(size: int = 3) -> LeaderRounds:
    rounds = LeaderRounds(1, tuple(range(2, size + 1)), period_s=0.1)
    rounds.begin_term()
    return rounds


def begin(rounds: LeaderRounds, now: float, *, memoryless: bool = False) -> Round:
    message = rounds.begin_due(now, memoryless)
    assert message is not None, "no round is due"
    rounds.begun()
    return message


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
    assert rounds.begin_due(10.0, False) is not None
    assert rounds.begin_due(10.05, False) is None
    assert rounds.begin_due(10.1, False) is not None
    rounds.confirm(lambda leads: None)
    assert rounds.begin_due(10.101, False) is not None, "somebody waits"
    assert rounds.begin_due(10.102, False) is None


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


# ------------------------------------------------------------------------- the follower's side


def test_a_follower_knows_of_a_majority_from_when_it_heard_the_round() -> None:
    followed = FollowedRounds()
    followed.on_round(1, 5, Round(10, 0), 100.0)
    assert followed.confirmed_at == NEVER
    followed.on_round(1, 5, Round(11, 10), 100.3)
    assert followed.confirmed_at == 100.0


def test_the_latest_confirmed_round_counts() -> None:
    followed = FollowedRounds()
    for number in range(1, 6):
        followed.on_round(1, 5, Round(number, 0), 100.0 + number)
    followed.on_round(1, 5, Round(6, 4), 200.0)
    assert followed.confirmed_at == 104.0


def test_a_round_not_heard_proves_nothing() -> None:
    followed = FollowedRounds()
    followed.on_round(1, 5, Round(10, 9), 100.0)
    assert followed.confirmed_at == NEVER


def test_another_leader_or_term_begins_anew() -> None:
    followed = FollowedRounds()
    followed.on_round(1, 5, Round(10, 0), 100.0)
    followed.on_round(1, 6, Round(11, 10), 101.0)
    assert followed.confirmed_at == NEVER
    followed.on_round(2, 7, Round(12, 11), 102.0)
    assert followed.confirmed_at == NEVER
    followed.on_round(2, 7, Round(13, 12), 103.0)
    assert followed.confirmed_at == 102.0


def test_it_never_goes_back() -> None:
    followed = FollowedRounds()
    followed.on_round(1, 5, Round(1, 0), 100.0)
    followed.on_round(1, 5, Round(2, 1), 101.0)
    followed.on_round(2, 6, Round(1, 0), 90.0)
    followed.on_round(2, 6, Round(2, 1), 90.1)
    assert followed.confirmed_at == 100.0


def test_a_follower_remembers_a_bounded_number() -> None:
    followed = FollowedRounds()
    for number in range(4 * KEPT):
        followed.on_round(1, 5, Round(number, 0), float(number))
    assert len(followed._heard) <= KEPT


@pytest.mark.parametrize("seed", range(20))
def test_a_follower_is_never_more_sure_than_the_leader(seed: int) -> None:
    """Loss and delay in both directions: what a follower believes, the leader knew before."""
    rng = random.Random(seed)
    rounds, followed = leading(), FollowedRounds()
    told: dict[int, float] = {}
    now = 0.0
    for _ in range(300):
        now += rng.random() * 0.2
        message = rounds.begin_due(now, False)
        if message is not None:
            rounds.begun()
            told[message.number] = now
            if rng.random() < 0.7:
                followed.on_round(1, 1, message, now + 0.05)
            for peer in (2, 3):
                if rng.random() < 0.5:
                    rounds.on_reply(peer, rng.choice(list(told)), False)
        assert followed.confirmed_at <= rounds.confirmed_at + 0.05
