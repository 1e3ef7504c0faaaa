"""A session over unary calls: numbers without gaps, heartbeats, and when it counts as lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import pytest

from coordsvc.client.methods import CLOSE_SESSION, CREATE, HEARTBEAT, OPEN_SESSION
from coordsvc.client.options import ClientConfig
from coordsvc.client.session import ClientSession
from coordsvc.client.unary import UnaryClient
from coordsvc.errors import (
    Applied,
    BadVersionError,
    ErrorCode,
    LimitExceededError,
    NodeExistsError,
    OutcomeUnknownError,
    SessionExpiredError,
    UnavailableError,
)
from coordsvc.v1 import common_pb2, coordination_pb2
from tests.unit.cli.fake_replica import FakeReplica, refuse

TIMEOUT_MS = 600
LOST = refuse(grpc.StatusCode.UNAVAILABLE, text="Socket closed")
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


def opened(
    request: coordination_pb2.OpenSessionRequest,
) -> coordination_pb2.OpenSessionResponse:
    credentials = common_pb2.SessionCredentials(session_id=42, password=b"p" * 16)
    return coordination_pb2.OpenSessionResponse(
        credentials=credentials, timeout_ms=request.timeout_ms or 10_000
    )


def alive(request: coordination_pb2.HeartbeatRequest) -> coordination_pb2.HeartbeatResponse:
    return coordination_pb2.HeartbeatResponse(timeout_ms=TIMEOUT_MS)


def created(request: coordination_pb2.CreateRequest) -> coordination_pb2.CreateResponse:
    return coordination_pb2.CreateResponse(path=request.path)


def closed(
    request: coordination_pb2.CloseSessionRequest,
) -> coordination_pb2.CloseSessionResponse:
    return coordination_pb2.CloseSessionResponse()


@pytest.fixture
async def client(fake_replica: FakeReplica) -> AsyncIterator[UnaryClient]:
    fake_replica.on(OPEN_SESSION, opened)
    fake_replica.on(HEARTBEAT, alive)
    fake_replica.on(CREATE, created)
    fake_replica.on(CLOSE_SESSION, closed)
    config = ClientConfig((fake_replica.endpoint,), timeout_ms=150, retry_delay_ms_max=40)
    async with UnaryClient(config) as client:
        yield client


def numbers(fake_replica: FakeReplica) -> list[int]:
    return [request.context.request_number for request in fake_replica.requests_of(CREATE)]


async def test_writes_are_numbered_without_gaps(
    fake_replica: FakeReplica, client: UnaryClient
) -> None:
    async with await ClientSession.open(client) as session:
        await asyncio.gather(*(session.create(f"/{name}") for name in "abc"))
    assert numbers(fake_replica) == [1, 2, 3]
    (closing,) = fake_replica.requests_of(CLOSE_SESSION)
    assert closing.context.request_number == 4
    for request in fake_replica.requests_of(CREATE):
        assert request.context.session.session_id == 42
        assert request.context.done_below == request.context.request_number


async def test_a_refusal_by_the_state_machine_uses_its_number(
    fake_replica: FakeReplica, client: UnaryClient
) -> None:
    refused = refuse(grpc.StatusCode.ALREADY_EXISTS, ErrorCode.NODE_EXISTS, zxid=9)
    fake_replica.on(CREATE, refused, created)
    async with await ClientSession.open(client) as session:
        with pytest.raises(NodeExistsError):
            await session.create("/a")
        await session.create("/b")
    assert numbers(fake_replica) == [1, 2]


async def test_a_refusal_before_it_leaves_no_gap(
    fake_replica: FakeReplica, client: UnaryClient
) -> None:
    """The next write must carry the number that the refused one did not use."""
    refused = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorCode.LIMIT_EXCEEDED)
    fake_replica.on(CREATE, refused, created)
    async with await ClientSession.open(client) as session:
        with pytest.raises(LimitExceededError):
            await session.create("/a")
        await session.create("/b")
    assert numbers(fake_replica) == [1, 1]


async def test_an_unsettled_write_is_settled_before_the_next(
    fake_replica: FakeReplica, client: UnaryClient
) -> None:
    async with await ClientSession.open(client) as session:
        fake_replica.on(CREATE, LOST)
        with pytest.raises(OutcomeUnknownError):
            await session.create("/a")
        with pytest.raises(UnavailableError) as caught:
            await session.create("/b")
        assert caught.value.applied is Applied.NO
        fake_replica.on(CREATE, created)
        assert (await session.create("/c")).path == "/c"
    sent = [(request.path, request.context.request_number)
            for request in fake_replica.requests_of(CREATE)]  # fmt: skip
    assert sent[-2:] == [("/a", 1), ("/c", 2)]
    assert "/b" not in dict(sent)


async def test_a_refusal_of_the_unsettled_write_is_not_the_next_ones(
    fake_replica: FakeReplica, client: UnaryClient
) -> None:
    async with await ClientSession.open(client) as session:
        fake_replica.on(CREATE, LOST)
        with pytest.raises(OutcomeUnknownError):
            await session.create("/a")
        as_first_time = refuse(grpc.StatusCode.ABORTED, ErrorCode.BAD_VERSION, zxid=3)
        fake_replica.on(CREATE, as_first_time, created)
        try:
            assert (await session.create("/b")).path == "/b"
        except BadVersionError as error:
            raise AssertionError("the answer of another write") from error


async def test_a_cancelled_write_is_settled_too(
    fake_replica: FakeReplica, client: UnaryClient
) -> None:
    async with await ClientSession.open(client) as session:
        fake_replica.on(CREATE, LOST)
        write = asyncio.create_task(session.create("/a"))
        while not fake_replica.requests_of(CREATE):
            await asyncio.sleep(0.005)
        write.cancel()
        await asyncio.gather(write, return_exceptions=True)
        fake_replica.on(CREATE, created)
        await session.create("/b")
    assert numbers(fake_replica)[-2:] == [1, 2]


async def test_heartbeats_keep_it_alive(fake_replica: FakeReplica, client: UnaryClient) -> None:
    async with await ClientSession.open(client, TIMEOUT_MS) as session:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.wait_lost(), 1.5 * TIMEOUT_MS / 1000)
    assert 3 <= len(fake_replica.requests_of(HEARTBEAT)) <= 6


async def test_it_is_lost_one_timeout_after_the_last_answered_heartbeat_was_sent(
    fake_replica: FakeReplica, client: UnaryClient
) -> None:
    fake_replica.on(HEARTBEAT, refuse(grpc.StatusCode.UNAVAILABLE, ErrorCode.NO_QUORUM))
    sent_at = time.monotonic()
    session = await ClientSession.open(client, TIMEOUT_MS)
    opened_at = time.monotonic()
    reason = await asyncio.wait_for(session.wait_lost(), 5)
    assert isinstance(reason, SessionExpiredError)
    assert sent_at + TIMEOUT_MS / 1000 <= time.monotonic() <= opened_at + TIMEOUT_MS / 1000 + 0.2
    await session.close()
    assert not fake_replica.requests_of(CLOSE_SESSION)


async def test_the_servers_word_ends_it_at_once(
    fake_replica: FakeReplica, client: UnaryClient
) -> None:
    fake_replica.on(HEARTBEAT, refuse(PRECONDITION, ErrorCode.SESSION_EXPIRED, text="closed"))
    session = await ClientSession.open(client, TIMEOUT_MS)
    reason = await asyncio.wait_for(session.wait_lost(), 0.9 * TIMEOUT_MS / 1000)
    assert isinstance(reason, SessionExpiredError) and reason.message == "closed"
    await session.close()


async def test_closing_what_has_expired_is_closing(
    fake_replica: FakeReplica, client: UnaryClient
) -> None:
    fake_replica.on(CLOSE_SESSION, LOST, refuse(PRECONDITION, ErrorCode.SESSION_EXPIRED))
    async with await ClientSession.open(client):
        pass
    assert len(fake_replica.requests_of(CLOSE_SESSION)) == 2
