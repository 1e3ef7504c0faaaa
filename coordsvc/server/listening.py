"""Sockets that listen."""

from __future__ import annotations

import socket

from coordsvc.server.addresses import Address


def bind(address: Address) -> socket.socket:
    """A socket listening on `address`. Raises OSError when it is taken.

    SO_REUSEADDR lets a restarted process take the port of connections that are still closing; it
    does not let two processes listen on it. SO_REUSEPORT would, and is never set.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener
