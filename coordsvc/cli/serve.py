"""`coordsvc serve`: runs one replica."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from coordsvc.exit_status import ExitStatus


@click.command("serve", short_help="Run one replica.")
@click.option("--config", "toml_path", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="Read settings from this file; the options below outrank it.")  # fmt: skip
@click.option("--replica-id", metavar="N", help="Which of the replicas this is, from 1.")
@click.option("--data-dir", metavar="DIR", help="Where its data is; one replica's alone.")
@click.option("--listen", metavar="HOST:PORT",
              help="Where it serves gRPC.  [default: 127.0.0.1:7401]")  # fmt: skip
@click.option("--peer-listen", metavar="HOST:PORT",
              help="Where it listens for the others.  [default: its entry in --peers]")  # fmt: skip
@click.option("--peers", metavar="1=HOST:PORT,2=...",
              help="Where all replicas reach each other, itself included. "
              "None: a cluster of one.")  # fmt: skip
@click.option("--advertise", metavar="HOST:PORT",
              help="Where clients reach it, if not at --listen.")  # fmt: skip
@click.option("--admin-listen", metavar="HOST:PORT",
              help="Where it serves /metrics, /livez, /readyz.  [default: nowhere]")  # fmt: skip
@click.option("--insecure/--no-insecure", default=None,
              help="Permit addresses beyond this machine without TLS.")  # fmt: skip
@click.option("--peer-tls-cert", metavar="FILE", help="Its certificate for the other replicas.")
@click.option("--peer-tls-key", metavar="FILE", help="The certificate's private key.")
@click.option("--peer-tls-ca", metavar="FILE", help="Who signs the replicas' certificates.")
@click.option("--log-format", metavar="auto|console|json",
              help="auto: console on a terminal, otherwise JSON.")  # fmt: skip
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
def serve(toml_path: Path | None, **flags: object) -> None:
    """Run one replica until SIGTERM or Ctrl-C.

    Each setting can also be given in the environment (COORDSVC_DATA_DIR for --data-dir) or, with
    more settings, in a TOML file (data_dir); options outrank the environment, and that the file.

    \b
    Exit status: 0 stopped as told   2 wrong usage     3 address in use
                 4 data dir refused  5 corrupted data  6 disk full or failed  70 a bug
    """
    from coordsvc.server.config import ConfigError, load_config

    given = {key: value for key, value in flags.items() if value is not None}
    try:
        config = load_config(given, os.environ, toml_path)
    except ConfigError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(int(ExitStatus.USAGE))
    from coordsvc.server.serve import run

    sys.exit(int(run(config)))
