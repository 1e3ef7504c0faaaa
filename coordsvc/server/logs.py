"""Logging of a replica's process: an event's name plus fields, on standard error.

`logger.info("session.expired", extra={"session_id": ...})` anywhere in the package. What follows
the name in a message is kept as text. One JSON object a line, or a readable line on a terminal;
the replica's id is in each. Fields that could be secrets are blanked here once more, although
nobody passes them.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

SECRET_WORDS = ("password", "credential", "secret")

_HEX_FIELDS = frozenset({"session_id"})
"""Session ids are shown as ZooKeeper shows them."""


def event_fields(record: logging.LogRecord) -> dict[str, object]:
    """The fields a caller passed in `extra`."""
    fields: dict[str, object] = {}
    for name, value in vars(record).items():
        if name in _STANDARD_FIELDS:
            continue
        if any(word in name.lower() for word in SECRET_WORDS):
            value = "***"
        elif name in _HEX_FIELDS and isinstance(value, int):
            value = hex(value)
        fields[name] = value
    return fields


def split_event(record: logging.LogRecord) -> tuple[str, str]:
    """(the event's name, the text behind it)."""
    event, _, text = record.getMessage().partition(" ")
    return event, text


def _time_of(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


class JsonFormatter(logging.Formatter):
    """One JSON object, on one line, whatever is in the fields."""

    def __init__(self, replica_id: int) -> None:
        super().__init__()
        self._replica_id = replica_id

    def format(self, record: logging.LogRecord) -> str:
        event, text = split_event(record)
        line: dict[str, object] = {
            "time": _time_of(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "replica_id": self._replica_id,
            "event": event,
            "logger": record.name,
        }
        if text:
            line["text"] = text
        line.update(event_fields(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=True)


class ConsoleFormatter(logging.Formatter):
    """One line a person reads, and the traceback below it."""

    def __init__(self, replica_id: int) -> None:
        super().__init__()
        self._replica_id = replica_id

    def format(self, record: logging.LogRecord) -> str:
        event, text = split_event(record)
        fields = " ".join(f"{name}={_shown(value)}" for name, value in event_fields(record).items())
        parts = (
            _time_of(record).astimezone().strftime("%H:%M:%S.%f")[:-3],
            f"{record.levelname:<7}",
            f"[{self._replica_id}]",
            event,
            text,
            fields,
        )
        line = " ".join(part for part in parts if part)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _shown(value: object) -> str:
    """Quoted where the end of the value would not be seen, or a control character would act."""
    text = str(value)
    plain = text.isprintable() and text and not any(c in text for c in ' "=')
    return text if plain else json.dumps(text)


def configure_logging(
    *, replica_id: int, log_format: str, level: str, stream: TextIO | None = None
) -> None:
    """Send everything that is logged in this process to `stream` (standard error)."""
    stream = stream or sys.stderr
    as_json = log_format == "json" or (log_format == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter((JsonFormatter if as_json else ConsoleFormatter)(replica_id))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("aiohttp.access", "asyncio", "grpc"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A stranger's bytes on the admin port are answered with 400; each is not worth a traceback.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
