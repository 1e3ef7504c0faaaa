"""The longest stall of a replica's loop beside checkpoints and large lists.

    .venv/bin/python -m bench.loop_stalls [--znodes 300000]

One replica in this process, its clients in another one. A timer that is due every millisecond is
looked at: how late it comes is how long everything waited. On a machine that does something else as
well the figures tell of that; "alone" is the loop with nothing to do.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import os
import platform
import sys
import tempfile
import time

from grpc import aio

from coordsvc.core.commands import NO_CALLER, CreateOp, Op, SetDataOp, Write
from coordsvc.server.addresses import Address
from coordsvc.server.assembly import Surroundings
from coordsvc.server.config_model import ServerConfig, StorageConfig
from coordsvc.server.host import ReplicaHost
from coordsvc.server.serve import SWITCH_INTERVAL_S, loop_factory
from coordsvc.testing.ports import free_port
from coordsvc.v1 import coordination_pb2, coordination_pb2_grpc

AT_ONCE = 5_000
DATA = b"x" * 100
NEVER = StorageConfig(
    checkpoint_interval_s=86_400, checkpoint_entries=1_000_000_000, checkpoint_log_bytes=1 << 40
)


class Lag:
    """How late a timer of every millisecond comes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self.longest = 0.0
        self._arm()

    def _arm(self) -> None:
        self._due = time.perf_counter() + 0.001
        self._loop.call_later(0.001, self._turn)

    def _turn(self) -> None:
        self.longest = max(self.longest, time.perf_counter() - self._due)
        self._arm()

    def take(self) -> str:
        longest, self.longest = self.longest, 0.0
        return f"longest stall {longest * 1000:6.1f} ms"


class Bench:
    def __init__(self, host: ReplicaHost, znodes: int) -> None:
        assert host.assembly is not None
        self._replica, self._checkpointer = host.assembly.replica, host.assembly.checkpointer
        self._endpoint = str(host.assembly.server.address)
        self._names = [f"/big/n{number * 7919 % znodes:07d}" for number in range(znodes)]
        self._lag = Lag()
        self._days = 0

    async def run(self) -> None:
        # Before there is much in memory: to fork a large process takes long by itself.
        readers = {what: await self._start_reader(what) for what in ("names", "data")}
        await self._write([CreateOp("/big", b"")])
        await self._write([CreateOp(path, DATA) for path in self._names])
        self._lag.take()
        await asyncio.sleep(1)
        print(f"{'alone':48} {self._lag.take()}")
        await self._checkpoint("checkpoint: everything, for the first time")
        for count in (1, 10_000, len(self._names)):
            await self._write([SetDataOp(path, DATA) for path in self._names[:count]])
            await self._checkpoint("checkpoint")
        writing = asyncio.create_task(self._write_on())
        await asyncio.sleep(1)
        print(f"{'writes alone':48} {self._lag.take()}")
        await self._checkpoint("checkpoint, writes going on")
        writing.cancel()
        await asyncio.wait({writing})
        for what, reader in readers.items():
            await self._list(what, reader)

    async def _write(self, ops: list[Op]) -> None:
        for first in range(0, len(ops), AT_ONCE):
            deadline = self._replica.clock.monotonic() + 60
            await asyncio.gather(
                *(
                    self._replica.submit(Write(NO_CALLER, op), deadline)
                    for op in ops[first : first + AT_ONCE]
                )
            )

    async def _write_on(self) -> None:
        while True:
            await self._write([SetDataOp(path, DATA) for path in self._names[:200]])

    async def _checkpoint(self, what: str) -> None:
        await asyncio.sleep(0.5)
        self._lag.take()
        before = self._checkpointer.statistics().checkpoints_total
        self._days += 2  # As if so much time had passed.
        self._checkpointer.turn(self._replica.clock.monotonic() + self._days * 86_400)
        while self._checkpointer.statistics().checkpoints_total == before:
            await asyncio.sleep(0.02)
        done = self._checkpointer.statistics()
        what = f"{what} ({done.last_records} records)"
        print(
            f"{what:48} {self._lag.take()}; {done.last_bytes / 1e6:.2f} MB "
            f"in {done.last_seconds:.2f} s"
        )

    async def _start_reader(self, what: str) -> asyncio.subprocess.Process:
        """It reads the list when it is told to."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.loop_stalls", "--list", self._endpoint, what),
            stdin=asyncio.subprocess.PIPE,
        )

    async def _list(self, what: str, reader: asyncio.subprocess.Process) -> None:
        await asyncio.sleep(0.5)
        self._lag.take()
        assert reader.stdin is not None
        reader.stdin.close()
        assert await reader.wait() == 0
        print(f"{f'getChildren of {len(self._names)}: {what}':48} {self._lag.take()}")


async def list_children(endpoint: str, what: str) -> None:
    """In a process of its own, so that its work is not the replica's."""
    async with aio.insecure_channel(endpoint, [("grpc.enable_http_proxy", 0)]) as channel:
        stub = coordination_pb2_grpc.CoordinationStub(channel)
        request = coordination_pb2.GetChildrenRequest(path="/big", include_data=what == "data")
        while True:
            page = await stub.GetChildren(request, timeout=10)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


async def measure(directory: str, znodes: int) -> None:
    config = ServerConfig(
        data_dir=os.path.join(directory, "data"), listen=Address("127.0.0.1", free_port())
    )
    config = dataclasses.replace(config, storage=NEVER)

    def on_fatal(error: BaseException) -> None:
        raise SystemExit(repr(error))

    host = ReplicaHost(config, Surroundings(on_fatal))
    await host.open()
    await host.listen()
    await host.start()
    await host.wait_ready()
    await Bench(host, znodes).run()
    await host.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--znodes", type=int, default=300_000)
    parser.add_argument("--list", nargs=2, metavar=("ENDPOINT", "WHAT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.list:
        sys.stdin.read()
        asyncio.run(list_children(*arguments.list))
        return
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    logging.getLogger("coordsvc").setLevel(logging.ERROR)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with tempfile.TemporaryDirectory() as directory:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(measure(directory, arguments.znodes))


if __name__ == "__main__":
    main()
