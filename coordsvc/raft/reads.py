"""Read-index: how a reader on any replica learns what was committed before it asked.

The leader notes its commit index, proves with a round begun afterwards that it still leads, and
answers; the reader waits until that much is applied here. A question whose answer is lost, or
whose leader stops leading, is simply asked again: a later index is as good. Ref: Raft
dissertation, 6.4.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from coordsvc.errors import CoordError, NoQuorumError

Waiter = tuple[asyncio.Future[None], float]

ASK_AGAIN_S = 0.5


class ReadIndexes:
    """The asking side. `ask(request)` puts a question to the leader, wherever it is, or returns
    False when there is none."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Callable[[int], bool]) -> None:
        self._loop = loop
        self._ask = ask
        self._gathering: list[Waiter] = []
        self._asked: dict[int, tuple[float, list[Waiter]]] = {}
        self._applying: list[tuple[int, int, list[Waiter]]] = []
        # Not from 1: an answer that the leader owes the process before this one must not pass for
        # one to a question of this process.
        self._request = int(loop.time() * 1_000_000)

    def submit(self, deadline: float) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        self._gathering.append((future, deadline))
        return future

    def turn(self, now: float) -> None:
        """Asks for everyone who came in this turn with one question."""
        if not self._gathering:
            return
        self._request += 1
        request, gathered = self._request, self._gathering
        # Registered first: a cluster of one answers before `ask` returns.
        self._asked[request], self._gathering = (now, gathered), []
        if not self._ask(request):
            self._asked.pop(request, None)
            self._gathering = gathered + self._gathering

    def asked_at(self, request: int) -> float | None:
        """None when nobody waits for its answer any more."""
        asked = self._asked.get(request)
        return None if asked is None else asked[0]

    def on_index(self, request: int, index: int, applied: int) -> None:
        """The leader's answer."""
        asked = self._asked.pop(request, None)
        if asked is None:
            return
        if index <= applied:
            _resolve(asked[1])
        else:
            heapq.heappush(self._applying, (index, request, asked[1]))

    def on_failed(self, request: int) -> None:
        """The leader that was asked leads no longer: ask the next one."""
        asked = self._asked.pop(request, None)
        if asked is not None:
            self._gathering.extend(asked[1])

    def on_applied(self, applied: int) -> None:
        while self._applying and self._applying[0][0] <= applied:
            _resolve(heapq.heappop(self._applying)[2])

    def ask_again(self) -> None:
        """The leader, or the connection to it, has changed."""
        for _, waiters in self._asked.values():
            self._gathering.extend(waiters)
        self._asked.clear()

    def check_deadlines(self, now: float) -> None:
        for request in [r for r, (at, _) in self._asked.items() if now - at >= ASK_AGAIN_S]:
            self.on_failed(request)
        self._gathering = _expire(self._gathering, now)
        for _, waiters in self._asked.values():
            waiters[:] = _expire(waiters, now)
        for _, _, waiters in self._applying:
            waiters[:] = _expire(waiters, now)

    def refuse_all(self, error: CoordError) -> None:
        """No leader with a majority is in reach: nothing can be confirmed."""
        self.ask_again()
        waiters, self._gathering = self._gathering, []
        for future, _ in waiters:
            if not future.done():
                future.set_exception(error)

    def abandon(self, error: CoordError) -> None:
        """Nothing more is applied here: also for those that know what they wait for."""
        self.refuse_all(error)
        applying, self._applying = self._applying, []
        for _, _, waiters in applying:
            for future, _ in waiters:
                if not future.done():
                    future.set_exception(error)

    @property
    def pending(self) -> bool:
        return bool(self._gathering)


def _resolve(waiters: list[Waiter]) -> None:
    for future, _ in waiters:
        if not future.done():
            future.set_result(None)


def _expire(waiters: list[Waiter], now: float) -> list[Waiter]:
    kept: list[Waiter] = []
    for future, deadline in waiters:
        if future.done():
            continue
        if deadline <= now:
            future.set_exception(
                NoQuorumError("no leader confirmed by a majority answered within the deadline")
            )
        else:
            kept.append((future, deadline))
    return kept
