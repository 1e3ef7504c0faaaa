"""The order of unary calls: one lane per session that has any under way at this replica.

A stream needs none: it is an order of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coordsvc.core.commands import Reply


class Lane:
    """One session's requests at this replica: who is next, and which writes are not decided."""

    __slots__ = ("turn", "users", "writes")

    def __init__(self) -> None:
        self.turn = asyncio.Lock()  # first come, first served
        self.writes: dict[asyncio.Future[Reply], None] = {}
        self.users = 0

    @property
    def is_idle(self) -> bool:
        return not self.users and not self.writes


class Lanes:
    """By session. Those that are idle are not kept."""

    def __init__(self) -> None:
        self._lanes: dict[int, Lane] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    @asynccontextmanager
    async def in_order(self, session_id: int) -> AsyncIterator[Lane | None]:
        """The session's turn to be admitted; None at once for a call without one. Holding it is
        short: until a write is submitted, or a read has seen which write it must wait for."""
        if not session_id:
            yield None
            return
        lane = self._lanes.get(session_id)
        if lane is None:
            lane = self._lanes[session_id] = Lane()
        lane.users += 1
        try:
            async with lane.turn:
                yield lane
        finally:
            lane.users -= 1
            if lane.is_idle:
                self._lanes.pop(session_id, None)

    def add_write(self, session_id: int, lane: Lane, write: asyncio.Future[Reply]) -> None:
        """Later reads of the session wait for it until it is decided: for each one, since a later
        write may be refused at once while this one is still under way."""
        lane.writes[write] = None

        def decided(write: asyncio.Future[Reply]) -> None:
            lane.writes.pop(write, None)
            if lane.is_idle:
                self._lanes.pop(session_id, None)

        write.add_done_callback(decided)
