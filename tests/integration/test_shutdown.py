"""SIGTERM: leadership goes to another replica, what was taken is answered, streams are sent
elsewhere with their sessions, and the process is gone within 5 s, whatever the others do.

Method: real processes, and raw streams, so that each frame to the end is seen.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from coordsvc.client.channels import channel_options
from coordsvc.client.methods import CREATE
from coordsvc.client.options import ClientConfig
from coordsvc.client.rpc_errors import typed_error
from coordsvc.errors import OutcomeUnknownError, ShuttingDownError
from coordsvc.exit_status import ExitStatus
from coordsvc.testing.cluster import LocalCluster, wait_for
from coordsvc.testing.ports import free_port
from coordsvc.v1 import common_pb2, coordination_pb2, watch_pb2
from coordsvc.v1.coordination_pb2_grpc import CoordinationStub
from tests.integration.direct import Direct
from tests.integration.load_run import LoadRun
from tests.integration.raw_stream import RawStream
from tests.integration.test_leader_kill import check_digests

pytestmark = pytest.mark.timeout(90)

MakeCluster = Callable[..., LocalCluster]

STOP_SECONDS_MAX = 5.0
STREAMS = 25
"""Of each kind."""

EPHEMERAL = common_pb2.CREATE_MODE_EPHEMERAL
SHUTTING_DOWN = coordination_pb2.GO_AWAY_REASON_SHUTTING_DOWN


class Streams:
    """Open Session and Watch streams of one replica, with clients that do nothing but read."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.sessions: list[RawStream] = []
        self.watches: list[Any] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Streams:
        for number in range(STREAMS):
            stream = await self._stack.enter_async_context(RawStream(self.endpoint))
            request = coordination_pb2.CreateRequest(path=f"/held-{number}", mode=EPHEMERAL)
            await stream.send(request)
            await stream.replies(1)
            self.sessions.append(stream)
        options = channel_options(ClientConfig((self.endpoint,)))
        channel = await self._stack.enter_async_context(
            aio.insecure_channel(self.endpoint, options=options)
        )
        for number in range(STREAMS):
            spec = watch_pb2.WatchSpec(
                watch_id=1, path=f"/held-{number}", kind=watch_pb2.WATCH_KIND_PERSISTENT
            )
            call = CoordinationStub(channel).Watch(watch_pb2.WatchRequest(watches=[spec]))
            assert (await call.read()).items[0].HasField("watches_set")
            self.watches.append(call)
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._stack.aclose()

    async def ends(self) -> tuple[list[list[Any]], list[Exception]]:
        """Read all to their ends: each session's last items, and the error of each stream."""
        ends = [asyncio.create_task(self._session_end(stream)) for stream in self.sessions]
        watch_ends = [asyncio.create_task(self._watch_end(call)) for call in self.watches]
        async with asyncio.timeout(STOP_SECONDS_MAX + 5):
            sessions = await asyncio.gather(*ends)
            watches = await asyncio.gather(*watch_ends)
        return [items for items, _ in sessions], [*(error for _, error in sessions), *watches]

    async def _session_end(self, stream: RawStream) -> tuple[list[Any], Exception]:
        items: list[Any] = []
        try:
            async for item in stream.items():
                items.append(item)
        except aio.AioRpcError as error:
            return items, typed_error(error, self.endpoint, is_write=False)
        raise AssertionError("the stream ended without a reason")

    async def _watch_end(self, call: Any) -> Exception:
        try:
            while (await call.read()) is not aio.EOF:
                pass
        except aio.AioRpcError as error:
            return typed_error(error, self.endpoint, is_write=False)
        raise AssertionError("the stream ended without a reason")


def check_ends(goodbyes: list[list[Any]], errors: list[Exception]) -> None:
    assert len(errors) == 2 * STREAMS
    wrong = [error for error in errors if not isinstance(error, ShuttingDownError)]
    assert not wrong, wrong
    for items in goodbyes:
        away = [item.go_away for item in items if item.HasField("go_away")]
        assert [each.reason for each in away] == [SHUTTING_DOWN], items


async def check_sessions_live_on(endpoint: str, streams: list[RawStream]) -> None:
    """At another replica, with their ephemerals."""
    async with Direct(endpoint) as replica:
        for number, stream in enumerate(streams):
            await replica.heartbeat(stream.welcome.credentials)
            data = await replica.read(f"/held-{number}", 5)
            assert data == b""


