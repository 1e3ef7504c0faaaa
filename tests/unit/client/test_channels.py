"""Connecting, against a channel that does what a test tells it to."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import pytest
from grpc import ChannelConnectivity, aio

from coordsvc.client.channels import Channels
from coordsvc.client.options import ClientConfig

ENDPOINT = "127.0.0.1:1"


class _Channel:
    def __init__(self) -> None:
        self.state = ChannelConnectivity.CONNECTING
        self.changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def get_state(self, *, try_to_connect: bool) -> ChannelConnectivity:
        assert try_to_connect
        return self.state

    async def wait_for_state_change(self, last: ChannelConnectivity) -> None:
        assert last is self.state
        await self.changed

    def become_ready(self) -> None:
        self.state = ChannelConnectivity.READY
        self.changed.set_result(None)


def with_channel(monkeypatch: pytest.MonkeyPatch) -> tuple[Channels, _Channel]:
    channels, channel = Channels(ClientConfig((ENDPOINT,))), _Channel()
    monkeypatch.setattr(channels, "_channel", lambda endpoint: cast(aio.Channel, channel))
    return channels, channel


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancellation_that_comes_with_the_connection_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """`turns` of the loop after it; or the caller is connected by then. Else somebody's timeout
    would pass without effect."""
    channels, channel = with_channel(monkeypatch)
    task = asyncio.create_task(channels.connect(ENDPOINT, time.monotonic() + 60))
    await asyncio.sleep(0.01)
    channel.become_ready()
    for _ in range(turns):
        await asyncio.sleep(0)
    was_done = task.done()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or was_done
