"""Applies entries from a file and prints what came of them. Run in processes that differ in
everything which must not matter: `python -m tests.property.core_replay FILE REBUILD_EVERY`."""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path

import msgspec

from coordsvc.core.machine import Machine, decode_entry
from coordsvc.core.state import State
from tests.unit.core.harness import TERM


def replay(payloads: list[bytes], rebuild_every: int) -> str:
    """A hash of every result, change and digest, and of the records at the end."""
    machine = Machine()
    seen = sha256()
    for count, payload in enumerate(payloads, start=1):
        applied = machine.apply_entry(decode_entry(payload), TERM)
        seen.update(msgspec.msgpack.encode(applied))
        seen.update(machine.digest().to_bytes(8, "big"))
        if rebuild_every and count % rebuild_every == 0:
            machine = Machine(State.from_records(list(machine.state.export_records())))
    seen.update(msgspec.msgpack.encode(list(machine.state.export_records())))
    return seen.hexdigest()


def main(file_path: str, rebuild_every: str) -> None:
    payloads = msgspec.msgpack.decode(Path(file_path).read_bytes(), type=list[bytes])
    print(replay(payloads, int(rebuild_every)))


if __name__ == "__main__":
    main(*sys.argv[1:])
