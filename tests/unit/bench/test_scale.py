"""What rows of scale are made of: the tree, the table, and what is made of what was seen."""

from __future__ import annotations

import asyncio
from array import array

import pytest

from bench import scale_expiry, scale_fanout, scale_flat, scale_memory, scale_restart
from bench.scale_checkpoint import CONNECTIONS, Writes
from bench.scale_pipe import Event, PipeError
from bench.scale_results import ScaleRun
from bench.scale_rows import ROWS, Options, chosen
from bench.scale_systems import Memory, heap_used, memory_of
from bench.scale_tree import (
    CHILDREN,
    DATA_BYTES,
    PATH_BYTES,
    Tree,
    batches,
    data_of,
    is_data_of,
    path_of,
    written,
)
from coordsvc.testing.cluster import ClusterError
from coordsvc.testing.zookeeper_records import EventType

NUMBERS = (0, 1, CHILDREN - 1, CHILDREN, 999_999)


# ------------------------------------------------------------------------------------- the tree


def test_paths_and_data_are_of_one_size_each() -> None:
    assert {len(path_of(each)) for each in NUMBERS} == {PATH_BYTES}
    assert {len(data_of(each)) for each in NUMBERS} == {DATA_BYTES}
    assert {len(written(each, 7)) for each in NUMBERS} == {DATA_BYTES}


def test_no_two_znodes_have_the_same_path_or_data() -> None:
    assert len({path_of(each) for each in NUMBERS}) == len(NUMBERS)
    assert len({data_of(each) for each in NUMBERS}) == len(NUMBERS)


def test_a_parent_has_its_share_of_children() -> None:
    parents = [path_of(each).rpartition("/")[0] for each in range(2 * CHILDREN)]
    assert parents.count(parents[0]) == CHILDREN == parents.count(parents[-1])


def test_data_tells_whose_it_is() -> None:
    assert is_data_of(5, data_of(5)) and is_data_of(5, written(5, 3))
    assert not is_data_of(5, data_of(6))


def test_batches_leave_nothing_out() -> None:
    assert list(batches("abcde", 2)) == ["ab", "cd", "e"]


class NoSystem:
    pass


def test_each_connection_writes_znodes_of_its_own_and_knows_their_versions() -> None:
    tree = Tree(NoSystem(), lambda text: None)  # type: ignore[arg-type]
    tree.size = 50
    writes = Writes(tree)
    done = [(each % CONNECTIONS, *writes.next_of(each % CONNECTIONS)) for each in range(600)]
    assert all(number % CONNECTIONS == connection for connection, number, _ in done)
    assert {number for _, number, _ in done} == set(range(50))
    for number in range(50):
        versions = [version for _, each, version in done if each == number]
        assert versions == list(range(1, len(versions) + 1))
        assert writes.versions[number] == versions[-1]


# ------------------------------------------------------------------------------------ the table


def test_rows_are_chosen_with_their_variants() -> None:
    assert [row.row_id for row in chosen(["S1"])] == ["S1", "S1-stream"]
    assert [row.row_id for row in chosen(["S1-stream"])] == ["S1-stream"]
    assert chosen([]) == list(ROWS)
    with pytest.raises(ValueError, match="no such row: S2"):
        chosen(["F1", "S2"])


def test_runs_are_as_many_as_asked_for() -> None:
    [row] = chosen(["F1"])
    assert Options().runs_of(row) == row.runs
    assert Options(runs=7).runs_of(row) == 7


# ---------------------------------------------------------------------------------- what was seen


def test_memory_is_what_the_kernel_tells() -> None:
    status = (
        "Name:\tjava\nVmPeak:\t   99 kB\nVmRSS:\t    8 kB\nRssAnon:\t   5 kB\nRssFile:\t 3 kB\n"
    )
    assert memory_of(status) == Memory(resident=8 * 1024, anonymous=5 * 1024)


def test_the_heap_in_use_is_read_from_what_the_jvm_tells() -> None:
    info = "123:\n garbage-first heap   total 65536K, used 20480K [0x00, 0x01)\n  region size 1024K"
    assert heap_used(info) == 20480 * 1024
    with pytest.raises(ClusterError, match="no heap"):
        heap_used("123:\nnothing")


def test_growth_is_that_of_the_server_in_the_middle() -> None:
    empty = {1: Memory(100, 50), 2: Memory(200, 60), 3: Memory(300, 70)}
    full = {1: Memory(1100, 550), 2: Memory(2200, 660), 3: Memory(900, 770)}
    assert scale_memory.median_growth(empty, full, lambda each: each.resident) == 1000

    class System:
        name = "coordsvc"

    run = scale_memory.run_of(System(), empty, full, 10)  # type: ignore[arg-type]
    assert run.value == 100
    assert run.details["anonymous bytes"] == 60
    assert not any("heap" in name for name in run.details)


def test_writes_count_when_they_were_under_way_at_all() -> None:
    writes = [(0.0, 1.0), (1.5, 2.5), (2.0, 2.1), (2.9, 5.0), (4.0, 4.1)]
    found = scale_expiry.latencies(writes, 2.0, 3.0)
    assert list(found) == pytest.approx([1.0, 0.1, 2.1])


async def test_an_event_of_another_kind_or_too_many_is_noticed() -> None:
    loop = asyncio.get_running_loop()
    seen = scale_expiry.Seen(2, loop.create_future())
    seen.on_event(Event(EventType.DELETED, "/a", 5))
    with pytest.raises(PipeError):
        seen.on_event(Event(EventType.DATA_CHANGED, "/b", 5))
    seen.on_event(Event(EventType.DELETED, "/b", 6))
    assert seen.done.done() and seen.zxids == {5, 6}
    with pytest.raises(PipeError):
        seen.on_event(Event(EventType.DELETED, "/b", 6))


def test_events_of_another_write_are_noticed() -> None:
    scale_fanout.check_zxids(array("q", [7, 7]), 7)
    with pytest.raises(PipeError, match=r"zxids \[8\]"):
        scale_fanout.check_zxids(array("q", [7, 8]), 7)
    scale_fanout.check_data([b"1", b"1"], b"1")
    with pytest.raises(PipeError, match="b'0'"):
        scale_fanout.check_data([b"1", b"0"], b"1")


def test_the_growth_of_cost_is_of_the_smallest_and_the_largest_tree() -> None:
    assert scale_flat.sizes(1_000_000) == [10, 10_000, 1_000_000]
    assert scale_flat.sizes(500) == [10, 500]
    details = {
        **scale_flat.named(10, {scale_flat.RATE: 90.0}),
        **scale_flat.named(10_000, {scale_flat.RATE: 1.0}),
        **scale_flat.named(1_000_000, {scale_flat.RATE: 60.0}),
    }
    assert "1,000,000 znodes operations/s" in details
    run = scale_flat.run_of("coordsvc", details, [10, 10_000, 1_000_000])
    assert run.value == 1.5


def test_what_the_cluster_did_stands_with_the_run_in_the_middle() -> None:
    runs = [ScaleRun("x", value, {"server": 1}) for value in (3.0, 1.0, 2.0)]
    found = scale_restart.with_cluster(runs, {"all": 9.0})
    assert [run.details.get("all") for run in found] == [None, None, 9.0]
    assert [run.value for run in found] == [3.0, 1.0, 2.0]
