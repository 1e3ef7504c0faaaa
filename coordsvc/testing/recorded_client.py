"""A client of the library whose every request, answer and event goes into a history.

    client = RecordedClient(endpoints, recorder, "c1")
    await client.open()
    created = client.create("/a", "c1.1")  # It is submitted, and in the history.
    await client.get_data("/a")
    await created
    await client.close()

One object is one session. An operation returns the future of its answer: what the library hands
out, or the error; also one that is refused at once. Nothing else happens between the arrival of an
answer, or of an event, and its record; so the order of the records is that of the stream's items.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from coordsvc.client.client import Client
from coordsvc.client.operations import Operations
from coordsvc.client.records import ChildrenPage, Created, Data, SessionState, Stat
from coordsvc.client.requests import Reply, Request
from coordsvc.client.status import FINAL
from coordsvc.client.watching import Watching
from coordsvc.errors import CoordError
from coordsvc.testing.history import ERROR, Held, Recorder, Released, Session
from coordsvc.testing.recorded_watch import KINDS, RecordedWatch
from coordsvc.testing.recording import (
    LINEARIZABLE,
    LOCAL,
    Args,
    Recording,
    bytes_of,
    hex_id,
    multi_operations,
    result_of,
)

READS = {"data": "get_data", "exist": "exists", "children": "get_children"}
"""Which read leaves a one-shot watch of this kind."""


class Answer(asyncio.Future[Any]):
    """`told` is called in the moment in which there is an answer, not a turn of the loop later.
    `zxid`: of the reply. `watch` is set by it."""

    zxid = 0
    told: Callable[[], None] | None = None
    watch: RecordedWatch | None = None

    def set_result(self, result: Any) -> None:
        super().set_result(result)
        self._tell()

    def set_exception(self, exception: type[BaseException] | BaseException) -> None:
        super().set_exception(exception)
        self._tell()

    def _tell(self) -> None:
        told, self.told = self.told, None
        if told is not None:
            told()


class RecordedClient:
    """`name` is the client's in the history; its next session may have it, too. `holds` is shared
    by all clients of a run that use `resource` or `hold`, `operations` counts what was answered.
    Endpoints are tried in their order."""

    def __init__(
        self,
        endpoints: Sequence[str],
        recorder: Recorder,
        name: str,
        *,
        holds: Holds | None = None,
        operations: Counter[str] | None = None,
        session_timeout_ms: int = 10_000,
        timeout_ms: int = 10_000,
    ) -> None:
        self.name = name
        self.session = ""
        self.watches: list[RecordedWatch] = []
        """Those that were asked for and have not ended."""

        self._is_leaving = False
        self._recorder = recorder
        self._recording = Recording(recorder, name, operations)
        self._holds = holds if holds is not None else Holds(recorder)
        self._client = _TellingClient(
            endpoints,
            session_timeout_ms=session_timeout_ms,
            client_name=name,
            timeout_ms=timeout_ms,
            randomize_endpoints=False,
        )
        self._client.add_listener(self._state_changed)

    # ---------------------------------------------------------------------------- the session

    async def open(self) -> None:
        """Raises CoordError when no replica opens a session in time."""
        await self._client.start()

    async def close(self) -> None:
        self._is_leaving = True
        self._holds.release(self)
        await self._client.close()

    async def abandon(self) -> None:
        """As a process that is killed: the session is left to expire."""
        self._is_leaving = True
        await self._client._shut()

    @property
    def state(self) -> SessionState:
        return self._client.state

    @property
    def is_over(self) -> bool:
        return self._client.state in FINAL

    @property
    def is_overdue(self) -> bool:
        """As `is_over`, but only looks: nothing is made of it, as nothing is while its process
        stands still."""
        keeper = self._client._keeper
        assert keeper is not None, "it was not opened"
        is_final = self._client._status.state in FINAL
        return is_final or time.monotonic() >= keeper.conversation.lifetime.lost_at

    @property
    def failure(self) -> CoordError | None:
        return self._client.failure

    @property
    def is_stuck(self) -> bool:
        """The library had to give the session up for a fault of its own, or of the replicas'."""
        keeper = self._client._keeper
        return keeper is not None and keeper.conversation.requests.is_stuck is not None

    def _state_changed(self, state: SessionState) -> None:
        keeper = self._client._keeper
        assert keeper is not None
        is_closed = keeper.conversation.is_closed
        if not self._client.session_id:
            return  # There is none yet.
        if not self.session:
            self.session = hex_id(self._client.session_id)
            self._record_state("opened", self._client.session_timeout_ms / 1000)
        if state in FINAL:
            self._holds.release(self)
            for watch in list(self.watches):
                self._end_watch(watch)
            self._record_state("closed" if is_closed else "lost")
        else:
            self._record_state(state.value)

    def _record_state(self, state: str, timeout: float = 0.0) -> None:
        recorder = self._recorder
        recorder.add(Session(recorder.time, self.name, self.session, state, timeout))

    # ----------------------------------------------------------------------------- operations

    def create(
        self, path: str, data: str | None, mode: str = "persistent", *, resource: str = ""
    ) -> asyncio.Future[Created]:
        """`resource`: it is held from the moment in which the znode is known to be there."""

        def submit(operations: Operations) -> asyncio.Future[Any]:
            is_ephemeral, is_sequential = "ephemeral" in mode, "sequential" in mode
            return operations.create(
                path, bytes_of(data), ephemeral=is_ephemeral, sequence=is_sequential
            )

        args = {"path": path, "data": data, "mode": mode}
        return self._invoke("create", args, submit, resource=resource)

    def set_data(
        self, path: str, data: str | None, version: int | None = None
    ) -> asyncio.Future[Stat]:
        args = {"path": path, "data": data, "version": version}
        return self._invoke(
            "set_data",
            args,
            lambda operations: operations.set_data(path, bytes_of(data), expected_version=version),
        )

    def delete(self, path: str, version: int | None = None) -> asyncio.Future[int]:
        args = {"path": path, "version": version}
        return self._invoke(
            "delete", args, lambda operations: operations.delete(path, expected_version=version)
        )

    def multi(self, ops: Sequence[Args]) -> asyncio.Future[tuple[Any, ...]]:
        """`ops` as in docs/histories.md."""
        messages = multi_operations(ops)
        args = {"ops": list(ops)}
        return self._invoke("multi", args, lambda operations: operations.multi(messages))

    def exists(
        self, path: str, *, linearizable: bool = False, watched: bool = False
    ) -> asyncio.Future[Stat | None]:
        return self._read("exist", path, linearizable, watched)

    def get_data(
        self, path: str, *, linearizable: bool = False, watched: bool = False
    ) -> asyncio.Future[Data]:
        return self._read("data", path, linearizable, watched)

    def get_children(
        self, path: str, *, linearizable: bool = False, watched: bool = False
    ) -> asyncio.Future[tuple[ChildrenPage, str]]:
        """The first page, and the token of the next. A list of several pages is of several states:
        the history calls it unknown."""
        return self._read("children", path, linearizable, watched)

    def sync(self) -> asyncio.Future[int]:
        return self._invoke("sync", {}, lambda operations: operations.sync())

    def _read(self, kind: str, path: str, linearizable: bool, watched: bool) -> asyncio.Future[Any]:
        watch = self._new_watch(kind, path) if watched else None
        callback = watch.deliver if watch is not None else None

        def submit(operations: Operations) -> asyncio.Future[Any]:
            if kind == "exist":
                return operations.exists(path, watch=callback, linearizable=linearizable)
            if kind == "data":
                return operations.get_data(path, watch=callback, linearizable=linearizable)
            return operations.children_page(path, watch=callback, linearizable=linearizable)

        args = {"path": path, "consistency": LINEARIZABLE if linearizable else LOCAL}
        return self._invoke(READS[kind], args, submit, watch=watch)

    def _invoke(
        self,
        name: str,
        args: Args,
        submit: Callable[[Operations], asyncio.Future[Any]],
        *,
        watch: RecordedWatch | None = None,
        resource: str = "",
    ) -> Answer:
        op = self._recording.invoke(name, args, self.session)
        refused: CoordError | None = None
        try:
            answer = submit(self._client.nowait)
        except CoordError as error:
            answer, refused = Answer(loop=asyncio.get_running_loop()), error
        assert isinstance(answer, Answer)
        answer.watch = watch
        answer.told = partial(self._told, op, name, args, answer, resource)
        if refused is not None:
            answer.set_exception(refused)
        return answer

    def _told(self, op: int, name: str, args: Args, answer: Answer, resource: str) -> None:
        replica, error = self._client.replica_id, answer.exception()
        if isinstance(error, CoordError):
            outcome = self._recording.fail(op, name, error, replica)
            if outcome == ERROR and answer.watch is not None:
                answer.watch.end()  # A read that is refused leaves none.
            return
        value = answer.result()
        if name == "get_children":
            value, token = value
            if token:
                self._recording.leave_unknown(op)
                return
        self._recording.answer(op, name, result_of(name, args, value), answer.zxid, replica)
        if resource:
            self.hold(resource, value.stat.czxid)

    # -------------------------------------------------------------------------------- watches

    def watch(self, kind: str, path: str) -> asyncio.Future[Any]:
        """One that lasts: "persistent" or "persistent_recursive". The future of its being set."""
        watch = self._new_watch(kind, path)
        watching = Watching(path, KINDS[kind], False, watch)
        try:
            answer = self._client.nowait.add_watch(watching, None)
        except CoordError as error:
            answer = Answer(loop=asyncio.get_running_loop())
            answer.set_exception(error)
        assert isinstance(answer, Answer)
        answer.watch = watch
        watch.watching = watching
        return answer

    def unwatch(self, watch: RecordedWatch) -> None:
        """Of one that lasts."""
        assert watch.watching is not None
        self._end_watch(watch)
        self._client.nowait.remove_watch(watch.watching)

    def _new_watch(self, kind: str, path: str) -> RecordedWatch:
        self.watches = [each for each in self.watches if not each.is_over]
        watch = RecordedWatch(self._recorder, self.name, kind, path, self.session)
        self.watches.append(watch)
        return watch

    def _end_watch(self, watch: RecordedWatch) -> None:
        watch.end()
        self.watches.remove(watch)

    # ---------------------------------------------------------------------------------- holds

    def hold(self, resource: str, fence: int) -> None:
        if not self._is_leaving:
            self._holds.take(self, resource, fence)

    def release(self, resource: str) -> None:
        """To be called before anything is done that gives it up."""
        self._holds.release(self, resource)


