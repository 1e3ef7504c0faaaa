"""gRPC between simulated processes: servers and channels in memory, and the network's faults.

The real servicers and the real client run over it. Each process has its own event loop: a server
and all that its handlers do belongs to the loop on which the server was made, a channel and its
calls to theirs, and one reaches the other only by timers on the other's loop. On one ordinary loop
it works as well. Time is the loops' time; nothing is random but what `latency_s` draws, and nothing
depends on addresses of objects or on the order of a set: the same latencies give the same run.

Not simulated: TLS, interceptors, compression, limits of sizes and of concurrent streams, a status
lost to a write in flight, and calls of many requests with one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

from grpc import aio

from coordsvc.client import channels
from coordsvc.client.options import TlsOptions
from coordsvc.testing.simulated_rpc_client import SimulatedChannel
from coordsvc.testing.simulated_rpc_server import SimulatedServer
from coordsvc.testing.simulated_rpc_wire import Connection

LATENCY_S = 0.0005
FIRST_FREE_PORT = 30_000
PORTS = 20_000


class RpcFabric:
    """Who listens where, all connections, and what is wrong with them.

    `latency_s()` is drawn for each message. `host_name()` says on which host the running code is,
    when a channel is opened; faults are between a client's host and a server's address, both as
    they were given."""

    def __init__(
        self,
        *,
        latency_s: Callable[[], float] = lambda: LATENCY_S,
        host_name: Callable[[], str] = lambda: "client",
    ) -> None:
        self.carried = 0
        """Messages sent so far."""
        self._draw_latency_s = latency_s
        self._host_name = host_name
        self._listeners: dict[str, SimulatedServer] = {}
        self._dark: dict[str, None] = {}
        """Addresses of machines that are off."""
        self._connections: dict[int, Connection] = {}
        self._number = 0
        self._hosts: dict[str, int] = {}
        self._stalls: dict[tuple[str, str], tuple[bool, bool]] = {}

    @property
    def connections(self) -> int:
        """Those made or being made, as long as either end has them."""
        return len(self._connections)

    def _latency_s(self) -> float:
        self.carried += 1
        return self._draw_latency_s()

    # --------------------------------------------------------------------- what processes are given

    def make_server(self) -> SimulatedServer:
        """In place of `grpc.aio.server()`."""
        return SimulatedServer(self)

    def open_channel(
        self, endpoint: str, config: object = None, options: Sequence[tuple[str, Any]] = ()
    ) -> aio.Channel:
        """In place of the client's `open_channel`."""
        return SimulatedChannel(self, self._host_name(), endpoint, options)

    def serves_clients(self) -> AbstractContextManager[object]:
        """Within, every `coordsvc.Client` of this Python process goes over it."""
        return mock.patch.multiple(
            channels, open_channel=self.open_channel, tls_fault=_no_tls_fault
        )

    # -------------------------------------------------------------------------------------- faults

    def cut(self, client: str, address: str, *, up: bool = True, down: bool = True) -> None:
        """What goes up to the server, or down to the client, waits until it is mended, and nobody
        notices; the server does after its keepalive. Connections cannot be made."""
        stalled_up, stalled_down = self._stalls.get((client, address), (False, False))
        self._stalls[client, address] = (stalled_up or up, stalled_down or down)
        for connection in self._between(client, address):
            if up:
                connection.up.stall()
            if down:
                connection.down.stall()

    def mend(self, client: str, address: str) -> None:
        """What waits arrives."""
        if self._stalls.pop((client, address), None) is not None:
            for connection in self._between(client, address):
                connection.resume()

    def mend_all(self) -> None:
        for client, address in tuple(self._stalls):
            self.mend(client, address)

    def break_connections(self, client: str | None = None, address: str | None = None) -> int:
        """Both ends notice, a message's time later; what is under way is lost. None: whoever it
        is. Returns how many there were."""
        broken = self._between(client, address)
        for connection in broken:
            connection.break_off(self._latency_s())
        return len(broken)

    def server_died(self, address: str) -> None:
        """The process that listens there, or did until it began to stop, was killed: its system
        closes its connections. That nothing of it runs any more is its loop's business."""
        self._listeners.pop(address, None)
        for connection in self._between(None, address):
            connection.close_at_server()

    def client_died(self, client: str) -> None:
        """The same of a client."""
        for connection in self._between(client, None):
            connection.close_at_client()

    def power_off(self, address: str) -> None:
        """The machine that listens there is off: nobody is told, and connections can be made when
        there is another server at its address. Then its old connections turn out to be unknown."""
        self._listeners.pop(address, None)
        self._dark[address] = None
        for connection in self._between(None, address):
            connection.lose_server()

    def _between(self, client: str | None, address: str | None) -> list[Connection]:
        return [
            each
            for each in self._connections.values()
            if client in (None, each.client) and address in (None, each.address)
        ]

    # ------------------------------------------------------------ what servers and channels ask

    def bind(self, address: str, server: SimulatedServer) -> int:
        host, _, port_text = address.rpartition(":")
        port = int(port_text)
        if port == 0:
            port = FIRST_FREE_PORT
            while f"{host}:{port}" in self._listeners:
                port += 1
            address = f"{host}:{port}"
        if address in self._listeners:
            raise RuntimeError(f"Failed to bind to address {address}: it is taken")
        self._listeners[address] = server
        self._dark.pop(address, None)
        for connection in self._between(None, address):
            connection.server_is_back(self._draw_latency_s() * 2)
        return port

    def unbind(self, server: SimulatedServer) -> None:
        kept = {address: each for address, each in self._listeners.items() if each is not server}
        self._listeners = kept

    def dial(self, channel: SimulatedChannel) -> Connection | None:
        client, address = channel.client, channel.address
        stalls = self._stalls.get((client, address), (False, False))
        server = self._listeners.get(address)
        if server is None:
            if not any(stalls) and address not in self._dark:
                delay_s = self._latency_s() + self._latency_s()
                channel.loop.call_later(delay_s, channel.on_no_listener, channel.attempt)
            return None
        self._number += 1
        connection = self._connections[self._number] = Connection(
            self._number,
            client,
            address,
            self._peer_name(client),
            channel,
            server,
            self._latency_s,
            stalls,
            self._forget,
        )
        return connection

    def _peer_name(self, client: str) -> str:
        host = self._hosts.setdefault(client, len(self._hosts) + 1)
        port = FIRST_FREE_PORT + self._number % PORTS
        return f"ipv4:10.{host >> 16 & 255}.{host >> 8 & 255}.{host & 255}:{port}"

    def _forget(self, connection: Connection) -> None:
        self._connections.pop(connection.number, None)


async def _no_tls_fault(endpoint: str, tls: TlsOptions | None, seconds: float = 0.0) -> str:
    return ""
