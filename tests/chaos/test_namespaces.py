"""The network itself: what is cut is cut, only that, and nothing of it stays."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordsvc.testing import namespaces
from coordsvc.testing.cluster import wait_for
from coordsvc.testing.namespaces import HUB, Network

SECONDS = 20
RECEIVER = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 9))
server.settimeout(float(sys.argv[2]))
print("bound", flush=True)
try:
    print(server.recv(9).decode())
except TimeoutError:
    print("nothing")
"""
SENDER = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"packet", (sys.argv[1], 9))
"""
ORPHAN = """
import subprocess, sys
from coordsvc.testing.namespaces import Network
with Network(1) as network:
    sleeper = subprocess.Popen(
        [*network.command(1), "sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    print(network.namespace(1), sleeper.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network(3) as network:
        yield network


@pytest.fixture(autouse=True)
def is_whole(network: Network) -> None:
    network.heal()


def arrives(network: Network, source: int, target: int, patience: float = SECONDS) -> bool:
    """Whether a packet from one to the other arrives."""
    receiver = subprocess.Popen(
        [
            *network.command(target),
            *(sys.executable, "-c", RECEIVER, network.address(target), str(patience)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == "bound\n"
    subprocess.run(
        [*network.command(source), sys.executable, "-c", SENDER, network.address(target)],
        check=True,
        timeout=SECONDS,
    )
    received, _ = receiver.communicate(timeout=2 * SECONDS)
    assert received in ("packet\n", "nothing\n"), received
    return received == "packet\n"


def test_a_block_is_one_way_and_is_counted(network: Network) -> None:
    network.block(1, 2)
    assert not arrives(network, 1, 2, 0.5)
    assert network.dropped(1, 2) == 1
    assert network.dropped(3, 2) == network.dropped(2, 1) == 0
    assert arrives(network, 2, 1)
    assert arrives(network, 3, 2)
    assert arrives(network, HUB, 2)


def test_groups_are_parted_and_healed(network: Network) -> None:
    network.cut_groups([1, HUB], [2, 3])
    for source, target in ((1, 2), (3, 1), (HUB, 3), (2, HUB)):
        assert not arrives(network, source, target, 0.5), (source, target)
        assert network.dropped(source, target) == 1, (source, target)
    for source, target in ((2, 3), (1, HUB), (1, 1)):
        assert arrives(network, source, target), (source, target)
    network.heal()
    for source, target in ((1, 2), (3, 1), (HUB, 3), (2, HUB)):
        assert arrives(network, source, target), (source, target)


def test_nothing_stays(network: Network) -> None:
    before = set(namespaces._namespaces())
    with pytest.raises(ZeroDivisionError), Network(2) as other:
        assert other.address(1) != network.address(1)
        assert len(set(namespaces._namespaces()) - before) == 3
        1 / 0  # noqa: B018
    assert set(namespaces._namespaces()) == before


def test_what_a_dead_run_left_is_removed() -> None:
    """Its namespaces and what runs in them; those of the living are left alone."""
    dead = subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert dead.stdout is not None
    name, pid = dead.stdout.readline().split()
    assert name not in namespaces.remove_leftovers()
    assert name in set(namespaces._namespaces())
    dead.kill()
    dead.wait(SECONDS)
    assert name in namespaces.remove_leftovers()
    assert name not in set(namespaces._namespaces())
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "its process to end")
