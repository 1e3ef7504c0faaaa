"""The words that tools send to ZooKeeper's port instead of a connect request, and their answers.

An answer is text, and the connection is closed behind it. Its lines are ZooKeeper's, because they
are taken apart by programs; those about what is not known here are left out.

Ref: ZooKeeper Administrator's Guide, "The Four Letter Words"; server/command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final, TypeAlias

from coordsvc.server.addresses import Address
from coordsvc.server.zookeeper.monitoring import (
    NOT_SERVING,
    READ_INTEREST,
    Monitored,
    average_ms,
    dump,
    environment,
    full_version,
    monitored_values,
    watch_summary,
)
from coordsvc.server.zookeeper.statistics import ConnectionFacts, DoorFacts
from coordsvc.server.zookeeper.words import WORDS, Allowed, is_word, parse_allowed

__all__ = ["WORDS", "Allowed", "answer", "is_word", "parse_allowed"]

Lines: TypeAlias = Iterator[str]

# ------------------------------------------------------------------------------- the answers


def _srvr(about: Monitored) -> Lines:
    yield f"Zookeeper version: {full_version()}"
    yield from _server_lines(about, about.facts())


def _stat(about: Monitored) -> Lines:
    facts = about.facts()
    yield f"Zookeeper version: {full_version()}"
    yield "Clients:"
    for connection in facts.connections:
        yield f" {_address(connection)}[{READ_INTEREST}]({_counts(connection)})"
    yield ""
    yield from _server_lines(about, facts)


def _server_lines(about: Monitored, facts: DoorFacts) -> Lines:
    traffic = facts.traffic
    least, most = int(traffic.latency_ms_min), int(traffic.latency_ms_max)
    yield f"Latency min/avg/max: {least}/{average_ms(traffic)}/{most}"
    yield f"Received: {traffic.received}"
    yield f"Sent: {traffic.sent}"
    yield f"Connections: {len(facts.connections)}"
    yield f"Outstanding: {facts.outstanding}"
    yield f"Zxid: {about.state.zxid:#x}"
    yield f"Mode: {about.mode}"
    yield f"Node count: {len(about.state.znodes)}"


def _mntr(about: Monitored) -> Lines:
    for key, value in monitored_values(about).items():
        yield f"zk_{key}\t{value}"


def _conf(about: Monitored) -> Lines:
    config, cluster = about.config, about.config.cluster
    yield f"clientPort={-1 if config.has_tls else about.port}"
    yield f"secureClientPort={about.port if config.has_tls else -1}"
    yield f"dataDir={config.data_dir}"
    yield f"dataLogDir={config.data_dir}"
    yield f"tickTime={cluster.tick_ms}"
    yield f"maxClientCnxns={config.limits.connections_per_address_max}"
    yield f"minSessionTimeout={cluster.session_timeout_ms_min}"
    yield f"maxSessionTimeout={cluster.session_timeout_ms_max}"
    yield f"serverId={config.replica_id}"
    if config.peer_address is not None:
        # One port for what ZooKeeper has two for.
        yield f"electionPort={config.peer_address.port}"
        yield f"quorumPort={config.peer_address.port}"
        yield "peerType=0"
        yield "membership: "
        yield about.members_text().decode()


def _cons(about: Monitored) -> Lines:
    for connection in about.facts().connections:
        counts = _counts(connection) + _details(connection)
        yield f" {_address(connection)}[{READ_INTEREST}]({counts})"
    yield ""


def _dump(about: Monitored) -> Lines:
    listed = dump(about)
    yield "SessionTracker dump:"
    yield f"Global Sessions({listed.sessions}):"
    for session_id, timeout_ms in listed.timeouts_ms.items():
        yield f"{session_id:#x}\t{timeout_ms}ms"
    yield "ephemeral nodes dump:"
    yield f"Sessions with Ephemerals ({listed.sessions_with_ephemerals}):"
    for session_id, paths in listed.ephemerals.items():
        yield f"{session_id:#x}:"
        for path in paths:
            yield f"\t{path}"
    yield "Connections dump:"
    for each in about.facts().connections:
        yield f"\tip: {_address(each)} sessionId: {each.session_id:#x}"
    yield from filter(None, (listed.sessions_note, listed.ephemerals_note))


def _wchs(about: Monitored) -> Lines:
    summary = watch_summary(about)
    yield f"{summary.connections} connections watching {summary.paths} paths"
    yield f"Total watches:{summary.watches}"
    if summary.note:
        yield summary.note


def _envi(about: Monitored) -> Lines:
    pairs = environment().items()
    return chain(["Environment:"], (f"{key}={value}" for key, value in pairs))


_WITH_LINES: Final[dict[str, Callable[[Monitored], Lines]]] = {
    "srvr": _srvr,
    "stat": _stat,
    "mntr": _mntr,
    "conf": _conf,
    "cons": _cons,
    "dump": _dump,
    "wchs": _wchs,
    "envi": _envi,
}

assert WORDS == {*_WITH_LINES, "ruok", "isro"}


def answer(word: str, about: Monitored, allowed: Allowed) -> str:
    """The whole answer to one of ZooKeeper's words."""
    if word not in allowed:
        return f"{word} is not executed because it is not in the whitelist.\n"
    if word == "ruok":
        return "imok"
    if word == "isro":
        # No replica serves reads alone.
        return "rw" if about.is_ready() else "null"
    if word != "envi" and not about.is_ready():
        return f"{NOT_SERVING}\n"
    return "".join(f"{line}\n" for line in _WITH_LINES[word](about))


# -------------------------------------------------------------------------------- a connection


def _address(connection: ConnectionFacts) -> str:
    """Behind its slash ZooKeeper has the address, before it a name that it never looks up."""
    return f"/{Address(connection.host, connection.port)}"


def _counts(connection: ConnectionFacts) -> str:
    traffic = connection.traffic
    return f"queued={connection.outstanding},recved={traffic.received},sent={traffic.sent}"


def _details(connection: ConnectionFacts) -> str:
    """Nothing of a connection without a session."""
    if not connection.session_id:
        return ""
    traffic = connection.traffic
    last_xid = f",lcxid={connection.last_xid:#x}" if connection.last_xid >= 0 else ""
    return (
        f",sid={connection.session_id:#x},lop={connection.last_operation}"
        f",est={connection.established_ms},to={connection.timeout_ms}{last_xid}"
        f",lzxid={connection.last_zxid:#x},lresp={connection.last_response_ms}"
        f",llat={int(traffic.latency_ms_last)}"
        f",minlat={int(traffic.latency_ms_min)},avglat={int(traffic.latency_ms_average)}"
        f",maxlat={int(traffic.latency_ms_max)}"
    )
