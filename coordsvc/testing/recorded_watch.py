"""Watches whose events go into a history in the moment in which they are handed out."""

from __future__ import annotations

from coordsvc.client.options import ClientConfig
from coordsvc.client.records import (
    WatchEvent,
    WatchEventType,
    WatchGap,
    WatchItem,
    WatchKind,
    WatchRemoved,
)
from coordsvc.client.watch_stream import WatchStream
from coordsvc.client.watching import ONE_SHOT, Watching
from coordsvc.errors import CoordError
from coordsvc.testing.history import Event, Gap, Progress, Recorder, WatchEnd, WatchSet

KINDS = {
    "data": WatchKind.DATA,
    "exist": WatchKind.EXISTS,
    "children": WatchKind.CHILDREN,
    "persistent": WatchKind.PERSISTENT,
    "persistent_recursive": WatchKind.PERSISTENT_RECURSIVE,
}

EVENTS = {
    WatchEventType.CREATED: "created",
    WatchEventType.DELETED: "deleted",
    WatchEventType.DATA_CHANGED: "data_changed",
    WatchEventType.CHILDREN_CHANGED: "children_changed",
}


class RecordedWatch:
    """A sink of a watch. Nothing of it is in the history before `set`, and nothing after `end`,
    which the only item of a one-shot watch brings about. `is_whole`: what it told of last was the
    last of its zxid."""

    def __init__(
        self, recorder: Recorder, client: str, kind: str, path: str, session: str = ""
    ) -> None:
        self.kind = kind
        self.path = path
        self.name = ""
        self.is_over = False
        self.is_whole = True
        self.told = 0
        self.watching: Watching | None = None
        """By which the library knows it, if it is not a read's."""

        self._recorder = recorder
        self._client = client
        self._session = session

    @property
    def is_one_shot(self) -> bool:
        return KINDS[self.kind] in ONE_SHOT

    def set(self, zxid: int) -> None:
        """It is set; once. Unless the client has given it up already."""
        if self.is_over:
            return
        assert not self.name, f"watch {self.name} is set twice"
        recorder = self._recorder
        self.name = recorder.next_watch()
        recorder.add(
            WatchSet(
                recorder.time, self._client, self.name, self.kind, self.path, zxid, self._session
            )
        )

    def deliver(self, item: WatchItem) -> None:
        assert self.name and not self.is_over, f"{item} of a watch that is not set"
        recorder, client, name = self._recorder, self._client, self.name
        if isinstance(item, WatchEvent):
            event = Event(recorder.time, client, name, EVENTS[item.type], item.path, item.zxid)
            recorder.add(event)
            self.is_whole = item.is_last_of_zxid
            self.told += 1
        elif isinstance(item, WatchGap):
            recorder.add(Gap(recorder.time, client, name, item.resumed_at_zxid))
            self.is_whole = True
        if self.is_one_shot or isinstance(item, WatchRemoved):
            self.end()

    def fail(self, error: CoordError) -> None:
        self.end()

    def progress(self, zxid: int) -> None:
        if self.name and not self.is_over:
            self._recorder.add(Progress(self._recorder.time, self._client, self.name, zxid))

    def end(self) -> None:
        if self.name and not self.is_over:
            self._recorder.add(WatchEnd(self._recorder.time, self._client, self.name))
        self.is_over = True


class RecordedWatchStream(WatchStream):
    """A watch without a session, or, with `start_after_zxid`, what an earlier stream's goes on
    with. `roam` makes it go on at the next replica."""

    def __init__(
        self, config: ClientConfig, watch: RecordedWatch, start_after_zxid: int | None = None
    ) -> None:
        self.watch = watch
        kind = KINDS[watch.kind]
        super().__init__(config, watch.path, kind, start_after_zxid=start_after_zxid)

    def deliver(self, item: WatchItem) -> None:
        self.watch.deliver(item)
        super().deliver(item)

    def _handle_set(self, zxid: int) -> None:
        super()._handle_set(zxid)
        if not self.watch.name:
            self.watch.set(zxid)

    def roam(self) -> None:
        """Only while nobody waits for its next item."""
        self._drop_call()
        self._channels.rotate(self._channels.endpoint)
