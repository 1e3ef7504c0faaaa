"""What travels in the replicated log, and what applying it answers. Data only, no behaviour.

An *entry* is one Raft log entry: everything that arrived at the leader in one turn of its loop,
as *batches* (one per origin replica) of *commands*, plus commands of the leader's own. Records
are positional arrays in msgpack: fields are only ever appended, never reordered or removed, and
the numeric tags are wire format and never reused. A kind that a replica does not know is fatal
there, so a new one is proposed only when every member announces it.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

# Create modes carry ZooKeeper's wire flags. Ref: ZooKeeper CreateMode.
PERSISTENT = 0
EPHEMERAL = 1
PERSISTENT_SEQUENTIAL = 2
EPHEMERAL_SEQUENTIAL = 3
CONTAINER = 4
PERSISTENT_WITH_TTL = 5
PERSISTENT_SEQUENTIAL_WITH_TTL = 6

# How the payload of a log entry begins: with ENTRY_PREFIX an Entry follows. NO_OP_PAYLOAD is all of
# the entry that a leader begins its term with, and applies nothing.
ENTRY_PREFIX = b"\x00"
NO_OP_PAYLOAD = b"\x01"

# Permission bits. Ref: ZooKeeper ZooDefs.Perms.
READ, WRITE, CREATE, DELETE, ADMIN, ALL = 1, 2, 4, 8, 16, 31

ANY_VERSION = -1
"""The expected version that skips the check (also what an absent one means)."""


class Logged(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """Base of what an entry holds. A field that this version does not know makes the entry
    undecodable: ignored, the entry would mean one thing here and another at a newer replica."""


class AuthId(Logged, frozen=True):
    """Who somebody is: ("digest", "user:hash"), ("ip", "10.0.0.1"), ("x509", subject) or
    ("super", ""), which passes every ACL and can be derived at a front door only."""

    scheme: str
    id: str


class Acl(Logged, frozen=True):
    permissions: int
    scheme: str
    id: str


OPEN_ACL: tuple[Acl, ...] = (Acl(ALL, "world", "anyone"),)


class Stat(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """ZooKeeper's eleven Stat fields. `cversion` is what clients see: creates plus deletes of
    children. `data_length` of null data is 0. `ephemeral_owner` is 0 unless ephemeral."""

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


# ---------------------------------------------------------------- operations of a client's write


class CreateOp(Logged, frozen=True, tag=1):
    path: str
    data: bytes | None = None
    mode: int = PERSISTENT
    ttl_ms: int = 0
    acl: tuple[Acl, ...] = OPEN_ACL


class DeleteOp(Logged, frozen=True, tag=2):
    path: str
    version: int = ANY_VERSION


class SetDataOp(Logged, frozen=True, tag=3):
    path: str
    data: bytes | None = None
    version: int = ANY_VERSION


class CheckOp(Logged, frozen=True, tag=4):
    """Only inside a MultiOp; alone it is refused as UNIMPLEMENTED, as in ZooKeeper."""

    path: str
    version: int = ANY_VERSION


class SetAclOp(Logged, frozen=True, tag=5):
    path: str
    acl: tuple[Acl, ...]
    version: int = ANY_VERSION


SubOp: TypeAlias = CreateOp | DeleteOp | SetDataOp | CheckOp


class MultiOp(Logged, frozen=True, tag=6):
    ops: tuple[SubOp, ...]


class AddAuthOp(Logged, frozen=True, tag=7):
    """Adds derived identities (never a secret) to the caller's session."""

    ids: tuple[AuthId, ...]


class CloseSessionOp(Logged, frozen=True, tag=8):
    """Ends the caller's session; all its ephemerals vanish at this zxid."""


class AttachSessionOp(Logged, frozen=True, tag=9):
    """Attaches the caller's session to a new stream: its attach_epoch rises by one, and writes
    that carry an older one are refused as SESSION_MOVED. `timeout_ms` 0 keeps the timeout."""

    timeout_ms: int = 0


Op: TypeAlias = (
    CreateOp
    | DeleteOp
    | SetDataOp
    | CheckOp
    | SetAclOp
    | MultiOp
    | AddAuthOp
    | CloseSessionOp
    | AttachSessionOp
)


class Caller(Logged, frozen=True):
    """On whose behalf a write runs. The front door has proved the session's password.

    `session_id` 0: none. `attach_epoch` 0: a unary call, never checked. `request_number` 0: no
    dedup. `ids`: those of the connection (ip, x509, super); the session's own are replicated
    state. `guard_path` empty: no guard; otherwise the write is refused with GUARD_FAILED unless
    the znode there has exactly `guard_czxid`.
    """

    session_id: int = 0
    attach_epoch: int = 0
    request_number: int = 0
    done_below: int = 0
    ids: tuple[AuthId, ...] = ()
    guard_path: str = ""
    guard_czxid: int = 0


NO_CALLER = Caller()


# ------------------------------------------------------------------------------------- commands


class Write(Logged, frozen=True, tag=1):
    caller: Caller
    op: Op


class OpenSession(Logged, frozen=True, tag=2):
    """Opens a session: its id is the zxid of this command. `timeout_ms` is already clamped and
    `password` 16 random bytes, both by the proposer."""

    timeout_ms: int
    password: bytes
    client_name: str = ""
    attached: bool = False
    """Opened by a stream: it starts at attach_epoch 1 instead of 0."""


class RegisterOrigin(Logged, frozen=True, tag=3):
    """Starts a new incarnation of a replica as an origin; it is this command's zxid. Repeating
    the nonce of the present incarnation changes nothing and answers with it."""

    replica_id: int
    nonce: bytes


