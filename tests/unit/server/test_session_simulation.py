"""Sessions among three replicas, simulated: clients, reports, leader changes, losses, stalls.

Goal: whatever happens, a heartbeat that was answered is good for a timeout from when it was sent;
and as long as nothing is cut off, no session ends before its timeout has passed since any replica
heard it, nor more than two ticks later. Method: the real reports and clocks of three replicas on a
simulated clock; consensus is reduced to what they may rely on. A failure prints its seed.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable

import pytest

from coordsvc.core.commands import ExpireSession
from coordsvc.core.records import Session
from coordsvc.server.session_clock import SessionClock
from coordsvc.server.session_reports import Heard, SessionReports
from coordsvc.server.stall import TURN_SECONDS

TICK_S = 0.5
REPLICAS = (1, 2, 3)
COMMIT_S_MAX = 0.05


class World:
    """The clock, what happens when, the log, and who leads. `faults`: messages get lost, leaders
    change, loops stall."""

    def __init__(self, seed: int, *, faults: bool) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self.now = 1000.0
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.log: list[int] = []
        """Sessions that ended, in order."""
        self.ended_at: dict[int, float] = {}
        self.term = 0
        self.timeout_s = {100 + i: self.rng.choice((1.0, 2.0, 5.0)) for i in range(12)}
        self.heard_at = dict.fromkeys(self.timeout_s, self.now)
        self.safe_until = dict.fromkeys(self.timeout_s, self.now)
        self.replicas = {replica_id: Node(self, replica_id) for replica_id in REPLICAS}
        self.elect()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self.agenda, (self.now + seconds, self._order, action))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.agenda and self.agenda[0][0] <= until:
            self.now, _, action = heapq.heappop(self.agenda)
            action()

    def elect(self) -> None:
        """Another term; its leader has applied all the log. The one before may not know yet."""
        self.term += 1
        leader = self.replicas[self.rng.choice(REPLICAS)]
        before = [node for node in self.replicas.values() if node.leads_in is not None]
        for node in self.replicas.values():
            delay = 0.0 if node is leader else self.rng.uniform(0.0, 1.5)
            self.later(delay, lambda node=node, term=self.term: node.learn(term, leader.replica_id))  # type: ignore[misc]
        for node in before:
            if node is leader:
                node.stop_leading()
        leader.lead(self.term)

    def commit(self, term: int, command: ExpireSession) -> None:
        if term != self.term or command.session_id in self.ended_at:
            return
        session_id = command.session_id
        self.log.append(session_id)
        self.ended_at[session_id] = self.now
        assert self.now >= self.safe_until[session_id] - 1e-6, "ended although it was told to live"
        if not self.faults:
            early = self.heard_at[session_id] + self.timeout_s[session_id] - self.now
            assert early <= 1e-6, f"ended {early} s early"
            assert early >= -2 * TICK_S, f"ended {-early} s late"


class Node:
    """A replica: its reports and its clock, and as much of consensus as they see."""

    def __init__(self, world: World, replica_id: int) -> None:
        self.world = world
        self.replica_id = replica_id
        self.term = 0
        self.leader_id: int | None = None
        self.leads_in: int | None = None
        self.stalled_until = 0.0
        self.applied = 0
        self.sessions = {
            session_id: Session(session_id, b"", int(timeout_s * 1000), "", 0)
            for session_id, timeout_s in world.timeout_s.items()
        }
        self.rounds: list[Callable[[bool], None]] = []
        self.reports = SessionReports(
            tick_s=TICK_S,
            send=self.send_report,
            call_soon=lambda callback: world.later(0.0, callback),
            monotonic=lambda: world.now,
        )
        self.clock = SessionClock(
            tick_s=TICK_S,
            sessions=lambda: self.sessions,
            propose=self.propose,
            confirm=self.confirm,
            acknowledge=self.acknowledge,
        )
        world.later(0.0, self.turn)

    # ---------------------------------------------------------------------------- consensus

    def learn(self, term: int, leader_id: int) -> None:
        if term > self.term:
            self.stop_leading()
            self.term, self.leader_id = term, leader_id

    def lead(self, term: int) -> None:
        self.learn(term, self.replica_id)
        self.apply(len(self.world.log))
        self.leads_in = term
        self.clock.on_leading(term, self.world.now)

    def stop_leading(self) -> None:
        if self.leads_in is not None:
            self.leads_in = None
            self.clock.on_not_leading()
            waiting, self.rounds = self.rounds, []
            for done in waiting:
                done(False)

    def confirm(self, done: Callable[[bool], None]) -> None:
        if self.leads_in is None:
            done(False)
            return
        self.rounds.append(done)
        # It begins now, so it succeeds if nobody else was elected before; it is known later.
        leads = self.leads_in == self.world.term

        def known() -> None:
            if done in self.rounds and leads:
                self.rounds.remove(done)
                done(True)

        self.act_later(self.world.rng.uniform(0.001, 0.03), known)

    def propose(self, command: ExpireSession) -> bool:
        if self.leads_in != command.term:
            return False
        delay = self.world.rng.uniform(0.001, COMMIT_S_MAX)
        self.world.later(delay, lambda: self.world.commit(command.term, command))
        return True

    def apply(self, length: int) -> None:
        ended = self.world.log[self.applied : length]
        self.applied = max(self.applied, length)
        for session_id in ended:
            del self.sessions[session_id]
            self.clock.on_applied((), (session_id,), self.world.now)
        if ended:
            self.reports.closed(ended)

    # ----------------------------------------------------------------------------- messages

    def act_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Something that reaches this replica; not while its loop stands still."""

        def arrive() -> None:
            if self.world.now < self.stalled_until:
                self.world.later(self.stalled_until - self.world.now, action)
            else:
                action()

        self.world.later(seconds, arrive)

    def is_lost(self) -> bool:
        return self.world.faults and self.world.rng.random() < 0.2

    def send_report(self, report_id: int, sessions: Heard) -> bool:
        if self.leader_id is None:
            return False
        leader, term = self.world.replicas[self.leader_id], self.term

        def arrive() -> None:
            leader.clock.on_report(self.replica_id, term, report_id, sessions, self.world.now)

        if leader is self:
            arrive()
        elif not self.is_lost():
            leader.act_later(self.world.rng.uniform(0.001, 0.02), arrive)
        return True

    def acknowledge(self, replica_id: int, term: int, report_id: int) -> None:
        node = self.world.replicas[replica_id]

        def arrive() -> None:
            if node.term == term:
                node.reports.on_acknowledged(report_id, self.world.now)

        if node is self:
            arrive()
        elif not self.is_lost():
            node.act_later(self.world.rng.uniform(0.001, 0.02), arrive)

    def turn(self) -> None:
        self.act_later(TURN_SECONDS, self.turn)
        if self.world.rng.random() < 0.3:
            self.apply(len(self.world.log))
        self.clock.turn(self.world.now)
        self.reports.turn(self.world.now, self.term, self.leader_id)


