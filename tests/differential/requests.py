"""The requests, each as its fields are named.

Paths begin with `~`, the case's own folder; others are sent as they are.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace

from coordsvc.testing.zookeeper_records import (
    WORLD,
    Acl,
    OpCode,
    SubRequest,
    WatcherType,
    WatchMode,
    boolean,
    buffer,
    int32,
    int64,
    multi_body,
    text,
)
from tests.differential import shapes
from tests.differential.case import Ask
from tests.differential.world import Shape, World

Acls = Sequence[Acl] | None


# ------------------------------------------------------------------------------------------ writing


def create(
    path: str | None,
    data: bytes | None = b"",
    *,
    flags: int = 0,
    acl: Acls = WORLD,
    op: int = OpCode.CREATE,
    ttl_ms: int | None = None,
) -> Ask:
    def body(world: World) -> bytes:
        last = b"" if ttl_ms is None else int64(ttl_ms)
        return text(world.path(path)) + buffer(data) + acl_bytes(acl) + int32(flags) + last

    shape = shapes.path if op == OpCode.CREATE else shapes.path_and_stat
    told = f"{OpCode(op).name.lower()} {_path(path)} flags={flags}"
    told += "" if acl is WORLD else f" acl={_acl_text(acl)}"
    told += "" if ttl_ms is None else f" ttl={ttl_ms}"
    told += " data=null" if data is None else f" ({len(data)} bytes)" if len(data) > 9 else ""
    return Ask(told, op, body, shape)


def create2(
    path: str | None, data: bytes | None = b"", *, flags: int = 0, acl: Acls = WORLD
) -> Ask:
    return create(path, data, flags=flags, acl=acl, op=OpCode.CREATE2)


def create_container(path: str, *, flags: int = 4, acl: Acls = WORLD) -> Ask:
    return create(path, flags=flags, acl=acl, op=OpCode.CREATE_CONTAINER)


def create_ttl(path: str, ttl_ms: int, *, flags: int = 5, acl: Acls = WORLD) -> Ask:
    return create(path, flags=flags, acl=acl, op=OpCode.CREATE_TTL, ttl_ms=ttl_ms)


def delete(path: str | None, version: int = -1) -> Ask:
    return Ask(
        f"delete {_path(path)} {version}",
        OpCode.DELETE,
        lambda world: text(world.path(path)) + int32(version),
    )


def set_data(path: str | None, data: bytes | None, version: int = -1) -> Ask:
    told = f"({len(data)} bytes)" if data and len(data) > 20 else f"{data!r}"
    return Ask(
        f"setData {_path(path)} {told} {version}",
        OpCode.SET_DATA,
        lambda world: text(world.path(path)) + buffer(data) + int32(version),
        shapes.stat,
    )


def set_acl(path: str | None, acl: Acls, version: int = -1) -> Ask:
    return Ask(
        f"setACL {_path(path)} {_acl_text(acl)} {version}",
        OpCode.SET_ACL,
        lambda world: text(world.path(path)) + acl_bytes(acl) + int32(version),
        shapes.stat,
    )


def acl_bytes(acl: Acls) -> bytes:
    if acl is None:
        return int32(-1)
    parts = [int32(each.permissions) + text(each.scheme) + text(each.id) for each in acl]
    return int32(len(parts)) + b"".join(parts)


# ------------------------------------------------------------------------------------------ reading


def get_data(path: str | None, watch: bool = False) -> Ask:
    return _read("getData", OpCode.GET_DATA, path, watch, shapes.data_and_stat)


def exists(path: str | None, watch: bool = False) -> Ask:
    return _read("exists", OpCode.EXISTS, path, watch, shapes.stat)


def children(path: str | None, watch: bool = False) -> Ask:
    return _read("getChildren", OpCode.GET_CHILDREN, path, watch, shapes.names)


def children2(path: str | None, watch: bool = False) -> Ask:
    return _read("getChildren2", OpCode.GET_CHILDREN2, path, watch, shapes.names_and_stat)


def _read(name: str, op: int, path: str | None, watch: bool, shape: Shape) -> Ask:
    told = f"{name} {_path(path)}{' watch' if watch else ''}"
    return Ask(told, op, lambda world: text(world.path(path)) + boolean(watch), shape)


def get_acl(path: str | None) -> Ask:
    return _about(f"getACL {_path(path)}", OpCode.GET_ACL, path, shapes.acl_and_stat)


def sync(path: str | None) -> Ask:
    return _about(f"sync {_path(path)}", OpCode.SYNC, path, shapes.path)


def get_ephemerals(path: str | None) -> Ask:
    return _about(f"getEphemerals {_path(path)}", OpCode.GET_EPHEMERALS, path, shapes.names)


def all_children_number(path: str | None) -> Ask:
    name = f"getAllChildrenNumber {_path(path)}"
    return _about(name, OpCode.GET_ALL_CHILDREN_NUMBER, path, shapes.number)


def get_config() -> Ask:
    return replace(get_data("/zookeeper/config"), shape=shapes.config)


def _about(told: str, op: int, path: str | None, shape: Shape) -> Ask:
    return Ask(told, op, lambda world: text(world.path(path)), shape)


def who_am_i() -> Ask:
    return Ask("whoAmI", OpCode.WHO_AM_I, lambda _: b"", shapes.identities)


# ------------------------------------------------------------------------------------------- multis


def multi(*operations: Ask) -> Ask:
    return _multi("multi", OpCode.MULTI, operations)


def multi_read(*operations: Ask) -> Ask:
    return _multi("multiRead", OpCode.MULTI_READ, operations)


def _multi(name: str, op: int, operations: Sequence[Ask]) -> Ask:
    def body(world: World) -> bytes:
        return multi_body([SubRequest(each.op, each.body(world)) for each in operations])

    inside = "; ".join(each.text for each in operations[:8])
    more = "; ..." if len(operations) > 8 else ""
    return Ask(f"{name} [{inside}{more}]", op, body, shapes.results)


def check(path: str | None, version: int) -> Ask:
    return Ask(
        f"check {_path(path)} {version}",
        OpCode.CHECK,
        lambda world: text(world.path(path)) + int32(version),
    )


# ------------------------------------------------------------------------------------------ watches


def add_watch(path: str | None, mode: int = WatchMode.PERSISTENT) -> Ask:
    return Ask(
        f"addWatch {_path(path)} mode={mode}",
        OpCode.ADD_WATCH,
        lambda world: text(world.path(path)) + int32(mode),
        # An ErrorResponse: the code once more.
        shapes.number,
    )


def check_watches(path: str | None, kind: int = WatcherType.ANY) -> Ask:
    return _about_watches("checkWatches", OpCode.CHECK_WATCHES, path, kind)


def remove_watches(path: str | None, kind: int = WatcherType.ANY) -> Ask:
    return _about_watches("removeWatches", OpCode.REMOVE_WATCHES, path, kind)


def _about_watches(name: str, op: int, path: str | None, kind: int) -> Ask:
    return Ask(
        f"{name} {_path(path)} type={kind}",
        op,
        lambda world: text(world.path(path)) + int32(kind),
    )


def set_watches(
    since: str | int,
    *,
    data: Sequence[str] = (),
    exist: Sequence[str] = (),
    child: Sequence[str] = (),
    persistent: Sequence[str] | None = None,
    recursive: Sequence[str] | None = None,
) -> Ask:
    """`since` is a zxid, or the name of a mark. With persistent ones it is a setWatches2."""
    kinds: list[Sequence[str]] = [data, exist, child]
    is_second = persistent is not None or recursive is not None
    if is_second:
        kinds += [persistent or (), recursive or ()]

    def body(world: World) -> bytes:
        zxid = since if isinstance(since, int) else world.marks[since]
        vectors = [
            int32(len(paths)) + b"".join(text(world.path(each)) for each in paths)
            for paths in kinds
        ]
        return int64(zxid) + b"".join(vectors)

    names = ("data", "exist", "child", "persistent", "recursive")
    told = [f"{name}={list(paths)}" for name, paths in zip(names, kinds, strict=False) if paths]
    op = OpCode.SET_WATCHES2 if is_second else OpCode.SET_WATCHES
    return Ask(f"{op.name.lower()} since={since} {' '.join(told)}", op, body, xid=-8)


# ----------------------------------------------------------------------------------------- sessions


def close_session(xid: int | None = None) -> Ask:
    return Ask("closeSession", OpCode.CLOSE_SESSION, lambda _: b"", xid=xid)


def ping() -> Ask:
    return Ask("ping", OpCode.PING, lambda _: b"", xid=-2)


def auth(scheme: str | None, credential: bytes | None, kind: int = 0) -> Ask:
    return Ask(
        f"addAuth {scheme} {credential!r}",
        OpCode.AUTH,
        lambda _: int32(kind) + text(scheme) + buffer(credential),
        xid=-4,
    )


def digest(user: str, password: str) -> str:
    """The id of that user."""
    hashed = hashlib.sha1(f"{user}:{password}".encode()).digest()
    return f"{user}:{b64encode(hashed).decode()}"


def _path(path: str | None) -> str:
    if path is None:
        return "null"
    if len(path) > 60:
        return f"{path[:12]!r}... ({len(path)} characters)"
    return path if path.isprintable() and path.isascii() and path else repr(path)


def _acl_text(acl: Acls) -> str:
    if acl is None:
        return "null"
    return ",".join(f"{each.permissions}:{each.scheme}:{each.id}" for each in acl) or "empty"
