"""The unary methods of the API, as a table: name, messages, and whether it changes anything.

Written against the messages, not the generated stubs: a call is one entry here and one line where
it is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from coordsvc.v1 import cluster_pb2 as cluster
from coordsvc.v1 import coordination_pb2 as coordination

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)

COORDINATION = "/coordsvc.v1.Coordination/"
CLUSTER = "/coordsvc.v1.Cluster/"


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, ResponseT]):
    """One unary call. `is_write`: its outcome matters when no answer comes. An OpenSession may be
    repeated blindly (the first session expires by itself), and so may a Heartbeat."""

    name: str
    request_type: type[RequestT]
    response_type: type[ResponseT]
    is_write: bool


OPEN_SESSION = Method(
    COORDINATION + "OpenSession",
    coordination.OpenSessionRequest,
    coordination.OpenSessionResponse,
    is_write=False,
)
HEARTBEAT = Method(
    COORDINATION + "Heartbeat",
    coordination.HeartbeatRequest,
    coordination.HeartbeatResponse,
    is_write=False,
)
CLOSE_SESSION = Method(
    COORDINATION + "CloseSession",
    coordination.CloseSessionRequest,
    coordination.CloseSessionResponse,
    is_write=True,
)
CREATE = Method(
    COORDINATION + "Create",
    coordination.CreateRequest,
    coordination.CreateResponse,
    is_write=True,
)
DELETE = Method(
    COORDINATION + "Delete",
    coordination.DeleteRequest,
    coordination.DeleteResponse,
    is_write=True,
)
SET_DATA = Method(
    COORDINATION + "SetData",
    coordination.SetDataRequest,
    coordination.SetDataResponse,
    is_write=True,
)
MULTI = Method(
    COORDINATION + "Multi",
    coordination.MultiRequest,
    coordination.MultiResponse,
    is_write=True,
)
EXISTS = Method(
    COORDINATION + "Exists",
    coordination.ExistsRequest,
    coordination.ExistsResponse,
    is_write=False,
)
GET_DATA = Method(
    COORDINATION + "GetData",
    coordination.GetDataRequest,
    coordination.GetDataResponse,
    is_write=False,
)
GET_CHILDREN = Method(
    COORDINATION + "GetChildren",
    coordination.GetChildrenRequest,
    coordination.GetChildrenResponse,
    is_write=False,
)
SYNC = Method(
    COORDINATION + "Sync",
    coordination.SyncRequest,
    coordination.SyncResponse,
    is_write=False,
)
STATUS = Method(CLUSTER + "Status", cluster.StatusRequest, cluster.StatusResponse, is_write=False)
DIGEST = Method(CLUSTER + "Digest", cluster.DigestRequest, cluster.DigestResponse, is_write=False)

SESSION_STREAM = COORDINATION + "Session"
WATCH_STREAM = COORDINATION + "Watch"
