"""The client against scripted replicas: what it repeats, where, and what it says in the end."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from coordsvc.client.methods import CREATE, EXISTS, GET_CHILDREN, GET_DATA, SET_DATA
from coordsvc.client.options import ClientConfig
from coordsvc.client.retry import ConnectionFailedError, UnreachableError
from coordsvc.client.unary import UnaryClient
from coordsvc.errors import (
    Applied,
    CoordError,
    ErrorCode,
    InternalError,
    LimitExceededError,
    NodeExistsError,
    NoNodeError,
    NoQuorumError,
    OutcomeUnknownError,
)
from coordsvc.testing.ports import free_port
from coordsvc.v1 import common_pb2, coordination_pb2
from tests.unit.cli.fake_replica import FakeReplica, endpoints, refuse

Start = Callable[[int], list[FakeReplica]]

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NO_QUORUM = refuse(UNAVAILABLE, ErrorCode.NO_QUORUM)
LOST = refuse(UNAVAILABLE, text="Socket closed")


def found(request: coordination_pb2.ExistsRequest) -> coordination_pb2.ExistsResponse:
    header = common_pb2.ResponseHeader(zxid=7, cluster_id=1)
    return coordination_pb2.ExistsResponse(header=header, stat=common_pb2.Stat(czxid=5))


def created(request: coordination_pb2.CreateRequest) -> coordination_pb2.CreateResponse:
    return coordination_pb2.CreateResponse(path=request.path)


def client_of(*names: str, timeout_ms: int = 2_000, attempt_ms: int = 300) -> UnaryClient:
    return UnaryClient(
        ClientConfig(
            names,
            timeout_ms=timeout_ms,
            attempt_timeout_ms=attempt_ms,
            connect_timeout_ms=300,
            unreachable_timeout_ms=timeout_ms,
        )
    )


@pytest.fixture
def deaf_endpoint() -> Iterator[str]:
    """Takes connections and never says a word, as a stopped process does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("answer", [NO_QUORUM, LOST], ids=["no quorum", "no answer"])
async def test_a_read_goes_on_to_the_next_replica(fake_replicas: Start, answer: object) -> None:
    first, second = fake_replicas(2)
    first.on(EXISTS, answer)  # type: ignore[arg-type]
    second.on(EXISTS, found)
    async with client_of(*endpoints([first, second])) as client:
        assert (await client.exists("/a")).stat.czxid == 5
        assert (await client.exists("/a")).stat.czxid == 5
    assert len(first.requests) == 1, "the client went back to the replica that failed"


async def test_a_write_without_an_answer_is_sent_once(fake_replicas: Start) -> None:
    first, second = fake_replicas(2)
    first.on(CREATE, LOST)
    second.on(CREATE, created)
    async with client_of(*endpoints([first, second])) as client:
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.create("/a")
    assert caught.value.applied is Applied.UNKNOWN
    assert (len(first.requests), len(second.requests)) == (1, 0)


async def test_a_write_that_was_refused_for_now_is_repeated(fake_replicas: Start) -> None:
    first, second = fake_replicas(2)
    first.on(CREATE, NO_QUORUM)
    second.on(CREATE, NO_QUORUM, created)
    async with client_of(*endpoints([first, second])) as client:
        assert (await client.create("/a")).path == "/a"
    assert (len(first.requests), len(second.requests)) == (2, 2)


async def test_a_numbered_write_is_repeated_under_its_number(fake_replicas: Start) -> None:
    first, second = fake_replicas(2)
    first.on(CREATE, LOST)
    second.on(CREATE, refuse(grpc.StatusCode.DEADLINE_EXCEEDED, ErrorCode.OUTCOME_UNKNOWN,
                             Applied.UNKNOWN), created)  # fmt: skip
    numbered = common_pb2.RequestContext(request_number=3)
    async with client_of(*endpoints([first, second])) as client:
        await client.create("/a", context=numbered)
    requests = first.requests_of(CREATE) + second.requests_of(CREATE)
    assert len(requests) >= 3
    assert {request.context.request_number for request in requests} == {3}


