"""The leader's verdict, rule by rule, on a clock the test holds."""

from __future__ import annotations

from collections.abc import Callable

from coordsvc.core.commands import ExpireSession
from coordsvc.core.records import Session
from coordsvc.server.session_clock import SessionClock
from coordsvc.server.stall import GAP_SECONDS_MAX, TURN_SECONDS, StallMeter

TICK_S = 0.5
TIMEOUT_S = 10.0
SELF, OTHER = 1, 2


class Leader:
    """A session clock that leads in term 3 from time 100, with sessions 7 and 8."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sessions: dict[int, Session] = {}
        self.proposed: list[ExpireSession] = []
        self.accepts = True
        self.confirms = True
        self.waiting: list[Callable[[bool], None]] = []
        self.acknowledged: list[tuple[int, int, int]] = []
        self.clock = SessionClock(
            tick_s=TICK_S,
            sessions=lambda: self.sessions,
            propose=self._propose,
            confirm=self._confirm,
            acknowledge=lambda *report: self.acknowledged.append(report),
        )
        for session_id in (7, 8):
            self.put(session_id)
        self.clock.turn(self.now)
        self.clock.on_leading(3, self.now)

    def _propose(self, command: ExpireSession) -> bool:
        if self.accepts:
            self.proposed.append(command)
        return self.accepts

    def _confirm(self, done: Callable[[bool], None]) -> None:
        if self.confirms:
            done(True)
        else:
            self.waiting.append(done)

    def put(self, session_id: int, attach_epoch: int = 0, timeout_ms: int = 10_000) -> None:
        self.sessions[session_id] = Session(session_id, b"", timeout_ms, "", attach_epoch)

    def confirm(self, confirmed: bool = True) -> None:
        waiting, self.waiting = self.waiting, []
        for done in waiting:
            done(confirmed)

    def report(
        self, *heard: tuple[int, int], report_id: int = 1, term: int = 3, replica: int = OTHER
    ) -> None:
        self.clock.on_report(replica, term, report_id, heard, self.now)

    def close(self, session_id: int) -> None:
        del self.sessions[session_id]
        self.clock.on_applied((), (session_id,), self.now)

    def pass_time(self, seconds: float) -> None:
        """In turns, as the timer has them."""
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now = min(until, self.now + TURN_SECONDS)
            self.clock.turn(self.now)

    def stall(self, seconds: float) -> None:
        self.now += seconds
        self.clock.turn(self.now)

    @property
    def expired(self) -> list[int]:
        return [command.session_id for command in self.proposed]


def test_a_silent_session_ends_after_its_timeout_and_within_two_ticks() -> None:
    leader = Leader()
    leader.pass_time(TIMEOUT_S)
    assert leader.expired == []
    leader.pass_time(2 * TICK_S - 0.2)
    assert leader.proposed == [ExpireSession(3, 7, 0), ExpireSession(3, 8, 0)]


def test_a_report_that_one_lost_one_delayed_still_comes_in_time() -> None:
    """A replica hears the session in the last moment, its first report is lost."""
    leader = Leader()
    leader.pass_time(TIMEOUT_S + TICK_S)
    leader.report((7, 501))
    leader.pass_time(TICK_S)
    assert leader.expired == [8]


def test_the_age_counts() -> None:
    leader = Leader()
    leader.pass_time(5.0)
    leader.report((7, 2_000), (8, 0))
    leader.pass_time(2 * TICK_S + 8.0 - 0.2)
    assert leader.expired == [7]


def test_a_deadline_is_never_lowered() -> None:
    leader = Leader()
    leader.pass_time(5.0)
    leader.report((7, 0))
    leader.report((7, 4_900), report_id=2)
    leader.put(7, timeout_ms=1_000)
    leader.report((7, 0), report_id=3)
    leader.pass_time(TIMEOUT_S)
    assert set(leader.expired) == {8}
    leader.pass_time(2 * TICK_S - 0.2)
    assert set(leader.expired) == {7, 8}


def test_a_new_leader_gives_everybody_a_full_timeout() -> None:
    leader = Leader()
    leader.pass_time(9.9)
    leader.clock.on_not_leading()
    leader.pass_time(20.0)
    assert leader.expired == []
    leader.clock.on_leading(5, leader.now)
    leader.pass_time(TIMEOUT_S)
    assert leader.expired == []
    leader.pass_time(2 * TICK_S)
    assert leader.proposed == [ExpireSession(5, 7, 0), ExpireSession(5, 8, 0)]


def test_a_session_opened_while_leading_is_judged_too() -> None:
    leader = Leader()
    leader.pass_time(5.0)
    leader.put(9, timeout_ms=1_000)
    leader.clock.on_applied((9,), (), leader.now)
    leader.pass_time(2.0)
    assert leader.expired == [9]


# ------------------------------------------------------------------------------- acknowledgements


def test_a_report_is_acknowledged_only_after_a_round_begun_later() -> None:
    leader = Leader()
    leader.confirms = False
    leader.report((7, 0), report_id=5)
    assert leader.acknowledged == []
    leader.confirm()
    assert leader.acknowledged == [(OTHER, 3, 5)]


def test_a_report_is_not_acknowledged_when_the_round_failed() -> None:
    leader = Leader()
    leader.confirms = False
    leader.report((7, 0))
    leader.confirm(False)
    assert leader.acknowledged == []


def test_a_round_that_ends_in_a_later_term_acknowledges_nothing() -> None:
    leader = Leader()
    leader.confirms = False
    leader.report((7, 0))
    leader.clock.on_not_leading()
    leader.clock.on_leading(4, leader.now)
    leader.confirm()
    assert leader.acknowledged == []


def test_reports_for_another_term_or_while_not_leading_are_dropped() -> None:
    leader = Leader()
    leader.report((7, 0), term=2)
    leader.report((7, 0), term=4)
    leader.clock.on_not_leading()
    leader.report((7, 0), term=3)
    assert leader.acknowledged == []


def test_a_report_with_a_session_about_to_end_is_withheld_until_it_is_left_out() -> None:
    """Goal: nobody is told "alive" who ends in the next moment."""
    leader = Leader()
    leader.pass_time(TIMEOUT_S + 2 * TICK_S - 0.2)
    assert leader.expired == [7, 8]
    leader.report((7, 0), report_id=1)
    leader.pass_time(0.2)
    leader.close(7)
    leader.pass_time(0.2)
    assert leader.acknowledged == []
    leader.close(8)
    leader.put(9)
    leader.clock.on_applied((9,), (), leader.now)
    leader.report((9, 0), report_id=2)
    assert leader.acknowledged == [(OTHER, 3, 2)]


def test_a_report_with_a_session_not_applied_here_yet_waits_for_it() -> None:
    leader = Leader()
    leader.report((9, 0), report_id=4)
    assert leader.acknowledged == []
    leader.put(9)
    leader.clock.on_applied((9,), (), leader.now)
    assert leader.acknowledged == [(OTHER, 3, 4)]


def test_a_restarted_replicas_report_is_not_kept_back_by_its_older_one() -> None:
    leader = Leader()
    leader.report((99, 0), report_id=500)
    leader.report((7, 0), report_id=1)
    assert leader.acknowledged == [(OTHER, 3, 1)]


def test_a_session_attached_after_its_expiry_was_proposed_lives() -> None:
    leader = Leader()
    leader.pass_time(TIMEOUT_S + 2 * TICK_S - 0.2)
    leader.close(8)
    leader.put(7, attach_epoch=1)
    leader.report((7, 0), report_id=6)
    assert leader.acknowledged == [(OTHER, 3, 6)]
    leader.pass_time(TIMEOUT_S)
    assert leader.expired == [7, 8]
    leader.pass_time(2 * TICK_S)
    assert leader.proposed[-1] == ExpireSession(3, 7, 1)


def test_a_session_attached_with_a_longer_timeout_has_all_of_it() -> None:
    """Its client next pings after a third of the new one, which is beyond the old one's end."""
    leader = Leader()
    leader.pass_time(TIMEOUT_S / 2)
    leader.put(7, attach_epoch=1, timeout_ms=60_000)
    leader.clock.on_applied((), (), leader.now, attached=(7,))
    attached_at = leader.now
    leader.pass_time(60 - TURN_SECONDS)
    assert set(leader.expired) == {8}
    leader.pass_time(2 * TICK_S)
    assert ExpireSession(3, 7, 1) in leader.proposed
    assert leader.now <= attached_at + 60 + 2 * TICK_S


