"""Outages that last: what a cluster without a quorum, a leader cut off and a leader that stood
still have to come back from.

Goal: nothing is acknowledged, proposed or applied that the cluster did not decide; what waits stays
bounded; coming back is quick however much lies behind. Method: `Simulation`, with machines that
note the terms of what they apply, and a `SessionClock` on the leader that is paused.
"""

from __future__ import annotations

import itertools

import msgspec

from coordsvc.core.commands import (
    AppliedEntry,
    Entry,
    EntryFrame,
    ExpireSession,
    OpenSession,
    SessionOpened,
)
from coordsvc.core.machine import Machine, Readers
from coordsvc.errors import NoQuorumError
from coordsvc.raft.adapter import REGULAR
from coordsvc.server.session_clock import SessionClock
from coordsvc.testing.raft_simulation import Simulation
from tests.unit.raft.replica_scene import Futures, assert_counted, ready, tally, version


class NotingMachine(Machine):
    """Notes the term of every entry it applies."""

    def __init__(self) -> None:
        super().__init__()
        self.terms: list[int] = []

    def apply_entry(self, entry: Entry, term: int, readers: Readers | None = None) -> AppliedEntry:
        self.terms.append(term)
        return super().apply_entry(entry, term, readers or {})


def terms_applied(simulation: Simulation, replica_id: int) -> list[int]:
    machine = simulation.processes[replica_id].machine
    assert isinstance(machine, NotingMachine)
    return machine.terms


def is_led_by_another(simulation: Simulation, replica_id: int) -> bool:
    return simulation.leader is not None and simulation.leader_id != replica_id


# ---------------------------------------------------------------------- a minute without a quorum

WRITE_EVERY_S = 0.02
SEEN_AFTER_S = 2.0
"""By then a replica without a quorum knows it: an election timeout and a tick, and a turn."""


def test_a_minute_without_a_quorum_acknowledges_nothing_and_holds_little() -> None:
    with ready() as simulation:
        for one, other in itertools.combinations(simulation.ids, 2):
            simulation.fabric.isolate(one, [other])
        futures: Futures = []
        held_max = dict.fromkeys(simulation.ids, 0)
        log_ends = []
        for _ in range(round(60.0 / WRITE_EVERY_S)):
            futures += [simulation.write(replica_id) for replica_id in simulation.ids]
            simulation.run_for(WRITE_EVERY_S)
            for replica_id in simulation.ids:
                now = simulation.replica(replica_id).statistics()
                held = now.writes_waiting + now.writes_undecided
                held_max[replica_id] = max(held_max[replica_id], held)
            log_ends.append([simulation.replica(i).journal.last_index for i in simulation.ids])
        assert max(held_max.values()) <= SEEN_AFTER_S / WRITE_EVERY_S
        assert log_ends[-1] == log_ends[round(SEEN_AFTER_S / WRITE_EVERY_S)], "logs still grow"
        told = [future for future in futures if future.done()]
        assert all(future.exception() is not None for future in told), "acknowledged by nobody"
        assert len(told) >= len(futures) - len(simulation.ids), "and told at once"

        simulation.fabric.mend()
        healed_at = simulation.loop.now
        served: set[int] = set()
        while served != set(simulation.ids):
            assert simulation.loop.now - healed_at < 5.0, f"only {served} serve"
            again = {i: simulation.write(i) for i in simulation.ids}
            futures += again.values()
            simulation.run_for(0.05)
            served |= {i for i, f in again.items() if f.done() and f.exception() is None}
        simulation.run_until(lambda: all(future.done() for future in futures))
        assert_counted(simulation, futures)
        acknowledged, unknown = tally(futures)
        # What was proposed is sent again until it is decided, whatever its caller was told.
        assert version(simulation, simulation.leader_id) == acknowledged + unknown
        for replica_id in simulation.ids:
            after = simulation.replica(replica_id).statistics()
            assert (after.writes_waiting, after.writes_undecided) == (0, 0)


# ---------------------------------------------------------------------- ten thousand stale entries

STALE = 10_000
SHARED = 20
"""Entries that the others hold as well when the leader is cut off, and it does not know."""


