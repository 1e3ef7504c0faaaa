"""In which order things leave a connection of the door: replies as the requests came, events before
whatever reveals their cause.

Ref: ZooKeeper Programmer's Guide, "What ZooKeeper Guarantees about Watches"; CommitProcessor.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator

import pytest

from coordsvc.errors import OutcomeUnknownError
from coordsvc.server.zookeeper import lists
from coordsvc.server.zookeeper.slots import WriteSlot
from coordsvc.testing.zookeeper_client import PING_XID, ZooKeeperConnection
from coordsvc.testing.zookeeper_connection import ConnectionEndedError, Event, Reply
from coordsvc.testing.zookeeper_records import (
    WORLD,
    Decoder,
    EventType,
    OpCode,
    WatchMode,
    boolean,
    buffer,
    create_body,
    create_of,
    delete_of,
    int32,
    multi_body,
    set_data_of,
    text,
)
from tests.unit.server.harness import eventually
from tests.unit.server.zookeeper.door_harness import DoorHarness, door_replica, is_served

Request = tuple[int, bytes, int | None]

SEEDS = [1, 2, 3]
NO_NODE, NODE_EXISTS = -101, -110


@pytest.fixture
async def replica() -> AsyncIterator[DoorHarness]:
    async with door_replica() as replica:
        yield replica


def set_request(path: str, data: bytes) -> Request:
    return OpCode.SET_DATA, text(path) + buffer(data) + int32(-1), None


def get_request(path: str, *, watch: bool = False) -> Request:
    return OpCode.GET_DATA, text(path) + boolean(watch), None


def sync_request() -> Request:
    return OpCode.SYNC, text("/"), None


def check_zxids(client: ZooKeeperConnection) -> None:
    """No reply shows less than one before it, and no event comes after a reply of its own zxid or a
    later one."""
    shown = 0
    for item in client.inbox:
        if isinstance(item, Reply):
            assert item.zxid >= shown, item
            shown = item.zxid
        else:
            assert item.zxid > shown, f"{item} behind a reply of zxid {shown}"


# -------------------------------------------------------------------------------- replies


@pytest.mark.parametrize("has_syncs", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
async def test_hundreds_of_requests_at_once(
    replica: DoorHarness, seed: int, has_syncs: bool
) -> None:
    """Reads, writes, syncs and refusals in one send: answered in their order, and each read shows
    what the last write before it wrote, not a later one."""
    rng = random.Random(seed)
    kinds = ["set", "get", "get", "missing", "exists", *(["sync"] if has_syncs else [])]
    client = await replica.open()
    await client.create("/a", b"0")
    wanted: list[Request] = []
    expected: list[bytes] = []
    last = b"0"
    for number in range(800):
        kind = rng.choice(kinds)
        if kind == "set":
            last = b"%d" % number
            wanted.append(set_request("/a", last))
        elif kind == "get":
            wanted.append(get_request("/a"))
        elif kind == "sync":
            wanted.append(sync_request())
        elif kind == "missing":
            wanted.append(get_request("/missing"))
        else:
            wanted.append((OpCode.CREATE, create_body("/a", b"", 0, WORLD), None))
        expected.append(last)
    first = len(client.replies)
    answers = await asyncio.gather(*client.requests(wanted))
    assert client.replies[first:] == answers
    check_zxids(client)
    codes = {OpCode.CREATE: NODE_EXISTS, OpCode.SET_DATA: 0, OpCode.SYNC: 0}
    for (op, body, _), value, answer in zip(wanted, expected, answers, strict=True):
        if op == OpCode.GET_DATA:
            is_missing = b"missing" in body
            assert answer.error == (NO_NODE if is_missing else 0)
            if not is_missing:
                assert Decoder(answer.body).buffer() == value
        else:
            assert answer.error == codes[OpCode(op)]


async def test_plain_reads_between_writes_cost_no_round(replica: DoorHarness) -> None:
    """All writes are proposed at once, in a few entries of the log."""
    client = await replica.open()
    await client.create("/a", b"0")
    index = replica.local.replica.applied_index
    wanted, expected = [get_request("/a")], [b"0"]
    for number in range(1, 30):
        wanted.append(set_request("/a", b"%d" % number))
        wanted += [get_request("/a")] * (number % 3)
        expected += [b"%d" % number] * (number % 3)
    first = len(client.replies)
    replies = await asyncio.gather(*client.requests(wanted))
    assert client.replies[first:] == replies
    assert index < replica.local.replica.applied_index <= index + 5
    check_zxids(client)
    seen = [
        Decoder(reply.body).buffer()
        for (op, _, _), reply in zip(wanted, replies, strict=True)
        if op == OpCode.GET_DATA
    ]
    assert seen == expected


async def test_a_write_that_is_answered_is_not_kept(replica: DoorHarness) -> None:
    """Not by the place where a read would stand behind it either: it may hold a megabyte."""
    client = await replica.open()
    await client.create("/a", b"x" * 1_000_000)
    await client.set_data("/a", b"y" * 1_000_000)
    await client.ping()
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, WriteSlot)]


async def test_a_read_behind_a_write_of_unknown_outcome_ends_the_connection(
    replica: DoorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the write itself does: the protocol has no word for it. The session goes on."""
    client = await replica.open()
    await client.create("/a", b"0")
    origin, applier = replica.local.replica._origin, replica.local.replica._applier
    with monkeypatch.context() as held:
        held.setattr(applier, "apply_slice", lambda now: False)
        answers = client.requests(
            [set_request("/a", b"1"), get_request("/a"), set_request("/a", b"2")]
        )
        await eventually(lambda: origin.undecided == 2)
        origin.sent()[0].waiters[0].waiter.set_exception(OutcomeUnknownError("undecided"))
        await client.wait_closed()
    for answer in answers:
        with pytest.raises(ConnectionEndedError):
            await answer
    await eventually(lambda: replica.state.znodes["/a"].data == b"2")
    assert replica.door.pipeline.statistics().reads_waiting == 0
    again = await replica.attach(client)
    assert (await again.get_data("/a"))[0] == b"2"


