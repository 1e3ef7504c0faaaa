"""What a replica tells the leader about whom it heard, and when a heartbeat is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from coordsvc.errors import NoQuorumError, SessionExpiredError
from coordsvc.server.session_reports import Heard, SessionReports

TICK_S = 0.5


class Desk:
    """A replica's reports with a clock and a line to the leader that the test holds."""

    def __init__(self, first_report: int = 1) -> None:
        self.now = 100.0
        self.has_leader = True
        self.sent: list[tuple[int, dict[int, int]]] = []
        self.soon: list[Callable[[], None]] = []
        self.on_send: Callable[[int], None] = lambda report_id: None
        self.reports = SessionReports(
            tick_s=TICK_S,
            send=self._send,
            call_soon=self.soon.append,
            monotonic=lambda: self.now,
            first_report=first_report,
        )
        self.reports.turn(self.now, 1, 1)

    def _send(self, report_id: int, sessions: Heard) -> bool:
        if self.has_leader:
            self.sent.append((report_id, dict(sessions)))
            self.on_send(report_id)
        return self.has_leader

    def heartbeat(self, session_id: int) -> asyncio.Future[None]:
        return self.reports.heartbeat(session_id, self.now)

    def end_turn(self) -> None:
        waiting, self.soon[:] = list(self.soon), []
        for callback in waiting:
            callback()

    def pass_time(self, seconds: float, term: int = 1) -> None:
        self.now += seconds
        self.reports.turn(self.now, term, 1)

    def acknowledge(self, report_id: int | None = None) -> None:
        if report_id is None:
            report_id = self.sent[-1][0]
        self.reports.on_acknowledged(report_id, self.now)


async def test_heartbeats_of_one_turn_leave_at_once_in_one_report() -> None:
    desk = Desk()
    first, second = desk.heartbeat(7), desk.heartbeat(8)
    assert desk.sent == []
    desk.end_turn()
    assert desk.sent == [(1, {7: 0, 8: 0})]
    assert not first.done() and not second.done()
    desk.acknowledge()
    assert first.done() and second.done()


async def test_what_else_was_heard_leaves_every_half_tick_with_its_age() -> None:
    desk = Desk()
    desk.pass_time(0)
    desk.reports.heard(7, desk.now)
    desk.pass_time(0.125)
    desk.acknowledge()
    desk.reports.heard(8, desk.now)
    desk.pass_time(0.125)
    assert [report for _, report in desk.sent] == [{7: 125}]
    desk.pass_time(0.125)
    assert [report for _, report in desk.sent] == [{7: 125}, {8: 250}]


async def test_a_report_is_cumulative_until_one_is_acknowledged() -> None:
    desk = Desk()
    desk.reports.heard(7, desk.now)
    desk.pass_time(0.25)
    desk.reports.heard(8, desk.now)
    desk.pass_time(0.25)
    assert desk.sent[-1][1] == {7: 500, 8: 250}
    desk.acknowledge(desk.sent[0][0])
    desk.pass_time(0.25)
    assert desk.sent[-1][1] == {8: 500}
    desk.acknowledge()
    desk.pass_time(0.25)
    assert len(desk.sent) == 3


async def test_an_older_acknowledgement_does_not_answer_a_later_heartbeat() -> None:
    """The guard: what counts is a report that contains the heartbeat."""
    desk = Desk()
    desk.heartbeat(7)
    desk.end_turn()
    later = desk.heartbeat(7)
    desk.acknowledge(desk.sent[0][0])
    assert not later.done()
    desk.end_turn()
    assert desk.sent[-1][1] == {7: 0}
    desk.acknowledge()
    assert later.done()


async def test_a_heartbeat_that_waited_is_covered_by_what_was_heard_after_it() -> None:
    """It came before another request, but took longer to prove its session."""
    desk = Desk()
    desk.reports.heard(7, desk.now + 0.125)
    waiting = desk.heartbeat(7)
    desk.end_turn()
    desk.acknowledge()
    assert waiting.done()