ClientCommand: TypeAlias = Write | OpenSession | RegisterOrigin


class InitCluster(Logged, frozen=True, tag=10):
    """Names a new cluster: 16 random bytes. Void when it has a name."""

    term: int
    cluster_id: bytes


class ExpireSession(Logged, frozen=True, tag=11):
    """Void unless the session still has this attach_epoch."""

    term: int
    session_id: int
    attach_epoch: int


class CollectContainer(Logged, frozen=True, tag=12):
    """Deletes a childless container; void unless it still has this (visible) cversion."""

    term: int
    path: str
    cversion: int


class CollectTtl(Logged, frozen=True, tag=13):
    """Deletes a childless TTL znode; void unless it still has this mzxid and its time is up by
    the replicated clock."""

    term: int
    path: str
    mzxid: int


LeaderCommand: TypeAlias = InitCluster | ExpireSession | CollectContainer | CollectTtl
"""Proposed by a leader for its own term: void in an entry of another, never resubmitted."""


# -------------------------------------------------------------------------- batches and entries


class Batch(Logged, frozen=True):
    """What one origin sent in one piece. `seq` 0 is a registration (only RegisterOrigin inside,
    `incarnation` 0); others count from 1 within an incarnation."""

    replica_id: int
    incarnation: int
    seq: int
    commands: tuple[ClientCommand, ...]


class Entry(Logged, frozen=True):
    """One log entry's payload. `time_ms`: wall clock of the leader (Stat times only).
    `clock_ms`: the cluster's own clock, on which TTLs run. `digest_zxid` 0: no digest; else
    the state after that zxid, which is the last one before this entry, must have `digest`."""

    time_ms: int
    clock_ms: int
    batches: tuple[Batch, ...] = ()
    leader_commands: tuple[LeaderCommand, ...] = ()
    digest_zxid: int = 0
    digest: int = 0


class EntryFrame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The same bytes as Entry, with the batches left as they came: a leader merges what origins
    encoded without looking inside."""

    time_ms: int
    clock_ms: int
    batches: tuple[msgspec.Raw, ...] = ()
    leader_commands: tuple[LeaderCommand, ...] = ()
    digest_zxid: int = 0
    digest: int = 0


# -------------------------------------------------------------------------------------- answers


class Refusal(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """A replicated "no". `code` is an errors.ErrorCode, `path` the offender (may be empty),
    `message` names it and says what to do; `operation_index` -1 outside a multi."""

    code: int
    path: str = ""
    message: str = ""
    operation_index: int = -1


class Created(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=2):
    path: str
    stat: Stat


class Deleted(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=3):
    pass


class DataSet(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=4):
    stat: Stat


class Checked(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=5):
    pass


class AclSet(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=6):
    stat: Stat


SubResult: TypeAlias = Created | Deleted | DataSet | Checked


class MultiDone(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=7):
    results: tuple[SubResult, ...]


class AuthAdded(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=8):
    ids: tuple[AuthId, ...]


class SessionOpened(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=9):
    session_id: int
    timeout_ms: int
    attach_epoch: int


class SessionClosed(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=10):
    pass


class SessionAttached(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=11):
    attach_epoch: int
    timeout_ms: int


class OriginRegistered(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=12):
    incarnation: int


Result: TypeAlias = (
    Refusal
    | Created
    | Deleted
    | DataSet
    | Checked
    | AclSet
    | MultiDone
    | AuthAdded
    | SessionOpened
    | SessionClosed
    | SessionAttached
    | OriginRegistered
)


class Reply(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a command answers, and the zxid it took (of its first run, when it is a retry)."""

    zxid: int
    result: Result


# ------------------------------------------------------------------------------------ effects

# Types of changes, with ZooKeeper's numbers. Ref: Watcher.Event.EventType.
CREATED, DELETED, DATA_CHANGED = 1, 2, 3


class Change(msgspec.Struct, frozen=True, gc=False):
    """One change of the tree, as watches see it. `acl` is the znode's (for a delete, the one it
    had), `parent_acl` its parent's, both at that time, for the READ check at delivery; of a change
    of data, of which no watch of the parent hears, `parent_acl` is the open one. `last_of_zxid`
    ends the group of a multi or a session's end."""

    type: int
    path: str
    zxid: int
    acl: tuple[Acl, ...]
    parent_acl: tuple[Acl, ...]
    data: bytes | None
    stat: Stat | None
    last_of_zxid: bool


# How a batch fared. APPLIED: its commands ran. DUPLICATE: they had run before. GAP: a batch before
# it is missing, nothing ran. VOID: its incarnation is over, nothing ran.
APPLIED, DUPLICATE, GAP, VOID = 1, 2, 3, 4


class AppliedBatch(msgspec.Struct, frozen=True, gc=False):
    replica_id: int
    incarnation: int
    seq: int
    status: int
    expected_seq: int
    """The next seq the table waits for (after this batch)."""
    replies: tuple[Reply, ...] = ()
    """One per command when APPLIED, else empty."""


class AppliedEntry(msgspec.Struct, frozen=True, gc=False):
    """What applying one entry did; everything a replica acts on afterwards."""

    batches: tuple[AppliedBatch, ...] = ()
    changes: tuple[Change, ...] = ()
    opened_sessions: tuple[int, ...] = ()
    closed_sessions: tuple[int, ...] = ()
    digest_mismatch: tuple[int, int, int] | None = None
    """(zxid, leader's digest, own digest) when they differ."""
    attached_sessions: tuple[int, ...] = ()
    """Those attached anew: their older attachments are over."""
    heard_sessions: tuple[int, ...] = ()
    """Those that wrote: their clients live."""