async def test_xids_are_the_clients_business(replica: DoorHarness) -> None:
    """They are told back as they came, in whatever order and more than once."""
    client = await replica.open()
    for xid in (7, 7, 0, 2**31 - 1, -5, 3):
        assert (await client.request(OpCode.EXISTS, text("/") + b"\0", xid)).xid == xid


async def test_packets_in_pieces(replica: DoorHarness) -> None:
    """Requests may be cut anywhere."""
    rng = random.Random(5)
    sender, other = await replica.open(), await replica.open()
    await other.create("/a", b"0")
    stream = bytearray()
    for number in range(60):
        for op, body, _ in (set_request("/a", b"%d" % number), get_request("/a")):
            request = int32(1_000 + number) + int32(op) + body
            stream += int32(len(request)) + request
            sender._expect(1_000 + number)
    while stream:
        size = rng.choice([1, 2, 3, 5, 40, 200])
        sender.send(bytes(stream[:size]))
        del stream[:size]
        await is_served(other)
    await sender.wait_until(lambda: len(sender.replies) == 120)
    values = [Decoder(reply.body).buffer() for reply in sender.replies[1::2]]
    assert values == [b"%d" % number for number in range(60)]


async def test_ping_does_not_wait_for_its_turn(replica: DoorHarness) -> None:
    """It is answered also among requests, and says what has been applied."""
    client = await replica.open()
    await client.create("/a", b"0")
    answers = client.requests([set_request("/a", b"%d" % number) for number in range(50)])
    ping = await client.ping()
    await asyncio.gather(*answers)
    assert ping.error == 0 and ping.zxid > 0
    check_zxids(client)


# ---------------------------------------------------------------------------------- events


async def test_own_event_before_own_reply(replica: DoorHarness) -> None:
    client = await replica.open()
    await client.create("/a", b"0")
    for number in range(20):
        await client.get_data("/a", watch=True)
        before = len(client.inbox)
        await client.set_data("/a", b"%d" % number)
        event, reply = client.inbox[before:]
        assert isinstance(event, Event) and isinstance(reply, Reply)
        assert (event.type, event.path) == (EventType.DATA_CHANGED, "/a")
        assert event.zxid == reply.zxid


