"""The `coordsvc` command: puts the commands together.

Nothing heavy is imported here or at the top of a command's module: `coordsvc --help` and the
shell's completion should not wait for grpc.
"""

from __future__ import annotations

import click

from coordsvc import __version__
from coordsvc.cli.bench import bench
from coordsvc.cli.config import config
from coordsvc.cli.create import create
from coordsvc.cli.delete import delete
from coordsvc.cli.dev import dev
from coordsvc.cli.get import get
from coordsvc.cli.inspect import inspect
from coordsvc.cli.ls import ls
from coordsvc.cli.rejoin import rejoin
from coordsvc.cli.serve import serve
from coordsvc.cli.set import set_command
from coordsvc.cli.stat import stat
from coordsvc.cli.status import status
from coordsvc.cli.watch import watch

SECTIONS = {
    "Use a cluster": (create, get, set_command, delete, ls, stat, watch, bench),
    "Run a cluster": (dev, serve, status, inspect, rejoin, config),
}


class SectionedGroup(click.Group):
    """Lists its commands by what they are for, in the order a newcomer meets them."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(str(command.name), command.get_short_help_str()) for command in commands]
                )


@click.group(
    cls=SectionedGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Try it: 'coordsvc dev' starts three replicas and prints a line to paste. "
    "'coordsvc COMMAND -h' explains a command.",
)
@click.version_option(__version__, prog_name="coordsvc", message="%(prog)s %(version)s")
def main() -> None:
    """A coordination service: a small durable tree of znodes, the same at every replica, with
    sessions and ephemerals, for locks, elections, configuration and membership."""


for _commands in SECTIONS.values():
    for _command in _commands:
        main.add_command(_command)
