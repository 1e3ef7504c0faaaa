"""How answers are printed: text for people and pipes, JSON for programs."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from coordsvc.client.records import Stat as PlainStat
    from coordsvc.v1.common_pb2 import Stat

STAT_FIELDS = (
    "czxid",
    "mzxid",
    "pzxid",
    "ctime_ms",
    "mtime_ms",
    "version",
    "cversion",
    "aversion",
    "ephemeral_owner",
    "data_length",
    "num_children",
)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


def print_line(text: str) -> None:
    click.echo(text)


def note(text: str) -> None:
    """Something beside the answer, out of the way of whoever reads that."""
    click.echo(click.style(text, dim=True), err=True)


def stat_json(stat: Stat | PlainStat) -> dict[str, int]:
    return {name: int(getattr(stat, name)) for name in STAT_FIELDS}


def data_json(data: bytes | None) -> dict[str, str | None]:
    """Null stays null. What is no UTF-8 text is written in base64, and says so."""
    if data is None:
        return {"data": None, "encoding": None}
    try:
        return {"data": data.decode("utf-8"), "encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"data": base64.b64encode(data).decode("ascii"), "encoding": "base64"}


def print_data(data: bytes | None) -> None:
    """The bytes as they are; on a terminal as a line that cannot act on it. Null and empty look
    alike in a pipe, so the note says which."""
    if data is None or data == b"":
        note("(null)" if data is None else "(empty)")
    elif sys.stdout.isatty():
        click.echo(printable(data))
    else:
        sys.stdout.buffer.write(data)


def printable(data: bytes) -> str:
    """Text as it is; control characters other than tab and newline, and bad UTF-8, escaped."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c in "\t\n" else ascii(c)[1:-1] for c in text)


def print_stat(stat: Stat) -> None:
    values = stat_json(stat)
    rows = []
    for name in STAT_FIELDS:
        value = str(values[name])
        if name.endswith("_ms"):
            value += f"  ({_time_text(values[name])})"
        elif name == "ephemeral_owner" and values[name]:
            value = f"{values[name]:#x}"
        rows.append((name, value))
    print_table(rows)


def print_table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> None:
    """Columns, two spaces apart; the header only stands out on a terminal."""
    lines = [header, *rows] if header else list(rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for number, line in enumerate(lines):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        text = "  ".join(cells).rstrip()
        click.echo(click.style(text, bold=True) if header and number == 0 else text)


def _time_text(time_ms: int) -> str:
    time = datetime.fromtimestamp(time_ms / 1000, UTC)
    return time.strftime("%Y-%m-%d %H:%M:%S UTC")
