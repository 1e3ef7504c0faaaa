"""The bodies of reads of one znode, and of the connection itself, as questions to the state.

As in ZooKeeper, a malformed path is one where nothing is, and a watch is set only by a read that
succeeds, apart from `exists`. Ref: ZooKeeper FinalRequestProcessor.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from coordsvc.core.auth import DIGEST, check, without_digests
from coordsvc.core.commands import ADMIN, OPEN_ACL, READ, AuthId, Refusal, Stat
from coordsvc.core.records import Znode
from coordsvc.core.watches import EXISTS
from coordsvc.errors import BadArgumentsError, ErrorCode, MarshallingError
from coordsvc.paths import PATH_BYTES_MAX
from coordsvc.server.zookeeper import jute
from coordsvc.server.zookeeper.asking import Answer, Asker, Read
from coordsvc.server.zookeeper.jute import Reader

CONFIG_PATH: Final = "/zookeeper/config"

_BYTES_PER_CHARACTER_MAX: Final = 4

# Of a refused read, nothing but the code is told.
_NO_NODE: Final = Refusal(int(ErrorCode.NO_NODE))
_NO_AUTH: Final = Refusal(int(ErrorCode.NO_AUTH))
_BAD_ARGUMENTS: Final = Refusal(int(ErrorCode.BAD_ARGUMENTS))


def exists(reader: Reader) -> Read:
    path, watch = path_of(reader), reader.boolean()
    return Read(partial(_exists, path, watch), is_plain=not watch)


def _exists(path: str, watch: bool, asker: Asker) -> Answer:
    znode = asker.state.znodes.get(path)
    if znode is None and "\0" in path:
        return _BAD_ARGUMENTS
    if znode is not None and not _may_read(znode, asker):
        return _NO_AUTH
    if watch and (refusal := asker.watches.add(path, EXISTS)) is not None:
        return refusal
    return jute.stat(stat_of(znode, asker)) if znode is not None else _NO_NODE


def get_data(reader: Reader) -> Read:
    path, watch = path_of(reader), reader.boolean()
    return Read(partial(_get_data, path, watch), is_plain=not watch)


def _get_data(path: str, watch: bool, asker: Asker) -> Answer:
    znode = asker.state.znodes.get(path)
    if znode is None:
        return _NO_NODE
    if znode.acl is not OPEN_ACL and not check(znode.acl, READ, asker.ids):
        return _NO_AUTH
    if watch and (refusal := asker.watches.add(path, EXISTS)) is not None:
        return refusal
    if path == CONFIG_PATH:
        return encode_data(znode, asker)
    return jute.buffer(znode.data) + jute.stat(znode.stat)


def get_acl(reader: Reader) -> Read:
    return Read(partial(_get_acl, path_of(reader)), is_plain=True)


def _get_acl(path: str, asker: Asker) -> Answer:
    """Digests' hashes are hidden without ADMIN, as `queries.get_acl` does."""
    znode = asker.state.znodes.get(path)
    if znode is None:
        return _NO_NODE
    acl = znode.acl
    if acl is not OPEN_ACL and not check(acl, ADMIN, asker.ids):
        if not check(acl, READ, asker.ids):
            return _NO_AUTH
        acl = without_digests(acl)
    return jute.acls(acl) + jute.stat(stat_of(znode, asker))


def sync(reader: Reader) -> Read:
    """The path is only told back, as it came: what matters is when."""
    echo = jute.text(reader.text())
    return Read(lambda asker: echo, needs_sync=True)


def who_am_i(reader: Reader) -> Read:
    """It has no body."""
    del reader
    return Read(_who_am_i)


def _who_am_i(asker: Asker) -> Answer:
    ids = asker.ids
    parts = [jute.text(each.scheme) + jute.text(_user(each)) for each in ids]
    return jute.int32(len(ids)) + b"".join(parts)


def _user(auth_id: AuthId) -> str:
    return auth_id.id.partition(":")[0] if auth_id.scheme == DIGEST else auth_id.id


# ------------------------------------------------------------------------- parts of other reads


def path_of(reader: Reader) -> str:
    """What is longer than any znode's is refused, for it could be watched."""
    path = reader.text()
    if path is None:
        raise MarshallingError("the path is null")
    if len(path) * _BYTES_PER_CHARACTER_MAX > PATH_BYTES_MAX:
        size = len(path.encode())
        if size > PATH_BYTES_MAX:
            raise BadArgumentsError(f"the path has {size} bytes, and {PATH_BYTES_MAX} is the most")
    return path


def readable(path: str, asker: Asker) -> Znode | Refusal:
    """The znode; NO_NODE; NO_AUTH without READ."""
    znode = asker.state.znodes.get(path)
    if znode is None:
        return _NO_NODE
    return znode if _may_read(znode, asker) else _NO_AUTH


def _may_read(znode: Znode, asker: Asker) -> bool:
    return znode.acl is OPEN_ACL or check(znode.acl, READ, asker.ids)


def encode_data(znode: Znode, asker: Asker) -> bytes:
    data = znode.data if znode.path != CONFIG_PATH else asker.config_data()
    return jute.buffer(data) + jute.stat(stat_of(znode, asker))


def stat_of(znode: Znode, asker: Asker) -> Stat:
    """The members are no data of the tree, but are told as if they were."""
    stat = znode.stat
    if znode.path != CONFIG_PATH:
        return stat
    return Stat(
        stat.czxid,
        stat.mzxid,
        stat.pzxid,
        stat.ctime_ms,
        stat.mtime_ms,
        stat.version,
        stat.cversion,
        stat.aversion,
        stat.ephemeral_owner,
        len(asker.config_data()),
        stat.num_children,
    )
