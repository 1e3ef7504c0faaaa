"""The service Cluster: what operators ask of the cluster itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from coordsvc import __version__
from coordsvc.errors import BadArgumentsError, NotCaughtUpError, UnimplementedError
from coordsvc.server import convert
from coordsvc.server.grpc_door import Context, Handler, seconds_left
from coordsvc.server.members import Members
from coordsvc.server.pipeline import MIN_ZXID_WAIT_S_MAX
from coordsvc.server.replica_port import ReplicaPort
from coordsvc.v1 import cluster_pb2, common_pb2


class ClusterService:
    """`header(0)` makes the header of a response that is no write's."""

    def __init__(
        self,
        replica: ReplicaPort,
        members: Members,
        header: Callable[[int], common_pb2.ResponseHeader],
    ) -> None:
        self._replica = replica
        self._members = members
        self._header = header

    @property
    def methods(self) -> Mapping[str, Handler]:
        return {
            "Status": self.status,
            "Members": self.members,
            "TransferLeadership": self.transfer_leadership,
            "Digest": self.digest,
        }

    async def status(
        self, request: cluster_pb2.StatusRequest, context: Context
    ) -> cluster_pb2.StatusResponse:
        convert.check_features(request.required_features)
        return cluster_pb2.StatusResponse(
            header=self._header(0),
            version=__version__,
            features=convert.FEATURES,
            replicas=self._members.replicas(),
        )

    async def members(
        self, request: cluster_pb2.MembersRequest, context: Context
    ) -> cluster_pb2.MembersResponse:
        convert.check_features(request.required_features)
        return cluster_pb2.MembersResponse(
            header=self._header(0),
            members=[
                cluster_pb2.Member(
                    id=replica_id,
                    peer_address=self._members.peer_address(replica_id),
                    client_address=self._members.client_address(replica_id),
                    is_voter=True,
                )
                for replica_id in self._members.ids
            ],
        )

    async def transfer_leadership(
        self, request: cluster_pb2.TransferLeadershipRequest, context: Context
    ) -> cluster_pb2.TransferLeadershipResponse:
        convert.check_features(request.required_features)
        wanted = request.to_replica_id
        if wanted and wanted not in self._members.ids:
            raise BadArgumentsError(f"there is no replica {wanted}")
        if not wanted or wanted != self._replica.leader_id:
            await self._hand_over(wanted)
        return cluster_pb2.TransferLeadershipResponse(
            header=self._header(0), leader_id=self._replica.leader_id or 0
        )

    async def _hand_over(self, wanted: int) -> None:
        if not self._replica.is_leader:
            leader = self._replica.leader_id
            where = f"replica {leader}" if leader is not None else "no replica known here"
            raise UnimplementedError(f"only the leader can hand over; ask it: {where}")
        if wanted:
            raise UnimplementedError("the leader chooses its successor itself: leave it out")
        if len(self._members.ids) < 2:
            raise BadArgumentsError("there is no other replica")
        if not await self._replica.hand_over():
            raise NotCaughtUpError("no replica was ready to take over")

    async def digest(
        self, request: cluster_pb2.DigestRequest, context: Context
    ) -> cluster_pb2.DigestResponse:
        convert.check_features(request.required_features)
        if request.min_zxid < 0:
            raise BadArgumentsError(f"min_zxid is {request.min_zxid}; it must not be negative")
        wait_s = min(seconds_left(context), MIN_ZXID_WAIT_S_MAX)
        deadline = self._replica.clock.monotonic() + wait_s
        await self._replica.wait_applied(request.min_zxid, deadline)
        machine = self._replica.machine
        return cluster_pb2.DigestResponse(
            header=self._header(0), zxid=machine.state.zxid, digest=machine.digest()
        )
