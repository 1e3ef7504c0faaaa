"""`coordsvc serve`: runs one replica."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from coordsvc.cli.replica_options import faults_end_it, replica_options


@click.command("serve", short_help="Run one replica.")
@replica_options
def serve(toml_path: Path | None, settings: tuple[str, ...] | None, **flags: object) -> None:
    """Run one replica until SIGTERM or Ctrl-C.

    Each setting can also be given in the environment (COORDSVC_DATA_DIR for --data-dir) or in a
    TOML file; options outrank the environment, and that the file. `coordsvc config print` shows
    what comes of it.

    \b
    Exit status: 0 stopped as told   2 wrong usage     3 address in use
                 4 data dir refused  5 corrupted data  6 disk full or failed
                 7 its state differs from the others'  70 a bug
    """
    from coordsvc.server.config import load_config

    with faults_end_it():
        config = load_config(flags, os.environ, toml_path, settings or ())
    # Before anything imports grpc: it would write a line of its own for each refused handshake.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from coordsvc.server.serve import run

    sys.exit(int(run(config)))
