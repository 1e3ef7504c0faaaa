"""What consensus tells the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coordsvc.core.commands import AppliedEntry


@dataclass
class Hooks:
    """All are called on the loop, in apply order. The answers to a slice's writes come after
    `on_applied` of all its entries; `on_cluster_id` comes once, before anything is applied after
    the cluster's name; `on_leading` when the leader's own first entry is applied; `on_installed`
    when a snapshot was installed on disk: this replica has stopped taking part, and its state must
    be read from disk again; `on_fatal` ends the process. `on_decided` is for measuring: (seconds
    from sending to applying, how many writes), for each own batch."""

    on_applied: Callable[[AppliedEntry], None] = lambda applied: None
    on_decided: Callable[[float, int], None] = lambda seconds, writes: None
    on_leading: Callable[[int], None] = lambda term: None
    on_not_leading: Callable[[], None] = lambda: None
    on_turn: Callable[[float], None] = lambda now: None
    on_cluster_id: Callable[[bytes], None] = lambda cluster_id: None
    on_installed: Callable[[], None] = lambda: None
    on_fatal: Callable[[BaseException], None] = lambda error: None
