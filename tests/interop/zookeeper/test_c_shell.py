"""The C client's shell, cli_mt as Debian packages it (of ZooKeeper 3.8, which makes no difference
to what it sends). It asks asynchronously: each answer names the path and the result code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

from tests.interop.zookeeper.conftest import Connect
from tests.interop.zookeeper.ensembles import Ensemble
from tests.interop.zookeeper.forwarding import Forwarder
from tests.interop.zookeeper.shells import Shell
from tests.interop.zookeeper.tools import c_shell_command

LISTED = r": rc = 0\n(\t.*\n)*time = "

NO_NODE = -101
NODE_EXISTS = -110
NOT_EMPTY = -111
NO_AUTH = -102


class CShell(Shell):
    def __init__(self, hosts: Sequence[str]) -> None:
        super().__init__([*c_shell_command(), ",".join(hosts)])

    def wait_connected(self) -> str:
        """Its session id, in hexadecimal."""
        said = self.expect(r"Got a new session id: 0x[0-9a-f]+")
        return said.rpartition("0x")[2]

    def code(self, line: str) -> int:
        """The result code of what the line asks for."""
        return int(self.ask(line, r": rc = -?\d+").rpartition(" ")[2])

    def stat(self, line: str) -> dict[str, str]:
        """The Stat that the line's answer ends with."""
        said = self.ask(line, r"ephemeralOwner = [0-9a-f]+")
        return dict(re.findall(r"(\w+) ?= ?([0-9a-f]+)\b", said))

    def created(self, line: str) -> str:
        assert self.code(line) == 0
        return self.expect(r"name = \S+").rpartition(" ")[2]


@pytest.fixture(scope="module")
def shell(ensemble: Ensemble) -> Iterator[CShell]:
    with CShell(ensemble.hosts) as started:
        started.wait_connected()
        yield started


def test_create_of_each_mode(shell: CShell, client: KazooClient, root: str) -> None:
    assert shell.code(f"sync {root}") == 0
    assert shell.created(f"create {root}/a") == f"{root}/a"
    assert shell.created(f"create +s {root}/s-") == f"{root}/s-0000000001"
    assert shell.created(f"create +e {root}/e") == f"{root}/e"
    assert shell.created(f"create +es {root}/es-") == f"{root}/es-0000000003"
    assert shell.created(f"create +c {root}/c") == f"{root}/c"
    assert shell.created(f"create +t=600000 {root}/t") == f"{root}/t"
    assert shell.code(f"create {root}/a") == NODE_EXISTS
    assert shell.code(f"create {root}/none/a") == NO_NODE
    client.sync(root)
    names = ["a", "c", "e", "es-0000000003", "s-0000000001", "t"]
    assert sorted(client.get_children(root)) == names


def test_create2_tells_the_stat(shell: CShell, client: KazooClient, root: str) -> None:
    shell.code(f"sync {root}")
    stat = shell.stat(f"create2 +e {root}/e")
    client.sync(root)
    found = client.exists(f"{root}/e")
    assert int(stat["czxid"], 16) == found.czxid
    assert int(stat["ephemeralOwner"], 16) == found.ephemeralOwner > 0


def test_set_and_get(shell: CShell, client: KazooClient, root: str) -> None:
    shell.code(f"sync {root}")
    assert shell.stat(f"set {root} hello there")["version"] == "1"
    client.sync(root)
    assert client.get(root)[0] == b"hello there"
    assert shell.ask(f"get {root}", "^hello there$")
    assert shell.expect("value_len|version=1")
    assert shell.code(f"set {root}/none x") == NO_NODE
    assert shell.code(f"get {root}/none") == NO_NODE


def test_ls_and_ls2(shell: CShell, client: KazooClient, root: str) -> None:
    client.create(f"{root}/a")
    client.create(f"{root}/b")
    shell.code(f"sync {root}")
    listed = shell.ask(f"ls {root}", LISTED)
    assert sorted(re.findall(r"^\t(\w+)$", listed, re.MULTILINE)) == ["a", "b"]
    listed = shell.ask(f"ls2 {root}", r"ephemeralOwner = ")
    assert sorted(re.findall(r"^\t(\w+)$", listed, re.MULTILINE)) == ["a", "b"]
    assert f"mzxid={client.exists(root).mzxid:x}" in listed
    assert shell.code(f"ls {root}/none") == NO_NODE