async def test_an_error_comes_from_the_code_and_not_from_the_text(
    fake_replica: FakeReplica,
) -> None:
    lie = refuse(grpc.StatusCode.INTERNAL, ErrorCode.NODE_EXISTS, text="NO_NODE: not found",
                 path="/a", zxid=9)  # fmt: skip
    fake_replica.on(CREATE, lie)
    async with client_of(fake_replica.endpoint) as client:
        with pytest.raises(NodeExistsError) as caught:
            await client.create("/a")
    assert (caught.value.path, caught.value.zxid) == ("/a", 9)
    assert caught.value.applied is Applied.NO


async def test_a_code_from_the_future_is_an_internal_error(fake_replica: FakeReplica) -> None:
    fake_replica.on(EXISTS, refuse(grpc.StatusCode.ABORTED, ErrorCode.NO_NODE, text="x"))
    fake_replica.on(GET_DATA, refuse(grpc.StatusCode.ABORTED, 4711, text="x"))  # type: ignore[arg-type]
    async with client_of(fake_replica.endpoint) as client:
        with pytest.raises(NoNodeError):
            await client.exists("/a")
        with pytest.raises(InternalError, match="4711"):
            await client.get_data("/a")


async def test_a_detail_nobody_can_read_is_none(fake_replica: FakeReplica) -> None:
    broken = refuse(UNAVAILABLE, ErrorCode.NO_QUORUM)

    def answer(request: object) -> coordination_pb2.CreateResponse:
        try:
            broken(request)
        except Exception as refused:
            refused.trailer = b"\xff\xff\xff"  # type: ignore[attr-defined]
            raise
        raise AssertionError

    fake_replica.on(CREATE, answer)
    async with client_of(fake_replica.endpoint) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.create("/a")


async def test_where_nobody_listens_nothing_was_sent(fake_replica: FakeReplica) -> None:
    """So a write may go to the next one; and alone it is certainly not applied."""
    fake_replica.on(CREATE, created)
    nobody = f"127.0.0.1:{free_port()}"
    async with client_of(nobody, fake_replica.endpoint) as client:
        assert (await client.create("/a")).path == "/a"
    async with client_of(nobody, timeout_ms=300) as client:
        with pytest.raises(UnreachableError) as caught:
            await client.create("/a")
    assert caught.value.applied is Applied.NO
    assert nobody in caught.value.message


async def test_a_stopped_replica_does_not_use_up_the_time(
    fake_replica: FakeReplica, deaf_endpoint: str
) -> None:
    fake_replica.on(CREATE, created)
    started = time.monotonic()
    async with client_of(deaf_endpoint, fake_replica.endpoint) as client:
        assert (await client.create("/a")).path == "/a"
    assert time.monotonic() - started < 1.5


async def test_a_replica_that_stops_amid_a_read_is_left(fake_replicas: Start) -> None:
    first, second = fake_replicas(2)
    stopped = threading.Event()

    def hang(request: coordination_pb2.ExistsRequest) -> coordination_pb2.ExistsResponse:
        stopped.wait(5)
        return found(request)

    first.on(EXISTS, hang)
    second.on(EXISTS, found)
    try:
        async with client_of(*endpoints([first, second])) as client:
            assert (await client.exists("/a")).stat.czxid == 5
    finally:
        stopped.set()
    assert len(second.requests) == 1


async def test_the_deadline_ends_it_with_the_last_error(fake_replica: FakeReplica) -> None:
    fake_replica.on(EXISTS, NO_QUORUM)
    started = time.monotonic()
    async with client_of(fake_replica.endpoint, timeout_ms=400) as client:
        with pytest.raises(NoQuorumError):
            await client.exists("/a")
    assert 0.1 < time.monotonic() - started < 1.0
    assert len(fake_replica.requests) > 2


async def test_a_read_without_an_answer_is_no_write_in_doubt(fake_replica: FakeReplica) -> None:
    fake_replica.on(EXISTS, LOST)
    async with client_of(fake_replica.endpoint, timeout_ms=200) as client:
        with pytest.raises(ConnectionFailedError) as caught:
            await client.exists("/a")
    assert caught.value.applied is Applied.NO


