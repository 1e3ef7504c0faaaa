"""Every operation, submitted at once: plain functions that return the future of the answer.

No task and no coroutine per operation. Whatever is submitted before the loop turns again leaves in
one frame, in this order. Cancelling a future gives up the answer, not the write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from coordsvc.client.conversation import Conversation
from coordsvc.client.convert import (
    acl_from,
    acl_messages,
    created_from,
    ids_from,
    page_from,
    results_from,
    stat_from,
)
from coordsvc.client.modes import create_mode
from coordsvc.client.one_shot import CallbackSink, OneShot
from coordsvc.client.options import ClientConfig
from coordsvc.client.records import (
    Acl,
    AclAnswer,
    AuthId,
    ChildrenPage,
    Created,
    Data,
    Guard,
    Stat,
    WatchCallback,
    WatchKind,
)
from coordsvc.client.requests import Decode, Reply, Request, decode_failure
from coordsvc.client.transaction import TransactionResult
from coordsvc.client.watching import Watching
from coordsvc.errors import BadArgumentsError, LimitExceededError, ThrottledError
from coordsvc.paths import validate_path
from coordsvc.v1 import common_pb2, coordination_pb2

REQUEST_BYTES_MAX = 4 * 1024 * 1024
"""The service's own bound. Checked here, because what exceeds gRPC's bound ends the stream."""

Operation = coordination_pb2.SessionOperation
ReadMessage = (
    coordination_pb2.ExistsRequest
    | coordination_pb2.GetDataRequest
    | coordination_pb2.GetChildrenRequest
    | coordination_pb2.GetAclRequest
)
WatchedRead = (
    coordination_pb2.ExistsRequest
    | coordination_pb2.GetDataRequest
    | coordination_pb2.GetChildrenRequest
)
ReadWatch = OneShot | WatchCallback | None


class Operations:
    """As the methods of Client of the same names, but each returns a future at once. Raises
    BadArgumentsError and LimitExceededError for what is not worth sending, ThrottledError when too
    many wait for an answer already, and SessionError once the session is over. `submit` takes what
    is ready to be sent."""

    def __init__(
        self,
        conversation: Conversation,
        submit: Callable[[Request], None],
        clock: Callable[[], float],
        config: ClientConfig,
    ) -> None:
        self._conversation = conversation
        self._requests = conversation.requests
        self._watches = conversation.watches
        self._hand_over = submit
        self._clock = clock
        self._timeout_ms = config.timeout_ms
        self._waiting_max = config.requests_waiting_max
        self._bytes_waiting_max = config.request_bytes_waiting_max
        self._new_future = asyncio.get_running_loop().create_future

    # ----------------------------------------------------------------------------------- writes

    def create(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        ephemeral: bool = False,
        sequence: bool = False,
        container: bool = False,
        ttl_ms: int = 0,
        acl: Sequence[Acl] = (),
        guard: Guard | None = None,
        timeout_ms: int | None = None,
    ) -> asyncio.Future[Created]:
        validate_path(path + "0" if sequence else path)
        operation = Operation()
        message = operation.create
        message.path = path
        if data is not None:
            message.data = data
        message.mode = create_mode(
            ephemeral=ephemeral, sequence=sequence, container=container, ttl_ms=ttl_ms
        )
        message.ttl_ms = ttl_ms
        if acl:
            message.acl.extend(acl_messages(acl))
        return self._write(operation, message.context, guard, _created, timeout_ms)

    def set_data(
        self,
        path: str,
        data: bytes | None,
        *,
        expected_version: int | None = None,
        guard: Guard | None = None,
        timeout_ms: int | None = None,
    ) -> asyncio.Future[Stat]:
        validate_path(path)
        operation = Operation()
        message = operation.set_data
        message.path = path
        if data is not None:
            message.data = data
        if expected_version is not None:
            message.expected_version = expected_version
        return self._write(operation, message.context, guard, _set, timeout_ms)

    def delete(
        self,
        path: str,
        *,
        expected_version: int | None = None,
        guard: Guard | None = None,
        timeout_ms: int | None = None,
    ) -> asyncio.Future[int]:
        validate_path(path)
        operation = Operation()
        message = operation.delete
        message.path = path
        if expected_version is not None:
            message.expected_version = expected_version
        return self._write(operation, message.context, guard, _deleted, timeout_ms)

    def set_acl(
        self,
        path: str,
        acl: Sequence[Acl],
        *,
        expected_aversion: int | None = None,
        guard: Guard | None = None,
        timeout_ms: int | None = None,
    ) -> asyncio.Future[Stat]:
        validate_path(path)
        operation = Operation()
        message = operation.set_acl
        message.path = path
        message.acl.extend(acl_messages(acl))
        if expected_aversion is not None:
            message.expected_aversion = expected_aversion
        return self._write(operation, message.context, guard, _acl_set, timeout_ms)

    def add_auth(
        self, scheme: str, credential: bytes, *, timeout_ms: int | None = None
    ) -> asyncio.Future[tuple[AuthId, ...]]:
        operation = Operation()
        message = operation.add_auth
        message.scheme, message.credential = scheme, credential
        return self._write(operation, message.context, None, _auth_added, timeout_ms)

    def multi(
        self,
        operations: Sequence[coordination_pb2.MultiOperation],
        guard: Guard | None = None,
        timeout_ms: int | None = None,
    ) -> asyncio.Future[tuple[TransactionResult, ...]]:
        operation = Operation()
        message = operation.multi
        message.operations.extend(operations)
        return self._write(operation, message.context, guard, _multi_done, timeout_ms)

    def close_session(self, timeout_ms: int) -> asyncio.Future[None]:
        def decode(reply: Reply) -> None:
            self._conversation.is_closed = True

        operation = Operation()
        message = operation.close_session
        message.SetInParent()
        return self._write(operation, message.context, None, decode, timeout_ms)

    # ------------------------------------------------------------------------------------ reads

    def exists(
        self,
        path: str,
        *,
        watch: ReadWatch = None,
        linearizable: bool = False,
        min_zxid: int = 0,
        timeout_ms: int | None = None,
    ) -> asyncio.Future[Stat | None]:
        operation = Operation()
        message = operation.exists
        _fill_read(message, path, linearizable, min_zxid)
        watching = _watching(path, WatchKind.EXISTS, watch)
        return self._read(operation, message, watching, _existed, timeout_ms)

    def get_data(
        self,
        path: str,
        *,
        watch: ReadWatch = None,
        linearizable: bool = False,
        min_zxid: int = 0,
        timeout_ms: int | None = None,
    ) -> asyncio.Future[Data]:
        operation = Operation()
        message = operation.get_data
        _fill_read(message, path, linearizable, min_zxid)
        watching = _watching(path, WatchKind.DATA, watch)
        return self._read(operation, message, watching, _data, timeout_ms)

    def children_page(
        self,
        path: str,
        *,
        page_size: int = 0,
        page_token: str = "",
        include_stat: bool = False,
        include_data: bool = False,
        watch: ReadWatch = None,
        linearizable: bool = False,
        min_zxid: int = 0,
        timeout_ms: int | None = None,
    ) -> asyncio.Future[tuple[ChildrenPage, str]]:
        """The page, and the token of the next one, empty after the last."""

        def decode(reply: Reply) -> tuple[ChildrenPage, str]:
            answer = _expect(reply, "get_children").get_children
            page = page_from(answer, reply.zxid, has_stat=include_stat)
            return page, answer.next_page_token

        operation = Operation()
        message = operation.get_children
        _fill_read(message, path, linearizable, min_zxid)
        message.page_size, message.page_token = page_size, page_token
        message.include_stat, message.include_data = include_stat, include_data
        watching = _watching(path, WatchKind.CHILDREN, watch)
        return self._read(operation, message, watching, decode, timeout_ms)

    def get_acl(
        self,
        path: str,
        *,
        linearizable: bool = False,
        min_zxid: int = 0,
        timeout_ms: int | None = None,
    ) -> asyncio.Future[AclAnswer]:
        operation = Operation()
        _fill_read(operation.get_acl, path, linearizable, min_zxid)
        return self._submit(operation, _acl, timeout_ms)

    def sync(self, path: str = "/", *, timeout_ms: int | None = None) -> asyncio.Future[int]:
        validate_path(path)
        operation = Operation()
        operation.sync.path = path
        return self._submit(operation, _synced, timeout_ms)

    # ---------------------------------------------------------------------------------- watches

    def add_watch(self, watching: Watching, timeout_ms: int | None) -> asyncio.Future[int]:
        """The zxid it follows."""
        validate_path(watching.path)
        operation = Operation()
        spec = operation.add_watches.watches.add()

        def set_spec() -> None:
            watching.watch_id = self._watches.next_id()
            watching.write_to(spec)

        def decode(reply: Reply) -> int:
            zxid = _expect(reply, "add_watches").add_watches.watches_set.zxid
            self._watches.add(watching)
            if not watching.is_wanted:
                self._conversation.forget([watching])
            return zxid or reply.zxid

        return self._submit_watch(operation, decode, timeout_ms, set_spec, watching)

    def remove_watch(self, watching: Watching) -> None:
        """Nothing more is told of it from now on."""
        watching.is_wanted = False
        if self._watches.remove(watching):
            self._conversation.forget([watching])

    # --------------------------------------------------------------------------------- together

    def _write(
        self,
        operation: Operation,
        context: common_pb2.RequestContext,
        guard: Guard | None,
        decode: Decode,
        timeout_ms: int | None,
    ) -> asyncio.Future[Any]:
        if guard is not None:
            context.guard.path, context.guard.czxid = guard
        return self._submit(operation, decode, timeout_ms, context=context)

    def _read(
        self,
        operation: Operation,
        message: WatchedRead,
        watching: Watching | None,
        decode: Decode,
        timeout_ms: int | None,
    ) -> asyncio.Future[Any]:
        if watching is None:
            return self._submit(operation, decode, timeout_ms)
        watches = self._watches

        def draw_id() -> None:
            watching.watch_id = message.watch_id = watches.next_id()

        def decode_watched(reply: Reply) -> Any:
            answer = decode(reply)
            watches.add(watching)
            return answer

        return self._submit_watch(operation, decode_watched, timeout_ms, draw_id, watching)

    def _submit_watch(
        self,
        operation: Operation,
        decode: Decode,
        timeout_ms: int | None,
        on_sent: Callable[[], None],
        watching: Watching,
    ) -> asyncio.Future[Any]:
        watches = self._watches
        watches.take_room(watching)
        try:
            future = self._submit(operation, decode, timeout_ms, on_sent=on_sent)
        except BaseException:
            watches.leave_room(watching)
            raise
        future.add_done_callback(lambda future: watches.leave_room(watching))
        return future

    def _submit(
        self,
        operation: Operation,
        decode: Decode,
        timeout_ms: int | None,
        *,
        context: common_pb2.RequestContext | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> asyncio.Future[Any]:
        if timeout_ms is None:
            timeout_ms = self._timeout_ms
        deadline = self._clock() + timeout_ms / 1000
        future: asyncio.Future[Any] = self._new_future()
        request = Request(operation, decode, future, deadline, context, on_sent)
        size, requests = request.size, self._requests
        if size > REQUEST_BYTES_MAX:
            raise LimitExceededError(
                f"the request has {size} bytes, of {REQUEST_BYTES_MAX} at most"
            )
        is_full = requests.count >= self._waiting_max
        is_full = is_full or requests.bytes + size > self._bytes_waiting_max
        if is_full and not operation.HasField("close_session"):
            raise ThrottledError(
                f"{requests.count} operations with {requests.bytes} bytes wait for an answer; at "
                f"most {self._waiting_max} with {self._bytes_waiting_max} bytes may: await some "
                "first"
            )
        self._hand_over(request)
        return future


def _fill_read(message: ReadMessage, path: str, linearizable: bool, min_zxid: int) -> None:
    validate_path(path)
    message.path = path
    if linearizable:
        message.consistency = common_pb2.READ_CONSISTENCY_LINEARIZABLE
    if min_zxid:
        if min_zxid < 0:
            raise BadArgumentsError(f"min_zxid {min_zxid} is negative")
        message.context.min_zxid = min_zxid


def _watching(path: str, kind: WatchKind, watch: ReadWatch) -> Watching | None:
    if watch is None:
        return None
    sink = watch if isinstance(watch, OneShot) else CallbackSink(watch)
    return Watching(path, kind, False, sink)


def _expect(reply: Reply, field: str) -> Reply:
    if reply.WhichOneof("result") != field:
        raise decode_failure(reply)
    return reply


def _created(reply: Reply) -> Created:
    return created_from(_expect(reply, "create").create)


def _set(reply: Reply) -> Stat:
    if not reply.HasField("set_data"):
        raise decode_failure(reply)
    return stat_from(reply.set_data.stat)


def _deleted(reply: Reply) -> int:
    return _expect(reply, "delete").zxid


def _acl_set(reply: Reply) -> Stat:
    return stat_from(_expect(reply, "set_acl").set_acl.stat)


def _auth_added(reply: Reply) -> tuple[AuthId, ...]:
    return ids_from(_expect(reply, "add_auth").add_auth.ids)


def _multi_done(reply: Reply) -> tuple[TransactionResult, ...]:
    return results_from(_expect(reply, "multi").multi.results)


def _existed(reply: Reply) -> Stat | None:
    answer = _expect(reply, "exists").exists
    return stat_from(answer.stat) if answer.HasField("stat") else None


def _data(reply: Reply) -> Data:
    if not reply.HasField("get_data"):
        raise decode_failure(reply)
    answer = reply.get_data
    data: bytes | None = answer.data
    if not data and not answer.HasField("data"):
        data = None
    return Data(data, stat_from(answer.stat), reply.zxid)


def _acl(reply: Reply) -> AclAnswer:
    answer = _expect(reply, "get_acl").get_acl
    return AclAnswer(acl_from(answer.acl), stat_from(answer.stat))


def _synced(reply: Reply) -> int:
    return _expect(reply, "sync").zxid
