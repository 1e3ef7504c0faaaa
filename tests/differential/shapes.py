"""The bodies of good replies, in words: each field of them, so that nothing goes uncompared."""

from __future__ import annotations

from coordsvc.testing.zookeeper_records import Decoder, OpCode
from tests.differential.masks import stat_text
from tests.differential.world import World, error_text

SHOWN_BYTES = 60


def nothing(decoder: Decoder, world: World) -> str:
    return ""


def path(decoder: Decoder, world: World) -> str:
    raw = decoder.buffer()
    return "path=null" if raw is None else f"path={_shown(raw, world)}"


def stat(decoder: Decoder, world: World) -> str:
    return stat_text(decoder.stat(), world.sessions)


def path_and_stat(decoder: Decoder, world: World) -> str:
    return f"{path(decoder, world)} {stat(decoder, world)}"


def data(decoder: Decoder, world: World) -> str:
    value = decoder.buffer()
    if value is None:
        return "data=null"
    if len(value) > SHOWN_BYTES:
        return f"data={value[:8]!r}... ({len(value)} bytes)"
    return f"data={value!r}"


def data_and_stat(decoder: Decoder, world: World) -> str:
    return f"{data(decoder, world)} {stat(decoder, world)}"


def acl_alone(decoder: Decoder, world: World) -> str:
    """Without the stat of a znode that is always there."""
    return acl_and_stat(decoder, world).partition(" stat")[0]


def sorted_acl(decoder: Decoder, world: World) -> str:
    acl = sorted(decoder.vector(decoder.acl))
    return f"acl={[tuple(each) for each in acl]} {stat(decoder, world)}"


def acl_and_stat(decoder: Decoder, world: World) -> str:
    acl = decoder.vector(decoder.acl)
    entries = ", ".join(f"{each.permissions}:{each.scheme}:{each.id}" for each in acl)
    return f"acl=[{entries}] {stat(decoder, world)}"


def names(decoder: Decoder, world: World) -> str:
    """Sorted: ZooKeeper's order is that of a hash set."""
    raw = sorted(decoder.buffer() or b"null" for _ in range(decoder.int32()))
    if len(raw) > 30:
        return f"{len(raw)} names from {_shown(raw[0], world)} to {_shown(raw[-1], world)}"
    return f"names=[{', '.join(_shown(each, world) for each in raw)}]"


def names_and_stat(decoder: Decoder, world: World) -> str:
    return f"{names(decoder, world)} {stat(decoder, world)}"


def number(decoder: Decoder, world: World) -> str:
    return str(decoder.int32())


def identities(decoder: Decoder, world: World) -> str:
    pairs = decoder.vector(lambda: f"{decoder.text()}:{decoder.text()}")
    return f"ids=[{', '.join(sorted(pairs))}]"


_OF_RESULT = {
    OpCode.CREATE: path,
    OpCode.CREATE2: path_and_stat,
    OpCode.CREATE_CONTAINER: path_and_stat,
    OpCode.CREATE_TTL: path_and_stat,
    OpCode.DELETE: nothing,
    OpCode.CHECK: nothing,
    OpCode.SET_DATA: stat,
    OpCode.GET_DATA: data_and_stat,
    OpCode.GET_CHILDREN: names,
}


def results(decoder: Decoder, world: World) -> str:
    """Of a multi or a multiRead: the three fields of each header, and what is behind it."""
    parts = []
    while True:
        op, is_done, error = decoder.int32(), decoder.boolean(), decoder.int32()
        header = f"{op}/{int(is_done)}/{error}"
        if is_done:
            return f"results=[{'; '.join([*parts, header])}]"
        if op == OpCode.ERROR:
            parts.append(f"{header} {error_text(decoder.int32())}")
        else:
            parts.append(f"{header} {_OF_RESULT[OpCode(op)](decoder, world)}".rstrip())


def config(decoder: Decoder, world: World) -> str:
    """What /zookeeper/config holds, by its form: each member's ports and the version differ."""
    value = (decoder.buffer() or b"").decode()
    lines = [line.partition("=")[0] for line in value.splitlines()]
    own = decoder.stat()
    return f"lines={lines} version={own.version} children={own.num_children}"


def _shown(raw: bytes, world: World) -> str:
    shown = raw.decode(errors="backslashreplace")
    shown = world.shown(shown)
    return shown if len(shown) <= SHOWN_BYTES else f"{shown[:12]}... ({len(raw)} bytes)"
