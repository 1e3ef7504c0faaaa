"""HTTP for machines that watch this one: /metrics, /livez, /readyz, and below /commands what
ZooKeeper's AdminServer tells. It reads, and changes nothing.

It is opened before the data is loaded, so that a long load does not look like a dead process. It
shares the loop with everything else, so what a stranger can take of it is bounded: so many
connections, each for one request and for a few seconds in all, however slowly it sends or reads.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import cast

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from coordsvc.server.health import Check, is_ready
from coordsvc.server.zookeeper.json_commands import ROOT, page
from coordsvc.server.zookeeper.monitoring import Monitored

CONNECTIONS_MAX = 64
CONNECTION_SECONDS_MAX = 10.0
"""From its begin to its end: for sending the request, and for taking the answer."""

READ_BUFFER_BYTES = 16 * 1024
STOP_SECONDS_MAX = 0.5


class _Connection(web.RequestHandler):
    """One connection, which ends after its time whatever it is doing."""

    __slots__ = ("_end",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        abort = cast(asyncio.Transport, transport).abort
        self._end = asyncio.get_running_loop().call_later(CONNECTION_SECONDS_MAX, abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end.cancel()
        super().connection_lost(exc)


class _Refused(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class Admin:
    """`metrics()` is the page of /metrics. `dead()` says why this process is to be called dead,
    empty when it is not; `checks()` decide whether it is ready; `monitored()` is what /commands
    tell of, None until the data is loaded."""

    def __init__(
        self,
        metrics: Callable[[], bytes],
        dead: Callable[[], str],
        checks: Callable[[], Sequence[Check]],
        monitored: Callable[[], Monitored | None] = lambda: None,
    ) -> None:
        self._metrics = metrics
        self._dead = dead
        self._checks = checks
        self._monitored = monitored
        self._pages: dict[str, Callable[[web.BaseRequest], web.Response]] = {
            "/metrics": self._metrics_page,
            "/livez": self._livez,
            "/readyz": self._readyz,
        }
        self._http: web.Server | None = None
        self._listener: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve on a socket that is bound already."""
        loop = asyncio.get_running_loop()
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] = self._answer
        self._http = http = web.Server(answer)

        def accept() -> asyncio.Protocol:
            if len(http.connections) >= CONNECTIONS_MAX:
                return _Refused()
            return _Connection(
                http,
                loop=loop,
                access_log=None,  # type: ignore[arg-type]  # none, as the library has it
                lingering_time=0,
                read_bufsize=READ_BUFFER_BYTES,
            )

        self._listener = await loop.create_server(accept, sock=listener)

    async def stop(self) -> None:
        if self._listener is not None and self._http is not None:
            self._listener.close()
            await self._http.shutdown(STOP_SECONDS_MAX)
            self._listener = self._http = None

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = self._answer_of(request.path)
        if answer is None:
            known = ", ".join((*self._pages, ROOT))
            response = _text(f"there are {known}", HTTPStatus.NOT_FOUND)
        elif request.method not in ("GET", "HEAD"):
            response = _text("only GET and HEAD are answered", HTTPStatus.METHOD_NOT_ALLOWED)
        else:
            response = answer(request)
        response.force_close()
        return response

    def _answer_of(self, path: str) -> Callable[[web.BaseRequest], web.Response] | None:
        """None: there is no such page."""
        is_command = path == ROOT or path.startswith(f"{ROOT}/")
        return self._command if is_command else self._pages.get(path)

    def _command(self, request: web.BaseRequest) -> web.Response:
        answer = page(request.path.removeprefix(ROOT).removeprefix("/"), self._monitored())
        return web.Response(status=answer.status, body=answer.body, content_type="application/json")

    def _metrics_page(self, request: web.BaseRequest) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _livez(self, request: web.BaseRequest) -> web.Response:
        fault = self._dead()
        return _text(fault, HTTPStatus.SERVICE_UNAVAILABLE) if fault else _text("ok")

    def _readyz(self, request: web.BaseRequest) -> web.Response:
        """With `?verbose` a line for each check; otherwise for those that fail."""
        checks = self._checks()
        ready = is_ready(checks)
        shown = [check for check in checks if "verbose" in request.query or not check.is_ok]
        lines = [*map(str, shown), "ok" if ready else "not ready"]
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _text("\n".join(lines), status)


def _text(text: str, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(status=status, text=text + "\n")
