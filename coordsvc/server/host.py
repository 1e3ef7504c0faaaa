"""A data directory, and the replica that lives on it: one after the other, if need be.

When a snapshot has been installed, what is on disk is another state than what is in memory. Then
everything is closed and built again from disk, on the same addresses. The directory stays locked
from the first start to the last stop, so nobody else can take it in between.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coordsvc.server.assembly import Assembly, Surroundings
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.health import NOT_LOADED, Check
from coordsvc.storage.data_dir import DataDir

logger = logging.getLogger(__name__)

DISCARD_SECONDS_MAX = 60.0
"""Closing what is replaced waits for the disk; one that hangs must not leave a process that neither
serves nor ends."""


class ReplicaHost:
    """`open`, `listen`, `listen_zookeeper`, `start`, `stop`. `assembly` is the replica that is
    there now; None while there is none."""

    def __init__(self, config: ServerConfig, surroundings: Surroundings) -> None:
        self.config = config
        self.assembly: Assembly | None = None
        self._around = surroundings
        self._data_dir: DataDir
        self._rebuilding: asyncio.Task[None] | None = None
        self._replaced = asyncio.Event()
        self.is_stopping = False

    async def open(self) -> None:
        """Lock the directory and read what is in it. Raises StorageError."""
        config = self.config
        self._data_dir = await asyncio.to_thread(
            DataDir.open,
            config.data_dir,
            config.replica_id,
            self._around.files,
            members=config.peers,
        )
        self.assembly = await self._assemble()

    async def _assemble(self) -> Assembly:
        assembly = Assembly(self.config, self._data_dir, self._around, self._on_installed)
        await assembly.open()
        return assembly

    async def listen(self) -> None:
        """Take the ports. Raises OSError."""
        assert self.assembly is not None
        await self.assembly.replica.listen()
        await self.assembly.server.start()
        # A port that was given by the system stays the same when it is taken again.
        self.config = replace(self.config, listen=self.assembly.server.address)

    async def listen_zookeeper(self) -> None:
        """Take the port for ZooKeeper's clients, if there is one; after `listen`. Raises OSError: a
        call of its own, so that who asks knows of which port."""
        assert self.assembly is not None
        server = self.assembly.server
        await server.listen_zookeeper()
        self.config = replace(self.config, zookeeper_listen=server.config.zookeeper_listen)

    async def start(self) -> None:
        assert self.assembly is not None
        await self.assembly.start()

    def checks(self) -> Sequence[Check]:
        """What decides whether it is ready."""
        return self.assembly.server.checks() if self.assembly is not None else NOT_LOADED

    async def wait_ready(self) -> None:
        """Until it answers what it is asked, for the first time."""
        while True:
            self._replaced.clear()
            replaced = asyncio.create_task(self._replaced.wait())
            waits: set[asyncio.Task[Any]] = {replaced}
            if self.assembly is not None:
                waits.add(asyncio.create_task(self.assembly.server.wait_ready()))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if not replaced.done():
                    return
            finally:
                for wait in waits:
                    wait.cancel()

    @property
    def is_rebuilding(self) -> bool:
        return self._rebuilding is not None and not self._rebuilding.done()

    async def stop(self, *, hand_over: bool = True) -> None:
        """Finish, and let another process have the directory."""
        self.is_stopping = True
        if self._rebuilding is not None:
            await self._rebuilding
        assert self.assembly is not None
        await self.assembly.stop(hand_over=hand_over)
        self._data_dir.close()

    def _on_installed(self) -> None:
        if self.is_stopping:
            return  # The next start finds it.
        self._rebuilding = asyncio.get_running_loop().create_task(self._rebuild())

    async def _rebuild(self) -> None:
        """Whatever goes wrong here ends the process: the next one starts from the same disk."""
        old, self.assembly = self.assembly, None
        assert old is not None
        self._replaced.set()
        logger.warning("replica.rebuilding", extra={"zxid": old.replica.machine.state.zxid})
        try:
            async with asyncio.timeout(DISCARD_SECONDS_MAX):
                await old.discard()
            del old
            # It was frozen when it was loaded, and is full of cycles: its tree would stay for ever.
            gc.unfreeze()
            gc.collect()
            self._around.measurements.snapshots_installed_total += 1
            self.assembly = await self._assemble()
            await self.listen()
            await self.listen_zookeeper()
            await self.start()
        except Exception as error:
            self._around.on_fatal(error)
            return
        self._replaced.set()
        logger.info("replica.rebuilt", extra={"zxid": self.assembly.storage.info.zxid})
