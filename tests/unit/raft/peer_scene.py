"""Networks of members over real sockets, and raw connections that play strangers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from coordsvc.raft.clock import SystemClock
from coordsvc.raft.messages import (
    FORMAT_VERSION,
    FORMAT_VERSION_MIN,
    LENGTH,
    MAGIC,
    Handshake,
    Hello,
    Message,
    Verdict,
    decode_handshake,
    encode_frame,
    encode_handshake,
)
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.raft.transport import (
    LinkInfo,
    PeerNetwork,
    hello_fault,
)
from coordsvc.testing.ports import free_port

CLUSTER = b"c" * 16
HOST = "127.0.0.1"


class Member:
    """A network, and everything it was told."""

    def __init__(self, replica_id: int, ports: dict[int, int], **changes: Any) -> None:
        peers = {i: (HOST, port) for i, port in ports.items()}
        self.settings = ReplicaSettings(
            replica_id, peers, peers[replica_id], **{"entry_bytes_max": 1 << 20, **changes}
        )
        self.uuid = bytes([replica_id]) * 16
        self.cluster_id = CLUSTER
        self.forgetful: set[int] = set()
        """Peers that hold less than they acknowledged, as this one judges."""
        self.told_forgotten_by: list[int] = []
        self.linked: dict[int, LinkInfo] = {}
        self.ups = self.downs = 0
        self.heard: list[tuple[int, int, Message]] = []
        self.faults: list[BaseException] = []
        self.on_message: Callable[[Message], None] = lambda message: None
        self.network = PeerNetwork(
            self.settings, self, asyncio.get_running_loop(), SystemClock(), random.Random(1)
        )

    def hello(self, peer: int, **changes: Any) -> Hello:
        fields: dict[str, Any] = {
            "magic": MAGIC,
            "format_version": FORMAT_VERSION,
            "format_version_min": FORMAT_VERSION_MIN,
            "cluster_id": self.cluster_id,
            "replica_id": self.settings.replica_id,
            "wanted_id": peer,
            "uuid": self.uuid,
            "term": 3,
            "last_index": 7,
            "frame_bytes_max": self.settings.frame_bytes_max,
            "member_ids": self.settings.member_ids,
        }
        return Hello(**(fields | changes))

    def judge_hello(self, hello: Hello) -> tuple[str, bool]:
        fault = hello_fault(self.settings, self.hello(0), hello)
        return fault, not fault and hello.replica_id in self.forgetful

    def told_forgotten(self, peer: int) -> None:
        self.told_forgotten_by.append(peer)

    def link_up(self, peer: int, info: LinkInfo) -> None:
        self.ups += 1
        self.linked[peer] = info

    def link_down(self, peer: int) -> None:
        self.downs += 1
        del self.linked[peer]

    def received(self, peer: int, term: int, message: Message) -> None:
        self.heard.append((peer, term, message))
        self.on_message(message)

    def failed(self, error: BaseException) -> None:
        self.faults.append(error)

    def say(self, peer: int, *messages: Message) -> None:
        for message in messages:
            self.network.send(peer, encode_frame(5, message))
        self.network.flush()


async def wait_for(condition: Callable[[], bool], timeout: float = 8.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)


class Cluster:
    def __init__(self, size: int) -> None:
        self.ports = {i: free_port() for i in range(1, size + 1)}
        self.members: list[Member] = []

    async def start(self, replica_id: int, **changes: Any) -> Member:
        member = Member(replica_id, self.ports, **changes)
        self.members.append(member)
        await member.network.listen()
        return member

    async def pair(self) -> tuple[Member, Member]:
        one, two = await self.start(1), await self.start(2)
        one.network.dial()
        two.network.dial()
        await wait_for(lambda: 2 in one.linked and 1 in two.linked)
        return one, two

    async def close(self) -> None:
        for member in self.members:
            await member.network.close()


class Stranger:
    """A raw connection to a member."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def dial(cls, member: Member) -> Stranger:
        assert member.settings.peer_listen is not None
        return cls(*await asyncio.open_connection(*member.settings.peer_listen))

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def read_body(self) -> bytes:
        (length,) = LENGTH.unpack(await self.reader.readexactly(LENGTH.size))
        return await self.reader.readexactly(length)

    async def read_handshake(self) -> Handshake:
        return decode_handshake(await self.read_body())

    async def is_closed(self, timeout: float = 5.0) -> bool:
        """Whether the other side closes, whatever it says before."""
        try:
            async with asyncio.timeout(timeout):
                while await self.reader.read(65536):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        self.writer.close()
        return True

    async def shake(self, hello: Hello) -> None:
        """As a proper member does."""
        self.write(encode_handshake(hello))
        assert isinstance(await self.read_handshake(), Hello)
        verdict = await self.read_handshake()
        assert isinstance(verdict, Verdict) and verdict.accepted, verdict
        self.write(encode_handshake(Verdict(True, False, "")))
