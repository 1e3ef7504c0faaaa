"""Raft's promises under a network that loses, repeats and reorders, disks that forget what was not
synced, and replicas that crash, are cut off and are wiped.

Goal: none of the rules in `Checker` is ever broken, and the checker is able to notice: for each
way in which an implementation is known to go wrong, the same runs must fail (`MUTANTS`).
Method: real nodes, journals and outboxes; every step is drawn from a seed, and every rule is
checked after it. A failure names the call that repeats it. Ways to fail that chance seldom finds
are in `test_raft_scripts.py`.

The transport is FIFO; the handlers must stand more than it does, for what was sent on one
connection may arrive after what was sent on the next.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from coordsvc.raft import node as node_module
from coordsvc.raft import outbox as outbox_module
from coordsvc.raft.journal import WalJournal
from coordsvc.raft.messages import AppendReply, RequestVote, ResponseVote
from coordsvc.raft.node import RaftNode
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.testing.manual_wal import ManualWal
from coordsvc.testing.raft_checker import BrokenPromise, Checker
from coordsvc.testing.raft_harness import NOWHERE, RaftCluster, RaftHost


class Shape(NamedTuple):
    size: int
    steps: int
    is_compacting: bool = False
    """Replicas drop their logs, and who needs what is gone is given a leader's state."""


