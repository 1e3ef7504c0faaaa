"""A client of ZooKeeper's protocol for tests: a connection, and each operation as a call.

The calls wait for the answer, and raise ZooKeeperError for a refusal. Nothing happens by itself;
see `RawConnection`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from coordsvc.testing.zookeeper_connection import ANSWER_SECONDS, RawConnection, Reply
from coordsvc.testing.zookeeper_records import (
    WORLD,
    Acl,
    Decoder,
    OpCode,
    Stat,
    SubReplies,
    SubRequest,
    acls,
    boolean,
    buffer,
    create_body,
    decode_multi,
    int32,
    int64,
    multi_body,
    text,
    texts,
)

PING_XID: Final = -2
AUTH_XID: Final = -4
SET_WATCHES_XID: Final = -8


class ZooKeeperError(Exception):
    """The answer is a refusal, of ZooKeeper's code `code`."""

    def __init__(self, code: int, zxid: int = 0) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.zxid = zxid


class ZooKeeperConnection(RawConnection):
    """A connection with a session."""

    async def close_session(self) -> Reply:
        return await self._ask(OpCode.CLOSE_SESSION)

    async def ping(self) -> Reply:
        return await self._ask(OpCode.PING, xid=PING_XID)

    # --------------------------------------------------------------------------------- operations

    async def _ask(self, op: int, body: bytes = b"", xid: int | None = None) -> Reply:
        async with asyncio.timeout(ANSWER_SECONDS):
            reply = await self.request(op, body, xid)
        if reply.error:
            raise ZooKeeperError(reply.error, reply.zxid)
        return reply

    async def _find(self, op: int, body: bytes = b"") -> Decoder:
        return Decoder((await self._ask(op, body)).body)

    async def create(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        flags: int = 0,
        acl: Sequence[Acl] = WORLD,
    ) -> str:
        found = await self._find(OpCode.CREATE, create_body(path, data, flags, acl))
        name = found.text()
        found.end()
        return name

    async def _create_with_stat(self, op: int, body: bytes) -> tuple[str, Stat]:
        found = await self._find(op, body)
        created = found.text(), found.stat()
        found.end()
        return created

    async def create2(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        flags: int = 0,
        acl: Sequence[Acl] = WORLD,
    ) -> tuple[str, Stat]:
        return await self._create_with_stat(OpCode.CREATE2, create_body(path, data, flags, acl))

    async def create_container(
        self, path: str, data: bytes | None = b"", *, acl: Sequence[Acl] = WORLD
    ) -> tuple[str, Stat]:
        body = create_body(path, data, 4, acl)
        return await self._create_with_stat(OpCode.CREATE_CONTAINER, body)

    async def create_ttl(
        self,
        path: str,
        data: bytes | None,
        ttl_ms: int,
        *,
        flags: int = 5,
        acl: Sequence[Acl] = WORLD,
    ) -> tuple[str, Stat]:
        body = create_body(path, data, flags, acl) + int64(ttl_ms)
        return await self._create_with_stat(OpCode.CREATE_TTL, body)

    async def delete(self, path: str, version: int = -1) -> None:
        (await self._find(OpCode.DELETE, text(path) + int32(version))).end()

    async def _stat(self, op: int, body: bytes) -> Stat:
        found = await self._find(op, body)
        stat = found.stat()
        found.end()
        return stat

    async def exists(self, path: str, *, watch: bool = False) -> Stat:
        return await self._stat(OpCode.EXISTS, text(path) + boolean(watch))

    async def get_data(self, path: str, *, watch: bool = False) -> tuple[bytes | None, Stat]:
        found = await self._find(OpCode.GET_DATA, text(path) + boolean(watch))
        data = found.buffer(), found.stat()
        found.end()
        return data

    async def set_data(self, path: str, data: bytes | None, version: int = -1) -> Stat:
        return await self._stat(OpCode.SET_DATA, text(path) + buffer(data) + int32(version))

    async def get_acl(self, path: str) -> tuple[tuple[Acl, ...], Stat]:
        found = await self._find(OpCode.GET_ACL, text(path))
        acl = found.vector(found.acl), found.stat()
        found.end()
        return acl

    async def set_acl(self, path: str, acl: Sequence[Acl], version: int = -1) -> Stat:
        return await self._stat(OpCode.SET_ACL, text(path) + acls(acl) + int32(version))

    async def _texts(self, op: int, body: bytes) -> tuple[str, ...]:
        found = await self._find(op, body)
        names = found.vector(found.text)
        found.end()
        return names

    async def get_children(self, path: str, *, watch: bool = False) -> tuple[str, ...]:
        return await self._texts(OpCode.GET_CHILDREN, text(path) + boolean(watch))

    async def get_children2(
        self, path: str, *, watch: bool = False
    ) -> tuple[tuple[str, ...], Stat]:
        found = await self._find(OpCode.GET_CHILDREN2, text(path) + boolean(watch))
        children = found.vector(found.text), found.stat()
        found.end()
        return children

    async def get_ephemerals(self, prefix: str = "/") -> tuple[str, ...]:
        return await self._texts(OpCode.GET_EPHEMERALS, text(prefix))

    async def get_all_children_number(self, path: str) -> int:
        found = await self._find(OpCode.GET_ALL_CHILDREN_NUMBER, text(path))
        number = found.int32()
        found.end()
        return number

    async def who_am_i(self) -> tuple[tuple[str, str], ...]:
        """(scheme, user) of each identity of this connection."""
        found = await self._find(OpCode.WHO_AM_I)
        ids = found.vector(lambda: (found.text(), found.text()))
        found.end()
        return ids

    async def sync(self, path: str = "/") -> str:
        found = await self._find(OpCode.SYNC, text(path))
        echoed = found.text()
        found.end()
        return echoed

    async def multi(self, *operations: SubRequest) -> SubReplies:
        """Also the results of one that was refused for one of its operations."""
        return decode_multi((await self._ask(OpCode.MULTI, multi_body(operations))).body)

    async def multi_read(self, *operations: SubRequest) -> SubReplies:
        return decode_multi((await self._ask(OpCode.MULTI_READ, multi_body(operations))).body)

    async def add_auth(self, scheme: str, credential: bytes) -> None:
        await self._ask(OpCode.AUTH, int32(0) + text(scheme) + buffer(credential), AUTH_XID)

    # ------------------------------------------------------------------------------------ watches

    async def add_watch(self, path: str, mode: int) -> None:
        """Its answer's body is a code once more, which is 0."""
        found = await self._find(OpCode.ADD_WATCH, text(path) + int32(mode))
        assert found.int32() == 0
        found.end()

    async def check_watches(self, path: str, watcher_type: int) -> None:
        await self._ask(OpCode.CHECK_WATCHES, text(path) + int32(watcher_type))

    async def remove_watches(self, path: str, watcher_type: int) -> None:
        await self._ask(OpCode.REMOVE_WATCHES, text(path) + int32(watcher_type))

    async def set_watches(
        self,
        after_zxid: int,
        *,
        data: Sequence[str] = (),
        exist: Sequence[str] = (),
        child: Sequence[str] = (),
    ) -> None:
        body = int64(after_zxid) + texts(data) + texts(exist) + texts(child)
        await self._ask(OpCode.SET_WATCHES, body, SET_WATCHES_XID)

    async def set_watches2(
        self,
        after_zxid: int,
        *,
        data: Sequence[str] = (),
        exist: Sequence[str] = (),
        child: Sequence[str] = (),
        persistent: Sequence[str] = (),
        recursive: Sequence[str] = (),
    ) -> None:
        lists = (data, exist, child, persistent, recursive)
        body = int64(after_zxid) + b"".join(map(texts, lists))
        await self._ask(OpCode.SET_WATCHES2, body, SET_WATCHES_XID)


async def four_letter(host: str, port: int, word: str) -> str:
    """What the server says to a word of four letters, until it closes the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(word.encode())
        async with asyncio.timeout(ANSWER_SECONDS):
            return (await reader.read()).decode()
    finally:
        writer.close()
