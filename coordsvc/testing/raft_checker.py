"""What Raft promises, checked at an instant of a `RaftCluster`, told by nothing but what the
replicas hold and say: election safety, log matching, leader completeness, state machine safety
(Ref: Raft, figure 3), and that nothing is said before the sayer's disk keeps it.
"""

from __future__ import annotations

from coordsvc.raft.messages import AppendReply, RequestVote, ResponseVote
from coordsvc.storage.wal_format import Kind
from coordsvc.testing.raft_harness import Frame, RaftCluster, RaftHost


class BrokenPromise(AssertionError):
    pass


class Checker:
    """Make one before anything happens in `cluster`, and call `check` after each step."""

    def __init__(self, cluster: RaftCluster) -> None:
        self.cluster = cluster
        self.leaders: dict[int, int] = {}
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.entries: dict[tuple[int, int], tuple[bytes, int]] = {}
        self.votes: dict[tuple[int, int], int] = {}
        self.commit_seen: dict[int, tuple[RaftHost, int]] = {}
        self.log_seen: dict[RaftHost, int] = {}
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
                if index <= journal.base_index:
                    continue  # Compacted; a checkpoint covers it.
                self.require(
                    index <= journal.last_index and journal.record(index) == (payload, index, term),
                    f"leader {host.replica_id} of term {node.term} lacks committed entry {index}",
                )

    def _check_log(self, host: RaftHost) -> None:
        """An index and a term stand for one entry and one history before it."""
        records, base = host.wal.records, host.journal.base_index
        for kind, index, _, _ in records[self.log_seen.get(host, 0) :]:
            if kind == Kind.ENTRY and base < index <= host.journal.last_index:
                payload, _, term = host.journal.record(index)
                identity = (payload, host.journal.term_at(index - 1))
                known = self.entries.setdefault((index, term), identity)
                self.require(known == identity, f"two entries ({index}, term {term})")
        self.log_seen[host] = len(records)

    def _check_commit(self, host: RaftHost) -> None:
        node, journal = host.node, host.journal
        seen, before = self.commit_seen.get(host.replica_id, (host, journal.base_index))
        if seen is not host:
            before = journal.base_index
        commit = node.commit_index
        self.require(commit >= before, f"the commit index fell from {before} to {commit}")
        self.require(commit <= journal.last_index, f"commit index {commit} beyond the log")
        self.commit_seen[host.replica_id] = (host, commit)
        for index in range(max(before, journal.base_index) + 1, commit + 1):
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
            holders += host.wal.durable.holds(payload, index, term)
        majority = len(self.cluster.ids) // 2 + 1
        self.require(holders >= majority, f"entry {index} committed with {holders} copies on disk")

    def forget_votes_of(self, replica_id: int) -> None:
        self.votes = {key: vote for key, vote in self.votes.items() if key[0] != replica_id}

    def check_frame(self, frame: Frame) -> None:
        """What leaves a replica, its own disk must keep."""
        disk = self.cluster.hosts[frame.source].wal.durable.state
        message = frame.message
        if isinstance(message, ResponseVote | RequestVote):
            # Who asks for votes has voted for itself.
            vote = frame.target if isinstance(message, ResponseVote) else frame.source
            voted_for = self.votes.setdefault((frame.source, frame.term), vote)
            rule = f"replica {frame.source} voted for two in term {frame.term}"
            self.require(voted_for == vote, rule)
        if isinstance(message, ResponseVote | RequestVote | AppendReply):
            self.require(disk.term >= frame.term, f"{frame} said before its term was on disk")
        if isinstance(message, AppendReply) and message.success and disk.term == frame.term:
            held = max(disk.last_index, 1)
            self.require(held >= message.next_index - 1, f"{frame} said before it was on disk")
