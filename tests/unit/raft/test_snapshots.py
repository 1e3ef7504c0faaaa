"""Snapshots from a leader to a follower whose next entry the log no longer holds.

Goal: such a follower comes back with the leader's state, whatever happens to the link, the leader
or itself on the way, and nothing that was acknowledged is lost. Method: `Simulation`, checkpoints
made by hand, small chunks and slow links.
"""

from __future__ import annotations

import pytest

from coordsvc.core.commands import DataSet
from coordsvc.errors import NoQuorumError, OutcomeUnknownError
from coordsvc.raft.adapter import LEADER
from coordsvc.raft.messages import (
    SNAPSHOT_NOT_NEEDED,
    AppendEntries,
    PeerProtocolError,
    SnapshotAck,
    SnapshotChunk,
    SnapshotOffer,
)
from coordsvc.raft.replica_types import SilentDiskError
from coordsvc.testing.raft_snapshots import Info
from tests.unit.raft.replica_scene import ready, version
from tests.unit.raft.snapshot_scene import (
    SLOW,
    SMALL,
    Traffic,
    compact,
    filled,
    leader,
    receiving,
    until_halfway,
    until_installed,
)

# ---------------------------------------------------------------------- starting from a checkpoint


def test_a_replica_starts_from_its_checkpoint_and_the_log_after_it() -> None:
    with filled() as simulation:
        follower = simulation.follower_ids[0]
        covered = simulation.replica(follower).applied_index
        for _ in range(5):
            simulation.done(simulation.write(simulation.leader_id))
        simulation.run_until_equal()
        process = simulation.restart(follower)
        replica = process.replica
        assert (replica.applied_index, replica.commit_index) == (covered, covered)
        assert replica.journal.last_index >= covered + 5, "the log after it is there, unapplied"
        assert version(simulation, follower) == 0
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert version(simulation, follower) == 5
        assert simulation.installs == 0


def test_all_start_from_their_checkpoints() -> None:
    with filled() as simulation:
        for _ in range(5):
            simulation.done(simulation.write(simulation.leader_id))
        disks = {i: simulation.crash(i) for i in simulation.ids}
        for replica_id, disk in disks.items():
            simulation.start(replica_id, disk)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert version(simulation, 1) == 5
        assert isinstance(simulation.done(simulation.write(1)).result, DataSet)


def test_one_replica_alone_starts_from_its_checkpoint() -> None:
    with filled(1) as simulation:
        simulation.done(simulation.write(1))
        simulation.restart(1)
        simulation.run_until_ready()
        assert version(simulation, 1) == 1


def test_a_log_that_does_not_hold_the_checkpoints_entry_is_refused() -> None:
    with filled() as simulation:
        follower = simulation.follower_ids[0]
        checkpoint = simulation.disks[follower].checkpoint
        assert checkpoint is not None
        info, data = checkpoint
        for index, term in ((info.index, info.term + 1), (info.index + 50, info.term)):
            changed = Info(index, term, info.zxid, info.digest)
            simulation.disks[follower].checkpoint = (changed, data)
            with pytest.raises(AssertionError, match="does not hold entry"):
                simulation.restart(follower)
        simulation.disks[follower].checkpoint = (info, data)
        simulation.restart(follower)
        simulation.run_until_ready()


def test_a_checkpoint_may_cover_what_is_applied_and_on_disk() -> None:
    with ready() as simulation:
        replica = leader(simulation)
        simulation.held_disks.add(replica.replica_id)
        simulation.run_until_equal()
        simulation.done(simulation.write(replica.replica_id))
        assert replica.applied_index > replica.journal.durable_index, "others' disks sufficed"
        assert replica.checkpoint_point() is None
        simulation.release_disk(replica.replica_id)
        simulation.run_for(0.1)
        index = replica.applied_index
        assert replica.checkpoint_point() == (index, replica.journal.term_at(index))
        with pytest.raises(AssertionError, match="not applied"):
            replica.compact_log(index + 1)


# ---------------------------------------------------------------------- the way of a snapshot


