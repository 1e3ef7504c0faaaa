"""The core against a naive model, twice over: Hypothesis looks for short scripts that tell them
apart, and long random walks reach states that short ones do not."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from coordsvc.core.commands import (
    Acl,
    AddAuthOp,
    AttachSessionOp,
    AuthId,
    Caller,
    CheckOp,
    CloseSessionOp,
    CreateOp,
    DeleteOp,
    MultiOp,
    Op,
    SetAclOp,
    SetDataOp,
)
from tests.property.core_pair import SUPER, Pair, PathChoice

ALICE, BOB = AuthId("digest", "alice:h"), AuthId("digest", "bob:h")
BAD_PATHS = ["", "a", "/a//b", "/a/.", "/..", "/a\0", "/a/\x1f", "/\ufff0", "//", "/" + "é" * 2048]
NAMES = ["a", "b", "n-", ""]
DATA = [None, b"", b"x", b"yy"]
VERSIONS = [-1, -1, -1, 0, 1, 2, -2]
MODES = [(0, 0), (0, 0), (1, 0), (2, 0), (2, 0), (3, 0), (4, 0), (5, 5), (6, 5)]
BAD_MODES = [(0, 5), (5, 0), (6, 2**40), (7, 0), (-1, 0)]
OPEN = (Acl(31, "world", "anyone"),)
ACL_ENTRIES = [
    Acl(31, "world", "anyone"),
    Acl(1, "world", "anyone"),
    Acl(31, "auth", ""),
    Acl(31, "digest", "alice:h"),
    Acl(6, "digest", "bob:h"),
    Acl(24, "digest", "bob:h"),
    Acl(31, "kerberos", "x"),
]
CALLER_IDS = [(), (), (BOB,), (SUPER,)]

choice = st.integers(0, 20)
existing = st.one_of(choice, choice, st.sampled_from(BAD_PATHS))
children = st.tuples(choice, st.sampled_from(NAMES))
sessions = st.integers(0, 3)
acls = st.one_of(st.just(OPEN), st.lists(st.sampled_from(ACL_ENTRIES), max_size=3).map(tuple))

# Operations with choices still in them: (kind, path choice, the other fields).
good_creates = st.builds(
    lambda path, data, mode: (CreateOp, path, data, *mode, OPEN),
    children,
    st.sampled_from(DATA),
    st.sampled_from(MODES),
)
any_creates = st.builds(
    lambda path, data, mode, acl: (CreateOp, path, data, *mode, acl),
    st.one_of(children, existing),
    st.sampled_from(DATA),
    st.sampled_from(MODES + BAD_MODES),
    acls,
)
deletes = st.tuples(st.just(DeleteOp), existing, st.sampled_from(VERSIONS))
updates = st.tuples(st.just(SetDataOp), existing, st.sampled_from(DATA), st.sampled_from(VERSIONS))
checks = st.tuples(st.just(CheckOp), existing, st.sampled_from(VERSIONS))
sub_ops = st.one_of(good_creates, good_creates, any_creates, deletes, updates, checks)


def as_op(pair: Pair, drawn: tuple) -> Op:
    kind, path, *rest = drawn
    return kind(pair.path(path), *rest)


class CoreAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.pair.open(5, False)

    @rule(timeout=st.integers(1, 9), attached=st.booleans())
    def open(self, timeout: int, attached: bool) -> None:
        self.pair.open(timeout, attached)

    @rule(drawn=good_creates, session=st.integers(1, 2))
    def create(self, drawn: tuple, session: int) -> None:
        self.pair.write(Caller(self.pair.session(session)), as_op(self.pair, drawn))

    @rule(drawn=any_creates, session=sessions)
    def create_anyhow(self, drawn: tuple, session: int) -> None:
        self.pair.write(Caller(self.pair.session(session)), as_op(self.pair, drawn))

    @rule(drawn=st.one_of(deletes, updates), session=sessions)
    def change(self, drawn: tuple, session: int) -> None:
        self.pair.write(Caller(self.pair.session(session)), as_op(self.pair, drawn))

    @rule(drawn=st.lists(sub_ops, max_size=5), session=sessions)
    def multi(self, drawn: list, session: int) -> None:
        op = MultiOp(tuple(as_op(self.pair, each) for each in drawn))
        self.pair.write(Caller(self.pair.session(session)), op)

    @rule(
        drawn=sub_ops,
        number=st.sampled_from(["next", "next", "last", 1, 3, 50, -1]),
        done_below=st.sampled_from([0, 0, 1, "same", 2, -1]),
    )
    def numbered(self, drawn: tuple, number: int | str, done_below: int | str) -> None:
        caller = self.pair.numbered(self.pair.session(1), number, done_below)
        op = as_op(self.pair, drawn)
        self.pair.write(caller, op)
        self.pair.write(caller, op)

    @rule(
        drawn=sub_ops,
        epoch=st.integers(-1, 3),
        ids=st.sampled_from(CALLER_IDS),
        guard=st.none() | st.tuples(choice, st.booleans()),
    )
    def odd_caller(
        self, drawn: tuple, epoch: int, ids: tuple, guard: tuple[int, bool] | None
    ) -> None:
        path, czxid = self.pair.guard(*guard) if guard else ("", 0)
        caller = Caller(self.pair.session(1), epoch, 0, 0, ids, path, czxid)
        self.pair.write(caller, as_op(self.pair, drawn))

    @rule(path=existing, acl=acls, version=st.sampled_from(VERSIONS), session=sessions)
    def set_acl(self, path: PathChoice, acl: tuple, version: int, session: int) -> None:
        caller = Caller(self.pair.session(session))
        self.pair.write(caller, SetAclOp(self.pair.path(path), acl, version))

    @rule(
        op=st.sampled_from(
            [AddAuthOp((ALICE,)), AddAuthOp((BOB, ALICE, BOB)), AttachSessionOp(7), CheckOp("/")]
        ),
        session=sessions,
    )
    def session_operation(self, op: Op, session: int) -> None:
        self.pair.write(Caller(self.pair.session(session)), op)

    @rule(session=sessions)
    def close(self, session: int) -> None:
        self.pair.write(Caller(self.pair.session(session)), CloseSessionOp())

    @rule(session=sessions, epoch=st.integers(0, 1))
    def expire(self, session: int, epoch: int) -> None:
        self.pair.expire(self.pair.session(session), epoch)

    @rule(chosen=choice, off=st.sampled_from([0, 0, 1]), empty=st.booleans())
    def collect(self, chosen: int, off: int, empty: bool) -> None:
        self.pair.collect(chosen, off, empty)

    @rule(step=st.integers(1, 6))
    def wait(self, step: int) -> None:
        self.pair.wait(step)

    @rule()
    def rebuild(self) -> None:
        self.pair.rebuild()

    @invariant()
    def compare(self) -> None:
        self.pair.compare()


CoreAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestCoreAgainstModel = CoreAgainstModel.TestCase


class Walk:
    """A random walk that mostly does what can succeed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.pair = Pair()
        self.steps = [
            *[self.write] * 40,
            *[self.numbered] * 12,
            *[self.session_operation] * 4,
            *[self.collect] * 4,
            *[self.wait] * 2,
            self.open,
            self.end,
        ]
        self.open()

    def step(self) -> None:
        self.random.choice(self.steps)()

    def path(self, *, is_new: bool) -> str:
        pick = self.random
        if pick.random() < 0.03:
            return pick.choice(BAD_PATHS)
        among = max(1, len(self.pair.model.nodes) - 4)
        index = pick.randrange(among)
        if is_new and (among == 1 or pick.random() < 0.2):
            return "/" + pick.choice(NAMES)
        return self.pair.path((index, pick.choice(NAMES)) if is_new else index)

    def sub_op(self) -> Op:
        pick = self.random
        kind = pick.choice([CreateOp, CreateOp, CreateOp, DeleteOp, DeleteOp, SetDataOp, CheckOp])
        if kind is CreateOp:
            mode, ttl = pick.choice(MODES * 3 + BAD_MODES)
            return CreateOp(self.path(is_new=True), pick.choice(DATA), mode, ttl, self.acl())
        path, version = self.path(is_new=False), pick.choice(VERSIONS)
        if kind is SetDataOp:
            return SetDataOp(path, pick.choice(DATA), version)
        return kind(path, version)

    def acl(self) -> tuple[Acl, ...]:
        if self.random.random() < 0.8:
            return OPEN
        return tuple(self.random.choices(ACL_ENTRIES, k=self.random.randrange(4)))

    def op(self) -> Op:
        drawn = self.random.random()
        if drawn < 0.2:
            return MultiOp(tuple(self.sub_op() for _ in range(self.random.randrange(6))))
        if drawn < 0.3:
            version = self.random.choice(VERSIONS)
            return SetAclOp(self.path(is_new=False), self.acl(), version)
        return self.sub_op()

    def session(self) -> int:
        return self.pair.session(self.random.randrange(5))

    def write(self) -> None:
        ids = self.random.choice([*CALLER_IDS, (SUPER,)])
        caller = Caller(self.session(), ids=ids)
        if self.random.random() < 0.1:
            path, czxid = self.pair.guard(self.random.randrange(20), self.random.random() < 0.7)
            caller = replace(caller, guard_path=path, guard_czxid=czxid)
        if self.random.random() < 0.2:
            caller = replace(caller, attach_epoch=self.random.randrange(3))
        self.pair.write(caller, self.op())

    def numbered(self) -> None:
        session_id = self.session() or self.pair.session(1)
        number = self.random.choice(["next"] * 6 + ["last", 1, 7])
        caller = self.pair.numbered(session_id, number, self.random.choice([0, 0, 1, 4, "same"]))
        op = self.op()
        self.pair.write(caller, op)
        if self.random.random() < 0.3:
            self.pair.write(caller, op)

    def session_operation(self) -> None:
        ops = [AddAuthOp((ALICE,)), AddAuthOp((BOB, ALICE)), AttachSessionOp(7), CheckOp("/")]
        self.pair.write(Caller(self.session()), self.random.choice(ops))

    def collect(self) -> None:
        self.pair.collect(self.random.randrange(50), self.random.choice([0, 0, 0, 1]), True)

    def wait(self) -> None:
        self.pair.wait(self.random.randrange(1, 7))

    def open(self) -> None:
        self.pair.open(5, self.random.random() < 0.5)

    def end(self) -> None:
        session_id = self.session()
        if self.random.random() < 0.5:
            self.pair.write(Caller(session_id), CloseSessionOp())
        else:
            self.pair.expire(session_id, self.random.randrange(2))


@pytest.mark.parametrize("seed", range(6))
def test_random_walk(seed: int) -> None:
    """1,000 commands, the machine made anew from its records after each hundred."""
    walk = Walk(seed)
    for count in range(1000):
        walk.step()
        if count % 10 == 0:
            walk.pair.compare()
        if count % 100 == 0:
            walk.pair.rebuild()
