"""`coordsvc rejoin`: sets a damaged replica's state aside, so that it fetches it anew."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from coordsvc.exit_status import ExitStatus


@click.command("rejoin", short_help="Have a damaged replica fetch everything from the others.")
@click.argument("data_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--discard-only-copy", is_flag=True,
              help="Do so although no other replica has the state: it is given up.")  # fmt: skip
def rejoin(data_dir: Path, discard_only_copy: bool) -> None:
    """Set aside what is in the data directory DATA_DIR, with its replica stopped.

    The next start of the replica fetches everything from the others, of which a majority must be
    whole. Until then it does not count in elections. Nothing is deleted: DATA_DIR gets a folder
    with what was there. Killed in between, it can be run again.

    \b
    Exit status: 0 done    4 it is in use, no data directory, or holds the only copy
                 6 the disk failed
    """
    from coordsvc.storage.errors import DataDirRefusedError, DiskError
    from coordsvc.storage.files import FileSystem
    from coordsvc.storage.rejoin import rejoin as set_aside

    try:
        done = set_aside(str(data_dir), FileSystem(), discard_only_copy=discard_only_copy)
    except DataDirRefusedError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(int(ExitStatus.DATA_DIR_REFUSED))
    except DiskError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(int(ExitStatus.DISK))
    if done.moved:
        click.echo(f"set aside: {', '.join(done.moved)}, in {done.set_aside}")
    if done.meta is None:
        click.echo(
            "META was damaged or missing, so whose directory this is was lost. The next start makes"
            " it the replica's that --replica-id and --peers say. If that is the only one of its"
            " cluster, it begins with nothing: restore a backup instead."
        )
    elif done.meta.members == (done.meta.replica_id,):
        click.echo(f"replica {done.meta.replica_id} begins a new cluster when it is started")
    else:
        others = [str(i) for i in done.meta.members if i != done.meta.replica_id]
        click.echo(
            f"replica {done.meta.replica_id} fetches everything from the replicas"
            f" {', '.join(others)} when it is started"
        )
    if done.moved:
        click.echo("delete the folder once the replica has caught up: see coordsvc status")