def test_a_session_attached_with_a_shorter_timeout_keeps_what_it_was_promised() -> None:
    leader = Leader()
    leader.put(7, attach_epoch=1, timeout_ms=1_000)
    leader.clock.on_applied((), (), leader.now, attached=(7,))
    leader.pass_time(TIMEOUT_S)
    assert leader.expired == []
    leader.pass_time(2 * TICK_S)
    assert leader.expired == [7, 8]


def test_a_write_is_a_sign_of_life_though_nobody_reports_it() -> None:
    """The replica that its client is attached to ended before its next report."""
    leader = Leader()
    leader.pass_time(TIMEOUT_S - 1)
    leader.clock.on_applied((), (), leader.now, heard=(7,))
    leader.pass_time(TIMEOUT_S - TURN_SECONDS)
    assert set(leader.expired) == {8}
    leader.pass_time(2 * TICK_S + 2 * TURN_SECONDS)
    assert set(leader.expired) == {8, 7}


def test_an_expiry_that_does_not_come_to_pass_is_proposed_again() -> None:
    leader = Leader()
    leader.accepts = False
    leader.pass_time(TIMEOUT_S + 2 * TICK_S)
    leader.accepts = True
    leader.pass_time(0.1)
    assert leader.expired == [7, 8]
    leader.pass_time(2 * TICK_S + 0.1)
    assert leader.expired == [7, 8, 7, 8]
    leader.close(7)
    leader.close(8)
    leader.pass_time(5.0)
    assert len(leader.expired) == 4


