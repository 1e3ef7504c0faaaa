"""The clients of the rows of scale, against servers of a few lines that can do wrong.

Goal: a figure is reported only of what was really answered, once, and in order.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from bench.scale_idle import TIMEOUT_MS, ZooKeeperSessions
from bench.scale_pipe import Event, Pipe, PipeError, within
from bench.scale_watchers import Watchers
from bench.scale_writer import Writer, read_packet
from coordsvc.testing.zookeeper_records import EventType, OpCode, buffer, int32, packet, text

SESSION = 7


def connected(timeout_ms: int = TIMEOUT_MS, session_id: int = SESSION) -> bytes:
    return packet(struct.pack(">iiqi16s?", 0, timeout_ms, session_id, 16, b"", False))


def reply(xid: int, zxid: int = 1, error: int = 0, body: bytes = b"") -> bytes:
    return packet(struct.pack(">iqi", xid, zxid, error) + body)


def event(zxid: int, path: str = "/x", kind: int = EventType.DATA_CHANGED) -> bytes:
    return reply(-1, zxid, body=int32(kind) + int32(3) + text(path))


Answer = Callable[[int, int], bytes]
"""Of (xid, op)."""


@asynccontextmanager
async def server(answer: Answer, hello: bytes | None = None) -> AsyncIterator[str]:
    """Its endpoint. An empty answer: the connection ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _packet(reader)
            writer.write(connected() if hello is None else hello)
            while True:
                xid, op = struct.unpack_from(">ii", await _packet(reader))
                answered = answer(xid, op)
                if not answered:
                    return
                # In two pieces: a packet may arrive like that.
                writer.write(answered[:6])
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(answered[6:])
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        listening.close()


async def _packet(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))


# ----------------------------------------------------------------------------------------- Pipe


async def test_replies_come_to_whoever_asked_and_events_before_them() -> None:
    seen: list[Event | bytes] = []

    def answer(xid: int, op: int) -> bytes:
        return event(9, "/é") + reply(xid, 9, body=int32(op)) + reply(-2)

    async with server(answer) as endpoint:
        pipe = await Pipe.open(endpoint, on_event=seen.append)
        assert pipe.session_id == SESSION
        seen.append((await pipe.ask(OpCode.EXISTS)).body)
        replies = await pipe.ask_each(OpCode.GET_DATA, [b""] * 5, in_flight=2)
        assert [each.body for each in replies] == [int32(OpCode.GET_DATA)] * 5
        await pipe.close()
    assert seen[:2] == [Event(EventType.DATA_CHANGED, "/é", 9), int32(OpCode.EXISTS)]
    pipe.check()


async def test_an_error_is_one_unless_it_is_allowed() -> None:
    async with server(lambda xid, op: reply(xid, error=-110)) as endpoint:
        pipe = await Pipe.open(endpoint)
        assert (await pipe.ask(OpCode.CREATE, allowed=(-110,))).error == -110
        with pytest.raises(PipeError, match="error -110"):
            await pipe.ask(OpCode.CREATE)
        pipe.check()
        pipe.abort()


@pytest.mark.parametrize("wrong", [-1, 1])
async def test_a_reply_out_of_order_fails_all_that_wait(wrong: int) -> None:
    async with server(lambda xid, op: reply(xid + wrong + (xid + wrong <= 0) * 5)) as endpoint:
        pipe = await Pipe.open(endpoint)
        asked = [pipe.ask(OpCode.EXISTS) for _ in range(3)]
        for each in asked:
            with pytest.raises(PipeError, match="a reply to request"):
                await within(5.0, each, "a failure")
        with pytest.raises(PipeError):
            pipe.check()
        with pytest.raises(PipeError):
            pipe.ask(OpCode.EXISTS)


async def test_a_connection_that_ends_fails_all_that_wait() -> None:
    async with server(lambda xid, op: b"") as endpoint:
        pipe = await Pipe.open(endpoint)
        with pytest.raises(PipeError, match="the connection was lost"):
            await within(5.0, pipe.ask(OpCode.EXISTS), "a failure")


