"""Single calls to single replicas, without the client's retries; and readings of a whole tree."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from grpc import aio

from coordsvc.client.channels import channel_options
from coordsvc.client.methods import GET_DATA, HEARTBEAT, OPEN_SESSION, Method
from coordsvc.client.options import ClientConfig
from coordsvc.client.rpc_errors import typed_error
from coordsvc.client.unary import LINEARIZABLE, UnaryClient
from coordsvc.errors import CoordError
from coordsvc.v1 import common_pb2, coordination_pb2


class Direct:
    """One connection to one replica. `async with`; a refusal is raised as CoordError."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.channel = aio.insecure_channel(
            endpoint, options=channel_options(ClientConfig((endpoint,)))
        )

    async def __aenter__(self) -> Direct:
        await self.channel.channel_ready()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.channel.close()

    async def call(self, method: Method[Any, Any], request: Any, timeout_seconds: float) -> Any:
        multicallable = self.channel.unary_unary(
            method.name,
            request_serializer=method.request_type.SerializeToString,
            response_deserializer=method.response_type.FromString,
        )
        try:
            return await multicallable(request, timeout=timeout_seconds)
        except aio.AioRpcError as error:
            raise typed_error(error, self.endpoint, is_write=method.is_write) from None

    async def open_session(self, timeout_ms: int) -> coordination_pb2.OpenSessionResponse:
        request = coordination_pb2.OpenSessionRequest(timeout_ms=timeout_ms)
        return await self.call(OPEN_SESSION, request, 5)

    async def heartbeat(
        self, credentials: common_pb2.SessionCredentials, timeout_seconds: float = 5
    ) -> coordination_pb2.HeartbeatResponse:
        request = coordination_pb2.HeartbeatRequest(credentials=credentials)
        return await self.call(HEARTBEAT, request, timeout_seconds)

    async def read(self, path: str, timeout_seconds: float) -> bytes:
        """A LINEARIZABLE read."""
        request = coordination_pb2.GetDataRequest(path=path, consistency=LINEARIZABLE)
        answer = await self.call(GET_DATA, request, timeout_seconds)
        return bytes(answer.data)


@dataclass(frozen=True)
class Asked:
    """One question, when it was asked and answered (time.monotonic), and how."""

    kind: str
    asked_at: float
    answered_at: float
    error: CoordError | None


async def ask(kind: str, awaitable: Any) -> Asked:
    asked_at = time.monotonic()
    try:
        await awaitable
    except CoordError as error:
        return Asked(kind, asked_at, time.monotonic(), error)
    return Asked(kind, asked_at, time.monotonic(), None)


async def read_tree(endpoints: tuple[str, ...]) -> dict[str, tuple[bytes | None, bytes]]:
    """Every znode: its data and its Stat (serialized), read after a sync."""
    tree: dict[str, tuple[bytes | None, bytes]] = {}
    async with UnaryClient(ClientConfig(endpoints)) as client:
        await client.sync()
        todo = ["/"]
        while todo:
            path = todo.pop()
            answer = await client.get_data(path)
            data = answer.data if answer.HasField("data") else None
            tree[path] = (data, answer.stat.SerializeToString(deterministic=True))
            async for page in client.get_children(path):
                todo.extend(f"{path.rstrip('/')}/{child.name}" for child in page.children)
    return tree
