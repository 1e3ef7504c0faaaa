"""Watches that fire once, as a read leaves them."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

from coordsvc.client.records import WatchCallback, WatchEvent, WatchGap, WatchItem, WatchRemoved
from coordsvc.errors import CoordError, NoAuthError


class OneShot:
    """Hand it to a read as its `watch`, then await what it fires with::

        changed = coordsvc.OneShot()
        data = (await client.get_data("/config", watch=changed)).data
        await changed  # Now it is another one: read it again, with a new OneShot.

    It fires once, with a WatchEvent, or with a WatchGap when it may have missed its event. Raises
    NoAuthError when the right to read the znode was lost, SessionError when the session is over.
    A read that is refused leaves no watch (but `exists` of a missing znode is not refused).
    """

    def __init__(self) -> None:
        self._item: WatchEvent | WatchGap | None = None
        self._error: CoordError | None = None
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def has_fired(self) -> bool:
        return self._item is not None or self._error is not None

    def __await__(self) -> Generator[None, None, WatchEvent | WatchGap]:
        if not self.has_fired:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            yield from future
        if self._item is not None:
            return self._item
        assert self._error is not None
        raise self._error

    def deliver(self, item: WatchItem) -> None:
        if isinstance(item, WatchRemoved):
            self.fail(NoAuthError("the right to read it was lost"))
        else:
            self._item = item
            self._wake()

    def fail(self, error: CoordError) -> None:
        self._error = error
        self._wake()

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


class CallbackSink:
    """Calls a plain function. That a session is over it learns as everybody does, by its state."""

    def __init__(self, callback: WatchCallback) -> None:
        self._callback = callback

    def deliver(self, item: WatchItem) -> None:
        self._callback(item)

    def fail(self, error: CoordError) -> None:
        return