def test_with_fifty_streams_it_is_gone_within_5_s_and_they_know_why(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(3)
    cluster.start()
    leader = cluster.wait_leader()
    (other, _) = (i for i in cluster.ids if i != leader)

    async def run(load: LoadRun) -> float:
        async with Streams(cluster.replicas[leader].endpoint) as streams:
            ends = asyncio.create_task(streams.ends())
            load.wait_rate(100)
            told_at = time.monotonic()
            cluster.terminate(leader)
            check_ends(*await ends)
            status = await asyncio.to_thread(cluster.wait_end, leader)
            seconds = time.monotonic() - told_at
            assert status == ExitStatus.OK
            await check_sessions_live_on(cluster.replicas[other].endpoint, streams.sessions)
        return seconds

    with LoadRun(tmp_path, cluster.endpoints) as load:
        seconds = asyncio.run(run(load))
        acked = load.acked
        wait_for(lambda: load.acked > acked + 100, "the load to go on")
        load.stop()
    print(f"gone after {seconds:.2f} s")
    assert seconds < STOP_SECONDS_MAX
    assert cluster.events(leader, "process.stopped")
    assert not cluster.events(leader, "process.stopped_late")
    cluster.start()
    asyncio.run(load.check_tree(cluster.endpoints))
    check_digests(cluster)


def test_all_three_at_once_with_streams_and_load(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """There is nobody to hand over to, and that is noticed."""
    cluster = make_cluster(3)
    cluster.start()
    leader = cluster.wait_leader()

    async def run(load: LoadRun) -> None:
        async with Streams(cluster.replicas[leader].endpoint) as streams:
            ends = asyncio.create_task(streams.ends())
            load.wait_rate(100)
            told_at = time.monotonic()
            statuses = await asyncio.to_thread(cluster.stop)
            seconds = time.monotonic() - told_at
            print(f"all gone after {seconds:.2f} s")
            assert set(statuses.values()) == {ExitStatus.OK} and len(statuses) == 3
            assert seconds < STOP_SECONDS_MAX
            check_ends(*await ends)

    with LoadRun(tmp_path, cluster.endpoints) as load:
        asyncio.run(run(load))
        late = [i for i in cluster.ids if cluster.events(i, "process.stopped_late")]
        assert not late, f"they did not finish: {late}"
        cluster.start()
        acked = load.acked
        wait_for(lambda: load.acked > acked + 100, "the load to go on")
        load.stop()
    asyncio.run(load.check_tree(cluster.endpoints))
    check_digests(cluster)


# -------------------------------------------------------------------------------- one by itself

SLOW_DISK = """
import os, sys, time
from coordsvc.storage.files import FileSystem

fdatasync, marker = FileSystem.fdatasync, sys.argv[1]

def slow(self, handle):
    if os.path.exists(marker):
        seconds = float(open(marker).read())
        open(marker + "-busy", "w").close()
        time.sleep(seconds)
    return fdatasync(self, handle)

FileSystem.fdatasync = slow
from coordsvc.cli.main import main
sys.argv[1:2] = []
main()
"""


class SlowReplica:
    """A cluster of one, each of whose syncs takes `sync_seconds` once they are `slow()`."""

    def __init__(self, directory: Path) -> None:
        self.endpoint = f"127.0.0.1:{free_port()}"
        self._marker = directory / "slow"
        self._log_path = directory / "log"
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", SLOW_DISK, str(self._marker), "serve"),
                    *("--data-dir", str(directory / "data"), "--listen", self.endpoint),
                    *("--admin-listen", "none"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(lambda: self.has_logged("serving"), "the replica to serve")

    def has_logged(self, event: str) -> bool:
        return f'"event": "{event}"' in self._log_path.read_text()

    def slow(self, sync_seconds: float) -> None:
        whole = self._marker.with_suffix(".new")
        whole.write_text(str(sync_seconds))
        whole.rename(self._marker)

    def wait_busy(self) -> None:
        """Until a sync has begun that takes long."""
        busy = Path(f"{self._marker}-busy")
        wait_for(busy.exists, "a slow sync")

    def create(self, channel: grpc.Channel, path: str) -> Any:
        call = channel.unary_unary(
            CREATE.name,
            request_serializer=CREATE.request_type.SerializeToString,
            response_deserializer=CREATE.response_type.FromString,
        )
        return call.future(coordination_pb2.CreateRequest(path=path), timeout=20)


@pytest.fixture
def slow_replica(tmp_path: Path) -> Iterator[SlowReplica]:
    replica = SlowReplica(tmp_path)
    yield replica
    if replica.process.poll() is None:
        replica.process.kill()
    replica.process.wait()


@pytest.mark.parametrize("sync_seconds", [0.1, 30.0])
def test_a_slow_disk_does_not_keep_it(slow_replica: SlowReplica, sync_seconds: float) -> None:
    """What it took is answered if the disk is done in time; if not, its outcome is unknown, and the
    end comes all the same. What came too late is certainly not applied."""
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(slow_replica.endpoint, options=options) as channel:
        slow_replica.create(channel, "/before").result()
        slow_replica.slow(sync_seconds)
        under_way = [slow_replica.create(channel, f"/n{number}") for number in range(20)]
        slow_replica.wait_busy()
        told_at = time.monotonic()
        slow_replica.process.send_signal(signal.SIGTERM)
        status = slow_replica.process.wait(STOP_SECONDS_MAX + 5)
        seconds = time.monotonic() - told_at
        answers = [outcome(call, slow_replica.endpoint) for call in under_way]
    assert (status, seconds < STOP_SECONDS_MAX) == (ExitStatus.OK, True), seconds
    is_in_time = sync_seconds < 1
    assert slow_replica.has_logged("process.stopped" if is_in_time else "process.stopped_late")
    decided = type(None) if is_in_time else OutcomeUnknownError
    assert isinstance(answers[0], decided), answers
    assert all(isinstance(answer, decided | ShuttingDownError) for answer in answers), answers


def outcome(call: Any, endpoint: str) -> Exception | None:
    """None: it was answered."""
    error = call.exception()
    return typed_error(error, endpoint, is_write=True) if error is not None else None


def test_a_second_signal_ends_it_while_it_waits_for_the_disk(slow_replica: SlowReplica) -> None:
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(slow_replica.endpoint, options=options) as channel:
        slow_replica.slow(30.0)
        under_way = slow_replica.create(channel, "/n")
        slow_replica.wait_busy()
        slow_replica.process.send_signal(signal.SIGTERM)
        wait_for(lambda: slow_replica.has_logged("process.signal"), "the first signal to be taken")
        told_at = time.monotonic()
        slow_replica.process.send_signal(signal.SIGTERM)
        status = slow_replica.process.wait(STOP_SECONDS_MAX)
        seconds = time.monotonic() - told_at
    assert status == 128 + signal.SIGTERM
    assert seconds < 1.0, "it was not at once"
    assert under_way.exception() is not None
