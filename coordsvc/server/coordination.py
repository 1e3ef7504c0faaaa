"""The service Coordination: each unary call as a step through the pipeline.

A method checks its request's own fields, hands a command or a query to the pipeline, and puts the
result into a response. What the operation does is the core's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from coordsvc.errors import BadArgumentsError
from coordsvc.server import convert
from coordsvc.server.config_model import ClusterConfig
from coordsvc.server.grpc_door import Context, Handler, seconds_left
from coordsvc.server.identities import ids_of
from coordsvc.server.pipeline import Call, Pipeline
from coordsvc.server.request_kinds import READS, ReadKind, WriteKind, is_linearizable, write_kinds
from coordsvc.v1 import common_pb2, coordination_pb2

METHODS = {
    "close_session": "CloseSession",
    "create": "Create",
    "delete": "Delete",
    "exists": "Exists",
    "get_data": "GetData",
    "set_data": "SetData",
    "get_children": "GetChildren",
    "sync": "Sync",
    "get_acl": "GetAcl",
    "set_acl": "SetAcl",
    "add_auth": "AddAuth",
    "multi": "Multi",
}
"""The call of each kind of request."""

NEED_SESSION = {
    "close_session": "there is no session to close: the request names none",
    "add_auth": "identities are added to a session: the request names none",
}


class CoordinationService:
    """`header(zxid)` makes the header of a response, `monotonic` is the replica's clock."""

    def __init__(
        self,
        pipeline: Pipeline,
        limits: ClusterConfig,
        header: Callable[[int], common_pb2.ResponseHeader],
        monotonic: Callable[[], float],
        *,
        superuser_digest: str = "",
    ) -> None:
        self._superuser_digest = superuser_digest
        self._pipeline = pipeline
        self._limits = limits
        self._header = header
        self._monotonic = monotonic

    @property
    def methods(self) -> Mapping[str, Handler]:
        handlers: dict[str, Handler] = {
            "OpenSession": self.open_session,
            "Heartbeat": self.heartbeat,
        }
        for write in write_kinds(self._superuser_digest).values():
            handlers[METHODS[write.name]] = self._writer(write)
        for read in READS.values():
            handlers[METHODS[read.name]] = self._reader(read)
        return handlers

    # ----------------------------------------------------------------------------------- sessions

    async def open_session(
        self, request: coordination_pb2.OpenSessionRequest, context: Context
    ) -> coordination_pb2.OpenSessionResponse:
        convert.check_features(request.required_features)
        opened, password = await self._pipeline.open_session(
            timeout_ms=convert.timeout_ms(request.timeout_ms, self._limits),
            client_name=convert.client_name(request.client_name),
            deadline=self._monotonic() + seconds_left(context),
        )
        return coordination_pb2.OpenSessionResponse(
            header=self._header(opened.session_id),
            credentials=common_pb2.SessionCredentials(
                session_id=opened.session_id, password=password
            ),
            timeout_ms=opened.timeout_ms,
        )

    async def heartbeat(
        self, request: coordination_pb2.HeartbeatRequest, context: Context
    ) -> coordination_pb2.HeartbeatResponse:
        if not request.HasField("credentials"):
            raise BadArgumentsError("a heartbeat needs credentials")
        session_id, password = convert.credentials(request.credentials)
        call = self._call(convert.RequestContext(session_id=session_id, password=password), context)
        session = await self._pipeline.heartbeat(call)
        return coordination_pb2.HeartbeatResponse(
            header=self._header(0), timeout_ms=session.timeout_ms
        )

    # ------------------------------------------------------------------------------------- helpers

    def _writer(self, kind: WriteKind) -> Handler:
        async def handler(request: Any, context: Context) -> Message:
            op = kind.to_op(request, self._limits)
            call = self._call(convert.request_context(request.context, self._limits), context)
            if kind.name in NEED_SESSION and not call.context.session_id:
                raise BadArgumentsError(NEED_SESSION[kind.name])
            reply = await self._pipeline.write(call, op)
            answer: Any = kind.response(header=self._header(reply.zxid))
            kind.fill(answer, reply.result, op)
            return answer  # type: ignore[no-any-return]

        return handler

    def _reader(self, kind: ReadKind) -> Handler:
        async def handler(request: Any, context: Context) -> Message:
            if kind.watch_kind:
                convert.check_no_watch(request.watch_id)
            query = kind.prepare(request, self._limits)
            linearizable = is_linearizable(kind, request)
            call = self._call(convert.read_context(request.context), context)
            result, zxid = await self._pipeline.read(call, query, linearizable=linearizable)
            answer: Any = kind.response(header=self._header(zxid))
            kind.fill(answer, result)
            return answer  # type: ignore[no-any-return]

        return handler

    def _call(self, checked: convert.RequestContext, context: Context) -> Call:
        now = self._monotonic()
        return Call(
            context=checked,
            deadline=now + seconds_left(context),
            received_at=now,
            ids=ids_of(context),
        )