async def test_event_before_the_reply_that_reveals_it(replica: DoorHarness) -> None:
    """Many write; one reads and sets its one-shot watch anew with each read, several at once. When
    a reply shows a change since the one before, its event is between the two."""
    watching = await replica.open()
    await watching.create("/a", b"0")
    writers = [await replica.open() for _ in range(5)]

    async def write(writer: ZooKeeperConnection) -> None:
        while len(watching.events) < 40:
            await writer.set_data("/a", b"x")

    async def read() -> None:
        while len(watching.events) < 40:
            await asyncio.gather(*watching.requests([get_request("/a", watch=True)] * 3))

    await asyncio.gather(read(), *(write(writer) for writer in writers))
    check_zxids(watching)
    shown: int | None = None
    has_event = False
    changes = 0
    for item in watching.inbox:
        if isinstance(item, Event):
            assert item.path == "/a" and not has_event, "one event for each time it was set"
            has_event = True
        elif len(item.body) > 60:
            decoder = Decoder(item.body)
            decoder.buffer()
            mzxid = decoder.stat().mzxid
            if shown is not None and mzxid != shown:
                assert has_event, f"zxid {mzxid} was shown and no event told of it"
                changes += 1
            shown, has_event = mzxid, False
    assert changes >= 39


async def test_events_of_many_writers_in_order(replica: DoorHarness) -> None:
    """A persistent watch hears of every change, in the order of the zxids, each before any reply
    that shows as much; those of a multi follow each other."""
    watching = await replica.open()
    await watching.create("/p")
    await watching.add_watch("/p", WatchMode.PERSISTENT_RECURSIVE)
    writers = [await replica.open() for _ in range(4)]

    async def write(writer: ZooKeeperConnection, number: int) -> None:
        first, second = f"/p/{number}", f"/p/{number}-2"
        for _ in range(15):
            await writer.multi(create_of(first), create_of(second), set_data_of(first, b"x"))
            await writer.multi(delete_of(second), delete_of(first))

    async def read() -> None:
        for _ in range(100):
            await asyncio.gather(*watching.requests([sync_request(), get_request("/p")]))

    await asyncio.gather(read(), *(write(writer, n) for n, writer in enumerate(writers)))
    await watching.sync()
    check_zxids(watching)
    events = watching.events
    assert len(events) == 4 * 15 * 5
    assert [event.zxid for event in events] == sorted(event.zxid for event in events)
    groups: dict[int, list[tuple[int, str]]] = {}
    for event in events:
        groups.setdefault(event.zxid, []).append((event.type, event.path))
    created = [EventType.CREATED, EventType.CREATED, EventType.DATA_CHANGED]
    for group in groups.values():
        types = [event_type for event_type, _ in group]
        assert types in (created, [EventType.DELETED] * 2)
        assert len({path.removesuffix("-2") for _, path in group}) == 1


async def test_events_come_without_a_request(replica: DoorHarness) -> None:
    watching, writer = await replica.open(), await replica.open()
    await writer.create("/a")
    await watching.exists("/a", watch=True)
    await watching.get_children("/", watch=True)
    await writer.delete("/a")
    await watching.wait_until(lambda: len(watching.events) == 2)
    assert [(event.type, event.path) for event in watching.events] == [
        (EventType.DELETED, "/a"),
        (EventType.CHILDREN_CHANGED, "/"),
    ]
    assert {event.zxid for event in watching.events} == {replica.state.zxid}


