"""A stock SyncObj and one of our nodes, to be told the same story."""

from __future__ import annotations

from typing import Any

from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from coordsvc.raft.messages import (
    AppendEntries,
    Message,
)
from coordsvc.testing.raft_harness import ManualClock, RaftCluster, RaftHost


class StockTransport(Transport):  # type: ignore[misc]
    ready = True

    def __init__(self, owner: Any, self_node: Node, others: set[Node]) -> None:
        super().__init__(owner, self_node, others)
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.members = {node.id: node for node in others}

    def tryGetReady(self) -> None:
        pass

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        self.said.append((node.id, message))
        return True

    def addNode(self, node: Node) -> None:
        self.members[node.id] = node

    def dropNode(self, node: Node) -> None:
        del self.members[node.id]

    def destroy(self) -> None:
        pass


class Stock(SyncObj):  # type: ignore[misc]
    """A stock replica that remembers what it applied."""

    def __init__(self, size: int = 3, **conf: Any) -> None:
        self.applied: list[bytes] = []
        super().__init__(
            Node("1"),
            [Node(str(i)) for i in range(2, size + 1)],
            SyncObjConf(autoTick=False, **conf),
            transportClass=StockTransport,
        )
        self.transport: StockTransport = self._SyncObj__transport

    def _SyncObj__doApplyCommand(self, command: bytes) -> bytes:
        self.applied.append(command)
        return command

    def get(self, name: str) -> Any:
        return getattr(self, "_SyncObj__" + name)

    def put(self, name: str, value: Any) -> None:
        setattr(self, "_SyncObj__" + name, value)

    def node(self, replica_id: int) -> Node:
        return self.transport.members[str(replica_id)]

    def hear(self, replica_id: int, **message: Any) -> None:
        self.transport._onMessageReceived(self.node(replica_id), message)

    def append(
        self, term: int, prev: int, prev_term: int, terms: list[int], commit: int, peer: int = 2
    ) -> None:
        entries = [(b"\x00%d" % (prev + 1 + k), prev + 1 + k, each) for k, each in enumerate(terms)]
        self.hear(
            peer,
            type="append_entries",
            term=term,
            commit_index=commit,
            entries=entries,
            prevLogIdx=prev,
            prevLogTerm=prev_term,
        )

    def lead(self, clock: ManualClock) -> None:
        """Elected by replica 2."""
        for node in self.transport.members.values():
            self.transport._onNodeConnected(node)
        clock.now += 5.0
        self.doTick(0)
        if self.transport.members:
            self.hear(2, type="response_vote", term=self.raftCurrentTerm)
        assert self._isLeader()

    @property
    def log(self) -> list[tuple[int, int]]:
        return [(index, term) for _, index, term in self.get("raftLog")[:]]

    def kinds_said(self) -> list[str]:
        return [message["type"] for _, message in self.transport.said]


class Ours:
    """Replica 1 of three, its disk at rest unless told otherwise."""

    def __init__(self, size: int = 3) -> None:
        self.cluster = RaftCluster(size)

    @property
    def host(self) -> RaftHost:
        return self.cluster.hosts[1]

    def hear(self, peer: int, term: int, message: Message) -> None:
        self.host.node.receive(peer, term, message, self.cluster.clock.now)

    def append(
        self, term: int, prev: int, prev_term: int, terms: list[int], commit: int, peer: int = 2
    ) -> None:
        entries = tuple((each, b"\x00%d" % (prev + 1 + k)) for k, each in enumerate(terms))
        self.hear(peer, term, AppendEntries(prev, prev_term, commit, entries))

    def lead(self) -> None:
        self.cluster.elect(1)
        self.cluster.frames.clear()

    def said(self) -> list[Message]:
        self.host.wal.sync_all()
        return [frame.message for frame in self.cluster.take(source=1)]
