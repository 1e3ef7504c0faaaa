"""The library's hazards around consensus: disk, snapshots, apply, wire, callers, connections.

As in test_hazards.py: the stock part does the wrong thing, ours the right one.
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
from pysyncobj import FAIL_REASON, SyncObjConf
from pysyncobj.journal import FileJournal, MemoryJournal
from pysyncobj.node import TCPNode

from coordsvc.core.commands import DataSet
from coordsvc.errors import NoQuorumError
from coordsvc.raft import adapter
from coordsvc.raft.clock import SystemClock
from coordsvc.raft.journal import WalJournal
from coordsvc.raft.messages import (
    AppendEntries,
    Forward,
    Message,
    PeerProtocolError,
    decode_handshake,
    decode_message,
)
from coordsvc.storage.wal import Wal
from coordsvc.testing.fake_disk import FakeDisk
from coordsvc.testing.manual_loop import ManualExecutor
from coordsvc.testing.raft_harness import ManualClock
from coordsvc.testing.raft_simulation import Simulation
from tests.unit.raft.stock_replica import Ours, Stock


@pytest.fixture(autouse=True)
def clock() -> Iterator[ManualClock]:
    """The library reads one clock per process."""
    clock = ManualClock()
    adapter.use_library_clock(clock)
    yield clock
    adapter.use_library_clock(SystemClock())


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
    stock.put("raftNextIndex", dict.fromkeys(stock.transport.members.values(), 3))
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
