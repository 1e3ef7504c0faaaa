"""Connections that once lost more than they carried, and peers that were not who they seemed.

Goal: a rolled-back replica is told so until it has caught up, and nothing acknowledged is lost;
what a broken connection swallowed is sent again at once; a name that cannot be looked up ends
nothing; of two processes with one data directory the one that is heard stays. Method:
`Simulation`, `PeerMemories` by itself, and `PeerNetwork` over real sockets.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coordsvc.core.commands import DataSet
from coordsvc.raft.messages import (
    FORMAT_VERSION,
    FORMAT_VERSION_MIN,
    MAGIC,
    AppendEntries,
    Forward,
    Hello,
    Message,
    ReadIndex,
    ResponseVote,
    Round,
    Verdict,
    encode_handshake,
)
from coordsvc.raft.peer_memory import PeerMemories
from coordsvc.raft.transport import PING_AFTER_S, LinkInfo
from coordsvc.testing.manual_wal import ManualWal
from coordsvc.testing.raft_simulation import Simulation
from tests.unit.raft.peer_scene import HOST, Cluster, Member, Stranger, wait_for
from tests.unit.raft.replica_scene import ready, version

# ---------------------------------------------------------------------- disks rolled back


def lose(simulation: Simulation, *kinds: type[Message], target: int = 0) -> None:
    """Messages of those kinds to that replica, or to anybody."""
    simulation.fabric.fate = lambda source, receiver, message: (
        [] if target in (0, receiver) and isinstance(message, kinds) else [0.0]
    )


def copy_of_disk(simulation: Simulation, replica_id: int) -> ManualWal:
    return simulation.processes[replica_id].wal.crash()


@pytest.mark.parametrize("change_of_term", [False, True], ids=["same term", "older term"])
def test_a_rolled_back_replica_killed_before_it_wrote_that_down_is_told_again(
    change_of_term: bool,
) -> None:
    """An entry is on two replicas; one is rolled back, told so, and killed before its disk knows.
    If the other one dies before it has caught up, nobody may go on without the entry."""
    with ready() as simulation:
        simulation.run_until_equal()
        rolled_back = simulation.follower_ids[0]
        old_disk = copy_of_disk(simulation, rolled_back)
        if change_of_term:
            holder = simulation.follower_ids[1]
            leader = simulation.leader
            assert leader is not None and leader.node.transfer_to(holder)
            simulation.run_until(lambda: bool(simulation.processes[holder].leading))
            simulation.run_until_ready()
            simulation.run_until_equal()
        holder = simulation.leader_id
        (absent,) = {*simulation.ids} - {holder, rolled_back}
        simulation.fabric.isolate(absent, [holder, rolled_back])
        assert simulation.done(simulation.write(holder)).result.stat.version == 1
        simulation.crash(rolled_back)
        lose(simulation, AppendEntries, target=rolled_back)
        disk = old_disk
        for _ in range(3):
            first = simulation.start(rolled_back, disk).replica
            simulation.held_disks.add(rolled_back)
            assert not first.node.memoryless, "its disk says it is a voter"
            simulation.run_until(lambda first=first: first.node.memoryless, limit_s=1.0)  # type: ignore[misc]
            disk = simulation.crash(rolled_back)
            assert disk.recovered.voter
            simulation.held_disks.discard(rolled_back)
        last = simulation.start(rolled_back, disk).replica
        simulation.run_until(lambda: holder in last.node.linked)
        disk_of_holder = simulation.crash(holder)
        simulation.fabric.mend()
        simulation.run_for(10.0)
        assert simulation.leader is None
        simulation.fabric.fate = lambda source, target, message: [0.0]
        simulation.start(holder, disk_of_holder)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert version(simulation, absent) == 1


def test_a_rolled_back_replica_that_has_caught_up_is_not_told_any_more() -> None:
    with ready() as simulation:
        simulation.run_until_equal()
        follower = simulation.follower_ids[0]
        old_disk = copy_of_disk(simulation, follower)
        simulation.done(simulation.write(simulation.leader_id))
        simulation.run_until_equal()
        simulation.crash(follower)
        replica = simulation.start(follower, old_disk).replica
        simulation.run_until(lambda: replica.node.memoryless, limit_s=1.0)
        simulation.run_until_ready()
        again = simulation.restart(follower).replica
        told = 0
        while not again.is_ready:
            simulation.run_for(0.002)
            told += again.node.memoryless
        assert told == 0


def test_a_replica_that_has_forgotten_its_vote_is_told_so() -> None:
    """It might vote for another one in the same term."""
    with ready() as simulation:
        simulation.run_until_equal()
        voter, candidate = simulation.follower_ids
        old_disk = copy_of_disk(simulation, voter)
        votes = []

        def fate(source: int, target: int, message: Message) -> list[float]:
            """All that it ever says in the candidate's term is its vote."""
            if (source, target) == (voter, candidate) and isinstance(message, ResponseVote):
                votes.append(message)
            is_of_leader = (source, target) == (candidate, voter)
            return [] if is_of_leader and isinstance(message, AppendEntries | Round) else [0.0]

        simulation.fabric.fate = fate
        old_leader = simulation.leader
        assert old_leader is not None and old_leader.node.transfer_to(candidate)
        simulation.run_until(lambda: bool(votes and simulation.processes[candidate].leading))
        simulation.run_for(0.01)
        simulation.crash(voter)
        replica = simulation.start(voter, old_disk).replica
        simulation.run_until(lambda: replica.node.memoryless, limit_s=1.0)


