"""What a read of this door is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from coordsvc.core.commands import AuthId, Refusal
from coordsvc.core.state import State
from coordsvc.server.zookeeper.watches import ConnectionWatches

Answer: TypeAlias = bytes | Refusal | Iterator[bytes]
"""The body of a reply; a refusal, of which only the code is told; or, where it would take longer
than a few milliseconds, pieces of the body, each made within one."""


class Asker(Protocol):
    """On whose behalf a read runs: its connection. Everything is as of this moment."""

    session_id: int
    watches: ConnectionWatches

    @property
    def state(self) -> State: ...
    @property
    def ids(self) -> tuple[AuthId, ...]:
        """The session's identities and the connection's."""
        ...

    def config_data(self) -> bytes:
        """What /zookeeper/config holds: the members, as ZooKeeper writes them."""
        ...


@dataclass(slots=True)
class Read:
    """`answer(asker)` is asked in one turn, when everything before it is answered. `needs_sync`:
    after a read-index. `is_plain`: it sets no watch, and is answered in microseconds, never in
    pieces."""

    answer: Callable[[Asker], Answer]
    needs_sync: bool = False
    is_plain: bool = False
