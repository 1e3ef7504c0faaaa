"""What a program sees of the package: names that are loaded when they are used, and no messages."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import pytest

import coordsvc
from coordsvc.client.client import Client
from coordsvc.client.operations import Operations
from coordsvc.client.session import Session

NAMES = sorted(coordsvc._MODULES)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there(name: str) -> None:
    assert getattr(coordsvc, name) is not None
    assert name in dir(coordsvc)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(inspect.getsource(coordsvc))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [each for each in block.body if isinstance(each, ast.ImportFrom)]
    seen = {alias.name: each.module for each in imports for alias in each.names}
    assert seen.pop("errors") == "coordsvc"
    assert seen == {name: f"coordsvc.client.{module}" for name, module in coordsvc._MODULES.items()}


def test_a_missing_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Cleint'"):
        coordsvc.Cleint  # noqa: B018


def loaded_by(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    return set(finished.stdout.split())


def test_grpc_is_loaded_with_the_client_and_not_before() -> None:
    assert "grpc" not in loaded_by("import coordsvc\ndir(coordsvc)\ncoordsvc.Stat\ncoordsvc.errors")
    assert "grpc" in loaded_by("import coordsvc\ncoordsvc.Client")


def test_what_is_submitted_at_once_takes_what_the_methods_take() -> None:
    """`client.create(...)` and `client.nowait.create(...)` do not drift apart."""
    names = ["create", "set_data", "delete", "set_acl", "add_auth"]
    names += ["exists", "get_data", "get_acl", "sync"]
    for name in names:
        slow, fast = (inspect.signature(getattr(each, name)) for each in (Client, Operations))
        assert list(slow.parameters.values()) == list(fast.parameters.values()), name


def test_every_public_method_explains_itself() -> None:
    members = {**vars(Session), **vars(Client)}
    for name, member in members.items():
        if not name.startswith("_") and (callable(member) or isinstance(member, property)):
            assert inspect.getdoc(member) or name == "remove_listener", name
