"""zkCli: ZooKeeper's own shell. The script zkCli.sh of its distribution starts this class with
these libraries, and does nothing else.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence

import pytest
from kazoo.client import KazooClient

from tests.interop.zookeeper.ensembles import Ensemble
from tests.interop.zookeeper.forwarding import Forwarder
from tests.interop.zookeeper.shells import Shell
from tests.interop.zookeeper.tools import java_command
from tests.interop.zookeeper.waiting import wait_until

PROGRAM_SECONDS = 60
GONE_SECONDS = 150

STAT_NAMES = [
    "cZxid",
    "ctime",
    "mZxid",
    "mtime",
    "pZxid",
    "cversion",
    "dataVersion",
    "aclVersion",
    "ephemeralOwner",
    "dataLength",
    "numChildren",
]


def command(hosts: Sequence[str]) -> list[str]:
    options = ["-timeout", "10000", "-waitforconnection", "-server", ",".join(hosts)]
    return [*java_command("org.apache.zookeeper.ZooKeeperMain"), *options]


class ZkCli(Shell):
    """Its prompt counts the commands it was given."""

    def __init__(self, hosts: Sequence[str]) -> None:
        super().__init__(command(hosts))
        self._given = 0

    def wait_connected(self) -> None:
        self.expect(r"\(CONNECTED\) 0\] ")

    def run(self, line: str, state: str = "CONNECTED") -> list[str]:
        """The lines it answers with, but for watch events."""
        self._given += 1
        said = self.ask(line, rf"\[zk: \S*\({state}\) {self._given}\] ")
        # The echo of a long line is wrapped as terminals like it.
        lines = said.replace(" \r", "").splitlines()[:-1]
        kept = [
            each for each in lines if each and not each.startswith(("WATCHER::", "WatchedEvent "))
        ]
        kept.remove(line)
        return kept

    def event(self, kind: str, path: str) -> int:
        """Wait for it; its zxid."""
        about = rf"state:SyncConnected type:{kind} path:{re.escape(path)} zxid: (-?\d+)"
        return int(self.find(about).group(1))


def as_stat(lines: Sequence[str]) -> dict[str, str]:
    pairs = [line.split(" = ", 1) for line in lines]
    assert [name for name, _ in pairs] == STAT_NAMES
    return dict(pairs)


@pytest.fixture(scope="module")
def shell(ensemble: Ensemble) -> Iterator[ZkCli]:
    with ZkCli(ensemble.hosts) as started:
        started.wait_connected()
        yield started


def test_create_of_each_mode(shell: ZkCli, root: str) -> None:
    assert shell.run(f"create {root} data") == [f"Created {root}"]
    assert shell.run(f"create -s {root}/s- x") == [f"Created {root}/s-0000000000"]
    assert shell.run(f"create -e {root}/e y") == [f"Created {root}/e"]
    assert shell.run(f"create -e -s {root}/es- z") == [f"Created {root}/es-0000000002"]
    assert shell.run(f"create -c {root}/c") == [f"Created {root}/c"]
    assert shell.run(f"create -t 600000 {root}/t w") == [f"Created {root}/t"]
    assert shell.run(f"ls {root}") == ["[c, e, es-0000000002, s-0000000000, t]"]
    assert shell.run(f"create {root} again") == [f"Node already exists: {root}"]
    assert shell.run(f"create {root}/none/a") == [f"Node does not exist: {root}/none/a"]
    refused = f"Ephemerals cannot have children: {root}/e/a"
    assert shell.run(f"create {root}/e/a") == [refused]


def test_ls_with_the_stat_and_with_all_below(shell: ZkCli, root: str) -> None:
    for path in (root, f"{root}/b", f"{root}/a", f"{root}/a/deep"):
        shell.run(f"create {path}")
    listed, *stat = shell.run(f"ls -s {root}")
    assert listed == "[a, b]"
    assert as_stat(stat)["numChildren"] == "2"
    below = [root, f"{root}/a", f"{root}/b", f"{root}/a/deep"]
    assert shell.run(f"ls -R {root}") == below
    assert shell.run(f"ls {root}/none") == [f"Node does not exist: {root}/none"]


def test_get_set_and_stat_tell_versions(shell: ZkCli, root: str) -> None:
    shell.run(f"create {root} data")
    data, *stat = shell.run(f"get -s {root}")
    assert data == "data"
    before = as_stat(stat)
    assert before["dataLength"] == "4"
    assert shell.run(f"set {root} longer") == []
    after = as_stat(shell.run(f"stat {root}"))
    assert (after["dataVersion"], after["dataLength"]) == ("1", "6")
    assert after["cZxid"] == before["cZxid"]
    assert int(after["mZxid"], 16) > int(before["mZxid"], 16)
    assert as_stat(shell.run(f"set -s -v 1 {root} third"))["dataVersion"] == "2"
    assert shell.run(f"set -v 1 {root} late") == [f"version No is not valid : {root}"]
    assert shell.run(f"get {root}") == ["third"]
    assert shell.run(f"get {root}/none") == [f"Node does not exist: {root}/none"]


def test_delete_and_deleteall(shell: ZkCli, root: str) -> None:
    for path in (root, f"{root}/a", f"{root}/a/b"):
        shell.run(f"create {path}")
    assert shell.run(f"delete {root}") == [f"Node not empty: {root}"]
    assert shell.run(f"delete -v 3 {root}/a/b") == [f"version No is not valid : {root}/a/b"]
    assert shell.run(f"delete -v 0 {root}/a/b") == []
    assert shell.run(f"delete {root}/a/b") == [f"Node does not exist: {root}/a/b"]
    assert shell.run(f"deleteall {root}") == []
    assert shell.run(f"stat {root}") == [f"Node does not exist: {root}"]


def test_the_shell_is_told_of_what_it_watches(shell: ZkCli, client: KazooClient, root: str) -> None:
    client.create(f"{root}/a", b"1")
    shell.run(f"sync {root}")
    assert shell.run(f"ls -w {root}") == ["[a]"]
    assert shell.run(f"get -w {root}/a") == ["1"]
    assert "dataVersion = 0" in shell.run(f"stat -w {root}")
    _, stat = client.create(f"{root}/b", include_data=True)
    assert shell.event("NodeChildrenChanged", root) == stat.czxid
    stat = client.set(f"{root}/a", b"2")
    assert shell.event("NodeDataChanged", f"{root}/a") == stat.mzxid
    stat = client.set(root, b"")
    assert shell.event("NodeDataChanged", root) == stat.mzxid


def test_a_recursive_watch_goes_on_until_it_is_removed(
    shell: ZkCli, client: KazooClient, root: str
) -> None:
    shell.run(f"sync {root}")
    assert shell.run(f"addWatch -m PERSISTENT_RECURSIVE {root}") == []
    _, created = client.create(f"{root}/a", include_data=True)
    _, deeper = client.create(f"{root}/a/b", include_data=True)
    assert shell.event("NodeCreated", f"{root}/a") == created.czxid
    assert shell.event("NodeCreated", f"{root}/a/b") == deeper.czxid
    stat = client.set(f"{root}/a/b", b"")
    assert shell.event("NodeDataChanged", f"{root}/a/b") == stat.mzxid
    client.delete(f"{root}/a/b")
    shell.event("NodeDeleted", f"{root}/a/b")
    shell.run(f"removewatches {root}")
    shell.event("PersistentWatchRemoved", root)
    client.create(f"{root}/unseen")
    shell.run(f"sync {root}")
    shell.run(f"ls {root}")
    assert f"{root}/unseen" not in shell.text
    missing = "KeeperErrorCode = No such watcher"
    assert any(missing in line for line in shell.run(f"removewatches {root}"))


def test_a_persistent_watch_is_of_one_znode_and_its_children(
    shell: ZkCli, client: KazooClient, root: str
) -> None:
    client.create(f"{root}/a")
    shell.run(f"sync {root}")
    shell.run(f"addWatch -m PERSISTENT {root}")
    client.create(f"{root}/a/unseen")
    _, stat = client.create(f"{root}/b", include_data=True)
    assert shell.event("NodeChildrenChanged", root) == stat.czxid
    stat = client.set(root, b"")
    assert shell.event("NodeDataChanged", root) == stat.mzxid
    assert f"path:{root}/a" not in shell.text


def test_a_shell_that_was_cut_off_learns_what_it_missed(
    client: KazooClient, doors: list[Forwarder], root: str
) -> None:
    """It sets its watches again on the next connection, and says up to where it has seen."""
    client.create(f"{root}/a")
    client.create(f"{root}/b")
    client.create(f"{root}/c")
    with ZkCli([doors[1].address]) as away:
        away.wait_connected()
        away.run(f"sync {root}")
        for path in (f"{root}/a", f"{root}/b", f"{root}/c"):
            away.run(f"get -w {path}")
        away.run(f"ls -w {root}")
        away.run(f"addWatch -m PERSISTENT_RECURSIVE {root}/c")
        doors[1].cut()
        away.find("state:Disconnected")
        client.set(f"{root}/a", b"missed")
        client.delete(f"{root}/b")
        client.create(f"{root}/new")
        doors[1].mend()
        away.event("NodeDataChanged", f"{root}/a")
        away.event("NodeDeleted", f"{root}/b")
        away.event("NodeChildrenChanged", root)
        # What nothing has happened to is watched as before.
        away.find("state:Disconnected(.|\\n)*state:SyncConnected type:None")
        stat = client.set(f"{root}/c", b"later")
        assert away.event("NodeDataChanged", f"{root}/c") == stat.mzxid
        _, stat = client.create(f"{root}/c/deeper", include_data=True)
        assert away.event("NodeCreated", f"{root}/c/deeper") == stat.czxid


def test_acls_and_identities(shell: ZkCli, hosts: Sequence[str], root: str) -> None:
    with ZkCli(hosts) as owner:
        owner.wait_connected()
        assert owner.run("addauth digest jan:secret") == []
        assert owner.run("whoami")[0].startswith("Auth scheme")
        assert owner.run("whoami")[1:] == ["ip: 127.0.0.1", "digest: jan"]
        owner.run(f"create {root} data")
        assert owner.run(f"getAcl {root}") == ["'world,'anyone", ": cdrwa"]
        assert owner.run(f"setAcl -s -v 0 {root} auth::cdrwa")[7] == "aclVersion = 1"
        who, what, *stat = owner.run(f"getAcl -s {root}")
        assert who == "'digest,'jan:LI7LZagmoOkW+JFK2M4iBax74UQ="
        assert what == ": cdrwa"
        assert as_stat(stat)["aclVersion"] == "1"
        late = owner.run(f"setAcl -v 0 {root} world:anyone:r")
        assert late == [f"version No is not valid : {root}"]
        assert owner.run(f"create {root}/a d world:anyone:rw") == [f"Created {root}/a"]
        assert owner.run(f"getAcl {root}/a") == ["'world,'anyone", ": rw"]
        shell.run(f"sync {root}")
        assert shell.run(f"get {root}") == [f"Insufficient permission : {root}"]
        assert shell.run("whoami")[1:] == ["ip: 127.0.0.1"]


def test_sync_and_counts(shell: ZkCli, root: str) -> None:
    shell.run(f"create {root}")
    shell.run(f"create {root}/a")
    shell.run(f"create -e {root}/a/e")
    shell.run(f"create -e {root}/f")
    assert shell.run(f"sync {root}") == ["Sync is OK"]
    assert shell.run(f"getAllChildrenNumber {root}") == ["3"]
    [listed] = shell.run(f"getEphemerals {root}")
    assert sorted(listed.strip("[]").split(", ")) == [f"{root}/a/e", f"{root}/f"]
    assert shell.run(f"getEphemerals {root}/none") == ["[]"]


def test_the_members_of_the_ensemble(shell: ZkCli) -> None:
    *servers, version = shell.run("config")
    assert len(servers) == 3
    assert all(
        re.fullmatch(rf"server\.{n}=127\.0\.0\.1:\d+.*:participant.*", line)
        for n, line in enumerate(servers, 1)
    )
    assert version == "version=0"
    assert shell.run("version")[0].startswith("ZooKeeper CLI version: 3.9.")


def test_the_end_of_the_shell_ends_its_session(
    client: KazooClient, hosts: Sequence[str], root: str
) -> None:
    with ZkCli(hosts) as passing:
        passing.wait_connected()
        passing.run(f"create -e {root}/e")
        client.sync(root)
        assert client.get_children(root) == ["e"]
        passing.run("close", state="CLOSED")
        assert passing.run(f"ls {root}", state="CLOSED") == ["Not connected"]
        client.sync(root)
        assert client.get_children(root) == []
        passing.send("quit")
        assert passing.end() == 0


def test_a_command_on_the_command_line(hosts: Sequence[str], root: str) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command(hosts), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROGRAM_SECONDS,
        )

    made = run("create", root, "data")
    assert (made.returncode, f"Created {root}" in made.stderr) == (0, True)
    refused = run("create", root, "again")
    assert (refused.returncode, f"Node already exists: {root}" in refused.stderr) == (1, True)
    assert "data" in run("get", root).stdout.splitlines()


def test_a_script_of_many_lines(client: KazooClient, hosts: Sequence[str], root: str) -> None:
    lines = [f"create -s {root}/n- {n}" for n in range(30)]
    lines += [f"delete {root}/n-{n:010d}" for n in range(0, 30, 2)]
    done = subprocess.run(
        command(hosts),
        input="\n".join([*lines, "quit", ""]),
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    client.sync(root)
    names = [f"n-{n:010d}" for n in range(1, 30, 2)]
    assert sorted(client.get_children(root)) == names
    assert [client.get(f"{root}/{name}")[0] for name in names] == [
        b"%d" % n for n in range(1, 30, 2)
    ]


@pytest.mark.slow
@pytest.mark.timeout(GONE_SECONDS + 60)
def test_what_is_not_used_goes_away(shell: ZkCli, client: KazooClient, root: str) -> None:
    """ZooKeeper looks once a minute."""
    shell.run(f"sync {root}")
    shell.run(f"create -c {root}/container")
    shell.run(f"create {root}/container/a")
    shell.run(f"delete {root}/container/a")
    shell.run(f"create -t 500 {root}/ttl")
    shell.run(f"create -t 600000 {root}/later")
    wait_until(lambda: client.get_children(root) == ["later"], "two to be gone", GONE_SECONDS)
