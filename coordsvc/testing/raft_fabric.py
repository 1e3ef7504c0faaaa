"""The network between simulated replicas: carries frames with a latency; loses, repeats and delays
them on demand; cuts connections so that both ends notice, one, or nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from coordsvc.raft.messages import (
    LENGTH,
    Hello,
    Message,
    PeerProtocolError,
    Ping,
    decode_message,
    encode_frame,
)
from coordsvc.raft.transport import PING_AFTER_S, SILENT_AFTER_S, LinkEvents, LinkInfo

LATENCY_S = 0.0005
RECONNECT_S = 0.05

Fate = Callable[[int, int, Message], list[float]]
"""(source, target, message) to the delays of its deliveries; empty loses it, more than one repeats
it, and those above 0 arrive out of order."""


class Clockwork(Protocol):
    """A loop in simulated time."""

    def time(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Any: ...
    def call_soon(self, callback: Callable[..., object], *args: Any) -> Any: ...


class ProcessClockwork(Clockwork, Protocol):
    """One process's."""

    is_paused: bool
    is_dead: bool


@dataclass
class _End:
    """One side's knowledge of a connection."""

    number: int
    heard_at: float
    said_at: float


class SimulatedNetwork:
    """What a replica believes to be its `PeerNetwork`."""

    def __init__(
        self, fabric: Fabric, events: LinkEvents, loop: ProcessClockwork, own_id: int
    ) -> None:
        self.fabric = fabric
        self.events = events
        self.loop = loop
        self.own_id = own_id
        self.ends: dict[int, _End] = {}
        self._out: list[tuple[int, bytes]] = []

    async def listen(self) -> None:
        pass

    def dial(self) -> None:
        self.fabric.join(self)

    async def close(self) -> None:
        self.flush()
        self.fabric.leave(self)

    def linked(self, peer: int) -> bool:
        return peer in self.ends

    def send(self, peer: int, frame: bytes) -> None:
        if peer in self.ends:
            self._out.append((peer, frame))

    def flush(self) -> None:
        out, self._out = self._out, []
        for peer, frame in out:
            if (end := self.ends.get(peer)) is not None:
                end.said_at = self.loop.time()
                self.fabric.carry(self.own_id, peer, end.number, frame)

    def check(self, now: float, term: int) -> None:
        for peer, end in list(self.ends.items()):
            if now - end.heard_at > SILENT_AFTER_S:
                self.fabric.disconnect(self.own_id, peer)
            elif now - end.said_at > PING_AFTER_S:
                self.send(peer, encode_frame(term, Ping()))
        self.flush()

    def forgive_stall(self, now: float) -> None:
        for end in self.ends.values():
            end.heard_at = max(end.heard_at, now - SILENT_AFTER_S / 2)