async def test_without_an_acknowledgement_a_heartbeat_fails_after_a_tick() -> None:
    desk = Desk()
    waiting = desk.heartbeat(7)
    desk.end_turn()
    desk.pass_time(TICK_S - 0.01)
    assert not waiting.done()
    desk.pass_time(0.02)
    with pytest.raises(NoQuorumError):
        waiting.result()


async def test_what_was_heard_outlives_a_heartbeat_that_failed() -> None:
    desk = Desk()
    desk.has_leader = False
    desk.heartbeat(7).add_done_callback(lambda future: future.exception())
    desk.pass_time(2 * TICK_S)
    desk.has_leader = True
    desk.pass_time(0.125)
    assert desk.sent[-1][1] == {7: 1125}


async def test_while_no_leader_is_known_nothing_is_reported() -> None:
    desk = Desk()
    desk.reports.turn(desk.now, 1, None)
    waiting = desk.heartbeat(7)
    desk.end_turn()
    desk.reports.turn(desk.now + 0.25, 1, None)
    assert desk.sent == []
    desk.now += 0.375
    desk.reports.turn(desk.now, 2, 3)
    assert desk.sent == [(1, {7: 375})]
    desk.acknowledge()
    assert waiting.done()


async def test_a_new_term_is_reported_to_at_once() -> None:
    desk = Desk()
    waiting = desk.heartbeat(7)
    desk.end_turn()
    desk.pass_time(0.01)
    sent = len(desk.sent)
    desk.pass_time(0.01, term=2)
    assert len(desk.sent) == sent + 1
    desk.acknowledge()
    assert waiting.done()


async def test_a_leader_of_its_own_may_acknowledge_while_it_is_sent() -> None:
    desk = Desk()
    desk.on_send = desk.acknowledge
    waiting = desk.heartbeat(7)
    desk.end_turn()
    assert waiting.done()
    desk.pass_time(1.0)
    assert len(desk.sent) == 1


async def test_a_session_that_ended_is_left_out_and_its_heartbeat_told() -> None:
    desk = Desk()
    ended, other = desk.heartbeat(7), desk.heartbeat(8)
    desk.end_turn()
    desk.reports.closed([7])
    with pytest.raises(SessionExpiredError):
        ended.result()
    desk.end_turn()
    assert desk.sent[-1][1] == {8: 0}
    desk.acknowledge()
    assert other.done()


async def test_while_reports_go_unanswered_they_are_left_to_the_timer() -> None:
    desk = Desk()
    desk.pass_time(0)
    for _ in range(100):
        desk.heartbeat(7).add_done_callback(lambda future: future.exception())
        desk.end_turn()
        desk.pass_time(0.01)
    # 0.25 s of them at once, and then one each quarter of a second.
    assert 25 <= len(desk.sent) <= 30
    desk.acknowledge()
    desk.heartbeat(7)
    desk.end_turn()
    desk.acknowledge()
    sent = len(desk.sent)
    desk.heartbeat(7)
    desk.end_turn()
    assert len(desk.sent) == sent + 1


async def test_a_first_heartbeat_after_a_pause_does_not_delay_the_second() -> None:
    desk = Desk()
    desk.heartbeat(7)
    desk.end_turn()
    desk.acknowledge()
    desk.pass_time(60.0)
    desk.heartbeat(7)
    desk.end_turn()
    desk.heartbeat(8)
    desk.end_turn()
    assert len(desk.sent) == 3


async def test_acknowledgements_of_another_process_of_this_replica_count_for_nothing() -> None:
    desk = Desk(first_report=1000)
    waiting = desk.heartbeat(7)
    desk.end_turn()
    for stale in (1, 999, 1001, 10**9):
        desk.acknowledge(stale)
    assert not waiting.done()
    desk.acknowledge(1000)
    assert waiting.done()


async def test_a_caller_that_went_away_disturbs_nobody() -> None:
    desk = Desk()
    gone, other = desk.heartbeat(7), desk.heartbeat(8)
    gone.cancel()
    desk.end_turn()
    desk.acknowledge()
    assert other.done()
    desk.heartbeat(7).cancel()
    desk.pass_time(1.0)
    assert desk.reports.statistics().heartbeats_waiting == 0
