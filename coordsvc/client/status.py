"""The state of the session, and who wants to know of it."""

from __future__ import annotations

import asyncio

from coordsvc.client.records import SessionState, StateListener
from coordsvc.errors import CoordError, SessionExpiredError

FINAL = (SessionState.LOST, SessionState.CLOSED)


class SessionStatus:
    """Starts out CLOSED. `error` is why the session was lost."""

    def __init__(self) -> None:
        self.state = SessionState.CLOSED
        self.error: CoordError | None = None
        self._listeners: list[StateListener] = []
        self._waiting: list[tuple[SessionState, asyncio.Future[None]]] = []

    def add_listener(self, listener: StateListener) -> None:
        self._listeners.append(listener)

    def remove_listener(self, listener: StateListener) -> None:
        self._listeners.remove(listener)

    def change(self, state: SessionState) -> None:
        if state is self.state:
            return
        self.state = state
        for listener in list(self._listeners):
            try:
                listener(state)
            except Exception as error:
                report("a session listener", error)
        for wanted, future in self._waiting:
            if not future.done() and (wanted is state or state in FINAL):
                future.set_result(None)
        self._waiting = [each for each in self._waiting if not each[1].done()]

    async def wait_for(self, state: SessionState) -> None:
        """SessionError when it cannot come any more."""
        if self.state is not state and self.state not in FINAL:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((state, future))
            await future
        if self.state is not state and self.state in FINAL:
            raise self.error or SessionExpiredError("the client is closed")


def report(what: str, error: BaseException) -> None:
    """The user's own code failed where nobody can be told: as asyncio does with callbacks."""
    asyncio.get_running_loop().call_exception_handler(
        {"message": f"coordsvc: {what} failed", "exception": error}
    )
