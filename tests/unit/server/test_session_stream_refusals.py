"""What is refused on a Session stream: in its place, or with everything behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from coordsvc.core.commands import Caller, CreateOp, Write
from coordsvc.errors import CoordError, NoQuorumError, OutcomeUnknownError, ShuttingDownError
from coordsvc.v1 import common_pb2, coordination_pb2, errors_pb2
from tests.unit.server.harness import Harness, eventually, local_server
from tests.unit.server.stream_harness import Operation, Stream, code_of, opened, streams

Make = Callable[[Stream], Operation]


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    async with local_server() as harness:
        yield harness


@pytest.fixture
async def stream(harness: Harness) -> AsyncIterator[Stream]:
    async with streams(harness) as (stream,):
        yield stream


# ------------------------------------------------------------------------- in its place


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda s: s.operation("create", path="no slash"), "BAD_ARGUMENTS"),
        (lambda s: s.operation("create", path="/x" + "y" * 4096), "BAD_ARGUMENTS"),
        (
            lambda s: s.operation("set_data", path="/", data=b"x" * (1 << 20) + b"x"),
            "LIMIT_EXCEEDED",
        ),
        (lambda s: s.operation("get_data", path="/none"), "NO_NODE"),
        (lambda s: s.operation("delete", path="/none"), "NO_NODE"),
        (lambda s: s.operation("get_children", path="/", page_size=-1), "BAD_ARGUMENTS"),
        (lambda s: s.operation("add_auth", scheme="kerberos"), "AUTH_FAILED"),
        (lambda s: s.operation("multi", operations=[{}]), "BAD_ARGUMENTS"),
        (lambda s: s.operation("remove_watches", watch_ids=[7]), "NO_WATCHER"),
        (
            lambda s: s.operation("add_watches", watches=[{"watch_id": 1, "path": "/"}]),
            "BAD_ARGUMENTS",
        ),
        (lambda s: s.operation("exists", path="/", context={"min_zxid": -1}), "BAD_ARGUMENTS"),
        (
            lambda s: s.operation("exists", path="/", context={"session": {"session_id": 1}}),
            "BAD_ARGUMENTS",
        ),
        (
            lambda s: s.operation("create", path="/x", context={"session": {"session_id": 1}}),
            "BAD_ARGUMENTS",
        ),
        (
            lambda s: s.operation("create", path="/x", context={"required_features": ["f"]}),
            "UNSUPPORTED_FEATURE",
        ),
        (
            lambda s: s.operation("create", path="/x", context={"guard": {"path": "/g"}}),
            "BAD_ARGUMENTS",
        ),
        (
            lambda s: s.operation(
                "create", path="/x", context={"guard": {"path": "/g", "czxid": 9}}
            ),
            "GUARD_FAILED",
        ),
        (lambda s: Operation(request_id=500), "BAD_ARGUMENTS"),
    ],
)
async def test_a_refusal_takes_its_place_and_the_rest_goes_on(
    stream: Stream, make: Make, code: str
) -> None:
    before = stream.operation("create", path="/before")
    refused = make(stream)
    after = stream.operation("create", path="/after")
    ids = await stream.send(before, refused, after)
    replies = await stream.replies(ids)
    assert [code_of(reply) for reply in replies] == ["OK", code, "OK"]
    assert stream.answered == ids
    assert replies[1].error.message
    assert replies[1].error.applied == errors_pb2.APPLIED_NO
    assert replies[1].zxid == replies[1].error.zxid


async def test_a_refusal_says_all_that_a_unary_one_says(stream: Stream) -> None:
    await stream.ask("create", path="/a")
    reply = await stream.ask(
        "multi",
        operations=[
            {"check": {"path": "/a"}},
            {"delete": {"path": "/" + "long" * 300}},
        ],
    )
    error = reply.error
    assert errors_pb2.ErrorCode.Name(error.code) == "ERROR_CODE_NO_NODE"
    assert error.operation_index == 1
    assert error.zxid == reply.zxid > 0
    assert error.path.endswith("...")
    assert len(error.path) <= 1024
    assert len(error.message) <= 256


async def test_numbered_writes_in_a_pipeline_and_their_retry_on_a_new_stream(
    harness: Harness, stream: Stream
) -> None:
    """The same numbers answer as the first time, refusals and zxids included; nothing is done
    twice."""

    def write(of: Stream, number: int) -> Operation:
        context = common_pb2.RequestContext(request_number=number)
        if number % 3:
            return of.operation("create", path="/q-", mode=2, context=context)
        return of.operation("create", path="/none/x", context=context)

    ids = await stream.send(*(write(stream, number) for number in range(1, 100)))
    first = await stream.replies(ids)
    assert [code_of(reply) for reply in first].count("NO_NODE") == 33
    newer = await opened(harness, credentials=stream.credentials)
    zxid = harness.replica.machine.state.zxid
    ids = await newer.send(*(write(newer, number) for number in range(1, 100)))
    second = await newer.replies(ids)
    for old, new in zip(first, second, strict=True):
        new.request_id = old.request_id
        assert new == old
    assert harness.replica.machine.state.zxid == zxid
    newer.cancel()


async def test_a_number_ahead_is_refused_where_it_is_applied(stream: Stream) -> None:
    context = common_pb2.RequestContext(request_number=2)
    reply = await stream.ask("create", path="/a", context=context)
    assert code_of(reply) == "REQUEST_OUT_OF_ORDER"


# ------------------------------------------------------------------------- request ids


@pytest.mark.parametrize("request_id", [0, -5])
async def test_a_request_id_must_be_positive(stream: Stream, request_id: int) -> None:
    operation = stream.operation("exists", path="/")
    operation.request_id = request_id
    await stream.send(operation)
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "BAD_ARGUMENTS"


async def test_a_request_id_in_use_breaks_the_protocol_and_one_answered_is_free(
    harness: Harness, stream: Stream
) -> None:
    for _ in range(3):
        (request_id,) = await stream.send(stream.operation("exists", path="/", request_id=7))
        await stream.reply(request_id)
        stream.items.clear()
    harness.replica.is_automatic = False
    await stream.send(
        stream.operation("create", path="/a", request_id=7),
        stream.operation("create", path="/b", request_id=7),
    )
    await eventually(lambda: len(harness.replica.submitted) == 2)
    harness.replica.apply()
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "BAD_ARGUMENTS"
    assert "/b" not in harness.replica.machine.state.znodes


# ------------------------------------------------------------------------- in order or not at all


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (NoQuorumError("no leader took it in time"), "NO_QUORUM", "OVERLOADED"),
        (ShuttingDownError("stopping"), "SHUTTING_DOWN", "SHUTTING_DOWN"),
    ],
)
async def test_what_is_behind_a_write_that_was_not_proposed_does_not_run(
    harness: Harness, stream: Stream, error: CoordError, code: str, reason: str
) -> None:
    """The first of three waiting writes is refused; the others would have had time left."""
    replica = harness.replica
    replica.is_automatic = False
    ids = await stream.send(
        stream.operation("create", path="/a"),
        stream.operation("create", path="/b"),
        stream.operation("exists", path="/"),
        stream.operation("get_children", path="/"),
        stream.operation("create", path="/c"),
    )
    await eventually(lambda: len(replica.submitted) == 3)
    _, first, _ = replica._waiting.pop(0)
    first.set_exception(error)
    replica.apply()
    refused = await stream.end()
    assert refused is not None
    assert refused.code == code
    assert refused.status.name == "UNAVAILABLE"
    replies = await stream.replies(ids)
    assert [code_of(reply) for reply in replies] == [code] * 5
    assert all(reply.error.applied == errors_pb2.APPLIED_NO for reply in replies)
    assert not {"/a", "/b", "/c"} & replica.machine.state.znodes.keys()
    go_away = stream.items[-1].go_away
    assert coordination_pb2.GoAwayReason.Name(go_away.reason) == f"GO_AWAY_REASON_{reason}"


async def test_writes_refused_as_they_are_submitted_take_the_rest_with_them(
    harness: Harness, stream: Stream
) -> None:
    harness.server.pipeline.begin_stop()
    ids = await stream.send(*(stream.operation("create", path=f"/{n}") for n in range(5)))
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "SHUTTING_DOWN"
    assert [code_of(reply) for reply in await stream.replies(ids)] == ["SHUTTING_DOWN"] * 5


async def test_a_write_whose_min_zxid_is_not_reached_takes_the_rest_with_it(
    harness: Harness, stream: Stream
) -> None:
    context = common_pb2.RequestContext(min_zxid=10_000)
    ids = await stream.send(
        stream.operation("create", path="/a"),
        stream.operation("create", path="/b", context=context),
        stream.operation("create", path="/c"),
        stream.operation("exists", path="/c"),
    )
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "NOT_CAUGHT_UP"
    codes = [code_of(reply) for reply in await stream.replies(ids)]
    assert codes == ["OK"] + ["NOT_CAUGHT_UP"] * 3
    assert "/c" not in harness.replica.machine.state.znodes


async def test_a_write_with_a_min_zxid_runs_once_it_is_applied(
    harness: Harness, stream: Stream
) -> None:
    replica = harness.replica
    replica.apply_elsewhere(Write(Caller(), CreateOp("/a")))
    context = common_pb2.RequestContext(min_zxid=replica.machine.state.zxid + 1)
    ids = await stream.send(
        stream.operation("create", path="/a/b", context=context),
        stream.operation("create", path="/a/b/c"),
        ping=1,
    )
    await stream.pong(1)
    assert not stream.answered
    assert not [w for w in replica.submitted if getattr(w, "op", None)]
    replica.catch_up()
    assert [code_of(reply) for reply in await stream.replies(ids)] == ["OK", "OK"]


async def test_an_unknown_outcome_is_its_own_answer_and_nobody_elses(
    harness: Harness, stream: Stream
) -> None:
    """It was proposed: what is behind it was too."""
    replica = harness.replica
    replica.is_automatic = False
    ids = await stream.send(*(stream.operation("create", path=f"/{n}") for n in range(3)))
    await eventually(lambda: len(replica.submitted) == 4)
    replica._waiting[0][1].set_exception(OutcomeUnknownError("not decided in time"))
    replica.apply()
    codes = [code_of(reply) for reply in await stream.replies(ids)]
    assert codes == ["OUTCOME_UNKNOWN", "OK", "OK"]
    assert (await stream.reply(ids[0])).error.applied == errors_pb2.APPLIED_UNKNOWN
    assert code_of(await stream.ask("exists", path="/")) == "OK"


async def test_too_many_reads_waiting_are_refused_in_their_place(harness: Harness) -> None:
    from dataclasses import replace

    from coordsvc.server.config_model import LimitsConfig

    limits = replace(LimitsConfig(), reads_waiting_max=3)
    async with local_server(limits=limits) as few, streams(few) as (stream,):
        few.replica.is_automatic = False
        operations: list[Any] = [stream.operation("create", path="/a")]
        operations += [stream.operation("exists", path="/a") for _ in range(5)]
        ids = await stream.send(*operations)
        await eventually(lambda: len(few.replica.submitted) == 2)
        few.replica.apply()
        few.replica.is_automatic = True
        codes = [code_of(reply) for reply in await stream.replies(ids)]
        assert codes == ["OK"] * 4 + ["THROTTLED"] * 2
        assert (await stream.reply(ids[-1])).error.retry_after_ms > 0
        assert code_of(await stream.ask("exists", path="/a")) == "OK"
        assert few.server.pipeline.statistics().reads_waiting == 0
