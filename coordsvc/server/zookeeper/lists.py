"""The bodies of reads that may be long: of children, of ephemerals, and of several reads in one.

Where the answer would hold up the loop, it is made in pieces, each in a turn of its own.
Ref: ZooKeeper FinalRequestProcessor, DataTree.getAllChildrenNumber.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Final

from coordsvc.core.commands import Refusal
from coordsvc.core.queries import get_ephemerals
from coordsvc.core.state import State
from coordsvc.core.watches import CHILDREN
from coordsvc.errors import MarshallingError
from coordsvc.paths import ROOT
from coordsvc.server.zookeeper import jute
from coordsvc.server.zookeeper.asking import Answer, Asker, Read
from coordsvc.server.zookeeper.jute import INT32_MAX, Reader
from coordsvc.server.zookeeper.multi import END, error_result, result_header, types_in
from coordsvc.server.zookeeper.protocol import GET_CHILDREN, GET_DATA, QUOTA_EXCEEDED, code_of
from coordsvc.server.zookeeper.reads import encode_data, path_of, readable, stat_of

NAMES_AT_ONCE: Final = 8_192
"""So many are put into an answer in three milliseconds."""

PATHS_AT_ONCE: Final = 4_096
"""And so many are compared with a prefix in two."""

RESULTS_BYTES_AT_ONCE: Final = 32 * 1024
"""The smallest results are 13 bytes, and take a microsecond each."""

MULTI_READ_BYTES_MAX: Final = 16 * 1024 * 1024
"""A small request can ask for a large znode thousands of times. ZooKeeper lets it; clients take no
more than a sixteenth of this, unless told to."""

# ------------------------------------------------------------------------------------ children


def get_children(reader: Reader) -> Read:
    path = path_of(reader)
    return Read(partial(_get_children, path, reader.boolean(), False))


def get_children2(reader: Reader) -> Read:
    path = path_of(reader)
    return Read(partial(_get_children, path, reader.boolean(), True))


def _get_children(path: str, watch: bool, with_stat: bool, asker: Asker) -> Answer:
    """Names and stat are of one moment, the first, also where they are told in pieces."""
    znode = readable(path, asker)
    if isinstance(znode, Refusal):
        return znode
    if watch and (refusal := asker.watches.add(path, CHILDREN)) is not None:
        return refusal
    stat = jute.stat(stat_of(znode, asker)) if with_stat else b""
    return _encode_list(asker.state.child_names(path), stat)


def get_ephemerals_of_session(reader: Reader) -> Read:
    """By component: ``/a`` covers ``/a/b``, and not ``/ab``, which it does in ZooKeeper."""
    prefix = (reader.text() or "").strip()
    return Read(partial(_get_ephemerals, prefix.rstrip("/") or ROOT))


def _get_ephemerals(prefix: str, asker: Asker) -> Answer:
    return _encode_list(list(get_ephemerals(asker.state, asker.session_id, prefix)))


def _encode_list(texts: list[str], after: bytes = b"") -> Answer:
    """A vector, and what comes behind it."""
    if len(texts) <= NAMES_AT_ONCE:
        return jute.texts(texts) + after
    return chain(_list_pieces(texts), (after,))


def _list_pieces(texts: list[str]) -> Iterator[bytes]:
    yield jute.int32(len(texts))
    for at in range(0, len(texts), NAMES_AT_ONCE):
        yield jute.elements(texts[at : at + NAMES_AT_ONCE])


# ------------------------------------------------------------------------- number of descendants


def get_all_children_number(reader: Reader) -> Read:
    return Read(partial(_get_all_children_number, path_of(reader)))


def _get_all_children_number(path: str, asker: Asker) -> Answer:
    """In a large tree they are counted in several turns, and the number may then be one that was
    right at no moment; nor is ZooKeeper's of one moment."""
    znode = readable(path, asker)
    if isinstance(znode, Refusal):
        return znode
    state = asker.state
    if path == ROOT:
        return _number(len(state.znodes) - 1)
    parents = list(state.children)
    if len(parents) <= PATHS_AT_ONCE:
        return _number(znode.stat.num_children + _children_below(state, path, parents))
    return _count_in_pieces(state, path, parents, znode.stat.num_children)


def _count_in_pieces(
    state: State, path: str, parents: list[str], own_children: int
) -> Iterator[bytes]:
    total = own_children
    for at in range(0, len(parents), PATHS_AT_ONCE):
        total += _children_below(state, path, parents[at : at + PATHS_AT_ONCE])
        yield b""
    yield _number(total)


def _children_below(state: State, path: str, parents: list[str]) -> int:
    """How many children those of `parents` have that are below `path`, by now."""
    children, prefix = state.children, f"{path}/"
    return sum([len(children.get(each, ())) for each in parents if each.startswith(prefix)])


def _number(number: int) -> bytes:
    return jute.int32(min(number, INT32_MAX))


# ----------------------------------------------------------------------------------- multi read


def multi_read(reader: Reader) -> Read:
    """Of data and names only; MARSHALLING_ERROR, as in ZooKeeper, for anything else. They set no
    watches. Each read has its result or its error, and they are of one moment only by chance."""
    asked: list[tuple[int, str]] = []
    for kind in types_in(reader):
        if kind not in (GET_DATA, GET_CHILDREN):
            raise MarshallingError(f"type {kind} is no operation of a multi that reads")
        asked.append((kind, path_of(reader)))
        reader.boolean()
    return Read(partial(_multi_read, asked))


def _multi_read(asked: list[tuple[int, str]], asker: Asker) -> Answer:
    parts = _results(asked, asker)
    first = _next_piece(parts)
    if len(first) < RESULTS_BYTES_AT_ONCE:
        return first
    return chain((first,), iter(partial(_next_piece, parts), b""))


def _next_piece(parts: Iterator[bytes]) -> bytes:
    """As much as may be done at once. What is less is the last; empty: there is nothing left."""
    piece: list[bytes] = []
    size = 0
    for part in parts:
        piece.append(part)
        size += len(part)
        if size >= RESULTS_BYTES_AT_ONCE:
            break
    return b"".join(piece)


def _results(asked: list[tuple[int, str]], asker: Asker) -> Iterator[bytes]:
    size = 0
    for kind, path in asked:
        if size >= MULTI_READ_BYTES_MAX:
            yield error_result(QUOTA_EXCEEDED)
            continue
        for part in _result(kind, path, asker):
            size += len(part)
            yield part
    yield END


def _result(kind: int, path: str, asker: Asker) -> Iterator[bytes]:
    znode = readable(path, asker)
    if isinstance(znode, Refusal):
        code = code_of(znode.code)
        assert code is not None
        yield error_result(code)
        return
    yield result_header(kind)
    if kind == GET_DATA:
        yield encode_data(znode, asker)
    else:
        yield from _list_pieces(asker.state.child_names(path))
