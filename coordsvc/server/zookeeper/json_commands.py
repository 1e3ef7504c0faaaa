"""What ZooKeeper's AdminServer tells below /commands/: JSON, with its names and keys.

They are there whether or not there is a port for ZooKeeper's clients; without one there are no
connections. Nothing can be changed by asking.

Ref: ZooKeeper Administrator's Guide, "The AdminServer"; server/admin/Commands.java.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeAlias

import msgspec

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

Json: TypeAlias = dict[str, object]

ROOT: Final = "/commands"


@dataclass(frozen=True, slots=True)
class Page:
    status: HTTPStatus
    body: bytes


@dataclass(frozen=True, slots=True)
class _Command:
    """`names`: the first is the one that an answer gives. `needs_serving`: while this replica
    serves nobody, it says just that."""

    names: tuple[str, ...]
    run: Callable[[Monitored], Json]
    needs_serving: bool = True


def page(name: str, about: Monitored | None) -> Page:
    """The answer to `/commands/NAME`; `name` empty: to `/commands`, which lists them. `about`
    None: the data is not loaded."""
    command = _BY_NAME.get(name)
    if name and command is None:
        return _page({}, name, f"Unknown command: {name}", HTTPStatus.NOT_FOUND)
    if about is None:
        title = command.names[0] if command is not None else ""
        return _page({}, title, NOT_SERVING, HTTPStatus.SERVICE_UNAVAILABLE)
    if command is None:
        return _page({"commands": [each.names[0] for each in _COMMANDS]}, "commands")
    if command.needs_serving and not about.is_ready():
        # Not 503: it is not one at ZooKeeper either.
        return _page({}, command.names[0], NOT_SERVING)
    return _page(command.run(about), command.names[0])


def _page(
    content: Json, command: str, error: str | None = None, status: HTTPStatus = HTTPStatus.OK
) -> Page:
    body = msgspec.json.encode({**content, "command": command, "error": error})
    return Page(status, msgspec.json.format(body, indent=2) + b"\n")


# --------------------------------------------------------------------------------- the commands


def _nothing(about: Monitored) -> Json:
    return {}


def _server_stats(about: Monitored) -> Json:
    return _server(about, about.facts())


def _stats(about: Monitored) -> Json:
    facts = about.facts()
    return {**_server(about, facts), **_connections_of(about, facts, _brief)}


def _server(about: Monitored, facts: DoorFacts) -> Json:
    traffic = facts.traffic
    return {
        "version": full_version(),
        "read_only": False,
        "server_stats": {
            "packets_sent": traffic.sent,
            "packets_received": traffic.received,
            "server_state": about.mode,
            "min_latency": int(traffic.latency_ms_min),
            "avg_latency": average_ms(traffic),
            "max_latency": int(traffic.latency_ms_max),
            "outstanding_requests": facts.outstanding,
            "last_processed_zxid": about.state.zxid,
            "num_alive_client_connections": len(facts.connections),
            "uptime": about.uptime_ms,
            "provider_null": False,
        },
        "node_count": len(about.state.znodes),
    }


def _monitor(about: Monitored) -> Json:
    return dict(monitored_values(about))


def _configuration(about: Monitored) -> Json:
    """The settings that ZooKeeper has too, and no others: some are secret."""
    config, cluster = about.config, about.config.cluster
    return {
        "client_port": about.port,
        "data_dir": config.data_dir,
        "data_log_dir": config.data_dir,
        "tick_time": cluster.tick_ms,
        "max_client_cnxns": config.limits.connections_per_address_max,
        "min_session_timeout": cluster.session_timeout_ms_min,
        "max_session_timeout": cluster.session_timeout_ms_max,
        "server_id": config.replica_id,
    }


def _connections(about: Monitored) -> Json:
    return _connections_of(about, about.facts(), _whole)


def _dump(about: Monitored) -> Json:
    """When sessions expire is not told: only the leader counts that, as ZooKeeper's does."""
    listed = dump(about)
    content: Json = {
        "expiry_time_to_session_ids": {},
        "session_id_to_ephemeral_paths": listed.ephemerals,
    }
    return _noted(content, listed.ephemerals_note)


def _watch_summary(about: Monitored) -> Json:
    summary = watch_summary(about)
    content: Json = {
        "num_connections": summary.connections,
        "num_paths": summary.paths,
        "num_total_watches": summary.watches,
    }
    return _noted(content, summary.note)


def _noted(content: Json, note: str) -> Json:
    return {**content, "note": note} if note else content


def _is_read_only(about: Monitored) -> Json:
    return {"read_only": False}


def _environment(about: Monitored) -> Json:
    return dict(environment())


_COMMANDS: Final = (
    _Command(("configuration", "conf", "config"), _configuration),
    _Command(("connections", "cons"), _connections),
    _Command(("dump",), _dump),
    _Command(("environment", "env", "envi"), _environment, needs_serving=False),
    _Command(("is_read_only", "isro"), _is_read_only),
    _Command(("monitor", "mntr"), _monitor),
    _Command(("ruok",), _nothing),
    _Command(("server_stats", "srvr"), _server_stats),
    _Command(("stats", "stat"), _stats),
    _Command(("watch_summary", "wchs"), _watch_summary),
)
"""In the order of their names, in which they are listed."""

_BY_NAME: Final[Mapping[str, _Command]] = {
    name: command for command in _COMMANDS for name in command.names
}

# ---------------------------------------------------------------------------------- connections


def _connections_of(
    about: Monitored, facts: DoorFacts, shown: Callable[[ConnectionFacts], Json]
) -> Json:
    """With TLS all are secure, without none."""
    connections = [shown(each) for each in facts.connections]
    if about.config.has_tls:
        return {"connections": [], "secure_connections": connections}
    return {"connections": connections, "secure_connections": []}


def _brief(connection: ConnectionFacts) -> Json:
    return {
        "remote_socket_address": str(Address(connection.host, connection.port)),
        "interest_ops": READ_INTEREST,
        "outstanding_requests": connection.outstanding,
        "packets_received": connection.traffic.received,
        "packets_sent": connection.traffic.sent,
    }


def _whole(connection: ConnectionFacts) -> Json:
    traffic = connection.traffic
    return {
        **_brief(connection),
        "session_id": connection.session_id,
        "last_operation": connection.last_operation,
        "established": connection.established_ms,
        "session_timeout": connection.timeout_ms,
        "last_cxid": connection.last_xid,
        "last_zxid": connection.last_zxid,
        "last_response_time": connection.last_response_ms,
        "last_latency": int(traffic.latency_ms_last),
        "min_latency": int(traffic.latency_ms_min),
        "avg_latency": int(traffic.latency_ms_average),
        "max_latency": int(traffic.latency_ms_max),
    }
