"""A network of namespaces on one machine, for replicas with real interfaces and real packets.

Each node has a network namespace of its own and one interface in it, which a veth pair joins to a
bridge. The bridge is in one more namespace, the hub, which has an address of its own: there clients
run. A last pair leads to the namespace of the caller, who can reach every node all the time, to
look at it; nothing is ever cut there. Lines are cut by rules of nft in the namespace that would
receive, so what a node sends to itself always arrives.

    with Network(3) as network:
        subprocess.Popen([*network.command(1), "some", "server"])
        network.cut(1, 2)
        ... network.dropped(1, 2) > 0 ...
        network.heal()

Linux, root, ip and nft are needed: `why_not` tells what is missing. Nothing of it stays, neither
after a failure (leaving the block removes it) nor after a death: the names tell whose they are, and
the next network removes what belongs to nobody. A node's processes are the caller's to end.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

HUB = 0
"""The number of the node where clients run; the others are from 1."""

NODES_MAX = 6
COMMAND_SECONDS = 20.0

_SUBNETS = [f"198.{second}.{third}" for second in (18, 19) for third in range(256)]
"""Reserved for tests of networks (RFC 2544), so nobody's own."""

_HUB_HOST, _CALLER_HOST = 100, 200
_NAMES = re.compile(r"coordsvc-(\d+)-(\d+)-\d+-\d+")
"""coordsvc-PID-START-NUMBER-NODE: process ids come again, pairs of an id and a start do not."""

_numbers = itertools.count(1)

_TABLE = "inet cuts"
_EMPTY_RULES = f"""
table {_TABLE}
delete table {_TABLE}
table {_TABLE} {{
    chain input {{ type filter hook input priority 0; policy accept; }}
}}
"""


class NetworkError(Exception):
    """A command that makes, cuts or removes a network failed."""


class Network:
    """Nodes 1 to `nodes`, and the hub."""

    def __init__(self, nodes: int) -> None:
        assert 1 <= nodes <= NODES_MAX, nodes
        self.nodes = tuple(range(1, nodes + 1))
        number = next(_numbers)
        self._prefix = f"coordsvc-{os.getpid()}-{_start_of(os.getpid())}-{number}"
        self._interface = f"c{os.getpid()}n{number}"
        self._subnet = ""

    def __enter__(self) -> Network:
        remove_leftovers()
        try:
            self._make()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def namespace(self, node: int) -> str:
        return f"{self._prefix}-{node}"

    def address(self, node: int) -> str:
        """Its IPv4 address."""
        return f"{self._subnet}.{_HUB_HOST if node == HUB else node}"

    def command(self, node: int) -> list[str]:
        """What to put before a command for it to run at this node. The process is the command's
        own: ip becomes it."""
        return ["ip", "netns", "exec", self.namespace(node)]

    # ------------------------------------------------------------------------------------- cuts

    def block(self, source: int, target: int) -> None:
        """From now on nothing that `source` sends arrives at `target`. Not the other way round."""
        self._nft(target, f"add rule {_TABLE} input ip saddr {self.address(source)} counter drop")

    def cut(self, one: int, other: int) -> None:
        """Both ways."""
        self.block(one, other)
        self.block(other, one)

    def cut_groups(self, *groups: Iterable[int]) -> None:
        """All lines between nodes of different groups."""
        members = [tuple(group) for group in groups]
        for index, group in enumerate(members):
            for other in members[index + 1 :]:
                for one in group:
                    for another in other:
                        self.cut(one, another)

    def heal(self) -> None:
        """All lines are whole again."""
        for node in (HUB, *self.nodes):
            self._nft(node, _EMPTY_RULES)

    def dropped(self, source: int, target: int) -> int:
        """How many packets from one to the other were dropped since the last `heal`."""
        text = _run([*self.command(target), "nft", "--json", "list", "table", *_TABLE.split()])
        rules = [item["rule"]["expr"] for item in json.loads(text)["nftables"] if "rule" in item]
        # As `block` wrote them: the match, the counter, the verdict.
        return sum(
            counter["counter"]["packets"]
            for match, counter, _ in rules
            if match["match"]["right"] == self.address(source)
        )

    def _nft(self, node: int, rules: str) -> None:
        _run([*self.command(node), "nft", "-f", "-"], rules)

    # ----------------------------------------------------------------------------------- making

    def _make(self) -> None:
        self._subnet = _free_subnet()
        hub = self.namespace(HUB)
        for node in (HUB, *self.nodes):
            _ip("netns", "add", self.namespace(node))
            _ip("-n", self.namespace(node), "link", "set", "lo", "up")
        _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        self._bring_up(hub, "bridge", _HUB_HOST)
        for node in self.nodes:
            self._join(node, "uplink", self.namespace(node))
            self._bring_up(self.namespace(node), "uplink", node)
        self._join(_CALLER_HOST, self._interface, str(os.getpid()))
        _ip("address", "add", f"{self._subnet}.{_CALLER_HOST}/24", "dev", self._interface)
        _ip("link", "set", self._interface, "up")
        self.heal()

    def _join(self, host: int, interface: str, namespace: str) -> None:
        """A pair from the bridge to `interface` in `namespace`, which is a name or a process."""
        hub, port = self.namespace(HUB), f"port{host}"
        _ip("-n", hub, "link", "add", port, "type", "veth",
            *("peer", "name", interface, "netns", namespace))  # fmt: skip
        _ip("-n", hub, "link", "set", port, "master", "bridge", "up")

    def _bring_up(self, namespace: str, interface: str, host: int) -> None:
        _ip("-n", namespace, "address", "add", f"{self._subnet}.{host}/24", "dev", interface)
        _ip("-n", namespace, "link", "set", interface, "up")

    def remove(self) -> None:
        """Everything there is of this network."""
        # The other pairs go with the hub, but a moment later; this one's name may be needed again.
        _run(["ip", "link", "delete", self._interface], check=False)
        mine = {self.namespace(node) for node in (HUB, *self.nodes)}
        for name in sorted(mine.intersection(_namespaces())):
            _ip("netns", "delete", name)


