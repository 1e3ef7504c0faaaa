"""How a Session stream begins: a session is opened or attached, and its watches are set.

What is wrong with the hello is said before anything is done for it. A session that has ended is
said to have ended: nobody gets a new one who asked for an old one. One that was opened for a hello
that is refused nevertheless, because of its watches, is closed: its client never hears of it.
"""

from __future__ import annotations

from collections.abc import Callable

from coordsvc.core.commands import AuthId, SessionOpened
from coordsvc.errors import BadArgumentsError
from coordsvc.server import convert
from coordsvc.server.convert import RequestContext
from coordsvc.server.grpc_door import DEADLINE_S_DEFAULT
from coordsvc.server.pipeline import Call
from coordsvc.server.session_queue import Attached, StreamParts
from coordsvc.server.session_stream import SessionStream
from coordsvc.server.watch_hub import Spec, specs_from_messages
from coordsvc.v1 import common_pb2, coordination_pb2, watch_pb2

Register = Callable[[Attached], SessionStream]
"""Makes the stream, in the turn in which it is called, and puts it among the others."""


async def open_stream(
    parts: StreamParts,
    hello: coordination_pb2.SessionHello,
    ids: tuple[AuthId, ...],
    register: Register,
    unregister: Callable[[SessionStream], None],
) -> tuple[SessionStream, coordination_pb2.SessionWelcome]:
    """The stream and its welcome. Raises BadArgumentsError, UnsupportedFeatureError,
    LimitExceededError, SessionExpiredError, SessionMovedError when another stream was faster, what
    setting a watch can raise, NotCaughtUpError when last_zxid is ahead of this replica, and other
    UnavailableErrors."""
    convert.check_features(hello.required_features)
    call = _call(parts, hello, ids)
    specs, after_zxid = _watches(hello)
    opened: SessionOpened | None = None
    if hello.HasField("credentials"):
        timeout_ms = convert.timeout_ms(hello.timeout_ms, parts.cluster) if hello.timeout_ms else 0
        attached = await parts.pipeline.attach(call, timeout_ms)
        credentials, timeout_ms = hello.credentials, attached.timeout_ms
        attach_epoch = attached.attach_epoch
    else:
        await parts.pipeline.wait_min_zxid(call)
        opened, password = await parts.pipeline.open_session(
            timeout_ms=convert.timeout_ms(hello.timeout_ms, parts.cluster),
            client_name=convert.client_name(hello.client_name),
            deadline=call.deadline,
            attached=True,
        )
        credentials = common_pb2.SessionCredentials(session_id=opened.session_id, password=password)
        timeout_ms, attach_epoch = opened.timeout_ms, opened.attach_epoch
    stream = register(Attached(credentials.session_id, attach_epoch, ids))
    try:
        if after_zxid is not None and after_zxid > parts.replica.machine.state.zxid:
            # Of this cluster, and not applied here yet? Or of another one?
            await parts.replica.read_index(call.deadline)
        watches_set = await _set_watches(stream, specs, after_zxid)
        stream.raise_if_lost()
    except BaseException:
        unregister(stream)
        if opened is not None:
            parts.pipeline.close_unused(opened, parts.now() + DEADLINE_S_DEFAULT)
        raise
    return stream, coordination_pb2.SessionWelcome(
        header=parts.header(0),
        credentials=credentials,
        timeout_ms=timeout_ms,
        attach_number=attach_epoch,
        outstanding_requests_max=parts.cluster.outstanding_requests_max,
        features=convert.FEATURES,
        watches_set=watches_set,
    )


def _call(
    parts: StreamParts, hello: coordination_pb2.SessionHello, ids: tuple[AuthId, ...]
) -> Call:
    if hello.last_zxid < 0:
        raise BadArgumentsError(f"last_zxid is {hello.last_zxid}; it must not be negative")
    session_id, password = 0, b""
    if hello.HasField("credentials"):
        session_id, password = convert.credentials(hello.credentials)
    now = parts.now()
    context = RequestContext(session_id, password, min_zxid=hello.last_zxid)
    return Call(context, now + DEADLINE_S_DEFAULT, now, ids)


def _watches(hello: coordination_pb2.SessionHello) -> tuple[list[Spec], int | None]:
    specs = specs_from_messages(hello.watches)
    if not hello.HasField("start_after_zxid"):
        return specs, None
    if hello.start_after_zxid < 0:
        raise BadArgumentsError(
            f"start_after_zxid is {hello.start_after_zxid}; it must not be negative"
        )
    return specs, hello.start_after_zxid


async def _set_watches(
    stream: SessionStream, specs: list[Spec], after_zxid: int | None
) -> watch_pb2.WatchesSet | None:
    if not specs:
        return None
    if after_zxid is None:
        zxid = stream.watcher.add(specs)
    else:
        zxid = await stream.watcher.resume(specs, after_zxid)
    return watch_pb2.WatchesSet(watch_ids=[spec.watch_id for spec in specs], zxid=zxid)
