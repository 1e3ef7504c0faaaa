"""Connections of the simulated gRPC: what is sent arrives in its order, after a while, at the other
process's loop.

A pipe is one direction of a connection. What is sent through it are calls of the other side's
methods, with bytes: the only way in which one process touches another. While a pipe is stalled
nothing comes out of it, and nobody notices; what it holds arrives once it is mended, as TCP would
send it again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from grpc import StatusCode

RETRANSMIT_S = 0.2
"""TCP's least time until it sends something again."""

Pairs = tuple[tuple[str, str | bytes], ...]
"""Metadata on its way."""


class Pipe:
    """To `loop`, after `latency_s()`, which is drawn for each message."""

    __slots__ = (
        "_held",
        "_last_at",
        "_latency_s",
        "_under_way",
        "is_closed",
        "is_stalled",
        "loop",
        "lost",
        "on_lost",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, latency_s: Callable[[], float], *, is_stalled: bool
    ) -> None:
        self.loop = loop
        self._latency_s = latency_s
        self._under_way: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._last_at = 0.0
        self._held = 0
        self.is_stalled = is_stalled
        self.is_closed = False
        self.lost = 0
        """Messages sent to where nobody is any more."""
        self.on_lost: Callable[[], None] | None = None
        """Told of each of them."""

    def send(self, deliver: Callable[..., None], *args: Any) -> None:
        """Call `deliver(*args)` over there, after everything that was sent before."""
        if self.is_closed:
            self.lost += 1
            if self.on_lost is not None:
                self.on_lost()
            return
        at = self.loop.time() + self._latency_s()
        self._last_at = at = max(at, self._last_at)
        self._under_way.append((deliver, args))
        self.loop.call_at(at, self._arrive)

    def _arrive(self) -> None:
        """Each message has a timer; which timer goes off for which of them does not matter."""
        if self.is_stalled:
            self._held += 1
        elif self._under_way:
            deliver, args = self._under_way.popleft()
            deliver(*args)

    def stall(self) -> None:
        self.is_stalled = True

    def resume(self) -> None:
        if not self.is_stalled:
            return
        self.is_stalled = False
        held, self._held = self._held, 0
        at = self.loop.time() + RETRANSMIT_S
        self._last_at = max(self._last_at, at)
        for _ in range(held):
            self.loop.call_at(at, self._arrive)

    def close(self, *, drop: bool) -> None:
        """Take nothing more; `drop`: what is under way is lost, too."""
        self.is_closed = True
        if drop:
            self._under_way.clear()


class Replies(Protocol):
    """A call at its client: what the server sends to it."""

    def on_initial(self, metadata: Pairs) -> None: ...
    def on_message(self, message: bytes) -> None: ...
    def on_room(self, count: int) -> None: ...
    def on_status(
        self, code: StatusCode, details: str, trailers: Pairs, message: bytes | None = None
    ) -> None: ...


class ClientEnd(Protocol):
    """A channel: what it hears of its connections."""

    loop: asyncio.AbstractEventLoop

    def on_connected(self, connection: Connection) -> None: ...
    def on_refused(self, connection: Connection) -> None: ...
    def on_go_away(self, connection: Connection) -> None: ...
    def on_lost(self, connection: Connection) -> None: ...


class ServerEnd(Protocol):
    """One connection at the server: what the client sends, each for the call of a number."""

    def on_dialled(self) -> None: ...
    def on_lost(self) -> None: ...
    def on_pong(self) -> None: ...
    def on_call(
        self,
        number: int,
        replies: Replies,
        method: str,
        timeout_s: float | None,
        metadata: Pairs,
        request: bytes | None,
    ) -> None: ...
    def on_message(self, number: int, message: bytes) -> None: ...
    def on_half_close(self, number: int) -> None: ...
    def on_room(self, number: int, count: int) -> None: ...
    def on_cancel(self, number: int) -> None: ...


class ServerPort(Protocol):
    """What listens."""

    loop: asyncio.AbstractEventLoop

    def make_end(self, connection: Connection) -> ServerEnd: ...


class Connection:
    """Between one channel and one server; `number` is never used again. `client` and `address` say
    who dialled whom, `peer` is what the server calls the client. `forget` is told when it is over
    at both ends."""

    def __init__(
        self,
        number: int,
        client: str,
        address: str,
        peer: str,
        channel: ClientEnd,
        server: ServerPort,
        latency_s: Callable[[], float],
        stalls: tuple[bool, bool],
        forget: Callable[[Connection], None],
    ) -> None:
        self.number = number
        self.client = client
        self.address = address
        self.peer = peer
        self.channel = channel
        self.server = server
        self.up = Pipe(server.loop, latency_s, is_stalled=stalls[0])
        self.down = Pipe(channel.loop, latency_s, is_stalled=stalls[1])
        self.far = server.make_end(self)
        self._forget = forget
        self._is_closed_at_client = self._is_closed_at_server = False
        self._calls = 0
        self.up.send(self.far.on_dialled)

    def next_call(self) -> int:
        """The number of the next call that the client makes."""
        self._calls += 1
        return self._calls

    def answer_ping(self) -> None:
        """Done by the client's process: one that stands still gives no answer."""
        self.up.send(self.far.on_pong)

    def close_at_client(self) -> None:
        """The client's system says so to the server; unless the pipe is closed."""
        if not self._is_closed_at_client:
            self._is_closed_at_client = True
            self.up.send(self.far.on_lost)
            self._end_direction(self.up)

    def close_at_server(self) -> None:
        if not self._is_closed_at_server:
            self._is_closed_at_server = True
            self.down.send(self.channel.on_lost, self)
            self._end_direction(self.down)

    def _end_direction(self, pipe: Pipe) -> None:
        pipe.close(drop=False)
        if self._is_closed_at_client and self._is_closed_at_server:
            self._forget(self)

    def break_off(self, delay_s: float) -> None:
        """Both ends notice after `delay_s`; what is under way is lost."""
        self.up.close(drop=True)
        self.down.close(drop=True)
        self.up.loop.call_later(delay_s, self.far.on_lost)
        self.down.loop.call_later(delay_s, self.channel.on_lost, self)

    def lose_server(self) -> None:
        """The server's machine is gone, and the client is not told."""
        self._is_closed_at_server = True
        self.up.close(drop=True)
        self.down.close(drop=True)

    def server_is_back(self, delay_s: float) -> None:
        """On the server's machine nobody knows this connection: what the client sends is answered
        with a reset, and what it has sent in vain will be sent again."""
        self.up.on_lost = lambda: self._reset(delay_s)
        if self.up.lost:
            self._reset(RETRANSMIT_S)

    def _reset(self, delay_s: float) -> None:
        if not (self.up.is_stalled or self.down.is_stalled):
            self.down.loop.call_later(delay_s, self.channel.on_lost, self)

    def resume(self) -> None:
        """Mend both directions."""
        self.up.resume()
        self.down.resume()
        if self.up.on_lost is not None and self.up.lost:
            self._reset(RETRANSMIT_S)
