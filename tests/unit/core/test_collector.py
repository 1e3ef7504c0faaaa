"""What a leader proposes to collect: what is due, a bounded number at a time, nobody for ever
left out."""

from __future__ import annotations

import pytest

from coordsvc.core import collector as collector_module
from coordsvc.core.collector import Collector
from coordsvc.core.commands import (
    CONTAINER,
    NO_CALLER,
    PERSISTENT_WITH_TTL,
    CollectContainer,
    CollectTtl,
    CreateOp,
    DeleteOp,
    SetDataOp,
    Write,
)
from tests.unit.core.harness import TERM, Harness


def furnished() -> Harness:
    harness = Harness()
    harness.submit(
        *(
            Write(NO_CALLER, op)
            for op in (
                CreateOp("/unused", b"", CONTAINER),
                CreateOp("/used", b"", CONTAINER),
                CreateOp("/used/c", b""),
                DeleteOp("/used/c"),
                CreateOp("/full", b"", CONTAINER),
                CreateOp("/full/c", b""),
                CreateOp("/old", b"", PERSISTENT_WITH_TTL, 10),
                CreateOp("/young", b"", PERSISTENT_WITH_TTL, 100),
                CreateOp("/parent", b"", PERSISTENT_WITH_TTL, 10),
                CreateOp("/parent/c", b""),
                CreateOp("/plain", b""),
            )
        )
    )
    harness.clock_ms = 11
    harness.apply()
    return harness


def test_only_what_is_due() -> None:
    harness = furnished()
    mzxid = harness.state.znodes["/old"].stat.mzxid
    due = Collector(harness.state).due(TERM, 10)
    assert due == (CollectContainer(TERM, "/used", 2), CollectTtl(TERM, "/old", mzxid))
    assert [change.path for change in harness.lead(*due).changes] == ["/used", "/old"]
    assert Collector(harness.state).due(TERM, 10) == ()


def test_limit_and_round() -> None:
    """What did not fit comes with the next call; then the round begins again."""
    harness = furnished()
    collector = Collector(harness.state)
    first, second = collector.due(TERM, 1), collector.due(TERM, 1)
    assert [type(command) for command in first + second] == [CollectContainer, CollectTtl]
    seen = [command for _ in range(4) for command in collector.due(TERM, 10)]
    assert len(seen) >= 4


def test_call_looks_at_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "LOOKED_AT_MAX", 2)
    harness = furnished()
    collector = Collector(harness.state)
    rounds = [collector.due(TERM, 10) for _ in range(4)]
    assert [len(commands) for commands in rounds] == [1, 1, 0, 1]


def test_deleted_during_a_round() -> None:
    harness = furnished()
    collector = Collector(harness.state)
    collector.due(TERM, 1)
    harness.write(DeleteOp("/old"))
    harness.write(SetDataOp("/young", b""))
    assert collector.due(TERM, 10) == ()


def test_empty_state() -> None:
    collector = Collector(Harness().state)
    assert collector.due(TERM, 10) == collector.due(TERM, 10) == ()
