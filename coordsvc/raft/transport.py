"""Connections to the other replicas: dialling, handshake, framing, bounds.

Both sides may dial; of two connections between the same pair the one the lower id dialled is
kept, so both sides keep the same one, and frames of the other are lost (whoever sent them sends
again on a new connection). Nothing is decoded before the handshake has shown a member of this
cluster; a frame that is too long, cannot be decoded or breaks a rule closes its connection only.

This module knows bytes and members; what messages mean is `replica.py`'s.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import Protocol, cast

from coordsvc.raft.clock import Clock
from coordsvc.raft.messages import (
    FORMAT_VERSION,
    FORMAT_VERSION_MIN,
    HELLO_BYTES_MAX,
    LENGTH,
    MAGIC,
    Handshake,
    Hello,
    Message,
    PeerProtocolError,
    Ping,
    Verdict,
    decode_handshake,
    decode_message,
    encode_frame,
    encode_handshake,
)
from coordsvc.raft.settings import ReplicaSettings

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S = 2.0
DIAL_TIMEOUT_S = 2.0
BACKOFF_S = (0.05, 1.0)
PING_AFTER_S = 0.5
SILENT_AFTER_S = 3.0
"""A connection that says nothing for so long is dead: every side pings twice a second."""
STRANGERS_MAX = 64
"""Connections that have not finished their handshake."""


@dataclass(frozen=True)
class LinkInfo:
    """What the handshake told about the peer. `forgotten`: it holds less than it acknowledged."""

    uuid: bytes
    process: bytes
    forgotten: bool


class LinkEvents(Protocol):
    """What the replica is told; all on the loop."""

    def hello(self, peer: int) -> Hello: ...
    def judge_hello(self, hello: Hello) -> tuple[str, bool]:
        """(why it is refused or "", whether it has forgotten)."""
        ...

    def told_forgotten(self, peer: int) -> None:
        """A peer says that this replica holds less than it acknowledged."""
        ...

    def link_up(self, peer: int, info: LinkInfo) -> None: ...
    def link_down(self, peer: int) -> None: ...
    def received(self, peer: int, term: int, message: Message) -> None: ...
    def failed(self, error: BaseException) -> None: ...


class Network(Protocol):
    """What a replica needs of its connections; see `PeerNetwork`."""

    async def listen(self) -> None: ...
    def dial(self) -> None: ...
    async def close(self) -> None: ...
    def linked(self, peer: int) -> bool: ...
    def send(self, peer: int, frame: bytes) -> None: ...
    def flush(self) -> None: ...
    def check(self, now: float, term: int) -> None: ...
    def forgive_stall(self, now: float) -> None: ...


class _Link(asyncio.Protocol):
    def __init__(self, network: PeerNetwork, dialled_to: int | None) -> None:
        self.network = network
        self.dialled_to = dialled_to
        self.peer = 0
        self.hello: Hello | None = None
        self.forgotten = False
        self.established = False
        self.closed = False
        self.heard_at = network.clock.monotonic()
        self.said_at = self.heard_at
        self.out: list[bytes] = []
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timeout: asyncio.TimerHandle | None = None

    # -------------------------------------------------------------- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self.network.admit_connection(self):
            self.close()
            return
        self._timeout = self.network.loop.call_later(HANDSHAKE_TIMEOUT_S, self._handshake_late)
        if self.dialled_to is not None:
            self.write(encode_handshake(self.network.events.hello(self.dialled_to)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.network.clock.monotonic()
        try:
            self._take_frames(data)
        except PeerProtocolError as error:
            logger.warning("peer.protocol_error", extra={"peer": self.peer, "error": str(error)})
            self.close()
        except Exception as error:  # A bug, or a broken promise of consensus: end the process.
            self.network.events.failed(error)

    # -------------------------------------------------------------- frames

    def _take_frames(self, data: bytes) -> None:
        """Whole ones come most of the time: only what is left of the last is kept."""
        buffer = self._buffer
        if buffer:
            buffer += data
            del buffer[: self._take_whole(buffer)]
        else:
            taken = self._take_whole(data)
            if taken < len(data):
                buffer += memoryview(data)[taken:]

    def _take_whole(self, buffer: bytes | bytearray) -> int:
        """How many bytes were taken."""
        start = 0
        while not self.closed and len(buffer) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(buffer, start)
            bound = self.network.settings.frame_bytes_max if self.established else HELLO_BYTES_MAX
            if length > bound:
                raise PeerProtocolError(f"a frame of {length} bytes is above {bound}")
            if len(buffer) - start - LENGTH.size < length:
                break
            body = bytes(memoryview(buffer)[start + LENGTH.size : start + LENGTH.size + length])
            start += LENGTH.size + length
            self._take_frame(body)
        return start

    def _take_frame(self, body: bytes) -> None:
        if self.established:
            term, message = decode_message(body)
            if not isinstance(message, Ping):
                self.network.events.received(self.peer, term, message)
        else:
            self._take_handshake(decode_handshake(body))

    def _take_handshake(self, message: Handshake) -> None:
        network = self.network
        if isinstance(message, Hello):
            if self.hello is not None:
                raise PeerProtocolError("a second hello")
            reason, self.forgotten = network.events.judge_hello(message)
            if not reason and self.dialled_to not in (None, message.replica_id):
                reason = f"replica {message.replica_id} answered instead of {self.dialled_to}"
            if not reason:
                reason = self._certificate_fault(message.replica_id)
            if not reason:
                reason = network.refuse_twin(message)
            self.peer = message.replica_id
            if reason:
                self.write(encode_handshake(Verdict(False, False, reason)))
                raise PeerProtocolError(f"refused: {reason}")
            self.hello = message
            if self.dialled_to is None:
                self.write(encode_handshake(network.events.hello(self.peer)))
            self.write(encode_handshake(Verdict(True, self.forgotten, "")))
            return
        if not message.accepted:
            raise PeerProtocolError(f"the peer refused: {message.reason}")
        if self.hello is None:
            raise PeerProtocolError("a verdict before the hello")
        if message.forgotten:
            network.events.told_forgotten(self.peer)
        self._establish(self.hello)

    def _certificate_fault(self, replica_id: int) -> str:
        """A certificate whose common name is `replica-N` speaks for replica N alone; any other
        that the configured authority signed speaks for any member."""
        assert self._transport is not None
        certificate = self._transport.get_extra_info("peercert") or {}
        for attributes in certificate.get("subject", ()):
            for key, value in attributes:
                named = key == "commonName" and value.startswith("replica-")
                if named and value != f"replica-{replica_id}":
                    return f"the certificate of {value} came with replica id {replica_id}"
        return ""

    def _establish(self, hello: Hello) -> None:
        self.established = True
        if self._timeout is not None:
            self._timeout.cancel()
        info = LinkInfo(hello.uuid, hello.process, self.forgotten)
        if not self.network.adopt(self, info):
            self.close()

    def dialled_by(self) -> int:
        return self.network.settings.replica_id if self.dialled_to is not None else self.peer

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self.closed:
            self.said_at = self.network.clock.monotonic()
            self._transport.write(data)

    def flush(self) -> None:
        if self.out:
            data, self.out = b"".join(self.out), []
            self.write(data)
            if self._waiting_bytes() > self.network.settings.link_buffer_bytes_max:
                logger.warning("peer.slow", extra={"peer": self.peer})
                self.close()

    def _waiting_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    # -------------------------------------------------------------- end

    def _handshake_late(self) -> None:
        if not self.established:
            self.close()

    def close(self) -> None:
        if not self.closed and self._transport is not None:
            if self.established:
                self._transport.abort()
            else:
                self._transport.close()  # Lets a refusal's reason leave.
        self._forget()

    def _forget(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._timeout is not None:
            self._timeout.cancel()
        self.network.link_closed(self)


class PeerNetwork:
    """All connections of one replica. `send` queues; `flush` writes what one turn has queued."""

    def __init__(
        self,
        settings: ReplicaSettings,
        events: LinkEvents,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.settings = settings
        self.events = events
        self.loop = loop
        self.clock = clock
        self._rng = rng
        self._links: dict[int, _Link] = {}
        self._unsent: list[_Link] = []
        """Those with something to write, in the order of what was said to them."""
        self._strangers: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._dialers: list[asyncio.Task[None]] = []
        self._wake: dict[int, asyncio.Event] = {}
        self._closing = False

    async def listen(self) -> None:
        """Raises OSError when the address is taken."""
        if self._server is None and self.settings.peer_listen and self.settings.peer_ids:
            host, port = self.settings.peer_listen
            self._server = await self.loop.create_server(
                lambda: _Link(self, None), host, port, ssl=self.settings.peer_ssl_server
            )

    def dial(self) -> None:
        for peer in self.settings.peer_ids:
            self._wake[peer] = asyncio.Event()
            task = self.loop.create_task(self._keep_dialled(peer))
            task.add_done_callback(self._dialler_ended)
            self._dialers.append(task)

    def _dialler_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.events.failed(error)

    async def close(self) -> None:
        self._closing = True
        for task in self._dialers:
            task.cancel()
        await asyncio.gather(*self._dialers, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        for link in [*self._links.values(), *self._strangers]:
            link.flush()
            link.close()

    # -------------------------------------------------------------- messages

    def linked(self, peer: int) -> bool:
        return peer in self._links

    def send(self, peer: int, frame: bytes) -> None:
        link = self._links.get(peer)
        if link is not None:
            if not link.out:
                self._unsent.append(link)
            link.out.append(frame)

    def flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        for link in unsent:
            link.flush()

    def check(self, now: float, term: int) -> None:
        """Pings the quiet and drops the dead; called a few times a second."""
        for link in tuple(self._links.values()):
            if now - link.heard_at > SILENT_AFTER_S:
                logger.warning("peer.silent", extra={"peer": link.peer})
                link.close()
            elif now - link.said_at > PING_AFTER_S:
                link.write(encode_frame(term, Ping()))

    def forgive_stall(self, now: float) -> None:
        """This process stood still, so nobody's silence during that time counts."""
        for link in self._links.values():
            link.heard_at = max(link.heard_at, now - SILENT_AFTER_S / 2)

    # -------------------------------------------------------------- links

    def admit_connection(self, link: _Link) -> bool:
        if self._closing:
            return False
        if link.dialled_to is None and len(self._strangers) >= STRANGERS_MAX:
            return False
        self._strangers.add(link)
        return True

    def refuse_twin(self, hello: Hello) -> str:
        """Two processes with one replica id: the one that came second is refused, unless the first
        has not been heard for longer than a live one is silent."""
        link = self._links.get(hello.replica_id)
        if link is None or self._is_same_process(link, hello):
            return ""
        if self.clock.monotonic() - link.heard_at > 2 * PING_AFTER_S:
            return ""
        return f"another process is connected as replica {hello.replica_id}"

    def _is_same_process(self, link: _Link, hello: Hello) -> bool:
        known = link.hello
        assert known is not None
        return (known.uuid, known.process) == (hello.uuid, hello.process)

    def adopt(self, link: _Link, info: LinkInfo) -> bool:
        """Keeps one connection per peer; False when the other one stays."""
        self._strangers.discard(link)
        old = self._links.get(link.peer)
        if old is not None:
            assert link.hello is not None
            lower = min(self.settings.replica_id, link.peer)
            is_second = old.dialled_by() == lower and link.dialled_by() != lower
            if is_second and self._is_same_process(old, link.hello):
                return False
            del self._links[link.peer]  # First, so that its end is not taken for the peer's.
            old.close()
        self._links[link.peer] = link
        logger.info("peer.connected", extra={"peer": link.peer, "forgotten": info.forgotten})
        self.events.link_up(link.peer, info)
        return True

    def link_closed(self, link: _Link) -> None:
        self._strangers.discard(link)
        if self._links.get(link.peer) is link:
            del self._links[link.peer]
            logger.info("peer.disconnected", extra={"peer": link.peer})
            if link.peer in self._wake:
                self._wake[link.peer].set()
            if not self._closing:
                self.events.link_down(link.peer)

    async def _keep_dialled(self, peer: int) -> None:
        """Dials while there is no connection. The lower id dials first, the other soon after, so
        that two rarely cross."""
        low, high = BACKOFF_S
        backoff = low
        if peer < self.settings.replica_id:
            await asyncio.sleep(6 * low)
        while not self._closing:
            if peer in self._links:
                backoff = low
                self._wake[peer].clear()
                await self._wake[peer].wait()
                continue
            await self._dial_once(peer)
            await asyncio.sleep(backoff * self._rng.uniform(0.5, 1.0))
            backoff = min(2 * backoff, high)

    async def _dial_once(self, peer: int) -> None:
        host, port = self.settings.peers[peer]
        try:
            # The name is resolved at each attempt: a member may come back elsewhere.
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                await self.loop.create_connection(
                    lambda: _Link(self, peer), host, port, ssl=self.settings.peer_ssl_client
                )
        except (OSError, TimeoutError, UnicodeError) as error:
            # UnicodeError: a name that no resolver can look up.
            logger.debug("peer.unreachable", extra={"peer": peer, "error": str(error)})


def hello_fault(settings: ReplicaSettings, own: Hello, other: Hello) -> str:
    """Why a hello cannot be accepted, naming both sides; "" when it can."""
    if other.magic != MAGIC:
        return "not a coordsvc replica"
    if other.format_version < FORMAT_VERSION_MIN or other.format_version_min > FORMAT_VERSION:
        return (
            f"peer protocol {other.format_version_min} to {other.format_version}, "
            f"here {FORMAT_VERSION_MIN} to {FORMAT_VERSION}"
        )
    if other.replica_id not in settings.peer_ids:
        return f"replica {other.replica_id} is not a member here"
    if other.wanted_id not in (0, settings.replica_id):
        return f"replica {other.wanted_id} was wanted, this is {settings.replica_id}"
    if tuple(other.member_ids) != settings.member_ids:
        return f"members {list(other.member_ids)}, here {list(settings.member_ids)}"
    if own.cluster_id and other.cluster_id and own.cluster_id != other.cluster_id:
        return f"cluster {other.cluster_id.hex()}, here {own.cluster_id.hex()}"
    if other.frame_bytes_max != settings.frame_bytes_max:
        return f"frames of {other.frame_bytes_max} bytes, here {settings.frame_bytes_max}"
    return ""
