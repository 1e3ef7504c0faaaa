"""The client commands as a user runs them, against a scripted replica."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from coordsvc import __version__
from coordsvc.cli.main import main
from coordsvc.client.methods import (
    CREATE,
    DELETE,
    EXISTS,
    GET_CHILDREN,
    GET_DATA,
    SET_DATA,
    STATUS,
)
from coordsvc.errors import Applied, ErrorCode
from coordsvc.testing.ports import free_port
from coordsvc.v1 import cluster_pb2, common_pb2, coordination_pb2
from tests.unit.cli.fake_replica import FakeReplica, refuse

Run = Callable[..., Result]

STAT = common_pb2.Stat(czxid=5, mzxid=6, version=3, mtime_ms=1_700_000_000_000)


@pytest.fixture
def run(fake_replica: FakeReplica) -> Run:
    def run(*arguments: str, stdin: bytes = b"", endpoints: bool = True) -> Result:
        where = ["--endpoints", fake_replica.endpoint] if endpoints else []
        return CliRunner().invoke(main, [*arguments, *where], input=stdin)

    return run


def created(request: coordination_pb2.CreateRequest) -> coordination_pb2.CreateResponse:
    suffix = "0000000007" if request.mode == common_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL else ""
    return coordination_pb2.CreateResponse(path=request.path + suffix, stat=STAT)


def data_answer(data: bytes | None) -> Callable[[Any], coordination_pb2.GetDataResponse]:
    return lambda request: coordination_pb2.GetDataResponse(data=data, stat=STAT)


# ------------------------------------------------------------------------------------- create


def test_create_prints_the_path(fake_replica: FakeReplica, run: Run) -> None:
    fake_replica.on(CREATE, created)
    result = run("create", "/hello", "world")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "/hello\n", "")
    (request,) = fake_replica.requests_of(CREATE)
    assert (request.path, request.data) == ("/hello", b"world")


def test_create_tells_null_from_empty(fake_replica: FakeReplica, run: Run) -> None:
    fake_replica.on(CREATE, created)
    run("create", "/a")
    run("create", "/a", "")
    run("create", "/a", "-", stdin=b"\x00\xff\n")
    null, empty, binary = fake_replica.requests_of(CREATE)
    assert not null.HasField("data")
    assert empty.HasField("data") and empty.data == b""
    assert binary.data == b"\x00\xff\n"


@pytest.mark.parametrize(
    ("flags", "mode", "ttl_ms"),
    [
        ([], common_pb2.CREATE_MODE_PERSISTENT, 0),
        (["-s"], common_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL, 0),
        (["--container"], common_pb2.CREATE_MODE_CONTAINER, 0),
        (["--ttl", "9"], common_pb2.CREATE_MODE_PERSISTENT_WITH_TTL, 9),
        (["-s", "--ttl", "9"], common_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL_WITH_TTL, 9),
    ],
)
def test_create_modes(
    fake_replica: FakeReplica, run: Run, flags: list[str], mode: int, ttl_ms: int
) -> None:
    fake_replica.on(CREATE, created)
    assert run("create", "/a", *flags).exit_code == 0
    (request,) = fake_replica.requests_of(CREATE)
    assert (request.mode, request.ttl_ms) == (mode, ttl_ms)


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "/a", "-e", "--container"],
        ["create", "/a", "-s", "--container"],
        ["create", "/a", "--ttl", "0"],
        ["create", "/a", "--session-timeout", "3"],
        ["create"],
        ["create", "/a", "b", "c"],
        ["set", "/a"],
        ["set", "/a", "b", "--null"],
        ["set", "/a", "b", "--version", "x"],
        ["delete", "/a", "--version", "-2"],
        ["get", "/a", "-o", "yaml"],
        ["get", "/a", "--timeout", "0"],
        ["get", "/a", "--unknown"],
        ["frobnicate"],
    ],
)
def test_wrong_usage_is_status_2_and_nothing_is_sent(
    fake_replica: FakeReplica, run: Run, arguments: list[str]
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert not fake_replica.requests


def test_bad_endpoints_are_wrong_usage(run: Run) -> None:
    result = run("get", "/a", "--endpoints", "nonsense", endpoints=False)
    assert result.exit_code == 2
    assert "'nonsense' is not host:port" in result.stderr


# ---------------------------------------------------------------------------------------- get


@pytest.mark.parametrize("data", [b"world", b"a\nb\n", b"\x00\xff\x1b[31m"])
def test_get_writes_the_bytes_as_they_are(fake_replica: FakeReplica, run: Run, data: bytes) -> None:
    fake_replica.on(GET_DATA, data_answer(data))
    result = run("get", "/a")
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, data, "")


@pytest.mark.parametrize(("data", "said"), [(None, "(null)\n"), (b"", "(empty)\n")])
def test_get_tells_null_from_empty(
    fake_replica: FakeReplica, run: Run, data: bytes | None, said: str
) -> None:
    fake_replica.on(GET_DATA, data_answer(data))
    result = run("get", "/a")
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, b"", said)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, {"data": None, "encoding": None}),
        (b"", {"data": "", "encoding": "utf-8"}),
        ("grüß".encode(), {"data": "grüß", "encoding": "utf-8"}),
        (b"\xff\x00", {"data": "/wA=", "encoding": "base64"}),
    ],
)
def test_get_as_json(
    fake_replica: FakeReplica, run: Run, data: bytes | None, expected: dict[str, Any]
) -> None:
    fake_replica.on(GET_DATA, data_answer(data))
    answer = json.loads(run("get", "/a", "-o", "json").stdout)
    assert answer["path"] == "/a"
    assert answer["stat"]["version"] == 3
    assert {key: answer[key] for key in expected} == expected


def test_linearizable_is_passed_on(fake_replica: FakeReplica, run: Run) -> None:
    fake_replica.on(GET_DATA, data_answer(b"x"))
    run("get", "/a")
    run("get", "/a", "--linearizable")
    asked = [request.consistency for request in fake_replica.requests_of(GET_DATA)]
    assert asked == [common_pb2.READ_CONSISTENCY_LOCAL, common_pb2.READ_CONSISTENCY_LINEARIZABLE]


# -------------------------------------------------------------------------- the other commands


def test_set_prints_the_new_version(fake_replica: FakeReplica, run: Run) -> None:
    fake_replica.on(SET_DATA, lambda request: coordination_pb2.SetDataResponse(stat=STAT))
    result = run("set", "/a", "x", "--version", "2")
    assert (result.exit_code, result.stdout) == (0, "version 3\n")
    run("set", "/a", "--null")
    versioned, null = fake_replica.requests_of(SET_DATA)
    assert versioned.expected_version == 2
    assert not null.HasField("data") and not null.HasField("expected_version")


def test_delete(fake_replica: FakeReplica, run: Run) -> None:
    fake_replica.on(DELETE, lambda request: coordination_pb2.DeleteResponse())
    result = run("delete", "/a")
    assert (result.exit_code, result.stdout) == (0, "deleted /a\n")


def test_ls_reads_all_pages(fake_replica: FakeReplica, run: Run) -> None:
    def page(request: coordination_pb2.GetChildrenRequest) -> coordination_pb2.GetChildrenResponse:
        number = int(request.page_token or 0)
        child = coordination_pb2.Child(name=f"c{number}")
        token = str(number + 1) if number < 2 else ""
        return coordination_pb2.GetChildrenResponse(children=[child], next_page_token=token)

    fake_replica.on(GET_CHILDREN, page)
    assert run("ls", "/a").stdout == "c0\nc1\nc2\n"
    assert json.loads(run("ls", "/a", "-o", "json").stdout)["children"] == ["c0", "c1", "c2"]


def test_stat_of_what_is_there_and_of_what_is_not(fake_replica: FakeReplica, run: Run) -> None:
    fake_replica.on(
        EXISTS,
        lambda request: coordination_pb2.ExistsResponse(stat=STAT),
        lambda request: coordination_pb2.ExistsResponse(),
    )
    there = run("stat", "/a")
    assert there.exit_code == 0
    assert "mtime_ms         1700000000000  (2023-11-14 22:13:20 UTC)" in there.stdout
    missing = run("stat", "/a")
    assert missing.exit_code == 1
    assert missing.stderr.startswith("error: NO_NODE /a")


def test_status_is_a_table(fake_replica: FakeReplica, run: Run) -> None:
    replicas = [
        cluster_pb2.Replica(
            id=1,
            role=cluster_pb2.REPLICA_ROLE_LEADER,
            client_address="127.0.0.1:7401",
            reachable=True,
            term=2,
        ),
        cluster_pb2.Replica(id=2),
    ]
    fake_replica.on(STATUS, lambda request: cluster_pb2.StatusResponse(replicas=replicas))
    lines = run("status").stdout.splitlines()
    assert lines[0].split()[:3] == ["ID", "ROLE", "ADDRESS"]
    assert lines[1].split()[:3] == ["1", "leader", "127.0.0.1:7401"]
    assert "NO" in lines[2].split()
    answer = json.loads(run("status", "-o", "json").stdout)
    assert [replica["role"] for replica in answer["replicas"]] == ["leader", "unknown"]


# --------------------------------------------------------------------------------- failures


def test_a_refusal_is_one_line_with_code_path_and_hint(fake_replica: FakeReplica, run: Run) -> None:
    exists = refuse(grpc.StatusCode.ALREADY_EXISTS, ErrorCode.NODE_EXISTS, path="/a", zxid=3)
    fake_replica.on(CREATE, exists)
    result = run("create", "/a", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: NODE_EXISTS /a (write it with: coordsvc set)\n"


def test_a_refusal_as_json(fake_replica: FakeReplica, run: Run) -> None:
    unknown = refuse(
        grpc.StatusCode.DEADLINE_EXCEEDED, ErrorCode.OUTCOME_UNKNOWN, Applied.UNKNOWN, text="late"
    )
    fake_replica.on(CREATE, unknown)
    result = run("create", "/a", "-o", "json")
    assert result.exit_code == 1
    error = json.loads(result.stderr)
    assert error["error"] == "OUTCOME_UNKNOWN"
    assert error["applied"] == "unknown"
    assert error["path"] == "/a"


def test_nobody_there_is_said_soon() -> None:
    where = f"127.0.0.1:{free_port()}"
    result = CliRunner().invoke(main, ["get", "/a", "--endpoints", where, "--timeout", "0.2"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: UNAVAILABLE /a - cannot connect to {where} (")
    assert "coordsvc dev" in result.stderr


def test_a_path_that_is_no_text_is_refused(run: Run) -> None:
    result = run("get", "/a\udcff")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: BAD_ARGUMENTS")
    assert len(result.stderr.splitlines()) == 1


def test_a_message_cannot_act_on_the_terminal(fake_replica: FakeReplica, run: Run) -> None:
    evil = refuse(grpc.StatusCode.NOT_FOUND, ErrorCode.NO_NODE, path="/\x1b[2J" + "x" * 999)
    fake_replica.on(GET_DATA, evil)
    result = run("get", "/a")
    assert "\x1b" not in result.stderr
    assert len(result.stderr) < 400


# ------------------------------------------------------------------------------------- help


def test_help_lists_every_command() -> None:
    for flag in ("-h", "--help"):
        result = CliRunner().invoke(main, [flag])
        assert result.exit_code == 0
        for name in main.commands:
            assert f"  {name} " in result.output


@pytest.mark.parametrize("name", sorted(main.commands))
def test_each_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(main, [name, "-h"])
    assert result.exit_code == 0
    assert "Usage: " in result.output and "--" in result.output


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"coordsvc {__version__}\n"


def test_endpoints_from_the_environment(fake_replica: FakeReplica) -> None:
    fake_replica.on(GET_DATA, data_answer(b"x"))
    environment = {"COORDSVC_ENDPOINTS": fake_replica.endpoint}
    assert CliRunner().invoke(main, ["get", "/a"], env=environment).output == "x"


def test_another_service_at_the_address_is_not_taken_for_a_failing_replica(
    fake_replica: FakeReplica, run: Run
) -> None:
    fake_replica.on(GET_DATA, refuse(grpc.StatusCode.UNIMPLEMENTED, text="not found: 404"))
    result = run("get", "/a")
    assert result.exit_code == 1
    assert "is that the client address of a replica" in result.stderr
    assert "log" not in result.stderr
