"""The library's hazards, one by one: the stock part does the wrong thing, ours the right one.

Each test feeds the same story to a stock SyncObj and to this package's part. If a test fails in
its stock half, the library has changed: read it again before trusting what replaces it. (What a
hazard's remedy must do beyond the story is tested where the remedy lives.)
"""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pysyncobj.tcp_connection
import pysyncobj.transport
import pytest
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
from pysyncobj.journal import FileJournal, MemoryJournal
from pysyncobj.node import Node, TCPNode
from pysyncobj.transport import Transport

from coordsvc.core.commands import DataSet
from coordsvc.errors import NoQuorumError
from coordsvc.raft import adapter
from coordsvc.raft.clock import SystemClock
from coordsvc.raft.journal import WalJournal
from coordsvc.raft.messages import (
    AppendEntries,
    AppendReply,
    Forward,
    Message,
    PeerProtocolError,
    PreVote,
    RequestVote,
    ResponseVote,
    TermNotice,
    decode_handshake,
    decode_message,
)
from coordsvc.storage.wal import Wal
from coordsvc.testing.fake_disk import FakeDisk
from coordsvc.testing.manual_loop import ManualExecutor
from coordsvc.testing.raft_harness import ManualClock, RaftCluster, RaftHost
from coordsvc.testing.raft_simulation import Simulation

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2


@pytest.fixture(autouse=True)
def clock() -> Iterator[ManualClock]:
    """The library reads one clock per process."""
    clock = ManualClock()
    adapter.use_library_clock(clock)
    yield clock
    adapter.use_library_clock(SystemClock())


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


# ---------------------------------------------------------------------- 1 and 16


def test_01_a_late_copy_cuts_off_what_was_applied() -> None:
    stock = Stock()
    stock.append(1, 1, 0, [1] * 21, commit=22)
    stock.doTick(0)
    assert len(stock.applied) == 21
    stock.append(1, 1, 0, [1] * 4, commit=4)
    assert stock.log[-1][0] == 5, "seventeen applied entries are gone"

    ours = Ours()
    ours.append(1, 1, 0, [1] * 21, commit=22)
    ours.append(1, 1, 0, [1] * 4, commit=4)
    assert ours.host.journal.last_index == 22
    assert ours.host.node.commit_index == 22


def test_01_what_was_cut_off_can_be_lost_for_good() -> None:
    """The voter has forgotten entry 5, which it had acknowledged."""
    stock = Stock()
    stock.append(1, 1, 0, [1] * 4, commit=1)
    stock.append(1, 1, 0, [1], commit=1)
    stock.transport.said.clear()
    stock.hear(3, type="request_vote", term=2, last_log_index=2, last_log_term=1)
    assert stock.kinds_said() == ["response_vote"]

    ours = Ours()
    ours.append(1, 1, 0, [1] * 4, commit=1)
    ours.append(1, 1, 0, [1], commit=1)
    ours.said()
    ours.hear(3, 2, RequestVote(2, 1))
    assert not [message for message in ours.said() if isinstance(message, ResponseVote)]


# ---------------------------------------------------------------------- 2


def test_02_an_acknowledgement_sends_again_what_is_under_way(clock: ManualClock) -> None:
    stock = Stock()
    stock.lead(clock)
    for index in range(10):
        stock.get("raftLog").add(b"\x00x", 3 + index, 1)
    stock.put("raftNextIndex", {node: 13 for node in stock.transport.members.values()})
    stock.hear(2, type="next_node_idx", next_node_idx=5, reset=False, success=True)
    assert stock.get("raftNextIndex")[stock.node(2)] == 5, "entries 5 to 12 go out again"

    ours = Ours()
    ours.lead()
    for _ in range(10):
        ours.host.node.append(b"\x00x")
    ours.host.node.send_entries()
    end = ours.host.journal.last_index + 1
    assert ours.host.node.next_index(2) == end
    ours.hear(2, ours.host.node.term, AppendReply(True, 5, False))
    assert ours.host.node.next_index(2) == end
    assert ours.host.node.match_index(2) == 4


# ---------------------------------------------------------------------- 3