class Memory:
    """What replica 1 remembers of replica 2, through greetings of one process after another."""

    def __init__(self) -> None:
        self.memories = PeerMemories((2, 3))
        self._processes = 0

    def greet(self, term: int, index: int, *, uuid: bytes = b"u" * 16) -> bool:
        """Another process of replica 2 links; whether it is told that it has forgotten."""
        self._processes += 1
        process = self._processes.to_bytes(16, "big")
        hello = Hello(
            *(MAGIC, FORMAT_VERSION, FORMAT_VERSION_MIN, b"", 2, 1),
            *(uuid, term, index, 1 << 24, (1, 2, 3), process),
        )
        forgotten = self.memories.has_forgotten(hello)
        self.memories.linked(2, LinkInfo(uuid, process, forgotten))
        return forgotten


def test_what_was_acknowledged_stays_on_record_until_it_is_held_again() -> None:
    memory = Memory()
    assert not memory.greet(5, 10)
    memory.memories.acknowledged(2, 5, 12)
    assert [memory.greet(5, 11) for _ in range(3)] == [True] * 3
    assert [memory.greet(4, 99) for _ in range(3)] == [True] * 3
    memory.memories.acknowledged(2, 5, 11)
    assert memory.greet(5, 11), "on its way, and not there"
    assert not memory.greet(5, 12)
    assert not memory.greet(6, 3), "in a later term a log may be shorter"


def test_a_term_is_remembered_with_a_vote_and_lowers_nothing() -> None:
    memory = Memory()
    memory.greet(5, 10)
    memory.memories.acknowledged(2, 5, 12)
    memory.memories.acknowledged(2, 5, 0)
    assert memory.greet(5, 11)
    memory.memories.acknowledged(2, 6, 0)
    assert memory.greet(5, 12) and not memory.greet(6, 2)


def test_a_wiped_disk_is_told_once_and_then_known_by_its_new_name() -> None:
    memory = Memory()
    memory.greet(5, 10)
    memory.memories.acknowledged(2, 5, 12)
    assert memory.greet(0, 1, uuid=b"v" * 16)
    assert not memory.greet(1, 1, uuid=b"v" * 16)


# ---------------------------------------------------------------------- connections that break


class LostTouch:
    """The connection between the leader and a follower breaks, comes back while the follower
    knows of no leader, and what it said before is lost."""

    def __init__(self, simulation: Simulation, *kinds: type[Message]) -> None:
        self.simulation = simulation
        self.leader, self.follower = simulation.leader_id, simulation.follower_ids[0]
        lose(simulation, *kinds)

    def until_back_in_touch(self) -> None:
        simulation, replica = self.simulation, self.simulation.replica(self.follower)
        term = replica.term
        simulation.run_for(0.003)
        simulation.fabric.isolate(self.follower, [self.leader])
        simulation.fabric.fate = lambda source, target, message: [0.0]
        simulation.run_until(lambda: replica.leader_id is None)
        simulation.fabric.mend()
        simulation.run_until(lambda: self.leader in replica.node.linked)
        assert replica.leader_id is None
        simulation.run_until(lambda: replica.leader_id == self.leader)
        assert replica.term == term, "nobody was elected"


def test_a_write_lost_with_a_connection_is_sent_again_when_the_leader_is_heard_again() -> None:
    with ready() as simulation:
        simulation.run_for(0.5)
        lost = LostTouch(simulation, Forward)
        write = simulation.write(lost.follower)
        lost.until_back_in_touch()
        simulation.run_until(write.done, limit_s=0.1)
        assert isinstance(write.result().result, DataSet)


def test_a_read_lost_with_a_connection_is_asked_again_when_the_leader_is_heard_again() -> None:
    with ready() as simulation:
        simulation.run_for(0.5)
        lost = LostTouch(simulation, ReadIndex)
        read = simulation.replica(lost.follower).read_index(simulation.loop.now + 5.0)
        lost.until_back_in_touch()
        simulation.run_until(read.done, limit_s=0.1)
        assert read.exception() is None


