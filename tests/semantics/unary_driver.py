"""Unary gRPC calls to three replicas as a driver: each client talks to another replica.

What any client has seen is asked for by all (`min_zxid`), as programs do that tell each other of
what they wrote; a lagging replica would otherwise rightly show the past.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from grpc import aio

from coordsvc.client.rpc_errors import typed_error
from coordsvc.core.commands import (
    OPEN_ACL,
    PERSISTENT,
    Acl,
    Checked,
    CheckOp,
    Created,
    CreateOp,
    DataSet,
    Deleted,
    DeleteOp,
    ExpireSession,
    SetDataOp,
    Stat,
    SubOp,
    SubResult,
)
from coordsvc.testing.local_servers import LocalServer, LocalServers
from coordsvc.v1 import common_pb2, coordination_pb2, coordination_pb2_grpc
from tests.semantics.drivers import Answer, Client, Driver

REPLICAS = 3


class UnaryDriver(Driver):
    name = "unary"
    capabilities = frozenset(
        {
            "time",
            "timeout_bounds",
            "min_zxid",
            "leader_change",
            "partitions",
            "error_paths",
            "checked_reads",
            "checked_versions",
        }
    )
    timeout_bounds_ms = (1_000, 120_000)
    tick_ms = 500

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="coordsvc-semantics-")
        self.local = LocalServers(self._directory.name, REPLICAS)
        self._channels: dict[int, aio.Channel] = {}
        self._opened = 0
        self.zxid_seen = 0

    async def __aenter__(self) -> Driver:
        await self.local.__aenter__()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for channel in self._channels.values():
            await channel.close()
        await self.local.__aexit__(error_type, error, traceback)
        self._directory.cleanup()

    def stub(self, replica_id: int) -> coordination_pb2_grpc.CoordinationAsyncStub:
        channel = self._channels.get(replica_id)
        if channel is None:
            endpoint = self.local.servers[replica_id].endpoint
            options = [("grpc.enable_http_proxy", 0)]
            channel = self._channels[replica_id] = aio.insecure_channel(endpoint, options)
        return coordination_pb2_grpc.CoordinationStub(channel)

    async def open_session(self, timeout_ms: int = 10_000) -> Client:
        replica_ids = sorted(self.local.servers)
        replica_id = replica_ids[self._opened % len(replica_ids)]
        self._opened += 1
        return await self.open_at(replica_id, timeout_ms)

    async def open_at(self, replica_id: int, timeout_ms: int = 10_000) -> UnaryClient:
        client = UnaryClient(self, replica_id)
        await client.open(timeout_ms)
        return client

    async def expire(self, client: Client) -> None:
        """Proposes what the leader would when the time is up."""
        leader = await self.local.wait_leader()
        replica = leader.replica
        session = replica.machine.state.sessions[client.session_id]
        assert replica.propose(
            ExpireSession(replica.term, session.session_id, session.attach_epoch)
        )
        async with asyncio.timeout(10):
            while client.session_id in replica.machine.state.sessions:
                await asyncio.sleep(0.002)
        self.zxid_seen = max(self.zxid_seen, replica.machine.state.zxid)

    async def sleep(self, milliseconds: int) -> None:
        await asyncio.sleep(milliseconds / 1000)

    async def change_leader(self) -> None:
        leader = await self.local.wait_leader()
        assert await leader.replica.hand_over()
        await self.local.wait_leader(other_than=leader.replica.replica_id)

    async def isolate_leader(self) -> tuple[Client, Client]:
        leader = await self.local.wait_leader()
        replica_id = leader.replica.replica_id
        cut_off = await self.open_at(replica_id)
        await self._cut_off(leader)
        new_leader = await self.local.wait_leader(other_than=replica_id)
        return cut_off, await self.open_at(new_leader.replica.replica_id)

    async def _cut_off(self, server: LocalServer) -> None:
        """Its connections end, and none is made again, from either side."""
        await server.replica.network.close()


class UnaryClient(Client):
    def __init__(self, driver: UnaryDriver, replica_id: int) -> None:
        self._driver = driver
        self._stub = driver.stub(replica_id)
        self._credentials = common_pb2.SessionCredentials()
        self.inbox = []

    async def open(self, timeout_ms: int) -> None:
        request = coordination_pb2.OpenSessionRequest(timeout_ms=timeout_ms)
        response = await self._call("OpenSession", request)
        self._credentials = response.credentials
        self.session_id = response.credentials.session_id
        self.timeout_ms = response.timeout_ms

    def _context(self, min_zxid: int = 0) -> common_pb2.RequestContext:
        least = max(min_zxid, self._driver.zxid_seen)
        return common_pb2.RequestContext(session=self._credentials, min_zxid=least)

    def _answer(self, answer: Answer) -> Answer:
        """Every answer passes here at once after its call."""
        return answer

    def _watch_id(self, watch: bool) -> int:
        """The id of the watch that a read is to leave; 0: none."""
        assert not watch
        return 0

    async def _call(self, method: str, request: Any) -> Any:
        try:
            response = await getattr(self._stub, method)(request, timeout=10)
        except aio.AioRpcError as error:
            typed = typed_error(error, "the replica", is_write=True)
            self._driver.zxid_seen = max(self._driver.zxid_seen, typed.zxid)
            raise typed from error
        self._driver.zxid_seen = max(self._driver.zxid_seen, response.header.zxid)
        return response

    # ------------------------------------------------------------------ writes

    async def create(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        mode: int = PERSISTENT,
        ttl_ms: int = 0,
        acl: Sequence[Acl] = OPEN_ACL,
    ) -> Answer:
        request = coordination_pb2.CreateRequest(
            context=self._context(),
            path=path,
            data=data,
            mode=_mode(mode),
            ttl_ms=ttl_ms,
            acl=_acl_messages(acl),
        )
        response = await self._call("Create", request)
        return self._answer(Answer(response.header.zxid, response.path, _stat(response.stat)))

    async def delete(self, path: str, version: int = -1) -> Answer:
        request = coordination_pb2.DeleteRequest(
            context=self._context(), path=path, expected_version=version
        )
        response = await self._call("Delete", request)
        return self._answer(Answer(response.header.zxid))

    async def set_data(self, path: str, data: bytes | None, version: int = -1) -> Answer:
        request = coordination_pb2.SetDataRequest(
            context=self._context(), path=path, data=data, expected_version=version
        )
        response = await self._call("SetData", request)
        return self._answer(Answer(response.header.zxid, stat=_stat(response.stat)))

    async def set_acl(self, path: str, acl: Sequence[Acl], version: int = -1) -> Answer:
        request = coordination_pb2.SetAclRequest(
            context=self._context(),
            path=path,
            acl=_acl_messages(acl),
            expected_aversion=version,
        )
        response = await self._call("SetAcl", request)
        return self._answer(Answer(response.header.zxid, stat=_stat(response.stat)))

    async def multi(self, *ops: SubOp) -> Answer:
        request = coordination_pb2.MultiRequest(
            context=self._context(), operations=[_operation(op) for op in ops]
        )
        response = await self._call("Multi", request)
        results = tuple(_result(result) for result in response.results)
        return self._answer(Answer(response.header.zxid, results=results))

    async def add_auth(self, scheme: str, credential: str) -> Answer:
        request = coordination_pb2.AddAuthRequest(
            context=self._context(), scheme=scheme, credential=credential.encode()
        )
        response = await self._call("AddAuth", request)
        return self._answer(Answer(response.header.zxid))

    async def close(self) -> Answer:
        request = coordination_pb2.CloseSessionRequest(context=self._context())
        response = await self._call("CloseSession", request)
        return self._answer(Answer(response.header.zxid))

    async def heartbeat(self) -> None:
        request = coordination_pb2.HeartbeatRequest(credentials=self._credentials)
        await self._call("Heartbeat", request)

    # ------------------------------------------------------------------- reads

    async def exists(self, path: str, *, watch: bool = False) -> Answer:
        watch_id = self._watch_id(watch)
        request = coordination_pb2.ExistsRequest(
            context=self._context(), path=path, watch_id=watch_id
        )
        response = await self._call("Exists", request)
        stat = _stat(response.stat) if response.HasField("stat") else None
        return self._answer(Answer(response.header.zxid, stat=stat, watch_id=watch_id or None))

    async def get_data(self, path: str, *, watch: bool = False, min_zxid: int = 0) -> Answer:
        watch_id = self._watch_id(watch)
        request = coordination_pb2.GetDataRequest(
            context=self._context(min_zxid), path=path, watch_id=watch_id
        )
        response = await self._call("GetData", request)
        data = response.data if response.HasField("data") else None
        return self._answer(
            Answer(
                response.header.zxid,
                stat=_stat(response.stat),
                data=data,
                watch_id=watch_id or None,
            )
        )

    async def get_children(self, path: str, *, watch: bool = False) -> Answer:
        """By pages of two, so that paging is part of what is tested."""
        watch_id = self._watch_id(watch)
        names: list[str] = []
        token = ""
        while True:
            request = coordination_pb2.GetChildrenRequest(
                context=self._context(),
                path=path,
                page_size=2,
                page_token=token,
                watch_id=0 if token else watch_id,
            )
            response = await self._call("GetChildren", request)
            names.extend(child.name for child in response.children)
            token = response.next_page_token
            if not token:
                return self._answer(
                    Answer(
                        response.header.zxid,
                        stat=_stat(response.stat),
                        names=tuple(names),
                        watch_id=watch_id or None,
                    )
                )

    async def get_acl(self, path: str) -> Answer:
        request = coordination_pb2.GetAclRequest(context=self._context(), path=path)
        response = await self._call("GetAcl", request)
        acl = tuple(Acl(entry.permissions, entry.scheme, entry.id) for entry in response.acl)
        return self._answer(Answer(response.header.zxid, stat=_stat(response.stat), acl=acl))

    async def sync(self, path: str = "/") -> Answer:
        request = coordination_pb2.SyncRequest(context=self._context(), path=path)
        response = await self._call("Sync", request)
        return self._answer(Answer(response.header.zxid, response.path))


def _mode(mode: int) -> Any:
    return common_pb2.CREATE_MODE_PERSISTENT if mode == PERSISTENT else mode


def _acl_messages(acl: Sequence[Acl]) -> list[common_pb2.Acl]:
    return [
        common_pb2.Acl(permissions=entry.permissions, scheme=entry.scheme, id=entry.id)
        for entry in acl
    ]


def _stat(message: common_pb2.Stat) -> Stat:
    return Stat(*(getattr(message, field) for field in Stat.__struct_fields__))


def _operation(op: SubOp) -> coordination_pb2.MultiOperation:
    if isinstance(op, CreateOp):
        create = coordination_pb2.CreateOperation(
            path=op.path,
            data=op.data,
            mode=_mode(op.mode),
            ttl_ms=op.ttl_ms,
            acl=_acl_messages(op.acl),
        )
        return coordination_pb2.MultiOperation(create=create)
    if isinstance(op, DeleteOp):
        delete = coordination_pb2.DeleteOperation(path=op.path, expected_version=op.version)
        return coordination_pb2.MultiOperation(delete=delete)
    if isinstance(op, SetDataOp):
        set_data = coordination_pb2.SetDataOperation(
            path=op.path, data=op.data, expected_version=op.version
        )
        return coordination_pb2.MultiOperation(set_data=set_data)
    assert isinstance(op, CheckOp)
    check = coordination_pb2.CheckOperation(path=op.path, expected_version=op.version)
    return coordination_pb2.MultiOperation(check=check)


def _result(message: coordination_pb2.MultiResult) -> SubResult:
    kind = message.WhichOneof("result")
    if kind == "create":
        return Created(message.create.path, _stat(message.create.stat))
    if kind == "set_data":
        return DataSet(_stat(message.set_data.stat))
    return Deleted() if kind == "delete" else Checked()