def test_a_wiped_follower_gets_the_state_and_only_then_votes() -> None:
    with filled() as simulation:
        wiped = simulation.follower_ids[0]
        covered = simulation.replica(wiped).journal.base_index
        states: set[tuple[bool, bool]] = set()
        simulation.wipe(wiped)
        assert not simulation.replica(wiped).is_ready
        end = simulation.loop.now + 3.0
        while simulation.loop.now < end:
            node = simulation.replica(wiped).node
            states.add((simulation.replica(wiped).applied_index >= covered, node.memoryless))
            simulation.run_for(0.002)
        assert states == {(False, True), (True, True), (True, False)}, "never a voter without it"
        assert simulation.installs == 1
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert simulation.processes[wiped].wal.crash().recovered.voter
        simulation.crash(next(i for i in simulation.follower_ids if i != wiped))
        assert isinstance(simulation.done(simulation.write(wiped)).result, DataSet)


def test_what_it_knows_of_the_cluster_comes_with_the_state() -> None:
    with filled() as simulation:
        wiped = simulation.follower_ids[0]
        known = simulation._cluster_ids[wiped]
        simulation.wipe(wiped)
        assert wiped not in simulation._cluster_ids
        until_installed(simulation)
        simulation.run_for(0.1)
        assert simulation._cluster_ids[wiped] == known


def test_a_follower_that_was_away_for_long_gets_the_state() -> None:
    with filled() as simulation:
        away = simulation.follower_ids[0]
        disk = simulation.crash(away)
        for _ in range(20):
            simulation.done(simulation.write(simulation.leader_id))
        compact(simulation)
        simulation.start(away, disk)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert (version(simulation, away), simulation.installs) == (20, 1)
        assert not simulation.replica(away).node.memoryless


def test_a_follower_slightly_behind_needs_none() -> None:
    with filled(settings=SMALL | {"log_keep_bytes": 8_000}) as simulation:
        away = simulation.follower_ids[0]
        disk = simulation.crash(away)
        for _ in range(20):
            simulation.done(simulation.write(simulation.leader_id))
        compact(simulation)
        assert simulation.replica(simulation.leader_id).journal.base_index > 5
        simulation.start(away, disk)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert (version(simulation, away), simulation.installs) == (20, 0)


def test_a_restarted_leader_still_serves_one_that_is_slightly_behind() -> None:
    """What its WAL holds below its checkpoint is in its log again."""
    with filled(settings=SMALL | {"log_keep_bytes": 8_000}) as simulation:
        away = simulation.follower_ids[0]
        disk = simulation.crash(away)
        for _ in range(20):
            simulation.done(simulation.write(simulation.leader_id))
        compact(simulation)
        for replica_id in [p.replica.replica_id for p in simulation.up]:
            simulation.restart(replica_id)
        simulation.start(away, disk)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert (version(simulation, away), simulation.installs) == (20, 0)


def test_two_followers_share_one_copy() -> None:
    with filled(5) as simulation:
        two = simulation.follower_ids[:2]
        for replica_id in two:
            simulation.wipe(replica_id)
        until_installed(simulation, 2)
        simulation.run_until_ready()
        disk = simulation.disks[simulation.leader_id]
        assert disk.made == 1
        simulation.run_until(lambda: disk.dropped == 1)
        statistics = leader(simulation).statistics()
        assert (statistics.snapshots_sending, statistics.snapshots_sent) == ((), 2)


def test_while_it_receives_it_follows_and_disturbs_nobody() -> None:
    with filled(settings=SLOW) as simulation:
        wiped, term = simulation.follower_ids[0], leader(simulation).term
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        replica = simulation.replica(wiped)
        assert replica.has_quorum, "it knows that its leader has a majority"
        assert not replica.is_ready
        futures = [simulation.write(i) for i in simulation.ids if i != wiped for _ in range(5)]
        for future in futures:
            assert isinstance(simulation.done(future).result, DataSet)
        until_installed(simulation)
        assert replica.node.elections_started == 0
        simulation.run_until_ready()
        assert leader(simulation).term == term


