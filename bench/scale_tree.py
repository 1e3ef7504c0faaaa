"""The tree that rows of scale are measured with: where its znodes are, and how it grows.

Znode n is child n modulo 1,000 of parent n // 1,000. Paths of children have PATH_BYTES, each has
DATA_BYTES of data, of which no two are equal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from bench.scale_pipe import Pipe, PipeError
from bench.scale_systems import ScaleSystem, zookeeper_endpoints
from coordsvc.testing.zookeeper_records import (
    WORLD,
    Decoder,
    OpCode,
    create_body,
    create_of,
    multi_body,
    text,
)

ROOT: Final = "/load"
PATH_BYTES: Final = 28
DATA_BYTES: Final = 100
CHILDREN: Final = 1_000
CREATES_AT_ONCE: Final = 200
"""In one transaction: small enough for ZooKeeper's packets, and not to hold others up."""

LOADING_IN_FLIGHT: Final = 1
CHECKED_EVERY: Final = 997
"""Of the znodes one in so many is read at each server."""


def parent_path(number: int) -> str:
    return f"{ROOT}/p-{number:05}"


def path_of(number: int) -> str:
    return f"{parent_path(number // CHILDREN)}/znode-{number:08}"


def data_of(number: int) -> bytes:
    return path_of(number).encode().rjust(DATA_BYTES, b".")


def batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


class Tree:
    """What a system holds of it: the first `size` znodes."""

    def __init__(self, system: ScaleSystem, say: Callable[[str], None]) -> None:
        self._system = system
        self._say = say
        self.size = 0

    async def grow(self, size: int) -> None:
        """Create what is missing, and look for it at each server. PipeError: it is not there."""
        endpoints = list(zookeeper_endpoints(self._system).values())
        pipes = [await Pipe.open(endpoint) for endpoint in endpoints]
        if not self.size:
            await pipes[0].ask(OpCode.CREATE, create_body(ROOT, b"", 0, WORLD))
        first_parent, parents = -(-self.size // CHILDREN), -(-size // CHILDREN)
        missing = [parent_path(each) for each in range(first_parent, parents)]
        bodies = (create_body(path, b"", 0, WORLD) for path in missing)
        await pipes[0].ask_each(OpCode.CREATE, bodies, in_flight=64)
        for pipe in pipes:
            await pipe.stat(text(ROOT))
        numbers = range(self.size, size)
        await asyncio.gather(
            *(
                pipe.ask_each(
                    OpCode.MULTI, self._creates(numbers, at, len(pipes)), LOADING_IN_FLIGHT
                )
                for at, pipe in enumerate(pipes)
            )
        )
        for pipe in pipes:
            await pipe.close()
        self.size = size
        await self.check()

    async def check(self) -> None:
        """PipeError: at a server something is missing."""
        for endpoint in zookeeper_endpoints(self._system).values():
            pipe = await Pipe.open(endpoint)
            await self._check(pipe)
            await pipe.close()

    def _creates(self, numbers: range, at: int, pipes: int) -> Iterator[bytes]:
        """Every `pipes`-th transaction."""
        for first in range(at * CREATES_AT_ONCE, len(numbers), pipes * CREATES_AT_ONCE):
            some = numbers[first : first + CREATES_AT_ONCE]
            yield multi_body([create_of(path_of(each), data_of(each)) for each in some])
            if first and not first % 100_000:
                self._say(f"{first:,} of {len(numbers):,} znodes are under way")

    async def _check(self, pipe: Pipe) -> None:
        await pipe.stat(text(ROOT))
        found = await pipe.ask(OpCode.GET_ALL_CHILDREN_NUMBER, text(ROOT))
        wanted = self.size + -(-self.size // CHILDREN)
        if (count := Decoder(found.body).int32()) != wanted:
            raise PipeError(f"{count} znodes below {ROOT}, not {wanted}")
        numbers = range(0, self.size, CHECKED_EVERY)
        bodies = (text(path_of(each)) + b"\0" for each in numbers)
        replies = await pipe.ask_each(OpCode.GET_DATA, bodies, in_flight=64)
        for number, reply in zip(numbers, replies, strict=True):
            data = Decoder(reply.body).buffer() or b""
            if len(data) != DATA_BYTES or not is_data_of(number, data):
                raise PipeError(f"{path_of(number)}: {data!r}")


def is_data_of(number: int, data: bytes) -> bool:
    """Whether it was once written there: as it was created, or by `written`."""
    return path_of(number).encode() in data


def written(number: int, version: int) -> bytes:
    """What set `version` (from 1) of a znode writes."""
    return f"{path_of(number)} {version:06}".encode().rjust(DATA_BYTES, b".")
