"""One replica's part in the cluster: what the server submits to, turn by turn.

Everything that arrived in one turn of the loop is handled in one order: peer messages as they
came, then timers, commit and step-down, a slice of applying, merging batches into log entries,
sending, and last the WAL gets what was appended, as one group. So hundreds of writes share one
entry, one round of appends and one sync. The turn never waits: the WAL reports what is synced, and
that is another turn.

Runs on one asyncio loop. Anything unexpected in here ends the process through `on_fatal`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from coordsvc.core.commands import ClientCommand, InitCluster, LeaderCommand, Reply
from coordsvc.core.machine import Machine
from coordsvc.errors import CoordError, NoQuorumError, ShuttingDownError
from coordsvc.raft.adapter import LEADER
from coordsvc.raft.applier import Applier
from coordsvc.raft.clock import Clock, SystemClock
from coordsvc.raft.compaction import LogCompaction
from coordsvc.raft.confirm import Confirmations
from coordsvc.raft.hooks import Hooks
from coordsvc.raft.journal import WalJournal
from coordsvc.raft.messages import SideMessage
from coordsvc.raft.node import STALL_S, RaftNode
from coordsvc.raft.origin import Origin
from coordsvc.raft.outbox import Outbox
from coordsvc.raft.peer_events import PeerEvents
from coordsvc.raft.proposer import Proposer
from coordsvc.raft.replica_types import (
    ReplicaStatistics,
    SilentDiskError,
    SnapshotPort,
    Submission,
    Waiter,
    Wal,
)
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.raft.snapshot_receiver import SnapshotReceiver
from coordsvc.raft.snapshot_sender import SnapshotSender
from coordsvc.raft.transport import LinkEvents, Network, PeerNetwork

logger = logging.getLogger(__name__)

NetworkMaker: TypeAlias = Callable[
    [ReplicaSettings, LinkEvents, asyncio.AbstractEventLoop, Clock, random.Random], Network
]

TIMER_S = 0.02
FEW_DECIDED = 4
"""So few writes of this replica's own clients are answered before the others are told that they are
committed: it costs the others less than it saves the client of a single write."""
HOUSEKEEPING_S = 0.1


class Replica:
    """See the module. `machine` holds what the checkpoint covers, up to entry `applied` (index,
    term), (1, 0) without one; `snapshots` None: peers that need one wait for another leader.
    `cluster_id` is what the data directory knows (empty: not yet); `random_bytes(n)` the source of
    nonces and cluster ids; `make_network` None: `PeerNetwork`."""

    def __init__(
        self,
        settings: ReplicaSettings,
        machine: Machine,
        wal: Wal,
        *,
        uuid: bytes,
        cluster_id: bytes = b"",
        applied: tuple[int, int] = (1, 0),
        snapshots: SnapshotPort | None = None,
        loop: asyncio.AbstractEventLoop,
        hooks: Hooks | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        random_bytes: Callable[[int], bytes] | None = None,
        make_network: NetworkMaker | None = None,
    ) -> None:
        settings.validate()
        self.settings = settings
        self.replica_id = settings.replica_id
        self.machine = machine
        self.hooks = hooks or Hooks()
        self.clock: Clock = clock or SystemClock()
        # It is asked for every message, so the kernel is asked for no more than its seed.
        self._rng = rng or random.Random(random.SystemRandom().getrandbits(128))
        self._random_bytes = random_bytes or random.SystemRandom().randbytes
        self._make_network = make_network or PeerNetwork
        self._loop = loop
        self._wal = wal
        self._uuid = uuid
        self.is_ready = False
        """Has applied what a leader confirmed by a majority had committed after this start."""
        self.leader_changes = 0
        self._leading = False
        self._turn_scheduled = False
        self._stopped = False
        self._failed = False
        self._is_frozen = False
        self._timer: asyncio.TimerHandle | None = None
        self._flush_scheduled = False
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._last_turn = self._synced_at = self.clock.monotonic()
        self._housekeeping_at = 0.0
        self._hand_over_again_at = 0.0
        self._voter_lsn: int | None = None
        self._build(cluster_id, applied, snapshots)

    def _build(
        self, cluster_id: bytes, applied: tuple[int, int], snapshots: SnapshotPort | None
    ) -> None:
        settings, recovered = self.settings, self._wal.recovered
        self.journal = WalJournal(
            self._wal,
            recovered.base_index,
            recovered.base_term,
            recovered.entries,
            recovered.term,
            recovered.voted_for,
        )
        recovered.entries.clear()  # The journal has them; once is enough.
        journal, (index, term) = self.journal, applied
        holds = journal.base_index <= index <= journal.last_index
        assert holds and journal.term_at(index) == term, (
            f"the log, {journal.base_index} to {journal.last_index}, does not hold entry {index} "
            f"of term {term}, which the state loaded ends with"
        )
        self._outbox = Outbox(
            self._wal, lambda: self.node.term, lambda peer, frame: self.network.send(peer, frame)
        )
        self.node: RaftNode = RaftNode(
            settings,
            self.journal,
            self.clock,
            self._rng,
            self._outbox.send,
            memoryless=not recovered.voter or recovered.ambiguous_cut,
            on_role=self._on_role,
            applied_index=index,
            is_of_cluster=bool(cluster_id),
        )
        if recovered.ambiguous_cut and recovered.voter:
            self._wal.set_voter(False)
        self._origin = Origin(settings, self._random_bytes(16))
        self._origin.on_decided = self.hooks.on_decided
        self._proposer = Proposer(
            self.node,
            self._origin,
            self._outbox,
            self.clock,
            lambda: self.machine.state.clock_ms,
        )
        self._confirmations = Confirmations(
            self.node, self._outbox, self._loop, self._proposer.leader_reached
        )
        self._applier = Applier(
            self.machine,
            self.node,
            self._origin,
            self.clock,
            self.hooks,
            self._applied_noop,
            cluster_id,
        )
        self._sender = SnapshotSender(
            self.node,
            self._outbox,
            snapshots.outgoing if snapshots is not None else None,
            self._schedule_turn,
        )
        self._receiver = SnapshotReceiver(
            self.node,
            self._outbox,
            snapshots.incoming if snapshots is not None else None,
            on_event=self._schedule_turn,
            on_complete=self._freeze,
            on_installed=self._installed,
        )
        self._compaction = LogCompaction(settings, self.journal, self._wal, self._sender.reserved)
        self._events = PeerEvents(
            self.node,
            self._outbox,
            self._proposer,
            self._confirmations,
            self._applier,
            self._sender,
            self._receiver,
            self.clock,
            uuid=self._uuid,
            process=self._random_bytes(16),
            on_event=self._on_event,
            on_forgotten=self._forgotten,
            on_failed=self._fatal,
        )
        self.network = self._make_network(settings, self._events, self._loop, self.clock, self._rng)

    # ------------------------------------------------------------------ facts

    @property
    def term(self) -> int:
        return self.node.term

    @property
    def is_leader(self) -> bool:
        """Leads, and its term's first entry is applied here."""
        return self._leading

    @property
    def leader_id(self) -> int | None:
        return self.node.leader_id

    @property
    def commit_index(self) -> int:
        return self.node.commit_index

    @property
    def applied_index(self) -> int:
        return self.node.applied_index

    def leader_confirmed_age(self) -> float:
        """Seconds since a leader is known to have had a majority; very large when never."""
        return self.clock.monotonic() - self._confirmations.leader_confirmed_at

    @property
    def has_quorum(self) -> bool:
        """A leader confirmed within an election timeout and a tick."""
        limit = self.settings.election_timeout_s_min + self.settings.tick_s
        return not self._is_frozen and self.leader_confirmed_age() <= limit

    def statistics(self) -> ReplicaStatistics:
        node, journal = self.node, self.journal
        return ReplicaStatistics(
            term=node.term,
            role=node.role,
            leader_id=node.leader_id,
            commit_index=node.commit_index,
            applied_index=node.applied_index,
            last_index=journal.last_index,
            durable_index=journal.durable_index,
            log_bytes=journal.bytes_held,
            writes_waiting=self._origin.waiting,
            writes_undecided=self._origin.undecided,
            write_bytes_waiting=self._origin.bytes_waiting,
            elections_started=node.elections_started,
            leader_changes=self.leader_changes,
            truncated_entries=node.truncated_entries,
            memoryless=node.memoryless,
            ready=self.is_ready,
            linked=tuple(sorted(node.linked)),
            base_index=journal.base_index,
            match_indexes=node.match_indexes(),
            snapshots_sending=self._sender.sending,
            snapshot_bytes_sent=self._sender.bytes_sent,
            snapshots_sent=self._sender.snapshots_sent,
            snapshot_receiving=self._receiver.receiving,
            snapshots_rejected=self._receiver.rejected,
            clock_jumps=self._proposer.wall_clock.jumps,
        )

    def checkpoint_point(self) -> tuple[int, int] | None:
        """(index, term) of the last entry applied, when that is on disk here: what a checkpoint of
        the present state would cover. None when it is not, or this replica has stopped."""
        index = self.node.applied_index
        if self._stopped or index > self.journal.durable_index:
            return None
        return index, self.journal.term_at(index)

    def compact_log(self, index: int) -> None:
        """A checkpoint that covers everything up to `index` is on disk here: the log before it may
        go, but for what is kept for followers (`settings.log_keep_bytes`, `log_bytes_max`). In
        slices, from the next turn on."""
        assert index <= self.node.applied_index, f"a checkpoint at {index} of what is not applied"
        if not self._stopped:
            self._compaction.cover(index)
            self._schedule_turn()

    # ------------------------------------------------------------------ life

    async def listen(self) -> None:
        """Takes the peer address. Raises OSError when it is taken."""
        await self.network.listen()

    async def start(self) -> None:
        """Begins to take part; listens first unless `listen` did."""
        await self.network.listen()
        self._applier.name_loaded_cluster()
        self.network.dial()
        self._last_turn = self.clock.monotonic()
        self._on_timer()
        self._run(self._become_ready())

    def _run(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks[task] = None
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fatal(error)

    async def _become_ready(self) -> None:
        """Ready, and a voter again, once everything a leader confirmed by a majority had committed
        after this start is held here."""
        while True:
            try:
                await self.read_index(self.clock.monotonic() + 1.0)
                break
            except CoordError:
                await asyncio.sleep(self.settings.heartbeat_s)
        if self.node.memoryless:
            # What it may have promised before it forgot is covered; its disk must hold it too.
            holds = self.node.applied_index
            while self.journal.durable_index < holds:
                await asyncio.sleep(TIMER_S)
            self._wal.set_voter(True)
            self._voter_lsn = self._wal.end_lsn
        self.is_ready = True
        self._schedule_turn()

    def _forgotten(self, peer: int) -> None:
        """A peer says that this replica holds less than it once acknowledged."""
        if not self.node.memoryless:
            logger.warning("replica.forgotten", extra={"peer": peer})
            self.node.memoryless = True
            self._voter_lsn = None
            self._wal.set_voter(False)
            self.is_ready = False
            self._run(self._become_ready())

    async def stop(self, *, hand_over: bool = True, drain_s: float = 2.0) -> None:
        """Hands leadership over, waits `drain_s` at most for what was proposed, and closes. The WAL
        stays open."""
        self._origin.close()
        if hand_over and self.node.role == LEADER and self.settings.peer_ids:
            await self.hand_over()
        drained_by = self.clock.monotonic() + drain_s
        while self._origin.undecided and self.clock.monotonic() < drained_by:
            await asyncio.sleep(TIMER_S)
        if not self._is_frozen:
            self._receiver.stop()
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        self._origin.abandon("this replica stopped before the write was decided")
        self._confirmations.reads.abandon(_shutting_down())
        self._applier.refuse_all(_shutting_down())
        self.network.flush()
        await self.network.close()

    def _freeze(self) -> None:
        """A snapshot is about to take the place of this replica's log and state: from here on it
        neither says, hears nor applies anything."""
        self._is_frozen = self._stopped = self._events.is_deaf = True
        self.is_ready = False
        if self._timer is not None:
            self._timer.cancel()
        # No turn looks after the disk any more.
        self._timer = self._loop.call_later(self.settings.disk_silent_exit_s, self._install_late)
        for task in tuple(self._tasks):
            task.cancel()
        error = self._no_quorum()
        self._origin.refuse_waiting(error)
        self._origin.abandon("this replica starts anew from a snapshot")
        self._confirmations.reads.abandon(error)
        self._applier.refuse_all(error)
        self._wal.flush()
        self._run(self.network.close())

    def _installed(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.hooks.on_installed()

    def _install_late(self) -> None:
        seconds = self.settings.disk_silent_exit_s
        self._fatal(SilentDiskError(f"the disk has not installed a snapshot in {seconds:.0f} s"))

    async def hand_over(self) -> bool:
        """Gives leadership to the follower that holds the most: stops adding entries, waits at
        most half a second until it holds all, and resumes if it has not taken over within an
        election timeout. True when another replica leads."""
        if self.node.best_successor() is None:
            return False
        self._proposer.paused = True
        try:
            drained_by = self.clock.monotonic() + 0.5
            while self.node.role == LEADER and self.clock.monotonic() < drained_by:
                successor = self.node.best_successor()
                if successor is not None and self.node.transfer_to(successor):
                    break
                await asyncio.sleep(TIMER_S / 4)
            self.network.flush()
            done_by = self.clock.monotonic() + self.settings.election_timeout_s_min
            while self.clock.monotonic() < done_by:
                if self.node.role != LEADER and self.node.leader_id is not None:
                    return True
                if self.node.role == LEADER and self.node.best_successor() is None:
                    return False  # All of them stop at once.
                await asyncio.sleep(TIMER_S / 4)
            return False
        finally:
            self._proposer.paused = False
            self._schedule_turn()

    # ------------------------------------------------------------------ the server's calls

    def submit(self, command: ClientCommand, deadline: float) -> asyncio.Future[Reply]:
        """Asks for a write; `deadline` by this replica's clock. The future is the caller's own:
        cancelling it abandons the answer, never the write. Fails with NoQuorumError,
        LimitExceededError, ShuttingDownError (certainly not applied) or OutcomeUnknownError
        (proposed)."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        self.submit_to(command, deadline, future)
        return future

    def submit_to(self, command: ClientCommand, deadline: float, waiter: Waiter) -> None:
        """As `submit`, and tells `waiter`: of a failure perhaps before this returns, of the answer
        during apply, after the hooks of its entry and in the order of the zxids."""
        self._schedule_turn()
        if not self._is_frozen and (self.has_quorum or self._stopped):
            self._origin.submit_to(command, deadline, self.clock.monotonic(), waiter)
        else:
            waiter.set_exception(self._no_quorum())

    def submit_all(self, writes: Sequence[Submission]) -> None:
        """The same for many, in order, each its own waiter. Those behind one that is refused are
        tried, unless they are done then."""
        self._schedule_turn()
        if not self._is_frozen and (self.has_quorum or self._stopped):
            self._origin.submit_all(writes, self.clock.monotonic())
            return
        for write in writes:
            if not write.done():
                write.set_exception(self._no_quorum())

    def _refused(self, error: CoordError) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        future.set_exception(error)
        return future

    def read_index(self, deadline: float) -> asyncio.Future[None]:
        """Done when everything committed anywhere before this call is applied here."""
        if self._stopped:
            return self._refused(self._no_quorum() if self._is_frozen else _shutting_down())
        self._schedule_turn()
        return self._confirmations.reads.submit(deadline)

    def wait_applied(self, zxid: int, deadline: float) -> asyncio.Future[None]:
        """Done when this replica has applied `zxid`; NotCaughtUpError at the deadline."""
        if self._stopped:
            return self._refused(self._no_quorum() if self._is_frozen else _shutting_down())
        return self._applier.wait_applied(zxid, deadline, self._loop)

    def confirm_leadership(self, done: Callable[[bool], None]) -> None:
        """Calls done(True) after a round with a majority begun after this call; done(False) when
        this replica does not lead, or stops leading before."""
        if not self._leading:
            done(False)
            return
        self._confirmations.confirm(done)
        self._schedule_turn()

    def propose(self, command: LeaderCommand) -> bool:
        """Puts a leader's own command into the next entry; False when this replica does not lead
        in the command's term."""
        if not self._leading or command.term != self.node.term:
            return False
        self._proposer.propose(command)
        self._schedule_turn()
        return True

    def send_peer(self, peer: int, message: SideMessage) -> None:
        if peer in self.node.linked and not self._is_frozen:
            self._outbox.send(peer, message)
            self._schedule_turn()

    def set_handler(self, message_type: type, handler: Callable[[int, Any], None]) -> None:
        """Side messages of that type go to `handler(peer, message)`."""
        self._events.handlers[message_type] = handler

    # ------------------------------------------------------------------ the WAL

    def on_synced(self, lsn: int) -> None:
        self._synced_at = self.clock.monotonic()
        self.journal.synced_to(lsn)
        self._outbox.synced_to(lsn)
        if self._voter_lsn is not None and lsn >= self._voter_lsn:
            self._voter_lsn = None
            self.node.become_voter()
            logger.info("replica.voter", extra={"term": self.term})
        if self._stopped or self._failed:
            return
        # What waited for this sync leaves at once. A turn would add nothing, but for a commit.
        self.network.flush()
        if self.node.is_leader and self.node.advance_commit():
            self._schedule_turn()

    def on_wal_failed(self, error: BaseException) -> None:
        """Nothing is acknowledged from here on."""
        self._fatal(error)

    # ------------------------------------------------------------------ one turn

    def _on_timer(self) -> None:
        if not self._stopped:
            self._timer = self._loop.call_later(TIMER_S, self._on_timer)
            self._turn()

    def _schedule_turn(self) -> None:
        if not self._turn_scheduled and not self._stopped:
            self._turn_scheduled = True
            self._loop.call_soon(self._turn)

    def _on_event(self) -> None:
        """A link came or went, or a message. Most acknowledgements change nothing, and an append
        that commits nothing needs no more than the disk."""
        if not self.node.take_is_quiet():
            self._schedule_turn()
        elif not self.node.is_leader:
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        if not (self._flush_scheduled or self._turn_scheduled or self._stopped):
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._stopped or self._failed:
            return
        try:
            self.network.flush()
            self._wal.flush()
        except Exception as error:
            self._fatal(error)

    def _turn(self) -> None:
        self._turn_scheduled = False
        if self._stopped or self._failed:
            return
        try:
            self._run_turn(self.clock.monotonic())
        except Exception as error:
            self._fatal(error)

    def _run_turn(self, now: float) -> None:
        node = self.node
        if now - self._last_turn > STALL_S:
            self.network.forgive_stall(now)
            self._synced_at = max(self._synced_at, now - STALL_S)
        self._last_turn = now
        node.tick(now)
        self._proposer.committed_to(node.commit_index)
        undecided = self._origin.undecided
        if self._applier.apply_slice(now):
            self._confirmations.reads.on_applied(node.applied_index)
        decided = undecided - self._origin.undecided
        self._proposer.send_batches(now)
        self._confirmations.ask(now)
        self._proposer.append_entries(self.machine.digest_point())
        node.send_due(now)
        self._receiver.check()
        self._sender.turn(now)
        self._confirmations.begin_round(now)
        if now >= self._housekeeping_at:
            self._housekeeping_at = now + HOUSEKEEPING_S
            self._housekeep(now)
        self.hooks.on_turn(now)
        if 0 < decided <= FEW_DECIDED:
            self._schedule_flush()  # Behind their replies, which apply has scheduled.
        else:
            self.network.flush()
        # Last: its thread would take the interpreter from what is sent.
        self._wal.flush()
        is_compacting = self._compaction.step()
        if is_compacting or node.applied_index < node.commit_index or node.is_sending:
            self._schedule_turn()

    def _housekeep(self, now: float) -> None:
        self.network.check(now, self.node.term)
        self._events.housekeep()
        self._origin.check_deadlines(now)
        self._confirmations.reads.check_deadlines(now)
        self._applier.check_deadlines(now)
        if not self.has_quorum:
            self._origin.refuse_waiting(self._no_quorum())
            self._confirmations.refuse_all(self._no_quorum())
        self._check_disk(now)

    def _no_quorum(self) -> NoQuorumError:
        return NoQuorumError(
            f"replica {self.replica_id} reaches no leader that a majority follows; "
            "try again, here or at another replica",
            retry_after_ms=200,
        )

    def _check_disk(self, now: float) -> None:
        if self._wal.synced_lsn >= self._wal.end_lsn:
            self._synced_at = now
            return
        silent = now - self._synced_at
        if silent > self.settings.disk_silent_exit_s:
            raise SilentDiskError(f"the disk has completed nothing for {silent:.0f} s")
        if (
            silent > self.settings.disk_silent_hand_over_s
            and self.node.role == LEADER
            and now >= self._hand_over_again_at
        ):
            self._hand_over_again_at = now + self.settings.disk_silent_hand_over_s
            logger.warning("disk.silent", extra={"seconds": round(silent, 1)})
            self._run(self.hand_over())

    # ------------------------------------------------------------------ changes of role

    def _on_role(self, old: int, new: int) -> None:
        if new == LEADER:
            self.leader_changes += 1
            self._proposer.begin_term()
            self._confirmations.begin_term()
        elif old == LEADER:
            was_leading, self._leading = self._leading, False
            self._proposer.end_term()
            self._confirmations.end_term()
            self._sender.end_term()
            logger.info("replica.not_leading", extra={"term": self.node.term})
            if was_leading:
                self.hooks.on_not_leading()

    def _applied_noop(self, index: int, term: int) -> None:
        if self.node.role != LEADER or (term, index) != (self.node.term, self.node.noop_index):
            return
        self._leading = True
        self._proposer.noop_applied()
        self._confirmations.noop_applied()
        logger.info("replica.leading", extra={"term": term, "index": index})
        self.hooks.on_leading(term)
        if not self.machine.state.cluster_id:
            self._proposer.propose(InitCluster(term, self._random_bytes(16)))

    def _fatal(self, error: BaseException) -> None:
        if not self._failed:
            self._failed = True
            logger.critical("replica.fatal", extra={"error": repr(error)}, exc_info=error)
            self.hooks.on_fatal(error)


def _shutting_down() -> ShuttingDownError:
    return ShuttingDownError("this replica is shutting down")