def test_the_rate_is_kept() -> None:
    with filled(settings=SLOW) as simulation:
        wiped = simulation.follower_ids[0]
        simulation.wipe(wiped)
        start = simulation.loop.now
        until_installed(simulation)
        sent = leader(simulation).statistics().snapshot_bytes_sent
        took = simulation.loop.now - start
        rate = SLOW["snapshot_bytes_per_s"]
        assert sent > 20_000
        assert rate * 0.7 <= sent / took <= rate * 1.1, (sent, took)


def test_the_window_is_kept() -> None:
    """A disk that takes its time at the receiver holds the sender back."""
    with filled() as simulation:
        wiped = simulation.follower_ids[0]
        simulation.on_start = lambda process: setattr(process.port.incoming, "write_s", 0.05)
        traffic = Traffic(simulation)
        simulation.wipe(wiped)
        acknowledged = most = 0

        def in_flight() -> bool:
            nonlocal acknowledged, most
            acks = [ack.position for ack in traffic.of(SnapshotAck)]
            acknowledged = max(acks, default=0)
            most = max(most, traffic.chunk_bytes(wiped) - acknowledged)
            return simulation.installs == 1

        simulation.run_until(in_flight)
        assert most == SMALL["snapshot_window_bytes"]


# ---------------------------------------------------------------------- faults on the way


def test_a_broken_link_is_no_new_beginning() -> None:
    with filled(settings=SLOW) as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        traffic = Traffic(simulation)
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        held = receiving(simulation, wiped)
        simulation.fabric.isolate(wiped, [i for i in simulation.ids if i != wiped])
        simulation.run_for(0.5)
        assert receiving(simulation, wiped) >= held
        simulation.fabric.mend()
        until_installed(simulation)
        assert simulation.leader_id == first
        assert len({offer.snapshot_id for offer in traffic.of(SnapshotOffer)}) == 1
        size = traffic.of(SnapshotOffer)[0].size_bytes
        again = traffic.chunk_bytes(wiped) - size
        assert again <= 2 * SLOW["snapshot_window_bytes"], "only what was under way is sent again"
        simulation.run_until_ready()


def test_lost_messages_are_sent_again() -> None:
    with filled() as simulation:
        wiped = simulation.follower_ids[0]
        rng = simulation.rng
        lost = 0

        def lossy(source: int, target: int, message: object) -> list[float]:
            nonlocal lost
            if isinstance(message, SnapshotOffer | SnapshotChunk | SnapshotAck):
                if rng.random() < 0.2:
                    lost += 1
                    return []
                if rng.random() < 0.1:
                    return [0.0, rng.random() * 3]
            return [0.0]

        simulation.fabric.fate = lossy
        simulation.wipe(wiped)
        until_installed(simulation, limit_s=60.0)
        assert lost > 5
        simulation.run_until_ready()
        simulation.run_until_equal()


def test_another_leader_begins_with_its_own() -> None:
    with filled(settings=SLOW) as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        second = simulation.follower_ids[1]
        traffic = Traffic(simulation)
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        copies = simulation.processes[first].port.outgoing.held
        assert len(copies) == 1
        simulation.pause(first)
        # A third member remembers nothing: these two elect nobody without the first.
        simulation.run_for(6.0)
        assert simulation.replica(second).node.role == 0
        simulation.resume(first)
        simulation.run_until_ready()
        simulation.run_until_equal()
        ids = {offer.snapshot_id for offer in traffic.of(SnapshotOffer)}
        assert simulation.installs == 1 and len(ids) >= 1
        assert not copies, "dropped when its transfer was over"


def test_a_leader_that_is_lost_takes_its_snapshot_with_it() -> None:
    """Five replicas, so that the others go on: the receiver throws away what it has."""
    with filled(5, settings=SLOW) as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        traffic = Traffic(simulation)
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        simulation.fabric.isolate(first, [i for i in simulation.ids if i != first])
        simulation.run_until(
            lambda: simulation.leader is not None and simulation.leader_id != first
        )
        incoming = simulation.processes[wiped].port.incoming
        simulation.run_until(lambda: "discard" in incoming.steps)
        until_installed(simulation)
        sources = {source for source, _, m in traffic.said if isinstance(m, SnapshotOffer)}
        assert sources == {first, simulation.leader_id}
        old = simulation.processes[first].port.outgoing
        simulation.run_until(lambda: not old.held, 5.0)
        simulation.fabric.mend()
        simulation.run_until_ready()
        simulation.run_until_equal()


