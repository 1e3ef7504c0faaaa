"""Raft's promises under a network that loses, repeats and reorders, disks that forget what was not
synced, and replicas that crash, are cut off and are wiped.

Goal: none of the rules in `Checker` is ever broken, and the checker is able to notice: for each
way in which an implementation is known to go wrong, the same runs must fail (`MUTANTS`).
Method: real nodes, journals and outboxes; every step is drawn from a seed, and every rule is
checked after it. A failure names its seed: `run(Shape(size, steps), seed)` repeats it.

The transport is FIFO; the handlers must stand more than it does, for what was sent on one
connection may arrive after what was sent on the next.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from coordsvc.raft import node as node_module
from coordsvc.raft import outbox as outbox_module
from coordsvc.raft.journal import WalJournal
from coordsvc.raft.messages import AppendReply, RequestVote, ResponseVote
from coordsvc.raft.node import RaftNode
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.storage.wal_format import Kind
from coordsvc.testing.raft_harness import NOWHERE, Frame, RaftCluster, RaftHost


class BrokenPromise(AssertionError):
    pass


class Shape(NamedTuple):
    size: int
    steps: int


class Checker:
    """What must hold at every instant, told by nothing but what the replicas hold and say."""

    def __init__(self, cluster: RaftCluster) -> None:
        self.cluster = cluster
        self.leaders: dict[int, int] = {}
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.entries: dict[tuple[int, int], tuple[bytes, int]] = {}
        self.votes: dict[tuple[int, int], int] = {}
        self.commit_seen: dict[int, tuple[RaftHost, int]] = {}
        self.log_seen: dict[int, int] = {}
        cluster.on_frame = self.check_frame

    def require(self, holds: bool, rule: str) -> None:
        if not holds:
            raise BrokenPromise(rule)

    def check(self) -> None:
        for host in self.cluster.up:
            self._check_log(host)
            self._check_commit(host)
            self._check_leader(host)

    def _check_leader(self, host: RaftHost) -> None:
        node, journal = host.node, host.journal
        if not node.is_leader:
            return
        before = self.leaders.get(node.term)
        self.require(before in (None, host.replica_id), f"two leaders in term {node.term}")
        if before is None:
            self.leaders[node.term] = host.replica_id
            for index, (term, payload) in self.committed.items():
                self.require(
                    index <= journal.last_index and journal.record(index) == (payload, index, term),
                    f"leader {host.replica_id} of term {node.term} lacks committed entry {index}",
                )

    def _check_log(self, host: RaftHost) -> None:
        """An index and a term stand for one entry and one history before it."""
        records = host.wal.records
        for record in records[self.log_seen.get(id(host), 0) :]:
            if record.kind == Kind.ENTRY and record.index <= host.journal.last_index:
                payload, index, term = host.journal.record(record.index)
                identity = (payload, host.journal.term_at(index - 1))
                known = self.entries.setdefault((index, term), identity)
                self.require(known == identity, f"two entries ({index}, term {term})")
        self.log_seen[id(host)] = len(records)

    def _check_commit(self, host: RaftHost) -> None:
        node, journal = host.node, host.journal
        seen, before = self.commit_seen.get(host.replica_id, (host, journal.base_index))
        if seen is not host:
            before = journal.base_index
        commit = node.commit_index
        self.require(commit >= before, f"the commit index fell from {before} to {commit}")
        self.require(commit <= journal.last_index, f"commit index {commit} beyond the log")
        self.commit_seen[host.replica_id] = (host, commit)
        for index in range(before + 1, commit + 1):
            payload, _, term = journal.record(index)
            if index not in self.committed:
                self._check_durable(index, payload, term)
            known = self.committed.setdefault(index, (term, payload))
            self.require(known == (term, payload), f"two entries committed at {index}")
        if commit > journal.base_index and commit in self.committed:
            payload, _, term = journal.record(commit)
            self.require(self.committed[commit] == (term, payload), f"committed {commit} changed")

    def _check_durable(self, index: int, payload: bytes, term: int) -> None:
        holders = 0
        for host in self.cluster.hosts.values():
            recovered = host.wal.crash().recovered
            holders += (payload, index, term) in recovered.entries
        majority = len(self.cluster.ids) // 2 + 1
        self.require(holders >= majority, f"entry {index} committed with {holders} copies on disk")

    def forget_votes_of(self, replica_id: int) -> None:
        self.votes = {key: vote for key, vote in self.votes.items() if key[0] != replica_id}

    def check_frame(self, frame: Frame) -> None:
        """What leaves a replica, its own disk must keep."""
        on_disk = self.cluster.hosts[frame.source].wal.crash().recovered
        message = frame.message
        if isinstance(message, ResponseVote):
            voted_for = self.votes.setdefault((frame.source, frame.term), frame.target)
            self.require(
                voted_for == frame.target,
                f"replica {frame.source} voted for two in term {frame.term}",
            )
        if isinstance(message, ResponseVote | RequestVote | AppendReply):
            self.require(on_disk.term >= frame.term, f"{frame} said before its term was on disk")
        if isinstance(message, AppendReply) and message.success and on_disk.term == frame.term:
            held = on_disk.base_index + len(on_disk.entries) if on_disk.entries else 1
            self.require(held >= message.next_index - 1, f"{frame} said before it was on disk")


@dataclass
class Tally:
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, checker: Checker, cluster: RaftCluster, actions: Counter[str]) -> None:
        self.counts["elections"] += len(checker.leaders)
        self.counts["commits"] += len(checker.committed)
        self.counts.update(actions)


class Chaos:
    """Draws what happens next."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        self.rng = random.Random(seed)
        self.cluster = RaftCluster(shape.size, seed=seed, settings=self.small_messages)
        self.checker = Checker(self.cluster)
        self.actions: Counter[str] = Counter()
        self.payloads = 0
        self.down: dict[int, Any] = {}
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

    def remember(self) -> None:
        """A wiped replica becomes a voter when its disk holds all that was committed anywhere: a
        round begun after its return cannot have told it more."""
        for host in self.cluster.up:
            if not host.node.memoryless or not self.checker.committed:
                continue
            entries = host.wal.crash().recovered.entries
            known = max(self.checker.committed)
            if host.node.commit_index == known and entries and entries[-1][1] >= known:
                host.wal.set_voter(True)
                host.wal.sync_all()
                host.node.memoryless = False
                self.actions["remembered"] += 1


