"""The table of limits: the same in the code, the model of the configuration and the docs."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from coordsvc.core.commands import NO_CALLER, SetDataOp, Write
from coordsvc.errors import Applied, BadArgumentsError, CoordError, ErrorCode, NoQuorumError
from coordsvc.raft.origin import Origin
from coordsvc.server.assembly import replica_settings
from coordsvc.server.config_keys import KEYS
from coordsvc.server.config_model import ClusterConfig, LimitsConfig, ServerConfig
from coordsvc.server.limits import LIMITS, Limit, Limits, refusal
from coordsvc.server.status_map import MESSAGE_BYTES_MAX, status_of

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "limits.md"

REFUSING = [limit for limit in LIMITS.values() if limit.code is not None]
SILENT = [limit for limit in LIMITS.values() if limit.code is None]


def documented() -> dict[str, list[str]]:
    """Name -> the other columns of its row."""
    rows = re.findall(r"(?m)^\| ([a-z_]+) \| (`.*) \|$", DOCS.read_text())
    assert len({name for name, _ in rows}) == len(rows), "a limit is in the table twice"
    return {name: row.split(" | ") for name, row in rows}


def test_the_docs_have_every_limit_as_the_code_has_it() -> None:
    expected = {
        limit.name: [
            f"`{limit.key.label}`",
            str(limit.key.value_in(ServerConfig())),
            limit.counted,
            limit.code.name if limit.code is not None else limit.effect,
            limit.hint,
        ]
        for limit in LIMITS.values()
    }
    assert documented() == expected
    assert list(documented()) == list(LIMITS), "in the same order"


def test_every_limit_of_the_configuration_is_in_the_table() -> None:
    settings = {field.name for field in fields(LimitsConfig)}
    settings |= {
        field.name for field in fields(ClusterConfig) if field.name.endswith(("_max", "_min"))
    }
    settings -= {"session_timeout_ms_min", "session_timeout_ms_max"}  # what is asked is changed
    settings |= {key.name for key in KEYS.values() if not key.group and key.name.endswith("_max")}
    assert {limit.key.name for limit in LIMITS.values()} == settings | {"disk_free_bytes_min"}
    assert "zookeeper_packet_bytes_max" in settings


def test_every_limit_that_refuses_is_enforced_somewhere() -> None:
    """By its name, as a literal: one that nobody refuses by would be a promise only."""
    sources = [
        path
        for folder in ("server", "raft")
        for path in (ROOT / "coordsvc" / folder).glob("*.py")
        if path.name != "limits.py"
    ]
    text = "\n".join(path.read_text() for path in sources)
    for limit in REFUSING:
        by_refusal = re.search(rf'refusal\(\s*"{limit.name}"', text)
        assert by_refusal or f'error.limit = "{limit.name}"' in text, limit.name


@pytest.mark.parametrize("limit", REFUSING, ids=lambda limit: limit.name)
def test_a_refusal_says_which_limit_how_much_it_is_and_what_to_do(limit: Limit) -> None:
    error = refusal(limit.name, "the thing has 5000 bytes", 4096, path="/a")
    assert error.code == limit.code and error.applied == Applied.NO
    assert error.limit == limit.name and error.path == "/a"
    assert error.message == (f"the thing has 5000 bytes; {limit.key.label} is 4096: {limit.hint}")
    assert limit.hint and len(error.message) < MESSAGE_BYTES_MAX
    assert error.retry_after_ms == limit.retry_after_ms
    assert refusal(limit.name, "x", 1, retry_after_ms=7).retry_after_ms == 7


def test_what_may_come_again_says_when_and_the_rest_does_not() -> None:
    passing = {ErrorCode.THROTTLED, ErrorCode.NO_QUORUM}
    for limit in REFUSING:
        if limit.code in passing:
            assert limit.retry_after_ms > 0, limit.name
        elif limit.name != "disk_free":
            assert limit.retry_after_ms == 0, limit.name
    for limit in SILENT:
        assert limit.effect and not limit.hint, limit.name


def test_every_refusal_but_a_paths_tells_any_client_that_something_is_full() -> None:
    statuses = {limit.name: status_of(refusal(limit.name, "x", 1)).name for limit in REFUSING}
    assert statuses.pop("path") == "INVALID_ARGUMENT"
    assert statuses.pop("write_bytes_waiting") == "UNAVAILABLE"
    assert set(statuses.values()) == {"RESOURCE_EXHAUSTED"}


def test_refusals_are_counted_by_limit_and_other_errors_are_not() -> None:
    limits = Limits(ServerConfig())
    assert set(limits.refusals_total) == {limit.name for limit in REFUSING}
    assert set(limits.refusals_total.values()) == {0}
    for error in (refusal("data", "x", 1), refusal("data", "x", 1), refusal("sessions", "x", 1)):
        limits.count(error)
    limits.count(BadArgumentsError("something else"))
    limits.count(CoordError())
    counted = {name: count for name, count in limits.refusals_total.items() if count}
    assert counted == {"data": 2, "sessions": 1}


def test_statistics_have_every_limit_with_its_value_and_how_near_it_is() -> None:
    config = ServerConfig(limits=LimitsConfig(watches_max=20_000))
    limits = Limits(config)
    limits.measure("watches", lambda: 7)
    limits.count(refusal("watches", "x", 1))
    statistics = {each.name: each for each in limits.statistics()}
    assert list(statistics) == list(LIMITS)
    watches = statistics["watches"]
    assert (watches.maximum, watches.current, watches.refusals_total) == (20_000, 7, 1)
    assert statistics["sessions"].maximum == 100_000
    assert statistics["sessions"].current is None


def test_writes_that_wait_are_refused_by_their_limit() -> None:
    """Certainly not applied, and another replica may have room."""
    refused: list[CoordError] = []

    class Waiter:
        def done(self) -> bool:
            return False

        def set_result(self, reply: object) -> None:
            raise AssertionError("nothing is decided here")

        def set_exception(self, error: BaseException) -> None:
            assert isinstance(error, CoordError)
            refused.append(error)

    config = ServerConfig(limits=LimitsConfig(write_bytes_waiting_max=5_000_000))
    settings = replica_settings(config, None)
    origin = Origin(settings, b"nonce")
    command = Write(NO_CALLER, SetDataOp("/a", b"x" * 1_000_000, -1))
    for _ in range(6):
        origin.submit_to(command, 10.0, 0.0, Waiter())
    assert 4_000_000 < origin.bytes_waiting <= 5_000_000
    (first, second) = refused
    assert isinstance(first, NoQuorumError) and first.limit == second.limit == "write_bytes_waiting"
    assert "limits.write_bytes_waiting_max is 5000000" in first.message
    assert first.retry_after_ms == LIMITS["write_bytes_waiting"].retry_after_ms
