"""When the leader collects empty containers and TTL znodes whose time is up.

Which ones these are, and whether they still are when it comes to it, is the core's business. Here
is only the pace. Containers have their turn once a minute, as in ZooKeeper, so that one whose last
child just left is not gone before the next one arrives. TTLs, which run on the cluster's own clock,
are looked at all the time. Of both together at most so many a minute are collected that nobody's
writes wait for it. Ref: ZooKeeper ContainerManager.

The cluster's clock moves in the state with each entry only, so while nobody writes it stands. The
leader therefore looks at TTLs by what the clock will be in its next entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from coordsvc.core.collector import Collector
from coordsvc.core.commands import CollectContainer, LeaderCommand
from coordsvc.core.records import Znode
from coordsvc.core.state import State

LOOK_PERIOD_S = 0.2
PER_LOOK_MAX = 200
PER_MINUTE_MAX = 10_000
CONTAINER_PERIOD_S = 60.0
CONTAINER_TURN_S = 10.0
"""Fifty looks of thousands of candidates each; what is left is for the next minute."""


CLOCK_MARGIN_MS = 10
"""The leader's entries are stamped by a measurement of their own; a collection that comes too early
is void."""


class StateAhead:
    """As much of the state as the core's collector reads, with the clock where it will be."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.clock_ms = state.clock_ms

    @property
    def znodes(self) -> dict[str, Znode]:
        return self._state.znodes

    @property
    def containers(self) -> dict[str, None]:
        return self._state.containers

    @property
    def ttl_znodes(self) -> dict[str, None]:
        return self._state.ttl_znodes


class Collection:
    """`propose` is the replica's. What it does not take is found again."""

    def __init__(self, state: State, propose: Callable[[LeaderCommand], bool]) -> None:
        self._state = state
        self._ahead = StateAhead(state)
        self._candidates = Collector(cast(State, self._ahead))
        self._propose = propose
        self._term: int | None = None
        self._led_since = 0.0
        self._clock_ms_then = 0
        self._look_at = 0.0
        self._container_turn_at = 0.0
        self._minute_ends_at = 0.0
        self._left_this_minute = PER_MINUTE_MAX
        self.proposed_total = 0

    def on_leading(self, term: int, now: float) -> None:
        self._term = term
        self._led_since, self._clock_ms_then = now, self._state.clock_ms
        self._look_at = now
        self._container_turn_at = now + CONTAINER_PERIOD_S

    def on_not_leading(self) -> None:
        self._term = None

    def turn(self, now: float) -> None:
        """Called every turn of the timer, whether this replica leads or not."""
        if self._term is None or now < self._look_at:
            return
        self._look_at = now + LOOK_PERIOD_S
        if now >= self._minute_ends_at:
            self._minute_ends_at = now + 60.0
            self._left_this_minute = PER_MINUTE_MAX
        limit = min(PER_LOOK_MAX, self._left_this_minute)
        if limit:
            self._ahead.clock_ms = self._clock_ms(now)
            takes_containers = self._is_container_turn(now)
            for command in self._candidates.due(self._term, limit):
                if takes_containers or not isinstance(command, CollectContainer):
                    self._take(command)

    def _clock_ms(self, now: float) -> int:
        led_ms = int((now - self._led_since) * 1000)
        return max(self._state.clock_ms, self._clock_ms_then + led_ms - CLOCK_MARGIN_MS)

    def _is_container_turn(self, now: float) -> bool:
        if now >= self._container_turn_at + CONTAINER_TURN_S:
            self._container_turn_at = now + CONTAINER_PERIOD_S - CONTAINER_TURN_S
        return now >= self._container_turn_at

    def _take(self, command: LeaderCommand) -> None:
        if self._propose(command):
            self._left_this_minute -= 1
            self.proposed_total += 1
