"""Unary calls on a session, numbered by the caller, whose every attempt goes into a history.

Each attempt goes to one replica, and may be cut off while it is under way, as by a caller that does
not wait. The same write is then repeated under its number, here or there, until it is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from coordsvc.client import methods
from coordsvc.client.convert import created_from, results_from, stat_from
from coordsvc.client.methods import Method
from coordsvc.client.options import ClientConfig
from coordsvc.client.records import Data
from coordsvc.client.unary import UnaryClient
from coordsvc.errors import CoordError, SessionError
from coordsvc.testing.history import ERROR, OK, UNKNOWN, Recorder, Session
from coordsvc.testing.recording import (
    FILLS,
    LINEARIZABLE,
    LOCAL,
    Args,
    Recording,
    hex_id,
    multi_operations,
    result_of,
)
from coordsvc.v1 import common_pb2, coordination_pb2

WRITES: dict[str, Method[Any, Any]] = {
    "create": methods.CREATE,
    "set_data": methods.SET_DATA,
    "delete": methods.DELETE,
    "multi": methods.MULTI,
}

RESULTS_KEPT = 8
"""Of so many last writes the results can be asked for again."""


class Write:
    """One write of a session, under its number. `op`: of the first attempt; 0: there was none."""

    def __init__(self, name: str, args: Args, number: int) -> None:
        self.name = name
        self.args = args
        self.number = number
        self.op = 0


class RecordedCalls:
    """One session. After `is_over` nothing is worth calling any more."""

    def __init__(
        self,
        endpoints: Sequence[str],
        recorder: Recorder,
        name: str,
        *,
        operations: Counter[str] | None = None,
        session_timeout_ms: int = 10_000,
        timeout_ms: int = 10_000,
    ) -> None:
        self.session = ""
        self.is_over = False
        self._name = name
        self._recorder = recorder
        self._recording = Recording(recorder, name, operations)
        self._session_timeout_ms = session_timeout_ms
        self._timeout_s = 0.0
        self._lost_at = float("inf")
        self._clients = [
            UnaryClient(ClientConfig((endpoint,), timeout_ms=timeout_ms)) for endpoint in endpoints
        ]
        self._credentials = common_pb2.SessionCredentials()
        self._zxid = 0
        self._last_number = 0

    @property
    def replicas(self) -> range:
        """What `at` may be: the places of the endpoints."""
        return range(len(self._clients))

    # ---------------------------------------------------------------------------- the session

    async def open(self, at: int) -> None:
        """CoordError: it could not be opened there."""
        began = time.monotonic()
        request = coordination_pb2.OpenSessionRequest(
            timeout_ms=self._session_timeout_ms, client_name=self._name
        )
        answer = await self._clients[at].call(methods.OPEN_SESSION, request)
        self._credentials.CopyFrom(answer.credentials)
        self.session = hex_id(answer.credentials.session_id)
        self._timeout_s = answer.timeout_ms / 1000
        self._lost_at = began + self._timeout_s
        self._record_state("opened", self._timeout_s)

    async def renew(self, at: int) -> None:
        """A heartbeat. When none was answered for the session's timeout, it is over."""
        began = time.monotonic()
        request = coordination_pb2.HeartbeatRequest(credentials=self._credentials)
        try:
            await self._clients[at].call(methods.HEARTBEAT, request, timeout_ms=self._patience_ms)
        except CoordError as error:
            self._note_error(error)
        else:
            self._lost_at = max(self._lost_at, began + self._timeout_s)
        if time.monotonic() >= self._lost_at:
            self._lose()

    @property
    def renew_after_s(self) -> float:
        return self._timeout_s / 3

    @property
    def _patience_ms(self) -> int:
        return round(self._timeout_s * 1000 / 3)

    async def close(self, at: int) -> None:
        """Or leave it to expire, if that cannot be done."""
        request = coordination_pb2.CloseSessionRequest(context=self._context())
        try:
            if not self.is_over:
                await self._clients[at].call(methods.CLOSE_SESSION, request)
                self.is_over = True
                self._record_state("closed")
        except CoordError:
            self._lose()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Without a word to the replicas."""
        self._lose()
        for client in self._clients:
            await client.close()

    def _lose(self) -> None:
        if not self.is_over and self.session:
            self.is_over = True
            self._record_state("lost")

    def _note_error(self, error: CoordError) -> None:
        self._zxid = max(self._zxid, error.zxid)
        if isinstance(error, SessionError):
            self._lose()

    def _record_state(self, state: str, timeout: float = 0.0) -> None:
        recorder = self._recorder
        recorder.add(Session(recorder.time, self._name, self.session, state, timeout))

    def _context(self, write: Write | None = None) -> common_pb2.RequestContext:
        context = common_pb2.RequestContext(session=self._credentials, min_zxid=self._zxid)
        if write is not None:
            context.request_number = write.number
            context.done_below = max(1, self._last_number - RESULTS_KEPT)
        return context

    # --------------------------------------------------------------------------------- writes

    def next_write(self, name: str, args: Args) -> Write:
        """Only when the one before it was answered."""
        self._last_number += 1
        return Write(name, args, self._last_number)

    async def attempt(self, write: Write, at: int, cut_after_s: float | None = None) -> str:
        """The outcome of this attempt. `cut_after_s`: then nobody waits any more."""
        op = self._recording.invoke(
            write.name, write.args, self.session, write.number, repeats=write.op
        )
        write.op = write.op or op
        method = WRITES[write.name]
        call = self._clients[at].call(method, self._request(method, write))
        task = asyncio.ensure_future(call)
        done, _ = await asyncio.wait([task], timeout=cut_after_s)
        if not done:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            self._recording.leave_unknown(op)
            return UNKNOWN
        return self._settle(op, write, task, at)

    def _settle(self, op: int, write: Write, task: asyncio.Task[Any], at: int) -> str:
        error = task.exception()
        if error is not None:
            if not isinstance(error, CoordError):
                raise error
            self._note_error(error)
            return self._recording.fail(op, write.name, error, 0)
        header = task.result().header
        self._zxid = max(self._zxid, header.zxid)
        result = result_of(write.name, write.args, _value(write.name, task.result()))
        self._recording.answer(op, write.name, result, header.zxid, header.replica_id)
        return OK

    def _request(self, method: Method[Any, Any], write: Write) -> Any:
        request = method.request_type(context=self._context(write))
        if write.name == "multi":
            request.operations.extend(multi_operations(write.args["ops"]))
        else:
            FILLS[write.name](request, write.args)
        return request

    # ---------------------------------------------------------------------------------- reads

    async def get_data(self, path: str, at: int, *, linearizable: bool = False) -> Data | None:
        """None: it was not answered, or with an error."""
        args = {"path": path, "consistency": LINEARIZABLE if linearizable else LOCAL}
        request = coordination_pb2.GetDataRequest(context=self._context(), path=path)
        if linearizable:
            request.consistency = common_pb2.READ_CONSISTENCY_LINEARIZABLE
        op = self._recording.invoke("get_data", args, self.session)
        try:
            answer = await self._clients[at].call(methods.GET_DATA, request)
        except CoordError as error:
            self._note_error(error)
            self._recording.fail(op, "get_data", error, 0)
            return None
        header = answer.header
        self._zxid = max(self._zxid, header.zxid)
        data = answer.data if answer.HasField("data") else None
        value = Data(data, stat_from(answer.stat), header.zxid)
        result = result_of("get_data", args, value)
        self._recording.answer(op, "get_data", result, header.zxid, header.replica_id)
        return value


def is_settled(outcome: str) -> bool:
    """Whether it is known what became of a write."""
    return outcome in (OK, ERROR)


def _value(name: str, answer: Any) -> Any:
    if name == "create":
        return created_from(answer)
    if name == "set_data":
        return stat_from(answer.stat)
    return results_from(answer.results) if name == "multi" else None
