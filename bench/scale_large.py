"""The rows that need a large tree, on systems that grow one once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol

from bench import scale_checkpoint, scale_flat, scale_memory, scale_restart
from bench.scale_checkpoint import WriteOptions, Writes
from bench.scale_pipe import run
from bench.scale_results import ScaleRun
from bench.scale_rows import Options, ScaleRow
from bench.scale_systems import Memory, ScaleSystem
from bench.scale_tree import Tree
from bench.side_by_side import Bench
from coordsvc.testing.cluster import ClusterError

HEAP_MB: Final = 3_072
"""ZooKeeper's. With 512 MB it has no room for a million znodes."""


class Say(Protocol):
    def __call__(self, text: str) -> None: ...


class LargeTree:
    """`runs` by row. A row that fails leaves its error in `failures`, and the others go on."""

    def __init__(
        self, systems: Mapping[str, ScaleSystem], bench: Bench, options: Options, say: Say
    ) -> None:
        self.runs: dict[str, list[ScaleRun]] = {}
        self.failures: dict[str, ClusterError] = {}
        self._systems = systems
        self._bench = bench
        self._options = options
        self._say = say
        self._trees = {name: Tree(system, self._of(name)) for name, system in systems.items()}
        self._writes = {name: Writes(tree) for name, tree in self._trees.items()}
        self._empty: dict[str, dict[int, Memory]] = {}

    def _of(self, name: str) -> Say:
        return lambda text: self._say(f"{name:10} {text}")

    def measure(self, rows: list[ScaleRow]) -> None:
        """ClusterError: the tree could not be grown."""
        wanted = {row.row_id: row for row in rows}
        self._empty = {name: scale_memory.look(each) for name, each in self._systems.items()}
        if "FLAT" in wanted:
            # What is being listed must not count as memory of the tree.
            self._note(wanted["FLAT"], self._flat)
        else:
            self._grow(self._options.znodes)
        for row_id, step in (
            ("D1", self._memory),
            ("P1", self._checkpoints),
            ("P2", self._restarts),
        ):
            if row_id in wanted:
                self._note(wanted[row_id], step)

    def _note(self, row: ScaleRow, step: Callable[[int], list[ScaleRun]]) -> None:
        self._say(f"{row.row_id}: {row.text}")
        try:
            self.runs[row.row_id] = step(self._options.runs_of(row))
        except ClusterError as error:
            if self._size() < self._options.znodes:
                raise
            self.failures[row.row_id] = error

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """What fails tells what the system's servers said last."""
        try:
            yield
        except (ClusterError, OSError) as error:
            tails = self._systems[name].log_tails()
            raise ClusterError(f"{name}: {error}\n{tails}") from error

    def _size(self) -> int:
        return min(tree.size for tree in self._trees.values())

    def _grow(self, size: int) -> None:
        for name, tree in self._trees.items():
            with self._told(name):
                run(tree.grow(size))
            self._of(name)(f"the tree has {size:,} znodes")

    # --------------------------------------------------------------------------------- the rows

    def _flat(self, runs: int) -> list[ScaleRun]:
        of_sizes = scale_flat.sizes(self._options.znodes)
        details: dict[tuple[str, int], dict[str, float]] = {
            (name, number): {} for number in range(runs) for name in self._systems
        }
        for size in of_sizes:
            self._grow(size)
            for (name, _), found in details.items():
                seen = self._flat_at(self._systems[name], size)
                found.update(scale_flat.named(size, seen))
                self._of(name)(", ".join(f"{each} {value:,.1f}" for each, value in seen.items()))
        return [scale_flat.run_of(name, found, of_sizes) for (name, _), found in details.items()]

    def _flat_at(self, system: ScaleSystem, size: int) -> dict[str, float]:
        found = scale_flat.sets(self._bench, system, self._options.load_seconds)
        for count in (scale_flat.FEW, scale_flat.MANY):
            if count <= size:
                run(scale_flat.prepare(system, count))
                found |= run(scale_flat.listing(system, count))
                found |= run(scale_flat.closing(system, count))
        return found

    def _memory(self, runs: int) -> list[ScaleRun]:
        """Once, however many runs: a process grows only once."""
        found = []
        for name, system in self._systems.items():
            with self._told(name):
                run(scale_memory.wait_checkpoints(system, self._of(name)))
            full = scale_memory.look(system)
            found.append(scale_memory.run_of(system, self._empty[name], full, self._options.znodes))
        return found

    def _checkpoints(self, runs: int) -> list[ScaleRun]:
        options = WriteOptions(self._options.write_rate, self._options.write_seconds)
        return [
            run(scale_checkpoint.measure(system, self._writes[name], options, self._of(name)))
            for _ in range(runs)
            for name, system in self._systems.items()
        ]

    def _restarts(self, runs: int) -> list[ScaleRun]:
        found: dict[str, list[ScaleRun]] = {name: [] for name in self._systems}
        for number in range(runs):
            for name, system in self._systems.items():
                value = f"before restart {number}".encode()
                run(scale_restart.mark(system, value))
                server = list(system.pids())[number % len(system.pids())]
                one = scale_restart.restart_one(system, server, value, self._of(name))
                found[name].append(one)
                self._settle(system)
        together = []
        for name, system in self._systems.items():
            run(scale_restart.mark(system, b"before the last"))
            cluster = scale_restart.restart_all(system, b"before the last", self._of(name))
            self._settle(system)
            run(scale_checkpoint.verify(system, self._writes[name]))
            run(self._trees[name].check())
            together += scale_restart.with_cluster(found[name], cluster)
        return together

    def _settle(self, system: ScaleSystem) -> None:
        """All serve, and agree."""
        system.wait_ready()
        system.leader()
        system.check_agreement()
