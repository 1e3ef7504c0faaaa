"""HTTP for machines that watch this one: /metrics, /livez, /readyz. It reads, and changes nothing.

It is opened before the data is loaded, so that a long load does not look like a dead process.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from aiohttp import web

from coordsvc.server.addresses import Address
from coordsvc.server.metrics import CONTENT_TYPE, ReplicaMetrics


class Admin:
    """`is_ready()` decides what /readyz says."""

    def __init__(self, metrics: ReplicaMetrics, is_ready: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._is_ready = is_ready
        self._runner: web.AppRunner | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve on a socket that is bound already."""
        app = web.Application()
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/livez", self._serve_livez)
        app.router.add_get("/readyz", self._serve_readyz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _serve_livez(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _serve_readyz(self, request: web.Request) -> web.Response:
        if self._is_ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="not ready\n")


def bind(address: Address) -> socket.socket:
    """A socket listening on `address`. Raises OSError when it is taken.

    SO_REUSEADDR lets a restarted process take the port of connections that are still closing; it
    does not let two processes listen on it. SO_REUSEPORT would, and is never set.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener
