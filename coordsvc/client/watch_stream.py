"""A watch without a session: a stream of its own, which goes on at another replica by itself.

It takes part in no order with anything else: compare zxids. While nothing happens the replica sends
progress marks, so that the watch knows a position to go on from, and that the replica lives.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from grpc import aio

from coordsvc.client import methods
from coordsvc.client.channels import Channels
from coordsvc.client.options import ClientConfig, parse_endpoints
from coordsvc.client.records import WatchEvent, WatchGap, WatchItem, WatchKind, WatchRemoved
from coordsvc.client.retry import ConnectionFailedError, Failures
from coordsvc.client.rpc_errors import typed_error
from coordsvc.client.watching import ONE_SHOT, Watches, Watching
from coordsvc.errors import (
    BadArgumentsError,
    CoordError,
    InternalError,
    NoAuthError,
    OutcomeUnknownError,
    ThrottledError,
    UnavailableError,
)
from coordsvc.paths import validate_path
from coordsvc.v1 import watch_pb2

PROGRESS_INTERVAL_MS = 1_000
STEADY_SECONDS = 1.0
"""After a stream that lived so long the next replica is tried without a pause."""

SILENCE_SECONDS_MAX = 5.0
"""A replica that sends no mark for so long is given up."""

Call = aio.UnaryStreamCall[watch_pb2.WatchRequest, watch_pb2.WatchResponse]


class WatchStream:
    """Set within `async with`; iterate over what it reports::

        async with coordsvc.WatchStream("127.0.0.1:7401,127.0.0.1:7402", "/config") as changes:
            async for change in changes:
                if isinstance(change, coordsvc.WatchEvent):
                    print(change.zxid, change.path)

    `start_after_zxid`: report every change after it; None: from now on. It goes on over reconnects
    for as long as it takes; what cannot be made up for is a WatchGap. `on_interrupted(error)` is
    called when a stream is lost. Iterating raises NoAuthError when the right to read the znode was
    lost, and ends after the event of a kind that fires once.
    """

    def __init__(
        self,
        endpoints: str | ClientConfig,
        path: str,
        kind: WatchKind = WatchKind.PERSISTENT,
        *,
        recursive: bool = False,
        include_data: bool = False,
        start_after_zxid: int | None = None,
        on_interrupted: Callable[[CoordError], None] | None = None,
    ) -> None:
        self.zxid = 0
        """It reports every change after this one; known once it is set."""

        validate_path(path)
        if start_after_zxid is not None and start_after_zxid < 0:
            raise BadArgumentsError(f"start_after_zxid {start_after_zxid} is negative")
        if isinstance(endpoints, str):
            endpoints = ClientConfig(parse_endpoints(endpoints))
        self._config = config = endpoints
        self._channels = Channels(config)
        self._watches = Watches()
        kind = WatchKind.PERSISTENT_RECURSIVE if recursive else kind
        self._watching = Watching(path, kind, include_data, self)
        self._watching.watch_id = self._watches.next_id()
        self._watches.add(self._watching)
        self._after_zxid = start_after_zxid
        self._on_interrupted = on_interrupted
        self._items: deque[WatchEvent | WatchGap] = deque()
        self._error: CoordError | None = None
        self._is_over = False
        self._cluster_id = 0
        self._call: Call | None = None
        self._is_set = False
        self._set_at = 0.0
        self._failures = Failures(config)

    async def __aenter__(self) -> WatchStream:
        """Errors: NoNodeError (kinds DATA and CHILDREN), NoAuthError; UnavailableError when no
        replica is found in `config.timeout_ms`."""
        open_by = time.monotonic() + self._config.timeout_ms / 1000
        try:
            while not self._is_set:
                await self._advance(open_by)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        self._drop_call()
        await self._channels.close()

    @property
    def position(self) -> int:
        """Every change up to this zxid was handed out: where another stream may go on."""
        return self._watches.position

    def __aiter__(self) -> WatchStream:
        return self

    async def __anext__(self) -> WatchEvent | WatchGap:
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._is_over:
                raise StopAsyncIteration
            await self._advance(None)
        return self._items.popleft()

    # --------------------------------------------------------------------------------- the sink

    def deliver(self, item: WatchItem) -> None:
        if not isinstance(item, WatchRemoved):
            self._items.append(item)
            self._is_over = self._watching.kind in ONE_SHOT
            return
        self._is_over = True
        if item.is_refused:
            self._error = NoAuthError("the right to read it was lost", path=self._watching.path)

    def fail(self, error: CoordError) -> None:
        self._error = error

    # -------------------------------------------------------------------------------- the stream

    async def _advance(self, open_by: float | None) -> None:
        """One message, connecting before if need be; a failure costs a pause. Raises what would be
        refused again, and, with `open_by`, what keeps the watch from being set by then."""
        endpoint = self._channels.endpoint
        try:
            await self._receive(endpoint)
        except BaseException as error:
            self._drop_call()  # Also when the caller was cancelled: the call is, too.
            if not isinstance(error, CoordError) or not _is_passing(error):
                raise
            failure = error
        else:
            return
        now = time.monotonic()
        if self._set_at and self._on_interrupted is not None:
            self._on_interrupted(failure)
        if self._set_at and now - self._set_at >= STEADY_SECONDS:
            self._failures = Failures(self._config)
        self._set_at = 0.0
        self._failures.add(failure)
        pause = self._failures.pause_seconds()
        if open_by is not None and (now + pause >= open_by or self._failures.is_hopeless()):
            raise self._failures.verdict() from None
        self._channels.rotate(endpoint)
        await asyncio.sleep(pause)

    async def _receive(self, endpoint: str) -> None:
        if self._call is None:
            patience = self._config.connect_timeout_ms / 1000
            await self._channels.connect(endpoint, time.monotonic() + patience)
            self._call = self._channels.open_listing(
                endpoint, methods.WATCH_STREAM, self._request(), watch_pb2.WatchResponse
            )
            self._watches.resumed()
        try:
            async with asyncio.timeout(SILENCE_SECONDS_MAX):
                response = await self._call.read()
        except TimeoutError:
            raise ConnectionFailedError(f"{endpoint} is silent") from None
        except aio.AioRpcError as error:
            raise typed_error(error, endpoint, is_write=False) from None
        if not isinstance(response, watch_pb2.WatchResponse):
            raise ConnectionFailedError(f"{endpoint} ended the stream")
        self._handle(response)

    def _request(self) -> watch_pb2.WatchRequest:
        request = watch_pb2.WatchRequest(progress_interval_ms=PROGRESS_INTERVAL_MS)
        request.watches.extend(self._watches.specs())
        if self._after_zxid is not None:
            request.start_after_zxid = max(self._after_zxid, self._watches.position)
        return request

    def _drop_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _handle(self, response: watch_pb2.WatchResponse) -> None:
        cluster_id = response.header.cluster_id
        if cluster_id and self._cluster_id not in (0, cluster_id):
            self._watches.begin_other_history(response.header.zxid)
            self._after_zxid = 0
        self._cluster_id = cluster_id or self._cluster_id
        for item in response.items:
            kind = item.WhichOneof("item")
            if kind == "event":
                self._watches.event(item.event)
            elif kind == "watches_set":
                self._handle_set(item.watches_set.zxid)
            elif kind == "gap":
                self._watches.gap(item.gap)
            elif kind == "progress":
                self._watches.reached(item.progress.zxid)
            elif kind == "removed":
                self._watches.removed(item.removed)

    def _handle_set(self, zxid: int) -> None:
        if not self._is_set:
            self._is_set, self.zxid = True, zxid
        self._set_at = time.monotonic()
        if self._after_zxid is None:
            # Otherwise a gap may follow, and is not to be jumped over if the stream breaks here.
            self._after_zxid = zxid
            self._watches.reached(zxid)


def _is_passing(error: CoordError) -> bool:
    return isinstance(
        error, UnavailableError | OutcomeUnknownError | ThrottledError | InternalError
    )
