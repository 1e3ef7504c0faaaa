"""The pace of collecting, on a clock the test holds."""

from __future__ import annotations

from coordsvc.core.commands import (
    CONTAINER,
    NO_CALLER,
    PERSISTENT_WITH_TTL,
    Batch,
    CollectContainer,
    CollectTtl,
    CreateOp,
    DeleteOp,
    Entry,
    LeaderCommand,
    Op,
    RegisterOrigin,
    SetDataOp,
    Write,
)
from coordsvc.core.machine import Machine
from coordsvc.server.collection import PER_LOOK_MAX, PER_MINUTE_MAX, Collection


class Leader:
    """A machine and a collection that leads in term 1. Proposals are applied by `commit`."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.now = 1000.0
        self.began = self.now
        self.accepts = True
        self.waiting: list[LeaderCommand] = []
        self.proposed: list[LeaderCommand] = []
        self._apply(Entry(1, 0, (Batch(1, 0, 0, (RegisterOrigin(1, b"n"),)),)))
        self._incarnation, self._seq = self.machine.state.zxid, 0
        self.collection = Collection(self.machine.state, self._propose)
        self.collection.on_leading(1, self.now)

    @property
    def clock_ms(self) -> int:
        return int((self.now - self.began) * 1000)

    def _apply(self, entry: Entry) -> None:
        self.machine.apply_entry(entry, 1)

    def _propose(self, command: LeaderCommand) -> bool:
        if self.accepts:
            self.waiting.append(command)
            self.proposed.append(command)
        return self.accepts

    def commit(self, *ops: Op) -> None:
        commands, self.waiting = tuple(self.waiting), []
        batches: tuple[Batch, ...] = ()
        if ops:
            self._seq += 1
            writes = tuple(Write(NO_CALLER, op) for op in ops)
            batches = (Batch(1, self._incarnation, self._seq, writes),)
        self._apply(Entry(1, self.clock_ms, batches, commands))

    def pass_time(self, seconds: float, *, commits: bool = True) -> None:
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now = min(until, self.now + 0.05)
            self.collection.turn(self.now)
            if commits and self.waiting:
                self.commit()

    def used_containers(self, *paths: str) -> None:
        self.commit(*(CreateOp(path, mode=CONTAINER) for path in paths))
        self.commit(*(CreateOp(f"{path}/x") for path in paths))
        self.commit(*(DeleteOp(f"{path}/x") for path in paths))

    def exists(self, path: str) -> bool:
        return path in self.machine.state.znodes


def test_a_used_container_goes_within_the_next_minute_but_not_at_once() -> None:
    leader = Leader()
    leader.used_containers("/c")
    leader.pass_time(59.0)
    assert leader.exists("/c")
    leader.pass_time(2.0)
    assert not leader.exists("/c")
    assert isinstance(leader.proposed[0], CollectContainer)


def test_containers_have_a_turn_each_minute() -> None:
    leader = Leader()
    leader.pass_time(75.0)
    leader.used_containers("/c")
    leader.pass_time(40.0)
    assert leader.exists("/c")
    leader.pass_time(10.0)
    assert not leader.exists("/c")


def test_an_unused_container_stays() -> None:
    leader = Leader()
    leader.commit(CreateOp("/c", mode=CONTAINER))
    leader.pass_time(130.0)
    assert leader.exists("/c") and not leader.proposed


def test_a_ttl_znode_goes_when_its_time_is_up_also_while_nobody_writes() -> None:
    leader = Leader()
    leader.commit(CreateOp("/t", mode=PERSISTENT_WITH_TTL, ttl_ms=5000))
    leader.pass_time(5.0)
    assert leader.exists("/t")
    leader.pass_time(0.5)
    assert not leader.exists("/t")
    assert [type(command) for command in leader.proposed] == [CollectTtl], "none was too early"


def test_writing_a_ttl_znode_gives_it_its_time_again() -> None:
    leader = Leader()
    leader.commit(CreateOp("/t", mode=PERSISTENT_WITH_TTL, ttl_ms=5000))
    leader.pass_time(4.0)
    leader.commit(SetDataOp("/t", b"x"))
    leader.pass_time(4.9)
    assert leader.exists("/t")
    leader.pass_time(0.7)
    assert not leader.exists("/t")


def test_a_leader_that_is_none_any_more_proposes_nothing() -> None:
    leader = Leader()
    leader.commit(CreateOp("/t", mode=PERSISTENT_WITH_TTL, ttl_ms=100))
    leader.collection.on_not_leading()
    leader.pass_time(200.0)
    assert not leader.proposed


def test_a_later_leader_counts_no_time_without_one() -> None:
    """The cluster's clock stands still while nobody leads."""
    leader = Leader()
    leader.commit(CreateOp("/t", mode=PERSISTENT_WITH_TTL, ttl_ms=5000))
    leader.collection.on_not_leading()
    leader.pass_time(60.0)
    leader.began += 60.0
    leader.collection.on_leading(1, leader.now)
    leader.pass_time(4.9)
    assert not leader.proposed
    leader.pass_time(0.6)
    assert len(leader.proposed) == 1


def test_what_is_not_taken_is_proposed_again() -> None:
    leader = Leader()
    leader.commit(CreateOp("/t", mode=PERSISTENT_WITH_TTL, ttl_ms=100))
    leader.accepts = False
    leader.pass_time(5.0)
    leader.accepts = True
    leader.pass_time(0.5)
    assert not leader.exists("/t")


def test_a_minute_has_a_bound() -> None:
    leader = Leader()
    count = PER_MINUTE_MAX + 500
    leader.commit(*(CreateOp(f"/t{i}", mode=PERSISTENT_WITH_TTL, ttl_ms=100) for i in range(count)))
    leader.pass_time(0.25)
    assert len(leader.proposed) <= 2 * PER_LOOK_MAX
    leader.pass_time(58.0)
    assert len(leader.proposed) == PER_MINUTE_MAX
    leader.pass_time(10.0)
    assert len(leader.proposed) == count
