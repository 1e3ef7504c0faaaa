"""Runs one client command: the event loop, the client, and what is said when it fails."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from coordsvc.cli.client_options import ClientOptions
from coordsvc.cli.failure import describe_failure
from coordsvc.errors import BadArgumentsError, CoordError
from coordsvc.exit_status import ExitStatus

if TYPE_CHECKING:
    from coordsvc.client.unary import UnaryClient

INTERRUPTED = 130
"""What shells say of a program that Ctrl-C ended."""


def run_client(
    options: ClientOptions,
    action: Callable[[UnaryClient], Awaitable[None]],
    path: str | None = None,
) -> None:
    """As `run_async`, for what needs no session: `action` gets a client for unary calls."""

    async def run() -> None:
        from coordsvc.client.unary import UnaryClient  # here: --help should not wait for grpc

        async with UnaryClient(options.config) as client:
            await action(client)

    run_async(options, run, path)


def run_async(
    options: ClientOptions, action: Callable[[], Coroutine[Any, Any, None]], path: str | None
) -> None:
    """Ends the process unless `action` succeeds; an error becomes one line on standard error."""
    # gRPC's own remarks about connections would stand between the user and that line.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        asyncio.run(action())
    except CoordError as error:
        fail(error, options, path)
    except UnicodeEncodeError:
        fail(BadArgumentsError("not valid UTF-8"), options, path)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


@asynccontextmanager
async def until_output_closes() -> AsyncIterator[None]:
    """Within it, BrokenPipeError as soon as the program that standard output is piped to has ended:
    one that waits for something to print would otherwise outlive it."""
    try:
        output = sys.stdout.fileno()
        is_pipe = stat.S_ISFIFO(os.fstat(output).st_mode)
    except (OSError, ValueError):
        is_pipe = False  # No file at all.
    if not is_pipe:
        yield
        return
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    is_closed = False

    def closed() -> None:
        nonlocal is_closed
        is_closed = True
        loop.remove_reader(output)
        task.cancel()

    # Nothing is ever to be read at this end: it becomes readable when the other end is gone.
    loop.add_reader(output, closed)
    try:
        yield
    except asyncio.CancelledError:
        if is_closed:
            raise BrokenPipeError(errno.EPIPE, "standard output was closed") from None
        raise
    finally:
        loop.remove_reader(output)


def fail(error: CoordError, options: ClientOptions, path: str | None) -> None:
    """Say why, and end the process."""
    click.echo(describe_failure(error, path, as_json=options.as_json), err=True)
    sys.exit(int(ExitStatus.REFUSED))
