"""The table of watches: every kind against every change, one-shot and not, READ, groups."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from coordsvc.core.commands import (
    ALL,
    CREATED,
    DATA_CHANGED,
    DELETED,
    Acl,
    AuthId,
    CreateOp,
    DeleteOp,
    MultiOp,
    Op,
    SetAclOp,
    SetDataOp,
)
from coordsvc.core.watches import (
    CHILDREN,
    CHILDREN_CHANGED,
    DATA,
    EXISTS,
    PERSISTENT,
    PERSISTENT_RECURSIVE,
    Delivery,
    WatchTable,
    missed_event,
)
from tests.unit.core.harness import Harness

KINDS = (DATA, EXISTS, CHILDREN, PERSISTENT, PERSISTENT_RECURSIVE)
ONE_SHOT = (DATA, EXISTS, CHILDREN)
SUPER = (AuthId("super", ""),)


@dataclass
class Watched:
    harness: Harness = field(default_factory=Harness)
    table: WatchTable = field(default_factory=WatchTable)
    ids: dict[int, tuple[AuthId, ...]] = field(default_factory=dict)

    def run(self, *ops: Op) -> list[Delivery]:
        """The deliveries of these operations, each in an entry of its own."""
        deliveries: list[Delivery] = []
        self.harness.take_changes()
        for op in ops:
            self.harness.write(op)
            changes = self.harness.take_changes()
            deliveries += self.table.trigger(changes, lambda who: self.ids.get(who, ()))
        return deliveries

    def events(self, *ops: Op) -> list[tuple[int, str, tuple[int, ...]]]:
        return [(each.type, each.path, each.watch_ids) for each in self.run(*ops)]


@pytest.fixture
def watched() -> Watched:
    watched = Watched()
    watched.harness.create("/p")
    return watched


# Rows: the change at /p/n. Columns: what a watch of each kind sees, on /p/n and on /p.
# Ref: ZooKeeper DataTree.createNode, setData, deleteNode; WatchManager; PathParentIterator.
OWN = {
    CREATED: {DATA: CREATED, EXISTS: CREATED, PERSISTENT: CREATED, PERSISTENT_RECURSIVE: CREATED},
    DATA_CHANGED: {
        DATA: DATA_CHANGED,
        EXISTS: DATA_CHANGED,
        PERSISTENT: DATA_CHANGED,
        PERSISTENT_RECURSIVE: DATA_CHANGED,
    },
    DELETED: dict.fromkeys(KINDS, DELETED),
}
OF_PARENT = {
    CREATED: {
        CHILDREN: (CHILDREN_CHANGED, "/p"),
        PERSISTENT: (CHILDREN_CHANGED, "/p"),
        PERSISTENT_RECURSIVE: (CREATED, "/p/n"),
    },
    DATA_CHANGED: {PERSISTENT_RECURSIVE: (DATA_CHANGED, "/p/n")},
    DELETED: {
        CHILDREN: (CHILDREN_CHANGED, "/p"),
        PERSISTENT: (CHILDREN_CHANGED, "/p"),
        PERSISTENT_RECURSIVE: (DELETED, "/p/n"),
    },
}
OPS: dict[int, Op] = {
    CREATED: CreateOp("/p/n", b""),
    DATA_CHANGED: SetDataOp("/p/n", b"x"),
    DELETED: DeleteOp("/p/n"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", OPS)
@pytest.mark.parametrize("path", ["/p/n", "/p", "/", "/p/n/below", "/p/other", "/p/"])
def test_what_each_kind_sees(watched: Watched, change: int, kind: int, path: str) -> None:
    if change != CREATED:
        watched.harness.create("/p/n")
    watched.table.add(1, path, kind, 7)
    expected: list[tuple[int, str, tuple[int, ...]]] = []
    if path == "/p/n" and kind in OWN[change]:
        expected = [(OWN[change][kind], "/p/n", (7,))]
    elif path == "/p" and kind in OF_PARENT[change]:
        expected = [(*OF_PARENT[change][kind], (7,))]
    elif path == "/" and kind == PERSISTENT_RECURSIVE:
        expected = [(change, "/p/n", (7,))]
    assert watched.events(OPS[change]) == expected
    is_used_up = kind in ONE_SHOT and bool(expected)
    assert len(watched.table) == (0 if is_used_up else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_else_is_seen(watched: Watched, kind: int) -> None:
    """setACL, refused operations, checks, and a multi that is taken back."""
    watched.harness.create("/p/n")
    for path in ("/", "/p", "/p/n"):
        watched.table.add(1, path, kind)
    assert not watched.events(
        SetAclOp("/p/n", (Acl(ALL, "world", "anyone"), Acl(1, "x509", "a"))),
        CreateOp("/p/n", b""),
        SetDataOp("/p/n", b"", 9),
        DeleteOp("/p/n", 9),
        MultiOp((SetDataOp("/p/n", b""), DeleteOp("/missing"))),
    )


def test_order_within_one_change(watched: Watched) -> None:
    """First the znode's own event, then its parent's. Ref: ZooKeeper DataTree.deleteNode."""
    watched.table.add(1, "/p", CHILDREN, 1)
    watched.table.add(1, "/p/n", EXISTS, 2)
    assert watched.events(CreateOp("/p/n", b"")) == [
        (CREATED, "/p/n", (2,)),
        (CHILDREN_CHANGED, "/p", (1,)),
    ]


def test_one_delivery_with_all_watch_ids(watched: Watched) -> None:
    for watch_id, (path, kind) in enumerate(
        [("/p", DATA), ("/p", EXISTS), ("/p", CHILDREN), ("/p", PERSISTENT)]
        + [("/p", PERSISTENT_RECURSIVE), ("/", PERSISTENT_RECURSIVE)],
        start=1,
    ):
        watched.table.add(1, path, kind, watch_id)
    assert watched.events(DeleteOp("/p")) == [(DELETED, "/p", (1, 2, 3, 4, 5, 6))]
    assert len(watched.table) == 3


def test_same_watch_twice_is_one(watched: Watched) -> None:
    for _ in range(2):
        watched.table.add(1, "/p", DATA, 5)
    assert len(watched.table) == 1
    assert watched.events(SetDataOp("/p", b"")) == [(DATA_CHANGED, "/p", (5,))]


def test_watchers_are_apart(watched: Watched) -> None:
    watched.table.add(1, "/p", DATA)
    watched.table.add(2, "/p", DATA)
    deliveries = watched.run(SetDataOp("/p", b""))
    assert [each.watcher_id for each in deliveries] == [1, 2]
    assert all(each.is_last_of_zxid for each in deliveries)


def test_remove(watched: Watched) -> None:
    table = watched.table
    table.add(1, "/p", DATA, 1)
    table.add(1, "/p", DATA, 2)
    table.add(1, "/", PERSISTENT_RECURSIVE, 3)
    assert table.remove(1, "/p", DATA, 1)
    for absent in (
        (1, "/p", DATA, 1),
        (2, "/p", DATA, 2),
        (1, "/p", EXISTS, 2),
        (1, "/q", DATA, 2),
    ):
        assert not table.remove(*absent)
    assert table.remove(1, "/", PERSISTENT_RECURSIVE, 3)
    assert watched.events(SetDataOp("/p", b"")) == [(DATA_CHANGED, "/p", (2,))]


def test_remove_watcher(watched: Watched) -> None:
    for kind in KINDS:
        watched.table.add(1, "/p", kind)
        watched.table.add(2, "/p", kind)
    watched.table.remove_watcher(1)
    watched.table.remove_watcher(3)
    assert len(watched.table) == len(KINDS)
    assert {each.watcher_id for each in watched.run(DeleteOp("/p"))} == {2}


def test_persistent_watches_survive_their_znode(watched: Watched) -> None:
    watched.table.add(1, "/p", PERSISTENT)
    types = [event[0] for event in watched.events(DeleteOp("/p"), CreateOp("/p", b""))]
    assert types == [DELETED, CREATED]


def test_group_marks_the_last_for_each_watcher(watched: Watched) -> None:
    watched.harness.create("/p/a")
    watched.table.add(1, "/", PERSISTENT_RECURSIVE)
    watched.table.add(2, "/p/a", DATA)
    watched.table.add(3, "/p", PERSISTENT)
    deliveries = watched.run(
        MultiOp((SetDataOp("/p/a", b""), CreateOp("/p/b", b""), CreateOp("/c", b"")))
    )
    marks: dict[int, list[bool]] = {}
    for delivery in deliveries:
        marks.setdefault(delivery.watcher_id, []).append(delivery.is_last_of_zxid)
    assert marks == {1: [False, False, True], 2: [True], 3: [True]}
    assert len({delivery.zxid for delivery in deliveries}) == 1


def test_own_and_parents_event_are_one_group(watched: Watched) -> None:
    watched.table.add(1, "/p", PERSISTENT)
    watched.table.add(1, "/p/n", PERSISTENT)
    deliveries = watched.run(CreateOp("/p/n", b""))
    assert [each.is_last_of_zxid for each in deliveries] == [False, True]


def test_read_is_checked_at_the_change(watched: Watched) -> None:
    """With the ACL of that time; for CHILDREN_CHANGED the parent's; a one-shot watch is used up
    all the same."""
    closed = (Acl(ALL & ~1, "world", "anyone"),)
    watched.harness.write(CreateOp("/p/n", b"", acl=closed))
    watched.ids[2] = SUPER
    for watcher_id in (1, 2):
        watched.table.add(watcher_id, "/p/n", DATA, 1)
        watched.table.add(watcher_id, "/", PERSISTENT_RECURSIVE, 2)
        watched.table.add(watcher_id, "/p", CHILDREN, 3)
    seen = [(each.watcher_id, each.type) for each in watched.run(SetDataOp("/p/n", b""))]
    assert seen == [(2, DATA_CHANGED)]
    seen = [(each.watcher_id, each.type) for each in watched.run(DeleteOp("/p/n"))]
    assert seen == [(2, DELETED), (1, CHILDREN_CHANGED), (2, CHILDREN_CHANGED)]
    watched.table.remove(1, "/", PERSISTENT_RECURSIVE, 2)
    watched.table.remove(2, "/", PERSISTENT_RECURSIVE, 2)
    assert len(watched.table) == 0


def test_deliveries_carry_their_change(watched: Watched) -> None:
    watched.table.add(1, "/p", PERSISTENT)
    delivery = watched.run(SetDataOp("/p", b"new"))[0]
    assert delivery.change.data == b"new"
    assert delivery.change.stat == watched.harness.state.znodes["/p"].stat
    assert delivery.zxid == watched.harness.state.zxid


@pytest.mark.parametrize(
    ("kind", "ops", "missed"),
    [
        (DATA, [], None),
        (DATA, [SetDataOp("/p", b"")], DATA_CHANGED),
        (DATA, [DeleteOp("/p")], DELETED),
        (DATA, [DeleteOp("/p"), CreateOp("/p", b"")], DATA_CHANGED),
        (DATA, [CreateOp("/p/c", b"")], None),
        (CHILDREN, [SetDataOp("/p", b"")], None),
        (CHILDREN, [CreateOp("/p/c", b"")], CHILDREN_CHANGED),
        (CHILDREN, [CreateOp("/p/c", b""), DeleteOp("/p/c")], CHILDREN_CHANGED),
        (CHILDREN, [DeleteOp("/p")], DELETED),
        (EXISTS, [SetDataOp("/p", b"")], DATA_CHANGED),
        (EXISTS, [], None),
    ],
)
def test_missed_event(watched: Watched, kind: int, ops: list[Op], missed: int | None) -> None:
    """As far as the stat shows. Ref: ZooKeeper DataTree.setWatches."""
    known = watched.harness.state.zxid
    watched.run(*ops)
    assert missed_event(watched.harness.state, "/p", kind, known) == missed


def test_missed_creation(watched: Watched) -> None:
    known = watched.harness.state.zxid
    assert missed_event(watched.harness.state, "/n", EXISTS, known) is None
    watched.run(CreateOp("/n", b""))
    assert missed_event(watched.harness.state, "/n", EXISTS, known) == CREATED
