"""The numbers of ZooKeeper's client protocol, and how our error codes are told in it.

Ref: ZooKeeper ZooDefs.OpCode, KeeperException.Code, Watcher.Event, ClientCnxn.
"""

from __future__ import annotations

from typing import Final

from coordsvc.errors import ErrorCode

COMPATIBLE_VERSION: Final = "3.9.5"
"""The version of ZooKeeper whose behaviour is followed: what monitoring is told as `version`."""

PACKET_BYTES_MAX_DEFAULT: Final = 0xFFFFF
"""jute.maxbuffer: the largest packet that is taken."""

PASSWORD_BYTES: Final = 16

# ------------------------------------------------------------------------------ types of requests

CREATE: Final = 1
DELETE: Final = 2
EXISTS: Final = 3
GET_DATA: Final = 4
SET_DATA: Final = 5
GET_ACL: Final = 6
SET_ACL: Final = 7
GET_CHILDREN: Final = 8
SYNC: Final = 9
PING: Final = 11
GET_CHILDREN2: Final = 12
CHECK: Final = 13
MULTI: Final = 14
CREATE2: Final = 15
RECONFIG: Final = 16
CHECK_WATCHES: Final = 17
REMOVE_WATCHES: Final = 18
CREATE_CONTAINER: Final = 19
CREATE_TTL: Final = 21
MULTI_READ: Final = 22
AUTH: Final = 100
SET_WATCHES: Final = 101
SASL: Final = 102
GET_EPHEMERALS: Final = 103
GET_ALL_CHILDREN_NUMBER: Final = 104
SET_WATCHES2: Final = 105
ADD_WATCH: Final = 106
WHO_AM_I: Final = 107
CLOSE_SESSION: Final = -11
ERROR: Final = -1
"""In a multi's results: an operation that was not done."""

OPERATION_NAMES: Final = {
    CREATE: "CREA",
    DELETE: "DELE",
    EXISTS: "EXIS",
    GET_DATA: "GETD",
    SET_DATA: "SETD",
    GET_ACL: "GETA",
    SET_ACL: "SETA",
    GET_CHILDREN: "GETC",
    SYNC: "SYNC",
    PING: "PING",
    GET_CHILDREN2: "GETC",
    MULTI: "MULT",
    CREATE2: "CREA",
    CHECK_WATCHES: "CHKW",
    REMOVE_WATCHES: "REMW",
    CREATE_CONTAINER: "CREA",
    CREATE_TTL: "CREA",
    MULTI_READ: "MLTR",
    AUTH: "AUTH",
    SET_WATCHES: "SETW",
    GET_EPHEMERALS: "GETE",
    GET_ALL_CHILDREN_NUMBER: "GETACN",
    SET_WATCHES2: "STW2",
    ADD_WATCH: "ADDW",
    WHO_AM_I: "HOMI",
    CLOSE_SESSION: "CLOS",
}
"""As `cons` shows them. Ref: ZooKeeper FinalRequestProcessor, lastOp."""

# ------------------------------------------------------- xids that are no answer to a numbered one

NOTIFICATION_XID: Final = -1
PING_XID: Final = -2
AUTH_XID: Final = -4
SET_WATCHES_XID: Final = -8

# ------------------------------------------------------------------------------- codes of answers

OK: Final = 0
RUNTIME_INCONSISTENCY: Final = -2
"""Of an operation of a multi behind the one that was refused."""
MARSHALLING_ERROR: Final = -5
UNIMPLEMENTED: Final = -6
BAD_ARGUMENTS: Final = -8
NO_NODE: Final = -101
NO_AUTH: Final = -102
SESSION_EXPIRED: Final = -112
INVALID_ACL: Final = -114
AUTH_FAILED: Final = -115
SESSION_MOVED: Final = -118
NO_WATCHER: Final = -121
RECONFIG_DISABLED: Final = -123
QUOTA_EXCEEDED: Final = -125
THROTTLED: Final = -127

_OURS: Final = {
    ErrorCode.LIMIT_EXCEEDED: QUOTA_EXCEEDED,
}
"""What of our own codes has an equal in ZooKeeper's. The others end the connection: its client
goes to another replica, and takes what was under way for unknown."""


def code_of(code: int) -> int | None:
    """One of ErrorCode as ZooKeeper says it; None: it has no word for it."""
    if code < ErrorCode.NO_QUORUM:
        return -code
    return _OURS.get(ErrorCode(code))


# ------------------------------------------------------------------------------------- watches

SYNC_CONNECTED: Final = 3
"""The state that every notification carries."""

ADD_PERSISTENT: Final = 0
ADD_PERSISTENT_RECURSIVE: Final = 1

WATCHER_CHILDREN: Final = 1
WATCHER_DATA: Final = 2
WATCHER_ANY: Final = 3
WATCHER_PERSISTENT: Final = 4
WATCHER_PERSISTENT_RECURSIVE: Final = 5
