"""A write that expects a version is a compare-and-set: any other version refuses it, and the
versions that were there before most of all.
"""

from __future__ import annotations

import pytest

from coordsvc.core.commands import (
    CheckOp,
    DeleteOp,
    MultiOp,
    Op,
    Refusal,
    SetAclOp,
    SetDataOp,
)
from coordsvc.errors import ErrorCode
from tests.unit.core.harness import Harness
from tests.unit.core.test_operations import world

PATH, VERSION = "/a", 2


def set_twice() -> Harness:
    """A znode whose version and aversion are VERSION."""
    harness = Harness()
    harness.create(PATH)
    for _ in range(VERSION):
        harness.write(SetDataOp(PATH, b"kept"))
        harness.write(SetAclOp(PATH, world(31)))
    return harness


def operations(version: int) -> list[Op]:
    return [
        SetDataOp(PATH, b"new", version),
        SetAclOp(PATH, world(31), version),
        MultiOp((CheckOp(PATH, version),)),
        DeleteOp(PATH, version),
    ]


@pytest.mark.parametrize("version", [0, VERSION - 1, VERSION + 1])
@pytest.mark.parametrize("which", range(4), ids=["set_data", "set_acl", "check", "delete"])
def test_another_version_is_refused_and_nothing_is_changed(which: int, version: int) -> None:
    harness = set_twice()
    before = harness.state.znodes[PATH]
    result = harness.result(operations(version)[which])
    assert isinstance(result, Refusal), f"version {version} passed for {VERSION}"
    assert result.code == ErrorCode.BAD_VERSION
    assert harness.state.znodes[PATH] == before


@pytest.mark.parametrize("which", range(4), ids=["set_data", "set_acl", "check", "delete"])
def test_the_version_that_is_there_passes(which: int) -> None:
    harness = set_twice()
    assert not isinstance(harness.result(operations(VERSION)[which]), Refusal)
