"""Which containers and TTL znodes a leader should collect now.

Looks at a bounded number of znodes per call and goes round, so that a call is short however many
there are. It holds no replicated state and need not be exact: `leader_commands.py` checks again.
"""

from __future__ import annotations

from collections.abc import Iterator

from coordsvc.core.commands import CollectContainer, CollectTtl, LeaderCommand
from coordsvc.core.leader_commands import is_ttl_over, is_used_container
from coordsvc.core.state import State

LOOKED_AT_MAX = 5_000
"""Per call: about a millisecond."""


class Collector:
    """Goes round the containers and TTL znodes of one state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._round: Iterator[str] = iter(())

    def due(self, term: int, limit: int) -> tuple[LeaderCommand, ...]:
        """At most `limit` commands to propose in `term`; fewer when few are due. A command
        proposed before and not yet applied may come again: it is void then."""
        commands: list[LeaderCommand] = []
        for path in self._next_paths():
            command = self._command(path, term)
            if command is not None:
                commands.append(command)
                if len(commands) == limit:
                    break
        return tuple(commands)

    def _next_paths(self) -> Iterator[str]:
        for looked_at in range(LOOKED_AT_MAX):
            path = next(self._round, None)
            if path is None:
                if looked_at:
                    return
                state = self._state
                self._round = iter([*state.containers, *state.ttl_znodes])
                path = next(self._round, None)
                if path is None:
                    return
            yield path

    def _command(self, path: str, term: int) -> LeaderCommand | None:
        znode = self._state.znodes.get(path)
        if znode is None:
            return None
        if is_used_container(znode):
            return CollectContainer(term, path, znode.stat.cversion)
        if is_ttl_over(self._state, znode):
            return CollectTtl(term, path, znode.stat.mzxid)
        return None
