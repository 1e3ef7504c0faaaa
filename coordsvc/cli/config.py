"""`coordsvc config`: shows and checks how a replica is configured, without starting one."""

from __future__ import annotations

import os
from pathlib import Path

import click

from coordsvc.cli.replica_options import faults_end_it, replica_options


@click.group("config", short_help="Show or check a replica's configuration.")
def config() -> None:
    """Show or check how a replica is configured, without starting one.

    Settings come from a TOML file, the environment and options; what comes later here outranks what
    comes before. deploy/coordsvc.sample.toml explains each.
    """


@config.command("print", short_help="Print the settings a replica would use.")
@replica_options
@click.option("--with-origin", is_flag=True, help="Say of each setting where its value is from.")
def print_config(
    toml_path: Path | None, settings: tuple[str, ...] | None, with_origin: bool, **flags: object
) -> None:
    """Print, as TOML, what `coordsvc serve` would use with the same options, file and environment.

    The output can be given to --config. Secrets are left out of it.

    \b
    Exit status: 0 printed    2 there are faults, all of which are told
    """
    from coordsvc.server.config import load
    from coordsvc.server.config_print import render

    with faults_end_it():
        loaded = load(flags, os.environ, toml_path, settings or ())
    click.echo(render(loaded, with_origin=with_origin), nl=False)


@config.command("check", short_help="Say what is wrong with a TOML file.")
@click.argument("file_path", metavar="FILE.toml", type=click.Path(path_type=Path))
def check(file_path: Path) -> None:
    """Say everything that is wrong with FILE.toml.

    It is judged by itself: the environment is not read. Certificates that it names must be there.

    \b
    Exit status: 0 a replica would start with it    2 there are faults, all of which are told
    """
    from coordsvc.server.config import load_config

    with faults_end_it():
        valid = load_config({}, {}, file_path)
    count = max(1, len(valid.peers))
    cluster = "a cluster of one" if count == 1 else f"a cluster of {count}"
    click.echo(f"{file_path} is valid: replica {valid.replica_id} of {cluster}")
