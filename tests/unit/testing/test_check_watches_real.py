"""What the service's own watches tell passes the check of watches, whatever breaks and resumes; and
with one event dropped, doubled or moved it does not.

Method: a client's side and two replicas' sides of watching, the second of which remembers hardly
anything, joined without a network. At random a stream breaks, and the client goes on at either.
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from coordsvc.client.records import WatchEvent, WatchItem, WatchKind, WatchRemoved
from coordsvc.client.watching import Watches, Watching
from coordsvc.core.commands import (
    CREATED,
    DELETED,
    NO_CALLER,
    CreateOp,
    DeleteOp,
    MultiOp,
    Op,
    SetDataOp,
    Write,
)
from coordsvc.errors import NoWatcherError
from coordsvc.server.config_model import LimitsConfig
from coordsvc.server.watch_hub import Watcher, WatchHub, specs_from_messages
from coordsvc.testing.check_history import check_form, check_rules
from coordsvc.testing.history import Change, Event, Gap, Record, Session, WatchSet
from coordsvc.v1 import watch_pb2
from tests.unit.core.harness import Harness
from tests.unit.testing.history_builder import HistoryBuilder

PATHS = ("/a", "/b", "/a/x", "/a/y", "/a/x/z")
KINDS = {
    WatchKind.DATA: "data",
    WatchKind.EXISTS: "exist",
    WatchKind.CHILDREN: "children",
    WatchKind.PERSISTENT: "persistent",
    WatchKind.PERSISTENT_RECURSIVE: "persistent_recursive",
}
REMEMBERED_BYTES = (1 << 20, 4_000)
"""By two replicas; the second one has room for about four changes."""

STEPS = 200


class Sink:
    """Records what a watch tells."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    def deliver(self, item: WatchItem) -> None:
        assert not isinstance(item, WatchRemoved)
        h = self._world.h
        if isinstance(item, WatchEvent):
            h.event(item.zxid, item.type.name.lower(), item.path, self._name)
        else:
            h.gap(item.resumed_at_zxid, self._name)

    def fail(self, error: Exception) -> None:
        raise error


