"""`coordsvc bench`: how much a cluster does, and how long an operation takes."""

from __future__ import annotations

import asyncio

import click

from coordsvc.cli.client_options import ClientOptions, client_options, linearizable_option
from coordsvc.cli.output import note
from coordsvc.cli.run_client import run_async

CLIENTS_MAX = 10_000
IN_FLIGHT_MAX = 10_000
SECONDS_MAX = 600
"""Every answer's time is kept."""

DATA_BYTES_MAX = 1024 * 1024


@click.command("bench", short_help="Measure how much a cluster does.")
@click.option(
    "--operation", type=click.Choice(["set", "get", "mixed"]), default="set", show_default=True,
    help="What the clients ask for; mixed is a set and a get in turns.",
)  # fmt: skip
@click.option(
    "--clients", type=click.IntRange(1, CLIENTS_MAX), default=12, show_default=True, metavar="N",
    help="Each has a session, at the replicas in turns.",
)  # fmt: skip
@click.option(
    "--in-flight", type=click.IntRange(1, IN_FLIGHT_MAX), default=64, show_default=True,
    metavar="N", help="Operations that each client always has under way.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(0.1, SECONDS_MAX), default=10.0, show_default=True,
    metavar="N", help="That are measured, after a moment that is not.",
)  # fmt: skip
@click.option(
    "--data-bytes", type=click.IntRange(0, DATA_BYTES_MAX), default=100, show_default=True,
    metavar="N", help="Size of a znode's data.",
)  # fmt: skip
@click.option(
    "--path", default="/coordsvc-bench", show_default=True, metavar="PATH",
    help="Where the znodes are made: below PATH with something random behind it.",
)  # fmt: skip
@linearizable_option
@client_options
def bench(
    options: ClientOptions,
    operation: str,
    clients: int,
    in_flight: int,
    seconds: float,
    data_bytes: int,
    path: str,
    linearizable: bool,
) -> None:
    """Load the cluster, and print how many operations a second it does and how long they take.

    The cluster's other clients will notice. The load comes from this one process, through the
    Python client: what it says of its own CPU tells whether the cluster was measured at all. At the
    end every acknowledged set is looked for. The znodes are deleted, also after Ctrl-C.

    \b
    Exit status: 0 measured, and everything acknowledged is there
                 1 it could not be measured, or something acknowledged is missing
    """
    if linearizable and operation == "set":
        raise click.UsageError("--linearizable is for reads: --operation get, or mixed")

    async def action() -> None:
        from coordsvc.cli.bench_load import Load, Plan  # here: --help should not wait for grpc
        from coordsvc.cli.bench_report import Progress, print_outcome

        plan = Plan(operation, clients, in_flight, seconds, data_bytes, path, linearizable)
        progress = Progress(seconds)
        try:
            async with Load(plan, options.config) as load:
                outcome = await load.measure(progress)
        except asyncio.CancelledError:
            note("Interrupted; the znodes of this run are deleted.")
            raise
        finally:
            progress.close()
        print_outcome(plan, outcome, as_json=options.as_json)

    run_async(options, action, path)