def test_03_an_acknowledgement_of_an_earlier_term_counts(clock: ManualClock) -> None:
    """Said in term 1, about entries that have been replaced since."""
    stock = Stock()
    stock.lead(clock)
    stock.put("raftCurrentTerm", 3)
    stock.get("raftLog").add(b"\x00new", 3, 3)
    stock.get("raftLog").add(b"\x00new", 4, 3)
    stock.hear(2, type="next_node_idx", next_node_idx=5, reset=False, success=True)
    stock.doTick(0)
    assert stock.raftCommitIndex == 4, "on one disk only"

    ours = Ours()
    ours.lead()
    ours.host.node.append(b"\x00new")
    ours.host.wal.sync_all()
    committed = ours.host.node.commit_index
    ours.hear(2, ours.host.node.term - 1, AppendReply(True, 100, False))
    ours.host.node.tick(ours.cluster.clock.now)
    assert ours.host.node.commit_index == committed


# ---------------------------------------------------------------------- 4


def test_04_the_journal_and_the_vote_are_never_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, synced.append)
    stock = FileJournal(str(tmp_path / "journal"))
    for index in range(2, 50):
        stock.add(b"\x00x", index, 1)
    stock.setCurrentTerm(3, "2")
    stock.onOneSecondTimer()
    assert synced == []

    disk, executor, done = FakeDisk(), ManualExecutor(), []
    disk.make_dir("/wal")
    wal = Wal.open(
        "/wal",
        files=disk,
        executor=executor,
        identity=b"u" * 16,
        replica_id=1,
        on_synced=done.append,
        on_failed=pytest.fail,
        segment_bytes=1 << 16,
    )
    journal = WalJournal(wal, 1, 0, [], 0, None)
    before = sum(operation.name == "fdatasync" for operation in disk.operations)
    journal.setCurrentTerm(3, "2")
    journal.add(b"\x00x", 2, 3)
    wal.flush()
    assert (journal.durable_index, done) == (1, [])
    executor.run_next()
    journal.synced_to(done[-1])
    assert journal.durable_index == 2
    assert sum(operation.name == "fdatasync" for operation in disk.operations) == before + 1


# ---------------------------------------------------------------------- 5


def test_05_it_acknowledges_and_votes_before_anything_is_on_disk() -> None:
    stock = Stock()
    stock.append(1, 1, 0, [1], commit=1)
    stock.hear(3, type="request_vote", term=2, last_log_index=9, last_log_term=1)
    assert stock.kinds_said() == ["next_node_idx", "response_vote"]

    ours = Ours()
    ours.append(1, 1, 0, [1], commit=1)
    ours.hear(3, 2, RequestVote(9, 1))
    assert ours.cluster.frames == []
    assert [type(message) for message in ours.said()] == [AppendReply, ResponseVote]


def test_05_a_single_replica_answers_before_anything_is_on_disk(clock: ManualClock) -> None:
    stock = Stock(1)
    stock.lead(clock)
    answers: list[Any] = []
    stock._applyCommand(b"\x00x", lambda result, error: answers.append(error))
    for _ in range(2):
        stock.doTick(0)
    assert answers == [FAIL_REASON.SUCCESS]

    ours = Ours(1)
    ours.host.node.tick(ours.cluster.clock.now)
    index = ours.host.node.append(b"\x00x")
    for _ in range(5):
        ours.host.end_turn(ours.cluster.clock.now)
        ours.host.node.tick(ours.cluster.clock.now)
    assert ours.host.node.commit_index < index
    ours.host.wal.sync_all()
    ours.host.node.tick(ours.cluster.clock.now)
    assert ours.host.node.commit_index == index


# ---------------------------------------------------------------------- 6 and 19


def test_06_a_damaged_snapshot_is_an_empty_state(tmp_path: Path) -> None:
    damaged = tmp_path / "dump"
    damaged.write_bytes(b"\x1f\x8b no snapshot")
    stock = Stock(1, fullDumpFile=str(damaged))
    stock.doTick(0)
    assert stock.applied == [] and stock.log == [(1, 0)], "logged, ignored, and on it goes"

    with pytest.raises(adapter.LibraryPathError):
        Ours().host.node._SyncObj__loadDumpFile(clearJournal=False)


