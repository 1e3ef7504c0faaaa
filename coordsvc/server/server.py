"""One replica's server: puts pipeline, session clock, collection and services around a replica.

It runs on the replica's loop and is told by it what was applied and who leads. `serve.py` makes a
process of it; tests run it in theirs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from coordsvc import __version__
from coordsvc.core.commands import AppliedEntry, SessionClosed
from coordsvc.errors import ShuttingDownError
from coordsvc.raft.messages import ReplicaInfo, Touch, TouchAck
from coordsvc.server.addresses import Address
from coordsvc.server.client_tls import ClientTls
from coordsvc.server.cluster_service import ClusterService
from coordsvc.server.collection import Collection
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.convert import FEATURES
from coordsvc.server.coordination import CoordinationService
from coordsvc.server.disk_space import DiskSpace
from coordsvc.server.grpc_door import SERVER_OPTIONS, FrontDoor
from coordsvc.server.health import Check, is_ready
from coordsvc.server.limits_admission import Admission
from coordsvc.server.measurements import Measurements
from coordsvc.server.members import Members, role_of
from coordsvc.server.pipeline import Pipeline
from coordsvc.server.replica_port import ReplicaPort
from coordsvc.server.session_clock import SessionClock
from coordsvc.server.session_reports import Heard, SessionReports
from coordsvc.server.session_streams import SessionService
from coordsvc.server.stall import TURN_SECONDS
from coordsvc.server.watch_hub import WatchHub
from coordsvc.server.watch_service import WatchService
from coordsvc.server.zookeeper.door import Door
from coordsvc.server.zookeeper.front import make_door, monitored
from coordsvc.v1 import cluster_pb2, common_pb2, coordination_pb2

logger = logging.getLogger(__name__)

HEALTH_SERVICES = ("", "coordsvc.v1.Coordination", "coordsvc.v1.Cluster")


class Server:
    """Make it on the loop it shall run on, give `on_applied`, `on_leading` and `on_not_leading` to
    the replica, then `start` it. `disk_fault()` says why the log cannot be
    written; empty: it can."""

    def __init__(
        self,
        config: ServerConfig,
        replica: ReplicaPort,
        *,
        election_timeout_s: float,
        tls: ClientTls | None = None,
        measurements: Measurements | None = None,
        disk_fault: Callable[[], str] = lambda: "",
        is_log_low: Callable[[], bool] = lambda: False,
        disk_space: type[DiskSpace] = DiskSpace,
        make_grpc_server: Callable[[], aio.Server] | None = None,
    ) -> None:
        assert tls is not None or not config.tls_cert, "certificates, but no credentials"
        self.config = config
        self.replica = replica
        self.measurements = measurements or Measurements()
        tick_s = config.cluster.tick_ms / 1000
        confirmed_age_s_max = election_timeout_s + tick_s
        loop = asyncio.get_running_loop()
        self._loop = loop
        self.reports = SessionReports(
            tick_s=tick_s,
            send=self._send_report,
            call_soon=loop.call_soon,
            monotonic=replica.clock.monotonic,
            first_report=time.time_ns() // 1000,
        )
        self.clock = SessionClock(
            tick_s=tick_s,
            sessions=lambda: replica.machine.state.sessions,
            propose=replica.propose,
            confirm=replica.confirm_leadership,
            acknowledge=self._acknowledge_report,
        )
        self.collection = Collection(replica.machine.state, replica.propose)
        self.disk_space = disk_space(
            config.data_dir,
            free_bytes_min=config.storage.disk_free_bytes_min,
            is_log_low=is_log_low,
        )
        self.admission = Admission(config, self.disk_space)
        self.admission.limits.measure("sessions", lambda: len(replica.machine.state.sessions))
        self.pipeline = Pipeline(
            replica,
            self.reports,
            confirmed_age_s_max=confirmed_age_s_max,
            admission=self.admission,
        )
        self.hub = WatchHub(replica.machine.state, config.limits)
        self.admission.limits.measure("watches", lambda: self.hub.watches)
        self.admission.limits.measure("watch_history_bytes", lambda: self.hub.history.bytes)
        self.sessions = SessionService(
            config,
            self.pipeline,
            replica,
            self.reports,
            self.hub,
            self.header,
            self.measurements,
        )
        self.watches = WatchService(
            self.pipeline, self.hub, config, self.header, replica.clock.monotonic
        )
        self.members = Members(
            replica, config.peers, self._own_info, tick_s=tick_s, reachable_s=confirmed_age_s_max
        )
        self.zookeeper: Door | None = None
        self.monitored = monitored(self)
        if config.zookeeper_listen is not None:
            self.zookeeper = make_door(self, self.monitored)
        replica.set_handler(Touch, self._on_touch)
        replica.set_handler(TouchAck, self._on_touch_ack)
        self.door = FrontDoor(self.admission, self.measurements)
        self.address = config.listen
        """Where it listens: with the port it was given, once it is started."""
        self.tls = tls
        self._grpc: aio.Server | None = None
        self._make_grpc_server = make_grpc_server or (lambda: aio.server(options=SERVER_OPTIONS))
        self._disk_fault = disk_fault
        self._is_stopping = False
        self._leader: tuple[int, int | None] = (0, None)
        self._health = health_aio.HealthServicer()
        self._serving: bool | None = None
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: dict[asyncio.Task[None], None] = {}

    # --------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Serve. Raises OSError when the address is taken."""
        self._on_timer()
        server = self._make_grpc_server()
        self._add_services(server)
        try:
            port = self._add_port(server)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        if port == 0:
            raise OSError(f"gRPC cannot listen on {self.address}")
        self.address = Address(self.address.host, port)
        self.disk_space.start()
        self._grpc = server
        await server.start()

    async def listen_zookeeper(self) -> None:
        """Serve ZooKeeper's clients as well, if so configured. Raises OSError."""
        if self.zookeeper is not None:
            assert self.config.zookeeper_listen is not None
            tls = self.tls.accepting if self.tls is not None else None
            await self.zookeeper.listen(self.config.zookeeper_listen, tls)
            self.config = replace(self.config, zookeeper_listen=self.zookeeper.address)

    @property
    def zookeeper_address(self) -> Address | None:
        """Where it serves them: with the port it was given, once it listens. None: nowhere."""
        return self.zookeeper.address if self.zookeeper is not None else None

    def _add_port(self, server: aio.Server) -> int:
        if self.tls is None:
            return server.add_insecure_port(str(self.address))
        return server.add_secure_port(str(self.address), self.tls.credentials())

    def _add_services(self, server: aio.Server) -> None:
        coordination = coordination_pb2.DESCRIPTOR.services_by_name["Coordination"]
        cluster = cluster_pb2.DESCRIPTOR.services_by_name["Cluster"]
        monotonic = self.replica.clock.monotonic
        calls = CoordinationService(
            self.pipeline,
            self.config.cluster,
            self.header,
            monotonic,
            superuser_digest=self.config.superuser_digest,
        )
        streams = {**self.sessions.streams, **self.watches.streams}
        about = ClusterService(self.replica, self.members, self.header)
        server.add_generic_rpc_handlers(
            (
                self.door.handlers(coordination, calls.methods, streams),
                self.door.handlers(cluster, about.methods),
            )
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        names = (coordination.full_name, cluster.full_name, health, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)

    async def wait_ready(self) -> None:
        """Until it answers what it is asked, for the first time."""
        await self._ready.wait()

    def begin_stop(self) -> None:
        """Tell balancers to go elsewhere, and take no new session and no new write."""
        self._is_stopping = True
        self.pipeline.begin_stop()
        self._update_health()

    async def drain_writes(self, timeout_s: float) -> bool:
        """Finish the writes under way; False when some were not within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.pipeline.drained()
        except TimeoutError:
            return False
        return True

    def begin_end_streams(self, grace_s: float) -> None:
        """Tell every client with a stream to go elsewhere, with its session. Streams end when what
        was proposed on them is answered, at the latest after `grace_s`."""
        reason = coordination_pb2.GO_AWAY_REASON_SHUTTING_DOWN
        self.sessions.begin_end_all(reason, int(grace_s * 1000))
        self.watches.end_all(ShuttingDownError("this replica is stopping; go on at another one"))
        if self.zookeeper is not None:
            self.zookeeper.begin_end_all()

    async def end_streams(self, timeout_s: float) -> None:
        """End what is left of them, answering what is not decided as unknown."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.sessions.end_all()
                if self.zookeeper is not None:
                    await self.zookeeper.end_all()
        except TimeoutError:
            logger.warning("process.streams_left", extra={"seconds": timeout_s})

    async def stop(self, grace_s: float = 0.2) -> None:
        """Wait `grace_s` at most for the calls and streams that are ending, end what is left, and
        close the port. The replica has stopped before."""
        self.pipeline.abandon()
        self.disk_space.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._grpc is not None:
            await self._grpc.stop(grace_s)
            self._grpc = None
        for task in tuple(self._tasks):
            await task

    # ------------------------------------------------------------------------------- the replica's

    def on_applied(self, applied: AppliedEntry) -> None:
        # Events before anything that could reveal what they tell.
        self.hub.on_applied(applied)
        if applied.opened_sessions or applied.closed_sessions or applied.heard_sessions:
            self.clock.on_applied(
                applied.opened_sessions,
                applied.closed_sessions,
                self.replica.clock.monotonic(),
                attached=applied.attached_sessions,
                heard=applied.heard_sessions,
            )
            self.reports.closed(applied.closed_sessions)
        if applied.closed_sessions:
            self.measurements.sessions_expired_total += expired_sessions(applied)
        self.sessions.on_applied(applied)
        if self.zookeeper is not None:
            self.zookeeper.on_applied(applied)

    def on_leading(self, term: int) -> None:
        now = self.replica.clock.monotonic()
        self.clock.on_leading(term, now)
        self.collection.on_leading(term, now)

    def on_not_leading(self) -> None:
        self.clock.on_not_leading()
        self.collection.on_not_leading()

    # --------------------------------------------------------------------------------------- turns

    def _on_timer(self) -> None:
        self._timer = self._loop.call_later(TURN_SECONDS, self._on_timer)
        now = self.replica.clock.monotonic()
        self.clock.turn(now)
        self.reports.turn(now, self.replica.term, self.replica.leader_id)
        self.collection.turn(now)
        self.members.turn(now)
        self.disk_space.set_elsewhere(self.members.is_space_low)
        self.admission.turn(now)
        self._note_leader()
        self._update_health()

    def _note_leader(self) -> None:
        """A term has one leader; the same one in another term has won another election."""
        replica = self.replica
        leader = (replica.term, replica.leader_id)
        if replica.leader_id is not None and leader != self._leader:
            self._leader = leader
            self.measurements.leader_changes_total += 1

    def checks(self) -> tuple[Check, ...]:
        """What decides whether it is ready: here, and for grpc.health.v1."""
        has_quorum, is_caught_up = self.pipeline.has_quorum, self.replica.is_ready
        return (
            Check("loaded"),
            Check("leader confirmed", "" if has_quorum else "no leader of a majority is in reach"),
            Check("caught up", "" if is_caught_up else "not with what was committed at its start"),
            Check("disk writable", self._disk_fault()),
            Check("not shutting down", "it was told to stop" if self._is_stopping else ""),
        )

    @property
    def is_ready(self) -> bool:
        return is_ready(self.checks())

    def _update_health(self) -> None:
        serving = self.is_ready
        if serving == self._serving:
            return
        if self._serving is not None:
            logger.info("server.health", extra={"serving": serving})
        self._serving = serving
        task = self._loop.create_task(self._set_health(serving))
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        if serving:
            self._ready.set()

    async def _set_health(self, serving: bool) -> None:
        known = health_pb2.HealthCheckResponse
        status = known.SERVING if serving else known.NOT_SERVING
        for service in HEALTH_SERVICES:
            await self._health.set(service, status)

    # ------------------------------------------------------------------------------------- reports

    def _send_report(self, report_id: int, sessions: Heard) -> bool:
        replica = self.replica
        leader = replica.leader_id
        if leader is None:
            return False
        if leader != replica.replica_id:
            replica.send_peer(leader, Touch(replica.term, report_id, sessions))
            return True
        if replica.is_leader:
            now = replica.clock.monotonic()
            self.clock.on_report(leader, replica.term, report_id, sessions, now)
        return replica.is_leader

    def _on_touch(self, peer: int, touch: Touch) -> None:
        now = self.replica.clock.monotonic()
        self.clock.on_report(peer, touch.term, touch.report_id, touch.sessions, now)

    def _acknowledge_report(self, replica_id: int, term: int, report_id: int) -> None:
        if replica_id == self.replica.replica_id:
            self.reports.on_acknowledged(report_id, self.replica.clock.monotonic())
        else:
            self.replica.send_peer(replica_id, TouchAck(term, report_id))

    def _on_touch_ack(self, peer: int, ack: TouchAck) -> None:
        if ack.term == self.replica.term and peer == self.replica.leader_id:
            self.reports.on_acknowledged(ack.report_id, self.replica.clock.monotonic())

    # --------------------------------------------------------------------------------------- facts

    def header(self, zxid: int) -> common_pb2.ResponseHeader:
        """Of a write's answer, or with 0 of one that shows what is applied."""
        state = self.replica.machine.state
        return common_pb2.ResponseHeader(
            zxid=zxid or state.zxid,
            cluster_id=int.from_bytes(state.cluster_id[:8], "big"),
            replica_id=self.replica.replica_id,
            term=self.replica.term,
        )

    @property
    def client_address(self) -> str:
        if self.config.advertise is None and self.config.listen.port == 0:
            return str(self.address)
        return self.config.client_address

    def _own_info(self) -> ReplicaInfo:
        replica = self.replica
        peer_address = self.config.peers.get(replica.replica_id)
        return ReplicaInfo(
            replica_id=replica.replica_id,
            role=int(role_of(replica)),
            client_address=self.client_address,
            peer_address=str(peer_address) if peer_address is not None else "",
            term=replica.term,
            applied_zxid=replica.machine.state.zxid,
            applied_index=replica.applied_index,
            commit_index=replica.commit_index,
            sessions=self.reports.statistics().sessions_heard,
            version=__version__,
            features=FEATURES,
            cluster_config=self.config.cluster.fingerprint(),
            is_space_low=self.disk_space.is_low_here,
            zookeeper_address=self.config.zookeeper_client_address,
        )


def expired_sessions(applied: AppliedEntry) -> int:
    """How many sessions this entry ended that did not ask for it."""
    replies = (reply for batch in applied.batches for reply in batch.replies)
    asked = sum(1 for reply in replies if isinstance(reply.result, SessionClosed))
    return len(applied.closed_sessions) - asked
