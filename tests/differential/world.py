"""What a case runs in: connections by name to one of the servers, and a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from coordsvc.testing.zookeeper_records import (
    Decoder,
    EventType,
    OpCode,
    boolean,
    connect_request,
    request,
    text,
)
from tests.differential.masks import Sessions, zxid_mark
from tests.differential.wire import Closed, Frame, Silent, Wire

Address: TypeAlias = tuple[str, int]
Shape: TypeAlias = Callable[[Decoder, "World"], str]
"""Reads the body of a good reply, to its end, and says what is in it."""

EVENT_XID = -1
TIMEOUT_MS = 10_000

FOLLOWER, OTHER, DEFAULT_WORDS, LEADER, ALONE = range(5)
"""Servers, by their place in `World.servers`. OTHER or DEFAULT_WORDS is the leader, too. ALONE need
not share its tree with the others."""
SILENCE_SECONDS = 0.5

ERROR_NAMES = {
    -1: "SYSTEMERROR",
    -2: "RUNTIMEINCONSISTENCY",
    -5: "MARSHALLINGERROR",
    -6: "UNIMPLEMENTED",
    -8: "BADARGUMENTS",
    -101: "NONODE",
    -102: "NOAUTH",
    -103: "BADVERSION",
    -108: "NOCHILDRENFOREPHEMERALS",
    -110: "NODEEXISTS",
    -111: "NOTEMPTY",
    -112: "SESSIONEXPIRED",
    -114: "INVALIDACL",
    -115: "AUTHFAILED",
    -118: "SESSIONMOVED",
    -121: "NOWATCHER",
    -123: "RECONFIGDISABLED",
    -125: "QUOTAEXCEEDED",
}


def error_text(code: int) -> str:
    return ERROR_NAMES.get(code, str(code)) if code else "OK"


@dataclass
class Link:
    """A connection by its name."""

    wire: Wire
    session_id: int = 0
    password: bytes = b""
    timeout_ms: int = 0
    xid: int = 0
    last_zxid: int = 0
    awaited: dict[int, Shape] = field(default_factory=dict)


class World:
    """`servers`: where they listen, in the order above. `server`: whom connections are to, if they
    do not say so."""

    def __init__(self, servers: Sequence[Address], folder: str, server: int = FOLLOWER) -> None:
        self.servers = servers
        self.server = server
        self.folder = folder
        self.links: dict[str, Link] = {}
        self.marks: dict[str, int] = {}
        self.sessions = Sessions()

    def path(self, path: str | None) -> str | None:
        """`~` is the case's folder; whatever else is sent as it is."""
        if path is None or path[:1] != "~":
            return path
        return self.folder + path[1:]

    def shown(self, text: str) -> str:
        """The reverse. Bytes that are no UTF-8 are shown by number."""
        return text.replace(self.folder, "~")

    # ------------------------------------------------------------------------------ connections

    def open(self, name: str, server: int | None = None) -> Link:
        """TCP alone."""
        self.links[name] = Link(Wire(*self.servers[self.server if server is None else server]))
        return self.links[name]

    def attach(
        self,
        name: str,
        *,
        server: int | None = None,
        timeout_ms: int = TIMEOUT_MS,
        session_id: int = 0,
        password: bytes = bytes(16),
        last_zxid: int = 0,
        read_only: bool | None = False,
    ) -> list[str]:
        """Open, and have or take a session; what the server says to it."""
        link = self.open(name, server)
        link.wire.send(
            connect_request(
                timeout_ms=timeout_ms,
                session_id=session_id,
                password=password,
                last_zxid=last_zxid,
                read_only=read_only,
            )
        )
        return self.connected(link)

    def connected(self, link: Link) -> list[str]:
        """Read the answer to a connect request."""
        try:
            decoder = Decoder(link.wire.packet())
        except Closed:
            return ["connection closed"]
        version, link.timeout_ms = decoder.int32(), decoder.int32()
        link.session_id, link.password = decoder.int64(), decoder.buffer() or b""
        password = f"{len(link.password)} bytes{'' if any(link.password) else ' of 0'}"
        lines = [
            f"connected version={version} timeout={link.timeout_ms}"
            f" session={self.sessions.name(link.session_id)} password={password}"
            f" flags={decoder.rest.hex() or 'none'}"
        ]
        return lines if link.session_id else lines + self.ending(link)

    def ending(self, link: Link) -> list[str]:
        """What still comes before the server closes the connection."""
        lines: list[str] = []
        try:
            while True:
                lines.append(self.frame_text(link, link.wire.frame(SILENCE_SECONDS * 4)))
        except Closed:
            return [*lines, "connection closed"]
        except Silent:
            return [*lines, "connection stays open"]

    def leave(self) -> None:
        """End what the case has left open."""
        for link in self.links.values():
            with suppress(Closed, Silent):
                if link.session_id and not link.wire.is_over:
                    link.wire.send(request(0, OpCode.CLOSE_SESSION))
                    link.wire.rest()
            link.wire.close()

    # ------------------------------------------------------------------------- requests, replies

    def send(self, link: Link, op: int, body: bytes, shape: Shape, xid: int | None = None) -> int:
        """Without waiting. `xid` None: the next one."""
        if xid is None:
            link.xid += 1
            xid = link.xid
        link.awaited[xid] = shape
        link.wire.send(request(xid, op, body))
        return xid

    def replies(self, link: Link, count: int = 1) -> list[str]:
        """As many replies, and the events that come before them."""
        lines: list[str] = []
        try:
            while count:
                frame = link.wire.frame()
                count -= frame.xid != EVENT_XID
                lines.append(self.frame_text(link, frame))
        except Closed:
            lines.append("connection closed")
        except Silent:
            lines.append("no reply")
        return lines

    def events(self, link: Link) -> list[str]:
        """Those that have come: a read's reply comes behind them."""
        try:
            xid = self.send(
                link, OpCode.EXISTS, text(self.folder) + boolean(False), lambda *_: "barrier"
            )
            lines = []
            while (frame := link.wire.frame()).xid != xid:
                lines.append(self.frame_text(link, frame))
            link.awaited.pop(xid)
            return lines
        except Closed:
            return ["connection closed"]

    def frame_text(self, link: Link, frame: Frame) -> str:
        if frame.xid == EVENT_XID:
            return self._event_text(frame)
        link.last_zxid = max(link.last_zxid, frame.zxid)
        name = f"reply zxid={zxid_mark(frame.zxid)}"
        shape = link.awaited.pop(frame.xid, None)
        if shape is None:
            return f"{name} of an unknown xid {frame.xid} {error_text(frame.error)}"
        if frame.xid <= 0:
            name += f" xid={frame.xid}"
        if frame.error:
            rest = f" and {frame.body.hex()}" if frame.body else ""
            return f"{name} {error_text(frame.error)}{rest}"
        decoder = Decoder(frame.body)
        body = shape(decoder, self)
        decoder.end()
        return f"{name} OK {body}".rstrip()

    def _event_text(self, frame: Frame) -> str:
        decoder = Decoder(frame.body)
        kind, state, path = decoder.int32(), decoder.int32(), decoder.text()
        decoder.end()
        return (
            f"event {EventType(kind).name} {self.shown(path)} state={state}"
            f" zxid={zxid_mark(frame.zxid)} err={frame.error}"
        )
