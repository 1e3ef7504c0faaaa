"""All cases."""

from __future__ import annotations

from tests.differential.cases import (
    acls,
    catch_up,
    creates,
    last,
    multis,
    packets,
    paths,
    persistent,
    reads,
    sessions,
    taken_back,
    through_kazoo,
    watches,
    words,
)

GROUPS = [
    creates.GROUP,
    paths.GROUP,
    acls.GROUP,
    multis.GROUP,
    reads.GROUP,
    watches.GROUP,
    persistent.GROUP,
    taken_back.GROUP,
    catch_up.GROUP,
    sessions.GROUP,
    packets.GROUP,
    through_kazoo.GROUP,
    words.GROUP,
    last.GROUP,
]
