"""The client that other tests trust, against what a real ZooKeeper was recorded to send.

Goal: what it writes is what ZooKeeper took, what it reads is what ZooKeeper wrote, for each
operation; nothing waits for ever when a connection ends. Method: a server that plays the recording
and compares each request with it; others that send what a test wants.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from coordsvc.testing.zookeeper_client import ZooKeeperConnection, ZooKeeperError, four_letter
from coordsvc.testing.zookeeper_connection import (
    ConnectionEndedError,
    Event,
    Reply,
    SessionRefusedError,
)
from coordsvc.testing.zookeeper_records import (
    Acl,
    Decoder,
    EventType,
    OpCode,
    TruncatedError,
    WatcherType,
    WatchMode,
    buffer,
    check_of,
    connect_request,
    create_of,
    create_ttl_of,
    decode_multi,
    delete_of,
    get_children_of,
    get_data_of,
    int32,
    int64,
    packet,
    set_data_of,
    text,
)

RECORDED = Path(__file__).with_name("zookeeper_recorded.txt")
HOST = "127.0.0.1"

Call = Callable[[ZooKeeperConnection], Awaitable[Any]]

WORLD_AND_NET = (Acl(31, "world", "anyone"), Acl(1, "ip", "10.0.0.0/8"))

CALLS: dict[str, Call] = {
    "create": lambda c: c.create("/f", b"x"),
    "create_null_sequential": lambda c: c.create("/f/s-", None, flags=2),
    "create2": lambda c: c.create2("/f/é", b"", flags=1, acl=WORLD_AND_NET),
    "create_container": lambda c: c.create_container("/f/c", b"1"),
    "create_ttl": lambda c: c.create_ttl("/f/t", b"", 60_000),
    "exists": lambda c: c.exists("/f"),
    "exists_of_nothing": lambda c: c.exists("/nothing", watch=True),
    "get_data": lambda c: c.get_data("/f", watch=True),
    "get_null_data": lambda c: c.get_data("/f/s-0000000000"),
    "set_data": lambda c: c.set_data("/f", b"yy", 0),
    "set_data_of_a_wrong_version": lambda c: c.set_data("/f", b"yy", 0),
    "get_acl": lambda c: c.get_acl("/f/é"),
    "set_acl": lambda c: c.set_acl("/f/c", (Acl(1, "world", "anyone"),), 0),
    "get_children": lambda c: c.get_children("/f"),
    "get_children2": lambda c: c.get_children2("/f", watch=True),
    "get_ephemerals": lambda c: c.get_ephemerals(),
    "get_all_children_number": lambda c: c.get_all_children_number("/f"),
    "sync": lambda c: c.sync("/f"),
    "add_auth": lambda c: c.add_auth("digest", b"a:b"),
    "who_am_i": lambda c: c.who_am_i(),
    "multi": lambda c: c.multi(
        create_of("/m", b"1"),
        create_of("/n", b"1", op=OpCode.CREATE2),
        create_ttl_of("/t", b"", 1_000),
        set_data_of("/m", b"2", 0),
        check_of("/m", 1),
        delete_of("/n"),
    ),
    "refused_multi": lambda c: c.multi(create_of("/o", b"1"), check_of("/m", 9), delete_of("/f")),
    "multi_read": lambda c: c.multi_read(
        get_data_of("/m"), get_data_of("/o"), get_children_of("/f")
    ),
    "add_watch": lambda c: c.add_watch("/f", WatchMode.PERSISTENT_RECURSIVE),
    "check_watches": lambda c: c.check_watches("/f", WatcherType.PERSISTENT_RECURSIVE),
    "remove_watches": lambda c: c.remove_watches("/f", WatcherType.PERSISTENT_RECURSIVE),
    "remove_no_watches": lambda c: c.remove_watches("/f", WatcherType.PERSISTENT),
    "set_watches": lambda c: c.set_watches(1, data=["/f"], exist=["/g"], child=["/f"]),
    "set_watches2": lambda c: c.set_watches2(1, data=["/f"], persistent=["/f"], recursive=["/m"]),
    "delete": lambda c: c.delete("/m"),
    "delete_with_children": lambda c: c.delete("/f"),
    "ping": lambda c: c.ping(),
    "close_session": lambda c: c.close_session(),
}


def recording() -> dict[str, dict[str, str]]:
    """Of each step, what is behind its marks."""
    steps: dict[str, dict[str, str]] = {}
    for block in RECORDED.read_text().split("\n\n")[1:]:
        name, *lines = block.splitlines()
        steps[name] = {line[0]: line[2:] for line in lines}
    return steps


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> Any:
    """Its port. The server's own failures are the test's."""
    failures: list[BaseException] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (AssertionError, OSError, asyncio.IncompleteReadError) as error:
            failures.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    assert not failures


async def read_packet(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))


def connected(session_id: int = 7, timeout_ms: int = 5_000) -> bytes:
    body = int32(0) + int32(timeout_ms) + int64(session_id) + buffer(b"p" * 16) + b"\0"
    return packet(body)


def reply(xid: int, zxid: int = 1, error: int = 0, body: bytes = b"") -> bytes:
    return packet(int32(xid) + int64(zxid) + int32(error) + body)


def event(event_type: int, path: str, zxid: int = 1) -> bytes:
    return packet(int32(-1) + int64(zxid) + int32(0) + int32(event_type) + int32(3) + text(path))


@pytest.mark.parametrize("chunk", [1, 1 << 20], ids=["byte by byte", "whole"])
async def test_each_operation_as_recorded(chunk: int) -> None:
    """What is sent is what ZooKeeper was sent; what it answered is understood, also in pieces."""
    steps = recording()
    events = steps.pop("events")["="]
    assert list(steps) == ["connect", *CALLS]

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for name, step in steps.items():
            expected = bytes.fromhex(step[">"])
            assert await reader.readexactly(len(expected)) == expected, name
            answer = bytes.fromhex(step["<"])
            for at in range(0, len(answer), chunk):
                writer.write(answer[at : at + chunk])
                await asyncio.sleep(0)
        assert not await reader.read()

    async with serving(play) as port:
        client = await ZooKeeperConnection.open(HOST, port, timeout_ms=5_000)
        assert (client.timeout_ms, len(client.password)) == (5_000, 16)
        for name, call in CALLS.items():
            try:
                result = await call(client)
            except ZooKeeperError as refused:
                result = ("refused", refused.code)
            assert repr(result) == steps[name]["="], name
        assert repr(client.events) == events
        client.close()


async def test_what_arrives_is_kept_in_order() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_packet(reader)
        writer.write(connected() + event(3, "/a", 9))
        await read_packet(reader)
        await read_packet(reader)
        writer.write(reply(1, 10) + event(1, "/b", 11) + reply(2, 11, -101))
        await reader.read()

    async with serving(serve) as port:
        client = await ZooKeeperConnection.open(HOST, port)
        first, second = client.request(OpCode.SYNC), client.request(OpCode.EXISTS)
        assert (await second).error == -101 and (await first).zxid == 10
        assert client.inbox == [
            Event(EventType.DATA_CHANGED, 3, "/a", 9),
            Reply(1, 10, 0),
            Event(EventType.CREATED, 3, "/b", 11),
            Reply(2, 11, -101),
        ]
        client.close()


async def test_requests_of_a_lost_connection_end() -> None:
    """Those under way, those that come later, and whoever waits for what will not arrive."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_packet(reader)
        writer.write(connected())
        await read_packet(reader)

    async with serving(serve) as port:
        client = await ZooKeeperConnection.open(HOST, port)
        under_way = client.request(OpCode.SYNC, text("/"))
        with pytest.raises(ConnectionEndedError):
            await client.wait_until(lambda: bool(client.inbox))
        await client.wait_closed()
        for future in (under_way, client.request(OpCode.SYNC, text("/"))):
            with pytest.raises(ConnectionEndedError):
                await future


