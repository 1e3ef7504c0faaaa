"""Runs the cases on one server."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Self, TypeAlias

from coordsvc.testing.zookeeper_records import WORLD, OpCode, create_body
from tests.differential import shapes
from tests.differential.case import Case, Group
from tests.differential.masks import rank_zxids
from tests.differential.wire import Closed, Silent
from tests.differential.world import Address, World

FOLDER = "/differential"
SHARED_LEVELS = 2
MAKE_SECONDS = 30.0
POLL_SECONDS = 0.1


class Broken(Exception):
    """A step could not be run at all."""


Results: TypeAlias = dict[tuple[str, str], list[list[str]]]
"""Of each case, by the names of its group and itself: the results of each step, and last what came
unasked for."""


def run_groups(addresses: Sequence[Address], groups: Sequence[Group], results: Results) -> None:
    """Adds to `results`."""
    for group in groups:
        with Keeper(addresses, group.server) as keeper:
            folder = keeper.make(keeper.make(FOLDER), group.name)
            for number, case in enumerate(group.cases):
                own = keeper.make(folder, f"{number}-{case.name}")
                world = World(addresses, own, group.server)
                results[group.name, case.name] = run_case(world, case)


class Keeper:
    """Makes the folders, on a connection of its own; a new one, when it is lost."""

    def __init__(self, addresses: Sequence[Address], server: int) -> None:
        self._world = World(addresses, FOLDER, server)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._world.leave()

    def make(self, parent: str, name: str = "") -> str:
        """A folder that was not there before, but for the first two levels of them."""
        path = f"{parent}/{_slug(name)}" if name else parent
        deadline = time.monotonic() + MAKE_SECONDS
        while (line := self._create(path)) and time.monotonic() < deadline:
            if "NODEEXISTS" not in line:
                time.sleep(POLL_SECONDS)
            elif path.count("/") <= SHARED_LEVELS:
                return path
            else:
                path += "-"
        if line:
            raise Broken(f"create {path}: {line}")
        return path

    def _create(self, path: str) -> str:
        """What became of it; empty: it is made."""
        try:
            if "A" not in self._world.links or self._world.links["A"].wire.is_over:
                self._world.attach("A")
            link = self._world.links["A"]
            body = create_body(path, b"", 0, WORLD)
            self._world.send(link, OpCode.CREATE, body, shapes.path)
            line = self._world.replies(link)[-1]
        except (Closed, Silent, ConnectionError) as error:
            return repr(error)
        return "" if " OK " in line else line


def run_case(world: World, case: Case) -> list[list[str]]:
    if not case.is_bare:
        world.attach("A")
        # Keeps zxids apart from those of the case before.
        world.events(world.links["A"])
    results = []
    try:
        for step in case.steps:
            try:
                results.append(step.run(world))
            except (Closed, Silent, ConnectionError) as error:
                results.append([f"{type(error).__name__.lower()}"])
            except Exception as error:
                raise Broken(f"{case.name}: {step.text}: {results}") from error
        results.append(_unasked(world))
    finally:
        world.leave()
    return rank_zxids(results)


def _unasked(world: World) -> list[str]:
    """Events that no step has taken."""
    lines = []
    for name, link in world.links.items():
        if link.session_id and not link.wire.is_over:
            lines += [f"{name}: {line}" for line in world.events(link)]
    return lines


def _slug(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
