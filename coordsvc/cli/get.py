"""`coordsvc get`: prints a znode's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coordsvc.cli.client_options import ClientOptions, client_options, linearizable_option
from coordsvc.cli.output import data_json, print_data, print_json, stat_json
from coordsvc.cli.run_client import run_client

if TYPE_CHECKING:
    from coordsvc.client.unary import UnaryClient


@click.command("get", short_help="Print a znode's data.")
@click.argument("path")
@linearizable_option
@client_options
def get(options: ClientOptions, path: str, linearizable: bool) -> None:
    """Print the data of the znode PATH.

    In a pipe: the bytes as they are. On a terminal: with a newline, and control characters escaped.
    Null or empty data prints nothing, and a note on standard error says which.
    """

    async def action(client: UnaryClient) -> None:
        from coordsvc.client.unary import consistency

        answer = await client.get_data(path, consistency=consistency(linearizable))
        data = answer.data if answer.HasField("data") else None
        if options.as_json:
            print_json({"path": path, **data_json(data), "stat": stat_json(answer.stat)})
        else:
            print_data(data)

    run_client(options, action, path)
