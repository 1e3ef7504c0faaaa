"""Input that must be refused, over the wire: typed, nothing lost, nothing secret in the logs."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

import pytest

from coordsvc.client.methods import CREATE, EXISTS, GET_DATA, HEARTBEAT, SET_DATA
from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import UnaryClient
from coordsvc.errors import (
    Applied,
    BadArgumentsError,
    CoordError,
    LimitExceededError,
    NoNodeError,
    SessionExpiredError,
)
from coordsvc.testing.cluster import LocalCluster
from coordsvc.v1 import common_pb2, coordination_pb2
from tests.integration.direct import Direct

pytestmark = pytest.mark.timeout(60)

DATA_BYTES_MAX = 1024 * 1024

Create = coordination_pb2.CreateRequest
GetData = coordination_pb2.GetDataRequest

BAD_PATHS = [
    "",
    "a",
    "/a/",
    "//a",
    "/a//b",
    "/a/./b",
    "/..",
    "/a\x00b",
    "/a\x1fb",
    "/" + "x" * 4096,
]


def refusals(path: str) -> list[tuple[object, object]]:
    return [
        (CREATE, Create(path=path)),
        (SET_DATA, coordination_pb2.SetDataRequest(path=path)),
        (GET_DATA, GetData(path=path)),
        (EXISTS, coordination_pb2.ExistsRequest(path=path)),
    ]


async def refuse(replica: Direct, method: object, request: object) -> CoordError:
    with pytest.raises(CoordError) as caught:
        await replica.call(method, request, 5)  # type: ignore[arg-type]
    assert caught.value.applied is Applied.NO, (request, caught.value)
    return caught.value


async def check_arguments(replica: Direct) -> None:
    for path in BAD_PATHS:
        for method, request in refusals(path):
            error = await refuse(replica, method, request)
            # A create looks for the parent first, as in ZooKeeper.
            assert isinstance(error, BadArgumentsError | LimitExceededError) or (
                method is CREATE and isinstance(error, NoNodeError)
            ), (path, error)
    missing = await refuse(replica, GET_DATA, GetData(path="/" + "x" * 4000))
    assert isinstance(missing, NoNodeError)
    assert missing.path is not None and len(missing.path) <= 1024
    unknown_enum = Create(path="/e", mode=99)  # type: ignore[arg-type]
    assert isinstance(await refuse(replica, CREATE, unknown_enum), BadArgumentsError)
    unknown_enum = GetData(path="/", consistency=77)  # type: ignore[arg-type, assignment]
    assert isinstance(await refuse(replica, GET_DATA, unknown_enum), BadArgumentsError)
    for size in (DATA_BYTES_MAX + 1, 4 * DATA_BYTES_MAX + 1):
        too_large = Create(path="/large", data=bytes(size))
        assert isinstance(await refuse(replica, CREATE, too_large), LimitExceededError)
    await replica.call(CREATE, Create(path="/large", data=bytes(DATA_BYTES_MAX)), 5)


async def check_sessions(replica: Direct) -> bytes:
    """The password of the session used, for the look into the logs."""
    session = (await replica.open_session(5_000)).credentials
    wrong = common_pb2.SessionCredentials(session_id=session.session_id, password=b"w" * 16)
    unknown = common_pb2.SessionCredentials(session_id=10**9, password=session.password)
    for credentials in (wrong, unknown):
        beat = coordination_pb2.HeartbeatRequest(credentials=credentials)
        assert isinstance(await refuse(replica, HEARTBEAT, beat), SessionExpiredError)
        create = Create(context=common_pb2.RequestContext(session=credentials), path="/stolen")
        assert isinstance(await refuse(replica, CREATE, create), SessionExpiredError)
    context = common_pb2.RequestContext(session=session, request_number=1)
    await replica.call(CREATE, Create(context=context, path="/owned"), 5)
    return bytes(session.password)


@pytest.mark.parametrize("size", [1, 3])
def test_bad_input_is_refused(make_cluster: Callable[..., LocalCluster], size: int) -> None:
    cluster = make_cluster(size, extra_arguments=["--log-level", "debug"])
    cluster.start()

    async def run() -> bytes:
        async with Direct(cluster.endpoints[-1]) as replica:
            await check_arguments(replica)
            return await check_sessions(replica)

    password = asyncio.run(run())
    assert cluster.is_serving(1)

    async def names() -> list[str]:
        async with UnaryClient(ClientConfig(cluster.endpoints)) as client:
            await client.sync()
            pages = client.get_children("/")
            return [child.name async for page in pages for child in page.children]

    assert set(asyncio.run(names())) >= {"large", "owned"}
    assert not set(asyncio.run(names())) & {"e", "stolen"}
    cluster.stop()
    logs = "".join(cluster.log_path(replica_id).read_text() for replica_id in cluster.ids)
    for form in (password.hex(), base64.b64encode(password).decode(), repr(password)[2:-1]):
        assert form not in logs, "a session's password was logged"
