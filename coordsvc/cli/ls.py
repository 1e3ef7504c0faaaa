"""`coordsvc ls`: lists a znode's children."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coordsvc.cli.client_options import ClientOptions, client_options, linearizable_option
from coordsvc.cli.output import print_json, print_line, stat_json
from coordsvc.cli.run_client import run_client

if TYPE_CHECKING:
    from coordsvc.client.unary import UnaryClient


@click.command("ls", short_help="List a znode's children.")
@click.argument("path", default="/")
@linearizable_option
@client_options
def ls(options: ClientOptions, path: str, linearizable: bool) -> None:
    """List the names of the children of the znode PATH (the root if not given), sorted."""

    async def action(client: UnaryClient) -> None:
        from coordsvc.client.unary import consistency

        names: list[str] = []
        pages = client.get_children(path, consistency=consistency(linearizable))
        async for page in pages:
            stat = page.stat
            for child in page.children:
                if options.as_json:
                    names.append(child.name)
                else:
                    print_line(child.name)
        if options.as_json:
            print_json({"path": path, "children": names, "stat": stat_json(stat)})

    run_client(options, action, path)
