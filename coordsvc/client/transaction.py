"""Several operations that are done together, at one zxid, or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from coordsvc.client.convert import acl_messages
from coordsvc.client.modes import create_mode
from coordsvc.client.records import Acl, Created, Guard, Stat
from coordsvc.paths import validate_path
from coordsvc.v1 import coordination_pb2

TransactionResult = Created | Stat | None
Commit = Callable[
    [Sequence[coordination_pb2.MultiOperation], Guard | None, int | None],
    Awaitable[tuple[TransactionResult, ...]],
]


class Transaction:
    """Add operations, each of which sees the effect of those before it, then `commit`::

        transaction = client.transaction()
        transaction.check("/queue", expected_version=0)
        transaction.create("/queue/new", b"x").delete("/queue/old")
        _, created, _ = await transaction.commit()

    Each method raises BadArgumentsError for a malformed path, and returns the transaction.
    """

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._operations: list[coordination_pb2.MultiOperation] = []

    def check(self, path: str, *, expected_version: int | None = None) -> Transaction:
        """The znode must exist and, unless `expected_version` is None, have that version."""
        operation = self._add(path)
        operation.check.path = path
        if expected_version is not None:
            operation.check.expected_version = expected_version
        return self

    def create(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        ephemeral: bool = False,
        sequence: bool = False,
        container: bool = False,
        ttl_ms: int = 0,
        acl: Sequence[Acl] = (),
    ) -> Transaction:
        """As Client.create; its result is Created."""
        mode = create_mode(
            ephemeral=ephemeral, sequence=sequence, container=container, ttl_ms=ttl_ms
        )
        create = self._add(path + "0" if sequence else path).create
        create.path, create.mode, create.ttl_ms = path, mode, ttl_ms
        if data is not None:
            create.data = data
        create.acl.extend(acl_messages(acl))
        return self

    def set_data(
        self, path: str, data: bytes | None, *, expected_version: int | None = None
    ) -> Transaction:
        """As Client.set_data; its result is the new Stat."""
        operation = self._add(path)
        operation.set_data.path = path
        if data is not None:
            operation.set_data.data = data
        if expected_version is not None:
            operation.set_data.expected_version = expected_version
        return self

    def delete(self, path: str, *, expected_version: int | None = None) -> Transaction:
        """As Client.delete; its result is None."""
        operation = self._add(path)
        operation.delete.path = path
        if expected_version is not None:
            operation.delete.expected_version = expected_version
        return self

    async def commit(
        self, *, guard: Guard | None = None, timeout_ms: int | None = None
    ) -> tuple[TransactionResult, ...]:
        """Do all of it. One result for each operation, in their order: Created, Stat, or None for
        a check or a delete. Raises the error of the first operation that is refused, whose index
        is the error's `operation_index`; nothing is applied then."""
        return await self._commit(self._operations, guard, timeout_ms)

    def _add(self, path: str) -> coordination_pb2.MultiOperation:
        validate_path(path)
        operation = coordination_pb2.MultiOperation()
        self._operations.append(operation)
        return operation
