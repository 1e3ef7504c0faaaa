"""Four-letter words: which are answered, and the form of the answers.

Numbers become #, addresses @; of `mntr` the names of the metrics are compared, each as a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.differential.case import Group, Step, differs
from tests.differential.wire import Closed
from tests.differential.world import DEFAULT_WORDS, LEADER, World

GROUP = Group("words")

_FORMS = (
    (re.compile(r"Zookeeper version: .*"), "Zookeeper version: ..."),
    (re.compile(r"0x[0-9a-f]+"), "0x#"),
    (re.compile(r"/?\[?[0-9a-f:.]*[0-9]\]?:[0-9]+\b"), "@"),
    (re.compile(r"(?<![a-z_])-?[0-9]+(\.[0-9]+)?"), "#"),
    (re.compile(r"Mode: (leader|follower)"), "Mode: one of several"),
)


def answer(world: World, word: bytes, server: int | None = None) -> str:
    link = world.open("word", server)
    try:
        link.wire.send(word)
    except Closed:
        return ""
    return link.wire.rest().decode()


def form(text: str) -> list[str]:
    """Each kind of line once."""
    lines = []
    for line in text.splitlines():
        for pattern, replacement in _FORMS:
            line = pattern.sub(replacement, line)
        if line not in lines:
            lines.append(line)
    return lines


def word(name: bytes, server: int | None = None, of: Callable[[str], list[str]] = form) -> Step:
    where = " of a server with the default words" if server is not None else ""
    return Step(f"{name.decode()}{where}", lambda world: of(answer(world, name, server)))


def keys(text: str) -> list[str]:
    return sorted(re.split("[\t=]", line)[0] for line in text.splitlines())


def some_keys(*wanted: str) -> Callable[[str], list[str]]:
    return lambda text: [each for each in keys(text) if each in wanted] or ["none of them"]


def connection_fields(text: str) -> list[str]:
    """The names within the brackets of a line of `cons` that has a session."""
    lines = [line for line in text.splitlines() if "sid=" in line]
    return re.findall("([a-z]+)=", lines[0]) if lines else []


METRICS = (
    "zk_approximate_data_size",
    "zk_avg_latency",
    "zk_ephemerals_count",
    "zk_global_sessions",
    "zk_local_sessions",
    "zk_max_file_descriptor_count",
    "zk_max_latency",
    "zk_min_latency",
    "zk_num_alive_connections",
    "zk_open_file_descriptor_count",
    "zk_outstanding_requests",
    "zk_packets_received",
    "zk_packets_sent",
    "zk_quorum_size",
    "zk_server_state",
    "zk_uptime",
    "zk_version",
    "zk_watch_count",
    "zk_znode_count",
)
ITS_OWN = ("zk_jvm_pause_time_ms", "zk_peer_state", "zk_response_packet_cache_hits")

for name in (b"ruok", b"isro", b"srvr", b"wchs"):
    GROUP.case(name.decode(), word(name))
GROUP.case("stat", word(b"stat"))
GROUP.case("mntr", word(b"mntr", of=some_keys(*METRICS)))
GROUP.case(
    "mntr: metrics of its own",
    differs(
        "words-form",
        word(b"mntr", of=some_keys(*ITS_OWN)),
        zookeeper="zk_peer_state",
        coordsvc="none of them",
    ),
)
GROUP.case(
    "conf",
    differs(
        "words-form",
        word(b"conf", of=keys),
        zookeeper="clientPort\nclientPortListenBacklog\ndataDir\ndataDirSize",
        coordsvc="clientPort\ndataDir\ndataLogDir",
    ),
)
GROUP.case(
    "cons",
    word(b"cons", of=connection_fields),
)
GROUP.case(
    "dump",
    differs(
        "words-form",
        word(b"dump"),
        zookeeper="Connections Sets (#)/(#):",
        coordsvc="Connections dump:\n\tip: @ sessionId: #x#",
    ),
)
for name in (b"envi", b"crst", b"srst", b"dirs", b"wchc", b"wchp", b"gtmk", b"hash"):
    GROUP.case(name.decode(), word(name, of=lambda text: ["answered" if text else "closed"]))
for name in (b"RUOK", b"ruo!", b"abcd", b"    "):
    GROUP.case(f"no word: {name.decode()!r}", word(name))
GROUP.case("more behind a word", word(b"ruok\r\n"), word(b"ruokruok"))
GROUP.case(
    "srvr of the leader",
    differs(
        "words-form",
        word(b"srvr", LEADER),
        zookeeper="Node count: #\nProposal sizes last/min/max: #/#/#",
        coordsvc="Node count: #",
    ),
)
GROUP.case("by default: srvr", word(b"srvr", DEFAULT_WORDS, of=lambda text: form(text)[:9]))
for name in (b"ruok", b"stat", b"isro", b"conf", b"mntr"):
    GROUP.case(f"by default: {name.decode()}", word(name, DEFAULT_WORDS))
