"""The watches of one session: who is to be told what, and from where they go on after a break.

A watch lives on a stream, and its user must not notice that streams come and go. So each hello
sets all of them again, to report what happened after `position`: the last zxid of which everything
was handed out. A group of one zxid that was cut in the middle comes once more from its beginning,
and what was handed out of it is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from coordsvc.client.convert import event_from, gap_from
from coordsvc.client.records import (
    WatchEvent,
    WatchGap,
    WatchGapReason,
    WatchItem,
    WatchKind,
    WatchRemoved,
)
from coordsvc.client.status import report
from coordsvc.errors import CoordError, LimitExceededError
from coordsvc.v1 import watch_pb2

SPECS_BYTES_MAX = 3 * 1024 * 1024
"""Of all watches of one session: each hello carries them all, and a request has a bound of 4 MiB.
To add the rest later would leave a hole in them."""

SPEC_BYTES = 24
"""What a watch takes in a hello beside its path."""

ONE_SHOT = frozenset({WatchKind.DATA, WatchKind.EXISTS, WatchKind.CHILDREN})


class Sink(Protocol):
    """Whoever takes a watch's items. Called between two items of the stream: must not wait."""

    def deliver(self, item: WatchItem) -> None: ...

    def fail(self, error: CoordError) -> None:
        """Nothing comes any more: the session is over."""


class Watching:
    """One watch. `is_wanted` becomes False when its user is gone."""

    __slots__ = (
        "has_room",
        "include_data",
        "is_wanted",
        "kind",
        "path",
        "sink",
        "size",
        "watch_id",
    )

    def __init__(self, path: str, kind: WatchKind, include_data: bool, sink: Sink) -> None:
        self.path = path
        self.kind = kind
        self.include_data = include_data
        self.sink = sink
        self.size = len(path.encode()) + SPEC_BYTES
        self.watch_id = 0
        self.is_wanted = True
        self.has_room = False

    def write_to(self, spec: watch_pb2.WatchSpec) -> None:
        spec.watch_id, spec.path = self.watch_id, self.path
        spec.kind = watch_pb2.WatchKind.ValueType(self.kind.value)
        spec.include_data = self.include_data


class Watches:
    """`position`: every change up to this zxid that any of them matches was handed out."""

    def __init__(self) -> None:
        self.position = 0
        self._by_id: dict[int, Watching] = {}
        self._last_id = 0
        self._specs_bytes = 0
        self._group_zxid = 0
        self._handed_out: Counter[tuple[int, str, int]] = Counter()
        self._left_out: Counter[tuple[int, str, int]] = Counter()

    def __len__(self) -> int:
        return len(self._by_id)

    def next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def take_room(self, watching: Watching) -> None:
        """Before it is asked for. LimitExceededError: it would not fit into a hello any more."""
        if self._specs_bytes + watching.size > SPECS_BYTES_MAX:
            raise LimitExceededError(
                f"the session has {len(self)} watches whose paths take {self._specs_bytes} bytes, "
                f"of {SPECS_BYTES_MAX} at most: watch a common ancestor recursively, or use "
                "several clients",
                path=watching.path,
            )
        self._hold_room(watching)

    def _hold_room(self, watching: Watching) -> None:
        if not watching.has_room:
            watching.has_room = True
            self._specs_bytes += watching.size

    def leave_room(self, watching: Watching) -> None:
        """Unless it is set."""
        if watching.has_room and self._by_id.get(watching.watch_id) is not watching:
            watching.has_room = False
            self._specs_bytes -= watching.size

    def add(self, watching: Watching) -> None:
        """It is set on the stream, under its `watch_id`."""
        self._by_id[watching.watch_id] = watching
        self._hold_room(watching)

    def remove(self, watching: Watching) -> bool:
        """Whether it was set."""
        return self._take_out(watching.watch_id) is not None

    def _take_out(self, watch_id: int) -> Watching | None:
        watching = self._by_id.pop(watch_id, None)
        if watching is not None:
            self.leave_room(watching)
        return watching

    def reached(self, zxid: int) -> None:
        """Every change up to `zxid` has been told of."""
        if zxid > self.position:
            self.position = zxid

    # ------------------------------------------------------------------------- a stream begins

    def specs(self) -> list[watch_pb2.WatchSpec]:
        specs = []
        for watching in self._by_id.values():
            spec = watch_pb2.WatchSpec()
            watching.write_to(spec)
            specs.append(spec)
        return specs

    def resumed(self) -> None:
        """They are set again as of `position`."""
        self._left_out = Counter(self._handed_out)

    def begin_other_history(self, zxid: int) -> list[Watching]:
        """The cluster is another one: positions in its old history mean nothing. As `gap`."""
        after_zxid, self.position = self.position, 0
        self._group_zxid = 0
        self._handed_out.clear()
        self._left_out.clear()
        gap = WatchGap(after_zxid, zxid, WatchGapReason.OTHER_HISTORY)
        return self._tell_gap(list(self._by_id), gap)

    # ---------------------------------------------------------------------------------- items

    def event(self, message: watch_pb2.WatchEvent) -> None:
        event = event_from(message)
        is_in_group = bool(self._handed_out) and event.zxid == self._group_zxid
        if not is_in_group:
            self._begin_group(event.zxid)
        for watch_id in message.watch_ids:
            watching = self._by_id.get(watch_id)
            key = (int(event.type), event.path, watch_id)
            if self._left_out[key] > 0:
                self._left_out[key] -= 1
            elif watching is not None:
                if not event.is_last_of_zxid:
                    self._handed_out[key] += 1
                self._deliver(watching, event)
        if event.is_last_of_zxid:
            self.reached(event.zxid)
            self._begin_group(0)

    def _begin_group(self, zxid: int) -> None:
        self._group_zxid = zxid
        if self._handed_out:
            self._handed_out.clear()
        if self._left_out:
            self._left_out.clear()

    def gap(self, message: watch_pb2.WatchGap) -> list[Watching]:
        """Those one-shot watches that have done their duty by it, and still are set over there."""
        return self._tell_gap(message.watch_ids, gap_from(message))

    def _tell_gap(self, watch_ids: Iterable[int], gap: WatchGap) -> list[Watching]:
        watching = [self._by_id[each] for each in watch_ids if each in self._by_id]
        for each in watching:
            self._deliver(each, gap)
        return [each for each in watching if each.kind in ONE_SHOT]

    def removed(self, message: watch_pb2.WatchRemoved) -> None:
        is_refused = message.reason == watch_pb2.WATCH_REMOVED_REASON_NO_AUTH
        for watch_id in message.watch_ids:
            watching = self._take_out(watch_id)
            if watching is not None:
                self._call(watching, WatchRemoved(is_refused))

    def fail_all(self, error: CoordError) -> None:
        watching, self._by_id = list(self._by_id.values()), {}
        for each in watching:
            each.sink.fail(error)

    def _deliver(self, watching: Watching, item: WatchEvent | WatchGap) -> None:
        if watching.kind in ONE_SHOT:
            self._take_out(watching.watch_id)
        self._call(watching, item)

    def _call(self, watching: Watching, item: WatchItem) -> None:
        try:
            watching.sink.deliver(item)
        except Exception as error:
            report("a watch's callback", error)