class Client:
    """Sends heartbeats to any replica at random times, and one day stops."""

    def __init__(self, world: World, session_id: int) -> None:
        self.world = world
        self.session_id = session_id
        self.stops_at = world.now + world.rng.uniform(0.0, 30.0)
        self.sent = self.answered = 0
        world.later(world.rng.uniform(0.0, 0.5), self.send)

    def send(self) -> None:
        world, timeout_s = self.world, self.world.timeout_s[self.session_id]
        if world.now >= self.stops_at:
            return
        world.later(world.rng.uniform(0.05, 0.45) * timeout_s, self.send)
        node = world.replicas[world.rng.choice(REPLICAS)]
        sent_at = world.now
        node.act_later(world.rng.uniform(0.0, 0.005), lambda: self.arrive(node, sent_at))

    def arrive(self, node: Node, sent_at: float) -> None:
        if self.session_id not in node.sessions:
            return
        self.sent += 1
        if self.session_id not in self.world.ended_at:
            self.world.heard_at[self.session_id] = self.world.now
        future = node.reports.heartbeat(self.session_id, self.world.now)
        future.add_done_callback(lambda done: self.on_done(done, sent_at))
        # Without a running loop callbacks are not run by themselves.
        self.world.later(0.001, lambda: self.poll(future, sent_at))

    def poll(self, future: asyncio.Future[None], sent_at: float) -> None:
        if not future.done():
            self.world.later(0.001, lambda: self.poll(future, sent_at))
        else:
            self.on_answer(future, sent_at)

    def on_done(self, future: asyncio.Future[None], sent_at: float) -> None:
        future.exception()

    def on_answer(self, future: asyncio.Future[None], sent_at: float) -> None:
        if future.exception() is not None:
            return
        self.answered += 1
        until = sent_at + self.world.timeout_s[self.session_id]
        ended_at = self.world.ended_at.get(self.session_id)
        assert ended_at is None or ended_at >= until - 1e-6, "answered alive, ended before"
        self.world.safe_until[self.session_id] = max(until, self.world.safe_until[self.session_id])


def trouble(world: World) -> None:
    """Now and then another leader, or a replica that stands still."""
    world.later(world.rng.uniform(0.5, 8.0), lambda: trouble(world))
    if world.rng.random() < 0.5:
        world.elect()
    else:
        node = world.replicas[world.rng.choice(REPLICAS)]
        node.stalled_until = world.now + world.rng.choice((0.3, 1.0, 6.0))


async def simulate(seed: int, *, faults: bool) -> None:
    world = World(seed, faults=faults)
    clients = [Client(world, session_id) for session_id in world.timeout_s]
    if faults:
        world.later(3.0, lambda: trouble(world))
    world.run(40.0)
    # The floor: a run in which nothing happened shows nothing.
    assert sum(client.answered for client in clients) > 20
    if not faults:
        assert len(world.ended_at) == len(clients), "some were never ended"


@pytest.mark.parametrize("seed", range(15))
async def test_no_session_ends_early_or_late_while_all_is_well(seed: int) -> None:
    await simulate(seed, faults=False)


@pytest.mark.parametrize("seed", range(40))
async def test_what_was_answered_alive_lives_on_whatever_happens(seed: int) -> None:
    await simulate(1000 + seed, faults=True)
