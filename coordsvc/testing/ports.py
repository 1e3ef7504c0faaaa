"""Free TCP ports on 127.0.0.1 for servers started by tests."""

from __future__ import annotations

import random
import socket

FIRST, LAST = 15_000, 31_000
"""Below Linux's range of ports for outgoing connections, which would otherwise take a port between
the moment it was found free and the moment it is listened on."""

_given: set[int] = set()
_random = random.Random()


def free_port() -> int:
    """A port nobody listens on, never given twice by this process."""
    for _ in range(1_000):
        port = _random.randrange(FIRST, LAST)
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise RuntimeError(f"no free port between {FIRST} and {LAST}")


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
