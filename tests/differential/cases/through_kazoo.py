"""The public surface of kazoo, and its recipes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from kazoo.client import KazooClient
from kazoo.security import make_acl, make_digest_acl

from tests.differential.case import Group
from tests.differential.kazoo_steps import EVENT_SECONDS, Seen, kazoo

GROUP = Group("kazoo")

Z = KazooClient


def _case(name: str, *asked: Callable[[Z, str], Any]) -> None:
    GROUP.case(name, kazoo(name, *asked))


def _transaction(z: Z, *operations: Callable[[Any], object]) -> object:
    transaction = z.transaction()
    for operation in operations:
        operation(transaction)
    return transaction.commit()


def _watches(z: Z, folder: str) -> object:
    seen = Seen()
    z.exists(f"{folder}/a", watch=seen)
    z.create(f"{folder}/a")
    z.get(f"{folder}/a", watch=seen)
    z.set(f"{folder}/a", b"x")
    z.get_children(folder, watch=seen)
    z.delete(f"{folder}/a")
    return seen.take(3)


def _data_watch(z: Z, path: str) -> object:
    seen: list[object] = []
    done = threading.Event()

    @z.DataWatch(path)
    def changed(data: bytes | None, stat: object) -> None:
        seen.append(data)
        if data == b"2":
            done.set()

    z.create(path, b"1")
    z.set(path, b"2")
    done.wait(EVENT_SECONDS)
    # Between two looks, changes are one.
    return [seen[0], seen[-1]]


def _locked(z: Z, path: str) -> object:
    lock = z.Lock(path, "me")
    with lock:
        return [lock.is_acquired, lock.contenders()]


def _counted(z: Z, path: str) -> object:
    counter = z.Counter(path)
    counter += 2
    counter -= 5
    return counter.value


def _queued(z: Z, path: str) -> object:
    queue = z.LockingQueue(path)
    queue.put_all([b"1", b"2"])
    first = queue.get()
    return [first, queue.consume(), len(queue)]


def _elected(z: Z, path: str) -> object:
    won: list[str] = []
    z.Election(path, "me").run(lambda: won.append("won"))
    return won


_case(
    "create",
    lambda z, p: z.create(f"{p}/a", b"x"),
    lambda z, p: z.create(f"{p}/a", b"x"),
    lambda z, p: z.create(f"{p}/e", ephemeral=True),
    lambda z, p: z.create(f"{p}/e/c"),
    lambda z, p: z.create(f"{p}/s-", sequence=True),
    lambda z, p: z.create(f"{p}/es-", ephemeral=True, sequence=True),
    lambda z, p: z.create(f"{p}/none/a"),
    lambda z, p: z.create(f"{p}/made/on/the/way", makepath=True),
    lambda z, p: z.create(f"{p}/i", b"x", include_data=True),
    lambda z, p: sorted(z.get_children(p)),
)
_case(
    "exists, get, set, delete",
    lambda z, p: z.exists(f"{p}/a"),
    lambda z, p: z.get(f"{p}/a"),
    lambda z, p: z.create(f"{p}/a", b"1"),
    lambda z, p: z.exists(f"{p}/a"),
    lambda z, p: z.get(f"{p}/a"),
    lambda z, p: z.set(f"{p}/a", b"2"),
    lambda z, p: z.set(f"{p}/a", b"3", version=9),
    lambda z, p: z.delete(f"{p}/a", version=9),
    lambda z, p: z.delete(f"{p}/a", version=1),
    lambda z, p: z.delete(f"{p}/a"),
    lambda z, p: z.set(f"{p}/a", b""),
)
_case(
    "children",
    lambda z, p: z.get_children(f"{p}/none"),
    lambda z, p: z.ensure_path(f"{p}/a/b/c"),
    lambda z, p: z.get_children(f"{p}/a"),
    lambda z, p: z.get_children(f"{p}/a", include_data=True),
    lambda z, p: z.delete(f"{p}/a"),
    lambda z, p: z.delete(f"{p}/a", recursive=True),
    lambda z, p: z.exists(f"{p}/a"),
    lambda z, p: z.sync(f"{p}/a"),
)
_case(
    "a transaction",
    lambda z, p: _transaction(
        z,
        lambda t: t.create(f"{p}/a", b"x"),
        lambda t: t.check(f"{p}/a", 0),
        lambda t: t.set_data(f"{p}/a", b"y"),
        lambda t: t.create(f"{p}/s-", sequence=True),
        lambda t: t.delete(f"{p}/a"),
    ),
    lambda z, p: sorted(z.get_children(p)),
)
_case(
    "a transaction that is refused",
    lambda z, p: _transaction(
        z,
        lambda t: t.create(f"{p}/a", b"x"),
        lambda t: t.check(f"{p}/a", 7),
        lambda t: t.delete(f"{p}/none"),
    ),
    lambda z, p: z.exists(f"{p}/a"),
)
_case("an empty transaction", lambda z, p: _transaction(z))
_case(
    "access lists",
    lambda z, p: z.create(f"{p}/a"),
    lambda z, p: z.get_acls(f"{p}/a"),
    lambda z, p: z.set_acls(f"{p}/a", [make_acl("world", "anyone", read=True, admin=True)]),
    lambda z, p: z.get_acls(f"{p}/a"),
    lambda z, p: z.set(f"{p}/a", b"x"),
    lambda z, p: z.set_acls(f"{p}/a", [make_acl("nothing", "known")]),
    lambda z, p: z.set_acls(f"{p}/a", [make_digest_acl("ann", "secret", all=True)], version=5),
    lambda z, p: z.set_acls(f"{p}/a", [make_digest_acl("ann", "secret", all=True)]),
    lambda z, p: z.get(f"{p}/a"),
    lambda z, p: z.add_auth("digest", "ann:secret"),
    lambda z, p: z.get(f"{p}/a"),
    lambda z, p: z.get_acls(f"{p}/a"),
)
_case("a scheme that is not known", lambda z, p: z.add_auth("unheard", "of"))
_case("watches", lambda z, p: _watches(z, p))
_case("watchers that stay", lambda z, p: _data_watch(z, f"{p}/a"))
_case(
    "data at its bounds",
    lambda z, p: z.create(f"{p}/null", None),
    lambda z, p: z.get(f"{p}/null"),
    lambda z, p: z.create(f"{p}/large", b"x" * 1_000_000),
    lambda z, p: len(z.get(f"{p}/large")[0]),
)
_case(
    "recipes",
    lambda z, p: _locked(z, f"{p}/lock"),
    lambda z, p: _counted(z, f"{p}/counter"),
    lambda z, p: _queued(z, f"{p}/queue"),
    lambda z, p: _elected(z, f"{p}/election"),
)
