"""Which mode of creation a combination of wishes is."""

from __future__ import annotations

from coordsvc.errors import BadArgumentsError
from coordsvc.v1 import common_pb2

MODES = {
    # (ephemeral, sequence, container, has a TTL)
    (False, False, False, False): common_pb2.CREATE_MODE_PERSISTENT,
    (False, True, False, False): common_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL,
    (True, False, False, False): common_pb2.CREATE_MODE_EPHEMERAL,
    (True, True, False, False): common_pb2.CREATE_MODE_EPHEMERAL_SEQUENTIAL,
    (False, False, True, False): common_pb2.CREATE_MODE_CONTAINER,
    (False, False, False, True): common_pb2.CREATE_MODE_PERSISTENT_WITH_TTL,
    (False, True, False, True): common_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL_WITH_TTL,
}


def create_mode(
    *, ephemeral: bool, sequence: bool, container: bool, ttl_ms: int
) -> common_pb2.CreateMode.ValueType:
    """BadArgumentsError for what excludes each other."""
    mode = MODES.get((bool(ephemeral), bool(sequence), bool(container), ttl_ms != 0))
    if mode is None:
        raise BadArgumentsError(
            "ephemeral, container and ttl_ms exclude each other; so do container and sequence"
        )
    return mode
