"""A session over unary calls: kept alive by heartbeats, its writes numbered.

A number makes a write repeatable: the cluster answers a repetition as the first time, on any
replica, also after a fail-over. Number n is applied only after n-1, so writes go one at a time, and
one whose outcome stayed unknown is settled before the next is sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from coordsvc.client import methods
from coordsvc.client.methods import Method, RequestT, ResponseT
from coordsvc.client.unary import UnaryClient
from coordsvc.errors import (
    CoordError,
    OutcomeUnknownError,
    RequestOutOfOrderError,
    ResultForgottenError,
    SessionError,
    SessionExpiredError,
    UnavailableError,
)
from coordsvc.v1 import common_pb2, coordination_pb2

HEARTBEATS_PER_TIMEOUT = 3
"""Two may be lost before the session is."""

CLOSE_TIMEOUT_MS = 3_000
"""A session that cannot be closed expires: not worth a long wait at a program's end."""


class ClientSession:
    """An open session. Make it with `open`, and use it within `async with`, which closes it.

    Every write raises SessionError once the session is gone. It is counted as lost one timeout
    after the last heartbeat that was answered was *sent*, by this process's clock: the cluster,
    which counts from when it heard, has then not given it up any earlier.
    """

    def __init__(self, client: UnaryClient, answer: coordination_pb2.OpenSessionResponse) -> None:
        self.timeout_ms = answer.timeout_ms
        self._client = client
        self._credentials = answer.credentials
        self._next_number = 1
        self._unsettled: Callable[[], Awaitable[Any]] | None = None
        self._turn = asyncio.Lock()
        self._keeper: asyncio.Task[SessionError] | None = None

    @classmethod
    async def open(
        cls, client: UnaryClient, timeout_ms: int = 0, client_name: str = ""
    ) -> ClientSession:
        """`timeout_ms` 0: the cluster's default. The timeout it grants is `self.timeout_ms`."""
        sent_at = time.monotonic()
        request = coordination_pb2.OpenSessionRequest(
            timeout_ms=timeout_ms, client_name=client_name
        )
        session = cls(client, await client.call(methods.OPEN_SESSION, request))
        session._keeper = asyncio.create_task(session._keep_alive(sent_at))
        return session

    async def __aenter__(self) -> ClientSession:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def session_id(self) -> int:
        return self._credentials.session_id

    async def wait_lost(self) -> SessionError:
        """Returns once the session is lost, with the reason."""
        assert self._keeper is not None
        return await asyncio.shield(self._keeper)

    async def close(self) -> None:
        """End the session, with all its ephemerals. One that is gone already is closed."""
        assert self._keeper is not None
        was_lost = self._keeper.done()
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        if was_lost:
            return
        try:
            await self.write(
                methods.CLOSE_SESSION,
                lambda context: coordination_pb2.CloseSessionRequest(context=context),
                timeout_ms=min(CLOSE_TIMEOUT_MS, self._client.config.timeout_ms),
            )
        except SessionExpiredError:
            return

    async def create(
        self,
        path: str,
        data: bytes | None = None,
        *,
        mode: common_pb2.CreateMode.ValueType = common_pb2.CREATE_MODE_PERSISTENT,
        ttl_ms: int = 0,
    ) -> coordination_pb2.CreateResponse:
        return await self.write(
            methods.CREATE,
            lambda context: coordination_pb2.CreateRequest(
                context=context, path=path, data=data, mode=mode, ttl_ms=ttl_ms
            ),
        )

    async def write(
        self,
        method: Method[RequestT, ResponseT],
        build: Callable[[common_pb2.RequestContext], RequestT],
        *,
        timeout_ms: int | None = None,
    ) -> ResponseT:
        """One write, under the next number. OutcomeUnknownError only when the deadline passed
        first; the next write then settles this one before it is sent."""
        async with self._turn:
            await self._settle_previous()
            request = build(self._context(self._next_number))

            async def attempt() -> ResponseT:
                return await self._client.call(method, request, timeout_ms=timeout_ms)

            self._next_number, self._unsettled = self._next_number + 1, attempt
            try:
                answer = await attempt()
            except OutcomeUnknownError:
                raise
            except CoordError as error:
                if not _is_number_used(error):
                    self._next_number -= 1
                self._unsettled = None
                raise
            self._unsettled = None
            return answer

    async def _settle_previous(self) -> None:
        """Repeat the write whose outcome is not known, if there is one. Its caller has been told;
        all that matters here is that its number is done."""
        if self._unsettled is None:
            return
        try:
            await self._unsettled()
        except OutcomeUnknownError as error:
            raise UnavailableError(
                f"not sent, as the write before it is unsettled: {error}"
            ) from None
        except CoordError as error:
            if not _is_number_used(error):
                raise
        self._unsettled = None

    def _context(self, number: int) -> common_pb2.RequestContext:
        return self._client.context(
            common_pb2.RequestContext(
                session=self._credentials, request_number=number, done_below=number
            )
        )

    async def _keep_alive(self, opened_at: float) -> SessionError:
        timeout = self.timeout_ms / 1000
        interval = timeout / HEARTBEATS_PER_TIMEOUT
        request = coordination_pb2.HeartbeatRequest(credentials=self._credentials)
        lost_at, next_at = opened_at + timeout, opened_at + interval
        while True:
            await asyncio.sleep(max(0.0, min(next_at, lost_at) - time.monotonic()))
            sent_at = time.monotonic()
            if sent_at >= lost_at:
                return SessionExpiredError(
                    f"no heartbeat was answered for the session's timeout of {self.timeout_ms} ms"
                )
            patience = min(interval, lost_at - sent_at)
            try:
                await self._client.call(
                    methods.HEARTBEAT, request, timeout_ms=max(1, int(patience * 1000))
                )
            except SessionError as error:
                return error
            except CoordError:
                # It counts as lost at lost_at, not before: try on until then.
                next_at = max(time.monotonic(), sent_at + interval / 4)
                continue
            lost_at, next_at = sent_at + timeout, sent_at + interval


def _is_number_used(error: CoordError) -> bool:
    """Whether the state machine has done the number, rather than a front door refused it."""
    if isinstance(error, RequestOutOfOrderError):
        return False
    return error.zxid > 0 or isinstance(error, ResultForgottenError)
