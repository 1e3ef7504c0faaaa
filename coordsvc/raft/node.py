"""The Raft rules: elections, appending, committing. No sockets, no disk, no waiting.

The node is told messages, links and time, and says messages through `send`; the journal and the
transport see to it that a promise leaves only when the disk keeps it. The rules the library has
otherwise, and why they are replaced:

* An append truncates on a proven conflict only; what lies beyond a matching message stays, and the
  commit index moves to the end of what that message covers. The library cuts on every append, so a
  late copy of an old message removes entries that were acknowledged.
* A leader counts itself only up to what its own disk holds, and members whose memory is in doubt
  only when all agree (`quorum.py`).
* Before an election the others are asked whether they would vote (pre-vote), so that a replica
  that was cut off does not depose a healthy leader. A broken connection to the leader starts that
  at once. Ref: Raft dissertation, 9.6.
* Who is told only that the commit index moved does not answer: nothing new would be in it.
* A follower whose next entry this leader's log no longer holds gets heartbeats, and a snapshot from
  elsewhere (`needs_snapshot`); its refusals of the heartbeats are not answered at once.
* A replica that knows its cluster helps no empty log to lead: when all have given up what they
  held, the cluster stands still instead of beginning anew.
* After a stall of this process, what waits in its sockets is handled before anyone is judged.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from coordsvc.raft.adapter import CANDIDATE, FOLLOWER, LEADER, RaftAdapter
from coordsvc.raft.clock import Clock
from coordsvc.raft.journal import WalJournal
from coordsvc.raft.messages import (
    AppendEntries,
    AppendReply,
    Forward,
    Message,
    PeerProtocolError,
    PreVote,
    PreVoteReply,
    RequestVote,
    ResponseVote,
    TermNotice,
    TimeoutNow,
)
from coordsvc.raft.quorum import is_quorum
from coordsvc.raft.settings import ReplicaSettings

logger = logging.getLogger(__name__)

STALL_S = 0.2
"""A turn that comes so late means this process stood still."""
AFTER_STALL_S = 0.1
"""How long the sockets are given to speak after a stall before anyone is judged."""
LEADER_LOST_S = (0.005, 0.05)
"""A replica whose connection to the leader broke asks for votes after a time in this range."""
NOTHING_LEFT_ATTEMPTS = 8
"""Elections that one with an empty log had to leave to others before it says so: some 8 s."""
NEVER = -1e9
JUDGE_EACH_S = 0.02
"""How often a leader asks itself whether a majority still follows."""
RETRY_S = (0.05, 0.2)
"""First wait after a failed election without a leader; doubles up to the election timeout."""

Window = deque[tuple[int, int]]
"""Unacknowledged appends to one peer: (last index, bytes)."""


class TwoLeadersError(AssertionError):
    """Another replica leads in this replica's own term: the cluster's promise is broken."""


class RaftNode(RaftAdapter):
    def __init__(
        self,
        settings: ReplicaSettings,
        journal: WalJournal,
        clock: Clock,
        rng: random.Random,
        send: Callable[[int, Message], None],
        *,
        memoryless: bool,
        on_role: Callable[[int, int], None],
        applied_index: int | None = None,
        is_of_cluster: bool = False,
    ) -> None:
        """`applied_index`: of the checkpoint that was loaded; None: the log's base.
        `is_of_cluster`: its data directory belongs to a cluster that was formed before."""
        self._is_of_cluster = is_of_cluster
        self._send = send
        self._on_role = on_role
        self.memoryless = memoryless
        """Whether this replica may have forgotten; cleared when its disk says otherwise."""
        self.linked: set[int] = set()
        self.peer_memoryless: set[int] = set()
        self._acknowledged = (0, 0)
        """(term, index) of the furthest that its leader was told."""
        self._told_leader = (0, 0, 0)
        """(leader, term, index) of the last success on the present connection; none since a
        refusal."""
        self._windows: dict[int, Window] = {i: deque() for i in settings.peer_ids}
        self._probing: set[int] = set(settings.peer_ids)
        """Peers whose log is not known to match yet: one append at a time, for each message sent
        ahead of the first answer would be refused and sent again."""
        self.needs_snapshot: set[int] = set()
        """A leader's followers whose next entry its log no longer holds."""
        self._base_tried: set[int] = set()
        """Peers that were asked whether they hold the log's base: those that do not need a
        snapshot, whatever they said of the log's end."""
        self._next_base_heartbeat = 0.0
        self._told_commit: dict[int, int] = dict.fromkeys(settings.peer_ids, 0)
        """The commit index last sent on the present connection: a full window holds it back."""
        self._votes: dict[int, bool] = {}
        self._pre_votes: dict[int, bool] | None = None
        self._attempt = 0
        self._campaigned_at = 0.0
        self._vote_lsn = 0
        self._vote_was_slow = False
        self._failed_attempts = 0
        self._leader_heard_at = NEVER
        self._leader_lost = False
        self._last_tick = clock.monotonic()
        self._judge_from = 0.0
        self._majority_judged_at = NEVER
        self._patience_s = 0.0
        """How long the present leader may be silent."""
        self._asked_by = 0
        """The peer that forwarded last is told first: a client of its own waits."""
        self._is_quiet = False
        self._unjudged_s = 0.0
        self._append_due = False
        self._next_heartbeat = 0.0
        self._peers = settings.peer_ids
        self.elections_started = 0
        self.truncated_entries = 0
        applied = journal.base_index if applied_index is None else applied_index
        super().__init__(settings, journal, clock, rng, self._role_changed, applied)
        # Nobody is known to lead yet; a cluster of one need not wait for anybody.
        first_wait = rng.uniform(*RETRY_S) if self._peers else 0.0
        self.election_deadline = clock.monotonic() + first_wait

    journal: WalJournal

    # ------------------------------------------------------------------------ time

    def tick(self, now: float) -> None:
        """Timers, and for a leader the commit rule. Called once a turn."""
        may_judge = self._may_judge(now)
        if self.role == LEADER:
            if self.commit_index < self.journal.last_index:
                self.advance_commit()
            if may_judge and now - self._majority_judged_at >= JUDGE_EACH_S:
                self._majority_judged_at = now
                self._step_down_without_majority(now)
        elif may_judge and now >= self.election_deadline:
            self._deadline_passed(now)

    def _may_judge(self, now: float) -> bool:
        """Not for a moment after a stall, but stalls put it off for one election timeout at most
        all together."""
        since = now - self._last_tick
        if since > STALL_S and self._unjudged_s < self.settings.election_timeout_s_min:
            self._judge_from = now + AFTER_STALL_S
        self._last_tick = now
        may_judge = now >= self._judge_from
        self._unjudged_s = 0.0 if may_judge else self._unjudged_s + since
        return may_judge

    def _step_down_without_majority(self, now: float) -> None:
        since = now - self.settings.leader_fallback_s
        heard = {self.settings.replica_id}
        heard.update(peer for peer in self._peers if self.heard_at(peer) > since)
        if not self._is_quorum(heard):
            self.step_down(now)

    def step_down(self, now: float) -> None:
        self.set_leader(None)
        self.role = FOLLOWER
        self.election_deadline = now + self._SyncObj__generateRaftTimeout()

    def _is_quorum(self, agreeing: set[int]) -> bool:
        in_doubt = set(self.peer_memoryless)
        if self.memoryless:
            in_doubt.add(self.settings.replica_id)
        return is_quorum(len(self._peers) + 1, agreeing, in_doubt)

    # ------------------------------------------------------------------------ elections

    def _is_vote_under_way(self, now: float) -> bool:
        """A candidacy costs two syncs, its own and its voters'. With a slow disk one that is given
        up before that only adds a sync to the next; so it waits for its own, and then for twice
        what that took."""
        if self.role != CANDIDATE:
            return False
        if self.journal.synced_lsn < self._vote_lsn:
            self._vote_was_slow = True
            self.election_deadline = now + RETRY_S[0]
            return True
        if self._vote_was_slow:
            self._vote_was_slow = False
            self.election_deadline = now + 2 * (now - self._campaigned_at)
            return True
        return False

    def _deadline_passed(self, now: float) -> None:
        if self._is_vote_under_way(now):
            return
        self.election_deadline = now + self._retry_after()
        self._failed_attempts += 1
        # A transfer is worth one attempt.
        was_asked, self.transfer_in_progress = self.transfer_in_progress, False
        if self.memoryless and len(self.linked) < len(self._peers):
            # Its log may lack what it acknowledged; it may lead only if everybody agrees.
            return
        if self._is_nothing_left(self.journal.last_term):
            self._note_nothing_left()
        elif was_asked or not self._peers:
            self._campaign(now)
        else:
            self._ask_before_campaign()

    def _is_nothing_left(self, last_term: int) -> bool:
        """Whether a log that ends so has no entry, and so not the one that named the cluster."""
        return self._is_of_cluster and last_term == 0

    def _note_nothing_left(self) -> None:
        if self._failed_attempts == NOTHING_LEFT_ATTEMPTS:
            logger.error("replica.nothing_left", extra={"linked": sorted(self.linked)})

    def _retry_after(self) -> float:
        low, high = RETRY_S
        # Bounded before it is a number: a replica may be alone for days.
        doublings = min(self._failed_attempts, 16)
        factor = min(2.0**doublings, self.settings.election_timeout_s_max / high)
        return self.rng.uniform(low, high) * factor

    def _ask_before_campaign(self) -> None:
        self.set_leader(None)
        self._attempt += 1
        self._pre_votes = {self.settings.replica_id: self.memoryless}
        question = PreVote(
            self._attempt, self.term + 1, self.journal.last_index, self.journal.last_term
        )
        for peer in self._peers:
            self._send(peer, question)

    def _campaign(self, now: float) -> None:
        self.elections_started += 1
        self._pre_votes = None
        self.set_leader(None)
        self.role = CANDIDATE
        self.set_term(self.term + 1, str(self.settings.replica_id))
        self._campaigned_at, self._vote_lsn = now, self.journal.end_lsn
        self._vote_was_slow = False
        self._votes = {self.settings.replica_id: self.memoryless}
        request = RequestVote(self.journal.last_index, self.journal.last_term)
        for peer in self._peers:
            self._send(peer, request)
        self._count_votes(now)

    def _count_votes(self, now: float) -> None:
        in_doubt = [voter for voter, memoryless in self._votes.items() if memoryless]
        if is_quorum(len(self._peers) + 1, self._votes, in_doubt):
            self._failed_attempts = 0
            self._leader_lost = False
            for window in self._windows.values():
                window.clear()
            self._probing = set(self._peers)
            self.needs_snapshot.clear()
            self._base_tried.clear()
            self._told_commit = dict.fromkeys(self._peers, 0)
            self.become_leader()

    def _log_is_behind(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so must not win over this one. Ref: Raft 5.4.1."""
        return (last_term, last_index) < (self.journal.last_term, self.journal.last_index)

    def _would_vote(self, question: PreVote, now: float) -> bool:
        if question.next_term <= self.term or self.role == LEADER:
            return False
        if self._log_is_behind(question.last_index, question.last_term):
            return False
        if self._is_nothing_left(question.last_term):
            return False
        if self._leader_lost or self.leader_id is None:
            return True
        if now < self._judge_from or now - self._last_tick > STALL_S:
            return False  # The leader's voice may wait in a socket.
        return now - self._leader_heard_at >= self.settings.election_timeout_s_min

    # ------------------------------------------------------------------------ links

    def link_up(self, peer: int, *, forgotten: bool) -> None:
        """A new connection to a peer: what the old one carried may be lost. `forgotten`: it holds
        less than it acknowledged, so nothing is known of its log any more."""
        self.linked.add(peer)
        self._windows[peer].clear()
        self._probing.add(peer)
        self._base_tried.discard(peer)
        self._next_base_heartbeat = 0.0
        self._told_commit[peer] = 0
        if self._told_leader[0] == peer:
            self._told_leader = (0, 0, 0)
        if forgotten:
            self.peer_memoryless.add(peer)
        if self.role == LEADER:
            if forgotten:
                self.set_match_index(peer, 0)
            following = max(self.match_index(peer), self.journal.base_index) + 1
            self.set_next_index(peer, following if self.match_index(peer) else self._end_index())
            self._append_due = True

    def _end_index(self) -> int:
        return self.journal.last_index + 1

    def link_down(self, peer: int, now: float) -> None:
        self.linked.discard(peer)
        self._windows[peer].clear()
        if self.role != LEADER and self.leader_id == peer:
            self._leader_lost = True
            self._failed_attempts = 0
            self.election_deadline = min(
                self.election_deadline, now + self.rng.uniform(*LEADER_LOST_S)
            )

    # ------------------------------------------------------------------------ messages

    def receive(self, peer: int, term: int, message: Message, now: float) -> None:
        """A Raft message from a member. Raises PeerProtocolError for what no member may say."""
        if not self.admit(peer, term, message, now):
            return
        if isinstance(message, AppendEntries):
            self._on_append_entries(peer, message, now)
        elif isinstance(message, AppendReply):
            self._on_append_reply(peer, message, now)
        elif isinstance(message, PreVote):
            self._on_pre_vote(peer, message, now)
        elif isinstance(message, PreVoteReply):
            self._on_pre_vote_reply(peer, message, now)
        elif isinstance(message, RequestVote):
            self._on_request_vote(peer, message)
        elif isinstance(message, ResponseVote):
            self._on_response_vote(peer, message, now)
        elif isinstance(message, TimeoutNow):
            self._on_timeout_now(peer)

    def take_is_quiet(self) -> bool:
        """Whether the last message left nothing to be done but to hand over what it appended here
        and what it was answered. Asked once for each."""
        is_quiet, self._is_quiet = self._is_quiet, False
        return is_quiet

    def admit(self, peer: int, term: int, message: Message, now: float) -> bool:
        """Whether a message of that term is to be handled. A higher term is taken over, whoever
        says it: a leader then steps down and campaigns, for the sender would otherwise refuse it
        for ever and pre-vote would keep the sender from leading."""
        if peer not in self.nodes:
            raise PeerProtocolError(f"replica {peer} is no member")
        self._is_quiet = False
        if type(message) is Forward:
            self._asked_by = peer
        if term > self.term:
            self._take_over_term(term, now)
        elif term < self.term:
            if not isinstance(message, (TermNotice, AppendReply, ResponseVote, PreVoteReply)):
                self._send(peer, TermNotice())
            return False
        return True

    def _take_over_term(self, term: int, now: float) -> None:
        was_leader = self.role == LEADER
        self.set_term(term, None)
        self.transfer_in_progress = False
        self._pre_votes = None
        self.set_leader(None)
        self.role = FOLLOWER
        if was_leader:
            self.election_deadline = now + self.rng.uniform(*RETRY_S)

    def follow(self, peer: int, now: float) -> None:
        """The leader of the present term has spoken."""
        if self.role == LEADER:
            raise TwoLeadersError(
                f"replicas {self.settings.replica_id} and {peer} both lead in term {self.term}"
            )
        if self.leader_id != peer:
            self._patience_s = self._SyncObj__generateRaftTimeout()
            self.set_leader(peer)
        if not self.transfer_in_progress:
            # While a transfer is pending, the old leader's messages must not postpone it.
            self.election_deadline = now + self._patience_s
        self._leader_heard_at = now
        self._leader_lost = False
        self._failed_attempts = 0
        self._pre_votes = None
        if self.role != FOLLOWER:
            self.role = FOLLOWER

    def _on_append_entries(self, leader: int, message: AppendEntries, now: float) -> None:
        is_known = self.leader_id == leader and self.role == FOLLOWER
        self.follow(leader, now)
        journal = self.journal
        self._check_terms(message)
        prev, prev_term, entries = message.prev_index, message.prev_term, message.entries
        end = prev + len(entries)
        if prev < self.commit_index:
            # What is committed here is the same there; look at the rest only.
            entries = entries[self.commit_index - prev :]
            prev, prev_term = self.commit_index, journal.term_at(self.commit_index)
            end = max(end, prev)
        if prev > journal.last_index:
            self._reply(leader, success=False, next_index=journal.last_index + 1)
            return
        if journal.term_at(prev) != prev_term:
            first = journal.first_index_of_term(prev, self.commit_index)
            self._reply(leader, success=False, next_index=max(self.commit_index + 1, first))
            return
        self._take_entries(prev, entries)
        # To the end of what this message covers, never the log's end: what lies beyond may be
        # another leader's, and never committed.
        before = self.commit_index
        self.commit_index = max(self.commit_index, min(message.commit_index, end))
        is_news = self.commit_index > before
        self._is_quiet = is_known and not is_news
        # The news that what it has acknowledged is committed needs no answer. Any other append
        # without entries gets one: it may be a probe, or ask whether the leader is still followed.
        if message.entries or not is_news or not self._has_told(leader, end):
            self._reply(leader, success=True, next_index=end + 1)

    def _check_terms(self, message: AppendEntries) -> None:
        term = message.prev_term
        for entry_term, payload in message.entries:
            if entry_term < term or entry_term > self.term or not payload:
                raise PeerProtocolError(f"entries of terms {term}, {entry_term} in one append")
            term = entry_term

    def _take_entries(self, prev: int, entries: tuple[tuple[int, bytes], ...]) -> None:
        journal = self.journal
        for offset, (term, _) in enumerate(entries):
            index = prev + 1 + offset
            if index <= journal.last_index and journal.term_at(index) == term:
                continue
            if index <= journal.last_index:
                assert index > self.commit_index, f"committed entry {index} would be truncated"
                self.truncated_entries += journal.last_index - index + 1
                journal.truncate_from(index)
            for further, (entry_term, payload) in enumerate(entries[offset:]):
                journal.add(payload, index + further, entry_term)
            return

    def _reply(self, leader: int, *, success: bool, next_index: int) -> None:
        if success:
            term, index = self._acknowledged
            before = index if term == self.term else 0
            self._acknowledged = self.term, max(before, next_index - 1)
            self._told_leader = leader, self.term, next_index - 1
        else:
            self._told_leader = (0, 0, 0)
        self._send(leader, AppendReply(success, next_index, self.memoryless))

    def become_voter(self) -> None:
        """Its memory is no longer in doubt. The leader is told at once: with nothing to write it
        would know at the next heartbeat only, and hand over to nobody until then."""
        self.memoryless = False
        leader, term, held = self._told_leader
        if leader and (leader, term) == (self.leader_id, self.term):
            self._send(leader, AppendReply(True, held + 1, False))

    def _has_told(self, leader: int, index: int) -> bool:
        """Whether the leader was told, on the present connection, that everything up to there is
        held."""
        told, term, held = self._told_leader
        return (told, term) == (leader, self.term) and held >= index

    def _on_append_reply(self, peer: int, message: AppendReply, now: float) -> None:
        if self.role != LEADER:
            return
        self.heard_follower(peer, message.memoryless, now)
        last = self.journal.last_index
        match = self.match_index(peer)
        if message.success:
            self._probing.discard(peer)
            match = max(match, min(message.next_index - 1, last))
            self.set_match_index(peer, match)
            self.set_next_index(peer, max(self.next_index(peer), match + 1))
            window = self._windows[peer]
            while window and window[0][0] <= match:
                window.popleft()
            if match >= self.journal.base_index:
                self.needs_snapshot.discard(peer)
                self._base_tried.discard(peer)
        else:
            # A hint only ever lowers: replies to earlier messages are still on their way.
            hint = max(match + 1, min(self.next_index(peer), message.next_index))
            self._probing.add(peer)
            self._windows[peer].clear()
            self._go_back(peer, hint)
        if peer in self.needs_snapshot:
            return
        if match > self.commit_index:
            self.advance_commit()
        if self._is_owed(peer):
            self._append_due = True
        self._is_quiet = not self._append_due

    def _go_back(self, peer: int, hint: int) -> None:
        """The next append begins there; at the log's base, if the log no longer goes back so far.
        A follower that lacks the base too can only be helped by a snapshot."""
        base = self.journal.base_index
        self.set_next_index(peer, max(hint, base + 1))
        if hint > base:
            self.needs_snapshot.discard(peer)
        elif peer in self._base_tried:
            self.needs_snapshot.add(peer)

    def held(self) -> int:
        """Up to where this replica was said to hold the log in the present term, be it as its
        leader; 0: nothing was said yet."""
        if self.role == LEADER:
            return self.journal.durable_index
        term, index = self._acknowledged
        return index if term == self.term else 0

    def match_indexes(self) -> tuple[tuple[int, int], ...]:
        """(peer, match index), for a leader."""
        if self.role != LEADER:
            return ()
        return tuple((peer, self.match_index(peer)) for peer in self._peers)

    def is_following_log(self, peer: int) -> bool:
        """Whether this leader knows, on the present connection, where the peer's log matches."""
        is_known = peer in self.linked and peer not in self._probing
        return is_known and self.match_index(peer) >= self.journal.base_index

    def holds_applied(self, peer: int, index: int) -> None:
        """A follower says that it has applied everything up to there: it needs no snapshot of an
        earlier state. Whether this log goes back so far shows when it is sent the rest."""
        self.needs_snapshot.discard(peer)
        self._base_tried.discard(peer)
        self._probing.add(peer)
        self._windows[peer].clear()
        next_index = max(self.match_index(peer), min(index, self.journal.last_index)) + 1
        self.set_next_index(peer, max(next_index, self.journal.base_index + 1))
        self._append_due = True

    def heard_follower(self, peer: int, memoryless: bool, now: float) -> None:
        """A member of this term answered its leader."""
        self.set_heard_at(peer, now)
        if memoryless:
            self.peer_memoryless.add(peer)
        else:
            self.peer_memoryless.discard(peer)

    def _on_pre_vote(self, peer: int, question: PreVote, now: float) -> None:
        granted = self._would_vote(question, now)
        self._send(peer, PreVoteReply(question.attempt, granted, self.memoryless))

    def _on_pre_vote_reply(self, peer: int, reply: PreVoteReply, now: float) -> None:
        if self._pre_votes is None or reply.attempt != self._attempt or not reply.granted:
            return
        self._pre_votes[peer] = reply.memoryless
        in_doubt = [voter for voter, memoryless in self._pre_votes.items() if memoryless]
        if is_quorum(len(self._peers) + 1, self._pre_votes, in_doubt):
            self._campaign(now)

    def _on_request_vote(self, peer: int, message: RequestVote) -> None:
        if self._is_nothing_left(message.last_term):
            return
        self.let_library_handle(
            peer,
            {
                "type": "request_vote",
                "term": self.term,
                "last_log_index": message.last_index,
                "last_log_term": message.last_term,
            },
        )

    def _on_response_vote(self, peer: int, message: ResponseVote, now: float) -> None:
        if self.role == CANDIDATE:
            self._votes[peer] = message.memoryless
            self._count_votes(now)

    def _on_timeout_now(self, peer: int) -> None:
        self.let_library_handle(peer, {"type": "timeout_now", "term": self.term})

    def send_library_message(self, peer: int, message: dict[str, Any]) -> None:
        if message["type"] == "response_vote":
            self._send(peer, ResponseVote(self.memoryless))
        elif message["type"] == "timeout_now":
            self._send(peer, TimeoutNow())
        else:
            raise AssertionError(f"the library must not send {message['type']}")

    # ------------------------------------------------------------------------ leading

    def append(self, payload: bytes) -> int:
        """Adds an entry of the present term; the leader only. Returns its index."""
        assert self.role == LEADER, "only a leader appends"
        index = self.journal.last_index + 1
        self.journal.add(payload, index, self.term)
        self._append_due = True
        return index

    def advance_commit(self) -> bool:
        """Commits the largest index of the present term that a quorum holds durably; True when
        it moved. Ref: Raft 5.4.2 for why only of the present term."""
        held = {self.settings.replica_id: self.journal.durable_index}
        for peer in self._peers:
            held[peer] = self.match_index(peer)
        for index in sorted(set(held.values()), reverse=True):
            if index <= self.commit_index:
                return False
            holders = {replica_id for replica_id, held_to in held.items() if held_to >= index}
            if self._is_quorum(holders):
                if self.journal.term_at(index) != self.term:
                    return False
                self.commit_index = index
                self._append_due = True  # So that followers answer their clients at once.
                return True
        return False

    @property
    def is_sending(self) -> bool:
        """More is to be sent than one turn had time for."""
        return self.role == LEADER and self._append_due

    def send_due(self, now: float) -> None:
        """Sends what followers lack, or a heartbeat when it is time. Called at a turn's end."""
        if self.role == LEADER:
            if now >= self._next_heartbeat:
                self.send_entries()
            elif self._append_due:
                self.send_entries(to_all=False)
        if self.role == LEADER and self.needs_snapshot and now >= self._next_base_heartbeat:
            self._next_base_heartbeat = now + self.settings.heartbeat_s
            heartbeat = self._append_message(self.journal.base_index + 1, 0)
            for peer in self.needs_snapshot & self.linked:
                self._base_tried.add(peer)
                self._send(peer, heartbeat)

    def _is_owed(self, peer: int) -> bool:
        """Whether it lacks entries or the commit index, or is to be found out about."""
        if peer in self._probing or self._told_commit[peer] < self.commit_index:
            return True
        return self.next_index(peer) <= self.journal.last_index

    def send_entries(self, to_all: bool = True) -> None:
        """Unless `to_all`, to whom something is owed only."""
        now = self.clock.monotonic()
        self._append_due = False
        self._next_heartbeat = now + self.settings.heartbeat_s
        until = now + self.settings.send_slice_s
        encoded: dict[int, AppendEntries] = {}
        lacking = [
            peer
            for peer in self._peers
            if peer in self.linked
            and peer not in self.needs_snapshot
            and (to_all or self._is_owed(peer))
        ]
        if self._asked_by in lacking[1:]:
            lacking.remove(self._asked_by)
            lacking.insert(0, self._asked_by)
        while lacking:
            # In turn, so that a message for several peers is encoded once.
            lacking = [peer for peer in lacking if self._send_entries_to(peer, encoded)]
            if lacking and self.clock.monotonic() >= until:
                self._append_due = True
                return

    def _send_entries_to(self, peer: int, encoded: dict[int, AppendEntries]) -> bool:
        """Sends one message, also an empty one, so that the commit index arrives; True when more
        is lacking and the window has room. `encoded` shares messages among peers that stand at
        the same index."""
        if self._is_window_full(peer):
            return False
        index, base = self.next_index(peer), self.journal.base_index
        if index <= base:  # The log was compacted beyond what this follower holds.
            index = base + 1
            self.set_next_index(peer, index)
            self._probing.add(peer)
        if index == base + 1:
            self._base_tried.add(peer)
        message = encoded.get(index)
        if message is None:
            count_max = self.settings.append_entries_max
            message = encoded[index] = self._append_message(index, count_max)
        self._send(peer, message)
        self._told_commit[peer] = message.commit_index
        if not message.entries:
            return False
        last_sent = message.prev_index + len(message.entries)
        size = sum(len(payload) for _, payload in message.entries)
        self._windows[peer].append((last_sent, size))
        self.set_next_index(peer, last_sent + 1)
        return last_sent < self.journal.last_index and not self._is_window_full(peer)

    def _is_window_full(self, peer: int) -> bool:
        window, settings = self._windows[peer], self.settings
        if not window:
            return False
        if peer in self._probing or len(window) >= settings.append_window_messages:
            return True
        return sum(size for _, size in window) >= settings.append_window_bytes

    def _append_message(self, index: int, count_max: int) -> AppendEntries:
        journal, settings = self.journal, self.settings
        entries: tuple[tuple[int, bytes], ...] = ()
        if index <= journal.last_index and count_max:
            records = journal.slice_from(index, settings.append_bytes_soft, count_max)
            entries = tuple((term, payload) for payload, _, term in records)
        prev = index - 1
        return AppendEntries(prev, journal.term_at(prev), self.commit_index, entries)

    def best_successor(self) -> int | None:
        """The linked follower that holds the most and whose memory is not in doubt; none that waits
        for a snapshot."""
        candidates = [
            (self.match_index(peer), -peer)
            for peer in self._peers
            if peer in self.linked
            and peer not in self.peer_memoryless
            and peer not in self.needs_snapshot
        ]
        return -max(candidates)[1] if candidates else None

    def transfer_to(self, peer: int) -> bool:
        """Asks a follower that holds everything to take over; False when none of it is so."""
        if self.role != LEADER or self.match_index(peer) != self.journal.last_index:
            return False
        assert peer not in self.needs_snapshot, f"replica {peer} holds all and needs a snapshot"
        self.transferLeadership(self.nodes[peer])
        return True

    def _role_changed(self, old: int, new: int) -> None:
        if old == LEADER:
            for window in self._windows.values():
                window.clear()
            self.needs_snapshot.clear()
        self._on_role(old, new)
