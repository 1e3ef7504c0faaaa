"""The service Coordination: each unary call as a step through the pipeline.

A method checks its request's own fields, hands a command or a query to the pipeline, and puts the
result into a response. What the operation does is the core's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from coordsvc.core import queries
from coordsvc.core.auth import digest_id
from coordsvc.core.commands import (
    AclSet,
    AddAuthOp,
    AuthId,
    Checked,
    Created,
    DataSet,
    Deleted,
    MultiDone,
    Op,
    Refusal,
    Reply,
    SubResult,
)
from coordsvc.core.state import State
from coordsvc.errors import AuthFailedError, BadArgumentsError
from coordsvc.server import convert
from coordsvc.server.config_model import ClusterConfig
from coordsvc.server.grpc_door import Context, Handler, connection_ids, seconds_left
from coordsvc.server.pipeline import Call, Pipeline, ResultT
from coordsvc.v1 import common_pb2, coordination_pb2

SESSION_TIMEOUT_MS_DEFAULT = 10_000
CREDENTIAL_BYTES_MAX = 4096

ids_of_peer = lru_cache(maxsize=1024)(connection_ids)


class CoordinationService:
    """`header(zxid)` makes the header of a response, `monotonic` is the replica's clock."""

    def __init__(
        self,
        pipeline: Pipeline,
        limits: ClusterConfig,
        header: Callable[[int], common_pb2.ResponseHeader],
        monotonic: Callable[[], float],
    ) -> None:
        self._pipeline = pipeline
        self._limits = limits
        self._header = header
        self._monotonic = monotonic

    @property
    def methods(self) -> Mapping[str, Handler]:
        return {
            "OpenSession": self.open_session,
            "Heartbeat": self.heartbeat,
            "CloseSession": self.close_session,
            "Create": self.create,
            "Delete": self.delete,
            "Exists": self.exists,
            "GetData": self.get_data,
            "SetData": self.set_data,
            "GetChildren": self.get_children,
            "Sync": self.sync,
            "GetAcl": self.get_acl,
            "SetAcl": self.set_acl,
            "AddAuth": self.add_auth,
            "Multi": self.multi,
        }

    # ----------------------------------------------------------------------------------- sessions

    async def open_session(
        self, request: coordination_pb2.OpenSessionRequest, context: Context
    ) -> coordination_pb2.OpenSessionResponse:
        convert.check_features(request.required_features)
        opened, password = await self._pipeline.open_session(
            timeout_ms=convert.timeout_ms(
                request.timeout_ms, self._limits, SESSION_TIMEOUT_MS_DEFAULT
            ),
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

    async def close_session(
        self, request: coordination_pb2.CloseSessionRequest, context: Context
    ) -> coordination_pb2.CloseSessionResponse:
        reply = await self._pipeline.close_session(self._checked_call(request.context, context))
        return coordination_pb2.CloseSessionResponse(header=self._header(reply.zxid))

    async def add_auth(
        self, request: coordination_pb2.AddAuthRequest, context: Context
    ) -> coordination_pb2.AddAuthResponse:
        call = self._checked_call(request.context, context)
        if not call.context.session_id:
            raise BadArgumentsError("identities are added to a session: the request names none")
        ids = (derive_id(request.scheme, request.credential),)
        reply = await self._pipeline.write(call, AddAuthOp(ids))
        return coordination_pb2.AddAuthResponse(
            header=self._header(reply.zxid),
            ids=[common_pb2.AuthId(scheme=auth_id.scheme, id=auth_id.id) for auth_id in ids],
        )

    # ------------------------------------------------------------------------------------- writes

    async def create(
        self, request: coordination_pb2.CreateRequest, context: Context
    ) -> coordination_pb2.CreateResponse:
        op = convert.create_op(request, self._limits)
        reply = await self._write(request.context, context, op)
        assert isinstance(reply.result, Created)
        return coordination_pb2.CreateResponse(
            header=self._header(reply.zxid),
            path=reply.result.path,
            stat=convert.stat_message(reply.result.stat),
        )

    async def delete(
        self, request: coordination_pb2.DeleteRequest, context: Context
    ) -> coordination_pb2.DeleteResponse:
        op = convert.delete_op(request, self._limits)
        reply = await self._write(request.context, context, op)
        return coordination_pb2.DeleteResponse(header=self._header(reply.zxid))

    async def set_data(
        self, request: coordination_pb2.SetDataRequest, context: Context
    ) -> coordination_pb2.SetDataResponse:
        op = convert.set_data_op(request, self._limits)
        reply = await self._write(request.context, context, op)
        assert isinstance(reply.result, DataSet)
        return coordination_pb2.SetDataResponse(
            header=self._header(reply.zxid), stat=convert.stat_message(reply.result.stat)
        )

    async def set_acl(
        self, request: coordination_pb2.SetAclRequest, context: Context
    ) -> coordination_pb2.SetAclResponse:
        op = convert.set_acl_op(request, self._limits)
        reply = await self._write(request.context, context, op)
        assert isinstance(reply.result, AclSet)
        return coordination_pb2.SetAclResponse(
            header=self._header(reply.zxid), stat=convert.stat_message(reply.result.stat)
        )

    async def multi(
        self, request: coordination_pb2.MultiRequest, context: Context
    ) -> coordination_pb2.MultiResponse:
        op = convert.multi_op(request, self._limits)
        reply = await self._write(request.context, context, op)
        assert isinstance(reply.result, MultiDone)
        return coordination_pb2.MultiResponse(
            header=self._header(reply.zxid),
            results=[_multi_result(result) for result in reply.result.results],
        )

    # -------------------------------------------------------------------------------------- reads

    async def exists(
        self, request: coordination_pb2.ExistsRequest, context: Context
    ) -> coordination_pb2.ExistsResponse:
        convert.check_no_watch(request.watch_id)
        stat, zxid = await self._read(
            request, context, lambda state, ids: queries.exists(state, request.path, ids)
        )
        return coordination_pb2.ExistsResponse(
            header=self._header(zxid),
            stat=convert.stat_message(stat) if stat is not None else None,
        )

    async def get_data(
        self, request: coordination_pb2.GetDataRequest, context: Context
    ) -> coordination_pb2.GetDataResponse:
        convert.check_no_watch(request.watch_id)
        (data, stat), zxid = await self._read(
            request, context, lambda state, ids: queries.get_data(state, request.path, ids)
        )
        return coordination_pb2.GetDataResponse(
            header=self._header(zxid), data=data, stat=convert.stat_message(stat)
        )

    async def get_children(
        self, request: coordination_pb2.GetChildrenRequest, context: Context
    ) -> coordination_pb2.GetChildrenResponse:
        convert.check_no_watch(request.watch_id)
        page_size = convert.page_size(request.page_size)
        page_token = convert.page_token(request.page_token)

        def query(state: State, ids: tuple[AuthId, ...]) -> queries.ChildrenPage | Refusal:
            return queries.get_children(
                state,
                request.path,
                ids,
                page_size=page_size,
                page_token=page_token,
                include_stat=request.include_stat,
                include_data=request.include_data,
            )

        page, zxid = await self._read(request, context, query)
        return coordination_pb2.GetChildrenResponse(
            header=self._header(zxid),
            children=[_child_message(child) for child in page.children],
            stat=convert.stat_message(page.stat),
            next_page_token=page.next_page_token,
        )

    async def get_acl(
        self, request: coordination_pb2.GetAclRequest, context: Context
    ) -> coordination_pb2.GetAclResponse:
        (acl, stat), zxid = await self._read(
            request, context, lambda state, ids: queries.get_acl(state, request.path, ids)
        )
        return coordination_pb2.GetAclResponse(
            header=self._header(zxid),
            acl=convert.acl_messages(acl),
            stat=convert.stat_message(stat),
        )

    async def sync(
        self, request: coordination_pb2.SyncRequest, context: Context
    ) -> coordination_pb2.SyncResponse:
        convert.check_path_size(request.path, self._limits)
        zxid = await self._pipeline.sync(self._read_call(request.context, context))
        return coordination_pb2.SyncResponse(header=self._header(zxid), path=request.path)

    # ------------------------------------------------------------------------------------- helpers

    def _checked_call(self, message: common_pb2.RequestContext, context: Context) -> Call:
        return self._call(convert.request_context(message, self._limits), context)

    def _read_call(self, message: common_pb2.RequestContext, context: Context) -> Call:
        return self._call(convert.read_context(message), context)

    def _call(self, checked: convert.RequestContext, context: Context) -> Call:
        now = self._monotonic()
        return Call(
            context=checked,
            deadline=now + seconds_left(context),
            received_at=now,
            ids=ids_of_peer(context.peer()),
        )

    async def _write(self, message: common_pb2.RequestContext, context: Context, op: Op) -> Reply:
        return await self._pipeline.write(self._checked_call(message, context), op)

    async def _read(
        self,
        request: coordination_pb2.ExistsRequest
        | coordination_pb2.GetDataRequest
        | coordination_pb2.GetChildrenRequest
        | coordination_pb2.GetAclRequest,
        context: Context,
        query: Callable[[State, tuple[AuthId, ...]], ResultT | Refusal],
    ) -> tuple[ResultT, int]:
        convert.check_path(request.path, self._limits)
        linearizable = convert.is_linearizable(request.consistency)
        call = self._read_call(request.context, context)
        return await self._pipeline.read(call, query, linearizable=linearizable)


def derive_id(scheme: str, credential: bytes) -> AuthId:
    """The identity that a credential proves. Only this goes on; the credential ends here."""
    if scheme != "digest":
        raise AuthFailedError("only scheme 'digest' can be added")
    try:
        text = credential.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    user, colon, _ = text.partition(":")
    if not colon or not user or len(credential) > CREDENTIAL_BYTES_MAX:
        raise AuthFailedError("a digest credential is user:password in UTF-8")
    return AuthId("digest", digest_id(text))


def _child_message(child: queries.Child) -> coordination_pb2.Child:
    stat = convert.stat_message(child.stat) if child.stat is not None else None
    return coordination_pb2.Child(name=child.name, stat=stat, data=child.data)


def _multi_result(result: SubResult) -> coordination_pb2.MultiResult:
    if isinstance(result, Created):
        created = coordination_pb2.CreateResult(
            path=result.path, stat=convert.stat_message(result.stat)
        )
        return coordination_pb2.MultiResult(create=created)
    if isinstance(result, Deleted):
        return coordination_pb2.MultiResult(delete=coordination_pb2.DeleteResult())
    if isinstance(result, DataSet):
        data_set = coordination_pb2.SetDataResult(stat=convert.stat_message(result.stat))
        return coordination_pb2.MultiResult(set_data=data_set)
    assert isinstance(result, Checked)
    return coordination_pb2.MultiResult(check=coordination_pb2.CheckResult())
