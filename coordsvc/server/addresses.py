"""Host and port pairs as the configuration writes them. Resolves no names."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

REPLICA_ID_MAX = 2**31 - 1
"""ResponseHeader.replica_id is an int32."""


class Address(NamedTuple):
    """Where to listen or dial. An IPv6 host is held without its brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it. A name other than localhost counts as far away:
        where it leads is not this program's to know."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_wildcard(self) -> bool:
        """Whether it means every interface, so that nobody can dial it as it stands."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """`HOST:PORT` or `[IPV6]:PORT`. Raises ValueError with what is wrong."""
    host, separator, port_text = text.strip().rpartition(":")
    if not separator or not host:
        raise ValueError(f"{text!r} is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address needs brackets, as in [::1]:7401")
    if any(character.isspace() or character in "/[]@," for character in host):
        raise ValueError(f"{text!r}: {host!r} is not a host name")
    if not port_text.isascii() or not port_text.isdecimal() or int(port_text) > 65535:
        raise ValueError(f"{text!r}: {port_text!r} is not a port (0 to 65535)")
    return Address(host, int(port_text))


def parse_peers(text: str) -> dict[int, Address]:
    """`1=HOST:PORT,2=HOST:PORT,...`, sorted by id; empty text is no peers. Raises ValueError."""
    peers: dict[int, Address] = {}
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        id_text, separator, address_text = part.partition("=")
        id_text = id_text.strip()
        if not separator or not id_text.isascii() or not id_text.isdecimal():
            raise ValueError(f"{part!r} is not ID=HOST:PORT")
        replica_id = int(id_text)
        if not 1 <= replica_id <= REPLICA_ID_MAX:
            raise ValueError(f"{part!r}: replica ids are 1 to {REPLICA_ID_MAX}")
        if replica_id in peers:
            raise ValueError(f"replica {replica_id} is named twice")
        address = parse_address(address_text)
        if address.port == 0 or address.is_wildcard:
            raise ValueError(f"{part!r}: nobody can dial {address}")
        if address in peers.values():
            raise ValueError(f"{part!r}: another replica has this address")
        peers[replica_id] = address
    return dict(sorted(peers.items()))