def test_a_leader_with_ten_thousand_stale_entries_is_one_second_behind_at_most() -> None:
    # Small messages: the first ones it gets end among the shared entries, before the stale ones.
    with ready(machines=NotingMachine, settings={"append_entries_max": 8}) as simulation:
        old = simulation.leader_id
        replica = simulation.replica(old)
        old_term = replica.term
        simulation.run_until_equal()
        simulation.fabric.mute = {(other, old) for other in simulation.follower_ids}
        futures: Futures = []
        for _ in range(SHARED):
            futures.append(simulation.write(old))
            simulation.run_for(0.003)
        assert replica.journal.last_index - replica.commit_index == SHARED
        simulation.fabric.isolate(old, simulation.follower_ids)
        agreed = replica.journal.last_index
        applied_before = len(terms_applied(simulation, old))
        payload = REGULAR + msgspec.msgpack.encode(
            EntryFrame(simulation.clock.wall_ms(), 0, (), (), 0, 0)
        )
        for _ in range(STALE):
            replica.node.append(payload)
        simulation.run_until(lambda: is_led_by_another(simulation, old))
        others = simulation.follower_ids
        others.remove(old)
        for _ in range(500):
            futures += [simulation.write(i) for i in (simulation.leader_id, *others)]
            simulation.run_for(0.004)
        assert not replica.is_leader
        assert replica.journal.last_index == agreed + STALE
        assert agreed < simulation.replica(simulation.leader_id).journal.last_index < agreed + STALE

        leader = simulation.replica(simulation.leader_id)
        simulation.fabric.mend()
        simulation.run_until(lambda: len(replica.node.linked) == 2)
        took = simulation.run_until(lambda: replica.journal[:] == leader.journal[:])
        assert took < 1.0, f"{took:.3f} s"
        assert replica.statistics().truncated_entries == STALE
        assert_counted(simulation, futures)
        assert simulation.leader is leader
        assert sum(tally(futures)) == version(simulation, old) == SHARED + 1000
        applied = terms_applied(simulation, old)[applied_before:]
        assert len(applied) > 500
        assert applied.count(old_term) == SHARED, "the stale ones are of that term, too"


# ---------------------------------------------------------------------- a leader stands still

SESSION_TIMEOUT_S = 2.0
TURN_S = 0.02


class ClockedLeader:
    """A leader with the clock that judges its sessions, and what it proposes from now on."""

    def __init__(self, simulation: Simulation, replica_id: int) -> None:
        self.process = simulation.processes[replica_id]
        self.replica = self.process.replica
        self.appended: list[tuple[int, bytes]] = []
        """(term, payload)"""
        self.clock = SessionClock(
            tick_s=self.replica.settings.tick_s,
            sessions=lambda: self.process.machine.state.sessions,
            propose=self._propose,
            confirm=self.replica.confirm_leadership,
            acknowledge=lambda replica_id, term, report_id: None,
        )
        self.expiries: list[ExpireSession] = []
        self._append = self.replica.node.append
        self.replica.node.append = self._note  # type: ignore[method-assign]
        self.replica.hooks.on_not_leading = self.clock.on_not_leading
        self._turn()

    def lead(self) -> None:
        self.clock.on_leading(self.replica.term, self.process.loop.time())

    def _turn(self) -> None:
        self.process.loop.call_later(TURN_S, self._turn)
        self.clock.turn(self.process.loop.time())

    def _propose(self, command: ExpireSession) -> bool:
        self.expiries.append(command)
        return self.replica.propose(command)

    def _note(self, payload: bytes) -> int:
        self.appended.append((self.replica.term, payload))
        return self._append(payload)


def test_a_leader_that_stood_still_does_nothing_more_in_its_old_term() -> None:
    with ready(machines=NotingMachine) as simulation:
        old = simulation.leader_id
        scene = ClockedLeader(simulation, old)
        replica, term = scene.replica, scene.replica.term
        opened = simulation.submit(old, OpenSession(int(SESSION_TIMEOUT_S * 1000), b"p" * 16))
        assert isinstance(simulation.done(opened).result, SessionOpened)
        simulation.run_until_equal()
        scene.lead()
        # Some writes are in its log and nowhere else when it stops.
        agreed = replica.journal.last_index
        simulation.fabric.mute = {(old, other) for other in simulation.follower_ids}
        futures: Futures = []
        for _ in range(5):
            futures.append(simulation.write(old))
            simulation.run_for(0.002)
        stale = replica.journal.last_index - agreed
        assert stale == 5
        simulation.pause(old)
        # What its callers ask for meanwhile waits in its sockets.
        late: Futures = []
        for _ in range(5):
            scene.process.loop.call_soon(lambda: late.append(simulation.write(old)))
        simulation.run_for(3.0 * SESSION_TIMEOUT_S)
        assert is_led_by_another(simulation, old)
        futures += [simulation.write(simulation.leader_id) for _ in range(5)]
        simulation.run_for(0.1)
        assert replica.is_leader and replica.term == term, "it knows of nothing yet"

        applied_before = len(terms_applied(simulation, old))
        scene.appended.clear()
        simulation.fabric.mend()
        simulation.resume(old)
        simulation.run_until(lambda: not replica.is_leader, limit_s=1.0)
        simulation.run_until_ready()
        simulation.run_for(2.0)
        assert scene.expiries == [], "it may judge nobody before a majority confirmed it"
        assert term not in [appended_in for appended_in, _ in scene.appended]
        applied = terms_applied(simulation, old)[applied_before:]
        assert applied and term not in applied
        assert replica.statistics().truncated_entries == stale
        assert len(late) == 5
        assert all(isinstance(future.exception(), NoQuorumError) for future in late)
        assert_counted(simulation, [*futures, *late])
        acknowledged, unknown = tally(futures)
        assert version(simulation, old) == acknowledged + unknown == 10
        assert len(simulation.processes[old].machine.state.sessions) == 1