class Holds:
    """What the clients of a run hold. A client knows by its clock that its time is up, but it may
    be about to look: so it is asked before another's hold is recorded, to record the end of its
    own no later than it could have known."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._held: list[tuple[RecordedClient, str]] = []

    def take(self, client: RecordedClient, resource: str, fence: int) -> None:
        for holder, held in list(self._held):
            if holder.is_overdue:
                self.release(holder, held)
        if not client.is_overdue:
            time = self._recorder.time
            self._recorder.add(Held(time, client.name, client.session, resource, fence))
            self._held.append((client, resource))

    def release(self, client: RecordedClient, resource: str = "") -> None:
        """All that it holds, unless `resource` is given."""
        for holder, held in list(self._held):
            if holder is client and resource in ("", held):
                self._held.remove((holder, held))
                time = self._recorder.time
                self._recorder.add(Released(time, client.name, client.session, held))


class _TellingClient(Client):
    """Its futures are Answers."""

    async def start(self) -> None:
        await super().start()
        loop = asyncio.get_running_loop()
        self.nowait._new_future = lambda: Answer(loop=loop)

    def _submit(self, request: Request) -> None:
        answer, decode = request.future, request.decode

        def decode_telling(reply: Reply) -> Any:
            value = decode(reply)
            if isinstance(answer, Answer):
                answer.zxid = reply.zxid
                if answer.watch is not None:
                    # Also when nobody waits for the answer any more: it is set.
                    is_own = request.operation.HasField("add_watches")
                    answer.watch.set(value if is_own else reply.zxid)
            return value

        request.decode = decode_telling
        super()._submit(request)
