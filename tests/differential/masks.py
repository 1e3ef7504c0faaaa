"""What may differ between two servers that behave alike, made equal.

Zxids become their rank among all that a case has shown: z1 < z2 < ...; what is equal stays equal.
Sessions become s1, s2, ... in the order in which the case met them. The case's own folder becomes
`~`. Times become `now`, if they are of the last hour and in order. Everything else stays literal.
"""

from __future__ import annotations

import re
import time

from coordsvc.testing.zookeeper_records import Stat

HOUR_MS = 3_600_000

_ZXID = re.compile("\0([0-9]+)\0")


def zxid_mark(zxid: int) -> str:
    """To be replaced by its rank when the case is over; 0 and -1 mean something by themselves."""
    return f"\0{zxid}\0" if zxid > 0 else str(zxid)


def rank_zxids(results: list[list[str]]) -> list[list[str]]:
    """Of all steps of a case."""
    shown = {int(each) for lines in results for line in lines for each in _ZXID.findall(line)}
    ranks = {zxid: f"z{rank}" for rank, zxid in enumerate(sorted(shown), 1)}
    return [
        [_ZXID.sub(lambda match: ranks[int(match[1])], line) for line in lines] for lines in results
    ]


class Sessions:
    """Names of session ids."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def name(self, session_id: int) -> str:
        if session_id == 0:
            return "0"
        return self._names.setdefault(session_id, f"s{len(self._names) + 1}")


def times(created_ms: int, modified_ms: int) -> str:
    now_ms = time.time() * 1000
    is_recent = abs(now_ms - created_ms) < HOUR_MS and abs(now_ms - modified_ms) < HOUR_MS
    if is_recent and created_ms <= modified_ms:
        return "now"
    return f"{created_ms},{modified_ms}"


def stat_text(stat: Stat, sessions: Sessions) -> str:
    zxids = ",".join(map(zxid_mark, (stat.czxid, stat.mzxid, stat.pzxid)))
    versions = f"{stat.version},{stat.cversion},{stat.aversion}"
    return (
        f"stat(c,m,p={zxids} times={times(stat.ctime_ms, stat.mtime_ms)} v,cv,av={versions}"
        f" owner={sessions.name(stat.ephemeral_owner)} size={stat.data_length}"
        f" children={stat.num_children})"
    )
