"""`coordsvc set`: writes a znode's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coordsvc.cli.client_options import (
    ClientOptions,
    client_options,
    read_data,
    version_option,
)
from coordsvc.cli.output import print_json, print_line, stat_json
from coordsvc.cli.run_client import run_client

if TYPE_CHECKING:
    from coordsvc.client.unary import UnaryClient


@click.command("set", short_help="Write a znode's data.")
@click.argument("path")
@click.argument("data", required=False)
@click.option("--null", "to_null", is_flag=True, help='Instead of DATA: null, which is not "".')
@version_option
@client_options
def set_command(
    options: ClientOptions, path: str, data: str | None, to_null: bool, version: int | None
) -> None:
    """Write DATA into the znode PATH and print its new version.

    DATA "-" is standard input; other DATA that starts with a dash goes last, behind "--".
    """
    if (data is None) != to_null:
        raise click.UsageError("give either DATA or --null")
    payload = read_data(data)

    async def action(client: UnaryClient) -> None:
        answer = await client.set_data(path, payload, version=version)
        if options.as_json:
            print_json({"path": path, "stat": stat_json(answer.stat)})
        else:
            print_line(f"version {answer.stat.version}")

    run_client(options, action, path)
