"""A gRPC server in memory, with the interface and the behaviour of `grpc.aio`'s.

Everything here runs on the loop of the process that made the server. Handlers are coroutines, or
asynchronous generators.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from grpc import StatusCode, aio

from coordsvc.testing.simulated_rpc_context import ServerCall
from coordsvc.testing.simulated_rpc_wire import Connection, Pairs, Replies

KEEPALIVE_S = 20.0
KEEPALIVE_TIMEOUT_S = 10.0
"""As the replicas' servers have it: a client that does not answer in this time is gone."""


@dataclass
class _Details:
    """What handlers are looked up by."""

    method: str
    invocation_metadata: Pairs


class Ports(Protocol):
    """Who listens where."""

    def bind(self, address: str, server: SimulatedServer) -> int: ...
    def unbind(self, server: SimulatedServer) -> None: ...


class SimulatedServer(aio.Server):
    """Make it on the loop it shall run on."""

    def __init__(self, ports: Ports) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_serving = False
        self.is_stopped = False
        self._has_started = False
        self._ports = ports
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._connections: dict[int, ServerConnection] = {}
        self._calls = 0
        self._stopped: asyncio.Future[None] = self.loop.create_future()
        self._grace: asyncio.TimerHandle | None = None

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        self._handlers.extend(generic_rpc_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Raises RuntimeError when it is taken."""
        return self._ports.bind(address, self)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        raise NotImplementedError("there is no TLS in memory")

    async def start(self) -> None:
        assert not self._has_started, "a server is started once"
        self.is_serving = self._has_started = True

    async def stop(self, grace: float | None) -> None:
        """Take no new calls, wait `grace` at most for those that run, and cancel what is left."""
        if not self._has_started:
            self._ports.unbind(self)
            return
        if self.is_serving:
            self.is_serving = False
            self._ports.unbind(self)
            for connection in self._connections.values():
                connection.go_away()
            if not self._calls:
                self._end()
        if self._stopped.done():
            return
        if grace:
            self._grace = self._grace or self.loop.call_later(grace, self._cancel_all)
        else:
            self._cancel_all()
        await asyncio.shield(self._stopped)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._stopped)
        except TimeoutError:
            return True
        return False

    def _cancel_all(self) -> None:
        for connection in tuple(self._connections.values()):
            connection.cancel_all(StatusCode.UNAVAILABLE, "Cancelling all calls")

    def _end(self) -> None:
        self.is_stopped = True
        if self._grace is not None:
            self._grace.cancel()
        for connection in tuple(self._connections.values()):
            connection.close()
        if not self._stopped.done():
            self._stopped.set_result(None)

    # -------------------------------------------------------------------------------- connections

    def make_end(self, connection: Connection) -> ServerConnection:
        return ServerConnection(self, connection)

    def add_connection(self, connection: ServerConnection) -> bool:
        """False: it is not accepted."""
        if self.is_serving:
            self._connections[connection.wire.number] = connection
        return self.is_serving

    def discard_connection(self, connection: ServerConnection) -> None:
        self._connections.pop(connection.wire.number, None)

    def find(self, details: _Details) -> grpc.RpcMethodHandler[Any, Any] | None:
        for each in self._handlers:
            handler: grpc.RpcMethodHandler[Any, Any] | None = each.service(details)
            if handler is not None:
                return handler
        return None

    def call_began(self) -> None:
        self._calls += 1

    def call_ended(self) -> None:
        self._calls -= 1
        if not self._calls and not self.is_serving:
            self._end()


class ServerConnection:
    """One client's connection, and its calls by number."""

    def __init__(self, server: SimulatedServer, wire: Connection) -> None:
        self.server = server
        self.wire = wire
        self._calls: dict[int, ServerCall] = {}
        self._timer: asyncio.TimerHandle | None = None

    def on_dialled(self) -> None:
        wire = self.wire
        if self.server.add_connection(self):
            wire.down.send(wire.channel.on_connected, wire)
            self._timer = self.server.loop.call_later(KEEPALIVE_S, self._ask)
        else:
            wire.down.send(wire.channel.on_refused, wire)

    def _ask(self) -> None:
        self.wire.down.send(self.wire.answer_ping)
        self._timer = self.server.loop.call_later(KEEPALIVE_TIMEOUT_S, self.on_lost)

    def on_pong(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self.server.loop.call_later(KEEPALIVE_S, self._ask)

    def on_lost(self) -> None:
        self.cancel_all(StatusCode.CANCELLED, "")
        self.close()

    def go_away(self) -> None:
        self.wire.down.send(self.wire.channel.on_go_away, self.wire)

    def cancel_all(self, code: StatusCode, details: str) -> None:
        for call in tuple(self._calls.values()):
            call.cancel(code, details)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.server.discard_connection(self)
        self.wire.up.close(drop=True)
        self.wire.close_at_server()

    # --------------------------------------------------------------------------------------- calls

    def on_call(
        self,
        number: int,
        replies: Replies,
        method: str,
        timeout_s: float | None,
        metadata: Pairs,
        request: bytes | None,
    ) -> None:
        if not self.server.is_serving:
            self.wire.down.send(
                replies.on_status, StatusCode.UNAVAILABLE, "Server is shutting down", ()
            )
            return
        handler = self.server.find(_Details(method, metadata))
        if handler is None:
            status = StatusCode.UNIMPLEMENTED, "Method not found!"
            self.wire.down.send(replies.on_status, *status, ())
            return
        server = self.server

        def ended() -> None:
            del self._calls[number]
            server.call_ended()

        call = self._calls[number] = ServerCall(
            self.wire, replies, handler, timeout_s, metadata, lambda: server.is_stopped, ended
        )
        server.call_began()
        call.begin(method, request)

    def on_message(self, number: int, message: bytes) -> None:
        if (call := self._calls.get(number)) is not None:
            call.inbox.put(message)

    def on_half_close(self, number: int) -> None:
        if (call := self._calls.get(number)) is not None:
            call.inbox.end()

    def on_room(self, number: int, count: int) -> None:
        if (call := self._calls.get(number)) is not None:
            call.outbox.give(count)

    def on_cancel(self, number: int) -> None:
        if (call := self._calls.get(number)) is not None:
            call.cancel(StatusCode.CANCELLED, "")
