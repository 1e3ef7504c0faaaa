"""A client with a session, then with the next one: what it does, drawn step by step."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from coordsvc.client.records import Created, Data, Stat
from coordsvc.errors import CoordError, InternalError, NodeExistsError, NoNodeError
from coordsvc.testing.recorded_client import RecordedClient
from coordsvc.testing.workload_plan import (
    COUNTER,
    EPHEMERALS,
    LOCKS,
    MEMBERS,
    QUEUE,
    REGISTER_GROUPS,
    REGISTER_PATHS,
    REGISTERS,
    RESOURCES,
    UNIQUE,
    Shared,
    Values,
    draw_ops,
    settled,
)

ONE_SHOTS_MAX = 8
LASTING_MAX = 3
MEMBERS_MAX = 3
QUEUE_LENGTH = 6

LASTING_WATCHES = (
    ("persistent", QUEUE),
    ("persistent", COUNTER),
    ("persistent", f"{REGISTERS}/a"),
    ("persistent_recursive", REGISTERS),
    ("persistent_recursive", EPHEMERALS),
    ("persistent_recursive", MEMBERS),
)


class SessionClient:
    """The client `number`; `run` is its life, until the workload is stopped."""

    def __init__(self, shared: Shared, number: int) -> None:
        self._shared = shared
        self._number = number
        self._name = f"c{number}"
        self._rng = shared.rng(self._name)
        self._pacer = shared.pacer(self._rng)
        self._values = Values(self._name)
        self._client: RecordedClient
        self._steps: dict[str, Callable[[], Awaitable[None]]] = {
            "read": self._read,
            "write": self._write,
            "create_or_delete": self._create_or_delete,
            "synced_read": self._synced_read,
            "multi": self._multi,
            "queue": self._queue,
            "count": self._count,
            "unique": self._unique,
            "ephemeral": self._ephemeral,
            "member": self._member,
            "lock": self._lock,
            "watch": self._watch,
            "burst": self._burst,
            "end": self._end,
        }

    def _begin_session(self) -> None:
        self._client = self._new_client()
        self._is_ending = False
        self._has_ephemeral = False
        self._members: list[str] = []
        self._locked: dict[str, int] = {}
        self._unlocked: dict[str, int] = {}
        """Fences of locks whose deletion was asked for."""

    def _new_client(self) -> RecordedClient:
        shared, settings = self._shared, self._shared.settings
        return RecordedClient(
            shared.shuffled_endpoints(self._rng),
            shared.recorder,
            self._name,
            holds=shared.holds,
            operations=shared.operations,
            session_timeout_ms=settings.session_timeout_ms,
            timeout_ms=settings.timeout_ms,
        )

    async def run(self) -> None:
        while not self._shared.is_stopped:
            self._begin_session()
            if isinstance(await settled(self._client.open()), CoordError):
                await self._pacer.wait()
                continue
            try:
                await self._use()
            finally:
                await self._leave()

    async def _use(self) -> None:
        names, weights = zip(*self._shared.settings.shares.items(), strict=True)
        while not (self._shared.is_stopped or self._client.is_over or self._is_ending):
            await self._pacer.wait()
            await self._steps[self._rng.choices(names, weights)[0]]()
        if not self._client.is_over:
            await settled(self._client.sync())  # Its watches have told of all before it.

    async def _leave(self) -> None:
        client = self._client
        if self._rng.random() < 0.7:
            await client.close()
        else:
            await client.abandon()
        assert not client.is_stuck, f"the session's numbers do not fit: {client.failure}"
        assert not isinstance(client.failure, InternalError), f"the client failed: {client.failure}"

    async def _end(self) -> None:
        """Of this session; the next one begins at once."""
        self._is_ending = True

    # ------------------------------------------------------------------------------- registers

    def _register(self) -> str:
        return self._rng.choice(REGISTER_PATHS)

    async def _read(self) -> None:
        path, is_linearizable = self._register(), self._rng.random() < 0.5
        if self._rng.random() < 0.3:
            await settled(self._client.exists(path, linearizable=is_linearizable))
        else:
            data = await settled(self._client.get_data(path, linearizable=is_linearizable))
            self._values.note(path, data)

    async def _write(self) -> None:
        path = self._register()
        answer = await settled(self._submit_write(path))
        self._values.note(path, answer)
        if isinstance(answer, NoNodeError):
            await settled(self._client.create(path, self._values.next()))

    def _submit_write(self, path: str) -> asyncio.Future[Stat]:
        version = self._values.version(path, self._rng)
        return self._client.set_data(path, self._values.next(), version)

    async def _create_or_delete(self) -> None:
        path = self._register()
        if self._rng.random() < 0.5:
            await settled(self._client.create(path, self._values.next()))
        else:
            await settled(self._client.delete(path, self._values.version(path, self._rng)))

    async def _synced_read(self) -> None:
        path = self._register()
        synced, data = self._client.sync(), self._client.get_data(path)
        await settled(synced)
        self._values.note(path, await settled(data))

    async def _multi(self) -> None:
        group = self._rng.choice([group for group in REGISTER_GROUPS if len(group) > 1])
        await settled(self._client.multi(draw_ops(group, self._values, self._rng)))

    async def _burst(self) -> None:
        """Several at a time, none of which waits for another."""
        answers: list[asyncio.Future[Any]] = []
        for _ in range(self._rng.randint(2, 5)):
            path, kind = self._register(), self._rng.random()
            if kind < 0.4:
                answers.append(self._submit_write(path))
            elif kind < 0.7:
                answers.append(self._client.get_data(path))
            elif kind < 0.85:
                answers.append(self._client.get_data(path, linearizable=True))
            else:
                answers.append(self._client.sync())
        for answer in answers:
            await settled(answer)

    # ------------------------------------------------------------------- queue, counter, numbers

    async def _queue(self) -> None:
        """Put something in, or take the oldest out; who deletes it has it."""
        is_linearizable = self._rng.random() < 0.3
        answer = await settled(self._client.get_children(QUEUE, linearizable=is_linearizable))
        if isinstance(answer, CoordError):
            return
        children = answer[0].children
        if len(children) > self._rng.randint(0, QUEUE_LENGTH):
            await settled(self._client.delete(f"{QUEUE}/{children[0].name}"))
        else:
            value = self._values.next()
            await settled(self._client.create(f"{QUEUE}/n-", value, "persistent_sequential"))

    async def _count(self) -> None:
        """One more, by compare-and-set."""
        is_linearizable = self._rng.random() < 0.5
        data = await settled(self._client.get_data(COUNTER, linearizable=is_linearizable))
        if isinstance(data, Data):
            assert data.data is not None
            count = int(data.data.decode().partition("/")[0]) + 1
            value = f"{count}/{self._values.next()}"
            await settled(self._client.set_data(COUNTER, value, data.stat.version))

    async def _unique(self) -> None:
        await settled(
            self._client.create(f"{UNIQUE}/id-", self._values.next(), "persistent_sequential")
        )

    # ----------------------------------------------------------------------------- ephemerals

    async def _ephemeral(self) -> None:
        """Each client has one, which the others look for."""
        path, kind = f"{EPHEMERALS}/{self._name}", self._rng.random()
        if kind < 0.5:
            other = f"{EPHEMERALS}/c{self._rng.randint(1, self._shared.settings.clients)}"
            await settled(self._client.exists(other, linearizable=kind < 0.25))
        elif self._has_ephemeral and kind < 0.7:
            deleted = await settled(self._client.delete(path))
            self._has_ephemeral = isinstance(deleted, CoordError)
        else:
            created = await settled(self._client.create(path, self._values.next(), "ephemeral"))
            self._has_ephemeral |= isinstance(created, Created)

    async def _member(self) -> None:
        if self._rng.random() < 0.5:
            await settled(self._client.get_children(MEMBERS))
        elif len(self._members) < MEMBERS_MAX:
            value = self._values.next()
            answer = await settled(
                self._client.create(f"{MEMBERS}/p-", value, "ephemeral_sequential")
            )
            if isinstance(answer, Created):
                self._members.append(answer.path)
        else:
            await settled(self._client.delete(self._members.pop(0)))

    async def _lock(self) -> None:
        """One znode is one lock; who has created it has it."""
        if self._locked:
            await self._unlock(next(iter(self._locked)))
            return
        resource = self._rng.choice(RESOURCES)
        path = f"{LOCKS}/{resource}"
        value = self._values.next()
        answer = await settled(self._client.create(path, value, "ephemeral", resource=resource))
        if isinstance(answer, Created):
            self._locked[resource] = answer.stat.czxid
            if self._rng.random() < 0.6:
                await self._pacer.wait()
                await self._unlock(resource)
        elif isinstance(answer, NodeExistsError):
            await self._look_for_own(resource)

    async def _look_for_own(self, resource: str) -> None:
        """Perhaps it was created, or not deleted, by an operation whose outcome nobody knew."""
        stat = await settled(self._client.exists(f"{LOCKS}/{resource}", linearizable=True))
        if not isinstance(stat, Stat) or stat.ephemeral_owner != int(self._client.session, 16):
            return
        self._locked[resource] = stat.czxid
        if stat.czxid == self._unlocked.get(resource):
            await self._unlock(resource)
        else:
            self._client.hold(resource, stat.czxid)

    async def _unlock(self, resource: str) -> None:
        self._unlocked[resource] = self._locked.pop(resource)
        self._client.release(resource)
        await settled(self._client.delete(f"{LOCKS}/{resource}"))

    # -------------------------------------------------------------------------------- watches

    async def _watch(self) -> None:
        client = self._client
        lasting = [each for each in client.watches if each.name and not each.is_one_shot]
        if len(lasting) >= LASTING_MAX:
            client.unwatch(self._rng.choice(lasting))
        elif self._rng.random() < 0.3:
            kind, path = self._rng.choice(LASTING_WATCHES)
            await settled(client.watch(kind, path))
        elif len(client.watches) - len(lasting) < ONE_SHOTS_MAX:
            await settled(self._watched_read(self._rng))

    def _watched_read(self, rng: random.Random) -> asyncio.Future[Any]:
        client, kind, is_linearizable = self._client, rng.random(), rng.random() < 0.3
        if kind < 0.35:
            return client.get_data(self._register(), watched=True, linearizable=is_linearizable)
        if kind < 0.7:
            number = rng.randint(1, self._shared.settings.clients)
            places = (self._register(), f"{EPHEMERALS}/c{number}", f"{LOCKS}/{RESOURCES[0]}")
            return client.exists(rng.choice(places), watched=True, linearizable=is_linearizable)
        return client.get_children(rng.choice((QUEUE, MEMBERS)), watched=True)
