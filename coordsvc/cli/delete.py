"""`coordsvc delete`: deletes a znode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coordsvc.cli.client_options import ClientOptions, client_options, version_option
from coordsvc.cli.failure import shorten
from coordsvc.cli.output import print_json, print_line
from coordsvc.cli.run_client import run_client

if TYPE_CHECKING:
    from coordsvc.client.unary import UnaryClient


@click.command("delete", short_help="Delete a znode.")
@click.argument("path")
@version_option
@client_options
def delete(options: ClientOptions, path: str, version: int | None) -> None:
    """Delete the znode PATH, which must have no children."""

    async def action(client: UnaryClient) -> None:
        answer = await client.delete(path, version=version)
        if options.as_json:
            print_json({"path": path, "zxid": answer.header.zxid})
        else:
            print_line(f"deleted {shorten(path)}")

    run_client(options, action, path)
