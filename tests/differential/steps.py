"""Steps other than one request and its reply. `on` names the connection."""

from __future__ import annotations

import time

from coordsvc.testing.zookeeper_records import OpCode, boolean, text
from tests.differential.case import Ask, Step, named
from tests.differential.wire import Closed
from tests.differential.world import World


def pipeline(*requests: Ask, on: str = "A", replies: int | None = None) -> Step:
    """Send them all before a reply is read."""

    def run(world: World) -> list[str]:
        link = world.links[on]
        for each in requests:
            world.send(link, each.op, each.body(world), each.shape, each.xid)
        return world.replies(link, len(requests) if replies is None else replies)

    return Step(named(f"at once: {'; '.join(each.text for each in requests)}", on), run)


def ends(request: Ask, on: str = "A") -> Step:
    """Send a request, see what comes until the connection is closed."""

    def run(world: World) -> list[str]:
        link = world.links[on]
        world.send(link, request.op, request.body(world), request.shape, request.xid)
        return world.ending(link)

    return Step(named(f"{request.text}, and what follows", on), run)


def raw(what: str, data: bytes, on: str = "A") -> Step:
    """Bytes as they are, and what comes until the connection is closed."""

    def run(world: World) -> list[str]:
        link = world.links[on]
        try:
            link.wire.send(data)
        except Closed:
            return ["connection closed"]
        return world.ending(link)

    return Step(named(f"raw: {what}", on), run)


def events(on: str = "A") -> Step:
    """What has come without being asked for."""
    return Step(named("events", on), lambda world: world.events(world.links[on]))


def connect(
    name: str,
    *,
    of: str = "",
    password: bytes | None = None,
    session_id: int | None = None,
    last_zxid: int | str = 0,
    ahead: int = 0,
    timeout_ms: int = 10_000,
    server: int | None = None,
    read_only: bool | None = False,
) -> Step:
    """A new session; or that of connection `of`. `last_zxid` may name a mark; `ahead` is added."""

    def run(world: World) -> list[str]:
        old = world.links.get(of)
        seen = last_zxid if isinstance(last_zxid, int) else world.marks[last_zxid]
        own_id = 0 if old is None else old.session_id
        own_password = bytes(16) if old is None else old.password
        return world.attach(
            name,
            server=server,
            timeout_ms=timeout_ms,
            session_id=own_id if session_id is None else session_id,
            password=own_password if password is None else password,
            last_zxid=seen + ahead,
            read_only=read_only,
        )

    told = [f"timeout={timeout_ms}"]
    told += [f"session of {of}"] if of else []
    told += [f"session {session_id}"] if session_id is not None else []
    told += ["another password"] if password is not None else []
    told += [f"last zxid {last_zxid}+{ahead}"] if last_zxid or ahead else []
    told += [f"server {server}"] if server else []
    told += [f"readOnly {read_only}"] if read_only is not False else []
    return Step(f"connect {name} {', '.join(told)}", run)


def tcp(name: str, server: int | None = None) -> Step:
    def run(world: World) -> list[str]:
        world.open(name, server)
        return []

    return Step(f"{name}: TCP alone", run)


def drop(name: str) -> Step:
    """Close the connection, and leave the session."""

    def run(world: World) -> list[str]:
        world.links[name].wire.close()
        return []

    return Step(f"{name}: the connection is dropped", run)


def ending(name: str = "A") -> Step:
    return Step(
        named("what comes until it is closed", name), lambda world: world.ending(world.links[name])
    )


def mark(name: str, on: str = "A") -> Step:
    """Remember the newest zxid that the connection was told."""

    def run(world: World) -> list[str]:
        world.marks[name] = world.links[on].last_zxid
        return []

    return Step(named(f"mark {name}", on), run)


def zxids_since(name: str, on: str = "A") -> Step:
    """How many writes there were."""
    return Step(
        named(f"zxids since {name}", on),
        lambda world: [f"{world.links[on].last_zxid - world.marks[name]}"],
    )


def pause(seconds: float) -> Step:
    def run(world: World) -> list[str]:
        time.sleep(seconds)
        return []

    return Step(f"{seconds} s pass", run)


def until_gone(path: str, seconds: float, on: str) -> Step:
    """Wait until the znode is gone, for at most as long."""

    def run(world: World) -> list[str]:
        link, deadline = world.links[on], time.monotonic() + seconds
        body = text(world.path(path)) + boolean(False)
        while time.monotonic() < deadline:
            world.send(link, OpCode.EXISTS, body, lambda decoder, _: f"{decoder.stat().version}")
            if "NONODE" in world.replies(link)[-1]:
                return ["gone"]
            time.sleep(0.05)
        return ["still there"]

    return Step(named(f"{path} goes within {seconds} s", on), run)
