"""`coordsvc dev`: a cluster on this machine, for development.

Each replica is a child process that runs `coordsvc serve`; none outlives this one (see `_child`).
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from coordsvc.cli.console import Console
from coordsvc.cli.dev_child import DevChild, describe_end
from coordsvc.cli.local_layout import (
    ADMIN_OFFSET,
    HOST,
    PORT_MAX,
    REPLICAS_MAX,
    LocalReplica,
    dev_replicas,
    endpoints_text,
    zookeeper_hosts,
)
from coordsvc.exit_status import ExitStatus

STOP_SECONDS_MAX = 4.0
"""A replica that takes longer to stop is killed: Ctrl-C is promised to end all within 5 s."""

POLL_SECONDS = 0.05

SIZE_FILE = "replicas"
"""In the data folder: how many replicas its cluster has."""


@click.command("dev", short_help="Run a cluster on this machine.")
@click.option(
    "--replicas", type=click.IntRange(1, REPLICAS_MAX), default=3, show_default=True,
    help="How many. Three survive the loss of one.",
)  # fmt: skip
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), default=Path("data"),
    show_default=True, metavar="DIR", help="Where they keep their data, one folder each.",
)  # fmt: skip
@click.option(
    "--base-port", type=click.IntRange(1, PORT_MAX - ADMIN_OFFSET - REPLICAS_MAX), default=7400,
    show_default=True, metavar="PORT",
    help="Replica n serves gRPC on PORT+n, its peers on PORT+100+n, ZooKeeper's clients on "
    "PORT+200+n, HTTP (metrics, health) on PORT+300+n; all on 127.0.0.1.",
)  # fmt: skip
def dev(replicas: int, data_dir: Path, base_port: int) -> None:
    """Run a cluster on this machine until Ctrl-C.

    Its data stays in DIR, and the next start finds it. Stop it with Ctrl-C; if this process is
    killed, the replicas end too.
    """
    layout = dev_replicas(replicas, data_dir, base_port)
    claim_data_dir(data_dir, replicas)
    if taken := busy_addresses(layout):
        click.echo(f"error: in use already: {', '.join(taken)}", err=True)
        click.echo("Is a cluster running? If not, try another --base-port.", err=True)
        sys.exit(int(ExitStatus.ADDRESS_IN_USE))
    sys.exit(asyncio.run(DevCluster(layout, data_dir).run()))


def claim_data_dir(data_dir: Path, replicas: int) -> None:
    """A cluster's members are fixed when it is made: another number of them is another cluster.
    Refuses a folder with the data of one, and notes the number for the next start."""
    note = data_dir / SIZE_FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        has_data = any(entry.name.isdecimal() for entry in data_dir.iterdir())
        size = note.read_text().strip() if note.exists() else ""
        if has_data and size and size != str(replicas):
            raise click.UsageError(
                f"{data_dir} holds the data of a cluster of {size}, so it is not for --replicas "
                f"{replicas}. Use --replicas {size}, or another --data-dir."
            )
        note.write_text(f"{replicas}\n")
    except OSError as error:
        raise click.UsageError(f"--data-dir {data_dir}: {error.strerror}") from None


def busy_addresses(replicas: Sequence[LocalReplica]) -> list[str]:
    """Those of their addresses that somebody listens on. The replicas would find out, too, but
    meanwhile another cluster on these ports would be taken for this one."""
    return [
        f"{HOST}:{port} ({option} of replica {replica.replica_id})"
        for replica in replicas
        for option, port in replica.ports().items()
        if not _can_listen(port)
    ]


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


class DevCluster:
    """Starts the replicas, tells the user, waits, stops them."""

    def __init__(self, replicas: tuple[LocalReplica, ...], data_dir: Path) -> None:
        self._replicas = replicas
        self._data_dir = data_dir
        self._console = Console()
        self._stop = asyncio.Event()
        self._children: list[DevChild] = []
        self._pumps: list[asyncio.Task[None]] = []
        self._ends: dict[asyncio.Task[int], DevChild] = {}
        self._status = int(ExitStatus.OK)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        try:
            await self._start()
            if await self._wait_ready():
                await self._announce()
                await self._wait_stop()
        finally:
            await self._stop_children()
            self._console.close()
        return self._status

    def _on_signal(self) -> None:
        if self._stop.is_set():
            for child in self._children:
                child.kill()
        self._stop.set()

    async def _start(self) -> None:
        self._console.say(f"Starting {_count(len(self._replicas), 'replica')} ...")
        for replica in self._replicas:
            child = await DevChild.start(replica, self._replicas)
            self._children.append(child)
            self._pumps.append(asyncio.create_task(child.pump(self._console.child_line)))
            self._ends[asyncio.create_task(child.wait())] = child

    async def _wait_ready(self) -> bool:
        """False when told to stop first, or when a replica ended instead of starting."""
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from coordsvc.client.health import wait_serving  # here: the children start meanwhile

        stopping = asyncio.create_task(self._stop.wait())
        starting = {
            asyncio.create_task(wait_serving(child.replica.endpoint, POLL_SECONDS)): child
            for child in self._children
        }
        waiting: set[asyncio.Task[None]] = set(starting)
        try:
            while waiting and not self._stop.is_set():
                await asyncio.wait(
                    {stopping, *waiting, *self._ends}, return_when=asyncio.FIRST_COMPLETED
                )
                if any(end.done() for end in self._ends):
                    self._report_failed_start()
                    return False
                for task in [task for task in waiting if task.done()]:
                    task.result()
                    waiting.discard(task)
                    self._console.say(f"  replica {starting[task].replica.replica_id} is ready")
            return not self._stop.is_set()
        finally:
            stopping.cancel()
            for task in starting:
                task.cancel()
            await asyncio.gather(stopping, *starting, return_exceptions=True)

    def _report_failed_start(self) -> None:
        for end, child in self._ends.items():
            if not end.done():
                continue
            status = end.result()
            self._fail(status)
            self._console.say(
                f"Replica {child.replica.replica_id} {describe_end(status)} and did not start; "
                "its last lines above say why."
            )
            if status == ExitStatus.ADDRESS_IN_USE:
                self._console.say("Is a cluster running already? If not, try another --base-port.")

    async def _announce(self) -> None:
        endpoints = endpoints_text(self._replicas)
        command = command_line(Path(sys.argv[0]), Path.cwd())
        write = "set" if await self._has_hello() else "create"
        for line in (
            "",
            f"{_count(len(self._replicas), 'replica')} ready, with their data below "
            f"{self._data_dir}/. Ctrl-C stops all.",
            f"Endpoints: {endpoints}",
            f"ZooKeeper: {zookeeper_hosts(self._replicas)}   (for ZooKeeper's own clients)",
            f"Metrics:   http://{self._replicas[0].admin_endpoint}/metrics",
            "",
            "Try it in another terminal:",
            "",
            f"{command} {write} /hello world --endpoints {endpoints} && "
            f"{command} get /hello --endpoints {endpoints}",
            "",
        ):
            self._console.say(line)

    async def _has_hello(self) -> bool:
        """So that the line to paste succeeds on the second start, too."""
        from coordsvc.client.options import ClientConfig
        from coordsvc.client.unary import UnaryClient
        from coordsvc.errors import CoordError

        config = ClientConfig(tuple(replica.endpoint for replica in self._replicas), 2_000)
        try:
            async with UnaryClient(config) as client:
                return (await client.exists("/hello")).HasField("stat")
        except CoordError as error:
            self._console.say(f"The cluster does not answer yet: {error}")
            return False

    async def _wait_stop(self) -> None:
        """Until told to stop, or until no replica is left."""
        stopping = asyncio.create_task(self._stop.wait())
        pending = set(self._ends)
        while pending and not self._stop.is_set():
            await asyncio.wait({stopping, *pending}, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                break
            for end in [end for end in pending if end.done()]:
                pending.discard(end)
                self._report_lost(self._ends[end], end.result(), len(pending))
        stopping.cancel()

    def _report_lost(self, child: DevChild, status: int, left: int) -> None:
        self._fail(status)
        quorum = len(self._replicas) // 2 + 1
        if left >= quorum:
            outlook = f"{left} of {len(self._replicas)} are left, so the cluster goes on"
        elif left > 0:
            outlook = f"{left} of {len(self._replicas)} are left, too few to serve"
        else:
            outlook = "none is left"
        self._console.say(
            f"Replica {child.replica.replica_id} {describe_end(status)}, which nobody asked for; "
            f"{outlook}."
        )

    async def _stop_children(self) -> None:
        running = [child for child in self._children if child.is_running]
        if running:
            self._console.say(f"Stopping {_count(len(running), 'replica')} ...")
        for child in running:
            child.terminate()
        if self._ends:
            _, late = await asyncio.wait(self._ends, timeout=STOP_SECONDS_MAX)
            for end in late:
                self._ends[end].kill()
                self._fail(int(ExitStatus.BUG))
                self._console.say(
                    f"Replica {self._ends[end].replica.replica_id} did not stop within "
                    f"{STOP_SECONDS_MAX:.0f} s and was killed."
                )
            await asyncio.gather(*self._ends)
        for child in running:
            self._report_stopped(child)
        if self._pumps:
            await asyncio.wait(self._pumps, timeout=0.3)
        if running:
            self._console.say("Stopped.")

    def _report_stopped(self, child: DevChild) -> None:
        status = child.status
        # SIGTERM itself ends a replica that had not got as far as handling it.
        if status not in (ExitStatus.OK, -signal.SIGTERM, -signal.SIGKILL):
            self._fail(status)
            self._console.say(
                f"Replica {child.replica.replica_id} {describe_end(status)} while stopping."
            )

    def _fail(self, status: int) -> None:
        """End with the first replica's bad status; 1 for one that a signal or nothing ended."""
        if self._status == ExitStatus.OK:
            self._status = status if status > 0 else int(ExitStatus.REFUSED)


def command_line(argv0: Path, cwd: Path) -> str:
    """How the user can run this program again from `cwd`, quoted for a shell; relative to `cwd`
    where it is inside."""
    if argv0.name != "coordsvc":  # python -m coordsvc, where argv[0] is a module's file
        argv0 = Path(sys.executable).parent / "coordsvc"
        if not argv0.exists():
            return f"{shlex.quote(sys.executable)} -m coordsvc"
    absolute = argv0 if argv0.is_absolute() else cwd / argv0
    if not absolute.is_relative_to(cwd):
        return shlex.quote(str(absolute))
    relative = str(absolute.relative_to(cwd))
    return shlex.quote(relative if "/" in relative else f"./{relative}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
