"""What is made of the runs of two systems, and what makes them worthless."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.load import PERCENTS, SET, Load, Outcome
from bench.report_summary import of_row
from bench.side_by_side import GeneratorError, generate
from bench.side_by_side_report import row_table, summary, write_page
from bench.side_by_side_results import Ratio, RowResult, Run, ratio
from bench.side_by_side_rows import FOLLOWER, LEADER, P50, ROWS, ZOOKEEPER, Row, chosen
from bench.side_by_side_systems import (
    COORDSVC,
    UNSYNCED_FILE_SYSTEMS,
    check_disk,
    check_libraries,
    check_synced,
    cpu_seconds,
    machine_cpu_seconds,
)
from coordsvc.testing.cluster import ClusterError

BY_RATE = Row("X1", "a workload", SET, 12, 64, floor=2.0, goal=4.0)
BY_LATENCY = Row("X2", "a workload", SET, 1, 1, floor=1.2, goal=0.9, measure=P50)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
ENDPOINTS = {1: "a:1", 2: "b:2", 3: "c:3"}


def run(
    system: str,
    rate: float,
    p50_s: float = 0.001,
    *,
    generator: float = 0.1,
    others: float = 0.02,
) -> Run:
    seconds = 4.0
    outcome = Outcome(
        operations=round(rate * seconds),
        seconds=seconds,
        total=round(rate * seconds * 2),
        verified=1,
        generator_cpu_s=generator * seconds,
        latencies_s=[p50_s] * len(PERCENTS),
    )
    return Run(
        system=system,
        leader=2,
        outcome=outcome,
        seconds=5.0,
        cpu_s={1: 1.0, 2: 2.0, 3: 0.5},
        fsyncs={1: 100, 2: 300, 3: 400},
        others_cores=others,
    )


def result(row: Row, ours: list[Run], theirs: list[Run]) -> RowResult:
    pairs = [each for pair in zip(ours, theirs, strict=True) for each in pair]
    systems = {COORDSVC: "coordsvc 1", ZOOKEEPER: "ZooKeeper 3"}
    return RowResult(row.row_id, "the command", "the machine", systems, pairs)


def by_rate(ours: list[float], theirs: list[float]) -> RowResult:
    return result(
        BY_RATE, [run(COORDSVC, each) for each in ours], [run(ZOOKEEPER, each) for each in theirs]
    )


# ----------------------------------------------------------------------------------------- ratios


def test_a_ratio_is_of_medians_and_its_spread_of_pairs() -> None:
    found = ratio(BY_RATE, by_rate([300, 1000, 500], [100, 200, 50]))
    assert found == Ratio(median=5.0, least=3.0, most=10.0)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(399.0, "floor"), (400.0, "goal"), (200.0, "floor"), (199.0, "below the floor")],
)
def test_of_a_rate_more_is_better(rate: float, expected: str) -> None:
    assert of_row(BY_RATE, by_rate([rate], [100.0])).verdict == expected


@pytest.mark.parametrize(
    ("p50_s", "expected"),
    [(0.0009, "goal"), (0.00091, "floor"), (0.0012, "floor"), (0.00121, "below the floor")],
)
def test_of_a_latency_less_is_better(p50_s: float, expected: str) -> None:
    runs = [run(COORDSVC, 100.0, p50_s)], [run(ZOOKEEPER, 100.0, 0.001)]
    assert of_row(BY_LATENCY, result(BY_LATENCY, *runs)).verdict == expected


def test_what_a_run_cost() -> None:
    """CPU is of the operations of the time it was looked at, syncs of all of the run."""
    found = run(COORDSVC, 1_000.0)
    assert found.cpu_us == {1: 200.0, 2: 400.0, 3: 100.0}
    assert (found.leader_cpu_us, found.follower_cpu_us) == (400.0, 150.0)
    assert found.fsyncs_per_s == 100.0


# ----------------------------------------------------------------------------------------- tables


def test_losses_and_rows_that_were_not_measured_are_in_the_table() -> None:
    lost = by_rate([90.0], [100.0])
    _, _, first, second = summary([BY_RATE, BY_LATENCY], {"X1": lost})
    assert "**0.90**" in first and "**below the floor**" in first
    assert "not measured" in second and "at most 1.2" in second


def test_a_row_whose_generator_was_busy_is_marked() -> None:
    ours, theirs = run(COORDSVC, 400.0, generator=0.81), run(ZOOKEEPER, 100.0, generator=0.8)
    busy = result(BY_RATE, [ours], [theirs])
    assert "**4.00** *" in summary([BY_RATE], {"X1": busy})[2]
    _, _, marked, unmarked = row_table(busy)
    assert "400 (400 to 400) *" in marked
    assert "*" not in unmarked
    idle = by_rate([400.0], [100.0])
    assert "**4.00** |" in summary([BY_RATE], {"X1": idle})[2]


def test_a_row_measured_on_a_busy_machine_is_marked() -> None:
    ours, theirs = run(COORDSVC, 400.0, others=0.2), run(ZOOKEEPER, 100.0, others=0.21)
    busy = result(BY_RATE, [ours], [theirs])
    assert "**4.00** †" in summary([BY_RATE], {"X1": busy})[2]
    _, _, unmarked, marked = row_table(busy)
    assert "100 (100 to 100) †" in marked
    assert "†" not in unmarked


def test_the_page_says_which_rows_are_still_to_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.side_by_side_results.RESULTS", tmp_path)
    page = tmp_path / "page.md"
    write_page(page)
    for row in ROWS:
        assert f"### {row.row_id}:" in page.read_text()
        assert f"Not measured yet: `make bench ROW={row.row_id}`." in page.read_text()


# ------------------------------------------------------------------------------------------- rows


def test_rows_are_chosen_with_their_variants() -> None:
    assert [row.row_id for row in chosen(["W4"])] == ["W4", "W4-leader"]
    assert [row.row_id for row in chosen(["W4-leader", "R1"])] == ["W4-leader", "R1"]
    assert chosen([]) == list(ROWS)
    with pytest.raises(ValueError, match="no such row: W9"):
        chosen(["W2", "W9"])


def test_every_row_can_be_chosen_by_a_name_of_its_own() -> None:
    assert len({row.row_id for row in ROWS}) == len(ROWS)


def test_clients_are_where_the_row_says() -> None:
    def endpoints(place: str) -> list[str]:
        row = Row("X", "", SET, 6, 1, floor=0, goal=0, place=place)
        return row.load("/x", ENDPOINTS, leader=1, ramp_s=0, seconds=1).endpoints

    assert endpoints(LEADER) == ["a:1"]
    assert endpoints(FOLLOWER) == ["b:2"]
    assert endpoints("spread") == ["a:1", "b:2", "c:3"]


# --------------------------------------------------------------------------------------- refusals


def test_fewer_syncs_than_the_writes_need_are_refused() -> None:
    """10,000 writes, 100 under way: a majority of three synced each, 100 at a time at most."""
    check_synced({1: 100, 2: 0, 3: 100}, 10_000, 100)
    check_synced({1: 100, 2: 50, 3: 50}, 10_000, 100)
    with pytest.raises(ClusterError, match="need 200 syncs"):
        check_synced({1: 100, 2: 50, 3: 49}, 10_000, 100)


@LINUX
def test_a_directory_in_memory_is_refused(tmp_path: Path) -> None:
    in_memory = [
        line.split()[1]
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[2] in UNSYNCED_FILE_SYSTEMS
    ]
    if not in_memory:
        pytest.skip("nothing is mounted in memory here")
    with pytest.raises(ClusterError, match="is in memory"):
        check_disk(Path(in_memory[0]))


@LINUX
def test_a_process_with_a_library_that_does_not_sync_is_refused(tmp_path: Path) -> None:
    """Known by what it has mapped."""
    library = tmp_path / "libeatmydata.so"
    library.write_bytes(bytes(4096))
    program = (
        "import mmap, sys; f = open(sys.argv[1], 'rb');"
        "m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); print(flush=True); sys.stdin.read()"
    )
    check_libraries([os.getpid()])
    with subprocess.Popen(
        [sys.executable, "-c", program, str(library)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        with pytest.raises(ClusterError, match="eatmydata"):
            check_libraries([process.pid])
        process.communicate()


@LINUX
def test_the_cpu_of_a_process_is_what_the_kernel_says() -> None:
    before, machine = cpu_seconds({1: os.getpid()})[1], machine_cpu_seconds()
    began = time.process_time()
    while time.process_time() < began + 0.1:
        pass
    used = cpu_seconds({1: os.getpid()})[1] - before
    assert 0.05 < used < 1.0
    assert machine_cpu_seconds() - machine > 0.05


def test_a_generator_that_fails_is_no_result() -> None:
    """What it said is in the error."""
    load = Load(
        endpoints=["127.0.0.1:1"],
        all_endpoints=["127.0.0.1:1"],
        path="/x",
        operation=SET,
        connections=1,
        in_flight=1,
        data_bytes=100,
        ramp_s=0,
        seconds=1,
    )
    with pytest.raises(GeneratorError, match="ConnectionRefusedError"):
        generate((sys.executable, "-m", "bench.zookeeper_load"), load, {})
