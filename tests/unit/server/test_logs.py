"""What a log line looks like."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from coordsvc.server.logs import configure_logging


@pytest.fixture(autouse=True)
def _restore_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logged(stream: io.StringIO, log_format: str = "auto", level: str = "info") -> logging.Logger:
    configure_logging(replica_id=3, log_format=log_format, level=level, stream=stream)
    return logging.getLogger("coordsvc.test")


def test_where_there_is_no_terminal_a_line_is_json() -> None:
    stream = io.StringIO()
    logged(stream).info("session.expiring", extra={"session_id": 26, "idle_ms": 30012})
    line = json.loads(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
    assert line["event"] == "session.expiring" and line["level"] == "info"
    assert line["replica_id"] == 3 and line["idle_ms"] == 30012
    assert line["session_id"] == "0x1a"
    assert line["time"].endswith("+00:00")


def test_on_a_terminal_a_line_is_for_people() -> None:
    stream = Terminal()
    logged(stream).warning("peer.silent", extra={"peer": 2, "error": "no\nanswer", "empty": ""})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "WARNING [3] peer.silent" in text and "peer=2" in text
    assert 'error="no\\nanswer"' in text and 'empty=""' in text


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_is_there_and_the_format_can_be_forced(log_format: str) -> None:
    stream = Terminal() if log_format == "json" else io.StringIO()
    logger = logged(stream, log_format)
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("rpc.failed")
    assert "Traceback" in stream.getvalue() and "ValueError: why" in stream.getvalue()
    assert (stream.getvalue()[0] == "{") == (log_format == "json")


def test_secrets_are_blanked_although_nobody_logs_them() -> None:
    stream = io.StringIO()
    logged(stream).error("rpc.failed", extra={"password": "hunter2", "new_credential": b"hunter2"})
    assert "hunter2" not in stream.getvalue() and '"***"' in stream.getvalue()


def test_levels_are_kept() -> None:
    stream = io.StringIO()
    logger = logged(stream, level="warning")
    logger.info("serving")
    assert stream.getvalue() == ""


def test_a_field_that_is_no_json_is_shown_as_text() -> None:
    stream = io.StringIO()
    logged(stream).info("serving", extra={"path": b"\xff", "thing": object})
    assert json.loads(stream.getvalue())["path"] == "b'\\xff'"
