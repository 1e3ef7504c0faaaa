"""`coordsvc inspect`: prints what is in a data directory, without touching it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from coordsvc.exit_status import ExitStatus


@click.command("inspect", short_help="Print what is in a replica's data directory.")
@click.argument("data_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def inspect(data_dir: Path, output: str) -> None:
    """Print what is in the data directory DATA_DIR, without touching it.

    Best with the replica stopped; of one that runs it shows what had been written a moment ago.
    """
    sys.exit(int(ExitStatus.BUG))
