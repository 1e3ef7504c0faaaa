"""META: what a data directory is, and whose. One small file, checksummed, replaced atomically.

Text, so that a person can read it: a first line with magic and checksum, then JSON.
"""

from __future__ import annotations

from zlib import crc32

import msgspec

from coordsvc.storage.errors import CorruptionError, DataDirRefusedError

META_FORMAT = 1
_MAGIC = b"coordsvc-meta"


class Meta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """`members`: the ids of all replicas of the cluster, sorted. Identities are hex here, for the
    reader's sake. `has_log`: the write-ahead log was created, so that its absence later means it
    was lost. `synced_lsn`: the log reached at least this far, whatever became of it."""

    format: int = META_FORMAT
    replica_id: int
    members: tuple[int, ...]
    uuid: str
    cluster_id: str = ""
    lmdb_engine: str = ""
    has_log: bool = False
    synced_lsn: int = 0


def encode_meta(meta: Meta) -> bytes:
    body = msgspec.json.format(msgspec.json.encode(meta), indent=2) + b"\n"
    return b"%s %08x\n%s" % (_MAGIC, crc32(body), body)


def decode_meta(data: bytes, file_path: str) -> Meta:
    """Raise CorruptionError unless this is, unchanged, what was written."""
    first_line, _, body = data.partition(b"\n")
    if first_line != b"%s %08x" % (_MAGIC, crc32(body)):
        raise CorruptionError(file_path, 0, "its checksum does not match")
    try:
        return msgspec.json.decode(body, type=Meta)
    except msgspec.MsgspecError as error:
        raise CorruptionError(file_path, len(first_line) + 1, str(error)) from error


def check_format(meta: Meta, data_dir: str) -> None:
    """Raise DataDirRefusedError when a newer version wrote it."""
    if meta.format > META_FORMAT:
        raise DataDirRefusedError(
            f"{data_dir} has format {meta.format}; this version knows up to {META_FORMAT}."
            " Run the version that wrote it, or a newer one"
        )
