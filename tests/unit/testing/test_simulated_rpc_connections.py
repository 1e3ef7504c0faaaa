"""Servers stop, and channels connect, in memory as in life.

Method: as test_simulated_rpc.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from grpc import ChannelConnectivity, StatusCode, aio

from coordsvc.testing.ports import free_port
from tests.unit.testing.rpc_net import (
    PATIENCE_S,
    Net,
    Service,
    SimulatedNet,
    closing,
    error_of,
    eventually,
    opened,
    talk,
    unary,
)


@pytest.fixture(params=[Net, SimulatedNet], ids=["real", "simulated"])
async def net(request: pytest.FixtureRequest) -> AsyncIterator[Net]:
    async with closing(request.param()) as net:
        yield net


async def test_a_stop_waits_for_what_ends_and_cancels_what_does_not(net: Net) -> None:
    service = Service()
    server, address = await net.serve(service)
    channel = net.open(address)
    ending, lasting = talk(channel), unary(channel)(b"wait")
    await ending.write(b"a")
    assert await ending.read() == b"A"
    await eventually(lambda: service.seen)
    began = asyncio.get_running_loop().time()
    stopping = asyncio.create_task(server.stop(1.0))
    await eventually(lambda: channel.get_state() is not ChannelConnectivity.READY)
    refused = await error_of(unary(channel)(b"new"))
    assert refused.code() is StatusCode.UNAVAILABLE
    await ending.write(b"b")
    assert await ending.read() == b"B"
    await ending.done_writing()
    assert [await ending.read(), await ending.read()] == [b"bye", aio.EOF]
    error = await error_of(lasting)
    assert (error.code(), error.details()) == (StatusCode.UNAVAILABLE, "Cancelling all calls")
    await stopping
    assert asyncio.get_running_loop().time() - began >= 0.9
    assert service.seen == ["waits", "half-closed", "cancelled"]


async def test_new_calls_go_to_a_new_server_while_the_old_one_stops(net: Net) -> None:
    old, new = Service(), Service()
    server, address = await net.serve(old)
    channel = net.open(address)
    lasting = unary(channel)(b"wait")
    await eventually(lambda: old.seen)
    stopping = asyncio.create_task(server.stop(PATIENCE_S))
    await channel.wait_for_state_change(ChannelConnectivity.READY)
    await net.serve(new, int(address.rpartition(":")[2]))
    assert await unary(channel)(b"new") == b"NEW"
    assert (len(old.contexts), len(new.contexts)) == (1, 1)
    old.goes_on.set()
    assert await lasting == b"WAIT"
    await stopping
    assert await unary(channel)(b"on") == b"ON"


async def test_a_stop_without_calls_takes_no_grace(net: Net) -> None:
    service = Service()
    server, address = await net.serve(service)
    await unary(net.open(address))(b"a")
    async with asyncio.timeout(PATIENCE_S / 2):
        await server.stop(PATIENCE_S)
        await server.stop(None)
    _, again = await net.serve(service, int(address.rpartition(":")[2]))
    assert again == address


async def test_a_port_that_is_taken(net: Net) -> None:
    _, address = await net.serve(Service())
    with pytest.raises(RuntimeError):
        await net.serve(Service(), int(address.rpartition(":")[2]))


async def test_connecting_to_nobody_and_then_to_somebody(net: Net) -> None:
    port = free_port()
    channel = net.open(f"127.0.0.1:{port}")
    states = [channel.get_state(try_to_connect=True)]
    while states[-1] is not ChannelConnectivity.TRANSIENT_FAILURE:
        await channel.wait_for_state_change(states[-1])
        states.append(channel.get_state(try_to_connect=True))
    assert states[0] is ChannelConnectivity.IDLE
    error = await error_of(unary(channel)(b"a"))
    assert error.code() is StatusCode.UNAVAILABLE
    await net.serve(Service(), port)
    # By itself, and from failing it goes nowhere but to being ready.
    await channel.wait_for_state_change(ChannelConnectivity.TRANSIENT_FAILURE)
    assert channel.get_state() is ChannelConnectivity.READY
    assert await unary(channel)(b"a") == b"A"


async def test_a_call_waits_for_the_connection(net: Net) -> None:
    _, address = await net.serve(Service())
    channel = net.open(address)
    assert channel.get_state() is ChannelConnectivity.IDLE
    assert await unary(channel)(b"a") == b"A"
    assert channel.get_state() is ChannelConnectivity.READY


async def test_a_call_that_waits_until_somebody_listens(net: Net) -> None:
    port = free_port()
    channel = net.open(f"127.0.0.1:{port}")
    waiting = asyncio.create_task(ready_call(channel))
    state = channel.get_state(try_to_connect=True)
    while state is not ChannelConnectivity.TRANSIENT_FAILURE:
        await channel.wait_for_state_change(state)
        state = channel.get_state()
    await net.serve(Service(), port)
    assert await waiting == b"PATIENT"


async def ready_call(channel: aio.Channel) -> object:
    return await unary(channel)(b"patient", wait_for_ready=True)


async def test_a_lost_connection_is_made_again_when_it_is_asked_for(net: Net) -> None:
    service = Service()
    server, address = await net.serve(service)
    channel = net.open(address)
    await unary(channel)(b"a")
    await server.stop(None)
    await channel.wait_for_state_change(ChannelConnectivity.READY)
    assert channel.get_state() is ChannelConnectivity.IDLE
    await net.serve(service, int(address.rpartition(":")[2]))
    assert channel.get_state(try_to_connect=True) is ChannelConnectivity.IDLE
    await channel.channel_ready()
    assert await unary(channel)(b"a") == b"A"


async def test_a_closed_channel(net: Net) -> None:
    service, channel = await opened(net)
    call = unary(channel)(b"wait")
    await eventually(lambda: service.seen)
    await channel.close()
    assert await call.code() is StatusCode.CANCELLED
    assert channel.get_state() is ChannelConnectivity.SHUTDOWN
    with pytest.raises(aio.UsageError):
        await unary(channel)(b"a")
    await eventually(lambda: service.seen == ["waits", "cancelled"])