# ---------------------------------------------------------------------- 7 and 18


def test_07_a_command_that_raises_is_applied_for_ever(clock: ManualClock) -> None:
    class Bad(Stock):
        def _SyncObj__doApplyCommand(self, command: bytes) -> bytes:
            self.applied.append(command)
            if command == b"\x00bad":
                raise ZeroDivisionError
            return command

    stock = Bad(1)
    stock.lead(clock)
    stock.doTick(0)
    stock.applied.clear()
    for command in (b"\x00bad", b"\x00good"):
        stock._applyCommand(command, None)
    stock._checkCommandsToApply()
    for _ in range(50):
        with pytest.raises(ZeroDivisionError):
            stock.doTick(0)
    assert stock.applied == [b"\x00bad"] * 50

    with Simulation(1) as ours:
        ours.expected_faults = (ZeroDivisionError,)
        ours.run_until_ready()
        calls: list[Any] = []

        def explode(*args: Any) -> Any:
            calls.append(args)
            raise ZeroDivisionError

        ours.processes[1].machine.apply_entry = explode  # type: ignore[method-assign]
        for _ in range(5):
            ours.write(1)
        ours.run_for(5.0)
        assert len(calls) == 1
        assert isinstance(ours.processes[1].fault, ZeroDivisionError)


# ---------------------------------------------------------------------- 8


def test_08_who_does_not_hear_the_leader_raises_its_term(clock: ManualClock) -> None:
    """It is connected to the third replica, which hears the leader well."""
    stock = Stock()
    stock.append(1, 1, 0, [], commit=1)
    stock.transport._onNodeConnected(stock.node(3))
    for _ in range(5):
        clock.now += 5.0
        stock.doTick(0)
    assert stock.raftCurrentTerm == 6, "it deposes the leader when it comes back"

    ours = Ours()
    ours.append(1, 1, 0, [], commit=1)
    for _ in range(500):
        ours.cluster.clock.now += 0.05
        ours.host.node.tick(ours.cluster.clock.now)
    assert ours.host.node.term == 1
    said = ours.said()
    assert [message for message in said if isinstance(message, PreVote)]
    assert not [message for message in said if isinstance(message, RequestVote)]


# ---------------------------------------------------------------------- 9


def test_09_a_leader_of_an_earlier_term_is_not_told() -> None:
    stock = Stock()
    stock.append(5, 1, 0, [], commit=1, peer=3)
    stock.transport.said.clear()
    for _ in range(50):
        stock.append(4, 1, 0, [], commit=1)
    assert stock.transport.said == []
    assert SyncObjConf().leaderFallbackTimeout == 30.0, "so long it believes to lead"

    ours = Ours()
    ours.append(5, 1, 0, [], commit=1, peer=3)
    ours.said()
    ours.append(4, 1, 0, [], commit=1)
    ours.host.wal.sync_all()
    assert [(f.target, f.term, f.message) for f in ours.cluster.frames] == [(2, 5, TermNotice())]
    assert ours.host.node.settings.leader_fallback_s < 2.0


# ---------------------------------------------------------------------- 10


class Exploit:
    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Exploit, "ran", True))


def test_10_a_strangers_first_frame_runs_code() -> None:
    Exploit.ran = False
    body = zlib.compress(pickle.dumps(Exploit(), 2))
    stock = pysyncobj.tcp_connection.TcpConnection(poller=None)
    stock._TcpConnection__readBuffer = struct.pack("i", len(body)) + body
    stock._TcpConnection__processParseMessage()
    assert Exploit.ran

    Exploit.ran = False
    for attack in (body, pickle.dumps(Exploit(), 2), pickle.dumps(Exploit())):
        for decode in (decode_handshake, decode_message):
            with pytest.raises(PeerProtocolError):
                decode(attack)
    assert not Exploit.ran


# ---------------------------------------------------------------------- 11