async def test_what_was_seen_is_asked_for(fake_replica: FakeReplica) -> None:
    fake_replica.on(EXISTS, found)
    async with client_of(fake_replica.endpoint) as client:
        await client.exists("/a")
        await client.exists("/a")
        assert client.zxid_seen == 7
    asked = [request.context.min_zxid for request in fake_replica.requests_of(EXISTS)]
    assert asked == [0, 7]


async def test_another_cluster_has_other_zxids(fake_replica: FakeReplica) -> None:
    def restored(request: coordination_pb2.ExistsRequest) -> coordination_pb2.ExistsResponse:
        header = common_pb2.ResponseHeader(zxid=2, cluster_id=99)
        return coordination_pb2.ExistsResponse(header=header)

    fake_replica.on(EXISTS, found, restored)
    async with client_of(fake_replica.endpoint) as client:
        await client.exists("/a")
        await client.exists("/a")
        assert client.zxid_seen == 2


async def test_all_pages_are_read(fake_replica: FakeReplica) -> None:
    def page(request: coordination_pb2.GetChildrenRequest) -> coordination_pb2.GetChildrenResponse:
        number = int(request.page_token or 0)
        following = str(number + 1) if number < 2 else ""
        child = coordination_pb2.Child(name=f"c{number}")
        return coordination_pb2.GetChildrenResponse(children=[child], next_page_token=following)

    fake_replica.on(GET_CHILDREN, page)
    async with client_of(fake_replica.endpoint) as client:
        names = [page.children[0].name async for page in client.get_children("/a")]
    assert names == ["c0", "c1", "c2"]


async def test_null_and_empty_are_not_the_same(fake_replica: FakeReplica) -> None:
    fake_replica.on(CREATE, created)
    fake_replica.on(SET_DATA, lambda request: coordination_pb2.SetDataResponse())
    async with client_of(fake_replica.endpoint) as client:
        await client.create("/a", None)
        await client.create("/a", b"")
        await client.set_data("/a", None, version=0)
        await client.set_data("/a", b"")
    null, empty = fake_replica.requests_of(CREATE)
    assert not null.HasField("data") and empty.HasField("data")
    first, second = fake_replica.requests_of(SET_DATA)
    assert first.HasField("expected_version") and first.expected_version == 0
    assert not first.HasField("data") and not second.HasField("expected_version")


async def test_what_is_too_large_for_anyone_is_not_sent(fake_replica: FakeReplica) -> None:
    async with client_of(fake_replica.endpoint) as client:
        with pytest.raises(LimitExceededError) as caught:
            await client.create("/a", bytes(5 * 1024 * 1024))
    assert caught.value.applied is Applied.NO
    assert not fake_replica.requests


async def test_proxies_are_ignored(
    fake_replica: FakeReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    fake_replica.on(EXISTS, found)
    async with client_of(fake_replica.endpoint, timeout_ms=1_000) as client:
        assert (await client.exists("/a")).HasField("stat")


async def test_cancelling_a_call_is_no_error_of_the_service(fake_replica: FakeReplica) -> None:
    release = threading.Event()

    def hang(request: coordination_pb2.CreateRequest) -> coordination_pb2.CreateResponse:
        release.wait(5)
        return created(request)

    fake_replica.on(CREATE, hang)
    async with client_of(fake_replica.endpoint) as client:
        call = asyncio.create_task(client.create("/a"))
        while not fake_replica.requests:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        release.set()


async def test_no_foreign_exception_leaves_the_client(fake_replica: FakeReplica) -> None:
    for status in grpc.StatusCode:
        if status is grpc.StatusCode.OK:
            continue
        fake_replica.on(CREATE, refuse(status, text="from a proxy"))
        fake_replica.on(EXISTS, refuse(status, text="from a proxy"))
        async with client_of(fake_replica.endpoint, timeout_ms=50) as client:
            with pytest.raises(CoordError) as caught:
                await client.create("/a")
            assert caught.value.applied is Applied.UNKNOWN, status
            with pytest.raises(CoordError):
                await client.exists("/a")
