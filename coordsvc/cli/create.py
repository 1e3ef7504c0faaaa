"""`coordsvc create`: makes a znode; an ephemeral one for as long as the command runs."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import click

from coordsvc.cli.client_options import ClientOptions, client_options, read_data
from coordsvc.cli.failure import shorten
from coordsvc.cli.output import note, print_json, print_line, stat_json
from coordsvc.cli.run_client import run_async, run_client

if TYPE_CHECKING:
    from coordsvc.client.records import Created
    from coordsvc.client.unary import UnaryClient
    from coordsvc.v1.coordination_pb2 import CreateResponse


@click.command("create", short_help="Create a znode.")
@click.argument("path")
@click.argument("data", required=False)
@click.option("-e", "--ephemeral", is_flag=True, help="Gone when this command ends; it runs on.")
@click.option("-s", "--sequential", is_flag=True, help="Append a number that rises by parent.")
@click.option("--container", is_flag=True, help="Gone some time after its last child.")
@click.option(
    "--ttl", "ttl_ms", type=click.IntRange(1, 2**40 - 1), metavar="MS",
    help="Gone when neither written to for so long nor a parent.",
)  # fmt: skip
@click.option(
    "--session-timeout", "session_timeout", type=click.FloatRange(0.001, 86_400), metavar="SECONDS",
    help="With -e: how long the znode outlives a command that was killed.  [default: the server's]",
)  # fmt: skip
@client_options
def create(
    options: ClientOptions,
    path: str,
    data: str | None,
    ephemeral: bool,
    sequential: bool,
    container: bool,
    ttl_ms: int | None,
    session_timeout: float | None,
) -> None:
    """Create the znode PATH and print its path.

    DATA "-" is standard input; without DATA the data is null, which is not the same as empty ("").
    DATA that starts with a dash goes last, behind "--". The parent must exist. With -e the command
    keeps a session and runs until it is interrupted.
    """
    kinds = [ephemeral, container, ttl_ms is not None]
    if sum(kinds) > 1:
        raise click.UsageError("-e, --container and --ttl exclude each other")
    if container and sequential:
        raise click.UsageError("there are no sequential containers")
    if session_timeout is not None and not ephemeral:
        raise click.UsageError("--session-timeout is for -e")
    payload = read_data(data)

    async def create_once(client: UnaryClient) -> None:
        from coordsvc.client.modes import create_mode

        mode = create_mode(
            ephemeral=False, sequence=sequential, container=container, ttl_ms=ttl_ms or 0
        )
        answer = await client.create(path, payload, mode=mode, ttl_ms=ttl_ms or 0)
        _print_created(answer, options, 0)

    async def create_and_stay() -> None:
        timeout_ms = round((session_timeout or 0) * 1000)
        await _hold_ephemeral(options, path, payload, sequential, timeout_ms)

    if ephemeral:
        run_async(options, create_and_stay, path)
    else:
        run_client(options, create_once, path)


async def _hold_ephemeral(
    options: ClientOptions, path: str, data: bytes | None, sequential: bool, timeout_ms: int
) -> None:
    """Until interrupted, or until the session is lost, which is raised."""
    from coordsvc.client.client import Client
    from coordsvc.client.records import SessionState

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    client = Client(
        config=options.config, session_timeout_ms=timeout_ms, client_name="coordsvc create"
    )
    async with client:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop.set)
        created = await client.create(path, data, ephemeral=True, sequence=sequential)
        _print_created(created, options, client.session_id)
        if not options.as_json:
            note(f"Session {client.session_id:#x} keeps {shorten(path)} alive; Ctrl-C ends both.")
        lost = asyncio.create_task(client.wait_for_state(SessionState.LOST))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({lost, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        lost.cancel()
        if client.failure is not None:
            raise client.failure


def _print_created(
    answer: CreateResponse | Created, options: ClientOptions, session_id: int
) -> None:
    if not options.as_json:
        print_line(answer.path)
        return
    value: dict[str, object] = {"path": answer.path, "stat": stat_json(answer.stat)}
    if session_id:
        value["session_id"] = session_id
    print_json(value)
