"""Disks that are slow and queues that are long: what once took for ever, or a whole turn.

Goal: a cluster with slow disks elects; no turn's work grows with what is queued. Work is counted,
not timed. Method: `Simulation`; a real node on a manual clock that each message moves; an `Origin`
whose log is played by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from coordsvc.core.commands import (
    APPLIED,
    NO_CALLER,
    AppliedBatch,
    Deleted,
    DeleteOp,
    OriginRegistered,
    Reply,
    Write,
)
from coordsvc.errors import NoQuorumError, OutcomeUnknownError
from coordsvc.raft.messages import AppendEntries
from coordsvc.raft.origin import Origin, SentBatch
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.testing.raft_harness import Frame, RaftCluster
from tests.unit.raft.raft_scene import settled
from tests.unit.raft.replica_scene import ready, version

# ---------------------------------------------------------------------- slow disks


@pytest.mark.parametrize("sync_s", [0.6, 1.0])
def test_a_cluster_with_slow_disks_elects_when_its_leader_is_killed(sync_s: float) -> None:
    """A candidacy that is given up before its syncs are done costs the next one a sync more."""
    took = []
    for seed in range(6):
        with ready(seed=seed) as simulation:
            assert simulation.done(simulation.write(1)).result.stat.version == 1
            simulation.run_until_equal()
            for replica_id in simulation.ids:
                simulation.disk_s[replica_id] = sync_s
            simulation.crash(simulation.leader_id)
            elected = simulation.run_until(
                lambda simulation=simulation: simulation.leader is not None,  # type: ignore[misc]
                limit_s=15.0,
                step_s=0.02,
            )
            took.append(elected)
            assert version(simulation, simulation.leader_id) == 1
    # Two candidates may split the votes; mostly the first one wins, after the candidate's sync, its
    # voter's, and that of its first entry.
    assert sorted(took)[2] < 4 * sync_s


# ---------------------------------------------------------------------- many entries to send

ENTRIES = 200_000
MESSAGE_S = 0.001
"""What it takes to encode and say one message, as the manual clock has it."""


class LongLog:
    """A leader whose followers lack so many small entries, and what it says in each turn."""

    def __init__(self, entries: int) -> None:
        self.cluster: RaftCluster = settled()
        self.leader = self.cluster.hosts[1]
        self.said: list[AppendEntries] = []
        self.cluster.on_frame = self._on_frame
        for _ in range(entries):
            self.leader.node.append(b"\x00" + b"y" * 100)

    def _on_frame(self, frame: Frame) -> None:
        if isinstance(frame.message, AppendEntries):
            self.said.append(frame.message)
            self.cluster.clock.now += MESSAGE_S

    def turn(self) -> list[AppendEntries]:
        self.said.clear()
        self.leader.node.send_due(self.cluster.clock.now)
        return list(self.said)

    def has_more(self) -> bool:
        return self.leader.node.is_sending


def test_one_turn_sends_a_bounded_part_of_what_followers_lack() -> None:
    log = LongLog(ENTRIES)
    settings = log.leader.node.settings
    messages_max = round(settings.send_slice_s / MESSAGE_S) + len(settings.peer_ids)
    turns = 0
    while log.has_more():
        said = log.turn()
        assert 1 <= len(said) <= messages_max
        assert max(len(message.entries) for message in said) <= settings.append_entries_max
        turns += 1
    assert turns >= settings.append_window_messages // messages_max
    for peer in settings.peer_ids:
        assert len(log.cluster.take(AppendEntries, target=peer)) == settings.append_window_messages


def test_what_one_turn_did_not_send_follows_in_later_ones() -> None:
    log = LongLog(20_000)
    assert sum(len(message.entries) for message in log.turn()) < 20_000
    assert log.has_more()
    log.cluster.run_until(lambda: log.cluster.settled)
    assert not log.has_more()
    assert all(host.log == log.leader.log for host in log.cluster.up)


def test_every_follower_gets_its_part_of_a_turn() -> None:
    log = LongLog(20_000)
    log.turn()
    shares = [len(log.cluster.take(AppendEntries, target=peer)) for peer in (2, 3)]
    assert min(shares) >= 1 and max(shares) - min(shares) <= 1


def test_a_replica_with_more_to_send_takes_another_turn_at_once() -> None:
    with ready() as simulation:
        leader = simulation.leader
        assert leader is not None
        for replica_id in simulation.follower_ids:
            # Nothing but the leader itself makes it take a turn.
            simulation.fabric.mute.add((replica_id, leader.replica_id))
        simulation.run_for(0.01)
        sent: list[int] = []
        send_entries = leader.node.send_entries

        def send_some(**to: bool) -> None:
            """As if the time for sending were over after each message, five times."""
            send_entries(**to)
            sent.append(leader.node.clock.wall_ms())
            leader.node._append_due = len(sent) < 5

        leader.node.send_entries = send_some  # type: ignore[method-assign]
        leader.node._append_due = True
        simulation.run_until(lambda: len(sent) >= 5, limit_s=0.05)
        assert sent[-1] - sent[0] <= 1, "not by the timer"


# ---------------------------------------------------------------------- many writes that wait

INCARNATION = 10


class Counted(list[Any]):
    """A list that counts how often somebody walks it."""

    walks = 0

    def __iter__(self) -> Iterator[Any]:
        self.walks += 1
        return super().__iter__()


class Writes:
    """An origin that is registered, and the log's answers to it."""

    def __init__(self, **limits: Any) -> None:
        self.origin = Origin(ReplicaSettings(1, **limits), b"n" * 16)
        self.origin.registered(Reply(INCARNATION, OriginRegistered(INCARNATION)), 0.0)

    def submit(self, deadline: float = 1000.0, now: float = 0.0) -> asyncio.Future[Reply]:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.origin.submit_to(Write(NO_CALLER, DeleteOp("/x")), deadline, now, future)
        return future

    def cut(self, now: float = 0.0) -> SentBatch:
        (batch,) = self.origin.cut(now)
        batch.waiters = Counted(batch.waiters)
        return batch

    def apply(self, batch: SentBatch) -> None:
        replies = (Reply(1, Deleted()),) * batch.commands
        seq = batch.seq
        applied = AppliedBatch(1, INCARNATION, seq, APPLIED, seq + 1, replies)
        for future, reply in self.origin.on_applied(applied, 0.0):
            future.set_result(reply)


