"""Whatever bytes an entry has, decoding refuses them with one error; whatever a decodable entry
holds, applying it raises nothing and breaks no invariant."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordsvc.core.commands import (
    Acl,
    AddAuthOp,
    AttachSessionOp,
    AuthId,
    Batch,
    Caller,
    CheckOp,
    CloseSessionOp,
    CollectContainer,
    CollectTtl,
    CreateOp,
    DeleteOp,
    Entry,
    ExpireSession,
    InitCluster,
    MultiOp,
    OpenSession,
    RegisterOrigin,
    SetAclOp,
    SetDataOp,
    Write,
)
from coordsvc.core.invariants import check_machine
from coordsvc.core.machine import Machine, UndecodableEntryError, decode_entry
from tests.unit.core.harness import PASSWORD, TERM, Harness, rebuilt

HUGE = 2**64 - 1
SESSION, INCARNATION = 2, 1

ints = st.sampled_from([0, 0, 1, 2, 3, 5, -1, -2, 2**31, 2**63 - 1, 2**63, HUGE, -(2**63)])
wild_text = st.text(
    alphabet=st.one_of(
        st.sampled_from("/.:\0ab\x1f\x7f\ufff0\ue000\U0001f600"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=12,
)
paths = st.one_of(
    st.sampled_from(["/", "/a", "/a/b", "/e", "/c", "/t", "/zookeeper/config", "/a/", "/" * 5000]),
    wild_text,
)
schemes = st.sampled_from(
    ["world", "auth", "digest", "ip", "x509", "super", "sasl", "", "\U0001f600"]
)
auth_ids = st.builds(AuthId, schemes, wild_text | st.sampled_from(["::1/0", "1.2.3.4", "u:p"]))
acls = st.lists(
    st.builds(Acl, ints | st.integers(0, 31), schemes, wild_text | st.just("anyone")), max_size=3
).map(tuple)
blobs = st.none() | st.binary(max_size=20) | st.just(b"x" * (1024 * 1024 + 1))
creates = st.builds(CreateOp, paths, blobs, ints | st.integers(0, 6), ints, acls)
sub_ops = st.one_of(
    creates,
    st.builds(CreateOp, paths, blobs, st.integers(0, 6)),
    st.builds(DeleteOp, paths, ints),
    st.builds(SetDataOp, paths, blobs, ints),
    st.builds(CheckOp, paths, ints),
)
ops = st.one_of(
    sub_ops,
    st.builds(SetAclOp, paths, acls, ints),
    st.builds(MultiOp, st.lists(sub_ops, max_size=4).map(tuple)),
    st.just(MultiOp((CheckOp("/"),) * 129)),
    st.builds(AddAuthOp, st.lists(auth_ids, max_size=3).map(tuple)),
    st.just(AddAuthOp(tuple(AuthId("digest", str(n)) for n in range(70)))),
    st.just(CloseSessionOp()),
    st.builds(AttachSessionOp, ints),
)
callers = st.builds(
    Caller,
    st.just(SESSION) | ints,
    st.just(0) | ints,
    ints,
    ints,
    st.lists(auth_ids, max_size=2).map(tuple),
    st.just("") | paths,
    ints,
)
commands = st.one_of(
    st.builds(Write, callers | st.just(Caller()) | st.just(Caller(SESSION)), ops),
    st.builds(
        OpenSession, ints, st.just(PASSWORD) | st.binary(max_size=3), wild_text, st.booleans()
    ),
    st.builds(RegisterOrigin, ints, st.binary(max_size=3)),
)
batches = st.builds(
    Batch,
    st.just(1) | ints,
    st.just(INCARNATION) | ints,
    st.integers(0, 20) | ints,
    st.lists(commands, max_size=4).map(tuple),
)
next_batches = st.lists(commands, max_size=6).map(tuple)
leader_commands = st.one_of(
    st.builds(InitCluster, st.just(TERM) | ints, st.binary(min_size=15, max_size=17)),
    st.builds(ExpireSession, st.just(TERM), st.just(SESSION) | ints, ints),
    st.builds(CollectContainer, st.just(TERM), paths, ints),
    st.builds(CollectTtl, st.just(TERM), paths, ints),
)
entries = st.builds(
    Entry,
    ints,
    ints,
    st.lists(batches, max_size=2).map(tuple),
    st.lists(leader_commands, max_size=2).map(tuple),
    ints,
    ints,
)


def furnished() -> Machine:
    """A machine with a session and one znode of each kind."""
    harness = Harness()
    session_id = harness.open_session()
    assert (harness.incarnation, session_id) == (INCARNATION, SESSION)
    harness.create("/a", "/a/b")
    harness.write(CreateOp("/e", None, 1), Caller(session_id))
    harness.write(CreateOp("/c", None, 4))
    harness.write(CreateOp("/t", None, 5, 10))
    return harness.machine


VALID = msgspec.msgpack.encode(
    Entry(
        1,
        1,
        (
            Batch(1, 1, 7, (Write(Caller(2, 0, 1, 1), CreateOp("/x", b"d")),)),
            Batch(1, 1, 8, (OpenSession(5, PASSWORD), Write(Caller(), MultiOp((CheckOp("/a"),))))),
        ),
        (CollectTtl(TERM, "/t", 5), ExpireSession(TERM, 2, 0)),
    )
)


@given(st.binary(max_size=200))
def test_garbage_is_undecodable_or_harmless(payload: bytes) -> None:
    apply_if_decodable(furnished(), payload)


@settings(max_examples=300)
@given(st.data())
def test_damaged_entries_are_undecodable_or_harmless(data: st.DataObject) -> None:
    payload = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    apply_if_decodable(furnished(), bytes(payload[: data.draw(st.integers(0, len(payload)))]))


def apply_if_decodable(machine: Machine, payload: bytes) -> None:
    try:
        entry = decode_entry(payload)
    except UndecodableEntryError:
        return
    machine.apply_entry(entry, TERM)
    check_machine(machine)


@settings(max_examples=200)
@given(st.lists(entries, max_size=3), next_batches)
def test_decodable_entries_never_raise(wild: list[Entry], commands: tuple) -> None:
    """Nor does a machine made from the records that such entries leave."""
    machine = furnished()
    last_seq = machine.state.origins[1].last_seq
    in_order = Entry(5, 5, (Batch(1, INCARNATION, last_seq + 1, commands),))
    for entry in [in_order, *wild]:
        machine.apply_entry(decode_entry(msgspec.msgpack.encode(entry)), TERM)
        check_machine(machine)
    assert rebuilt(machine).digest() == machine.digest()


@pytest.mark.parametrize(
    "entry",
    [
        [1, 1, [[1, 1, 7, [[9, []]]]], []],  # an unknown kind of command
        [1, 1, [], [[19, 7, "/"]]],  # an unknown command of a leader
        [1, 1, [[1, 1, 7, [[1, [0], [99, "/"]]]]], []],  # an unknown operation
        [1, 1, [[1, 1, 7, [[1, [0], [2, "/a", -1, "?"]]]]], []],  # an unknown field
        [1, 1, [], [], 0, 0, "?"],  # an unknown field of the entry
        [1, 1, [[1, 1, 7, [[1, [0], [6, [[5, "/a", []]]]]]]], []],  # set_acl in a multi
        [1, 1, [], [], "0"],  # another type
        {},
    ],
)
def test_unknown_kinds_and_fields_are_undecodable(entry: object) -> None:
    """An older replica must stop there: skipping would make it differ from the others."""
    with pytest.raises(UndecodableEntryError):
        decode_entry(msgspec.msgpack.encode(entry))


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x92\x01", b"\x91" * 100_000])
def test_garbage_is_undecodable(payload: bytes) -> None:
    with pytest.raises(UndecodableEntryError):
        decode_entry(payload)


def test_text_that_is_no_utf8_is_undecodable() -> None:
    valid = msgspec.msgpack.encode(Entry(1, 1, (), (CollectTtl(1, "/abc", 1),)))
    with pytest.raises(UndecodableEntryError):
        decode_entry(valid.replace(b"/abc", b"/\xed\xa0\x80"))
