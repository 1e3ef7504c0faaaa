"""ZooKeeper's own protocol at three replicas as a driver: packets as they are on the wire, no
client library.

What ZooKeeper's protocol leaves out is left out here: an event names no watch and its group has no
end, a refusal names no path, reads do not look at the form of a path. Nothing is sent that a test
does not ask for, no ping either. Each client talks to another replica, which may lag; a client
waits until its replica shows what any client has seen, unless its own sync has seen to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from coordsvc.core.commands import OPEN_ACL, PERSISTENT, Acl, CreateOp, SubOp
from coordsvc.core.watches import CHILDREN, DATA, EXISTS, PERSISTENT_RECURSIVE
from coordsvc.core.watches import PERSISTENT as PERSISTENT_WATCH
from coordsvc.errors import (
    CoordError,
    NoNodeError,
    OutcomeUnknownError,
    SessionExpiredError,
    SessionMovedError,
    error_from_code,
)
from coordsvc.server.addresses import Address
from coordsvc.testing import zookeeper_records as records
from coordsvc.testing.local_servers import LOOPBACK, LocalServers
from coordsvc.testing.zookeeper_client import AUTH_XID, ZooKeeperConnection
from coordsvc.testing.zookeeper_connection import (
    ConnectionEndedError,
    Reply,
    SessionRefusedError,
)
from coordsvc.testing.zookeeper_connection import Event as ToldEvent
from coordsvc.testing.zookeeper_records import Decoder, OpCode, WatchMode
from tests.semantics.drivers import Answer, Client, Event
from tests.semantics.unary_driver import REPLICAS, UnaryDriver
from tests.semantics.zookeeper_convert import (
    acl_records,
    create_request,
    request_of,
    result_of,
    stat_answer,
    stat_of,
)

ANSWER_SECONDS: Final = 15.0
TRY_AGAIN_SECONDS: Final = 0.02

MODES: Final = {
    PERSISTENT_WATCH: WatchMode.PERSISTENT,
    PERSISTENT_RECURSIVE: WatchMode.PERSISTENT_RECURSIVE,
}
LISTS: Final = {
    DATA: "data",
    EXISTS: "exist",
    CHILDREN: "child",
    PERSISTENT_WATCH: "persistent",
    PERSISTENT_RECURSIVE: "recursive",
}
"""Kind of watch: which list of a setWatches2 it goes to."""


class ZooKeeperDriver(UnaryDriver):
    """`UnaryDriver` has the replicas, and what is done to them."""

    name = "zookeeper"
    capabilities = frozenset(
        {
            "watches",
            "order",
            "resume",
            "history",
            "moves",
            "time",
            "timeout_bounds",
            "leader_change",
            "partitions",
            "ephemerals",
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self.local = LocalServers(
            self._directory.name, REPLICAS, zookeeper_listen=Address(LOOPBACK, 0)
        )
        self.clients: list[ZooKeeperClient] = []

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for client in self.clients:
            await client.disconnect()
        await super().__aexit__(error_type, error, traceback)

    async def open_at(self, replica_id: int, timeout_ms: int = 10_000) -> Client:  # type: ignore[override]
        client = ZooKeeperClient(self, replica_id, timeout_ms)
        await client.connect()
        return client

    async def expire(self, client: Client) -> None:
        """Its connection is closed when its replica knows that it has expired."""
        assert isinstance(client, ZooKeeperClient)
        await super().expire(client)
        await client.wait_closed()

    def port(self, replica_id: int) -> int:
        address = self.local.servers[replica_id].server.zookeeper_address
        assert address is not None
        return address.port

    async def wait_applied(self, replica_id: int, zxid: int) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            while self.local.servers[replica_id].replica.machine.state.zxid < zxid:
                await asyncio.sleep(0.001)


class ZooKeeperClient(Client):
    """`_shown`: what any client had seen up to here is shown by this one's replica."""

    def __init__(self, driver: ZooKeeperDriver, replica_id: int, timeout_ms: int) -> None:
        self._driver = driver
        self._replica_id = replica_id
        self.session_id = 0
        self.timeout_ms = timeout_ms
        self._password = bytes(16)
        self._last_zxid = 0
        self._shown = 0
        self._connections: list[ZooKeeperConnection] = []
        self._answers: dict[int, Answer] = {}
        """By the identity of the reply, which its connection's inbox keeps."""
        self._taken = 0
        self._resuming: list[tuple[int, str, int]] = []
        self._is_older = False
        """Its session has been attached elsewhere: it does not take it back."""
        self._ended: CoordError | None = None
        driver.clients.append(self)

    @property
    def inbox(self) -> list[Event | Answer]:  # type: ignore[override]
        items: list[Event | Answer] = []
        for connection in self._connections:
            for item in connection.inbox:
                if isinstance(item, ToldEvent):
                    items.append(Event(item.type, item.path, item.zxid))
                elif id(item) in self._answers:
                    items.append(self._answers[id(item)])
        return items

    # ------------------------------------------------------------------------ the connection

    async def connect(self) -> None:
        """Try until the replica answers: one that has not seen what this client has does not."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while (connection := await self._try_to_connect()) is None:
                await asyncio.sleep(TRY_AGAIN_SECONDS)
        self.session_id, self._password = connection.session_id, connection.password
        self.timeout_ms = connection.timeout_ms
        self._connections.append(connection)
        resuming, self._resuming = self._resuming, []
        for kind, path, after_zxid in resuming:
            await connection.set_watches2(after_zxid, **{LISTS[kind]: [path]})

    async def _try_to_connect(self) -> ZooKeeperConnection | None:
        try:
            return await ZooKeeperConnection.open(
                LOOPBACK,
                self._driver.port(self._replica_id),
                timeout_ms=self.timeout_ms,
                session_id=self.session_id,
                password=self._password,
                last_zxid=self._last_zxid,
            )
        except SessionRefusedError as error:
            raise SessionExpiredError(f"session {self.session_id:#x}") from error
        except (ConnectionEndedError, OSError):
            return None

    async def _connection(self) -> ZooKeeperConnection:
        if self._ended is not None:
            raise self._ended
        if not self._connections or self._connections[-1].is_closed:
            if self._is_older:
                raise OutcomeUnknownError("the older connection ended without a word")
            await self.connect()
        return self._connections[-1]

    async def _call(
        self,
        op: int,
        body: bytes = b"",
        *,
        path: str | None = None,
        xid: int | None = None,
    ) -> Reply:
        """Raises the error of the code, if it is not 0."""
        connection = await self._connection()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reply = await connection.request(op, body, xid)
        except (ConnectionEndedError, TimeoutError) as error:
            raise OutcomeUnknownError(f"no answer: {error}") from error
        self._last_zxid = max(self._last_zxid, reply.zxid)
        self._shown = max(self._shown, reply.zxid)
        self._driver.zxid_seen = max(self._driver.zxid_seen, reply.zxid)
        if reply.error:
            raise self._error(reply, path)
        return reply

    def _error(self, reply: Reply, path: str | None) -> CoordError:
        error = error_from_code(-reply.error, path=path, zxid=reply.zxid)
        if isinstance(error, SessionMovedError):
            self._ended = error
        return error

    async def _read(self, op: int, body: bytes, path: str) -> tuple[Reply, Decoder]:
        seen = self._driver.zxid_seen
        if seen > self._shown:
            await self._driver.wait_applied(self._replica_id, seen)
        reply = await self._call(op, body, path=path)
        return reply, Decoder(reply.body)

    def _keep(self, reply: Reply, answer: Answer) -> Answer:
        self._answers[id(reply)] = answer
        return answer

    async def disconnect(self) -> None:
        if self._connections and not self._connections[-1].is_closed:
            self._connections[-1].abort()
            await self.wait_closed()

    async def wait_closed(self) -> None:
        await self._connections[-1].wait_closed(ANSWER_SECONDS)

    async def attach(self) -> Client:
        """At another replica."""
        ids = sorted(self._driver.local.servers)
        other = ids[(ids.index(self._replica_id) + 1) % len(ids)]
        newer = ZooKeeperClient(self._driver, other, self.timeout_ms)
        newer.session_id, newer._password = self.session_id, self._password
        newer._last_zxid = self._last_zxid
        self._is_older = True
        await newer.connect()
        return newer

    async def heartbeat(self) -> None:
        await (await self._connection()).ping()

    # ------------------------------------------------------------------------------ writes

    async def create(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        mode: int = PERSISTENT,
        ttl_ms: int = 0,
        acl: Sequence[Acl] = OPEN_ACL,
    ) -> Answer:
        create = create_request(CreateOp(path, data, mode, ttl_ms, tuple(acl)))
        reply = await self._call(create.op, create.body, path=path)
        found = Decoder(reply.body)
        answer = Answer(reply.zxid, found.text(), stat_of(found.stat()))
        found.end()
        return self._keep(reply, answer)

    async def delete(self, path: str, version: int = -1) -> Answer:
        delete = records.delete_of(path, version)
        reply = await self._call(delete.op, delete.body, path=path)
        assert not reply.body
        return self._keep(reply, Answer(reply.zxid))

    async def set_data(self, path: str, data: bytes | None, version: int = -1) -> Answer:
        set_data = records.set_data_of(path, data, version)
        reply = await self._call(set_data.op, set_data.body, path=path)
        return self._keep(reply, stat_answer(reply))

    async def set_acl(self, path: str, acl: Sequence[Acl], version: int = -1) -> Answer:
        body = records.text(path) + records.acls(acl_records(acl)) + records.int32(version)
        reply = await self._call(OpCode.SET_ACL, body, path=path)
        return self._keep(reply, stat_answer(reply))

    async def multi(self, *ops: SubOp) -> Answer:
        body = records.multi_body([request_of(op) for op in ops])
        reply = await self._call(OpCode.MULTI, body)
        results = records.decode_multi(reply.body)
        assert len(results) == len(ops)
        for index, result in enumerate(results):
            if result.error:
                raise error_from_code(
                    -result.error, path=ops[index].path, zxid=reply.zxid, operation_index=index
                )
        done = tuple(result_of(result) for result in results)
        return self._keep(reply, Answer(reply.zxid, results=done))

    async def add_auth(self, scheme: str, credential: str) -> Answer:
        """For this connection: nothing replays it."""
        body = records.int32(0) + records.text(scheme) + records.buffer(credential.encode())
        reply = await self._call(OpCode.AUTH, body, xid=AUTH_XID)
        return self._keep(reply, Answer(reply.zxid))

    async def close(self) -> Answer:
        reply = await self._call(OpCode.CLOSE_SESSION)
        await self.wait_closed()
        return self._keep(reply, Answer(reply.zxid))

    # ------------------------------------------------------------------------------- reads

    async def exists(self, path: str, *, watch: bool = False) -> Answer:
        body = records.text(path) + records.boolean(watch)
        try:
            reply, found = await self._read(OpCode.EXISTS, body, path)
        except NoNodeError as error:
            return Answer(error.zxid)
        return self._keep(reply, Answer(reply.zxid, stat=stat_of(found.stat())))

    async def get_data(self, path: str, *, watch: bool = False, min_zxid: int = 0) -> Answer:
        assert not min_zxid
        body = records.text(path) + records.boolean(watch)
        reply, found = await self._read(OpCode.GET_DATA, body, path)
        data = found.buffer()
        return self._keep(reply, Answer(reply.zxid, stat=stat_of(found.stat()), data=data))

    async def get_children(self, path: str, *, watch: bool = False) -> Answer:
        body = records.text(path) + records.boolean(watch)
        reply, found = await self._read(OpCode.GET_CHILDREN2, body, path)
        names = found.vector(found.text)
        return self._keep(reply, Answer(reply.zxid, stat=stat_of(found.stat()), names=names))

    async def get_acl(self, path: str) -> Answer:
        reply, found = await self._read(OpCode.GET_ACL, records.text(path), path)
        acl = tuple(Acl(*entry) for entry in found.vector(found.acl))
        return self._keep(reply, Answer(reply.zxid, stat=stat_of(found.stat()), acl=acl))

    async def get_ephemerals(self, prefix: str = "/") -> Answer:
        reply, found = await self._read(OpCode.GET_EPHEMERALS, records.text(prefix), prefix)
        return self._keep(reply, Answer(reply.zxid, names=found.vector(found.text)))

    async def sync(self, path: str = "/") -> Answer:
        seen = self._driver.zxid_seen
        reply = await self._call(OpCode.SYNC, records.text(path), path=path)
        self._shown = max(self._shown, seen)
        return self._keep(reply, Answer(reply.zxid, Decoder(reply.body).text()))

    # ----------------------------------------------------------------------------- watches

    async def watch(self, path: str, kind: int) -> int:
        """No id: events tell none."""
        await (await self._connection()).add_watch(path, MODES[kind])
        return 0

    async def take_events(self) -> list[Event]:
        """A sync comes after the events of everything that was applied anywhere before it."""
        await self.sync()
        new, self._taken = self.inbox[self._taken :], len(self.inbox)
        return [item for item in new if isinstance(item, Event)]

    async def resume(self, path: str, kind: int, after_zxid: int) -> None:
        """Set on the next connection, each by a request of its own, in this order."""
        self._resuming.append((kind, path, after_zxid))