class World:
    """One run, which is the same for the same `seed`."""

    def __init__(self, seed: int, remembered: tuple[int, ...] = REMEMBERED_BYTES) -> None:
        self.h = HistoryBuilder()
        self._rng = random.Random(seed)
        self._harness = Harness()
        state = self._harness.state
        self._hubs = [
            WatchHub(state, LimitsConfig(watch_history_bytes_max=bytes_max))
            for bytes_max in remembered
        ]
        self._client = Watches()
        self._watcher: Watcher | None = None
        self._watches = 0
        self._values = 0

    def run(self) -> list[Record]:
        self._attach("opened")
        for _ in range(STEPS):
            self._step()
        self._answer()
        return self.h.records

    def _step(self) -> None:
        choice = self._rng.random()
        if choice < 0.6:
            self._write()
        elif self._watcher is None:
            self._attach("connected")
        elif choice < 0.7:
            self._hand_out(self._watcher.take(None, self._rng.choice((1, 200, 1000))))
        elif choice < 0.8:
            self._answer()
        elif choice < 0.95:
            self._watch()
        else:
            self._watcher.close()
            self._watcher = None
            self.h.session("suspended")

    def _write(self) -> None:
        ops = [self._op() for _ in range(self._rng.choice((1, 1, 1, 2, 3)))]
        writes = [Write(NO_CALLER, op) for op in ops]
        if self._rng.random() < 0.4:
            writes = [Write(NO_CALLER, MultiOp(tuple(ops)))]  # type: ignore[arg-type]
        self._harness.submit(*writes)
        applied = self._harness.last_applied
        by_zxid: dict[int, list[Change]] = {}
        names = {CREATED: "created", DELETED: "deleted"}
        for change in applied.changes:
            data = change.data.decode() if change.data is not None else None
            named = names.get(change.type, "data_changed")
            told = Change(named, change.path, None if named == "deleted" else data)
            by_zxid.setdefault(change.zxid, []).append(told)
        for zxid, changes in by_zxid.items():
            self.h.applied(zxid, *changes)
        for hub in self._hubs:
            hub.on_applied(applied)

    def _op(self) -> Op:
        path = self._rng.choice(PATHS)
        self._values += 1
        data = b"%d" % self._values
        return self._rng.choice((CreateOp(path, data), SetDataOp(path, data), DeleteOp(path)))

    # ------------------------------------------------------------------------------- the session

    def _attach(self, state: str) -> None:
        self._watcher = self._rng.choice(self._hubs).open(tuple, lambda: None)
        self.h.session(state)
        self._client.resumed()
        specs = specs_from_messages(self._client.specs())
        if specs:
            self._watcher.begin_resume(specs, self._client.position)

    def _hand_out(self, items: list[tuple[int, Any]]) -> None:
        assert self._watcher is not None
        for _, item in items:
            if isinstance(item, watch_pb2.WatchEvent):
                self._client.event(item)
            elif isinstance(item, watch_pb2.WatchGap):
                for watching in self._client.gap(item):
                    # It may have been used up over there by an event that is on its way.
                    with suppress(NoWatcherError):
                        self._watcher.remove([watching.watch_id])
            else:
                raise AssertionError(item)

    def _answer(self) -> None:
        """A read that finds nothing, after the events up to its zxid."""
        if self._watcher is None:
            return
        op = self.h.invoke("exists", path="/none")
        zxid = self._harness.state.zxid
        while items := self._watcher.take(zxid):
            self._hand_out(items)
        self.h.answer(op, zxid, exists=False)
        self._client.reached(zxid)

    def _watch(self) -> None:
        assert self._watcher is not None
        if self._watcher.is_resuming:
            return
        path, kind = self._rng.choice(PATHS), self._rng.choice(tuple(KINDS))
        state = self._harness.state
        if path not in state.znodes and kind in (WatchKind.DATA, WatchKind.CHILDREN):
            return
        self._answer()
        self._watches += 1
        name = f"w{self._watches}"
        watching = Watching(path, kind, False, Sink(self, name))
        watching.watch_id = self._client.next_id()
        spec = watch_pb2.WatchSpec()
        watching.write_to(spec)
        zxid = self._watcher.add(specs_from_messages([spec]))
        self._client.add(watching)
        self.h.watch(KINDS[kind], path, zxid, watch=name)


def violations_of(records: list[Record]) -> list[str]:
    assert check_form(records) == []
    return [str(violation) for violation in check_rules(records)]


@pytest.mark.parametrize("seed", range(60))
def test_the_watches_of_the_service_pass(seed: int) -> None:
    assert violations_of(World(seed).run()) == []


def test_the_runs_show_what_they_are_to_show() -> None:
    """Events of all kinds, gaps, and watches that resumed before their event."""
    events: dict[str, int] = {}
    gaps = resumed = 0
    for seed in range(60):
        kinds: dict[str, str] = {}
        suspended: set[str] = set()
        for record in World(seed).run():
            if isinstance(record, WatchSet):
                kinds[record.watch] = record.kind
            elif isinstance(record, Session) and record.state == "suspended":
                suspended |= set(kinds)
            elif isinstance(record, Event):
                events[kinds[record.watch]] = events.get(kinds[record.watch], 0) + 1
                resumed += record.watch in suspended
            elif isinstance(record, Gap):
                gaps += 1
    assert set(events) == set(KINDS.values())
    assert min(events.values()) > 50
    assert gaps > 100
    assert resumed > 1000


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("damage", ["dropped", "doubled", "moved"])
def test_damage_is_told(damage: str, seed: int) -> None:
    """To any event of a watch that lasts."""
    records = World(seed, remembered=REMEMBERED_BYTES[:1]).run()
    assert violations_of(records) == []
    lasting = {
        each.watch
        for each in records
        if isinstance(each, WatchSet) and each.kind.startswith("persistent")
    }
    events = [
        (place, each)
        for place, each in enumerate(records)
        if isinstance(each, Event) and each.watch in lasting
    ]
    place, event = random.Random(seed).choice(events)
    if damage == "doubled":
        records.insert(place, event)
    else:
        del records[place]
    if damage == "moved":
        records.append(msgspec.structs.replace(event, time=records[-1].time))
    assert violations_of(records) != []