# ------------------------------------------------------------------------------------ permission


@functools.cache
def why_not() -> str:
    """Why there can be no network here; empty: there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {' and '.join(missing)} (make chaos-packages)"
    if os.geteuid() != 0:
        return "network namespaces are made by root only"
    try:
        with Network(1) as network:
            network.cut(HUB, 1)
    except NetworkError as error:
        return f"network namespaces or nft do not work here: {error}"
    return ""


def remove_leftovers() -> list[str]:
    """Remove the networks of processes that are gone, and what still runs in them; the names of
    their namespaces."""
    orphans = [name for name in _namespaces() if _is_orphan(name)]
    for name in orphans:
        for pid in _run(["ip", "netns", "pids", name], check=False).split():
            _run(["kill", "-9", pid], check=False)
        # Unchecked, for another run that has just begun may do the same.
        _run(["ip", "netns", "delete", name], check=False)
    return orphans


def _is_orphan(name: str) -> bool:
    match = _NAMES.fullmatch(name)
    return match is not None and str(_start_of(int(match[1]))) != match[2]


def _start_of(pid: int) -> int:
    """When the process began, in the kernel's ticks; 0: there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def _namespaces() -> Iterator[str]:
    for line in _run(["ip", "netns", "list"]).splitlines():
        if line.startswith("coordsvc-"):
            yield line.split()[0]


def _free_subnet() -> str:
    """The first three numbers of one that this machine does not know; different processes begin
    their search at different ones."""
    known = _run(["ip", "-4", "route", "show", "table", "all"])
    start = os.getpid() % len(_SUBNETS)
    for subnet in _SUBNETS[start:] + _SUBNETS[:start]:
        if f"{subnet}." not in known:
            return subnet
    raise NetworkError("no free subnet in 198.18.0.0/15")


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: Sequence[str], text: str = "", *, check: bool = True) -> str:
    """What it prints. NetworkError: it failed, in a way that counts."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=COMMAND_SECONDS
    )
    if check and done.returncode:
        raise NetworkError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout
