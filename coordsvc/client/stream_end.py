"""Why a stream ended, as the service said it.

grpc.aio replaces a stream's status by INTERNAL, "Internal error from Core", when a frame was being
written as the stream ended: a client that writes much would take a session that was moved away for
a broken connection, and move it back. So the status is kept as soon as there is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from grpc import StatusCode, aio

OWN_DETAILS = "Internal error from Core"

LATE_SECONDS = 0.1
"""The status may come a moment after the failed write; later than this it was lost."""

POLL_SECONDS = 0.01


class StreamEnd:
    """Of one call; make it before the call can end."""

    def __init__(self, call: aio.StreamStreamCall[Any, Any]) -> None:
        self._call = call
        self._said: aio.AioRpcError | None = None
        call.add_done_callback(self._keep)

    async def why(self, raised: aio.AioRpcError) -> aio.AioRpcError:
        """The status that the service sent; `raised`, by a read or a write, when it sent none."""
        if not _is_own(raised):
            return raised
        give_up_at = asyncio.get_running_loop().time() + LATE_SECONDS
        while self._said is None and asyncio.get_running_loop().time() < give_up_at:
            await asyncio.sleep(POLL_SECONDS)
            self._keep(self._call)
        return self._said or aio.AioRpcError(
            StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata(), "the stream broke off"
        )

    def _keep(self, call: Any) -> None:
        code = _at_once(call.code())
        details = _at_once(call.details()) or ""
        trailers = _at_once(call.trailing_metadata()) or aio.Metadata()
        if code is None or code is StatusCode.OK:
            return
        error = aio.AioRpcError(code, aio.Metadata(), trailers, details)
        if not _is_own(error):
            self._said = error


def _is_own(error: aio.AioRpcError) -> bool:
    return error.code() is StatusCode.INTERNAL and error.details() == OWN_DETAILS


def _at_once(answer: Coroutine[Any, Any, Any]) -> Any:
    """What `answer` gives without waiting, as it does once the call has ended; None if it waits."""
    try:
        answer.send(None)
    except StopIteration as done:
        return done.value
    answer.close()
    return None
