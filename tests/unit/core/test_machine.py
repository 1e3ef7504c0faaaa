"""Entries: time, order, leaders' commands, the digest, the feed of changes."""

from __future__ import annotations

import pytest

from coordsvc.core import machine as machine_module
from coordsvc.core.commands import (
    CONTAINER,
    DELETED,
    NO_CALLER,
    PERSISTENT_WITH_TTL,
    AttachSessionOp,
    Batch,
    Caller,
    CloseSessionOp,
    CollectContainer,
    CollectTtl,
    CreateOp,
    DeleteOp,
    Entry,
    ExpireSession,
    InitCluster,
    OpenSession,
    SetDataOp,
    Write,
)
from coordsvc.core.invariants import full_digest
from coordsvc.core.machine import Machine
from coordsvc.core.records import INT64_MAX, ChangedRecords, encode_record
from coordsvc.core.state import State
from tests.unit.core.harness import PASSWORD, TERM, Harness, rebuilt

CLUSTER_ID = b"c" * 16


@pytest.fixture
def harness() -> Harness:
    return Harness()


# --------------------------------------------------------------------------------- time


def test_time_never_runs_back(harness: Harness) -> None:
    harness.time_ms, harness.clock_ms = 9_000, 900
    harness.create("/a")
    harness.time_ms, harness.clock_ms = 1_000, 100
    harness.create("/b")
    assert harness.state.znodes["/b"].stat.ctime_ms == 9_000
    assert (harness.state.time_ms, harness.state.clock_ms) == (9_000, 900)


@pytest.mark.parametrize("time_ms", [2**63, 2**64 - 1])
def test_time_stays_in_range(harness: Harness, time_ms: int) -> None:
    harness.machine.apply_entry(Entry(time_ms, time_ms), TERM)
    assert (harness.state.time_ms, harness.state.clock_ms) == (INT64_MAX, INT64_MAX)


def test_one_time_for_an_entry(harness: Harness) -> None:
    harness.time_ms = 4_000
    harness.submit(*(Write(NO_CALLER, CreateOp(path, b"")) for path in ("/a", "/b")))
    assert {harness.state.znodes[path].stat.ctime_ms for path in ("/a", "/b")} == {4_000}


# ------------------------------------------------------------------- leaders' commands


def test_cluster_is_named_once(harness: Harness) -> None:
    before = harness.state.zxid
    for name, term in ((b"short", TERM), (CLUSTER_ID, TERM + 1)):
        harness.lead(InitCluster(term, name))
    assert (harness.state.cluster_id, harness.state.zxid) == (b"", before)
    harness.lead(InitCluster(TERM, CLUSTER_ID))
    harness.lead(InitCluster(TERM, b"d" * 16))
    assert (harness.state.cluster_id, harness.state.zxid) == (CLUSTER_ID, before + 1)


def test_batches_come_before_the_leaders_commands(harness: Harness) -> None:
    """An attachment or a set_data of the same turn saves what the leader wanted to end."""
    session_id = harness.open_session()
    harness.write(CreateOp("/t", b"", PERSISTENT_WITH_TTL, 10))
    mzxid = harness.state.znodes["/t"].stat.mzxid
    harness.clock_ms = 11
    harness.seq += 1
    writes = (
        Write(Caller(session_id), AttachSessionOp()),
        Write(NO_CALLER, SetDataOp("/t", b"")),
    )
    harness.apply(
        (Batch(1, harness.incarnation, harness.seq, writes),),
        (ExpireSession(TERM, session_id, 0), CollectTtl(TERM, "/t", mzxid)),
    )
    assert session_id in harness.state.sessions
    assert "/t" in harness.state.znodes


def test_collect_container(harness: Harness) -> None:
    harness.write(CreateOp("/c", b"", CONTAINER))
    harness.create("/plain", "/plain/x", "/c/x")
    harness.write(DeleteOp("/plain/x"))
    before = harness.state.zxid
    harness.lead(CollectContainer(TERM, "/c", 1))  # it has a child
    harness.write(DeleteOp("/c/x"))
    for command in (
        CollectContainer(TERM, "/c", 1),  # changed since
        CollectContainer(TERM - 1, "/c", 2),
        CollectContainer(TERM, "/plain", 2),
        CollectContainer(TERM, "/missing", 2),
    ):
        assert not harness.lead(command).changes
    assert harness.state.zxid == before + 1
    changes = harness.lead(CollectContainer(TERM, "/c", 2)).changes
    assert [(each.type, each.path, each.last_of_zxid) for each in changes] == [
        (DELETED, "/c", True)
    ]
    assert harness.state.zxid == before + 2


def test_unused_container_is_kept(harness: Harness) -> None:
    harness.write(CreateOp("/c", b"", CONTAINER))
    assert not harness.lead(CollectContainer(TERM, "/c", 0)).changes


