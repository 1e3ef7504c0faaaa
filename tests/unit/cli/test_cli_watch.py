"""`coordsvc watch` as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import grpc
import pytest
from click.testing import CliRunner, Result

from coordsvc.cli.main import main
from coordsvc.client.methods import WATCH_STREAM
from coordsvc.errors import ErrorCode
from coordsvc.testing.ports import free_port
from coordsvc.v1 import common_pb2, watch_pb2
from tests.unit.cli.fake_replica import FakeReplica, Refused

LOST = Refused(grpc.StatusCode.UNAVAILABLE, text="Socket closed")
ENOUGH = Refused(grpc.StatusCode.PERMISSION_DENIED, ErrorCode.NO_AUTH, path="/a")
"""Ends the command, which would go on for ever."""


def response(*items: watch_pb2.WatchItem) -> watch_pb2.WatchResponse:
    return watch_pb2.WatchResponse(
        header=common_pb2.ResponseHeader(cluster_id=5, zxid=9), items=items
    )


SET = watch_pb2.WatchItem(watches_set=watch_pb2.WatchesSet(watch_ids=[1], zxid=20))
CREATED = watch_pb2.WatchItem(
    event=watch_pb2.WatchEvent(
        watch_ids=[1],
        type=watch_pb2.WATCH_EVENT_TYPE_CREATED,
        path="/a/\x1b[2J b",
        zxid=812,
        last_of_zxid=False,
        data=b'say "hi"\n\x00',
        stat=common_pb2.Stat(version=0, czxid=812),
    )
)
CHILDREN = watch_pb2.WatchItem(
    event=watch_pb2.WatchEvent(
        watch_ids=[1],
        type=watch_pb2.WATCH_EVENT_TYPE_CHILDREN_CHANGED,
        path="/a",
        zxid=812,
        last_of_zxid=True,
    )
)
GAP = watch_pb2.WatchItem(
    gap=watch_pb2.WatchGap(
        watch_ids=[1],
        after_zxid=20,
        resumed_at_zxid=90,
        reason=watch_pb2.WATCH_GAP_REASON_HISTORY_TOO_OLD,
    )
)


def run(replica: FakeReplica, *arguments: str) -> Result:
    where = ["--endpoints", replica.endpoint]
    return CliRunner().invoke(main, ["watch", "/a", *arguments, *where])


def request_of(replica: FakeReplica, number: int = 0) -> watch_pb2.WatchRequest:
    requests = [request for name, request in replica.requests if name == WATCH_STREAM]
    request = requests[number]
    assert isinstance(request, watch_pb2.WatchRequest)
    return request


def test_one_line_for_each_change(fake_replica: FakeReplica) -> None:
    fake_replica.watches = [[response(SET, CREATED, CHILDREN), ENOUGH]]
    result = run(fake_replica)
    assert result.stdout.splitlines() == [
        "       812  created           /a/\\x1b[2J b",
        "       812  children_changed  /a",
    ]
    assert result.stderr.splitlines()[0] == "Watching /a from zxid 20; Ctrl-C ends it."
    assert result.exit_code == 1
    (spec,) = request_of(fake_replica).watches
    assert (spec.kind, spec.include_data) == (watch_pb2.WATCH_KIND_PERSISTENT, False)
    assert not request_of(fake_replica).HasField("start_after_zxid")


def test_options_are_passed_on(fake_replica: FakeReplica) -> None:
    fake_replica.watches = [[response(SET), ENOUGH]]
    run(fake_replica, "-r", "--data", "--from-zxid", "7")
    request = request_of(fake_replica)
    (spec,) = request.watches
    assert (spec.kind, spec.include_data) == (watch_pb2.WATCH_KIND_PERSISTENT_RECURSIVE, True)
    assert request.start_after_zxid == 7


def test_data_stands_on_the_line_and_cannot_act_on_a_terminal(fake_replica: FakeReplica) -> None:
    null = watch_pb2.WatchItem()
    null.CopyFrom(CREATED)
    null.event.ClearField("data")
    fake_replica.watches = [[response(SET, CREATED, null, CHILDREN), ENOUGH]]
    first, second, third = run(fake_replica, "--data").stdout.splitlines()
    assert first.endswith('"say \\"hi\\"\\n\\\\x00"')
    assert second.endswith("(null)")
    assert third.endswith("/a")


def test_json_is_one_object_per_line(fake_replica: FakeReplica) -> None:
    fake_replica.watches = [[response(SET, CREATED, CHILDREN, GAP), ENOUGH]]
    result = run(fake_replica, "--data", "-o", "json")
    created, children, gap = [json.loads(line) for line in result.stdout.splitlines()]
    assert (created["type"], created["zxid"], created["last_of_zxid"]) == ("CREATED", 812, False)
    assert (created["data"], created["encoding"]) == ('say "hi"\n\x00', "utf-8")
    assert created["stat"]["czxid"] == 812
    assert children == {
        "type": "CHILDREN_CHANGED",
        "path": "/a",
        "zxid": 812,
        "last_of_zxid": True,
    }
    assert gap == {
        "type": "GAP",
        "after_zxid": 20,
        "resumed_at_zxid": 90,
        "reason": "HISTORY_TOO_OLD",
    }
    assert json.loads(result.stderr)["error"] == "NO_AUTH"


def test_it_goes_on_over_a_broken_connection_and_announces_gaps(fake_replica: FakeReplica) -> None:
    fake_replica.watches = [
        [response(SET), LOST],
        [response(SET, GAP, CHILDREN), ENOUGH],
    ]
    result = run(fake_replica)
    assert result.stdout.splitlines() == [
        "        90  gap               changes after zxid 20 are missing: "
        "the cluster no longer remembers them",
        "       812  children_changed  /a",
    ]
    assert "Connection lost" in result.stderr
    assert request_of(fake_replica, 1).start_after_zxid == 20


def test_nobody_there_is_said_as_by_the_other_commands() -> None:
    where = f"127.0.0.1:{free_port()}"
    result = CliRunner().invoke(main, ["watch", "/a", "--endpoints", where, "--timeout", "0.2"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: UNAVAILABLE /a - cannot connect to {where} (")


@pytest.mark.parametrize("arguments", [["watch"], ["watch", "/a", "--from-zxid", "-1"]])
def test_wrong_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_a_malformed_path_is_refused() -> None:
    result = CliRunner().invoke(main, ["watch", "a"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: BAD_ARGUMENTS a - ")


def test_ctrl_c_ends_it_quietly(fake_replica: FakeReplica) -> None:
    fake_replica.watches = [[response(SET, CHILDREN), LOST]]
    process = subprocess.Popen(
        [sys.executable, "-m", "coordsvc", "watch", "/a", "--endpoints", fake_replica.endpoint],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["812", "children_changed", "/a"]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "Traceback" not in errors and "error" not in errors


def test_it_ends_with_whoever_reads_its_output_though_nothing_happens(
    fake_replica: FakeReplica,
) -> None:
    fake_replica.watches = [[response(SET), LOST]]
    process = subprocess.Popen(
        [sys.executable, "-m", "coordsvc", "watch", "/a", "--endpoints", fake_replica.endpoint],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        assert process.stderr.readline().startswith("Watching /a")
        process.stdout.close()
        process.wait(timeout=20)
        errors = process.stderr.read()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in errors and "error" not in errors