class Fabric:
    """Connects all networks that dial, unless a pair is cut."""

    def __init__(self, loop: Clockwork) -> None:
        self.loop = loop
        self.networks: dict[int, SimulatedNetwork] = {}
        self.cut: set[frozenset[int]] = set()
        """Pairs that cannot connect."""
        self.mute: set[tuple[int, int]] = set()
        """(source, target): the connection stands and carries nothing until it is mended, or
        broken for its silence; then what it held is lost."""
        self._stuck: list[tuple[int, int, int, bytes]] = []
        self.fate: Fate = lambda source, target, message: [0.0]
        self.refusals: list[str] = []
        self.on_frame: Callable[[int, int, int, Message], None] = lambda *frame: None
        """Sees (source, target, term, message) of every frame that leaves."""
        self.carried = 0
        self._number = 0
        self._arrivals: dict[tuple[int, int], float] = {}

    def join(self, network: SimulatedNetwork) -> None:
        self.networks[network.own_id] = network
        for other in list(self.networks):
            self._connect_soon(network.own_id, other)

    def leave(self, network: SimulatedNetwork) -> None:
        """Its process ended, and the kernel closes its connections."""
        if self.networks.get(network.own_id) is network:
            for other in list(network.ends):
                self.disconnect(network.own_id, other)
            del self.networks[network.own_id]

    def isolate(self, replica_id: int, others: list[int]) -> None:
        """A cut that both sides notice."""
        for other in others:
            self.cut.add(frozenset((replica_id, other)))
            self.disconnect(replica_id, other)

    def mend(self) -> None:
        self.cut.clear()
        self.mute.clear()
        stuck, self._stuck = self._stuck, []
        for frame in stuck:
            self.carry(*frame)
        for one in self.networks:
            for other in self.networks:
                self._connect_soon(one, other)

    def _connect_soon(self, one: int, other: int, delay: float = RECONNECT_S) -> None:
        if one < other:
            self.loop.call_later(delay, self._connect, one, other)
        elif other < one:
            self.loop.call_later(delay, self._connect, other, one)

    def _connect(self, one: int, other: int) -> None:
        a, b = self.networks.get(one), self.networks.get(other)
        if a is None or b is None or other in a.ends or frozenset((one, other)) in self.cut:
            return
        is_mute = (one, other) in self.mute or (other, one) in self.mute
        if is_mute or a.loop.is_paused or b.loop.is_paused or a.loop.is_dead or b.loop.is_dead:
            self._connect_soon(one, other)
            return
        hello_a, hello_b = a.events.hello(other), b.events.hello(one)
        reason_a, b_forgot = a.events.judge_hello(hello_b)
        reason_b, a_forgot = b.events.judge_hello(hello_a)
        if reason_a or reason_b:
            self.refusals.append(reason_a or reason_b)
            self._connect_soon(one, other, 10 * RECONNECT_S)
            return
        self._number += 1
        now = self.loop.time()
        for near, far, forgot in ((a, b, a_forgot), (b, a, b_forgot)):
            near.ends[far.own_id] = _End(self._number, now, now)
            if forgot:
                near.events.told_forgotten(far.own_id)
        a.events.link_up(other, _info(hello_b, b_forgot))
        b.events.link_up(one, _info(hello_a, a_forgot))

    def disconnect(self, one: int, other: int) -> None:
        for near, far in ((one, other), (other, one)):
            network = self.networks.get(near)
            if network is not None and network.ends.pop(far, None) is not None:
                network.loop.call_soon(network.events.link_down, far)
        self._connect_soon(one, other)

    def carry(self, source: int, target: int, number: int, frame: bytes) -> None:
        term, message = decode_message(frame[LENGTH.size :])
        self.on_frame(source, target, term, message)
        if (source, target) in self.mute:
            self._stuck.append((source, target, number, frame))
            return
        now = self.loop.time()
        for delay in self.fate(source, target, message):
            self.carried += 1
            at = now + LATENCY_S + delay
            if not delay:
                # The loop does not keep the order of timers of one instant.
                at = max(at, self._arrivals.get((source, target), 0.0) + 1e-7)
                self._arrivals[source, target] = at
            origin, network = self.networks.get(source), self.networks.get(target)
            if origin is not None and network is not None:
                deliver = (origin, network, 0 if delay else number, term, message)
                network.loop.call_later(at - now, self._deliver, *deliver)

    def _deliver(
        self,
        origin: SimulatedNetwork,
        network: SimulatedNetwork,
        number: int,
        term: int,
        message: Message,
    ) -> None:
        """A late copy (`number` 0) may come on another connection than it was said on, but not
        from a process that is gone: its connections went with it."""
        source, target = origin.own_id, network.own_id
        end = network.ends.get(source)
        if end is None or number not in (0, end.number):
            return
        if self.networks.get(source) is not origin:
            return
        end.heard_at = self.loop.time()
        if isinstance(message, Ping):
            return
        try:
            network.events.received(source, term, message)
        except PeerProtocolError:
            self.disconnect(source, target)
        except Exception as error:
            network.events.failed(error)


def _info(hello: Hello, forgotten: bool) -> LinkInfo:
    return LinkInfo(hello.uuid, hello.process, forgotten)
