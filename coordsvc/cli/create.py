"""`coordsvc create`: makes a znode; an ephemeral one for as long as the command runs."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import click

from coordsvc.cli.client_options import ClientOptions, client_options, read_data
from coordsvc.cli.failure import shorten
from coordsvc.cli.output import note, print_json, print_line, stat_json
from coordsvc.cli.run_client import run_client

if TYPE_CHECKING:
    from coordsvc.client.unary import UnaryClient
    from coordsvc.v1.common_pb2 import CreateMode
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
        mode = _mode(False, sequential, container, ttl_ms is not None)
        answer = await client.create(path, payload, mode=mode, ttl_ms=ttl_ms or 0)
        _print_created(answer, options, 0)

    async def create_and_stay(client: UnaryClient) -> None:
        timeout_ms = round((session_timeout or 0) * 1000)
        await _hold_ephemeral(client, options, path, payload, sequential, timeout_ms)

    run_client(options, create_and_stay if ephemeral else create_once, path)


async def _hold_ephemeral(
    client: UnaryClient,
    options: ClientOptions,
    path: str,
    data: bytes | None,
    sequential: bool,
    timeout_ms: int,
) -> None:
    """Until interrupted, or until the session is lost, which is raised."""
    from coordsvc.client.session import ClientSession

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    async with await ClientSession.open(client, timeout_ms, "coordsvc create") as session:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop.set)
        mode = _mode(True, sequential, False, False)
        _print_created(await session.create(path, data, mode=mode), options, session.session_id)
        if not options.as_json:
            note(f"Session {session.session_id:#x} keeps {shorten(path)} alive; Ctrl-C ends both.")
        lost = asyncio.create_task(session.wait_lost())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({lost, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if lost.done():
            raise lost.result()
        lost.cancel()


def _print_created(answer: CreateResponse, options: ClientOptions, session_id: int) -> None:
    if not options.as_json:
        print_line(answer.path)
        return
    value: dict[str, object] = {"path": answer.path, "stat": stat_json(answer.stat)}
    if session_id:
        value["session_id"] = session_id
    print_json(value)


def _mode(
    ephemeral: bool, sequential: bool, container: bool, has_ttl: bool
) -> CreateMode.ValueType:
    from coordsvc.v1 import common_pb2

    if container:
        return common_pb2.CREATE_MODE_CONTAINER
    if has_ttl:
        return (
            common_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL_WITH_TTL
            if sequential
            else common_pb2.CREATE_MODE_PERSISTENT_WITH_TTL
        )
    if ephemeral:
        return (
            common_pb2.CREATE_MODE_EPHEMERAL_SEQUENTIAL
            if sequential
            else common_pb2.CREATE_MODE_EPHEMERAL
        )
    return (
        common_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL
        if sequential
        else common_pb2.CREATE_MODE_PERSISTENT
    )