def test_collect_ttl(harness: Harness) -> None:
    """Not before its time by the cluster's clock, not when its data was set since, not with
    children. Wall time does not matter."""
    harness.write(CreateOp("/t", b"", PERSISTENT_WITH_TTL, 10))
    mzxid = harness.state.znodes["/t"].stat.mzxid
    harness.time_ms += 10**9
    harness.clock_ms = 10
    assert not harness.lead(CollectTtl(TERM, "/t", mzxid)).changes
    harness.clock_ms = 11
    for command in (
        CollectTtl(TERM - 1, "/t", mzxid),
        CollectTtl(TERM, "/t", mzxid + 1),
        CollectTtl(TERM, "/", 0),
        CollectTtl(TERM, "/missing", 0),
    ):
        assert not harness.lead(command).changes
    harness.create("/t/c")
    assert not harness.lead(CollectTtl(TERM, "/t", mzxid)).changes
    harness.write(DeleteOp("/t/c"))
    changes = harness.lead(CollectTtl(TERM, "/t", mzxid)).changes
    assert [each.path for each in changes] == ["/t"]


def test_ttl_delete_that_races_a_set_data_loses(harness: Harness) -> None:
    """Statement: re-check mtime at apply (ZooKeeper does not)."""
    harness.write(CreateOp("/t", b"", PERSISTENT_WITH_TTL, 10))
    seen = harness.state.znodes["/t"].stat.mzxid
    harness.clock_ms = 11
    harness.write(SetDataOp("/t", b"new"))
    harness.clock_ms = 100
    assert not harness.lead(CollectTtl(TERM, "/t", seen)).changes


# -------------------------------------------------------------------------- the effects


def test_sessions_opened_and_closed_in_one_entry(harness: Harness) -> None:
    first = harness.submit(OpenSession(5, PASSWORD))[0].zxid
    replies = harness.submit(
        OpenSession(5, PASSWORD),
        Write(Caller(first), CloseSessionOp()),
        Write(Caller(first + 1), CloseSessionOp()),
    )
    second = replies[0].zxid
    assert second == first + 1
    assert harness.last_applied.opened_sessions == (second,)
    assert harness.last_applied.closed_sessions == (first, second)


def test_effects_do_not_leak_into_the_next_entry(harness: Harness) -> None:
    harness.create("/a")
    applied = harness.apply()
    assert (applied.changes, applied.opened_sessions, applied.closed_sessions) == ((), (), ())


# --------------------------------------------------------------------------- the digest