def test_11_a_forwarded_command_that_is_lost_is_lost(clock: ManualClock) -> None:
    """Nothing sends it again, and when its caller hears something, it is no answer."""
    stock = Stock()
    answers: list[Any] = []
    stock.append(1, 1, 0, [], commit=1)
    stock._applyCommand(b"\x00x", lambda result, error: answers.append(error))
    stock.doTick(0)
    assert stock.kinds_said().count("apply_command") == 1
    for _ in range(100):
        clock.now += 0.3
        stock.append(1, 1, 0, [], commit=1)
        stock.doTick(0)
    assert stock.kinds_said().count("apply_command") == 1 and answers == []
    stock.append(2, 1, 0, [], commit=1, peer=3)
    assert answers == [FAIL_REASON.LEADER_CHANGED], "applied or not, who knows"

    with Simulation(3) as ours:
        ours.run_until_ready()
        ours.done(ours.create(1, "/counter"))
        lost: list[Message] = []

        def lose_the_first(source: int, target: int, message: Message) -> list[float]:
            if isinstance(message, Forward) and not lost:
                lost.append(message)
                return []
            return [0.0]

        ours.fabric.fate = lose_the_first
        reply = ours.done(ours.write(ours.follower_ids[0]))
        assert len(lost) == 1
        assert isinstance(reply.result, DataSet) and reply.result.stat.version == 1


# ---------------------------------------------------------------------- 12


def test_12_compaction_forks_and_holds_the_log_in_memory() -> None:
    assert SyncObjConf().useFork, "unsafe under gRPC's threads and LMDB"
    node = Ours().host.node
    assert not node.conf.useFork
    with pytest.raises(adapter.LibraryPathError):
        node._SyncObj__tryLogCompaction()


# ---------------------------------------------------------------------- 13


def test_13_members_change_when_an_entry_arrives_committed_or_not() -> None:
    membership = b"\x02" + pickle.dumps(("add", "127.0.0.1:9"), 2)
    stock = Stock(dynamicMembershipChange=True)
    stock.hear(
        2,
        type="append_entries",
        term=1,
        commit_index=1,
        entries=[(membership, 2, 1)],
        prevLogIdx=1,
        prevLogTerm=0,
    )
    assert "127.0.0.1:9" in {node.id for node in stock.otherNodes}

    ours = Ours()
    ours.hear(2, 1, AppendEntries(1, 0, 1, ((1, membership),)))
    assert {node.id for node in ours.host.node.otherNodes} == {"2", "3"}
    assert ours.host.node.settings.member_ids == (1, 2, 3)


# ---------------------------------------------------------------------- 14


def test_14_after_a_stall_it_campaigns_before_it_reads(clock: ManualClock) -> None:
    stock = Stock()
    stock.append(1, 1, 0, [], commit=1)
    stock.transport._onNodeConnected(stock.node(2))
    clock.now += 10.0  # The process stood still; its sockets are full of heartbeats.
    stock.doTick(0)
    assert stock.raftCurrentTerm == 2

    ours = Ours()
    ours.append(1, 1, 0, [], commit=1)
    ours.cluster.clock.now += 10.0
    ours.host.node.tick(ours.cluster.clock.now)
    assert ours.host.node.term == 1
    assert not [message for message in ours.said() if isinstance(message, PreVote)]


# ---------------------------------------------------------------------- 15


def test_15_a_part_of_a_snapshot_commits_what_was_never_committed() -> None:
    """A deposed leader's own entries, past the commit index the chunk carries."""
    stock = Stock()
    stock.append(1, 1, 0, [1] * 5, commit=1)
    stock.hear(
        3, type="append_entries", term=2, commit_index=50, serialized=(b"chunk", True, False)
    )
    assert stock.raftCommitIndex == 6
    stock.doTick(0)
    assert len(stock.applied) == 5

    ours = Ours()
    ours.append(1, 1, 0, [1] * 5, commit=1)
    # No message of ours moves the commit index without a matching beginning.
    ours.append(2, 40, 2, [], commit=50, peer=3)
    assert ours.host.node.commit_index == 1
    chunk = {"type": "append_entries", "term": 2, "serialized": (b"", True, False)}
    for body in (pickle.dumps(chunk, 2), zlib.compress(pickle.dumps(chunk, 2))):
        with pytest.raises(PeerProtocolError):
            decode_message(body)


# ---------------------------------------------------------------------- 20