def test_a_chunk_of_an_earlier_leader_is_not_written() -> None:
    with filled(5, settings=SLOW) as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        replica = simulation.replica(wiped)
        reception = replica._receiver._reception
        assert reception is not None
        old_term = replica.term
        late = SnapshotChunk(
            reception.offer.snapshot_id, reception.offer.attempt, reception.received, b"x" * 100
        )
        simulation.fabric.isolate(first, [i for i in simulation.ids if i != first])
        simulation.run_until(lambda: replica.term > old_term)
        written = list(simulation.processes[wiped].port.incoming.steps)
        replica._events.received(first, old_term, late)
        simulation.run_for(0.01)
        steps = simulation.processes[wiped].port.incoming.steps
        assert steps[len(written) :].count("write") == 0


@pytest.mark.parametrize("damage", ["flip", "other"])
def test_a_damaged_copy_is_rejected_and_another_one_made(damage: str) -> None:
    with filled() as simulation:
        wiped = simulation.follower_ids[0]
        outgoing = simulation.processes[simulation.leader_id].port.outgoing
        disk = simulation.disks[simulation.leader_id]

        def damaged(offset: int, data: bytes) -> bytes:
            if disk.made > 2:
                return data
            if damage == "other" and b"xxxx" in data:
                # Still a state, and not the one announced.
                return data.replace(b"xxxx", b"yyyy", 1)
            return data if offset else bytes([data[0] ^ 1]) + data[1:]

        outgoing.damage = damaged
        simulation.wipe(wiped)
        until_installed(simulation)
        assert simulation.replica(wiped).statistics().snapshots_rejected == 2
        assert disk.made == 3
        simulation.run_until_ready()
        simulation.run_until_equal()


def test_copies_that_are_always_damaged_are_made_ever_more_rarely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with filled() as simulation:
        wiped = simulation.follower_ids[0]
        outgoing = simulation.processes[simulation.leader_id].port.outgoing
        outgoing.damage = lambda offset, data: bytes(len(data))
        made = simulation.disks[simulation.leader_id]
        simulation.wipe(wiped)
        simulation.run_for(30.0)
        early = made.made
        assert 3 <= early <= 7
        simulation.run_for(600.0)
        assert early < made.made <= early + 15, "but it never gives up"
        assert simulation.installs == 0
        levels = [r.levelname for r in caplog.records if r.message == "snapshot.damaged"]
        assert levels[:4] == ["WARNING"] * 3 + ["ERROR"]
        assert isinstance(simulation.done(simulation.write(simulation.leader_id)).result, DataSet)


@pytest.mark.parametrize("step", ["begin", "write", "verify", "install", "synced", "renamed"])
@pytest.mark.parametrize("kept", [0, 100])
def test_a_receiver_that_is_killed_at_any_point_comes_back(step: str, kept: int) -> None:
    """`kept`: how much that was not synced the disk has all the same."""
    with filled() as simulation:
        away = simulation.follower_ids[0]
        disk = simulation.crash(away)
        for _ in range(20):
            simulation.done(simulation.write(simulation.leader_id))
        compact(simulation)
        killed: list[str] = []

        def kill_once(process: object) -> None:
            incoming = simulation.processes[away].port.incoming

            def kill(at: str) -> None:
                if at == step and not killed:
                    killed.append(at)
                    wal = simulation.processes[away].wal
                    left = simulation.crash(away, kept=min(kept, wal.unsynced))
                    simulation.loop.call_later(0.05, simulation.start, away, left)

            incoming.on_step = kill

        simulation.on_start = kill_once
        simulation.start(away, disk)
        simulation.run_until(lambda: bool(killed))
        simulation.run_for(0.1)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert version(simulation, away) == 20
        replica = simulation.replica(away)
        assert replica.journal.base_index <= replica.applied_index


