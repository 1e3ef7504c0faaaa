"""How many connections one address may have: one faulty client must not take them all.

gRPC tells nobody when a connection comes or goes, so a connection counts here while a call or a
stream of it is under way. A connection that does nothing is not seen, and takes little.
"""

from __future__ import annotations

from coordsvc.server.config_model import LimitsConfig
from coordsvc.server.limits import refusal


class Connections:
    """`enter(peer)` when a call begins, `leave(peer)` when it ends, if `enter` did not raise.
    `peer` is what gRPC calls the other side, such as `ipv4:10.0.0.1:5555`."""

    def __init__(self, limits: LimitsConfig) -> None:
        self._per_address_max = limits.connections_per_address_max
        self._calls: dict[str, int] = {}
        self._per_address: dict[str, int] = {}

    @property
    def most_of_an_address(self) -> int:
        """Connections of the address that has most."""
        return max(self._per_address.values(), default=0)

    def enter(self, peer: str) -> None:
        """Raises LimitExceededError for a new connection of an address that has enough. Those it
        has go on, whatever they ask for."""
        calls = self._calls.get(peer, 0)
        if not calls:
            self._add(peer)
        self._calls[peer] = calls + 1

    def leave(self, peer: str) -> None:
        calls = self._calls[peer] - 1
        if calls:
            self._calls[peer] = calls
            return
        del self._calls[peer]
        address = _address_of(peer)
        left = self._per_address[address] - 1
        if left:
            self._per_address[address] = left
        else:
            del self._per_address[address]

    def _add(self, peer: str) -> None:
        address = _address_of(peer)
        count = self._per_address.get(address, 0)
        if count >= self._per_address_max:
            raise refusal(
                "connections_per_address",
                f"your address has {count} connections here",
                self._per_address_max,
            )
        self._per_address[address] = count + 1


def _address_of(peer: str) -> str:
    """`ipv4:ADDRESS:PORT` and `ipv6:%5BADDRESS%5D:PORT` without the port. What has no port, such
    as a socket of this machine, has itself for an address."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
