"""What a watch has missed when the history does not reach back so far: what the Stat still shows.

Ref: ZooKeeper DataTree.setWatches. Unlike there, what cannot be told is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from coordsvc.core.commands import CREATED, DATA_CHANGED, DELETED, AuthId
from coordsvc.core.history import History
from coordsvc.core.state import State
from coordsvc.core.watches import (
    CHILDREN_CHANGED,
    EXISTS,
    NEEDS_ZNODE,
    ONE_SHOT,
    Watch,
    may_read,
    missed_event,
)
from coordsvc.paths import ROOT, parent_of
from coordsvc.server.watch_messages import Event


class Missed(NamedTuple):
    """`events` in the order of their zxids, with the watches they use up. `unclear`: watches that
    may have missed something, or not. `unreadable`: used up by what may not be read. `quiet`: the
    rest, that missed nothing."""

    events: list[tuple[Event, list[Watch]]]
    unclear: list[Watch]
    unreadable: list[Watch]
    quiet: list[Watch]


def missed_by_stat(
    state: State,
    watches: Iterable[Watch],
    after_zxid: int,
    ids: Callable[[], tuple[AuthId, ...]],
) -> Missed:
    missed = Missed([], [], [], [])
    told: dict[tuple[int, str, int], tuple[Event, list[Watch]]] = {}
    for watch in watches:
        path, kind = watch.path, watch.kind
        if kind not in ONE_SHOT:
            missed.unclear.append(watch)
            continue
        event_type = missed_event(state, path, kind, after_zxid)
        znode = state.znodes.get(path)
        if event_type is None:
            # A znode that is not there may have been, and may have come and gone.
            is_unclear = kind == EXISTS and znode is None
            (missed.unclear if is_unclear else missed.quiet).append(watch)
        elif znode is not None and not may_read(znode.acl, ids):
            missed.unreadable.append(watch)
        else:
            event = _event(state, event_type, path)
            key = (event_type, path, event.zxid)
            told.setdefault(key, (event, []))[1].append(watch)
    # A znode's own event is before its parent's, as far as zxids leave it open.
    by_zxid = sorted(told.values(), key=lambda told: (told[0].zxid, told[0].type))
    missed.events.extend(by_zxid)
    return missed


def _event(state: State, event_type: int, path: str) -> Event:
    znode = state.znodes.get(path)
    if znode is None:
        return Event(DELETED, path, _gone_by(state, path), None, None)
    stat = znode.stat
    if event_type == CHILDREN_CHANGED:
        return Event(event_type, path, stat.pzxid, None, None)
    assert event_type in (CREATED, DATA_CHANGED)
    # Also of one that was created and written since: the data is what this zxid left.
    return Event(event_type, path, stat.mzxid, znode.data, stat)


def _gone_by(state: State, path: str) -> int:
    """A zxid by which a missing znode was deleted; its own nothing shows any more. The deletion
    changed its parent's pzxid, or the parent has been deleted since, and so on."""
    while path not in state.znodes:
        assert path != ROOT
        path = parent_of(path)
    return state.znodes[path].stat.pzxid


def missing_before(
    state: State, history: History, watches: Iterable[Watch], after_zxid: int
) -> list[Watch]:
    """Watches on a znode that was not there any more at `after_zxid`, and is not there now. The
    history is complete after it, and has nothing to tell about them."""
    gone = [
        watch for watch in watches if watch.kind in NEEDS_ZNODE and watch.path not in state.znodes
    ]
    if not gone:
        return []
    changed = history.paths_after(after_zxid)
    return [watch for watch in gone if watch.path not in changed]
