"""What this process knows each peer to have acknowledged: a peer that holds less has forgotten.

Acknowledgements go to the leader, votes to a candidate. So that another one notices, too, should
the leader be gone, each replica tells all others what it has acknowledged (`HeldNotices`).

A disk that was wiped comes back under another uuid; one that was rolled back, under an older term
or with a shorter log of the same term. (In a later term a log may rightly be shorter.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coordsvc.raft.messages import Held, Hello, Message
from coordsvc.raft.node import RaftNode
from coordsvc.raft.transport import LinkInfo


@dataclass
class _Memory:
    uuid: bytes = b""
    process: bytes = b""
    term: int = 0
    index: int = 0


class HeldNotices:
    """Tells the peers, each time `turn` is called, what is new. `send(peer, message)` waits for the
    disk, as for an acknowledgement."""

    def __init__(self, node: RaftNode, send: Callable[[int, Message], None]) -> None:
        self._node = node
        self._send = send
        self._told: dict[int, tuple[int, int]] = {}

    def link_up(self, peer: int) -> None:
        """It may be another process, which was told nothing."""
        self._told.pop(peer, None)

    def turn(self) -> None:
        node = self._node
        held = node.term, node.held()
        message = Held(held[1])
        for peer in sorted(node.linked):
            if self._told.get(peer) != held:
                self._told[peer] = held
                self._send(peer, message)


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