class Chaos:
    """Draws what happens next."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        self.rng = random.Random(seed)
        self.cluster = RaftCluster(shape.size, seed=seed, settings=self.small_messages)
        self.checker = Checker(self.cluster)
        self.actions: Counter[str] = Counter()
        self.payloads = 0
        self.down: dict[int, ManualWal] = {}
        """The disks of those that are down."""
        weighted: list[tuple[int, Callable[[], None]]] = [
            (260, self.deliver),
            (120, self.sync),
            (80, self.turn),
            (50, self.propose),
            (25, self.calm),
            (15, self.rewind),
            (20, self.copy),
            (6, self.lose),
            (20, self.relink),
            (25, self.campaign),
            (3, self.crash),
            (12, self.start),
            (5, self.cut),
            (20, self.mend),
            (1, self.wipe),
            (40, self.remember),
            *([(25, self.compact), (25, self.install)] if shape.is_compacting else []),
        ]
        self.choices = [action for weight, action in weighted for _ in range(weight)]

    def step(self) -> None:
        self.rng.choice(self.choices)()
        self.checker.check()

    def small_messages(self, replica_id: int) -> ReplicaSettings:
        """A few entries each, so that messages overlap in many ways."""
        peers = dict.fromkeys(range(1, self.shape.size + 1), NOWHERE)
        return ReplicaSettings(replica_id, peers, append_bytes_soft=self.rng.choice((4, 12, 40)))

    def random_host(self) -> RaftHost:
        return self.rng.choice(list(self.cluster.hosts.values()))

    def deliver(self) -> None:
        frames = self.cluster.frames
        if frames:
            # Mostly the oldest, so that things move on; otherwise any.
            at = 0 if self.rng.random() < 0.6 else self.rng.randrange(len(frames))
            self.cluster.deliver(frames.pop(at))

    def calm(self) -> None:
        """A few round trips without a fault, on some of the connections."""
        for _ in range(self.rng.randint(1, 3)):
            for frame in list(self.cluster.frames):
                if self.rng.random() < 0.85:
                    self.cluster.frames.remove(frame)
                    self.cluster.deliver(frame)
            for host in self.cluster.up:
                if self.rng.random() < 0.7:
                    host.wal.sync_all()
                    host.node.tick(self.cluster.clock.now)
                    host.end_turn(self.cluster.clock.now)

    def copy(self) -> None:
        if self.cluster.frames:
            frame = self.rng.choice(self.cluster.frames)
            self.cluster.frames.insert(self.rng.randint(0, len(self.cluster.frames)), frame)
            self.actions["copies"] += 1

    def lose(self) -> None:
        frames = self.cluster.frames
        if frames:
            frames.pop(self.rng.randrange(len(frames)))
        if len(frames) > 60:
            del frames[: len(frames) // 2]

    def sync(self) -> None:
        host = self.random_host()
        if host.is_up:
            host.wal.flush()
            host.wal.sync()

    def rewind(self) -> None:
        """A leader may send anything again that is not known to be held."""
        for host in self.cluster.leaders:
            peer = self.rng.choice(host.node.settings.peer_ids)
            low, high = host.node.match_index(peer) + 1, host.journal.last_index + 1
            host.node.set_next_index(peer, self.rng.randint(max(low, 2), max(high, 2)))
            host.node.send_entries()

    def turn(self) -> None:
        self.cluster.clock.now += self.rng.choice((0.001, 0.01, 0.05, 0.15))
        for host in self.cluster.up:
            if self.rng.random() < 0.8:
                host.node.tick(self.cluster.clock.now)
                host.end_turn(self.cluster.clock.now)

    def propose(self) -> None:
        for host in self.cluster.leaders:
            for _ in range(self.rng.randint(1, 3)):
                self.payloads += 1
                host.node.append(b"\x00%d" % self.payloads)
            host.end_turn(self.cluster.clock.now)

    def campaign(self) -> None:
        """At any moment, as after a transfer of leadership; mostly when nobody leads."""
        host = self.random_host()
        if self.cluster.leaders and self.rng.random() < 0.6:
            return
        if host.is_up and not host.node.is_leader and not host.node.memoryless:
            host.node.transfer_in_progress = True
            host.node.election_deadline = 0.0
            host.node.tick(self.cluster.clock.now)
            host.wal.flush()

    def relink(self) -> None:
        one, other = self.rng.sample(self.cluster.ids, 2)
        self.cluster.unlink(one, other)
        self.cluster.link(one, other)

    def crash(self) -> None:
        host = self.random_host()
        if host.is_up and len(self.down) < len(self.cluster.ids) - 1:
            kept = self.rng.randint(0, host.wal.unsynced)
            self.down[host.replica_id] = self.cluster.crash(host.replica_id, kept=kept)
            self.actions["crashes"] += 1

    def start(self) -> None:
        if self.down:
            replica_id = self.rng.choice(sorted(self.down))
            self.cluster.start(replica_id, self.down.pop(replica_id))
            self.cluster.link_all()

    def cut(self) -> None:
        """Mostly a leader, which then goes on adding what will never be committed."""
        leaders = [host.replica_id for host in self.cluster.leaders]
        self.cluster.isolate(self.rng.choice(leaders or self.cluster.ids))
        self.actions["cuts"] += 1

    def mend(self) -> None:
        self.cluster.link_all()

    def wipe(self) -> None:
        doubtful = [host for host in self.cluster.up if host.node.memoryless]
        if self.down or len(doubtful) >= len(self.cluster.ids) // 2:
            return
        replica_id = self.rng.choice(self.cluster.ids)
        self.cluster.wipe(replica_id)
        self.checker.forget_votes_of(replica_id)
        self.cluster.link_all(forgotten=[replica_id])
        self.actions["wipes"] += 1

    def compact(self) -> None:
        """A checkpoint covers what is committed and on disk here."""
        host = self.random_host()
        if host.is_up:
            covered = min(host.node.commit_index, host.journal.durable_index)
            covered -= self.rng.choice((0, 0, 1, 5))
            if host.journal.drop_front(covered, self.rng.choice((0, 0, 500)), 1000):
                host.wal.drop_before(host.journal.base_index + 1)
                self.actions["compactions"] += 1

    def install(self) -> None:
        """Whoever a leader believes to need its state gets that of some moment since the leader's
        log begins, however late, and starts anew with it."""
        for leader in self.cluster.leaders:
            for peer in sorted(leader.node.needs_snapshot & leader.node.linked):
                host, base = self.cluster.hosts[peer], leader.journal.base_index
                index = self.rng.randint(base, leader.node.commit_index)
                if not host.is_up or host.node.term > leader.node.term:
                    continue
                if index <= host.node.commit_index:
                    self.actions["late snapshots"] += 1
                    continue
                host.wal.install(index, leader.journal.term_at(index))
                host.wal.sync_all()
                self.cluster.restart(peer)
                self.cluster.link_all()
                self.actions["installs"] += 1

    def remember(self) -> None:
        """A wiped replica becomes a voter when its disk holds all that was committed anywhere: a
        round begun after its return cannot have told it more."""
        for host in self.cluster.up:
            if not host.node.memoryless or not self.checker.committed:
                continue
            known = max(self.checker.committed)
            if host.node.commit_index == known <= host.wal.durable.state.last_index:
                host.wal.set_voter(True)
                host.wal.sync_all()
                host.node.memoryless = False
                self.actions["remembered"] += 1


def run(shape: Shape, seed: int) -> Counter[str]:
    """Returns what happened. Raises BrokenPromise, also for an assertion of the node's own."""
    chaos = Chaos(shape, seed)
    try:
        for _ in range(shape.steps):
            chaos.step()
    except AssertionError as error:
        raise BrokenPromise(f"run({shape}, {seed}): {error!r}") from error
    happened = chaos.actions
    happened["elections"] = len(chaos.checker.leaders)
    happened["commits"] = len(chaos.checker.committed)
    hosts = chaos.cluster.hosts.values()
    happened["truncated"] = sum(host.node.truncated_entries for host in hosts)
    return happened


# ----------------------------------------------------------------------------------- mutants


