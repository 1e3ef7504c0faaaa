"""How a client's session is opened at a scripted replica."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from coordsvc.client.client import Client
from tests.unit.client.fake_replica import FakeReplica, FakeStream

Connect = Callable[..., Awaitable[tuple[Client, FakeStream]]]


async def opened(client: Client, replica: FakeReplica, **welcome: Any) -> FakeStream:
    """Start `client`, which goes to `replica` first."""
    starting = asyncio.create_task(client.start())
    stream = await replica.accept()
    await stream.welcome(**welcome)
    await starting
    return stream