def walks(batch: SentBatch) -> int:
    assert isinstance(batch.waiters, Counted)
    return batch.waiters.walks


async def test_checking_deadlines_looks_at_batches_that_are_due_only() -> None:
    writes = Writes()
    batches, futures = [], []
    for n in range(10):
        futures.append([writes.submit(now=float(n)) for _ in range(100)])
        batches.append(writes.cut(float(n) / 10))
    for n in range(40):
        writes.origin.check_deadlines(n / 10)
    assert [walks(batch) for batch in batches] == [0] * 10
    unknown_after_s = ReplicaSettings(1).unknown_outcome_after_s
    for _ in range(5):
        writes.origin.check_deadlines(unknown_after_s + 0.21)
    assert [walks(batch) for batch in batches] == [1, 1, 1] + [0] * 7
    told = [all(future.done() for future in each) for each in futures]
    assert told == [True] * 3 + [False] * 7
    assert isinstance(futures[0][0].exception(), OutcomeUnknownError)


async def test_each_caller_is_told_at_its_own_deadline() -> None:
    writes = Writes()
    futures = [writes.submit(deadline) for deadline in (3.0, 1.0, 1000.0, 2.0)]
    batch = writes.cut()
    told = []
    for now in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.4, 4.5, 9.0):
        writes.origin.check_deadlines(now)
        told.append([future.done() for future in futures])
    one, two, three = [0, 1, 0, 0], [0, 1, 0, 1], [1, 1, 0, 1]
    everyone = [1, 1, 1, 1]
    assert told == [[0] * 4, one, one, two, two, three, three, everyone, everyone]
    assert walks(batch) == 4


async def test_an_origin_takes_a_bounded_number_of_writes() -> None:
    writes = Writes(origin_commands_max=6)
    for _ in range(4):
        assert not writes.submit().done()
    batch = writes.cut()
    waiting = [writes.submit() for _ in range(2)]
    assert not any(future.done() for future in waiting)
    refused = writes.submit()
    assert isinstance(refused.exception(), NoQuorumError), "certainly not applied: try again"
    assert (writes.origin.undecided, writes.origin.waiting) == (4, 2)
    writes.apply(batch)
    assert [writes.submit().done() for _ in range(5)] == [False] * 4 + [True]


async def test_what_an_origin_gave_up_counts_no_longer() -> None:
    writes = Writes(origin_commands_max=3)
    sent = [writes.submit() for _ in range(3)]
    writes.cut()
    assert writes.submit().done()
    writes.origin.abandon("over")
    assert all(isinstance(future.exception(), OutcomeUnknownError) for future in sent)
    assert [writes.submit().done() for _ in range(4)] == [False] * 3 + [True]
