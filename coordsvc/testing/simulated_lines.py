"""Lines between simulated replicas that fail: partitions of every kind, noise, broken connections.

A partition lasts until another may begin. Some are noticed by both sides, some by nobody until a
timeout says so, some only in one direction.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from coordsvc.raft.messages import Message
from coordsvc.testing.timeline import SimulatedLoop
from coordsvc.testing.world import World


class Lines:
    """`pick()` chooses a replica that runs, None: none does; `later(seconds, action)` acts unless
    all was healed before. Each fault returns the replicas that it is about, None when it could not
    be."""

    def __init__(
        self,
        world: World,
        rng: random.Random,
        clients: list[SimulatedLoop],
        pick: Callable[[], int | None],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self.has_partition = False
        self._world = world
        self._rng = rng
        self._clients = clients
        self._pick = pick
        self._later = later

    def heal(self) -> None:
        self._mend()
        self._quiet()
        self._world.rpc.mend_all()

    def _group(self) -> list[int] | None:
        """A minority, often with the leader in it."""
        first = self._pick()
        if first is None:
            return None
        size = self._rng.randint(1, (len(self._world.ids) - 1) // 2)
        others = [i for i in self._world.ids if i != first]
        return sorted([first, *self._rng.sample(others, size - 1)])

    def _mend(self) -> None:
        self.has_partition = False
        self._world.fabric.mend()

    def _begin_partition(self, group: list[int]) -> list[int] | None:
        """With it, often, from the clients."""
        self.has_partition = True
        rng, world = self._rng, self._world
        if rng.random() < 0.4:
            for replica_id in group:
                for client in self._clients:
                    world.rpc.cut(client.name, world.address(replica_id))
        seconds = rng.choice((0.5, 1.5, 3.0, 5.0)) * rng.uniform(0.6, 1.3)

        def end() -> None:
            self._mend()
            world.rpc.mend_all()

        self._later(seconds, end)
        return group

    def _mute(self, pairs: list[tuple[int, int]]) -> None:
        self._world.fabric.mute |= set(pairs)

    def isolate(self) -> list[int] | None:
        """Both sides notice."""
        group = self._group()
        if group is None or self.has_partition:
            return None
        others = [i for i in self._world.ids if i not in group]
        for replica_id in group:
            self._world.fabric.isolate(replica_id, others)
        return self._begin_partition(group)

    def silence(self) -> list[int] | None:
        """Nobody notices."""
        group = self._group()
        if group is None or self.has_partition:
            return None
        others = [i for i in self._world.ids if i not in group]
        self._mute([(a, b) for a in group for b in others])
        self._mute([(b, a) for a in group for b in others])
        return self._begin_partition(group)

    def one_way(self) -> list[int] | None:
        group = self._group()
        if group is None or self.has_partition:
            return None
        pairs = [(a, b) for a in group for b in self._world.ids if b not in group]
        if self._rng.random() < 0.5:
            pairs = [(b, a) for a, b in pairs]
        self._mute(pairs)
        return self._begin_partition(group)

    def bridge(self) -> list[int] | None:
        """Two halves, and one replica that sees both."""
        ids = list(self._world.ids)
        if self.has_partition or len(ids) < 3:
            return None
        self._rng.shuffle(ids)
        half = len(ids) // 2
        left, right = ids[:half], ids[half + 1 :]
        self._mute([(a, b) for a in left for b in right] + [(b, a) for a in left for b in right])
        return self._begin_partition(left)

    def ring(self) -> list[int] | None:
        """Each sees two neighbours only."""
        ids = self._world.ids
        if self.has_partition or len(ids) < 5:
            return None
        count = len(ids)
        far = [
            (a, b)
            for place, a in enumerate(ids)
            for other, b in enumerate(ids)
            if (place - other) % count not in (0, 1, count - 1)
        ]
        self._mute(far)
        return self._begin_partition(list(ids))

    def _quiet(self) -> None:
        self._world.fabric.fate = lambda source, target, message: [0.0]

    def noise(self) -> list[int] | None:
        """Messages are lost with their connection, doubled, late."""
        rng, fabric = self._rng, self._world.fabric
        lost, doubled, late = rng.uniform(0, 0.01), rng.uniform(0, 0.15), rng.uniform(0, 0.2)
        late_s = rng.choice((0.01, 0.1, 0.6))

        def fate(source: int, target: int, message: Message) -> list[float]:
            if rng.random() < lost:
                self._world.loop.call_soon(fabric.disconnect, source, target)
                return []
            delays = [rng.uniform(0, late_s) if rng.random() < late else 0.0]
            if rng.random() < doubled:
                delays.append(rng.uniform(0, late_s))
            return delays

        fabric.fate = fate
        self._later(rng.uniform(0.5, 3.0), self._quiet)
        return []

    def break_lines(self) -> list[int] | None:
        target = self._pick()
        if target is None:
            return None
        for other in self._world.ids:
            if other != target and self._rng.random() < 0.7:
                self._world.fabric.disconnect(target, other)
        return [target]
