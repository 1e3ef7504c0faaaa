"""How long clients wait for a write when the leader fails; ZooKeeper beside it, if asked for.

    .venv/bin/python -m bench.failover [--rounds 20] [--zookeeper] [--report docs/failover.md]

Three replicas and their clients share this machine. Two clients, one at the leader and one at a
follower, write one thing after another, every 5 ms. Then the leader is killed, paused or cut off,
and comes back once both go on. See `failover_gaps` for what is called a gap. Being cut off needs
network namespaces (Linux, root, ip, nft); without them those faults are left out, and it says so.
ZooKeeper needs a JDK and Maven.

Fails if an acknowledged write is not there afterwards, or if a client does not go on. `--report`
writes the page, and the rounds themselves to `bench/results/failover.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import zookeeper_server
from bench.failover_ensembles import CoordsvcEnsemble, Ensemble
from bench.failover_report import table, write_page
from bench.failover_results import FAILOVER, FailoverResult, save, this_command, this_machine
from bench.failover_rounds import FAULTS, NETWORK_FAULTS, NotPlacedError, Round, run_round
from bench.zookeeper_server import ZooKeeperEnsemble, ZooKeeperSettings
from coordsvc.testing import namespaces
from coordsvc.testing.cluster import ClusterError
from coordsvc.testing.namespaces import Network

MakeEnsemble = Callable[[Path, Network | None], Ensemble]

ATTEMPTS = 5
BLOCKS = 2
"""The systems take turns: each measures a fault in so many blocks of rounds."""


def run_block(make: MakeEnsemble, fault: str, numbers: range, directory: Path) -> list[Round]:
    """Some rounds of one fault, with servers of their own."""
    rounds = []
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network(3)) if fault in NETWORK_FAULTS else None
        ensemble = stack.enter_context(make(directory, network))
        ensemble.start()
        for number in numbers:
            began = time.monotonic()
            try:
                done = begin_round(ensemble, fault, f"round{number}", directory / "clients.log")
            except ClusterError as error:
                raise ClusterError(f"{ensemble.name}: {error}\n{ensemble.log_tails()}") from error
            rounds.append(done)
            seen = ", ".join(f"{each.gap_s:.3f} s" for each in done.clients)
            seconds = time.monotonic() - began
            print(f"{done.system:10} {fault:8} {number + 1:3}: {seen}  ({seconds:.0f} s)")
    return rounds


def begin_round(ensemble: Ensemble, fault: str, name: str, log: Path) -> Round:
    """Once more when a client could not begin where it should."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return run_round(ensemble, fault, f"{name}.{attempt}", log)
        except NotPlacedError as error:
            print(f"{ensemble.name}: {error}; again")
    return run_round(ensemble, fault, name, log)


def blocks(rounds: int) -> list[range]:
    length = -(-rounds // BLOCKS)
    return [range(first, min(first + length, rounds)) for first in range(0, rounds, length)]


def run_all(
    systems: Sequence[MakeEnsemble], faults: Sequence[str], rounds: int, directory: Path | None
) -> Iterator[list[Round]]:
    """Block by block."""
    for fault in faults:
        for numbers in blocks(rounds):
            for make in systems:
                with tempfile.TemporaryDirectory(dir=directory) as below:
                    yield run_block(make, fault, numbers, Path(below))


def possible(faults: Sequence[str]) -> list[str]:
    if why := namespaces.why_not():
        left_out = [fault for fault in faults if fault in NETWORK_FAULTS]
        if left_out:
            print(f"left out: {', '.join(left_out)}: {why}")
        return [fault for fault in faults if fault not in NETWORK_FAULTS]
    return list(faults)


def main() -> None:
    defaults = ZooKeeperSettings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=20, help="of each fault")
    parser.add_argument("--faults", default=",".join(FAULTS), help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--zookeeper", action="store_true", help="measure it, too")
    parser.add_argument("--tick-ms", type=int, default=defaults.tick_ms)
    parser.add_argument("--sync-limit", type=int, default=defaults.sync_limit)
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to use")
    parser.add_argument("--report", type=Path, default=None, help="write the page")
    arguments = parser.parse_args()
    wanted = arguments.faults.split(",")
    if unknown := set(wanted) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    faults = possible(wanted)
    machine, zookeeper = this_machine(), ""
    systems: list[MakeEnsemble] = [CoordsvcEnsemble]
    settings = ZooKeeperSettings(tick_ms=arguments.tick_ms, sync_limit=arguments.sync_limit)
    if arguments.zookeeper:
        if why := zookeeper_server.why_not():
            parser.error(f"ZooKeeper cannot be measured: {why}")
        zookeeper_server.prepare()
        systems.append(lambda path, network: ZooKeeperEnsemble(path, network, settings))
        zookeeper = f"{zookeeper_server.version()} with {settings}"
    print(machine)
    rounds: list[Round] = []
    for block in run_all(systems, faults, arguments.rounds, arguments.directory):
        rounds += block
        if arguments.report is not None:
            command = this_command("bench.failover")
            save(FAILOVER, FailoverResult(command, machine, zookeeper, rounds))
            write_page(arguments.report)
    print("\n".join(table(rounds)))


if __name__ == "__main__":
    main()
