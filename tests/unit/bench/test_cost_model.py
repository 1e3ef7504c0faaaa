"""The cost model finds again what its runs were made of, and its misses are named.

Method: runs are computed from known coefficients, with batches of several sizes, at clients that
are spread, at the leader and at a follower; fitted; and held against what they were made of.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.cost_model import Batches, DoorCost, Model, SetCost, fit_door, fit_model, share_of
from bench.cost_predictions import (
    Cluster,
    bound,
    check_row,
    check_sweep,
    front_end_us,
    leader_us,
)
from bench.least_squares import UndeterminedError, fit
from bench.load import GET, SET
from bench.report_model import section
from bench.side_by_side_results import RowResult, Run
from bench.side_by_side_rows import FOLLOWER, LEADER, SPREAD, STREAM_DOOR, Row
from bench.sweep_results import PointResult, SweepResult
from tests.unit.bench import builders
from tests.unit.bench.builders import LEADER_ID, SERVERS, point, sweep

SETS = SetCost(DoorCost(4.0, 30.0), apply=5.0, turn=300.0, lead=2.0, lead_turn=100.0)
GETS = DoorCost(3.0, 15.0)
W3 = Row("W3", "sets", SET, 120, 1, floor=1, goal=2)


def set_run(
    batches: Batches, place: str = SPREAD, connections: int = 3, rate: float = 1_000_000.0
) -> Run:
    """Of so many operations that whole messages and turns come close to the batches."""
    empty = builders.run(dict.fromkeys(SERVERS, 1.0))
    us = {
        each: SETS.replica_us(
            share_of(place, each, empty, connections), batches, is_leader=each == LEADER_ID
        )
        for each in SERVERS
    }
    return builders.run(us, rate=rate, per_message=batches.message, per_turn=batches.turn)


def get_run(message: float) -> Run:
    us = {each: GETS.us(Batches(message, 1.0)) / len(SERVERS) for each in SERVERS}
    return builders.run(us, rate=1_000_000.0, per_message=message, per_turn=1_000_000.0)


def sweeps(more: list[PointResult] | None = None) -> list[SweepResult]:
    sets = [
        point([set_run(Batches(1.0, 1.0))], connections=3),
        point([set_run(Batches(1.0, 40.0))], connections=120),
        point([set_run(Batches(64.0, 256.0))], connections=12, in_flight=64),
        point([set_run(Batches(64.0, 256.0), LEADER)], connections=12, in_flight=64, place=LEADER),
        point(
            [set_run(Batches(64.0, 256.0), FOLLOWER)], connections=12, in_flight=64, place=FOLLOWER
        ),
    ]
    gets = [
        point([get_run(message)], operation=GET, in_flight=round(message), reads=1.0)
        for message in (1.0, 8.0, 64.0)
    ]
    return [sweep("clients", [*sets, *gets, *(more or [])])]


def model() -> Model:
    found = fit_model(sweeps())
    assert found is not None
    return found


# ------------------------------------------------------------------------------------------ fits


def test_the_coefficients_are_found_again() -> None:
    found = model()
    for name in ("apply", "turn", "lead", "lead_turn"):
        assert getattr(found.sets, name) == pytest.approx(getattr(SETS, name), rel=0.01), name
    assert found.sets.door.operation == pytest.approx(4.0, rel=0.01)
    assert found.sets.door.message == pytest.approx(30.0, rel=0.01)
    assert found.gets.operation == pytest.approx(3.0, rel=0.01)
    assert found.gets.message == pytest.approx(15.0, rel=0.01)


def test_mixed_and_paced_loads_are_not_fitted_to() -> None:
    """They are there to be predicted."""
    wild = builders.run(dict.fromkeys(SERVERS, 1_000.0))
    mixed = point([wild], reads=0.5)
    paced = point([wild], rate=500.0)
    assert fit_model(sweeps([mixed, paced])) == model()


def test_batches_follow_from_what_is_in_flight() -> None:
    """As seen: 3 turns under way (120 and 768 in flight in turns of 40 and 256); messages full."""
    assert model().batches(240, 1) == Batches(1.0, pytest.approx(80.0, rel=0.01))
    assert model().batches(12, 64).message == pytest.approx(64.0, rel=0.01)
    assert model().batches(1, 1) == Batches(1.0, 1.0)


def test_without_gets_or_without_batches_of_two_sizes_there_is_no_model() -> None:
    assert fit_model([]) is None
    one_size = [sweep("clients", [each for each in sweeps()[0].points if each.in_flight == 1])]
    assert fit_model(one_size) is None


def test_another_door_is_what_is_left_of_its_rows() -> None:
    stream = DoorCost(12.0, 200.0)
    rows = []
    for in_flight, turn in ((64, 256.0), (1, 40.0)):
        batches = Batches(float(in_flight), turn)
        total = replace(SETS, door=stream).total_us(batches)
        us = dict.fromkeys(SERVERS, total / 3)
        made = builders.run(us, rate=1e6, per_message=in_flight, per_turn=turn)
        rows.append((Row("W", "", SET, 12, in_flight, floor=1, goal=1, door=STREAM_DOOR), [made]))
    found = fit_door(model(), rows)
    assert found is not None
    assert found.operation == pytest.approx(12.0, rel=0.05)
    assert found.message == pytest.approx(200.0, rel=0.05)
    assert fit_door(model(), rows[:1]) is None


def test_coefficients_are_never_negative() -> None:
    """What would be is left out, and the rest fitted again."""
    rows = [[1.0, size] for size in (1.0, 2.0, 4.0)]
    assert fit(rows, [8.0, 7.0, 5.0])[1] == 0.0
    assert fit(rows, [3.0, 5.0, 9.0]) == pytest.approx([1.0, 2.0])


def test_equations_that_do_not_tell_coefficients_apart_are_refused() -> None:
    with pytest.raises(UndeterminedError):
        fit([[1.0, 2.0], [2.0, 4.0]], [1.0, 2.0])


@pytest.mark.parametrize(
    ("place", "shares"),
    [(SPREAD, [0.4, 0.4, 0.2]), (LEADER, [0, 1, 0]), (FOLLOWER, [1, 0, 0])],
)
def test_clients_are_shared_out_as_a_load_does(place: str, shares: list[float]) -> None:
    some = builders.run(dict.fromkeys(SERVERS, 1.0))
    assert [share_of(place, each, some, 5) for each in SERVERS] == shares


# ----------------------------------------------------------------------------------- predictions


def test_a_row_is_held_against_what_the_model_says() -> None:
    """Here its cost is a half more than that, and only half of the cores were busy."""
    batches = Batches(1.0, 40.0)
    us = 1.5 * SETS.total_us(batches)
    measured = builders.run(
        dict.fromkeys(SERVERS, us / 3), rate=1e6 / us, per_message=1.0, per_turn=40.0
    )
    result = RowResult("W3", "the command", "2 cores", {"coordsvc": ""}, [measured])
    check = check_row(model(), {}, W3, result)
    assert check is not None
    assert check.miss == pytest.approx(1 / 1.5 - 1, rel=0.02)
    # 2 cores; the servers used one, and the generator a tenth of one.
    assert check.busy == pytest.approx(0.55, rel=0.02)
    assert check.rate_miss == pytest.approx(2 / (1 / 1.5 + 0.1) - 1, rel=0.03)


def test_of_a_turn_of_a_mixed_load_only_sets_count() -> None:
    mixed = point([builders.run(dict.fromkeys(SERVERS, 10.0), per_turn=8.0)], reads=0.75)
    [check] = check_sweep(model(), sweep("reads", [mixed]))
    assert check.batches.turn == pytest.approx(2.0, rel=0.01)


def test_misses_are_named_in_the_section() -> None:
    batches = Batches(1.0, 40.0)
    us = 2 * SETS.total_us(batches)
    measured = builders.run(dict.fromkeys(SERVERS, us / 3), per_message=1.0, per_turn=40.0)
    row = RowResult("W3", "the command", "2 cores", {"coordsvc": ""}, [measured])
    text = section(model(), sweeps(), {"W3": row})
    assert "**Cost missed by more than 30%**: W3 (-50%)" in text
    right = builders.run(
        dict.fromkeys(SERVERS, us / 6), rate=2e6 / us, per_message=1.0, per_turn=40.0
    )
    assert "No row's cost is missed" in section(
        model(), sweeps(), {"W3": replace(row, runs=[right])}
    )


def test_the_leaders_loop_bounds_a_cluster_of_machines() -> None:
    """By hand: 1/3 of 4 + 30/64, 5 + 300/256, 2 + 100/256. Five replicas: 1/5; twice the lead."""
    batches = Batches(64.0, 256.0)
    assert leader_us(model(), Cluster(3), batches) == pytest.approx(10.05, rel=0.01)
    assert leader_us(model(), Cluster(5), batches) == pytest.approx(11.85, rel=0.01)
    found = bound(model(), Cluster(3), 12, 64)
    assert found.sets == pytest.approx(1e6 / 10.05, rel=0.01)
    assert found.gets == pytest.approx(3e6 / (3 + 15 / 64), rel=0.01)


def test_front_ends_take_the_doors_from_the_leader_and_apply_everything() -> None:
    batches = Batches(64.0, 256.0)
    four = Cluster(3, front_ends=2)
    assert leader_us(model(), four, batches) == pytest.approx(8.56, rel=0.01)
    assert front_end_us(model(), four, batches) == pytest.approx(6.92, rel=0.01)
    assert bound(model(), four, 12, 64).sets_bound_by == "the leader's loop"
    assert bound(model(), four, 12, 64).gets == 2 * bound(model(), Cluster(3), 12, 64).gets
