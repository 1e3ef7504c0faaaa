"""The machine in memory as a driver: no server, no consensus, no disk."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

from coordsvc.core.auth import digest_id
from coordsvc.core.collector import Collector
from coordsvc.core.commands import (
    OPEN_ACL,
    PERSISTENT,
    Acl,
    AclSet,
    AddAuthOp,
    AttachSessionOp,
    AuthId,
    Caller,
    Change,
    CloseSessionOp,
    Created,
    CreateOp,
    DataSet,
    DeleteOp,
    ExpireSession,
    MultiDone,
    MultiOp,
    Op,
    Refusal,
    SessionAttached,
    SetAclOp,
    SetDataOp,
    SubOp,
)
from coordsvc.core.queries import (
    effective_ids,
    exists,
    get_acl,
    get_children,
    get_data,
    get_ephemerals,
)
from coordsvc.core.watches import CHILDREN, DATA, EXISTS, WatchTable, missed_event
from coordsvc.errors import CoordError, error_from_code
from tests.semantics.drivers import Answer, Client, Driver, Event
from tests.unit.core.harness import TERM, Harness

Found = TypeVar("Found")


class CoreDriver(Driver):
    name = "core"
    capabilities = frozenset(
        {
            "watches",
            "order",
            "watch_ids",
            "groups",
            "resume",
            "moves",
            "clock",
            "ephemerals",
            "error_paths",
            "checked_reads",
            "checked_versions",
        }
    )

    def __init__(self) -> None:
        self.harness = Harness()
        self.watches = WatchTable()
        self.clients: dict[int, CoreClient] = {}
        self.collector = Collector(self.harness.state)

    async def open_session(self, timeout_ms: int = 10_000) -> Client:
        session_id = self.harness.open_session(timeout_ms, attached=True)
        return CoreClient(self, session_id, timeout_ms)

    async def expire(self, client: Client) -> None:
        session = self.harness.state.sessions[client.session_id]
        self.harness.lead(ExpireSession(TERM, session.session_id, session.attach_epoch))
        self.deliver()

    async def advance(self, milliseconds: int) -> None:
        self.harness.time_ms += milliseconds
        self.harness.clock_ms += milliseconds
        self.harness.apply()

    async def collect(self) -> None:
        self.harness.lead(*self.collector.due(TERM, 100))
        self.deliver()

    def deliver(self) -> None:
        """Hand out what the last entry changed, before anybody's reply."""
        changes: Sequence[Change] = self.harness.take_changes()
        for delivery in self.watches.trigger(changes, self._ids_of):
            event = Event(
                delivery.type,
                delivery.path,
                delivery.zxid,
                delivery.watch_ids,
                delivery.is_last_of_zxid,
            )
            self.clients[delivery.watcher_id].receive(event)

    def _ids_of(self, watcher_id: int) -> tuple[AuthId, ...]:
        session_id = self.clients[watcher_id].session_id
        return effective_ids(self.harness.state, session_id, ())


