"""One replica as a process: from a configuration to an exit status.

Ports come first, so that one in use is told at once and a long load is not taken for a dead
process; then the data directory and what is in it; then the replica, and the server around it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence

from coordsvc import __version__
from coordsvc.exit_status import ExitStatus
from coordsvc.server.addresses import Address
from coordsvc.server.admin import Admin
from coordsvc.server.assembly import Surroundings, Tls
from coordsvc.server.certificate_files import CertificateFilesError
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.failures import (
    FatalErrors,
    StartRefusedError,
    end_process,
    status_of_failure,
)
from coordsvc.server.health import NOT_LOADED, Check
from coordsvc.server.host import ReplicaHost
from coordsvc.server.listening import bind
from coordsvc.server.logs import configure_logging
from coordsvc.server.loop_monitor import LoopMonitor
from coordsvc.server.measurements import Measurements
from coordsvc.server.metrics import ReplicaMetrics
from coordsvc.server.zookeeper.monitoring import Monitored
from coordsvc.storage.errors import StorageError

logger = logging.getLogger(__name__)

STOP_SECONDS_MAX = 4.5
"""A stop is promised within 5 s."""

SWITCH_INTERVAL_S = 0.0005
"""The thread that syncs the log must get the interpreter back soon: writes wait for it."""


def run(config: ServerConfig) -> int:
    """Run one replica until SIGTERM or SIGINT; its exit status. A failure ends the process without
    returning."""
    configure_logging(
        replica_id=config.replica_id, log_format=config.log_format, level=config.log_level
    )
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return int(runner.run(ReplicaProcess(config).run()))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class ReplicaProcess:
    """Starts the parts in their order, waits, stops them in the reverse one."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._fatal = FatalErrors(data_dir=config.data_dir)
        self._stop = asyncio.Event()
        self._is_started = False
        self._monitor = LoopMonitor()
        self._measurements = Measurements()
        self._tls = Tls()
        self._admin: Admin | None = None
        self._admin_listen = ""
        self._host: ReplicaHost | None = None
        self._metrics = ReplicaMetrics(
            self._measurements,
            self._monitor.lag_seconds,
            lambda: self._host.assembly if self._host is not None else None,
            digest_mismatches=lambda: self._fatal.digest_mismatches_total,
        )

    async def run(self) -> ExitStatus:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._fatal.on_loop_exception)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        self._monitor.start()
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
            text = self._fatal.text_of(error)
            logger.critical("process.refused", extra={"exit_status": int(status), "error": text})
            return status
        except Exception as error:
            self._fatal.on_fatal(error)
            return ExitStatus.BUG
        await self._serve()
        await self._end()
        return ExitStatus.OK

    def _on_signal(self, number: int) -> None:
        """The first one asks for a clean stop; before the start is complete, or while the replica
        is built again, there is nothing to clean. A second one means now."""
        if self._stop.is_set():
            end_process(128 + number)
        logger.info("process.signal", extra={"signal": signal.Signals(number).name})
        self._stop.set()
        if not self._is_started or self._host is None or self._host.is_rebuilding:
            end_process(ExitStatus.OK)

    # --------------------------------------------------------------------------------------- start

    async def _start(self) -> None:
        config = self._config
        self._load_certificates()
        check_free("--listen", config.listen)
        if config.peer_address is not None:
            check_free("--peer-listen", config.peer_address)
        if config.zookeeper_listen is not None:
            check_free("--zookeeper-listen", config.zookeeper_listen)
        if config.admin_address is not None:
            await self._start_admin(config.admin_address)
        surroundings = Surroundings(self._fatal.on_fatal, self._measurements, self._tls)
        self._host = host = ReplicaHost(config, surroundings)
        await host.open()
        assert host.assembly is not None
        await _listening("--peer-listen", config.peer_address, host.assembly.replica.listen())
        await _listening("--listen", config.listen, host.listen())
        await _listening("--zookeeper-listen", config.zookeeper_listen, host.listen_zookeeper())
        await host.start()
        self._is_started = True

    def _load_certificates(self) -> None:
        try:
            self._tls = Tls.load(self._config)
        except CertificateFilesError as error:
            raise StartRefusedError(ExitStatus.USAGE, str(error)) from error
        self._tls.start()

    async def _start_admin(self, address: Address) -> None:
        self._admin = Admin(
            self._metrics.text, lambda: self._monitor.fault, self._checks, self._monitored
        )
        listener = take("--admin-listen", address)
        self._admin_listen = str(Address(address.host, listener.getsockname()[1]))
        await self._admin.start(listener)

    # --------------------------------------------------------------------------------------- serve

    def _monitored(self) -> Monitored | None:
        assembly = self._host.assembly if self._host is not None else None
        return assembly.server.monitored if assembly is not None else None

    def _checks(self) -> Sequence[Check]:
        return self._host.checks() if self._host is not None else NOT_LOADED

    async def _serve(self) -> None:
        assert self._host is not None
        stopped = asyncio.create_task(self._stop.wait())
        ready = asyncio.create_task(self._host.wait_ready())
        await asyncio.wait({stopped, ready}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            self._announce()
        ready.cancel()
        await stopped

    def _announce(self) -> None:
        assert self._host is not None and self._host.assembly is not None
        config, replica = self._host.config, self._host.assembly.replica
        state = replica.machine.state
        logger.info(
            "serving",
            extra={
                "listen": str(config.listen),
                "peer_listen": str(config.peer_address or ""),
                "admin_listen": self._admin_listen,
                "zookeeper_listen": str(config.zookeeper_listen or ""),
                "term": replica.term,
                "zxid": state.zxid,
                "znodes": len(state.znodes),
                "sessions": len(state.sessions),
            },
        )

    # ---------------------------------------------------------------------------------------- stop

    async def _end(self) -> None:
        """Finish what was proposed, hand leadership over, close. Late, it ends as it is: whatever
        was acknowledged is on disk."""
        assert self._host is not None
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await self._host.stop()
                if self._admin is not None:
                    await self._admin.stop()
        except TimeoutError:
            logger.warning("process.stopped_late", extra={"seconds": STOP_SECONDS_MAX})
            end_process(ExitStatus.OK)
        except StorageError as error:
            self._fatal.on_fatal(error)
        self._tls.stop()
        self._monitor.stop()
        logger.info("process.stopped")


def take(option: str, address: Address) -> socket.socket:
    """A listening socket. Raises StartRefusedError, naming the option."""
    try:
        return bind(address)
    except OSError as error:
        raise _not_listening(option, address, error) from error


def check_free(option: str, address: Address) -> None:
    """Raises StartRefusedError unless `address` can be listened on now. What is asked for it later
    would answer late, and gRPC says nothing of the option."""
    if address.port:
        take(option, address).close()


async def _listening(option: str, address: Address | None, starting: Awaitable[None]) -> None:
    try:
        await starting
    except OSError as error:
        raise _not_listening(option, address, error) from error


def _not_listening(option: str, address: Address | None, error: OSError) -> StartRefusedError:
    reason = error.strerror or str(error)
    return StartRefusedError(
        ExitStatus.ADDRESS_IN_USE, f"cannot listen on {address} ({option}): {reason}"
    )
