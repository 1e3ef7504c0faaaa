"""The faults of the simulated network of gRPC: who notices what, and when.

Goal: a simulation breaks what it means to break, and the same run happens again. Method: a server
and a client as processes of a timeline; a message takes a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from grpc import ChannelConnectivity, StatusCode, aio

from tests.unit.testing.rpc_world import (
    ADDRESS,
    LATENCY_S,
    OPTIONS,
    World,
    call,
    give,
    outcome,
    running,
)

READY, IDLE = ChannelConnectivity.READY, ChannelConnectivity.IDLE
FAILING = ChannelConnectivity.TRANSIENT_FAILURE


@pytest.fixture
def world() -> Iterator[World]:
    with running(World()) as world:
        yield world


# -------------------------------------------------------------------------- processes that die


def test_a_killed_server_is_noticed_after_a_message_time_and_does_nothing_more(
    world: World,
) -> None:
    server = world.serve()
    channel = world.open()
    stream = world.talk(channel)
    reading = world.start(world.client, outcome(stream.read()))
    waiting = world.start(world.client, call(channel, b"wait"))
    world.timeline.run_for(1.0)
    began = world.timeline.now
    server.kill()
    world.fabric.server_died(ADDRESS)
    assert world.finish(reading) is StatusCode.UNAVAILABLE is world.finish(waiting)
    assert world.timeline.now - began == pytest.approx(LATENCY_S, rel=0.1)
    assert channel.get_state() is IDLE
    assert world.told() == [b"first", b"wait"]


def test_a_server_that_is_killed_while_it_stops(world: World) -> None:
    server = world.serve()
    channel = world.open()
    waiting = world.start(world.client, call(channel, b"wait"))
    assert world.timeline.run_until(lambda: world.told() == [b"wait"], 1.0)
    world.start(server, world.servers[0].stop(20.0))
    world.timeline.run_for(5.0)
    assert channel.get_state() is IDLE and not waiting.done()
    server.kill()
    world.fabric.server_died(ADDRESS)
    assert world.finish(waiting, 1.0) is StatusCode.UNAVAILABLE


def test_a_call_that_comes_when_the_server_has_begun_to_stop_is_not_run(world: World) -> None:
    server = world.serve()
    channel = world.open()
    world.start(world.client, call(channel, b"wait"))
    assert world.timeline.run_until(lambda: world.told() == [b"wait"], 1.0)
    late = world.start(world.client, call(channel, b"late"))
    world.timeline.run_for(LATENCY_S / 2)
    world.start(server, world.servers[0].stop(20.0))
    assert world.finish(late, 1.0) is StatusCode.UNAVAILABLE
    assert world.told() == [b"wait"]


def test_a_killed_server_is_found_again_when_it_is_back(world: World) -> None:
    world.serve().kill()
    world.fabric.server_died(ADDRESS)

    async def connect() -> list[ChannelConnectivity]:
        channel = world.fabric.open_channel(ADDRESS, options=OPTIONS)
        states = [channel.get_state(try_to_connect=True)]
        while states[-1] is not READY:
            await channel.wait_for_state_change(states[-1])
            states.append(channel.get_state())
        return states

    connecting = world.start(world.client, connect())
    world.timeline.run_for(10.0)
    assert not connecting.done()
    world.serve("second")
    began = world.timeline.now
    connecting_states = [IDLE, ChannelConnectivity.CONNECTING, FAILING, READY]
    assert world.finish(connecting) == connecting_states
    assert world.timeline.now - began < 1.01, "the longest pause between attempts is a second"


def test_what_a_killed_server_had_sent_still_arrives(world: World) -> None:
    server = world.serve()
    stream = world.talk(world.open())
    world.run(world.client, stream.write(b"last"))
    assert world.timeline.run_until(lambda: b"last" in world.told(), 1.0)
    server.kill()
    world.fabric.server_died(ADDRESS)

    async def read_all() -> list[object]:
        return [await outcome(stream.read()), await outcome(stream.read())]

    assert world.run(world.client, read_all()) == [b"last", StatusCode.UNAVAILABLE]


def test_a_machine_without_power_is_missed_by_nobody_until_it_is_back(world: World) -> None:
    server = world.serve()
    channel = world.open()
    stream = world.talk(channel)
    reading = world.start(world.client, outcome(stream.read()))
    server.kill()
    world.fabric.power_off(ADDRESS)
    world.timeline.run_for(50.0)
    assert not reading.done() and channel.get_state() is READY
    assert world.run(world.client, call(channel, b"a", 1.0)) is StatusCode.DEADLINE_EXCEEDED
    world.serve("second")
    # What was sent in vain is sent again, to a machine that knows nothing of it.
    assert world.finish(reading, 1.0) is StatusCode.UNAVAILABLE
    assert world.run(world.client, call(channel, b"b")) == b"b"
    assert (world.told(), world.told("second")) == ([b"first"], [b"b"])


def test_a_silent_connection_to_a_machine_that_is_back_breaks_when_it_is_used(
    world: World,
) -> None:
    server = world.serve()
    channel = world.open()
    stream = world.talk(channel)
    server.kill()
    world.fabric.power_off(ADDRESS)
    world.serve("second")
    world.timeline.run_for(50.0)
    assert channel.get_state() is READY and not stream.done()
    assert world.run(world.client, call(channel, b"lost")) is StatusCode.UNAVAILABLE
    assert stream.done() and channel.get_state() is IDLE
    assert world.told("second") == []


def test_nobody_answers_at_a_machine_without_power(world: World) -> None:
    world.serve().kill()
    world.fabric.power_off(ADDRESS)
    began = world.timeline.now
    channel = world.run(world.client, give(lambda: failing(world)))
    assert world.timeline.run_until(lambda: channel.get_state() is FAILING, 10.0)
    assert world.timeline.now - began == pytest.approx(1.0, rel=0.01)


def failing(world: World) -> aio.Channel:
    channel = world.fabric.open_channel(ADDRESS, options=OPTIONS)
    channel.get_state(try_to_connect=True)
    return channel


def test_a_killed_clients_calls_are_cancelled(world: World) -> None:
    world.serve()
    channel = world.open()
    world.start(world.client, call(channel, b"wait"))
    assert world.timeline.run_until(lambda: world.told() == [b"wait"], 1.0)
    began = world.timeline.now
    world.client.kill()
    world.fabric.client_died("client")
    assert world.timeline.run_until(lambda: world.told() == [b"wait", "cancelled"], 1.0)
    assert world.timeline.now - began == pytest.approx(LATENCY_S, rel=0.1)


def test_a_client_without_power_is_given_up_after_the_keepalive(world: World) -> None:
    world.serve()
    channel = world.open()
    world.start(world.client, call(channel, b"wait"))
    world.timeline.run_for(70.0)
    assert world.told() == [b"wait"], "a client that lives answers the server's pings"
    world.client.kill()
    world.timeline.run_for(9.0)
    assert world.told() == [b"wait"]
    world.timeline.run_for(21.5)
    assert world.told() == [b"wait", "cancelled"]


# ----------------------------------------------------------------------------- lines that are cut


def test_a_cut_is_noticed_by_nobody_and_loses_nothing(world: World) -> None:
    world.serve()
    channel = world.open()
    stream = world.talk(channel)
    world.fabric.cut("client", ADDRESS)

    async def write_all() -> None:
        for number in range(100):
            await stream.write(b"%d" % number)

    world.run(world.client, write_all())
    world.timeline.run_for(15.0)
    assert world.told() == [b"first"] and not stream.done() and channel.get_state() is READY
    world.fabric.mend("client", ADDRESS)

    async def read_all() -> list[bytes]:
        return [await stream.read() for _ in range(100)]

    expected = [b"%d" % number for number in range(100)]
    assert world.run(world.client, read_all()) == expected == world.told()[1:]


@pytest.mark.parametrize(("up", "told"), [(True, [b"first"]), (False, [b"first", b"a"])])
def test_a_cut_in_one_direction(world: World, up: bool, told: list[bytes]) -> None:
    world.serve()
    stream = world.talk(world.open())
    world.fabric.cut("client", ADDRESS, up=up, down=not up)
    world.run(world.client, stream.write(b"a"))
    reading = world.start(world.client, stream.read())
    world.timeline.run_for(5.0)
    assert world.told() == told and not reading.done()
    world.fabric.mend_all()
    assert world.finish(reading, 1.0) == b"a"


def test_a_message_under_way_when_the_line_is_cut_waits(world: World) -> None:
    world.serve()
    stream = world.talk(world.open())
    world.run(world.client, stream.write(b"a"))
    world.fabric.cut("client", ADDRESS)
    world.timeline.run_for(1.0)
    assert world.told() == [b"first"]
    world.fabric.mend("client", ADDRESS)
    world.timeline.run_for(1.0)
    assert world.told() == [b"first", b"a"]


def test_others_do_not_suffer_from_a_cut(world: World) -> None:
    world.serve()
    world.fabric.cut("client", ADDRESS)
    other = world.process("other")

    async def connect_and_call() -> object:
        return await call(world.fabric.open_channel(ADDRESS, options=OPTIONS), b"a")

    assert world.run(other, connect_and_call()) == b"a"


def test_other_servers_do_not_suffer_from_what_one_does(world: World) -> None:
    channels = []
    for name in ("one", "two"):
        world.serve(name, f"{name}:7400")
        channels.append(world.open(f"{name}:7400"))
    world.fabric.cut("client", "one:7400")
    assert world.run(world.client, call(channels[0], b"a", 1.0)) is StatusCode.DEADLINE_EXCEEDED
    assert world.run(world.client, call(channels[1], b"b", 1.0)) == b"b"
    assert world.fabric.break_connections("client", "one:7400") == 1
    world.timeline.run_for(1.0)
    assert [channel.get_state() for channel in channels] == [IDLE, READY]


@pytest.mark.parametrize("down", [True, False])
def test_no_connection_is_made_over_a_line_that_is_cut(world: World, down: bool) -> None:
    world.serve()
    world.fabric.cut("client", ADDRESS, up=not down, down=down)
    channel = world.run(world.client, give(lambda: failing(world)))
    world.timeline.run_for(0.95)
    assert channel.get_state() is ChannelConnectivity.CONNECTING
    world.timeline.run_for(0.1)
    assert channel.get_state() is FAILING
    assert world.run(world.client, call(channel, b"a")) is StatusCode.UNAVAILABLE
    world.fabric.mend("client", ADDRESS)
    assert world.timeline.run_until(lambda: channel.get_state() is READY, 2.1)
    assert world.run(world.client, call(channel, b"b")) == b"b"
    assert world.told() == [b"b"]


def test_the_server_gives_up_a_line_that_stays_cut(world: World) -> None:
    world.serve()
    channel = world.open()
    waiting = world.start(world.client, call(channel, b"wait"))
    assert world.timeline.run_until(lambda: world.told() == [b"wait"], 1.0)
    world.fabric.cut("client", ADDRESS)
    world.timeline.run_for(31.0)
    assert world.told() == [b"wait", "cancelled"] and not waiting.done()
    world.start(world.client, call(channel, b"too late"))
    world.fabric.mend("client", ADDRESS)
    assert world.finish(waiting, 1.0) is StatusCode.UNAVAILABLE
    assert world.told() == [b"wait", "cancelled"]


def test_a_broken_connection_is_noticed_by_both_and_what_was_under_way_is_lost(
    world: World,
) -> None:
    world.serve()
    channel = world.open()
    stream = world.talk(channel)
    world.run(world.client, stream.write(b"lost"))
    assert world.fabric.break_connections("client", ADDRESS) == 1
    reading = world.start(world.client, outcome(stream.read()))
    assert world.finish(reading, 2 * LATENCY_S) is StatusCode.UNAVAILABLE
    assert world.timeline.run_until(lambda: world.told() == [b"first", "cancelled"], LATENCY_S)
    assert world.talk(channel) is not stream
    assert world.told() == [b"first", "cancelled", b"first"]
    assert world.fabric.break_connections("somebody else", None) == 0


# ------------------------------------------------------------------- processes that stand still


def test_a_server_that_stands_still_does_it_all_later_in_order(world: World) -> None:
    server = world.serve()
    stream = world.talk(world.open())
    server.is_paused = True
    for number in range(5):
        world.run(world.client, stream.write(b"%d" % number))
    world.timeline.run_for(5.0)
    assert world.told() == [b"first"]
    server.resume()
    world.timeline.run_for(1.0)
    assert world.told() == [b"first", b"0", b"1", b"2", b"3", b"4"]


def test_a_server_that_stands_still_accepts_nobody(world: World) -> None:
    server = world.serve()
    server.is_paused = True
    channel = world.run(world.client, give(lambda: failing(world)))
    world.timeline.run_for(1.1)
    assert channel.get_state() is FAILING
    server.resume()
    assert world.timeline.run_until(lambda: channel.get_state() is READY, 2.1)


def test_an_attempt_that_was_given_up_makes_no_connection(world: World) -> None:
    server = world.serve()
    server.is_paused = True
    channel = world.run(world.client, give(lambda: failing(world)))
    world.timeline.run_for(1.5)
    assert world.fabric.connections == 2, "one is given up, one is tried"
    # The first attempt is accepted, and lost, before the second one is accepted, slowly.
    world.latencies.extend([0.5, LATENCY_S, LATENCY_S])
    server.resume()
    world.timeline.run_for(0.4)
    assert channel.get_state() is FAILING, "the answer to the first attempt came too late"
    world.timeline.run_for(0.2)
    assert channel.get_state() is READY and world.fabric.connections == 1
    assert world.run(world.client, call(channel, b"a")) == b"a"


def test_a_deadline_at_a_client_cut_off_ends_the_handler_too(world: World) -> None:
    world.serve()
    channel = world.open()
    waiting = world.start(world.client, call(channel, b"wait", 2.0))
    assert world.timeline.run_until(lambda: world.told() == [b"wait"], 1.0)
    world.fabric.cut("client", ADDRESS)
    assert world.finish(waiting, 2.1) is StatusCode.DEADLINE_EXCEEDED
    world.timeline.run_for(0.1)
    assert world.told() == [b"wait", "cancelled"]