class CoreClient(Client):
    def __init__(self, driver: CoreDriver, session_id: int, timeout_ms: int) -> None:
        self.driver = driver
        self.session_id = session_id
        self.timeout_ms = timeout_ms
        self.attach_epoch = 1
        self.inbox = []
        self._connect()

    def _connect(self) -> None:
        self.watcher_id = len(self.driver.clients) + 1
        self.driver.clients[self.watcher_id] = self
        self._taken = 0
        self._watch_ids = 0

    def receive(self, item: Event | Answer) -> None:
        self.inbox.append(item)

    # ------------------------------------------------------------------ writes

    def _write(self, op: Op) -> Answer:
        reply = self.driver.harness.write(op, Caller(self.session_id, self.attach_epoch))
        self.driver.deliver()
        result = reply.result
        if isinstance(result, Refusal):
            raise _error(result, reply.zxid)
        answer = Answer(reply.zxid)
        if isinstance(result, Created):
            answer = Answer(reply.zxid, result.path, result.stat)
        elif isinstance(result, DataSet | AclSet):
            answer = Answer(reply.zxid, stat=result.stat)
        elif isinstance(result, MultiDone):
            answer = Answer(reply.zxid, results=result.results)
        elif isinstance(result, SessionAttached):
            self.last_epoch = result.attach_epoch
        self.receive(answer)
        return answer

    async def create(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        mode: int = PERSISTENT,
        ttl_ms: int = 0,
        acl: Sequence[Acl] = OPEN_ACL,
    ) -> Answer:
        return self._write(CreateOp(path, data, mode, ttl_ms, tuple(acl)))

    async def delete(self, path: str, version: int = -1) -> Answer:
        return self._write(DeleteOp(path, version))

    async def set_data(self, path: str, data: bytes | None, version: int = -1) -> Answer:
        return self._write(SetDataOp(path, data, version))

    async def set_acl(self, path: str, acl: Sequence[Acl], version: int = -1) -> Answer:
        return self._write(SetAclOp(path, tuple(acl), version))

    async def multi(self, *ops: SubOp) -> Answer:
        return self._write(MultiOp(ops))

    async def add_auth(self, scheme: str, credential: str) -> Answer:
        return self._write(AddAuthOp((AuthId(scheme, digest_id(credential)),)))

    async def close(self) -> Answer:
        return self._write(CloseSessionOp())

    async def attach(self) -> Client:
        self._write(AttachSessionOp())
        newer = copy.copy(self)
        newer.attach_epoch, newer.inbox = self.last_epoch, []
        newer._connect()
        return newer

    # ------------------------------------------------------------------- reads

    def _ids(self) -> tuple[AuthId, ...]:
        return effective_ids(self.driver.harness.state, self.session_id, ())

    def _read(self, found: Found | Refusal) -> Found:
        if isinstance(found, Refusal):
            raise _error(found, self.driver.harness.state.zxid)
        return found

    def _answer(self, answer: Answer) -> Answer:
        self.receive(answer)
        return answer

    def _arm(self, path: str, kind: int) -> int:
        self._watch_ids += 1
        self.driver.watches.add(self.watcher_id, path, kind, self._watch_ids)
        return self._watch_ids

    async def exists(self, path: str, *, watch: bool = False) -> Answer:
        state = self.driver.harness.state
        stat = self._read(exists(state, path, self._ids()))
        watch_id = self._arm(path, EXISTS) if watch else None
        return self._answer(Answer(state.zxid, stat=stat, watch_id=watch_id))

    async def get_data(self, path: str, *, watch: bool = False, min_zxid: int = 0) -> Answer:
        state = self.driver.harness.state
        data, stat = self._read(get_data(state, path, self._ids()))
        watch_id = self._arm(path, DATA) if watch else None
        return self._answer(Answer(state.zxid, stat=stat, data=data, watch_id=watch_id))

    async def get_children(self, path: str, *, watch: bool = False) -> Answer:
        state = self.driver.harness.state
        page = self._read(get_children(state, path, self._ids()))
        watch_id = self._arm(path, CHILDREN) if watch else None
        names = tuple(child.name for child in page.children)
        return self._answer(Answer(state.zxid, stat=page.stat, names=names, watch_id=watch_id))

    async def get_acl(self, path: str) -> Answer:
        state = self.driver.harness.state
        acl, stat = self._read(get_acl(state, path, self._ids()))
        return self._answer(Answer(state.zxid, stat=stat, acl=acl))

    async def get_ephemerals(self, prefix: str = "/") -> Answer:
        state = self.driver.harness.state
        names = get_ephemerals(state, self.session_id, prefix)
        return self._answer(Answer(state.zxid, names=names))

    async def sync(self, path: str = "/") -> Answer:
        return self._answer(Answer(self.driver.harness.state.zxid, path))

    # ----------------------------------------------------------------- watches

    async def watch(self, path: str, kind: int) -> int:
        return self._arm(path, kind)

    async def take_events(self) -> list[Event]:
        new, self._taken = self.inbox[self._taken :], len(self.inbox)
        return [item for item in new if isinstance(item, Event)]

    async def disconnect(self) -> None:
        self.driver.watches.remove_watcher(self.watcher_id)

    async def resume(self, path: str, kind: int, after_zxid: int) -> None:
        state = self.driver.harness.state
        missed = missed_event(state, path, kind, after_zxid)
        if missed is None:
            self._arm(path, kind)
        else:
            self.receive(Event(missed, path, state.zxid))


def _error(refusal: Refusal, zxid: int) -> CoordError:
    index = refusal.operation_index
    return error_from_code(
        refusal.code,
        refusal.message,
        path=refusal.path,
        zxid=zxid,
        operation_index=index if index >= 0 else None,
    )
