"""`coordsvc stat`: prints a znode's state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coordsvc.cli.client_options import ClientOptions, client_options, linearizable_option
from coordsvc.cli.output import print_json, print_stat, stat_json
from coordsvc.cli.run_client import run_client
from coordsvc.errors import NoNodeError

if TYPE_CHECKING:
    from coordsvc.client.unary import UnaryClient


@click.command("stat", short_help="Print a znode's versions, times and sizes.")
@click.argument("path")
@linearizable_option
@client_options
def stat(options: ClientOptions, path: str, linearizable: bool) -> None:
    """Print the state of the znode PATH: zxids, times, versions, sizes."""

    async def action(client: UnaryClient) -> None:
        from coordsvc.client.unary import consistency

        answer = await client.exists(path, consistency=consistency(linearizable))
        if not answer.HasField("stat"):
            raise NoNodeError("it does not exist", path=path)
        if options.as_json:
            print_json({"path": path, "stat": stat_json(answer.stat)})
        else:
            print_stat(answer.stat)

    run_client(options, action, path)
