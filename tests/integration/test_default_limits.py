"""What is large goes in pieces: gRPC's default limit of 4 MiB a message is enough for a client."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from grpc import aio

from coordsvc.testing.cluster import LocalCluster
from coordsvc.v1 import coordination_pb2 as pb
from coordsvc.v1 import coordination_pb2_grpc
from tests.integration.raw_stream import RawStream

DEFAULTS = [("grpc.enable_http_proxy", 0)]
MIB = 1024 * 1024
LARGE = 16
CHILDREN = 100_000
CHILDREN_PER_FRAME = 500


@pytest.mark.timeout(60)
async def test_sixteen_large_reads_in_one_frame(make_cluster: Callable[..., LocalCluster]) -> None:
    cluster = make_cluster(1)
    cluster.start()
    async with RawStream(cluster.endpoints[0], options=DEFAULTS) as stream:
        contents = [bytes([number]) * MIB for number in range(LARGE)]
        for number, data in enumerate(contents):
            await stream.send(pb.CreateRequest(path=f"/large{number}", data=data))
            (reply,) = await stream.replies(1)
            assert reply.HasField("create"), reply
        asked = await stream.send(
            *(pb.GetDataRequest(path=f"/large{number}") for number in range(LARGE))
        )
        replies = await stream.replies(LARGE)
    assert [reply.request_id for reply in replies] == asked
    assert [reply.get_data.data for reply in replies] == contents


@pytest.mark.timeout(120)
async def test_a_hundred_thousand_children_by_pages(
    make_cluster: Callable[..., LocalCluster],
) -> None:
    cluster = make_cluster(1)
    cluster.start()
    endpoint = cluster.endpoints[0]
    names = [f"child-with-a-rather-long-name-{number:06}" for number in range(CHILDREN)]
    async with RawStream(endpoint, options=DEFAULTS) as stream:
        await stream.send(pb.CreateRequest(path="/p", data=b""))
        await stream.replies(1)
        for first in range(0, CHILDREN, CHILDREN_PER_FRAME):
            frame = names[first : first + CHILDREN_PER_FRAME]
            await stream.send(*(pb.CreateRequest(path=f"/p/{name}", data=b"x") for name in frame))
            for reply in await stream.replies(len(frame)):
                assert reply.HasField("create"), reply
        assert await pages_over(stream) == names
    async with aio.insecure_channel(endpoint, options=DEFAULTS) as channel:
        assert await pages_unary(coordination_pb2_grpc.CoordinationStub(channel)) == names


async def pages_over(stream: RawStream) -> list[str]:
    """With stat and data, as many on a page as the replica likes."""
    found: list[str] = []
    request = pb.GetChildrenRequest(path="/p", include_stat=True, include_data=True)
    while True:
        await stream.send(request)
        (reply,) = await stream.replies(1)
        page = reply.get_children
        found += [child.name for child in page.children]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def pages_unary(stub: coordination_pb2_grpc.CoordinationAsyncStub) -> list[str]:
    found: list[str] = []
    request = pb.GetChildrenRequest(path="/p", include_stat=True, include_data=True)
    while True:
        page = await stub.GetChildren(request, timeout=10)
        found += [child.name for child in page.children]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token
