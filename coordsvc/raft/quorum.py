"""When do agreeing members suffice? One rule for votes, commits and rounds.

A replica that may have forgotten what it once promised (its disk was wiped, rolled back or cut
ambiguously) is *memoryless*: its word could contradict an earlier one of its own. So such words
count only where every member agrees, because then nobody is left to hold the contradicting one.
"""

from __future__ import annotations

from collections.abc import Collection


def is_quorum(members: int, agreeing: Collection[int], memoryless: Collection[int]) -> bool:
    """`agreeing` are the ids of those who agree, oneself included; `memoryless` those of them (or
    more) whose memory is in doubt."""
    if len(agreeing) == members:
        return True
    trusted = sum(1 for replica_id in agreeing if replica_id not in memoryless)
    return trusted > members // 2
