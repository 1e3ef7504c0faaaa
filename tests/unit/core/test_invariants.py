"""The invariants notice what they are for: each kind of damage is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from coordsvc.core.commands import CONTAINER, EPHEMERAL, PERSISTENT_WITH_TTL, Caller, CreateOp
from coordsvc.core.invariants import check_all, check_machine
from coordsvc.core.records import Znode
from coordsvc.core.state import State
from tests.unit.core.harness import Harness


@pytest.fixture
def harness() -> Harness:
    harness = Harness()
    session_id = harness.open_session()
    harness.create("/a", "/a/b")
    harness.write(CreateOp("/e", b"", EPHEMERAL), Caller(session_id, 0, 1))
    harness.write(CreateOp("/c", b"", CONTAINER))
    harness.write(CreateOp("/t", b"", PERSISTENT_WITH_TTL, 10))
    check_machine(harness.machine)
    return harness


def change_stat(at: str, /, **fields: int) -> Callable[[State], None]:
    def damage(state: State) -> None:
        znode = state.znodes[at]
        state.znodes[at] = replace(znode, stat=replace(znode.stat, **fields))

    return damage


def change_znode(at: str, /, **fields: object) -> Callable[[State], None]:
    def damage(state: State) -> None:
        state.znodes[at] = replace(state.znodes[at], **fields)

    return damage


def orphan(state: State) -> None:
    del state.znodes["/a"]


def lost_special(state: State) -> None:
    del state.znodes["/zookeeper/quota"]


def child_of_ephemeral(state: State) -> None:
    state._attach(Znode(99, "/e/x", b"", state.znodes["/"].acl, state.znodes["/a/b"].stat))


def dead_owner(state: State) -> None:
    state.sessions.clear()


def lost_result(state: State) -> None:
    state.results.clear()


def leftover_result(state: State) -> None:
    (session_id,) = state.sessions
    saved = state.results[session_id, 1]
    state.results[session_id, 2] = replace(saved, request_number=2)


DAMAGES: dict[str, Callable[[State], None]] = {
    "orphan": orphan,
    "lost special": lost_special,
    "child of an ephemeral": child_of_ephemeral,
    "dead owner": dead_owner,
    "lost result": lost_result,
    "leftover result": leftover_result,
    "version": change_stat("/a", version=-1),
    "cversion": change_stat("/a", cversion=5),
    "creates": change_znode("/a", creates=5),
    "num_children": change_stat("/a", num_children=0),
    "czxid": change_stat("/a", czxid=10**6),
    "pzxid": change_stat("/a", pzxid=0),
    "mtime": change_stat("/a", mtime_ms=0),
    "data length": change_stat("/a", data_length=1),
    "path": change_znode("/a", path="/b"),
    "acl": change_znode("/a", acl=()),
    "node id": change_znode("/a", node_id=1),
    "kind": change_znode("/c", kind=0),
    "ttl": change_znode("/t", ttl_ms=0),
    "owner": change_stat("/e", ephemeral_owner=0),
    "container index": lambda state: state.containers.clear(),
    "ttl index": lambda state: state.ttl_znodes.clear(),
    "ephemerals index": lambda state: state.ephemerals.clear(),
    "children index": lambda state: state.children["/a"].add("ghost"),
    "empty children": lambda state: state._children_of("/a/b").sorted().clear(),
    "undo log": lambda state: setattr(state, "undo", []),
    "session floor": lambda state: state.put_session(
        replace(next(iter(state.sessions.values())), done_below=9)
    ),
    "origin": lambda state: state.put_origin(replace(state.origins[1], incarnation=10**6)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found(harness: Harness, damage: Callable[[State], None]) -> None:
    damage(harness.state)
    with pytest.raises((AssertionError, KeyError)):
        check_all(harness.state)


def test_unnoticed_change_is_found_by_the_digest(harness: Harness) -> None:
    """A record changed behind the machine's back."""
    harness.state.znodes["/a"] = replace(harness.state.znodes["/a"], ttl_ms=0, data=None)
    check_all(harness.state)
    with pytest.raises(AssertionError):
        check_machine(harness.machine)
