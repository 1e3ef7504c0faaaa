"""The first packet of a connection, and its answer. Ref: ZooKeeper ConnectRequest, ConnectResponse.

Clients from before 3.4 send no `readOnly` flag, and expect none in the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from coordsvc.server.zookeeper.jute import Reader
from coordsvc.server.zookeeper.protocol import PASSWORD_BYTES

CONNECT_BYTES_MAX: Final = 1024
"""Far more than any client sends: nothing is known of who sends it."""

_RESPONSE: Final = Struct(">iiqi")


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """`session_id` 0 asks for a new session. `has_read_only`: whether the answer has such a flag;
    what a client asks with it does not matter, because no replica serves reads alone."""

    last_zxid: int
    timeout_ms: int
    session_id: int
    password: bytes
    has_read_only: bool


def decode_connect(data: bytes) -> ConnectRequest:
    """`data` without its length. Raises JuteError."""
    reader = Reader(data)
    reader.int32()  # The protocol's version, of which there is one.
    last_zxid, timeout_ms, session_id = reader.int64(), reader.int32(), reader.int64()
    password = reader.buffer() or b""
    has_read_only = not reader.at_end
    return ConnectRequest(last_zxid, timeout_ms, session_id, password, has_read_only)


def encode_connected(
    request: ConnectRequest, session_id: int, password: bytes, timeout_ms: int
) -> bytes:
    """The whole packet."""
    body = _RESPONSE.pack(0, timeout_ms, session_id, len(password)) + password
    if request.has_read_only:
        body += b"\0"
    return len(body).to_bytes(4, "big") + body


def encode_refused(request: ConnectRequest) -> bytes:
    """There is no such session: its client is told that it has expired."""
    return encode_connected(request, 0, bytes(PASSWORD_BYTES), 0)