async def test_refused_session() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_packet(reader)
        writer.write(connected(session_id=0, timeout_ms=0))
        assert not await reader.read()

    async with serving(serve) as port:
        with pytest.raises(SessionRefusedError):
            await ZooKeeperConnection.open(HOST, port, session_id=5, password=b"x" * 16)


async def test_no_answer_to_a_connect_request() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_packet(reader)

    async with serving(serve) as port:
        with pytest.raises(ConnectionEndedError):
            await ZooKeeperConnection.open(HOST, port)


@pytest.mark.parametrize(("read_only", "end"), [(None, ""), (False, "00"), (True, "01")])
def test_connect_request(read_only: bool | None, end: str) -> None:
    """Byte for byte; that of old clients is one byte shorter."""
    sent = connect_request(
        timeout_ms=4, session_id=3, password=b"pw", last_zxid=2, read_only=read_only
    )
    body = "00000000" + "0000000000000002" + "00000004" + "0000000000000003" + "000000027077" + end
    assert sent == packet(bytes.fromhex(body))


async def test_four_letter_word() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(4) == b"ruok"
        writer.write(b"imok")

    async with serving(serve) as port:
        assert await four_letter(HOST, port, "ruok") == "imok"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        int32(1) + b"\0" + int32(0),
        int32(-1) + b"\0" + int32(-101) + int32(-102) + int32(-1) + b"\1" + int32(-1),
        int32(-1) + b"\2" + int32(-1),
        int32(-1) + b"\1" + int32(0),
        int32(99) + b"\0" + int32(0) + int32(-1) + b"\1" + int32(-1),
        int32(-1) + b"\1" + int32(-1) + b"\0",
    ],
)
def test_results_of_another_form_are_refused(body: bytes) -> None:
    """A multi's answer that ZooKeeper would not give is not taken for one."""
    with pytest.raises(TruncatedError):
        decode_multi(body)


@pytest.mark.parametrize("data", [int32(-2), int32(5) + b"abcd", b"\0\0"])
def test_buffers_end_within_the_packet(data: bytes) -> None:
    with pytest.raises(TruncatedError):
        Decoder(data).buffer()
