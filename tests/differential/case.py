"""What is asked of both servers, as data: steps, in cases, in groups."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.differential import shapes
from tests.differential.wire import Closed
from tests.differential.world import FOLLOWER, Shape, World

_ZXIDS = re.compile("(zxid|c,m,p)=[-0-9,\0]+ ?")


@dataclass(frozen=True)
class Step:
    """`run(world)` gives what is compared. `difference` is the id under which docs/divergence.md
    explains why the results differ; `zookeeper` and `coordsvc` are then parts of them, so that no
    other difference hides behind it."""

    text: str
    run: Callable[[World], list[str]]
    difference: str = ""
    zookeeper: str = ""
    coordsvc: str = ""


@dataclass(frozen=True)
class Ask:
    """A request, as `ask` and `pipeline` send it."""

    text: str
    op: int
    body: Callable[[World], bytes]
    shape: Shape = shapes.nothing
    xid: int | None = None


@dataclass(frozen=True)
class Case:
    """`name` says what it is about. It begins with a session on connection A, unless `is_bare`."""

    name: str
    steps: tuple[Step, ...]
    is_bare: bool = False


@dataclass
class Group:
    """`server`: whom connections are to, if they do not say so."""

    name: str
    cases: list[Case] = field(default_factory=list)
    server: int = FOLLOWER

    def case(self, name: str, *steps: Step | Ask, is_bare: bool = False) -> None:
        asked = tuple(ask(each) if isinstance(each, Ask) else each for each in steps)
        self.cases.append(Case(name, asked, is_bare))


def ask(request: Ask, on: str = "A") -> Step:
    """Send one request, wait for its reply."""

    def run(world: World) -> list[str]:
        link = world.links[on]
        try:
            world.send(link, request.op, request.body(world), request.shape, request.xid)
        except Closed:
            return ["connection closed"]
        return world.replies(link)

    return Step(named(request.text, on), run)


def named(text: str, on: str) -> str:
    """What a step is called that is asked on that connection."""
    return text if on == "A" else f"{on}: {text}"


def differs(difference: str, step: Step | Ask, *, zookeeper: str, coordsvc: str) -> Step:
    """A step whose results differ, on purpose."""
    plain = ask(step) if isinstance(step, Ask) else step
    return replace(plain, difference=difference, zookeeper=zookeeper, coordsvc=coordsvc)


def loosely(step: Step | Ask) -> Step:
    """Without zxids: where it is by chance whether there was a write of others in between."""
    plain = ask(step) if isinstance(step, Ask) else step
    return replace(plain, run=lambda world: [_ZXIDS.sub("", line) for line in plain.run(world)])