def test_exists_with_a_watch(shell: CShell, client: KazooClient, root: str) -> None:
    """It says nothing of what exists."""
    shell.code(f"sync {root}")
    shell.ask(f"wexists {root}/a", f"Error {NO_NODE} for {root}/a")
    client.create(f"{root}/a")
    shell.find(rf"Watcher CREATED_EVENT state = CONNECTED_STATE for path {root}/a\b")
    shell.send(f"wexists {root}/a")
    assert shell.code(f"sync {root}") == 0
    client.set(f"{root}/a", b"1")
    shell.find(rf"Watcher CHANGED_EVENT state = CONNECTED_STATE for path {root}/a\b")
    shell.send(f"wexists {root}/a")
    assert shell.code(f"sync {root}") == 0
    client.delete(f"{root}/a")
    shell.find(rf"Watcher DELETED_EVENT state = CONNECTED_STATE for path {root}/a\b")
    shell.ask(f"exists {root}/a", f"Error {NO_NODE} for {root}/a")


def test_a_shell_that_was_cut_off_learns_what_it_missed(
    client: KazooClient, doors: list[Forwarder], root: str
) -> None:
    with CShell([doors[2].address]) as away:
        session_id = away.wait_connected()
        away.code(f"sync {root}")
        away.ask(f"wexists {root}/a", f"Error {NO_NODE} for {root}/a")
        away.ask(f"wexists {root}/b", f"Error {NO_NODE} for {root}/b")
        doors[2].cut()
        away.find("SESSION_EVENT state = (CONNECTING|NOTCONNECTED)_STATE")
        client.create(f"{root}/a")
        doors[2].mend()
        away.find(rf"Watcher CREATED_EVENT state = CONNECTED_STATE for path {root}/a\b")
        client.create(f"{root}/b")
        away.find(rf"Watcher CREATED_EVENT state = CONNECTED_STATE for path {root}/b\b")
        away.created(f"create +e {root}/e")
        client.sync(root)
        assert client.exists(f"{root}/e").ephemeralOwner == int(session_id, 16)


def test_ls_leaves_a_watch(shell: CShell, client: KazooClient, root: str) -> None:
    shell.code(f"sync {root}")
    shell.ask(f"ls {root}", LISTED)
    client.create(f"{root}/a")
    shell.find(rf"Watcher CHILD_EVENT state = CONNECTED_STATE for path {root}\b")


def test_delete(shell: CShell, root: str) -> None:
    shell.created(f"create {root}")
    shell.created(f"create {root}/a")
    assert shell.code(f"delete {root}") == NOT_EMPTY
    assert shell.code(f"delete {root}/a") == 0
    assert shell.code(f"delete {root}/a") == NO_NODE
    assert shell.code(f"delete {root}") == 0
    shell.ask(f"exists {root}", f"Error {NO_NODE} for {root}")


def test_asynchronous_commands_are_answered_in_order(shell: CShell, root: str) -> None:
    shell.created(f"create {root}")
    shell.created(f"create {root}/n-")
    for n in range(20):
        shell.send(f"acreate +s {root}/n-")
        shell.send(f"aget {root}/n-{n:010d}")
    found = [shell.expect(r"rc = -?\d+").rpartition(" ")[2] for _ in range(40)]
    assert found == ["0", str(NO_NODE)] + ["0"] * 38


def test_addauth(connect: Connect, hosts: Sequence[str], root: str) -> None:
    owner = connect()
    owner.create(root, b"hidden", acl=[make_digest_acl("jan", "secret", all=True)])
    with CShell(hosts) as guest:
        guest.wait_connected()
        guest.code("sync /")
        assert guest.code(f"get {root}") == NO_AUTH
        guest.send("addauth digest jan:secret")
        assert guest.ask(f"get {root}", "^hidden$")
        guest.ask("addauth nonesuch x", "Authentication failure. Shutting down")


def test_config(shell: CShell) -> None:
    said = shell.ask("config", r"^version=[0-9a-f]+$")
    assert re.findall(r"^server\.(\d)=", said, re.MULTILINE) == ["1", "2", "3"]


def test_the_end_of_the_shell_ends_its_session(
    client: KazooClient, hosts: Sequence[str], root: str
) -> None:
    with CShell(hosts) as passing:
        session_id = passing.wait_connected()
        passing.code(f"sync {root}")
        passing.created(f"create +e {root}/e")
        client.sync(root)
        assert client.exists(f"{root}/e").ephemeralOwner == int(session_id, 16)
        passing.send("quit")
        assert passing.end() == 0
    client.sync(root)
    assert client.get_children(root) == []
