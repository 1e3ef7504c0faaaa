"""One replica as a process: from a configuration to an exit status.

Ports come first, so that one in use is told at once and a long load is not taken for a dead
process; then the data directory and its log; then the replica, and the server around it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

from coordsvc import __version__
from coordsvc.core.machine import Machine
from coordsvc.exit_status import ExitStatus
from coordsvc.raft.hooks import Hooks
from coordsvc.raft.replica import Replica
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.server.addresses import Address
from coordsvc.server.admin import Admin, bind
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.failures import (
    FatalErrors,
    StartRefusedError,
    end_process,
    status_of_failure,
)
from coordsvc.server.logs import configure_logging
from coordsvc.server.metrics import ReplicaMetrics
from coordsvc.server.peer_tls import peer_contexts
from coordsvc.server.server import Server
from coordsvc.storage.data_dir import DataDir
from coordsvc.storage.errors import StorageError
from coordsvc.storage.executor import ThreadExecutor
from coordsvc.storage.files import FileSystem
from coordsvc.storage.wal import Wal
from coordsvc.storage.wal_reader import check_begins

logger = logging.getLogger(__name__)

STOP_S_MAX = 4.5
"""A stop is promised within 5 s."""

DRAIN_S_MAX = 0.5
SWITCH_INTERVAL_S = 0.0005
"""The thread that syncs the log must get the interpreter back soon: writes wait for it."""


def run(config: ServerConfig) -> int:
    """Run one replica until SIGTERM or SIGINT; its exit status. A failure ends the process without
    returning."""
    configure_logging(
        replica_id=config.replica_id, log_format=config.log_format, level=config.log_level
    )
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return int(runner.run(ReplicaProcess(config).run()))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class ReplicaProcess:
    """Starts the parts in their order, waits, stops them in the reverse one."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._fatal = FatalErrors()
        self._stop = asyncio.Event()
        self._is_started = False
        self._metrics = ReplicaMetrics()
        self._admin: Admin | None = None
        self._server: Server
        self._replica: Replica
        self._wal: Wal
        self._executor: ThreadExecutor
        self._data_dir: DataDir

    async def run(self) -> ExitStatus:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._fatal.on_loop_exception)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        logger.info(
            "process.starting",
            extra={
                "version": __version__,
                "pid": os.getpid(),
                "data_dir": self._config.data_dir,
                "cluster_config": self._config.cluster.fingerprint(),
            },
        )
        try:
            await self._start()
        except (StartRefusedError, StorageError) as error:
            status = status_of_failure(error)
            logger.critical(
                "process.refused", extra={"exit_status": int(status), "error": str(error)}
            )
            return status
        except Exception as error:
            self._fatal.on_fatal(error)
            return ExitStatus.BUG
        await self._serve()
        await self._end()
        return ExitStatus.OK

    def _on_signal(self, number: int) -> None:
        """The first one asks for a clean stop; before the start is complete there is nothing to
        clean. A second one means now."""
        if self._stop.is_set():
            end_process(128 + number)
        logger.info("process.signal", extra={"signal": signal.Signals(number).name})
        self._stop.set()
        if not self._is_started:
            end_process(ExitStatus.OK)

    # --------------------------------------------------------------------------------------- start

    async def _start(self) -> None:
        config = self._config
        check_free("--listen", config.listen)
        if config.peer_address is not None:
            check_free("--peer-listen", config.peer_address)
        if config.admin_listen is not None:
            self._admin = Admin(self._metrics, lambda: self._is_ready)
            await self._admin.start(take("--admin-listen", config.admin_listen))
        await self._open_storage()
        self._build()
        await _listening("--peer-listen", config.peer_address, self._replica.listen())
        await _listening("--listen", config.listen, self._server.start())
        gc.collect()
        gc.freeze()  # what was loaded lives on: the collector need not walk it again and again
        await self._replica.start()
        self._is_started = True

    async def _open_storage(self) -> None:
        """In threads: reading a long log must not stop the loop from answering /livez."""
        config, files = self._config, FileSystem()
        self._data_dir = await asyncio.to_thread(
            DataDir.open, config.data_dir, config.replica_id, files, members=config.peers
        )
        self._executor = ThreadExecutor(asyncio.get_running_loop())
        self._wal = await asyncio.to_thread(
            Wal.open,
            self._data_dir.wal_path,
            files=files,
            executor=self._executor,
            identity=self._data_dir.uuid,
            replica_id=config.replica_id,
            cluster_id=self._data_dir.cluster_id,
            synced_lsn=self._data_dir.synced_lsn,
            on_synced=lambda lsn: self._replica.on_synced(lsn),
            on_failed=lambda error: self._replica.on_wal_failed(error),
        )
        recovered = self._wal.recovered
        check_begins(self._data_dir.wal_path, recovered)
        await asyncio.to_thread(self._data_dir.set_synced_lsn, self._wal.synced_lsn)
        logger.info(
            "wal.recovered",
            extra={
                "entries": len(recovered.entries),
                "is_new": recovered.is_new,
                "term": recovered.term,
            },
        )
        if recovered.ambiguous_cut:
            logger.warning("wal.cut", extra={"entries": len(recovered.entries)})

    def _build(self) -> None:
        hooks = Hooks(
            on_applied=lambda applied: self._server.on_applied(applied),
            on_leading=lambda term: self._server.on_leading(term),
            on_not_leading=lambda: self._server.on_not_leading(),
            on_cluster_id=self._data_dir.set_cluster_id,
            on_fatal=self._fatal.on_fatal,
        )
        settings = replica_settings(self._config)
        self._replica = Replica(
            settings,
            Machine(),
            self._wal,
            uuid=self._data_dir.uuid,
            cluster_id=self._data_dir.cluster_id,
            loop=asyncio.get_running_loop(),
            hooks=hooks,
        )
        self._server = Server(
            self._config, self._replica, election_timeout_s=settings.election_timeout_s_min
        )
        self._metrics.attach(self._server, self._wal.statistics)

    # --------------------------------------------------------------------------------------- serve

    @property
    def _is_ready(self) -> bool:
        return self._is_started and self._server.pipeline.is_ready

    async def _serve(self) -> None:
        stopped = asyncio.create_task(self._stop.wait())
        ready = asyncio.create_task(self._server.wait_ready())
        await asyncio.wait({stopped, ready}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            self._announce()
        ready.cancel()
        await stopped

    def _announce(self) -> None:
        config, state = self._config, self._replica.machine.state
        logger.info(
            "serving",
            extra={
                "listen": str(self._server.address),
                "peer_listen": str(config.peer_address or ""),
                "admin_listen": str(config.admin_listen or ""),
                "term": self._replica.term,
                "zxid": state.zxid,
                "znodes": len(state.znodes),
                "sessions": len(state.sessions),
            },
        )

    # ---------------------------------------------------------------------------------------- stop

    async def _end(self) -> None:
        """Finish what was proposed, hand leadership over, close."""
        self._server.begin_stop()
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await self._server.drain_writes(DRAIN_S_MAX)
                # Without a majority there is nobody to hand over to, and waiting would be in vain.
                await self._replica.stop(hand_over=self._server.pipeline.has_quorum)
                await self._server.stop()
                await self._close_wal()
                if self._admin is not None:
                    await self._admin.stop()
        except TimeoutError:
            logger.warning("process.stopped_late", extra={"seconds": STOP_S_MAX})
            end_process(ExitStatus.OK)
        logger.info("process.stopped")

    async def _close_wal(self) -> None:
        closed = asyncio.Event()
        self._wal.close(closed.set)
        await closed.wait()
        self._executor.close(timeout_seconds=0.5)
        try:
            await asyncio.to_thread(self._data_dir.set_synced_lsn, self._wal.synced_lsn)
        except StorageError as error:
            self._fatal.on_fatal(error)
        self._data_dir.close()


def replica_settings(config: ServerConfig) -> ReplicaSettings:
    """Raises StartRefusedError when a certificate cannot be used."""
    try:
        contexts = peer_contexts(config)
    except OSError as error:
        message = f"--peer-tls-cert, --peer-tls-key, --peer-tls-ca: {error}"
        raise StartRefusedError(ExitStatus.USAGE, message) from error
    accepting, dialling = contexts if contexts is not None else (None, None)
    peers = {i: (address.host, address.port) for i, address in config.peers.items()}
    listen = config.peer_address
    return ReplicaSettings(
        replica_id=config.replica_id,
        peers=peers,
        peer_listen=(listen.host, listen.port) if listen is not None else None,
        peer_ssl_server=accepting,
        peer_ssl_client=dialling,
        tick_s=config.cluster.tick_ms / 1000,
    )


def take(option: str, address: Address) -> socket.socket:
    """A listening socket. Raises StartRefusedError, naming the option."""
    try:
        return bind(address)
    except OSError as error:
        raise _not_listening(option, address, error) from error


def check_free(option: str, address: Address) -> None:
    """Raises StartRefusedError unless `address` can be listened on now. gRPC's own answer would
    come late and say nothing of the option."""
    if address.port:
        take(option, address).close()


async def _listening(option: str, address: Address | None, starting: object) -> None:
    try:
        await starting  # type: ignore[misc]
    except OSError as error:
        raise _not_listening(option, address, error) from error


def _not_listening(option: str, address: Address | None, error: OSError) -> StartRefusedError:
    reason = error.strerror or str(error)
    return StartRefusedError(
        ExitStatus.ADDRESS_IN_USE, f"cannot listen on {address} ({option}): {reason}"
    )