# ----------------------------------------------------------------------------------------- stalls


def test_a_stall_of_the_judge_moves_every_deadline() -> None:
    leader = Leader()
    leader.pass_time(9.0)
    leader.stall(5.0 + TURN_SECONDS)
    leader.pass_time(1.0)
    assert leader.expired == []
    leader.pass_time(2 * TICK_S - 0.2)
    assert leader.expired == [7, 8]


def test_stalls_move_a_deadline_by_one_timeout_at_most() -> None:
    leader = Leader()
    for _ in range(4):
        leader.stall(4.0 + TURN_SECONDS)
        leader.pass_time(0.1)
    assert leader.expired == []
    # It is 116.6: of the 16 s of stalls 10 count, so the deadline is 120.
    leader.pass_time(3.4)
    assert leader.expired == []
    leader.pass_time(2 * TICK_S - 0.2)
    assert leader.expired == [7, 8]


def test_a_session_heard_since_is_owed_nothing_for_the_stall_before() -> None:
    leader = Leader()
    leader.stall(5.0)
    leader.report((7, 0))
    leader.pass_time(TIMEOUT_S)
    assert 7 not in leader.expired
    leader.pass_time(2 * TICK_S - 0.2)
    assert 7 in leader.expired


def test_a_report_that_waited_out_the_stall_is_not_moved_by_it_again() -> None:
    """It is read in the first turn after the stall, before the timer."""
    leader = Leader()
    leader.now += 5.0
    leader.report((7, 0))
    leader.clock.turn(leader.now)
    leader.pass_time(TIMEOUT_S)
    assert 7 not in leader.expired
    leader.pass_time(2 * TICK_S - 0.2)
    assert 7 in leader.expired


def test_after_a_stall_nobody_is_judged_before_the_sockets_were_served() -> None:
    leader = Leader()
    leader.stall(60.0)
    assert leader.expired == []
    leader.report((7, 0))
    leader.pass_time(0.1)
    assert leader.expired == [8]


def test_after_a_stall_nobody_is_judged_before_a_majority_confirmed_the_leader() -> None:
    """A leader paused for two timeouts, deposed meanwhile."""
    leader = Leader()
    leader.confirms = False
    leader.stall(60.0)
    leader.pass_time(5.0)
    assert leader.expired == []
    leader.confirm(False)
    leader.pass_time(5.0)
    assert leader.expired == []


def test_a_confirmation_from_before_a_second_stall_does_not_end_the_wait() -> None:
    leader = Leader()
    leader.confirms = False
    leader.stall(60.0)
    before = leader.waiting.pop()
    leader.stall(60.0)
    before(True)
    leader.pass_time(0.2)
    assert leader.expired == []
    leader.confirm()
    leader.pass_time(0.1)
    assert leader.expired == [7, 8]


def test_short_gaps_are_no_stall() -> None:
    meter = StallMeter()
    now = 0.0
    for _ in range(100):
        now += GAP_SECONDS_MAX - 0.001
        assert meter.turn(now) == 0.0
    excess = meter.turn(now + 1.0)
    assert abs(excess - (1.0 - TURN_SECONDS)) < 1e-6
    assert (meter.stalls_total, meter.stalled_seconds_total) == (1, excess)