def test_a_leader_that_is_killed_on_the_way() -> None:
    with filled(5, settings=SLOW) as simulation:
        wiped = simulation.follower_ids[0]
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        killed = simulation.leader_id
        disk = simulation.crash(killed)
        simulation.run_until(
            lambda: simulation.leader is not None and simulation.leader_id != killed
        )
        simulation.start(killed, disk)
        until_installed(simulation)
        simulation.run_until_ready()
        simulation.run_until_equal()


# ---------------------------------------------------------------------- not needed


def test_a_late_snapshot_is_ignored_and_answered() -> None:
    with filled() as simulation:
        follower = simulation.follower_ids[0]
        replica = simulation.replica(follower)
        applied = replica.applied_index
        traffic = Traffic(simulation)
        for index in (2, applied):
            late = SnapshotOffer(bytes(16), 7, index, 1, 3, 4, 1000)
            replica._events.received(simulation.leader_id, replica.term, late)
            simulation.run_for(0.05)
            answer = traffic.of(SnapshotAck)[-1]
            assert (answer.status, answer.position) == (1, applied)
        assert simulation.processes[follower].port.incoming.steps == []
        assert simulation.installs == 0
        newer = SnapshotOffer(bytes(16), 8, applied + 1, replica.term, 3, 4, 1000)
        replica._events.received(simulation.leader_id, replica.term, newer)
        assert simulation.processes[follower].port.incoming.steps == ["begin"]


def test_one_that_catches_up_meanwhile_needs_none() -> None:
    """The new leader's log goes further back than the old one's."""
    with filled(settings=SLOW) as simulation:
        away = simulation.follower_ids[0]
        disk = simulation.crash(away)
        for _ in range(20):
            simulation.done(simulation.write(simulation.leader_id))
        simulation.run_until_equal()
        first = simulation.leader_id
        simulation.checkpoint(first)
        simulation.run_for(0.1)
        simulation.start(away, disk)
        simulation.run_until(lambda: receiving(simulation, away) > 2000)
        simulation.crash(first)
        simulation.run_until(lambda: version(simulation, away) == 20)
        assert "discard" in simulation.processes[away].port.incoming.steps
        assert simulation.installs == 0
        simulation.restart(first)
        simulation.run_until_ready()


def test_what_it_has_reached_by_itself_is_thrown_away() -> None:
    with filled() as simulation:
        follower = simulation.follower_ids[0]
        replica = simulation.replica(follower)
        offer = SnapshotOffer(bytes(16), 7, replica.applied_index + 2, replica.term, 3, 4, 1000)
        replica._events.received(simulation.leader_id, replica.term, offer)
        simulation.run_for(0.01)
        assert replica.statistics().snapshot_receiving == (0, 1000)
        for _ in range(3):
            simulation.done(simulation.write(simulation.leader_id))
        simulation.run_until_equal()
        assert replica.statistics().snapshot_receiving is None
        assert simulation.processes[follower].port.incoming.steps == ["begin", "discard"]


def test_chunks_alone_keep_a_receiver_with_its_leader() -> None:
    with filled(settings=SLOW | {"snapshot_bytes_per_s": 4096}) as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        snapshot = (SnapshotOffer, SnapshotChunk)
        simulation.fabric.fate = lambda source, target, message: (
            [0.0] if target != wiped or isinstance(message, snapshot) else []
        )
        start = simulation.loop.now
        while simulation.installs == 0:
            simulation.run_for(0.01)
            assert simulation.replica(wiped).leader_id == first
        assert simulation.loop.now - start > 2.0, "longer than an election timeout"


# ---------------------------------------------------------------------- what no member says


def test_what_makes_no_sense_is_refused() -> None:
    with filled(settings=SLOW) as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        replica, term = simulation.replica(wiped), leader(simulation).term
        reception = replica._receiver._reception
        transfer = leader(simulation)._sender._transfers[wiped]
        assert reception is not None
        name, attempt, size = transfer.snapshot.snapshot_id, transfer.attempt, reception.offer
        for position in (-1, size.size_bytes + 1):
            with pytest.raises(PeerProtocolError):
                ack = SnapshotAck(name, attempt, 0, position, True)
                leader(simulation)._events.received(wiped, term, ack)
        for data in (b"", bytes(size.size_bytes)):
            with pytest.raises(PeerProtocolError):
                chunk = SnapshotChunk(name, attempt, reception.received, data)
                replica._events.received(first, term, chunk)
        for offer in (
            SnapshotOffer(b"short", 1, 900, 1, 1, 1, 1000),
            SnapshotOffer(bytes(16), 1, 900, 1, 1, 1, 0),
            SnapshotOffer(bytes(16), 1, 0, 1, 1, 1, 1000),
        ):
            with pytest.raises(PeerProtocolError):
                replica._events.received(first, term, offer)