def truncate_always(patch: pytest.MonkeyPatch) -> None:
    """The library's way: everything behind the message's beginning goes."""

    def take(self: RaftNode, prev: int, entries: tuple[tuple[int, bytes], ...]) -> None:
        if prev < self.journal.last_index:
            self.journal.truncate_from(prev + 1)
        for offset, (term, payload) in enumerate(entries):
            self.journal.add(payload, prev + 1 + offset, term)

    patch.setattr(RaftNode, "_take_entries", take)


def commit_to_the_logs_end(patch: pytest.MonkeyPatch) -> None:
    original = RaftNode._on_append_entries

    def on_append(self: RaftNode, leader: int, message: Any, now: float) -> None:
        original(self, leader, message, now)
        beyond = min(message.commit_index, self.journal.last_index)
        self.commit_index = max(self.commit_index, beyond)

    patch.setattr(RaftNode, "_on_append_entries", on_append)


def count_oneself_before_the_disk(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WalJournal, "add", _add_and_call_durable)


def _add_and_call_durable(self: WalJournal, command: bytes, idx: int, term: int) -> None:
    self._records.append((command, idx, term))
    self._store.append_entry(command, idx, term)
    self.durable_index = idx


def acknowledge_before_the_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outbox_module, "SKIPS_THE_DISK", outbox_module.SKIPS_THE_DISK | {AppendReply})


def vote_before_the_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outbox_module, "SKIPS_THE_DISK", outbox_module.SKIPS_THE_DISK | {ResponseVote})


def count_votes_of_the_memoryless(patch: pytest.MonkeyPatch) -> None:
    def is_quorum(members: int, agreeing: Any, memoryless: Any) -> bool:
        return len(agreeing) > members // 2

    patch.setattr(node_module, "is_quorum", is_quorum)


def vote_for_a_shorter_log(patch: pytest.MonkeyPatch) -> None:
    original = RaftNode._on_request_vote

    def on_request(self: RaftNode, peer: int, message: RequestVote) -> None:
        original(self, peer, RequestVote(1 << 40, 1 << 40))

    patch.setattr(RaftNode, "_on_request_vote", on_request)


def vote_after_an_install(patch: pytest.MonkeyPatch) -> None:
    """A state that was received passes for a memory of what was promised."""
    original = ManualWal.install

    def install(self: ManualWal, index: int, term: int) -> None:
        original(self, index, term)
        self.set_voter(True)

    patch.setattr(ManualWal, "install", install)


def keep_the_tail_of_another_log(patch: pytest.MonkeyPatch) -> None:
    """A snapshot takes the place of the entries up to it, and what follows is left there."""

    def install(self: ManualWal, index: int, term: int) -> None:
        if self._appended.last_index >= index:
            term = self._appended.term_at(index)
        original(self, index, term)

    original = ManualWal.install
    patch.setattr(ManualWal, "install", install)


COMPACTION_MUTANTS = [vote_after_an_install, keep_the_tail_of_another_log]

MUTANTS: list[Callable[[pytest.MonkeyPatch], None]] = [
    truncate_always,
    commit_to_the_logs_end,
    count_oneself_before_the_disk,
    acknowledge_before_the_sync,
    vote_before_the_sync,
    count_votes_of_the_memoryless,
    vote_for_a_shorter_log,
]

BLOCKS = [
    (Shape(3, 800, is_compacting=True), range(2_000, 2_150)),
    (Shape(5, 900, is_compacting=True), range(6_000, 6_080)),
    (Shape(3, 800), range(1_000, 1_100)),
    (Shape(3, 800), range(1_100, 1_200)),
    (Shape(5, 900), range(5_000, 5_060)),
    (Shape(5, 900), range(5_060, 5_120)),
]

FLOORS = {
    # In each block; without these the runs would prove little.
    "elections": 250,
    "commits": 1_500,
    "truncated": 250,
    "crashes": 200,
    "cuts": 200,
    "copies": 700,
    "wipes": 30,
    "remembered": 15,
}


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "seeds"), BLOCKS, ids=str)
def test_no_promise_is_broken(shape: Shape, seeds: range) -> None:
    tally: Counter[str] = Counter()
    for seed in seeds:
        tally += run(shape, seed)
    short = {name: tally[name] for name, floor in FLOORS.items() if tally[name] < floor}
    assert not short, f"too little happened: {short}"
    if shape.is_compacting:
        assert tally["compactions"] > 500 and tally["installs"] > 40, tally


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_checker_notices(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(BrokenPromise):
        for seed in range(300):
            run(Shape(3, 600), seed)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", COMPACTION_MUTANTS)
def test_the_checker_notices_with_compacted_logs(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(BrokenPromise):
        for seed in range(300):
            run(Shape(3, 800, is_compacting=True), seed)
