"""`coordsvc inspect`: prints what is in a data directory, without touching it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from coordsvc.exit_status import ExitStatus


@click.command("inspect", short_help="Print what is in a replica's data directory.")
@click.argument("data_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--entries", is_flag=True, help="List the log's entries and their commands, too.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text",
              show_default=True, help="How to print it.")  # fmt: skip
def inspect(data_dir: Path, entries: bool, output: str) -> None:
    """Print what is in the data directory DATA_DIR, without touching it.

    Best with the replica stopped; of one that runs it shows what had been written a moment ago.

    \b
    Exit status: 0 a replica would start on it    5 it would not: see the problems
                 4 this is no data directory      6 it cannot be read
    """
    from coordsvc.storage import inspect as storage
    from coordsvc.storage.errors import DiskError

    try:
        report = storage.inspect(str(data_dir), list_entries=entries)
        if not (data_dir / "META").exists() and not report.segments:
            click.echo(f"error: {data_dir} is no data directory{_advice(data_dir)}", err=True)
            sys.exit(int(ExitStatus.DATA_DIR_REFUSED))
    except DiskError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(int(ExitStatus.DISK))
    if output == "json":
        click.echo(json.dumps(storage.to_dict(report)))
    else:
        click.echo(storage.render_text(report))
    if report.problems:
        sys.exit(int(ExitStatus.CORRUPTION))


def _advice(data_dir: Path) -> str:
    """For the folder of `coordsvc dev`, which holds one of each replica."""
    inside = sorted(entry for entry in data_dir.iterdir() if entry.name.isdecimal())
    return f"; perhaps you mean one of {', '.join(map(str, inside))}" if inside else ""