def test_digest_does_not_depend_on_folding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on the way the state was reached."""
    digests = []
    for waiting_max in (0, 3, 512):
        monkeypatch.setattr(machine_module, "CHANGED_RECORDS_MAX", waiting_max)
        harness = Harness()
        session_id = harness.open_session()
        for number in range(1, 30):
            harness.write(CreateOp(f"/{number}", b""), Caller(session_id, 0, number, number))
        harness.write(DeleteOp("/7"))
        digests.append(harness.machine.digest())
    assert len(set(digests)) == 1
    assert full_digest(harness.state) == digests[0]


def test_digest_sees_every_kind_of_record(harness: Harness) -> None:
    session_id = harness.open_session()
    seen = [harness.machine.digest()]
    for act in (
        lambda: harness.create("/a"),
        lambda: harness.write(SetDataOp("/a", b"x")),
        lambda: harness.write(AttachSessionOp(), Caller(session_id)),
        lambda: harness.write(SetDataOp("/a", b"x"), Caller(session_id, 0, 1)),
        lambda: harness.submit(),  # the origin's seq
        lambda: harness.lead(InitCluster(TERM, CLUSTER_ID)),
        lambda: harness.write(DeleteOp("/a")),
        lambda: harness.write(CloseSessionOp(), Caller(session_id)),
    ):
        act()
        seen.append(harness.machine.digest())
    assert len(set(seen)) == len(seen)


def test_digest_comparison(harness: Harness) -> None:
    """Right after the zxid: a mismatch is reported, agreement is not, another zxid is nothing."""
    harness.create("/a")
    zxid, own = harness.state.zxid, harness.machine.digest()
    assert rebuilt(harness.machine).digest() == own
    wrong = Entry(1, 1, digest_zxid=zxid, digest=own ^ 1)
    assert harness.machine.apply_entry(wrong, TERM).digest_mismatch == (zxid, own ^ 1, own)
    harness.create("/b")
    zxid, own = harness.state.zxid, harness.machine.digest()
    assert harness.apply(digest=(zxid - 1, own ^ 1)).digest_mismatch is None
    harness.create("/c")
    zxid, own = harness.state.zxid, harness.machine.digest()
    assert harness.apply(digest=(zxid, own)).digest_mismatch is None


def test_no_false_alarm_between_zxids(harness: Harness) -> None:
    """An entry that takes no zxid changes the state too: clocks, an origin's seq. A leader that
    counted before it and one that counted after it both speak of the same zxid."""
    harness.create("/a")
    zxid, counted_before = harness.state.zxid, harness.machine.digest()
    harness.clock_ms += 1
    harness.apply()
    assert harness.machine.digest() != counted_before
    assert harness.apply(digest=(zxid, counted_before)).digest_mismatch is None


def test_digest_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """A point may be compared any number of entries later; every replica has the same ones."""
    monkeypatch.setattr(machine_module, "DIGEST_POINT_ZXIDS", 10)
    leader = Harness()
    assert leader.machine.digest_point() == (0, 0)
    for number in range(25):
        leader.create(f"/{number}")
    point = leader.machine.digest_point()
    assert point[0] == 20
    follower = Machine()
    other = Machine()
    for payload in leader.payloads:
        follower.apply_entry(machine_module.decode_entry(payload), TERM)
        other.apply_entry(machine_module.decode_entry(payload), TERM)
    assert follower.digest_point() == point
    entry = Entry(1, 1, digest_zxid=point[0], digest=point[1])
    assert follower.apply_entry(entry, TERM).digest_mismatch is None
    wrong = Entry(1, 1, digest_zxid=point[0], digest=point[1] ^ 4)
    assert other.apply_entry(wrong, TERM).digest_mismatch == (20, point[1] ^ 4, point[1])


# ------------------------------------------------------------------ records, observers


def test_feed_brings_another_copy_up_to_date(harness: Harness) -> None:
    """What a checkpoint will do: everything exported once, then only what changed."""
    session_id = harness.open_session()
    feed = harness.machine.observe_changes()
    copy = {(table, key): value for table, key, value in harness.state.export_records()}
    for turn in range(3):
        for number in range(1, 8):
            caller = Caller(session_id, 0, turn * 7 + number, turn * 7 + number)
            harness.write(CreateOp(f"/{turn}{number}", b"", number % 5), caller)
        harness.write(DeleteOp(f"/{turn}5"))
        if turn == 2:
            harness.write(CloseSessionOp(), Caller(session_id))
        apply_changes(copy, feed.take(), harness.state)
        exported = {(table, key): value for table, key, value in harness.state.export_records()}
        assert copy == exported
    assert len(feed.take()) == 0


def apply_changes(
    copy: dict[tuple[int, bytes], bytes], changed: ChangedRecords, state: State
) -> None:
    for table, key, record in changed.items():
        if record is None:
            copy.pop((table, key), None)
        else:
            copy[table, key] = encode_record(record)
    table, key, value = next(state.export_records())
    copy[table, key] = value


def test_feeds_are_independent(harness: Harness) -> None:
    first, second = harness.machine.observe_changes(), harness.machine.observe_changes()
    harness.create("/a")
    assert len(first.take()) == len(second.take()) == 3  # /a, its parent, the origin
    harness.write(SetDataOp("/a", b""))
    assert len(second.take()) == 2
    assert len(first.take()) == 2


def test_a_result_that_came_and_went_is_no_change(harness: Harness) -> None:
    """However often the changes were folded into the digest meanwhile. One that was there is."""
    session_id = harness.open_session()

    def write(*numbers: int) -> None:
        """In one entry, each done with those before it."""
        callers = [Caller(session_id, 0, number, number) for number in numbers]
        harness.submit(*(Write(caller, SetDataOp("/", b"")) for caller in callers))

    write(1)
    feed = harness.machine.observe_changes()
    write(2)
    harness.machine.digest()
    write(3, 4)
    assert harness.state.results.keys() == {(session_id, 4)}
    taken = feed.take()
    assert {number: result is None for (_, number), result in taken.results.items()} == {
        1: True,
        4: False,
    }
    assert rebuilt(harness.machine).digest() == harness.machine.digest()


def test_taken_changes_stay_as_they_were(harness: Harness) -> None:
    feed = harness.machine.observe_changes()
    harness.create("/a")
    taken = feed.take()
    before = [encode_record(record) for _, _, record in taken.items() if record is not None]
    harness.write(SetDataOp("/a", b"later"))
    harness.write(DeleteOp("/a"))
    after = [encode_record(record) for _, _, record in taken.items() if record is not None]
    assert before == after


def test_keys_are_short(harness: Harness) -> None:
    """LMDB's keys end at 511 bytes; a path may have 4096."""
    harness.create("/" + "x" * 4000)
    harness.write(SetDataOp("/", b""), Caller(harness.open_session(), 0, 1))
    assert max(len(key) for _, key, _ in harness.state.export_records()) <= 16


def test_records_load_in_any_order(harness: Harness) -> None:
    session_id = harness.open_session()
    harness.create("/a", "/a/b")
    harness.write(CreateOp("/a/e", None, 1), Caller(session_id, 0, 1))
    records = list(harness.state.export_records())
    backwards = Machine(State.from_records(reversed(records)))
    assert backwards.digest() == harness.machine.digest()
    assert list(backwards.state.export_records()) == records


def test_records_that_are_none_of_ours() -> None:
    with pytest.raises(KeyError):
        State.from_records([(99, b"", b"\x90")])
    with pytest.raises(ValueError, match="array"):
        State.from_records([(1, b"", b"\x01")])
