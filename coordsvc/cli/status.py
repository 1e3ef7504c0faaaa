"""`coordsvc status`: who is in the cluster, who leads, who lags."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coordsvc.cli.client_options import ClientOptions, client_options
from coordsvc.cli.output import print_json, print_table
from coordsvc.cli.run_client import run_client

if TYPE_CHECKING:
    from coordsvc.client.unary import UnaryClient
    from coordsvc.v1.cluster_pb2 import Replica, StatusResponse

HEADER = ("ID", "ROLE", "ADDRESS", "PEERS AT", "TERM", "ZXID", "LAG", "SESSIONS", "UP", "VERSION")


@click.command("status", short_help="Show the cluster's replicas.")
@client_options
def status(options: ClientOptions) -> None:
    """Show the cluster's replicas as one of them sees them: the first of --endpoints that answers.

    It answers without a quorum, too.
    """

    async def action(client: UnaryClient) -> None:
        answer = await client.status()
        if options.as_json:
            print_json(_as_json(answer))
        else:
            print_table([_row(replica) for replica in answer.replicas], HEADER)

    run_client(options, action)


def role_name(role: int) -> str:
    """`leader`, `follower`, ...; `unknown` for one that this version has no name for."""
    from coordsvc.v1.cluster_pb2 import ReplicaRole

    if role == ReplicaRole.REPLICA_ROLE_UNSPECIFIED or role not in ReplicaRole.values():
        return "unknown"
    return ReplicaRole.Name(ReplicaRole.ValueType(role)).removeprefix("REPLICA_ROLE_").lower()


def _row(replica: Replica) -> tuple[str, ...]:
    return (
        str(replica.id),
        role_name(replica.role) if replica.reachable else "-",
        replica.client_address or "-",
        replica.peer_address or "-",
        str(replica.term or "-"),
        str(replica.applied_zxid),
        str(replica.lag),
        str(replica.sessions),
        "yes" if replica.reachable else "NO",
        replica.version or "-",
    )


def _as_json(answer: StatusResponse) -> dict[str, object]:
    return {
        "answered_by": answer.header.replica_id,
        "cluster_id": f"{answer.header.cluster_id:016x}",
        "zxid": answer.header.zxid,
        "version": answer.version,
        "features": list(answer.features),
        "replicas": [
            {
                "id": replica.id,
                "role": role_name(replica.role),
                "client_address": replica.client_address,
                "peer_address": replica.peer_address,
                "term": replica.term,
                "applied_zxid": replica.applied_zxid,
                "lag": replica.lag,
                "sessions": replica.sessions,
                "reachable": replica.reachable,
                "version": replica.version,
            }
            for replica in answer.replicas
        ],
    }