@pytest.mark.parametrize("kind", [Forward, ReadIndex])
def test_what_a_replaced_connection_carried_is_said_again_at_once(kind: type[Message]) -> None:
    """Two connections of one pair may cross: one is dropped, and neither side is told of a loss."""
    with ready() as simulation:
        simulation.run_for(0.5)
        leader, follower = simulation.leader_id, simulation.follower_ids[0]
        events = simulation.processes[follower].network.events
        hello = simulation.processes[leader].network.events.hello(follower)
        lose(simulation, kind)
        write = simulation.write(follower)
        read = simulation.replica(follower).read_index(simulation.loop.now + 5.0)
        simulation.run_for(0.02)
        assert not (write.done() and read.done())
        simulation.fabric.fate = lambda source, target, message: [0.0]
        events.link_up(leader, LinkInfo(hello.uuid, hello.process, forgotten=False))
        simulation.run_until(lambda: write.done() and read.done(), limit_s=0.1)
        assert write.exception() is None and read.exception() is None


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize("host", ["n" * 70 + ".example", "replica..example"])
async def test_a_name_that_cannot_be_encoded_does_not_end_the_dialler(
    cluster: Cluster, host: str
) -> None:
    one, two = await cluster.start(1), await cluster.start(2)
    attempts = count_attempts(one)
    one.settings.peers[2] = (host, cluster.ports[2])  # type: ignore[index]
    one.network.dial()
    await wait_for(lambda: attempts.count(2) >= 3)
    assert not any(dialler.done() for dialler in one.network._dialers) and not one.faults
    one.settings.peers[2] = (HOST, cluster.ports[2])  # type: ignore[index]
    await wait_for(lambda: 2 in one.linked and 1 in two.linked)


def count_attempts(member: Member) -> list[int]:
    dial_once, attempts = member.network._dial_once, []

    async def dial(peer: int) -> None:
        attempts.append(peer)
        await dial_once(peer)

    member.network._dial_once = dial  # type: ignore[method-assign]
    return attempts


async def test_a_dialler_that_ends_by_a_fault_is_reported(cluster: Cluster) -> None:
    """Otherwise a peer would never be dialled again, and nobody know why."""
    member = Member(1, {1: cluster.ports[1], 2: cluster.ports[2]})

    async def explode(peer: int) -> None:
        raise ZeroDivisionError("a bug in dialling")

    member.network._dial_once = explode  # type: ignore[method-assign]
    member.network.dial()
    await wait_for(lambda: bool(member.faults))
    assert [type(fault) for fault in member.faults] == [ZeroDivisionError]
    await member.network.close()


# ---------------------------------------------------------------------- twins


class Twins:
    """Replica 2 and, as if its data directory had been copied, another process that says the same
    name and uuid. Replica 1 dialled the first, as the lower id: that connection is preferred."""

    def __init__(self, one: Member, original: Member) -> None:
        self.one, self.original = one, original
        self._hello = original.hello

    @classmethod
    async def make(cls, cluster: Cluster) -> Twins:
        one, original = await cluster.start(1), await cluster.start(2)
        twins = cls(one, original)
        original.hello = twins.hello_of_original  # type: ignore[method-assign]
        await one.network._dial_once(2)
        await wait_for(lambda: 2 in one.linked and 1 in original.linked)
        return twins

    def hello_of_original(self, peer: int, **changes: Any) -> Hello:
        return self._hello(peer, **{"process": b"o" * 16, **changes})

    async def dial_copy(self) -> Stranger:
        copy = await Stranger.dial(self.one)
        copy.write(encode_handshake(self._hello(1, process=b"c" * 16)))
        return copy

    def silence_original(self, seconds: float) -> None:
        self.one.network._links[2].heard_at -= seconds


async def test_a_process_with_a_copied_data_directory_is_refused_while_the_first_is_heard(
    cluster: Cluster,
) -> None:
    twins = await Twins.make(cluster)
    one, original = twins.one, twins.original
    for _ in range(3):
        copy = await twins.dial_copy()
        verdict = await copy.read_handshake()
        assert isinstance(verdict, Verdict) and not verdict.accepted
        assert "another process" in verdict.reason
        assert await copy.is_closed()
    one.say(2, Round(1))
    original.say(1, Round(2))
    await wait_for(lambda: bool(one.heard and original.heard))
    assert (one.ups, one.linked[2].process) == (1, b"o" * 16)


async def test_a_process_with_a_copied_data_directory_is_admitted_when_the_first_is_silent(
    cluster: Cluster,
) -> None:
    """The first one's machine may be gone without a word."""
    twins = await Twins.make(cluster)
    twins.silence_original(2 * PING_AFTER_S + 0.1)
    copy = await Stranger.dial(twins.one)
    await copy.shake(twins._hello(1, process=b"c" * 16))
    await wait_for(lambda: twins.one.linked[2].process == b"c" * 16)
    await wait_for(lambda: 1 not in twins.original.linked)
    for _ in range(20):
        await asyncio.sleep(0)
    assert twins.one.network.linked(2)
    copy.writer.close()


async def test_the_same_process_may_come_again_while_it_is_heard(cluster: Cluster) -> None:
    """It noticed a break that the other side has not."""
    twins = await Twins.make(cluster)
    again = await Stranger.dial(twins.one)
    again.write(encode_handshake(twins.hello_of_original(1)))
    assert isinstance(await again.read_handshake(), Hello)
    verdict = await again.read_handshake()
    assert isinstance(verdict, Verdict) and verdict.accepted
    again.writer.close()
