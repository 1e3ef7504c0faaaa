"""What the client hands out: plain, immutable values. No messages, no grpc.

Ref: ZooKeeper Programmer's Guide, for the words and the meaning of each field.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, IntEnum, IntFlag
from typing import NamedTuple


class Stat(NamedTuple):
    """The state of a znode. Times are Unix times in ms by the leader's clock; a zxid is the
    position of a change in the one order of all changes. `czxid` and the path name a znode for
    ever. `ephemeral_owner` is the session it lives as long as, 0 for every other kind."""

    czxid: int
    mzxid: int
    pzxid: int
    ctime_ms: int
    mtime_ms: int
    version: int
    cversion: int
    aversion: int
    ephemeral_owner: int
    data_length: int
    num_children: int


class Permission(IntFlag):
    """What an entry of an access control list permits."""

    READ = 1
    WRITE = 2
    CREATE = 4
    DELETE = 8
    ADMIN = 16
    ALL = 31


class Acl(NamedTuple):
    """Whoever `scheme` and `id` name may do what `permissions` (a sum of Permission) says."""

    permissions: int
    scheme: str
    id: str


OPEN_ACL = (Acl(int(Permission.ALL), "world", "anyone"),)
"""Anyone may do anything: what a znode has that is created without an ACL."""


class AuthId(NamedTuple):
    """An identity, as ACLs name it."""

    scheme: str
    id: str


class Guard(NamedTuple):
    """A write under it is refused with GuardFailedError unless the znode at `path` exists and was
    created at `czxid`. A lock's holder names its own lock znode here."""

    path: str
    czxid: int


class Created(NamedTuple):
    """`path` has the number that a sequential znode got."""

    path: str
    stat: Stat


class Data(NamedTuple):
    """`data` None is null, which is not empty. `zxid`: everything up to it was seen."""

    data: bytes | None
    stat: Stat
    zxid: int


class Child(NamedTuple):
    """`name` is the last component of its path. `stat` and `data` are None unless asked for; data
    also when it is null or may not be read."""

    name: str
    stat: Stat | None
    data: bytes | None


class ChildrenPage(NamedTuple):
    """One consistent state, at `zxid`; two pages may be of two. `stat` is the parent's."""

    children: tuple[Child, ...]
    stat: Stat
    zxid: int


class AclAnswer(NamedTuple):
    """A znode's ACL, in the order in which it was set, and its state."""

    acl: tuple[Acl, ...]
    stat: Stat


class WatchKind(Enum):
    """What a watch reports. The first three fire once."""

    DATA = 1
    EXISTS = 2
    CHILDREN = 3
    PERSISTENT = 4
    """Every creation, write, deletion and change of children of the one znode."""

    PERSISTENT_RECURSIVE = 5
    """Every creation, write and deletion of the znode and of everything below it."""


class WatchEventType(IntEnum):
    """What happened. The numbers are ZooKeeper's."""

    UNKNOWN = 0
    CREATED = 1
    DELETED = 2
    DATA_CHANGED = 3
    CHILDREN_CHANGED = 4


class WatchEvent(NamedTuple):
    """A change. The events of one zxid (a multi, the end of a session) follow each other, and the
    last of them has `is_last_of_zxid`. With `include_data`, `data` and `stat` are those that the
    change left behind; a `stat` that is None tells data not sent from null data."""

    type: WatchEventType
    path: str
    zxid: int
    is_last_of_zxid: bool = True
    data: bytes | None = None
    stat: Stat | None = None


class WatchGapReason(Enum):
    """Why events are missing."""

    UNKNOWN = 0
    HISTORY_TOO_OLD = 1
    """The replica no longer remembers the changes since this client was last connected."""

    BUFFER_OVERFLOW = 2
    """Events came faster than they were taken."""

    OTHER_HISTORY = 3
    """The cluster is another one now, or was restored: all zxids seen before mean nothing."""


class WatchGap(NamedTuple):
    """Events are missing here; the watch goes on. Every event up to `after_zxid` was handed out,
    every one after `resumed_at_zxid` will be. Read again what the watch is about."""

    after_zxid: int
    resumed_at_zxid: int
    reason: WatchGapReason


class WatchRemoved(NamedTuple):
    """The watch is gone without an event. `is_refused`: the right to READ the znode was lost."""

    is_refused: bool


WatchItem = WatchEvent | WatchGap | WatchRemoved
WatchCallback = Callable[[WatchItem], None]


class SessionState(Enum):
    """Whether the session can be counted on."""

    CONNECTED = "connected"
    """Attached to a replica."""

    SUSPENDED = "suspended"
    """No replica is connected just now. The session lives on, and the client is at it."""

    LOST = "lost"
    """Expired, taken over by another client, or so long without an answer that it may have
    expired. Its ephemerals must be taken for gone. It stays so: make a new client."""

    CLOSED = "closed"
    """Closed by this client, or not opened yet."""


StateListener = Callable[[SessionState], None]