# ---------------------------------------------------------------------- slower than checkpoints


def test_newer_checkpoints_leave_the_copy_under_way_alone() -> None:
    with filled(settings=SLOW, checkpoint_s=0.2) as simulation:
        wiped = simulation.follower_ids[0]
        traffic = Traffic(simulation)
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        offered = traffic.of(SnapshotOffer)[0].index
        written = 0
        while simulation.installs == 0:
            simulation.done(simulation.write(simulation.leader_id))
            written += 1
            simulation.run_for(0.03)
            assert leader(simulation).statistics().base_index <= offered, "kept for the follower"
        assert written > 5
        assert len({offer.snapshot_id for offer in traffic.of(SnapshotOffer)}) == 1
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert simulation.installs == 1, "it went on from the log"
        simulation.done(simulation.write(simulation.leader_id))
        simulation.run_for(1.0)
        assert leader(simulation).statistics().base_index > offered, "and then it may go"


def test_beyond_the_cap_it_starts_over_with_a_newer_copy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with filled(settings=SLOW | {"log_bytes_max": 4000}) as simulation:
        wiped = simulation.follower_ids[0]
        traffic = Traffic(simulation)
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        first = traffic.of(SnapshotOffer)[0].index
        for _ in range(40):
            simulation.done(simulation.write(simulation.leader_id))
        simulation.checkpoint(simulation.leader_id)
        simulation.run_for(0.1)
        assert leader(simulation).journal.weight_bytes < 4000 + 300, "to an entry"
        assert leader(simulation).journal.base_index > first
        assert "snapshot.outdated" in [record.message for record in caplog.records]
        until_installed(simulation)
        assert traffic.of(SnapshotOffer)[-1].index > first
        simulation.run_until_ready()
        simulation.run_until_equal()


def test_the_log_is_kept_while_a_receiver_starts_anew() -> None:
    """Between the last chunk and its first word the leader makes checkpoints."""
    with filled(settings=SMALL) as simulation:
        wiped = simulation.follower_ids[0]
        simulation.wipe(wiped)
        until_installed(simulation)
        assert not simulation.processes[wiped].network.ends, "it is not connected"
        for _ in range(20):
            simulation.done(simulation.write(simulation.leader_id))
        simulation.checkpoint(simulation.leader_id)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert simulation.installs == 1


def test_the_log_is_kept_while_a_copy_is_made() -> None:
    with filled() as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        simulation.processes[first].port.outgoing.make_s = 0.5
        base = leader(simulation).journal.base_index
        simulation.wipe(wiped)
        simulation.run_until(lambda: simulation.disks[first].made == 1)
        for _ in range(5):
            simulation.done(simulation.write(first))
        simulation.checkpoint(first)
        simulation.run_for(0.1)
        assert leader(simulation).journal.base_index == base
        simulation.run_until_ready()
        assert (simulation.installs, simulation.disks[first].made) == (1, 1)


def test_the_log_is_kept_while_one_catches_up_from_it() -> None:
    """It is back with the state, and takes what was written meanwhile entry by entry."""
    one_by_one = {"append_bytes_soft": 1, "append_window_messages": 1}
    with filled(settings=SLOW | one_by_one) as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        for _ in range(100):
            simulation.done(simulation.write(first))
        until_installed(simulation)
        simulation.run_until(lambda: leader(simulation).statistics().snapshots_sent == 1)
        behind = simulation.replica(wiped).applied_index
        assert behind < leader(simulation).applied_index - 20
        simulation.checkpoint(first)
        simulation.run_for(0.01)
        assert leader(simulation).journal.base_index <= simulation.replica(wiped).applied_index
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert simulation.installs == 1