def run(shape: Shape, seed: int, tally: Tally | None = None) -> None:
    """Raises BrokenPromise, or whatever assertion of the node itself broke, naming the seed."""
    chaos = Chaos(shape, seed)
    try:
        for _ in range(shape.steps):
            chaos.step()
    except AssertionError as error:
        raise BrokenPromise(f"{shape} seed {seed}: {error!r}") from error
    truncations = sum(host.node.truncated_entries for host in chaos.cluster.hosts.values())
    chaos.actions["truncated"] += truncations
    if tally is not None:
        tally.add(chaos.checker, chaos.cluster, chaos.actions)


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


def acknowledge_the_logs_end(patch: pytest.MonkeyPatch) -> None:
    def reply(self: RaftNode, leader: int, *, success: bool, next_index: int) -> None:
        end = self.journal.last_index + 1 if success else next_index
        self._send(leader, AppendReply(success, end, self.memoryless))

    patch.setattr(RaftNode, "_reply", reply)


def count_replies_of_any_term(patch: pytest.MonkeyPatch) -> None:
    original = RaftNode.admit

    def admit(self: RaftNode, peer: int, term: int, message: Any, now: float) -> bool:
        return isinstance(message, AppendReply) or original(self, peer, term, message, now)

    patch.setattr(RaftNode, "admit", admit)


def count_oneself_before_the_disk(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WalJournal, "add", _add_and_call_durable)


def _add_and_call_durable(self: WalJournal, command: bytes, idx: int, term: int) -> None:
    self._records.append((command, idx, term))
    self._store.append_entry(command, idx, term)
    self.durable_index = idx


def keep_durable_index_on_truncation(patch: pytest.MonkeyPatch) -> None:
    original = WalJournal.truncate_from

    def truncate(self: WalJournal, index: int) -> None:
        durable = self.durable_index
        original(self, index)
        self.durable_index = durable

    patch.setattr(WalJournal, "truncate_from", truncate)


def acknowledge_before_the_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outbox_module, "SKIPS_THE_DISK", outbox_module.SKIPS_THE_DISK | {AppendReply})


def vote_before_the_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outbox_module, "SKIPS_THE_DISK", outbox_module.SKIPS_THE_DISK | {ResponseVote})


def count_votes_of_the_memoryless(patch: pytest.MonkeyPatch) -> None:
    def is_quorum(members: int, agreeing: Any, memoryless: Any) -> bool:
        return len(agreeing) > members // 2

    patch.setattr(node_module, "is_quorum", is_quorum)


def commit_of_an_earlier_term(patch: pytest.MonkeyPatch) -> None:
    """Ref: Raft, figure 8."""

    def advance(self: RaftNode) -> bool:
        held = [self.journal.durable_index, *(self.match_index(peer) for peer in self._peers)]
        index = sorted(held, reverse=True)[len(held) // 2]
        if index > self.commit_index:
            self.commit_index = index
        return False

    patch.setattr(RaftNode, "advance_commit", advance)


def vote_for_a_shorter_log(patch: pytest.MonkeyPatch) -> None:
    original = RaftNode._on_request_vote

    def on_request(self: RaftNode, peer: int, message: RequestVote) -> None:
        original(self, peer, RequestVote(1 << 40, 1 << 40))

    patch.setattr(RaftNode, "_on_request_vote", on_request)


MUTANTS: list[Callable[[pytest.MonkeyPatch], None]] = [
    truncate_always,
    commit_to_the_logs_end,
    acknowledge_the_logs_end,
    count_replies_of_any_term,
    count_oneself_before_the_disk,
    keep_durable_index_on_truncation,
    acknowledge_before_the_sync,
    vote_before_the_sync,
    count_votes_of_the_memoryless,
    commit_of_an_earlier_term,
    vote_for_a_shorter_log,
]
