"""Writes keep their order and their numbers over refusals and broken streams."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from coordsvc.errors import (
    Applied,
    BadArgumentsError,
    BadVersionError,
    ErrorCode,
    LimitExceededError,
    NoQuorumError,
    OutcomeUnknownError,
    UnavailableError,
)
from tests.unit.client.fake_replica import (
    PATIENCE_SECONDS,
    FakeReplica,
    go_away,
    numbers,
    paths,
    refusal,
    reply,
)
from tests.unit.client.opening import Connect


async def test_writes_are_numbered_without_gaps_and_answers_are_not_asked_for_again(
    connect: Connect,
) -> None:
    client, stream = await connect()
    first = [client.nowait.set_data(f"/{name}", b"x") for name in "abc"]
    operations = await stream.operations(3)
    assert numbers(operations) == [1, 2, 3]
    assert [each.set_data.context.done_below for each in operations] == [1, 1, 1]
    stream.send(*(reply(each) for each in operations[:2]))
    await asyncio.gather(*first[:2])
    client.nowait.delete("/d")
    (fourth,) = await stream.operations(1)
    assert (fourth.delete.context.request_number, fourth.delete.context.done_below) == (4, 3)


async def test_everything_submitted_in_one_turn_leaves_in_one_frame(connect: Connect) -> None:
    client, stream = await connect()
    tasks = [asyncio.create_task(client.set_data("/a", b"%d" % i)) for i in range(500)]
    frame = await stream.frame()
    assert numbers(list(frame.operations)) == list(range(1, 501))
    stream.send(*(reply(each) for each in frame.operations))
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("path", ["", "a", "/a/", "/a//b", "/a/../b", "/\ud800", "/\x00"])
async def test_a_path_that_no_replica_would_take_is_not_sent(connect: Connect, path: str) -> None:
    client, stream = await connect()
    for operation in (client.set_data(path, b""), client.get_data(path), client.delete(path)):
        with pytest.raises(BadArgumentsError):
            await operation
    with pytest.raises(BadArgumentsError):
        await client.create("/a", ephemeral=True, container=True)
    with pytest.raises(LimitExceededError):
        await client.create("/a", b"x" * (4 * 1024 * 1024))
    client.nowait.delete("/good")
    assert numbers(await stream.operations(1)) == [1]


async def test_no_more_requests_are_out_than_the_replica_allows(connect: Connect) -> None:
    client, stream = await connect(outstanding=10)
    futures = [client.nowait.set_data("/a", b"x") for _ in range(25)]
    seen = 0
    for expected in (10, 10, 5):
        operations = await stream.operations(expected)
        assert numbers(operations) == list(range(seen + 1, seen + expected + 1))
        seen += expected
        stream.send(*(reply(each) for each in operations))
    await asyncio.gather(*futures)


async def test_reads_count_as_well(connect: Connect) -> None:
    client, stream = await connect(outstanding=10)
    for _ in range(25):
        client.nowait.exists("/a")
    assert len((await stream.frame()).operations) == 10


async def test_no_write_runs_further_ahead_than_results_are_kept(connect: Connect) -> None:
    """Though two of three are answered: the result of the first is still asked for."""
    client, stream = await connect(outstanding=3)
    futures = [client.nowait.set_data("/a", b"x") for _ in range(6)]
    operations = await stream.operations(3)
    stream.send(reply(operations[1]), reply(operations[2]))
    await asyncio.gather(*futures[1:3])
    stream.send(reply(operations[0]))
    following = await stream.frame()
    assert numbers(list(following.operations)) == [4, 5, 6]


async def test_frames_are_closed_at_one_mebibyte(connect: Connect) -> None:
    client, stream = await connect()
    for _ in range(5):
        client.nowait.set_data("/a", b"x" * 300_000)
    first, second = await stream.frame(), await stream.frame()
    assert [len(first.operations), len(second.operations)] == [3, 2]
    assert first.ByteSize() <= 1024 * 1024


async def test_what_was_not_answered_is_sent_again_in_order_before_anything_new(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect()
    futures = [client.nowait.set_data(f"/{i}", b"x") for i in range(4)]
    operations = await stream.operations(4)
    stream.send(reply(operations[0]))
    await futures[0]
    stream.cut()
    while client.endpoint:
        await asyncio.sleep(0)
    new = client.nowait.set_data("/new", b"x")
    other = await replicas[1].accept()
    await other.welcome()
    again = await other.operations(4)
    assert paths(again) == ["/1", "/2", "/3", "/new"]
    assert numbers(again) == [2, 3, 4, 5]
    assert again[0].set_data.context.done_below == 2
    other.send(*(reply(each) for each in again))
    await asyncio.gather(*futures[1:], new)


async def test_what_waited_while_the_stream_broke_comes_after_what_was_sent(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect(outstanding=2)
    for number in range(4):
        client.nowait.set_data(f"/{number}", b"x")
    await stream.operations(2)
    stream.cut()
    other = await replicas[1].accept()
    await other.welcome()
    again = await other.operations(4)
    assert (paths(again), numbers(again)) == (["/0", "/1", "/2", "/3"], [1, 2, 3, 4])


async def test_a_refusal_by_the_state_machine_has_used_its_number(connect: Connect) -> None:
    client, stream = await connect()
    refused = client.nowait.set_data("/a", b"x", expected_version=9)
    (operation,) = await stream.operations(1)
    stream.send(refusal(operation, ErrorCode.BAD_VERSION, zxid=30))
    with pytest.raises(BadVersionError) as raised:
        await refused
    assert (raised.value.applied, raised.value.zxid) == (Applied.NO, 30)
    client.nowait.delete("/b")
    assert numbers(await stream.operations(1)) == [2]


async def test_the_number_of_a_write_that_was_malformed_goes_to_the_one_behind_it(
    connect: Connect,
) -> None:
    """And those behind, which the state machine refuses as they jump over it, come once more, and
    so does a read that was answered without them."""
    client, stream = await connect()
    malformed = client.nowait.set_data("/bad", b"x")
    behind = [client.nowait.set_data("/b", b"x"), client.nowait.set_data("/c", b"x")]
    read = client.nowait.exists("/c")
    operations = await stream.operations(4)
    stream.send(refusal(operations[0], ErrorCode.BAD_ARGUMENTS))
    with pytest.raises(BadArgumentsError):
        await malformed
    later = client.nowait.set_data("/later", b"x")  # Waits for those before it.
    stream.send(
        refusal(operations[1], ErrorCode.REQUEST_OUT_OF_ORDER, zxid=20),
        refusal(operations[2], ErrorCode.REQUEST_OUT_OF_ORDER, zxid=20),
        reply(operations[3]),
    )
    again = await stream.frame()
    assert paths(list(again.operations)) == ["/b", "/c", "/c", "/later"]
    writes = [each for each in again.operations if each.HasField("set_data")]
    assert numbers(writes) == [1, 2, 3]
    stream.send(*(reply(each) for each in again.operations))
    await asyncio.gather(*behind, read, later)


async def test_a_write_that_the_replica_could_not_propose_goes_elsewhere_under_its_number(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect()
    futures = [client.nowait.set_data(f"/{i}", b"x") for i in range(3)]
    operations = await stream.operations(3)
    stream.send(reply(operations[0]))
    stream.send(refusal(operations[1], ErrorCode.NO_QUORUM))
    stream.send(refusal(operations[2], ErrorCode.NO_QUORUM), go_away())
    stream.end(grpc.StatusCode.UNAVAILABLE, ErrorCode.NO_QUORUM)
    other = await replicas[1].accept()
    await other.welcome()
    again = await other.operations(2)
    assert (paths(again), numbers(again)) == (["/1", "/2"], [2, 3])
    other.send(*(reply(each) for each in again))
    await asyncio.gather(*futures)


async def test_an_unknown_outcome_is_asked_for_again_though_those_behind_are_done(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect()
    futures = [client.nowait.set_data(f"/{i}", b"x") for i in range(3)]
    operations = await stream.operations(3)
    stream.send(
        refusal(operations[0], ErrorCode.OUTCOME_UNKNOWN, applied=Applied.UNKNOWN),
        reply(operations[1]),
        reply(operations[2]),
    )
    await asyncio.gather(*futures[1:])
    stream.cut()
    other = await replicas[1].accept()
    await other.welcome()
    new = client.nowait.set_data("/new", b"x")
    again = await other.operations(2)
    assert (paths(again), numbers(again)) == (["/0", "/new"], [1, 4])
    other.send(*(reply(each) for each in again))
    await asyncio.gather(futures[0], new)


async def test_a_write_whose_time_is_up_keeps_its_place_once_it_was_sent(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect()
    late = client.nowait.set_data("/late", b"x", timeout_ms=30)
    behind = client.nowait.set_data("/behind", b"x")
    await stream.operations(2)
    with pytest.raises(OutcomeUnknownError) as raised:
        await late
    assert raised.value.applied is Applied.UNKNOWN
    stream.cut()
    other = await replicas[1].accept()
    await other.welcome()
    again = await other.operations(2)
    assert (paths(again), numbers(again)) == (["/late", "/behind"], [1, 2])
    other.send(*(reply(each) for each in again))
    await behind


async def test_a_write_that_was_never_sent_in_its_time_takes_no_number(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect(outstanding=1)
    first = client.nowait.set_data("/first", b"x")
    unsent = client.nowait.set_data("/unsent", b"x", timeout_ms=30)
    last = client.nowait.set_data("/last", b"x")
    (operation,) = await stream.operations(1)
    with pytest.raises(UnavailableError) as raised:
        await unsent
    assert raised.value.applied is Applied.NO
    stream.send(reply(operation))
    await first
    following = await stream.operations(1)
    assert (paths(following), numbers(following)) == (["/last"], [2])
    stream.send(reply(following[0]))
    await last


async def test_who_waits_too_long_hears_why_nothing_was_done(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect()
    refused = client.nowait.set_data("/a", b"x", timeout_ms=400)
    (operation,) = await stream.operations(1)
    stream.send(refusal(operation, ErrorCode.NO_QUORUM), go_away(0))
    with pytest.raises(NoQuorumError) as raised:
        await refused
    assert raised.value.applied is Applied.NO
    other = await replicas[1].accept()
    await other.welcome()
    new = client.nowait.set_data("/new", b"x")
    following = await other.operations(1)
    assert (paths(following), numbers(following)) == (["/new"], [1])
    other.send(reply(following[0]))
    await new


async def test_cancelling_a_write_gives_up_its_answer_only(connect: Connect) -> None:
    client, stream = await connect()
    given_up = asyncio.create_task(client.set_data("/a", b"x"))
    kept = asyncio.create_task(client.set_data("/b", b"x"))
    await asyncio.sleep(0)
    given_up.cancel()
    operations = await stream.operations(2)
    assert (paths(operations), numbers(operations)) == (["/a", "/b"], [1, 2])
    stream.send(*(reply(each) for each in operations))
    await kept
    assert given_up.cancelled()


async def test_a_write_whose_caller_was_cancelled_is_done_though_it_was_refused_once(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect()
    client.nowait.set_data("/a", b"x").cancel()
    (operation,) = await stream.operations(1)
    stream.send(refusal(operation, ErrorCode.NO_QUORUM), go_away(0))
    other = await replicas[1].accept()
    await other.welcome()
    assert paths(await other.operations(1)) == ["/a"]


async def test_a_read_that_nobody_waits_for_is_not_sent(connect: Connect) -> None:
    client, stream = await connect()
    client.nowait.exists("/a").cancel()
    client.nowait.exists("/b")
    assert paths(await stream.operations(1)) == ["/b"]


async def test_a_refused_read_is_not_asked_again_behind_a_later_write(connect: Connect) -> None:
    """It must not see what was written after it."""
    client, stream = await connect()
    read = client.nowait.get_data("/a", linearizable=True, timeout_ms=3_600_000)
    write = client.nowait.set_data("/a", b"x")
    operations = await stream.operations(2)
    stream.send(refusal(operations[0], ErrorCode.NO_QUORUM), reply(operations[1]))
    await write
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(NoQuorumError):
            await read


async def test_a_refusal_of_what_was_perhaps_applied_leaves_it_unknown_and_settles_its_number(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    """Another replica has no room for it, which says nothing about the first attempt."""
    client, stream = await connect()
    write = client.nowait.set_data("/a", b"x")
    behind = client.nowait.set_data("/b", b"x")
    await stream.operations(2)
    stream.cut()
    other = await replicas[1].accept()
    await other.welcome()
    again = await other.operations(2)
    other.send(refusal(again[0], ErrorCode.LIMIT_EXCEEDED), reply(again[1]))
    with pytest.raises(OutcomeUnknownError) as raised:
        await write
    assert raised.value.applied is Applied.UNKNOWN
    await behind
    new = client.nowait.set_data("/new", b"x")
    filler, following = await other.operations(2)
    assert filler.multi.operations[0].check.path == "/"
    assert filler.multi.context.request_number == 1
    assert following.set_data.context.request_number == 3
    # Used by the first attempt, for another operation.
    other.send(refusal(filler, ErrorCode.BAD_ARGUMENTS, zxid=40), reply(following))
    await new


async def test_a_number_that_was_not_used_is_used_by_a_write_that_does_nothing(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect()
    write = client.nowait.set_data("/a", b"x")
    behind = client.nowait.set_data("/b", b"x")
    await stream.operations(2)
    stream.cut()
    other = await replicas[1].accept()
    await other.welcome()
    again = await other.operations(2)
    other.send(
        refusal(again[0], ErrorCode.LIMIT_EXCEEDED),
        refusal(again[1], ErrorCode.REQUEST_OUT_OF_ORDER, zxid=40),
    )
    with pytest.raises(OutcomeUnknownError):
        await write
    filler, following = await other.operations(2)
    assert filler.multi.context.request_number == 1
    assert following.set_data.path == "/b"
    assert following.set_data.context.request_number == 2
    other.send(reply(filler), reply(following))
    await behind


async def test_an_answer_that_does_not_say_whether_it_was_applied_settles_the_number_too(
    connect: Connect,
) -> None:
    client, stream = await connect()
    write = client.nowait.set_data("/a", b"x")
    (operation,) = await stream.operations(1)
    stream.send(refusal(operation, ErrorCode.SYSTEM_ERROR, applied=Applied.UNKNOWN))
    with pytest.raises(OutcomeUnknownError):
        await write
    (filler,) = await stream.operations(1)
    assert filler.multi.context.request_number == 1
    stream.send(reply(filler))
