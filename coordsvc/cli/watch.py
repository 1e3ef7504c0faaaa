"""`coordsvc watch`: prints changes as they happen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from coordsvc.cli.client_options import ClientOptions, client_options
from coordsvc.cli.failure import code_name, shorten
from coordsvc.cli.output import data_json, note, print_json, print_line, printable, stat_json
from coordsvc.cli.run_client import run_async, until_output_closes

if TYPE_CHECKING:
    from coordsvc.client.records import WatchEvent, WatchGap
    from coordsvc.errors import CoordError

GAP_REASONS = {
    "HISTORY_TOO_OLD": "the cluster no longer remembers them",
    "BUFFER_OVERFLOW": "they came faster than they were taken",
    "OTHER_HISTORY": "it is another cluster now, or a restored one",
}


@click.command("watch", short_help="Print changes as they happen.")
@click.argument("path")
@click.option("-r", "--recursive", is_flag=True, help="Of everything below it, too.")
@click.option("--data", "include_data", is_flag=True, help="Also print what was written.")
@click.option(
    "--from-zxid", "from_zxid", type=click.IntRange(0, 2**63 - 1), metavar="N",
    help="Begin with the changes after this zxid.  [default: from now on]",
)  # fmt: skip
@client_options
def watch(
    options: ClientOptions, path: str, recursive: bool, include_data: bool, from_zxid: int | None
) -> None:
    """Print every change of the znode PATH and of its list of children, one per line, until
    interrupted: its zxid, what happened, and where. PATH need not exist.

    It goes on over the failure of replicas and misses nothing; where that cannot be helped it
    prints a line that says "gap". -o json prints one object per line.
    """

    async def action() -> None:
        from coordsvc.client.records import WatchEvent
        from coordsvc.client.watch_stream import WatchStream

        stream = WatchStream(
            options.config,
            path,
            recursive=recursive,
            include_data=include_data,
            start_after_zxid=from_zxid,
            on_interrupted=None if options.as_json else _note_interruption,
        )
        async with until_output_closes(), stream as changes:
            if not options.as_json:
                note(f"Watching {shorten(path)} from zxid {changes.zxid}; Ctrl-C ends it.")
            async for change in changes:
                if isinstance(change, WatchEvent):
                    _print_event(change, options.as_json, include_data)
                else:
                    _print_gap(change, options.as_json)

    run_async(options, action, path)


def _note_interruption(error: CoordError) -> None:
    note(f"Connection lost ({code_name(error)}); going on at the next replica.")


def _print_event(event: WatchEvent, as_json: bool, include_data: bool) -> None:
    if as_json:
        value: dict[str, object] = {
            "type": event.type.name,
            "path": event.path,
            "zxid": event.zxid,
            "last_of_zxid": event.is_last_of_zxid,
        }
        if event.stat is not None:
            value |= {**data_json(event.data), "stat": stat_json(event.stat)}
        print_json(value)
        return
    text = f"{event.zxid:>10}  {event.type.name.lower():<16}  {_on_one_line(event.path)}"
    if include_data and event.stat is not None:
        text += "  " + ("(null)" if event.data is None else _quoted(event.data))
    print_line(text)


def _print_gap(gap: WatchGap, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "type": "GAP",
                "after_zxid": gap.after_zxid,
                "resumed_at_zxid": gap.resumed_at_zxid,
                "reason": gap.reason.name,
            }
        )
        return
    reason = GAP_REASONS.get(gap.reason.name, "unknown reason")
    print_line(
        f"{gap.resumed_at_zxid:>10}  {'gap':<16}  changes after zxid {gap.after_zxid} are missing: "
        f"{reason}"
    )


def _on_one_line(path: str) -> str:
    """Whole, as it is the answer, but unable to act on a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in path)


def _quoted(data: bytes) -> str:
    return json.dumps(printable(data), ensure_ascii=False)
