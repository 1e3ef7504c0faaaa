"""A watch on a session, as a program reads it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from coordsvc.client.records import WatchEvent, WatchGap, WatchKind
from coordsvc.client.watch_queue import EVENTS_MAX, WatchQueue
from coordsvc.client.watching import Watching

if TYPE_CHECKING:
    from coordsvc.client.operations import Operations


class Watch:
    """Set within `async with`, which also removes it; iterate over what it reports::

        async with client.watch("/config", recursive=True) as changes:
            async for change in changes:
                if isinstance(change, coordsvc.WatchEvent):
                    print(change.path, "changed")
                else:
                    print("some changes were missed: read all of it again")

    Items come in the order of the changes. It goes on over reconnects, without a hole: what cannot
    be made up for is a WatchGap in its place. So is what comes while `events_max` events wait to be
    taken. The iteration ends when the `async with` does. It raises NoAuthError when the right to
    read the znode was lost, SessionError when the session is over; set anew, it may go on.
    """

    def __init__(
        self,
        operations: Operations,
        path: str,
        kind: WatchKind,
        *,
        include_data: bool = False,
        events_max: int = EVENTS_MAX,
        timeout_ms: int | None = None,
    ) -> None:
        self.zxid = 0
        """It reports every change after this one. A read at this zxid or later, followed by the
        events, leaves nothing out."""

        self._operations = operations
        self._queue = WatchQueue(events_max)
        self._watching = Watching(path, kind, include_data, self._queue)
        self._timeout_ms = timeout_ms

    async def __aenter__(self) -> Watch:
        """Errors: NoNodeError (kinds DATA and CHILDREN), NoAuthError, LimitExceededError."""
        try:
            self.zxid = await self._operations.add_watch(self._watching, self._timeout_ms)
        except BaseException:
            # Its answer may still come: then it is removed.
            self._operations.remove_watch(self._watching)
            raise
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._operations.remove_watch(self._watching)
        self._queue.end()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> WatchEvent | WatchGap:
        item = await self._queue.take()
        if item is None:
            raise StopAsyncIteration
        return item
