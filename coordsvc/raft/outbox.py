"""Persist before telling: a promise leaves when everything appended before it was said is synced.

Messages that promise nothing about this replica's disk go at once; the others keep their order
behind the WAL. So a vote, an acknowledgement or a candidacy never outlives the memory of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from coordsvc.raft.journal import LogStore
from coordsvc.raft.messages import SKIPS_THE_DISK, Message, encode_frame


class Outbox:
    def __init__(
        self,
        store: LogStore,
        term: Callable[[], int],
        send: Callable[[int, bytes], None],
    ) -> None:
        self._store = store
        self._term = term
        self._send_frame = send
        self._held: dict[int, deque[tuple[int, bytes]]] = {}
        self._last: tuple[Message, int, bytes] | None = None

    def send(self, peer: int, message: Message) -> None:
        frame = self._encode(message)
        if type(message) in SKIPS_THE_DISK:
            self._send_frame(peer, frame)
            return
        held = self._held.get(peer)
        if held or self._store.synced_lsn < self._store.end_lsn:
            self._held.setdefault(peer, deque()).append((self._store.end_lsn, frame))
        else:
            self._send_frame(peer, frame)

    def _encode(self, message: Message) -> bytes:
        """One message to several peers is encoded once."""
        term = self._term()
        if self._last is not None and self._last[0] is message and self._last[1] == term:
            return self._last[2]
        frame = encode_frame(term, message)
        self._last = (message, term, frame)
        return frame

    def synced_to(self, lsn: int) -> None:
        for peer, held in self._held.items():
            while held and held[0][0] <= lsn:
                self._send_frame(peer, held.popleft()[1])

    def forget(self, peer: int) -> None:
        """Its connection is gone; what was meant for it would arrive out of place on another."""
        self._held.pop(peer, None)
