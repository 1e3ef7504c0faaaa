"""The life of a client's session, as a program sees it: opened, closed, its state, its end."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from types import TracebackType
from typing import Self

from coordsvc.client.channels import Channels
from coordsvc.client.operations import Operations
from coordsvc.client.options import DEFAULT_ENDPOINT, ClientConfig, TlsOptions, parse_endpoints
from coordsvc.client.records import SessionState, StateListener
from coordsvc.client.requests import Request
from coordsvc.client.status import FINAL, SessionStatus
from coordsvc.client.stream import StreamKeeper
from coordsvc.errors import Applied, CoordError, SessionExpiredError

logger = logging.getLogger(__name__)

SESSION_TIMEOUT_MS = 10_000

CLOSE_TIMEOUT_MS = 3_000
"""A session that cannot be closed expires: not worth a long wait at a program's end."""

RECONNECT_MS_MIN, RECONNECT_MS_MAX = 50, 1_000


class Session:
    """What Client is besides its operations; see there."""

    def __init__(
        self,
        endpoints: str | Sequence[str] = DEFAULT_ENDPOINT,
        *,
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
        client_name: str = "",
        timeout_ms: int = 10_000,
        randomize_endpoints: bool = True,
        tls: TlsOptions | None = None,
        config: ClientConfig | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if config is None:
            text = endpoints if isinstance(endpoints, str) else ",".join(endpoints)
            config = ClientConfig(
                parse_endpoints(text),
                timeout_ms=timeout_ms,
                retry_delay_ms_min=RECONNECT_MS_MIN,
                retry_delay_ms_max=RECONNECT_MS_MAX,
                tls=tls,
            )
        if randomize_endpoints:
            drawn = random.randrange(len(config.endpoints))
            order = config.endpoints[drawn:] + config.endpoints[:drawn]
            config = replace(config, endpoints=order)
        self.config = config
        self._session_timeout_ms = session_timeout_ms
        self._client_name = client_name
        self._clock = clock if clock is not None else time.monotonic
        self._status = SessionStatus()
        self._channels = Channels(config)
        self._keeper: StreamKeeper | None = None
        self._task: asyncio.Task[None] | None = None
        self._operations: Operations | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Open the session; `async with` does it. Errors: UnavailableError when no replica with a
        quorum is found in `config.timeout_ms`; LimitExceededError; BadArgumentsError."""
        if self._keeper is not None:
            raise RuntimeError("a client is started once; make a new one")
        self._keeper = StreamKeeper(
            self.config,
            self._channels,
            self._status,
            self._session_timeout_ms,
            self._client_name,
            clock=self._clock,
        )
        self._operations = Operations(
            self._keeper.conversation, self._submit, self._clock, self.config
        )
        self._status.change(SessionState.SUSPENDED)
        self._task = asyncio.create_task(self._keeper.run())
        try:
            await self._status.wait_for(SessionState.CONNECTED)
        except BaseException:
            await self._shut()
            raise

    async def close(self) -> None:
        """End the session, after everything submitted before. Its ephemerals are deleted. Waits 3 s
        at most: a session that cannot be closed expires by itself."""
        if self._status.state not in FINAL:
            done = self.nowait.close_session(CLOSE_TIMEOUT_MS)
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_MS / 1000):
                    await done
            except (CoordError, TimeoutError) as error:
                # Gone already, or out of reach until it expires: over in any case.
                logger.debug("session not closed: %s", error)
        await self._shut()

    async def _shut(self) -> None:
        if self._status.state not in FINAL:
            self._status.change(SessionState.CLOSED)
            assert self._keeper is not None
            self._keeper.conversation.fail(SessionExpiredError("the client was closed"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._channels.close()

    @property
    def state(self) -> SessionState:
        """By this process's clock: CONNECTED and SUSPENDED say that the session lives, even if the
        loop stood still for long before this call."""
        if self._keeper is not None:
            self._keeper.check_clock()
        return self._status.state

    @property
    def failure(self) -> CoordError | None:
        """Why the session is lost; None: it is not."""
        return self._status.error

    async def wait_for_state(self, state: SessionState) -> None:
        """Returns once the session is in `state`. SessionError: it will not be any more."""
        await self._status.wait_for(state)

    def add_listener(self, listener: StateListener) -> None:
        """`listener(state)` is called on every change, before anything else happens; it may submit
        operations, and must not wait."""
        self._status.add_listener(listener)

    def remove_listener(self, listener: StateListener) -> None:
        self._status.remove_listener(listener)

    @property
    def session_id(self) -> int:
        """0 before the session is open."""
        credentials = self._keeper.conversation.credentials if self._keeper else None
        return credentials.session_id if credentials is not None else 0

    @property
    def session_timeout_ms(self) -> int:
        """What the service granted."""
        return round(self._keeper.conversation.lifetime.timeout_s * 1000) if self._keeper else 0

    @property
    def zxid(self) -> int:
        """The highest that any answer carried: everything up to it is seen by every read to come.
        Hand it to another client as `min_zxid` to let it see as much."""
        return self._keeper.conversation.zxid if self._keeper else 0

    @property
    def endpoint(self) -> str:
        """Of the replica that the session is attached to now; empty: none."""
        return self._keeper.endpoint if self._keeper else ""

    @property
    def replica_id(self) -> int:
        """Of the replica that the session is attached to now; 0: none."""
        return self._keeper.conversation.replica_id if self._keeper else 0

    @property
    def nowait(self) -> Operations:
        """The same operations as functions that submit at once and return the answer's future: for
        thousands at a time, without a task for each::

            futures = [client.nowait.set_data("/config", b"x") for _ in range(20_000)]
            await asyncio.gather(*futures)

        What cannot leave yet waits in memory, up to `config.requests_waiting_max` operations and
        `config.request_bytes_waiting_max` bytes; one more raises ThrottledError at once.
        """
        if self._operations is None:
            raise RuntimeError("the client is not started: use it within `async with`")
        return self._operations

    def _submit(self, request: Request) -> None:
        status, keeper = self._status, self._keeper
        assert keeper is not None
        if status.state in FINAL:
            error = status.error
            if error is None:
                raise SessionExpiredError("the client is closed")
            error = copy(error)
            error.applied = Applied.NO
            raise error
        keeper.conversation.submit(request)
        keeper.wake_by(request.deadline)
