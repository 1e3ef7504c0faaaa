"""What this process has seen each peer acknowledge: a peer that holds less has forgotten.

A disk that was wiped comes back under another uuid; one that was rolled back, under an older term
or with a shorter log of the same term. (In a later term a log may rightly be shorter.)
"""

from __future__ import annotations

from dataclasses import dataclass

from coordsvc.raft.messages import Hello
from coordsvc.raft.transport import LinkInfo


@dataclass
class _Memory:
    uuid: bytes = b""
    process: bytes = b""
    term: int = 0
    index: int = 0


class PeerMemories:
    def __init__(self, peer_ids: tuple[int, ...]) -> None:
        self._memories = {peer: _Memory() for peer in peer_ids}

    def has_forgotten(self, hello: Hello) -> bool:
        memory = self._memories[hello.replica_id]
        if not memory.uuid or (hello.process and hello.process == memory.process):
            # Two connections of one process may cross: what it acknowledged on the one since it
            # greeted on the other is not forgotten.
            return False
        if hello.uuid != memory.uuid or hello.term < memory.term:
            return True
        return hello.term == memory.term and hello.last_index < memory.index

    def linked(self, peer: int, info: LinkInfo) -> None:
        """A disk of another uuid knows by itself that it is new. One that was rolled back does not:
        what it acknowledged stays on record, so that it is told again until it has caught up."""
        if self._memories[peer].uuid != info.uuid:
            self._memories[peer] = _Memory(uuid=info.uuid)
        if not info.forgotten:
            # Whether it heard that it has forgotten is not known: the connection may break first.
            self._memories[peer].process = info.process

    def acknowledged(self, peer: int, term: int, index: int) -> None:
        """It said, after its disk did, that it is in `term` and holds everything up to `index` (0
        with a vote)."""
        memory = self._memories[peer]
        if (term, index) > (memory.term, memory.index):
            memory.term, memory.index = term, index
