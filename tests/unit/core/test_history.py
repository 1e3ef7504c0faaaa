"""The history: whole groups, bounded by bytes, linked by znode and by parent; and replaying it."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest

from coordsvc.core.commands import (
    ALL,
    CREATED,
    DATA_CHANGED,
    DELETED,
    OPEN_ACL,
    Acl,
    Change,
    Stat,
)
from coordsvc.core.history import CHANGE_OVERHEAD_BYTES, History
from coordsvc.core.replay import PlaceLostError, Replay
from coordsvc.core.watches import (
    CHILDREN,
    CHILDREN_CHANGED,
    DATA,
    EXISTS,
    PERSISTENT,
    PERSISTENT_RECURSIVE,
    Watch,
)
from coordsvc.paths import parent_of

LARGE = 10**9


def change(
    path: str,
    zxid: int,
    change_type: int = DATA_CHANGED,
    *,
    last: bool = True,
    data: bytes | None = b"",
    acl: tuple[Acl, ...] = OPEN_ACL,
) -> Change:
    return Change(change_type, path, zxid, acl, OPEN_ACL, data, None, last)


def filled(count: int, bytes_max: int = LARGE, *, path: str = "/n{}") -> History:
    """One change of a znode of its own for each zxid from 11 on."""
    history = History(10, bytes_max=bytes_max)
    for zxid in range(11, 11 + count):
        history.append([change(path.format(zxid), zxid, CREATED)])
    return history


def zxids(history: History) -> list[int]:
    numbers = range(history.first, history.last + 1)
    return [history.change(number).zxid for number in numbers]


def test_it_begins_where_it_was_made() -> None:
    history = History(10, bytes_max=LARGE)
    assert (len(history), history.bytes, history.complete_after) == (0, 0, 10)
    assert history.first_after(10) == history.last + 1


def test_the_oldest_groups_go_when_it_takes_too_much() -> None:
    history = filled(100, 10 * (CHANGE_OVERHEAD_BYTES + 20))
    assert len(history) == 10 and zxids(history) == list(range(101, 111))
    assert history.complete_after == 100
    assert history.bytes <= 10 * (CHANGE_OVERHEAD_BYTES + 20)


def test_a_group_goes_as_a_whole() -> None:
    history = History(10, bytes_max=3 * (CHANGE_OVERHEAD_BYTES + 8))
    history.append([change("/a", 11, last=False), change("/b", 11, last=False), change("/c", 11)])
    assert len(history) == 3 and history.complete_after == 10
    history.append([change("/d", 12)])
    assert zxids(history) == [12] and history.complete_after == 11


def test_what_is_larger_than_the_history_leaves_it_empty() -> None:
    history = History(10, bytes_max=5000)
    history.append([change("/a", 11, data=bytes(10_000))])
    assert (len(history), history.bytes, history.complete_after) == (0, 0, 11)
    history.append([change("/a", 12)])
    assert zxids(history) == [12] and history.complete_after == 11


@pytest.mark.parametrize("zxid", range(8, 36))
def test_first_after(zxid: int) -> None:
    history = History(10, bytes_max=LARGE)
    for each in (12, 20, 20, 31):
        history.append([change("/a", each)])
    number = history.first_after(zxid)
    assert [each for each in (12, 20, 20, 31) if each > zxid] == zxids(history)[number - 1 :]


def test_acls_are_counted_once_each_and_given_back() -> None:
    acl = tuple(Acl(ALL, "digest", f"user{number}:{'x' * 1000}") for number in range(20))
    history = History(10, bytes_max=LARGE)
    history.append([change("/a", 11, acl=acl)])
    first = history.bytes
    assert first > 20_000
    history.append([change("/a", 12, acl=acl)])
    assert history.bytes - first < 2 * CHANGE_OVERHEAD_BYTES
    history._bytes_max = 0
    history.append([])
    assert (history.bytes, len(history)) == (0, 0)
    assert not history._acls


def test_its_count_of_bytes_is_about_what_it_takes() -> None:
    """Small changes of many znodes cost most beside their data. Not below what is really taken."""

    def changes(first: int, count: int) -> Iterator[Change]:
        for zxid in range(first, first + count):
            stat = Stat(zxid, zxid, zxid, 10**12 + zxid, 10**12 + zxid, 0, 0, 0, 0, 8, 0)
            path = f"/parent{zxid}/child{zxid}"
            yield Change(CREATED, path, zxid, OPEN_ACL, OPEN_ACL, b"%08d" % zxid, stat, True)

    history = History(10**6, bytes_max=LARGE)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    history.append(tuple(changes(10**6 + 1, 5_000)))
    assert history.link(LARGE, history.last)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.5 * history.bytes < taken < 1.05 * history.bytes


def test_links_hold_whatever_is_dropped() -> None:
    """Method: after each of many random changes, every chain is compared with what the records
    themselves say."""
    chance = random.Random(5)
    history = History(0, bytes_max=12 * (CHANGE_OVERHEAD_BYTES + 10))
    paths = ["/", "/a", "/b", "/a/x", "/a/y"]
    for zxid in range(1, 300):
        path = chance.choice(paths)
        kind = DATA_CHANGED if path == "/" else chance.choice([CREATED, DELETED, DATA_CHANGED])
        history.append([change(path, zxid, kind)])
        if chance.random() < 0.7:
            # Otherwise more than one wait to be linked, or are dropped before they are.
            continue
        while not history.link(chance.randint(1, 8), history.last):
            pass
        numbers = list(range(history.first, history.last + 1))
        assert len(history._links) == len(numbers)
        for each in paths:
            own = [n for n in numbers if history.change(n).path == each]
            assert chain(history, each, False) == own
            children = [n for n in numbers if is_child(history.change(n), each)]
            assert chain(history, each, True) == children
    history._bytes_max = 0
    history.append([])
    assert not history._links and not history._last_own and not history._last_child


def is_child(change: Change, path: str) -> bool:
    return change.type != DATA_CHANGED and parent_of(change.path) == path


def chain(history: History, path: str, of_children: bool) -> list[int]:
    """Followed backwards, and forwards again."""
    back, number = [], history.last_of(path, of_children)
    while number:
        back.append(number)
        links = history.links(number)
        number = links.previous_child if of_children else links.previous_own
    forth, number = [], back[-1] if back else 0
    while number:
        forth.append(number)
        links = history.links(number)
        number = links.next_child if of_children else links.next_own
    assert forth == back[::-1]
    return forth


# -------------------------------------------------------------------------------------- replaying


def watches(kind: int, *paths: str) -> list[Watch]:
    return [Watch(1, number, path, kind) for number, path in enumerate(paths, start=1)]


def replay_of(history: History, wanted: list[Watch], after: int, there: str = "") -> Replay:
    """`there`: the one znode that is there now."""
    return Replay(history, wanted, after, lambda path: path == there)


def replayed(replay: Replay) -> list[tuple[int, str]]:
    found = []
    while (step := replay.step()) is not None:
        found += [(match[0], match[1]) for match in step.matches]
    return found


@pytest.mark.parametrize("after", [10, 500, 5008, 5009, 5010])
def test_what_was_missed_begins_right_after_the_zxid(after: int) -> None:
    history = filled(5_000)
    expected = max(0, 5010 - after)
    for kind in (PERSISTENT_RECURSIVE, PERSISTENT):
        replay = replay_of(history, watches(kind, "/"), after)
        assert len(replayed(replay)) == expected
        if expected:
            assert replay.position == 5010


def test_plain_watches_cost_what_they_match() -> None:
    """1,000 of them against a history of 50,000 changes, 40 of which they match."""
    history = filled(50_000)
    assert history.link(LARGE, history.last)
    wanted = [f"/n{50_010 - 1000 * number}" for number in range(40)]
    others = [f"/other{number}" for number in range(960)]
    replay = replay_of(history, watches(PERSISTENT, *wanted, *others), 10)
    steps, found = 0, 0
    while (step := replay.step()) is not None:
        steps += 1
        found += len(step.matches)
    assert found == 40 and steps < 200


def test_what_many_would_look_at_is_linked() -> None:
    """Each of them has missed a fifth of the history: that is looked at four times, change by
    change; the fifth makes links, and the next ones follow them."""
    history = filled(10_000)
    costs = []
    for _ in range(8):
        replay = replay_of(history, watches(PERSISTENT, "/n9000", "/none"), 8_010)
        steps, found = 0, 0
        while (step := replay.step()) is not None:
            steps += 1
            found += len(step.matches)
        assert found == 1
        costs.append(steps)
    assert costs[:4] == [2_000] * 4
    assert len(history._links) == 10_000 and costs[4] > 100
    assert max(costs[5:]) < 10


def test_it_is_linked_no_further_than_it_was_when_that_was_asked_for() -> None:
    history = filled(100)
    assert not history.link(60, 100) and history.link(60, 100)
    for zxid in range(200, 210):
        history.append([change("/later", zxid)])
    assert len(history._links) == 100 and history.last_of("/later", False) == 0
    assert history.link(LARGE, history.last) and history.last_of("/later", False) == 110


def test_places_are_lost_while_links_are_made() -> None:
    history = filled(1_000)
    replay = replay_of(history, watches(PERSISTENT, "/n500"), 10)
    assert replay.step() is not None
    history._bytes_max = 0
    history.append([change("/a", 2_000)])
    with pytest.raises(PlaceLostError):
        replay.step()


def test_a_one_shot_watch_stops_after_its_first_match() -> None:
    history = filled(3_000, path="/a")
    replay = replay_of(history, watches(EXISTS, "/a"), 10)
    assert replayed(replay) == [(CREATED, "/a")]
    assert len(replay.table) == 0


def test_children_hear_of_their_own_deletion() -> None:
    history = filled(100)
    history.append([change("/p/c", 1000, CREATED)])
    history.append([change("/p", 1001, DELETED)])
    assert replayed(replay_of(history, watches(CHILDREN, "/p"), 999))[0] == (4, "/p")
    assert replayed(replay_of(history, watches(CHILDREN, "/p"), 1000)) == [(DELETED, "/p")]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (DATA, [(DATA_CHANGED, "/a")]),
        (EXISTS, [(CREATED, "/a")]),
        (CHILDREN, [(CHILDREN_CHANGED, "/a")]),
        (PERSISTENT, [(DELETED, "/a"), (CREATED, "/a")]),
        (PERSISTENT_RECURSIVE, [(DELETED, "/a"), (CREATED, "/a")]),
    ],
)
def test_deleted_and_made_again(kind: int, told: list[tuple[int, str]]) -> None:
    """To a one-shot watch that resumes it was changed. Ref: ZooKeeper DataTree.setWatches."""
    for others in (0, 200):
        history = filled(others)
        history.append([change("/a", 500, DELETED)])
        history.append([change("/a", 501, CREATED)])
        assert replayed(replay_of(history, watches(kind, "/a"), 499, there="/a")) == told
        gone = replayed(replay_of(history, watches(kind, "/a"), 499))
        assert gone[0] == (DELETED, "/a"), "it has gone again since"


@pytest.mark.parametrize("kind", [PERSISTENT, PERSISTENT_RECURSIVE])
def test_what_comes_meanwhile_is_replayed_too(kind: int) -> None:
    history = filled(200)
    replay = replay_of(history, watches(kind, "/n150", "/late"), 10)
    assert (step := replay.step()) is not None
    found = list(step.matches)
    history.append([change("/late", 1000, CREATED)])
    while (step := replay.step()) is not None:
        found += step.matches
    assert [match[1] for match in found] == ["/n150", "/late"]


@pytest.mark.parametrize("kind", [DATA, PERSISTENT, PERSISTENT_RECURSIVE])
def test_a_lost_place_is_told(kind: int) -> None:
    history = filled(20, 20 * (CHANGE_OVERHEAD_BYTES + 16))
    replay = replay_of(history, watches(kind, "/n12", "/n25"), 10)
    for zxid in range(1000, 1020):
        history.append([change(f"/z{zxid}", zxid, CREATED)])
    with pytest.raises(PlaceLostError):
        replayed(replay)


def test_groups_end_where_they_end() -> None:
    history = History(10, bytes_max=LARGE)
    history.append([change("/a", 11, last=False), change("/b", 11, last=False), change("/a", 11)])
    history.append([change("/a", 12)])
    for kind in (PERSISTENT, PERSISTENT_RECURSIVE):
        replay = replay_of(history, watches(kind, "/a", "/b", "/x", "/y", "/z"), 10)
        ends = []
        while (step := replay.step()) is not None:
            if step.change is not None:
                ends.append((step.change.path, step.is_group_end, replay.position))
        assert ends == [("/a", False, 10), ("/b", False, 10), ("/a", True, 11), ("/a", True, 12)]


@pytest.mark.parametrize(
    ("kind", "event_type"),
    [(DATA, DATA_CHANGED), (EXISTS, CREATED), (CHILDREN, CHILDREN_CHANGED)],
)
@pytest.mark.parametrize("others", [0, 50])
def test_deleted_and_made_again_is_changed(kind: int, event_type: int, others: int) -> None:
    """Whether the way is along the links (many watches would scan) or change by change."""
    history = filled(100)
    history.append([change("/a", 1000, DELETED)])
    history.append([change("/a", 1001, CREATED)])
    history.append([change("/a", 1002)])
    plain = watches(kind, "/a", *(f"/other{number}" for number in range(others)))
    replay = replay_of(history, plain, 999, "/a")
    assert replayed(replay) == [(event_type, "/a")]
    assert len(replay.table) == others
    assert replayed(replay_of(history, plain, 1000, "/a"))[0] == (event_type, "/a")
    # Not there now: it was deleted once more since, and that is what counts.
    history.append([change("/a", 1003, DELETED)])
    assert replayed(replay_of(history, plain, 999))[0] == (DELETED, "/a")


def test_persistent_watches_hear_of_both() -> None:
    history = filled(1)
    history.append([change("/a", 1000, DELETED)])
    history.append([change("/a", 1001, CREATED)])
    both = [*watches(PERSISTENT, "/a"), Watch(1, 2, "/a", DATA)]
    replay = replay_of(history, both, 999, "/a")
    steps = iter(replay.step, None)
    told = [(step.change.zxid, match[0], match[3]) for step in steps for match in step.matches]
    assert told == [
        (1000, DELETED, {1: [both[0]]}),
        (1001, CREATED, {1: [both[0]]}),
        (1001, DATA_CHANGED, {1: [both[1]]}),
    ]
