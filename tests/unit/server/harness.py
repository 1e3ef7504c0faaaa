"""A server in this process, around a replica without network or disk, and a channel to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc import aio

from coordsvc.core.commands import AuthId, OpenSession
from coordsvc.server.addresses import Address
from coordsvc.server.client_tls import client_tls
from coordsvc.server.config import ServerConfig
from coordsvc.server.convert import RequestContext
from coordsvc.server.pipeline import Call
from coordsvc.server.server import Server
from coordsvc.testing.local_replica import LocalReplica
from coordsvc.v1 import cluster_pb2, common_pb2, coordination_pb2, errors_pb2

PASSWORD = b"0123456789abcdef"


class Refused(Exception):
    """A call that ended with a status of ours, taken apart."""

    def __init__(self, error: aio.AioRpcError) -> None:
        super().__init__(f"{error.code()}: {error.details()}")
        self.status: grpc.StatusCode = error.code()
        self.message = error.details() or ""
        self.trailers = dict(error.trailing_metadata() or ())
        packed = self.trailers["grpc-status-details-bin"]
        self.rpc_status = status_pb2.Status.FromString(packed)  # type: ignore[arg-type]
        self.detail = errors_pb2.ErrorDetail()
        assert self.rpc_status.details[0].Unpack(self.detail)

    @property
    def code(self) -> str:
        return errors_pb2.ErrorCode.Name(self.detail.code).removeprefix("ERROR_CODE_")


class Harness:
    """`call("Create", path="/a")` makes a unary call; it raises Refused for our own statuses."""

    def __init__(self, server: Server, replica: LocalReplica, channel: aio.Channel) -> None:
        self.server = server
        self.replica = replica
        self.channel = channel

    async def call(self, method: str, *, timeout: float | None = 10.0, **fields: Any) -> Any:
        return await self.start(method, timeout=timeout, **fields)

    def start(
        self, method: str, *, timeout: float | None = 10.0, **fields: Any
    ) -> asyncio.Task[Any]:
        pb2: Any = cluster_pb2 if hasattr(cluster_pb2, f"{method}Request") else coordination_pb2
        request = getattr(pb2, f"{method}Request")(**fields)
        service = "Cluster" if pb2 is cluster_pb2 else "Coordination"
        response_class = getattr(pb2, f"{method}Response")
        return asyncio.create_task(self._call(service, method, request, response_class, timeout))

    async def _call(
        self,
        service: str,
        method: str,
        request: Message,
        response_class: type[Message],
        timeout: float | None,
    ) -> Any:
        stub = self.channel.unary_unary(
            f"/coordsvc.v1.{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response_class.FromString,
        )
        try:
            return await stub(request, timeout=timeout)
        except aio.AioRpcError as error:
            if "grpc-status-details-bin" in dict(error.trailing_metadata() or ()):
                raise Refused(error) from error
            raise

    async def refusal(self, method: str, **fields: Any) -> Refused:
        try:
            answer = await self.call(method, **fields)
        except Refused as refused:
            return refused
        raise AssertionError(f"not refused: {answer}")

    async def open_session(self, timeout_ms: int = 10_000) -> common_pb2.RequestContext:
        """The context of a new session's requests."""
        opened = await self.call("OpenSession", timeout_ms=timeout_ms)
        return common_pb2.RequestContext(session=opened.credentials)


@asynccontextmanager
async def local_server(
    credentials: grpc.ChannelCredentials | None = None, **changes: Any
) -> AsyncIterator[Harness]:
    """A server on a free port of loopback. `changes` are of ServerConfig; `credentials` are the
    channel's when it has TLS."""
    config = replace(ServerConfig(listen=Address("127.0.0.1", 0)), **changes)
    replica = LocalReplica(replica_id=config.replica_id)
    server = Server(config, replica, election_timeout_s=1.0, tls=client_tls(config))
    replica.on_applied = server.on_applied
    server.on_leading(replica.term)
    await server.start()
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", 16 << 20)]
    if credentials is None:
        channel = aio.insecure_channel(str(server.address), options=options)
    else:
        channel = aio.secure_channel(str(server.address), credentials, options=options)
    try:
        yield Harness(server, replica, channel)
    finally:
        await channel.close()
        await server.stop(0)


def session_elsewhere(replica: LocalReplica, timeout_ms: int = 10_000) -> int:
    """Open a session with PASSWORD at another replica, applied here too; its id."""
    replica.apply_elsewhere(OpenSession(timeout_ms, PASSWORD))
    (reply,) = replica.catch_up()
    return reply.zxid


def call_of(
    replica: LocalReplica,
    session_id: int = 0,
    *,
    password: bytes = PASSWORD,
    seconds: float = 10.0,
    ids: tuple[AuthId, ...] = (),
    **context: Any,
) -> Call:
    """A call as a front door makes it."""
    now = replica.clock.monotonic()
    if session_id:
        context |= {"session_id": session_id, "password": password}
    return Call(RequestContext(**context), now + seconds, now, ids)


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Return when it holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