async def test_a_refused_session_is_an_error() -> None:
    async with server(lambda xid, op: b"", hello=connected(session_id=0)) as endpoint:
        with pytest.raises(PipeError, match="no session"):
            await Pipe.open(endpoint)


async def test_what_does_not_come_in_time_is_told() -> None:
    with pytest.raises(PipeError, match=r"tea did not come within 0.01 s"):
        await within(0.01, asyncio.Event().wait(), "tea")


# --------------------------------------------------------------------------------- idle sessions


async def test_idle_sessions_that_all_live_are_closed_and_counted() -> None:
    async with server(lambda xid, op: reply(xid)) as endpoint:
        sessions = ZooKeeperSessions([endpoint], 3)
        await sessions.open()
        await sessions.stop_pinging()
        sessions.check()
        await sessions.close()
        await sessions.kill()


async def test_an_idle_session_that_is_lost_is_noticed() -> None:
    async with server(lambda xid, op: b"") as endpoint:
        sessions = ZooKeeperSessions([endpoint], 3)
        await sessions.open()
        for session in sessions.all:
            session.ping()
        await sessions.stop_pinging()
        with pytest.raises(PipeError, match="the connection was lost"):
            sessions.check()
        await sessions.kill()


async def test_a_session_of_another_timeout_is_noticed() -> None:
    async with server(lambda xid, op: reply(xid), hello=connected(4_000)) as endpoint:
        sessions = ZooKeeperSessions([endpoint], 1)
        await sessions.open()
        with pytest.raises(PipeError, match="4000"):
            sessions.check()
        await sessions.kill()


# -------------------------------------------------------------------------- watchers, the writer


@contextmanager
def watched(events: int, *, closes: bool = False) -> Iterator[tuple[str, threading.Event]]:
    """A server for one connection, and what makes it send its events when a watch is set."""
    fire = threading.Event()

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            try:
                read_packet(connection)
                connection.sendall(connected())
                while True:
                    xid, op = struct.unpack_from(">ii", read_packet(connection))
                    stat = buffer(b"data") + bytes(68)
                    connection.sendall(reply(xid, body=stat if op == OpCode.GET_DATA else b""))
                    if op == OpCode.GET_DATA:
                        fire.wait(5.0)
                        fire.clear()
                        connection.sendall(event(5) * events)
                        if closes:
                            return
            except (EOFError, ConnectionError):
                return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}", fire
    thread.join(5.0)


def test_a_watcher_hears_of_each_round_once() -> None:
    with watched(events=1) as (endpoint, fire):
        watchers = Watchers([endpoint], 1, "/x")
        watchers.open()
        for _ in range(2):
            watchers.watch()
            fire.set()
            watchers.hear()
            assert list(watchers.zxids) == [5]
            assert watchers.data == [b"data"]
        watchers.check_quiet(0.0)
        watchers.close()
        watchers.abort()


def test_an_event_too_many_is_noticed() -> None:
    with watched(events=2) as (endpoint, fire):
        watchers = Watchers([endpoint], 1, "/x")
        watchers.open()
        watchers.watch()
        fire.set()
        with pytest.raises(PipeError, match=r"instead of its event|asked for"):
            # It comes in the same piece as the first one, or a little later.
            watchers.hear()
            watchers.check_quiet(5.0)
        watchers.abort()


def test_a_watcher_whose_connection_ends_is_noticed() -> None:
    with watched(events=0, closes=True) as (endpoint, fire):
        watchers = Watchers([endpoint], 1, "/x")
        watchers.open()
        watchers.watch()
        fire.set()
        with pytest.raises(PipeError, match="was closed"):
            watchers.hear()
        watchers.abort()


def test_the_writer_tells_when_it_wrote() -> None:
    with watched(events=0) as (endpoint, _):
        writer = Writer(endpoint)
        sent_at, acked_at, zxid = writer.write("/x", 3)
        assert sent_at <= acked_at
        assert zxid == 1
        writer.close()
