"""The options that say how one replica is configured, for each command that needs to know."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from coordsvc.exit_status import ExitStatus

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--config", "toml_path", type=click.Path(path_type=Path), metavar="FILE.toml",
                 help="Read settings from this file; the options below outrank it."),
    click.option("--replica-id", metavar="N", help="Which of the replicas this is, from 1."),
    click.option("--data-dir", metavar="DIR", help="Where its data is; one replica's alone."),
    click.option("--listen", metavar="HOST:PORT",
                 help="Where it serves gRPC.  [default: 127.0.0.1:7401]"),
    click.option("--peer-listen", metavar="HOST:PORT",
                 help="Where it listens for the others.  [default: its entry in --peers]"),
    click.option("--peers", metavar="1=HOST:PORT,2=...",
                 help="Where all replicas reach each other, itself included. "
                 "None: a cluster of one."),
    click.option("--advertise", metavar="HOST:PORT",
                 help="Where clients reach it, if not at --listen."),
    click.option("--admin-listen", metavar="HOST:PORT",
                 help="Where it serves /metrics, /livez, /readyz; 'none': nowhere.  "
                 "[default: 127.0.0.1, the port of --listen + 300]"),
    click.option("--zookeeper-listen", metavar="HOST:PORT",
                 help="Where it serves ZooKeeper's clients as well.  [default: nowhere]"),
    click.option("--zookeeper-advertise", metavar="HOST:PORT",
                 help="Where these reach it, if not at --zookeeper-listen."),
    click.option("--insecure/--no-insecure", default=None,
                 help="Permit addresses beyond this machine without TLS."),
    click.option("--tls-cert", metavar="FILE", help="Its certificate for clients."),
    click.option("--tls-key", metavar="FILE", help="The certificate's private key."),
    click.option("--tls-client-ca", metavar="FILE",
                 help="Who signs clients' certificates, which they must have then."),
    click.option("--peer-tls-cert", metavar="FILE",
                 help="Its certificate for the other replicas."),
    click.option("--peer-tls-key", metavar="FILE", help="The certificate's private key."),
    click.option("--peer-tls-ca", metavar="FILE", help="Who signs the replicas' certificates."),
    click.option("--superuser-digest", metavar="USER:BASE64",
                 help="Whose password passes every ACL; better in FILE.toml, unseen by others."),
    click.option("--log-format", metavar="auto|console|json",
                 help="auto: console on a terminal, otherwise JSON."),
    click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
    click.option("--set", "settings", multiple=True, metavar="TABLE.KEY=VALUE",
                 callback=lambda context, option, given: given or None,
                 help="Any other setting of FILE.toml, such as limits.watches_max=1000."),
)  # fmt: skip


def replica_options(command: CommandT) -> CommandT:
    """Adds them all. The command gets `toml_path`, `settings` and the rest by flat name, each None
    if it was not given."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@contextmanager
def faults_end_it() -> Iterator[None]:
    """Around reading a configuration: its faults, all of them, go to stderr, and the command ends
    with the status for wrong usage."""
    from coordsvc.server.config import ConfigError

    try:
        yield
    except ConfigError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(int(ExitStatus.USAGE))
