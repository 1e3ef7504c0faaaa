"""The port at which ZooKeeper's clients connect, and all connections that came in by it.

Sessions are the cluster's, so that one opened here attaches at the gRPC door and the other way
round. A connection is one attachment of its session; when a newer one is applied here, wherever it
came in, what still comes on the older connection is refused.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from coordsvc.core.commands import AppliedEntry
from coordsvc.errors import CoordError, OutcomeUnknownError, ShuttingDownError
from coordsvc.server.addresses import Address
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.listening import bind
from coordsvc.server.pipeline import Pipeline, no_quorum
from coordsvc.server.replica_port import ReplicaPort
from coordsvc.server.session_reports import SessionReports
from coordsvc.server.watch_hub import WatchHub
from coordsvc.server.zookeeper.connection import Connection
from coordsvc.server.zookeeper.statistics import DoorFacts, Traffic

logger = logging.getLogger(__name__)

TURN_S: Final = 0.25
"""How often it is looked after requests under way, and after the majority."""

TLS_HANDSHAKE_S_MAX: Final = 10.0


class Door:
    """`config_data()` is what /zookeeper/config holds; `word_answer(four bytes)` the answer to a
    tool's word, None if they are none. Give `on_applied` every applied entry, after the watch hub
    and the session reports had it."""

    def __init__(
        self,
        config: ServerConfig,
        pipeline: Pipeline,
        replica: ReplicaPort,
        reports: SessionReports,
        hub: WatchHub,
        *,
        config_data: Callable[[], bytes],
        word_answer: Callable[[bytes], bytes | None],
    ) -> None:
        self.pipeline = pipeline
        self.replica = replica
        self.reports = reports
        self.hub = hub
        self.config_data = config_data
        self.word_answer = word_answer
        self.cluster = config.cluster
        self.superuser_digest = config.superuser_digest
        self.packet_bytes_max = config.zookeeper_packet_bytes_max
        self.outstanding_max = config.cluster.outstanding_requests_max
        self.address: Address | None = None
        """Where it listens: with the port it was given."""
        self.now = replica.clock.monotonic
        self._limits = config.limits
        self._connections_max = config.zookeeper_connections_max
        self._per_address: Counter[str] = Counter()
        self._connections: dict[Connection, None] = {}
        self._of_session: dict[int, dict[Connection, None]] = {}
        self._past = Traffic()
        """Of connections that have ended."""
        self._started_ms = self.wall_ms()
        pipeline.admission.limits.measure("zookeeper_connections", self.__len__)
        self._none_left = asyncio.Event()
        self._is_ending = False
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._woken: list[Connection] = []
        self._call_soon: Callable[[Callable[[], None]], object]

    def __len__(self) -> int:
        """Connections."""
        return len(self._connections)

    async def listen(self, address: Address, tls: ssl.SSLContext | None = None) -> None:
        """Raises OSError when the address is taken."""
        self._call_soon = asyncio.get_running_loop().call_soon
        listener = bind(address)
        self.address = Address(address.host, listener.getsockname()[1])
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self),
            sock=listener,
            backlog=1024,
            ssl=tls,
            ssl_handshake_timeout=TLS_HANDSHAKE_S_MAX if tls is not None else None,
        )
        self._on_timer()

    # ------------------------------------------------------------------------------- connections

    def wake(self, connection: Connection) -> None:
        """It is `on_woken` in the next turn. All of them together: what one entry of the log
        answers is often of many connections."""
        if not self._woken:
            self._call_soon(self._wake_all)
        self._woken.append(connection)

    def _wake_all(self) -> None:
        woken, self._woken = self._woken, []
        for connection in woken:
            connection.on_woken()

    def enter(self, connection: Connection) -> bool:
        """False: there are enough, or nobody is served any more."""
        host = connection.host
        self._connections[connection] = None
        self._per_address[host] += 1
        if self._is_ending:
            return False
        limit = ""
        if self._per_address[host] > self._limits.connections_per_address_max:
            limit = "connections_per_address"
        elif len(self._connections) > self._connections_max:
            limit = "zookeeper_connections"
        if limit:
            self.pipeline.admission.limits.refusals_total[limit] += 1
            logger.warning("zookeeper.too_many_connections", extra={"host": host, "limit": limit})
        return not limit

    def leave(self, connection: Connection) -> None:
        if self._connections.pop(connection, 0) == 0:
            return
        self._per_address[connection.host] -= 1
        if not self._per_address[connection.host]:
            del self._per_address[connection.host]
        of_session = self._of_session.get(connection.session_id, {})
        of_session.pop(connection, None)
        if not of_session:
            self._of_session.pop(connection.session_id, None)
        self._past.add(connection.traffic)
        if not self._connections:
            self._none_left.set()

    def register(self, connection: Connection) -> None:
        """It has its session. Other connections here that have had it before are of no use to
        anybody."""
        of_session = self._of_session.setdefault(connection.session_id, {})
        for other in tuple(of_session):
            if other.attach_epoch < connection.attach_epoch:
                other.end()
        of_session[connection] = None

    def heard(self, session_id: int) -> None:
        self.reports.heard(session_id, self.now())

    def clamped_timeout_ms(self, wanted: int) -> int:
        cluster = self.cluster
        return max(cluster.session_timeout_ms_min, min(wanted, cluster.session_timeout_ms_max))

    def on_applied(self, applied: AppliedEntry) -> None:
        for session_ids in (applied.attached_sessions, applied.closed_sessions):
            for session_id in session_ids:
                for connection in tuple(self._of_session.get(session_id, ())):
                    connection.check_session()

    # ------------------------------------------------------------------------------------- turns

    def _on_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TURN_S, self._on_timer)
        if not self.pipeline.has_quorum:
            self._end_all(no_quorum(), OutcomeUnknownError("the replica lost its majority"))
            return
        for connection in self._connections:
            connection.heard_if_waiting()

    def _end_all(self, error: CoordError, undecided: CoordError | None) -> None:
        for connection in tuple(self._connections):
            connection.stop_taking(error, undecided)

    # ----------------------------------------------------------------------------------- the end

    def begin_end_all(self) -> None:
        """Take no more connections and no more requests. A connection ends when what was submitted
        on it is answered: its client goes to another replica."""
        self._is_ending = True
        if self._server is not None:
            self._server.close()
            self._server = None
        self._end_all(_shutting_down(), None)

    async def end_all(self) -> None:
        """Return when no connection is left. What is not decided stays unanswered."""
        self._is_ending = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        unknown = OutcomeUnknownError("this replica stopped before the write was decided")
        self._end_all(_shutting_down(), unknown)
        while self._connections:
            self._none_left.clear()
            await self._none_left.wait()

    # ------------------------------------------------------------------------------------- facts

    def wall_ms(self, at: float | None = None) -> int:
        """A time of the replica's clock as wall clock; None: now."""
        wall = time.time()
        if at is not None:
            wall -= self.now() - at
        return int(wall * 1000)

    def facts(self) -> DoorFacts:
        total = Traffic()
        total.add(self._past)
        connections = tuple(connection.facts() for connection in self._connections)
        for facts in connections:
            total.add(facts.traffic)
        return DoorFacts(
            connections=connections,
            outstanding=sum(facts.outstanding for facts in connections),
            traffic=total,
            started_ms=self._started_ms,
        )


def _shutting_down() -> ShuttingDownError:
    return ShuttingDownError("this replica is stopping; the session lives on at another one")