def test_20_anybodys_vote_counts_and_as_often_as_it_comes(clock: ManualClock) -> None:
    stock = Stock(5)
    for node in stock.transport.members.values():
        stock.transport._onNodeConnected(node)
    clock.now += 5.0
    stock.doTick(0)
    vote = {"type": "response_vote", "term": stock.raftCurrentTerm}
    for _ in range(2):
        stock.transport._onMessageReceived(Node("stranger"), vote)
    assert stock._isLeader()

    ours = Ours(5)
    node = ours.host.node
    node.transfer_in_progress, node.election_deadline = True, 0.0
    node.tick(ours.cluster.clock.now)
    assert node.role == CANDIDATE
    for _ in range(3):
        with pytest.raises(PeerProtocolError):
            ours.hear(9, node.term, ResponseVote(False))
        ours.hear(2, node.term, ResponseVote(False))
    assert not node.is_leader


# ---------------------------------------------------------------------- 21


def test_21_importing_it_patches_the_standard_pickle() -> None:
    """What of ours could be hit by that is looked for in test_upstream.py."""
    patched = pickle._Unpickler.dispatch[pickle.SHORT_BINSTRING[0]]  # type: ignore[attr-defined]
    assert patched.__module__ == "pysyncobj.pickle"


# ---------------------------------------------------------------------- 22


def test_22_the_last_part_of_an_entry_goes_out_twice(clock: ManualClock) -> None:
    batch = 1000
    stock = Stock(appendEntriesBatchSizeBytes=batch)
    stock.lead(clock)
    stock.get("raftLog").add(b"\x00" + b"z" * (2 * batch - 10), 3, 1)
    stock.put("raftNextIndex", {node: 3 for node in stock.transport.members.values()})
    stock.transport.said.clear()
    clock.now += 1.0
    stock.doTick(0)
    parts = [m.get("transmission") for to, m in stock.transport.said if to == "2"]
    assert parts == ["start", "finish", "finish"]

    ours = Ours()
    ours.lead()
    ours.host.node.append(b"\x00" + b"z" * (2 * batch - 10))
    ours.host.node.send_entries()
    frames = ours.cluster.take(AppendEntries, source=1, target=2)
    assert len(frames) == 1 and len(frames[0].message.entries) == 1  # type: ignore[union-attr]


# ---------------------------------------------------------------------- 23


def test_23_a_caller_without_a_leader_waits_for_ever(clock: ManualClock) -> None:
    stock = Stock()
    assert stock.conf.commandsWaitLeader
    answers: list[Any] = []
    stock._applyCommand(b"\x00x", lambda result, error: answers.append(error))
    for _ in range(100):
        clock.now += 60.0
        stock.doTick(0)
    assert answers == []

    with Simulation(3) as ours:
        ours.run_until_ready()
        follower = ours.follower_ids[0]
        ours.fabric.isolate(follower, [i for i in ours.ids if i != follower])
        ours.fabric.cut |= {frozenset((a, b)) for a in ours.ids for b in ours.ids if a != b}
        read = ours.replica(follower).read_index(ours.loop.now + 60.0)
        ours.run_for(2.0)
        assert isinstance(ours.write(follower).exception(), NoQuorumError)
        assert isinstance(read.exception(), NoQuorumError)


# ---------------------------------------------------------------------- 24


def test_24_names_are_kept_for_ten_minutes_and_one_side_dials() -> None:
    """Ours resolve at each attempt and both dial: see test_transport.py."""
    conf = SyncObjConf()
    assert conf.dnsCacheTime == 600.0
    assert conf.connectionRetryTime == 5.0

    class Owner:
        _poller = None
        encryptor = None

        def __init__(self) -> None:
            self.conf = conf

        def addOnTickCallback(self, callback: Any) -> None:
            pass

    one, two = TCPNode("127.0.0.1:7001"), TCPNode("127.0.0.1:7002")
    dials = [
        pysyncobj.transport.TCPTransport(Owner(), near, {far})._shouldConnect(far)
        for near, far in ((one, two), (two, one))
    ]
    assert sorted(dials) == [False, True]


def test_the_stock_journal_of_these_tests_is_the_stock_one() -> None:
    assert type(Stock().get("raftLog")) is MemoryJournal
