"""A replica that must not start: how soon it ends, with which status, and what it says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordsvc.exit_status import ExitStatus
from coordsvc.testing.cluster import LocalCluster
from coordsvc.testing.ports import free_port

pytestmark = pytest.mark.timeout(60)

END_SECONDS_MAX = 2.0


def serve(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str, float]:
    """Exit status, output, and the seconds it took."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "coordsvc", "serve", *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.returncode, done.stdout + done.stderr, time.monotonic() - started


@pytest.fixture
def taken() -> Iterator[str]:
    """An address somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    "option", ["--listen", "--peer-listen", "--admin-listen", "--zookeeper-listen"]
)
def test_an_address_in_use(tmp_path: Path, taken: str, option: str) -> None:
    addresses = {
        "--listen": f"127.0.0.1:{free_port()}",
        "--peer-listen": f"127.0.0.1:{free_port()}",
        "--admin-listen": f"127.0.0.1:{free_port()}",
        "--zookeeper-listen": f"127.0.0.1:{free_port()}",
    }
    addresses[option] = taken
    peers = ",".join(
        f"{replica_id}={addresses['--peer-listen'] if replica_id == 1 else f'127.0.0.1:{port}'}"
        for replica_id, port in ((1, 0), (2, free_port()), (3, free_port()))
    )
    flat = [text for pair in addresses.items() for text in pair]
    status, output, seconds = serve("--data-dir", str(tmp_path / "d"), "--peers", peers, *flat)
    assert status == ExitStatus.ADDRESS_IN_USE, output
    assert seconds < END_SECONDS_MAX, output
    assert taken in output and option in output, output
    assert "Traceback" not in output


def test_an_unknown_key_in_the_file(tmp_path: Path) -> None:
    file_path = tmp_path / "c.toml"
    file_path.write_text('lisen = "127.0.0.1:1"\n')
    status, output, _ = serve("--config", str(file_path), "--data-dir", str(tmp_path / "d"))
    assert status == ExitStatus.USAGE
    assert "lisen" in output and "did you mean listen" in output
    assert not (tmp_path / "d").exists()


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    status, output, _ = serve("--replica-id", "x", "--listen", "7401", "--peers", "1=a")
    assert status == ExitStatus.USAGE
    for option in ("--replica-id", "--listen", "--peers"):
        assert option in output, output
    assert "Traceback" not in output


def test_an_unknown_option(tmp_path: Path) -> None:
    status, output, _ = serve("--listn", "127.0.0.1:7401")
    assert status == ExitStatus.USAGE
    assert "--listn" in output


def test_beyond_loopback_it_takes_a_second_word(tmp_path: Path) -> None:
    status, output, _ = serve("--listen", "0.0.0.0:7401", "--data-dir", str(tmp_path / "d"))
    assert status == ExitStatus.USAGE
    assert "--insecure" in output
    assert not (tmp_path / "d").exists()


def test_the_environment_kubernetes_makes_is_no_fault(tmp_path: Path, taken: str) -> None:
    """It gets as far as its port, which is taken: the configuration was accepted."""
    injected = {
        "COORDSVC_PORT": "tcp://10.0.0.1:7401",
        "COORDSVC_SERVICE_HOST": "10.0.0.1",
        "COORDSVC_SERVICE_PORT": "7401",
        "COORDSVC_SERVICE_PORT_GRPC": "7401",
        "COORDSVC_PORT_7401_TCP": "tcp://10.0.0.1:7401",
        "COORDSVC_PORT_7401_TCP_PROTO": "tcp",
        "COORDSVC_ENDPOINTS": "127.0.0.1:7401",
    }
    arguments = ("--data-dir", str(tmp_path / "d"), "--listen", taken)
    status, output, _ = serve(*arguments, environment=injected)
    assert status == ExitStatus.ADDRESS_IN_USE, output
    status, output, _ = serve(*arguments, environment={"COORDSVC_LISTN": "x"})
    assert status == ExitStatus.USAGE
    assert "COORDSVC_LISTN" in output


def test_a_data_dir_in_use_or_of_another_replica(make_cluster: object, tmp_path: Path) -> None:
    with LocalCluster(tmp_path, 1) as cluster:
        cluster.start()
        data_dir = str(cluster.replicas[1].data_dir)
        elsewhere = ("--listen", f"127.0.0.1:{free_port()}", "--data-dir", data_dir)
        status, output, _ = serve(*elsewhere)
        assert status == ExitStatus.DATA_DIR_REFUSED, output
        assert data_dir in output
        assert cluster.is_serving(1)
        assert cluster.stop() == {1: ExitStatus.OK}
        status, output, _ = serve(*elsewhere, "--replica-id", "2")
        assert status == ExitStatus.DATA_DIR_REFUSED, output
        assert "Traceback" not in output


def test_a_member_of_three_does_not_serve_alone(
    make_cluster: Callable[..., LocalCluster],
) -> None:
    """It would lead itself, beside the others: both would acknowledge."""
    cluster = make_cluster(3)
    cluster.start()
    assert cluster.stop() == {1: 0, 2: 0, 3: 0}
    data_dir = str(cluster.replicas[1].data_dir)
    status, output, _ = serve("--data-dir", data_dir, "--listen", f"127.0.0.1:{free_port()}")
    assert status == ExitStatus.DATA_DIR_REFUSED, output
    assert "1, 2, 3" in output or "[1, 2, 3]" in output, output


def test_a_log_that_lost_its_end_is_not_served(make_cluster: Callable[..., LocalCluster]) -> None:
    """Zeros look like the unused rest of a segment; the data directory remembers that more was
    synced."""
    cluster = make_cluster(1)
    cluster.start()
    assert cluster.stop() == {1: 0}
    data_dir = Path(cluster.replicas[1].data_dir)
    (segment,) = data_dir.glob("wal/*.wal")
    size = segment.stat().st_size
    os.truncate(segment, 1024)
    os.truncate(segment, size)
    status, output, _ = serve("--data-dir", str(data_dir), "--listen", f"127.0.0.1:{free_port()}")
    assert status == ExitStatus.CORRUPTION, output
    assert str(segment.parent) in output, output