async def test_no_event_of_a_watch_before_the_read_that_sets_it(
    replica: DoorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients know of a watch when its read is answered, and throw away what comes before. A read
    may take many turns, in which others write, and pings are answered in between."""
    monkeypatch.setattr(lists, "NAMES_AT_ONCE", 5)
    client, writer = await replica.open(), await replica.open()
    await writer.create("/p")
    await writer.multi(*(create_of(f"/p/{number}") for number in range(1_000)))
    rounds = 0

    async def write() -> None:
        while rounds < 15:
            await writer.create("/p/x")
            await writer.delete("/p/x")

    def has_told() -> bool:
        return len(client.events) > rounds

    async def read() -> None:
        nonlocal rounds
        while rounds < 15:
            begin = len(client.inbox)
            listed = client.request(OpCode.GET_CHILDREN2, text("/p") + boolean(True))
            pings = []
            while not listed.done():
                pings.append(client.request(OpCode.PING, xid=PING_XID))
                await asyncio.sleep(0)
            await client.wait_until(has_told)
            await asyncio.gather(*pings)
            kinds = [
                "event" if isinstance(item, Event) else "ping" if item.xid == PING_XID else "read"
                for item in client.inbox[begin:]
            ]
            assert kinds.index("event") > kinds.index("read")
            rounds += 1

    await asyncio.gather(write(), read())
    check_zxids(client)


async def test_catch_up_comes_before_its_reply(replica: DoorHarness) -> None:
    """What a client missed while away is told in one go, before setWatches is answered; what it did
    not miss is watched again."""
    client, other = await replica.open(), await replica.open()
    for path in ("/data", "/gone", "/parent", "/same"):
        await client.create(path)
    known = replica.state.zxid
    client.abort()
    await other.set_data("/data", b"x")
    await other.delete("/gone")
    await other.create("/parent/c")
    await other.create("/new")
    again = await replica.attach(client, last_zxid=known)
    await again.set_watches(
        known,
        data=["/data", "/gone", "/same"],
        exist=["/new", "/never"],
        child=["/parent", "/same"],
    )
    *events, reply = again.inbox
    assert isinstance(reply, Reply) and reply.xid == -8
    assert {(e.type, e.path, e.zxid) for e in events if isinstance(e, Event)} == {
        (EventType.DATA_CHANGED, "/data", -1),
        (EventType.DELETED, "/gone", -1),
        (EventType.CREATED, "/new", -1),
        (EventType.CHILDREN_CHANGED, "/parent", -1),
    }
    assert len(events) == 4
    await other.multi(create_of("/never"), create_of("/same/c"), set_data_of("/same", b"x"))
    await again.wait_until(lambda: len(again.events) == 7)
    assert {(event.type, event.path) for event in again.events[4:]} == {
        (EventType.CREATED, "/never"),
        (EventType.CHILDREN_CHANGED, "/same"),
        (EventType.DATA_CHANGED, "/same"),
    }


# ----------------------------------------------------------------------------------- the end


async def test_nothing_behind_the_end_of_the_session(replica: DoorHarness) -> None:
    """What was sent before closeSession is done and answered, then comes its reply, then the end of
    the connection; what was sent behind it is not done."""
    client, other = await replica.open(), await replica.open()
    await client.create("/e", flags=1)
    before, close, after = client.requests(
        [
            (OpCode.CREATE, create_body("/before", b"", 0, WORLD), None),
            (OpCode.CLOSE_SESSION, b"", None),
            (OpCode.CREATE, create_body("/after", b"", 0, WORLD), None),
        ]
    )
    assert (await before).error == (await close).error == 0
    assert not (await close).body
    await client.wait_closed()
    with pytest.raises(ConnectionEndedError):
        await after
    assert await other.get_children("/") == ("before", "zookeeper")
    assert client.session_id not in replica.state.sessions


async def test_writes_of_a_client_that_left_are_done_in_order(replica: DoorHarness) -> None:
    """Whatever of them was taken in is a beginning of what it sent."""
    other = await replica.open()
    await other.create("/q")
    client = await replica.open()
    wanted = [(OpCode.CREATE, create_body(f"/q/{n:04}", b"", 0, WORLD), None) for n in range(500)]
    answers = client.requests([*wanted[:1], get_request("/q"), *wanted[1:]])
    await answers[0]
    client.abort()
    await eventually(lambda: replica.connections == 1)
    await other.sync()
    names = await other.get_children("/q")
    assert names and list(names) == [f"{n:04}" for n in range(len(names))]


async def test_multi_of_nothing(replica: DoorHarness) -> None:
    """As ZooKeeper has it: no results."""
    client = await replica.open()
    assert await client.multi() == ()
    assert (await client.request(OpCode.MULTI, multi_body([]))).error == 0
