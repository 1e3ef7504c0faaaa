"""How a connection gets its session: a new one, or the one it had on another connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coordsvc.core.commands import AuthId, SessionOpened
from coordsvc.server.convert import RequestContext
from coordsvc.server.pipeline import Call
from coordsvc.server.zookeeper.handshake import ConnectRequest
from coordsvc.server.zookeeper.queue import REQUEST_S_MAX

if TYPE_CHECKING:
    from coordsvc.server.zookeeper.door import Door


@dataclass(frozen=True, slots=True)
class Opened:
    """A session attached to this connection. `new`: it was opened for it."""

    session_id: int
    password: bytes
    timeout_ms: int
    attach_epoch: int
    new: SessionOpened | None = None


async def open_or_attach(door: Door, request: ConnectRequest, ids: tuple[AuthId, ...]) -> Opened:
    """Raises SessionExpiredError, when it is certain that there is no such session with this
    password; NotCaughtUpError when the client has seen more than this replica, and other
    UnavailableErrors; LimitExceededError; ThrottledError."""
    now = door.now()
    context = RequestContext(
        request.session_id, request.password, min_zxid=max(0, request.last_zxid)
    )
    call = Call(context, now + REQUEST_S_MAX, now, ids)
    timeout_ms = door.clamped_timeout_ms(request.timeout_ms)
    if request.session_id:
        attached = await door.pipeline.attach(call, timeout_ms)
        return Opened(
            request.session_id, request.password, attached.timeout_ms, attached.attach_epoch
        )
    await door.pipeline.wait_min_zxid(call)
    opened, password = await door.pipeline.open_session(
        timeout_ms=timeout_ms, client_name="", deadline=call.deadline, attached=True
    )
    return Opened(opened.session_id, password, opened.timeout_ms, opened.attach_epoch, opened)
