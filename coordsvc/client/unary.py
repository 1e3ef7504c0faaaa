"""Unary calls to a cluster: any replica, retried where that is safe, errors typed.

A call goes to one endpoint. When that fails so that another replica may help, the same request
goes to the next one, until the deadline: reads always, writes when they were certainly not applied,
writes under a request number also when nobody knows. What the client has seen is
never unseen: each request asks for at least the highest zxid answered so far (`min_zxid`).

One client belongs to one event loop. Its calls may run concurrently; they are then in no order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import TracebackType

from grpc import aio

from coordsvc.client import methods
from coordsvc.client.channels import Channels
from coordsvc.client.methods import Method, RequestT, ResponseT
from coordsvc.client.options import ClientConfig
from coordsvc.client.retry import Failures, Repeatable, is_endpoint_to_blame, may_retry
from coordsvc.client.rpc_errors import typed_error
from coordsvc.errors import CoordError, LimitExceededError
from coordsvc.v1 import cluster_pb2, common_pb2, coordination_pb2

REQUEST_BYTES_MAX = 4 * 1024 * 1024
"""The service's own bound. Checked here, because what exceeds gRPC's bound is cut off without a
word about the outcome."""

LOCAL = common_pb2.READ_CONSISTENCY_LOCAL
LINEARIZABLE = common_pb2.READ_CONSISTENCY_LINEARIZABLE


class UnaryClient:
    """Every method raises CoordError's subclasses only (and CancelledError when cancelled, which
    does not take back a write)."""

    def __init__(self, config: ClientConfig | None = None) -> None:
        self.config = config if config is not None else ClientConfig()
        self._channels = Channels(self.config)
        self._cluster_id = 0
        self._zxid_seen = 0
        self.retries = 0
        """How many attempts were repetitions of failed ones."""

    async def __aenter__(self) -> UnaryClient:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channels.close()

    @property
    def zxid_seen(self) -> int:
        """The highest zxid any answer carried; 0: none yet."""
        return self._zxid_seen

    # ------------------------------------------------------------------------------ the calls

    async def create(
        self,
        path: str,
        data: bytes | None = None,
        *,
        mode: common_pb2.CreateMode.ValueType = common_pb2.CREATE_MODE_PERSISTENT,
        ttl_ms: int = 0,
        context: common_pb2.RequestContext | None = None,
    ) -> coordination_pb2.CreateResponse:
        """`data` None is null, which is not empty."""
        request = coordination_pb2.CreateRequest(
            context=self.context(context), path=path, data=data, mode=mode, ttl_ms=ttl_ms
        )
        return await self.call(methods.CREATE, request)

    async def set_data(
        self,
        path: str,
        data: bytes | None,
        *,
        version: int | None = None,
        context: common_pb2.RequestContext | None = None,
    ) -> coordination_pb2.SetDataResponse:
        """`version` None: whatever it is now."""
        request = coordination_pb2.SetDataRequest(
            context=self.context(context), path=path, data=data, expected_version=version
        )
        return await self.call(methods.SET_DATA, request)

    async def delete(
        self,
        path: str,
        *,
        version: int | None = None,
        context: common_pb2.RequestContext | None = None,
    ) -> coordination_pb2.DeleteResponse:
        request = coordination_pb2.DeleteRequest(
            context=self.context(context), path=path, expected_version=version
        )
        return await self.call(methods.DELETE, request)

    async def exists(
        self, path: str, *, consistency: common_pb2.ReadConsistency.ValueType = LOCAL
    ) -> coordination_pb2.ExistsResponse:
        """A missing znode is no error: `stat` is absent."""
        request = coordination_pb2.ExistsRequest(
            context=self.context(), path=path, consistency=consistency
        )
        return await self.call(methods.EXISTS, request)

    async def get_data(
        self, path: str, *, consistency: common_pb2.ReadConsistency.ValueType = LOCAL
    ) -> coordination_pb2.GetDataResponse:
        request = coordination_pb2.GetDataRequest(
            context=self.context(), path=path, consistency=consistency
        )
        return await self.call(methods.GET_DATA, request)

    async def get_children(
        self,
        path: str,
        *,
        include_data: bool = False,
        include_stat: bool = False,
        page_size: int = 0,
        consistency: common_pb2.ReadConsistency.ValueType = LOCAL,
    ) -> AsyncIterator[coordination_pb2.GetChildrenResponse]:
        """All pages, each of one consistent state; two of them may be of two states."""
        request = coordination_pb2.GetChildrenRequest(
            path=path,
            consistency=consistency,
            page_size=page_size,
            include_data=include_data,
            include_stat=include_stat,
        )
        while True:
            request.context.CopyFrom(self.context())
            page = await self.call(methods.GET_CHILDREN, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def sync(self, path: str = "/") -> coordination_pb2.SyncResponse:
        """After it, reads of this client see all that was acknowledged to anybody before it."""
        request = coordination_pb2.SyncRequest(context=self.context(), path=path)
        return await self.call(methods.SYNC, request)

    async def status(self) -> cluster_pb2.StatusResponse:
        return await self.call(methods.STATUS, cluster_pb2.StatusRequest())

    async def digest(self, min_zxid: int = 0) -> cluster_pb2.DigestResponse:
        return await self.call(methods.DIGEST, cluster_pb2.DigestRequest(min_zxid=min_zxid))

    def context(self, base: common_pb2.RequestContext | None = None) -> common_pb2.RequestContext:
        """`base`, asking for at least what this client has seen."""
        context = common_pb2.RequestContext(min_zxid=self._zxid_seen)
        if base is not None:
            context.MergeFrom(base)
        return context

    # --------------------------------------------------------------------- how a call is made

    async def call(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout_ms: int | None = None,
    ) -> ResponseT:
        """One call, with its retries. Raises the error of the last attempt, unless an earlier one
        left the outcome of a write unknown: what comes later cannot make that undone."""
        size = request.ByteSize()
        if size > REQUEST_BYTES_MAX:
            raise LimitExceededError(f"the request has {size} bytes, of {REQUEST_BYTES_MAX}")
        timeout = (timeout_ms if timeout_ms is not None else self.config.timeout_ms) / 1000
        deadline = time.monotonic() + timeout
        repeatable = _repeatable(method, request)
        failures = Failures(self.config)
        while True:
            endpoint = self._channels.endpoint
            try:
                return await self._attempt(method, request, endpoint, deadline, repeatable)
            except CoordError as error:
                failures.add(error)
                if is_endpoint_to_blame(error):
                    self._channels.rotate(endpoint)
                pause = failures.pause_seconds()
                is_late = time.monotonic() + pause >= deadline
                if is_late or failures.is_hopeless() or not may_retry(error, repeatable):
                    raise failures.verdict() from None
            await asyncio.sleep(pause)
            self.retries += 1

    async def _attempt(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        endpoint: str,
        deadline: float,
        repeatable: Repeatable,
    ) -> ResponseT:
        await self._channels.connect(endpoint, deadline)
        left = deadline - time.monotonic()
        if repeatable is Repeatable.ALWAYS and len(self.config.endpoints) > 1:
            left = min(left, self.config.attempt_timeout_ms / 1000)
        try:
            response = await self._channels.call(endpoint, method)(request, timeout=max(left, 0))
        except aio.AioRpcError as error:
            raise typed_error(error, endpoint, is_write=method.is_write) from None
        self._learn(response)
        return response

    def _learn(self, response: object) -> None:
        header = getattr(response, "header", None)
        if not isinstance(header, common_pb2.ResponseHeader):
            return
        if header.cluster_id != self._cluster_id:
            # Another cluster, or a restored one: its numbers have nothing to do with the old ones.
            self._cluster_id, self._zxid_seen = header.cluster_id, 0
        self._zxid_seen = max(self._zxid_seen, header.zxid)


def _repeatable(method: Method[RequestT, ResponseT], request: RequestT) -> Repeatable:
    if not method.is_write:
        return Repeatable.ALWAYS
    context = getattr(request, "context", None)
    if isinstance(context, common_pb2.RequestContext) and context.request_number > 0:
        return Repeatable.ALWAYS
    return Repeatable.IF_NOT_APPLIED


def consistency(is_linearizable: bool) -> common_pb2.ReadConsistency.ValueType:
    return LINEARIZABLE if is_linearizable else LOCAL