def test_the_log_is_kept_when_it_says_by_itself_that_it_has_the_state() -> None:
    """Back with it, it refuses the offer before it has answered any append of this connection."""
    with filled(settings=SMALL) as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        fate = simulation.fabric.fate
        is_late = False

        def appends_are_late(source: int, target: int, message: object) -> list[float]:
            if is_late and target == wiped and isinstance(message, AppendEntries):
                return [0.3]
            return fate(source, target, message)

        simulation.fabric.fate = appends_are_late
        traffic = Traffic(simulation)
        simulation.wipe(wiped)
        until_installed(simulation)
        is_late = True
        simulation.run_until(
            lambda: any(ack.status == SNAPSHOT_NOT_NEEDED for ack in traffic.of(SnapshotAck))
        )
        for _ in range(5):
            simulation.done(simulation.write(first))
            simulation.checkpoint(first)
            simulation.run_for(0.05)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert simulation.installs == 1, "it went on from the log"
        assert leader(simulation).statistics().snapshots_sent == 1
        simulation.checkpoint(first)
        simulation.run_for(0.1)
        assert leader(simulation).journal.base_index == leader(simulation).applied_index


def test_a_copy_that_nobody_waits_for_any_more_is_dropped() -> None:
    with filled(settings=SMALL | {"snapshot_keep_s": 0.2}) as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        outgoing = simulation.processes[first].port.outgoing
        outgoing.make_s = 2.0
        simulation.wipe(wiped)
        simulation.run_until(lambda: bool(outgoing.held))
        simulation.crash(wiped)
        simulation.run_for(4.0)
        assert not outgoing.held


def test_a_copy_that_is_ready_when_its_maker_leads_no_longer_is_dropped() -> None:
    with filled(settings=SMALL) as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        outgoing = simulation.processes[first].port.outgoing
        outgoing.make_s = 5.0
        simulation.wipe(wiped)
        simulation.run_until(lambda: bool(outgoing.held))
        simulation.fabric.isolate(first, [i for i in simulation.ids if i != first])
        simulation.run_until(lambda: simulation.replica(first).node.role != LEADER)
        assert outgoing.held, "it is still being made"
        simulation.run_for(6.0)
        assert not outgoing.held


def test_nothing_is_kept_for_ever_for_one_that_does_not_come_back() -> None:
    with filled(settings=SLOW | {"snapshot_keep_s": 5.0}) as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        offered = leader(simulation).journal.base_index
        simulation.crash(wiped)
        simulation.done(simulation.write(first))
        simulation.checkpoint(first)
        simulation.run_for(4.0)
        assert leader(simulation).statistics().snapshots_sending == (wiped,)
        assert leader(simulation).journal.base_index == offered
        simulation.run_for(2.0)
        assert leader(simulation).statistics().snapshots_sending == ()
        assert not simulation.processes[first].port.outgoing.held
        simulation.checkpoint(first)
        simulation.run_for(0.1)
        assert leader(simulation).journal.base_index > offered


# ---------------------------------------------------------------------- the end of a replica's part


def test_when_it_is_installed_the_replica_has_stopped_for_good() -> None:
    with filled(settings=SLOW) as simulation:
        wiped = simulation.follower_ids[0]
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        process = simulation.processes[wiped]
        replica = process.replica
        undecided = simulation.write(wiped, timeout_s=60.0)
        simulation.run_for(0.1)
        read = replica.read_index(simulation.loop.now + 60.0)
        caught_up = replica.wait_applied(1 << 40, simulation.loop.now + 60.0)
        frozen: list[tuple[int, int]] = []
        before = replica.journal.last_index

        def on_step(step: str) -> None:
            if step == "install":
                # What was in the sockets already is not heard any more.
                base, term = replica.journal.last_index, replica.journal.last_term
                late = AppendEntries(base, term, base + 1, ((replica.term, b"\x00late"),))
                replica._events.received(simulation.leader_id, replica.term, late)
                frozen.append((replica.applied_index, replica.journal.last_index))

        process.port.incoming.on_step = on_step
        simulation.run_until(lambda: bool(frozen))
        # Until it is back nothing moves here, whatever is said to it.
        written = simulation.write(wiped)
        late_read = replica.read_index(simulation.loop.now + 5.0)
        assert isinstance(written.exception(), NoQuorumError)
        assert isinstance(late_read.exception(), NoQuorumError)
        assert isinstance(read.exception(), NoQuorumError)
        assert isinstance(caught_up.exception(), NoQuorumError)
        assert undecided.done()
        assert isinstance(undecided.exception(), NoQuorumError | OutcomeUnknownError)
        assert not replica.has_quorum and not replica.is_ready
        assert replica.checkpoint_point() is None
        until_installed(simulation)
        assert frozen == [(replica.applied_index, replica.journal.last_index)]
        assert replica.journal.last_index == before
        assert not process.network.ends


