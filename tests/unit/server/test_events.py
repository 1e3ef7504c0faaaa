"""What is logged is in the list of events, and what is in the list is logged."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import coordsvc
from coordsvc.server.events import EVENTS

PACKAGE = Path(coordsvc.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
FOLDERS = ("core", "raft", "server", "storage")
NAME = re.compile(r"[a-z]+(\.[a-z_]+)?")


def logging_calls() -> Iterator[tuple[str, ast.Call]]:
    """(where, the call) for every call of a method of `logger` in the replica's code."""
    for folder in FOLDERS:
        for file_path in sorted((PACKAGE / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file_path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in LEVELS
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id == "logger"
                ):
                    yield f"{file_path.relative_to(PACKAGE)}:{node.lineno}", node


def event_of(where: str, call: ast.Call) -> str:
    assert call.args, f"{where}: no event"
    is_leveled = isinstance(call.func, ast.Attribute) and call.func.attr == "log"
    message = call.args[1 if is_leveled else 0]
    assert isinstance(message, ast.Constant) and isinstance(message.value, str), (
        f"{where}: the event must be a literal, so that it can be searched for"
    )
    return message.value.split(" ", 1)[0]


def test_every_logged_event_is_listed() -> None:
    missing = {
        f"{where}: {event_of(where, call)}"
        for where, call in logging_calls()
        if event_of(where, call) not in EVENTS
    }
    assert not missing, f"add to coordsvc/server/events.py: {sorted(missing)}"


def test_every_listed_event_is_logged() -> None:
    logged = {event_of(where, call) for where, call in logging_calls()}
    assert not set(EVENTS) - logged, "nobody logs these any more"


def test_names_have_one_form() -> None:
    assert not [name for name in EVENTS if not NAME.fullmatch(name)]


def test_no_logged_field_is_a_secret() -> None:
    for where, call in logging_calls():
        names = {node.arg for node in ast.walk(call) if isinstance(node, ast.keyword)}
        names |= {
            node.value
            for node in ast.walk(call)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        secret = [name for name in names if name and re.search("password|credential|token", name)]
        assert not secret, f"{where} logs {secret}"
