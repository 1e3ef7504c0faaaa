"""The core and the naive model side by side: each command goes to both and must give the same
answer, the same zxid and the same tree."""

from __future__ import annotations

from coordsvc.core.commands import (
    AuthId,
    Caller,
    CollectContainer,
    CollectTtl,
    DeleteOp,
    ExpireSession,
    Op,
    OpenSession,
    Refusal,
)
from coordsvc.core.queries import get_children
from tests.property.core_model import SPECIAL, Model
from tests.unit.core.harness import PASSWORD, TERM, Harness, rebuilt

SUPER = AuthId("super", "")

PathChoice = str | int | tuple[int, str]
"""A path as it is, one of those that are there now, or a child of one of them."""


class Pair:
    def __init__(self) -> None:
        self.core = Harness()
        self.model = Model()
        self.model.zxid = 1  # the origin's registration
        self.seen_sessions: list[int] = []
        self.wait(1)

    # -------------------------------------------------- choices, made real

    def path(self, chosen: PathChoice) -> str:
        if isinstance(chosen, str):
            return chosen
        # The last made first, so that small choices are not always the special znodes.
        known = list(reversed(self.model.nodes))
        if isinstance(chosen, int):
            return known[chosen % len(known)]
        return f"{known[chosen[0] % len(known)].rstrip('/')}/{chosen[1]}"

    def session(self, chosen: int) -> int:
        """0: none. 1: the last one opened, and so on, whether or not it still lives."""
        return self.seen_sessions[-chosen] if 0 < chosen <= len(self.seen_sessions) else 0

    def numbered(self, session_id: int, number: int | str, done_below: int | str) -> Caller:
        """A caller with the session's next or last number, or the very number."""
        session = self.model.sessions.get(session_id)
        last = session.last if session else 0
        if isinstance(number, str):
            number = last + 1 if number == "next" else last
        return Caller(
            session_id,
            request_number=number,
            done_below=number if isinstance(done_below, str) else done_below,
        )

    def guard(self, chosen: int, is_right: bool) -> tuple[str, int]:
        path = self.path(chosen)
        return path, self.model.nodes[path].czxid + (not is_right)

    # ------------------------------------------------------------ commands

    def open(self, timeout: int, attached: bool) -> None:
        reply = self.core.submit(OpenSession(timeout, PASSWORD, "", attached))[0]
        assert reply.zxid == self.model.open(timeout, attached)
        self.seen_sessions.append(reply.zxid)

    def write(self, caller: Caller, op: Op) -> None:
        zxid, expected = self.model.write(caller, op)
        reply = self.core.write(op, caller)
        result = reply.result
        if isinstance(result, Refusal):
            assert (result.code, result.operation_index) == expected, result
        else:
            assert result == expected
        assert reply.zxid == zxid

    def expire(self, session_id: int, epoch: int) -> None:
        self.model.expire(session_id, epoch)
        self.core.lead(ExpireSession(TERM, session_id, epoch))

    def collect(self, chosen: int, off: int, empty_first: bool) -> None:
        """Collect one of the containers and TTL znodes, as it was seen or as it never was."""
        nodes = self.model.nodes
        candidates = [path for path, node in nodes.items() if node.mode in (4, 5, 6)]
        if not candidates:
            return
        path = candidates[chosen % len(candidates)]
        if empty_first:
            self.empty(path)
        stat = self.model.stat(path)
        self.model.collect_container(path, stat.cversion + off)
        self.core.lead(CollectContainer(TERM, path, stat.cversion + off))
        self.model.collect_ttl(path, stat.mzxid + off)
        self.core.lead(CollectTtl(TERM, path, stat.mzxid + off))

    def empty(self, path: str) -> None:
        below = [other for other in self.model.nodes if other.startswith(path + "/")]
        for other in sorted(below, key=len, reverse=True):
            self.write(Caller(ids=(SUPER,)), DeleteOp(other))

    def wait(self, step: int) -> None:
        self.core.time_ms += step
        self.core.clock_ms += step
        self.model.time, self.model.clock = self.core.time_ms, self.core.clock_ms
        self.core.apply()

    def rebuild(self) -> None:
        before = self.core.machine
        after = rebuilt(before)
        assert after.digest() == before.digest()
        assert list(after.state.export_records()) == list(before.state.export_records())
        self.core.machine = after

    # ---------------------------------------------------------- comparison

    def compare(self) -> None:
        self._compare_tree()
        self._compare_sessions()

    def _compare_tree(self) -> None:
        state = self.core.state
        assert state.zxid == self.model.zxid
        assert set(state.znodes) == set(self.model.nodes) >= set(SPECIAL)
        for path, node in self.model.nodes.items():
            znode = state.znodes[path]
            assert znode.stat == self.model.stat(path), path
            assert (znode.data, znode.acl) == (node.data, node.acl), path
            page = get_children(state, path, (SUPER,))
            assert not isinstance(page, Refusal)
            names = [child.name for child in page.children]
            assert names == [child.rpartition("/")[2] for child in self.model.children(path)]

    def _compare_sessions(self) -> None:
        state = self.core.state
        assert set(state.sessions) == set(self.model.sessions)
        for session_id, attendee in self.model.sessions.items():
            session = state.sessions[session_id]
            assert (session.timeout_ms, session.attach_epoch) == (attendee.timeout, attendee.epoch)
            assert list(session.ids) == attendee.ids
            assert session.last_request_number == attendee.last
            assert session.done_below == attendee.floor
            assert list(state.ephemerals_of(session_id)) == self.model.ephemerals(session_id)