def test_an_undecided_write_of_one_that_is_replaced_is_unknown() -> None:
    """It lags, its write was proposed, and the answer comes with the state instead."""
    with filled(settings=SLOW) as simulation:
        away = simulation.follower_ids[0]
        others = [i for i in simulation.ids if i != away]
        future = simulation.write(away, timeout_s=60.0)
        simulation.fabric.mute |= {(other, away) for other in others}
        simulation.run_for(0.05)
        for _ in range(5):
            simulation.done(simulation.write(simulation.leader_id))
        for other in others:
            simulation.checkpoint(other)
        simulation.run_for(0.05)
        simulation.fabric.isolate(away, others)
        simulation.fabric.mend()
        until_installed(simulation)
        assert isinstance(future.exception(), OutcomeUnknownError)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert version(simulation, away) == 6


def test_a_disk_that_hangs_during_an_install_ends_the_process() -> None:
    """It neither takes part nor serves by then; to stay so for ever would help nobody."""
    with filled(settings=SLOW) as simulation:
        simulation.expected_faults = (SilentDiskError,)
        wiped = simulation.follower_ids[0]
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        process = simulation.processes[wiped]

        def on_step(step: str) -> None:
            if step == "verify":
                simulation.held_disks.add(wiped)

        process.port.incoming.on_step = on_step
        simulation.run_until(lambda: process.fault is not None, 60.0)
        assert "install" in process.port.incoming.steps
        assert "synced" not in process.port.incoming.steps


def test_a_replica_that_stops_installs_nothing_more() -> None:
    with filled(settings=SLOW) as simulation:
        wiped = simulation.follower_ids[0]
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        process = simulation.processes[wiped]
        process.loop.create_task(process.replica.stop(hand_over=False, drain_s=0.0))
        simulation.run_for(5.0)
        assert process.port.incoming.steps[-1] == "discard"
        assert "install" not in process.port.incoming.steps


# ---------------------------------------------------------------------- leadership


def test_leadership_is_not_handed_to_one_that_is_being_sent_a_snapshot() -> None:
    with filled(settings=SLOW) as simulation:
        away, first = simulation.follower_ids[0], simulation.leader_id
        other = simulation.follower_ids[1]
        disk = simulation.crash(away)
        simulation.done(simulation.write(first))
        compact(simulation)
        simulation.start(away, disk)
        until_halfway(simulation, away)
        assert leader(simulation).statistics().snapshots_sending == (away,)
        handed = simulation.processes[first].loop.create_task(leader(simulation).hand_over())
        assert simulation.done(handed) is True
        assert simulation.leader_id == other
        simulation.run_until_ready()


def test_a_leader_reports_how_far_its_followers_are() -> None:
    with filled(settings=SLOW) as simulation:
        wiped = simulation.follower_ids[0]
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        statistics = leader(simulation).statistics()
        matches = dict(statistics.match_indexes)
        assert matches[wiped] == 0
        other = next(i for i in simulation.follower_ids if i != wiped)
        assert matches[other] == statistics.last_index
        assert statistics.base_index == leader(simulation).journal.base_index > 5
        assert statistics.snapshots_sending == (wiped,)
        assert statistics.snapshot_bytes_sent >= receiving(simulation, wiped) > 0
        assert simulation.replica(wiped).statistics().match_indexes == ()
