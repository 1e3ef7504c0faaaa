"""The leader's queue: batches from all origins, until the next entry takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from coordsvc.core.commands import Batch, EntryFrame, LeaderCommand
from coordsvc.raft.adapter import REGULAR
from coordsvc.raft.messages import Forward, PeerProtocolError
from coordsvc.raft.settings import ReplicaSettings

_encoder = msgspec.msgpack.Encoder()
_batch_decoder = msgspec.msgpack.Decoder(Batch)


def check_forwarded(peer: int, message: Forward, bytes_max: int) -> None:
    """Raises PeerProtocolError unless the batch is what its envelope says. It would be fatal to
    every replica once it is in the log, so it is decoded before it gets there."""
    if len(message.batch) > bytes_max:
        raise PeerProtocolError(f"a batch of {len(message.batch)} bytes is above {bytes_max}")
    try:
        batch = _batch_decoder.decode(message.batch)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PeerProtocolError(f"undecodable batch: {error}") from error
    envelope = (peer, message.incarnation, message.seq, message.commands)
    if (batch.replica_id, batch.incarnation, batch.seq, len(batch.commands)) != envelope:
        raise PeerProtocolError(f"batch of replica {batch.replica_id} in a frame of {peer}")


class QueuedBatch(msgspec.Struct, gc=False):
    raw: bytes
    commands: int


class _Taken(msgspec.Struct, gc=False):
    """What of an origin's incarnation was taken in this term: batches `first` to `last`.

    A copy of one of them is in the log already. One behind a gap would run nowhere, and, once
    noted as the last, keep out the missing one for the rest of the term. One before the first
    is missing, or was an earlier leader's; whatever came after it is taken again with it, and
    the state machine skips what it had.
    """

    incarnation: int
    first: int
    last: int


class MergeQueue:
    """Lives for one term: whoever stops leading drops it, and the origins send again."""

    def __init__(self, settings: ReplicaSettings) -> None:
        self._settings = settings
        self._batches: deque[QueuedBatch] = deque()
        self._commands: list[LeaderCommand] = []
        self._bytes = 0
        self._taken: dict[int, _Taken] = {}

    def clear(self) -> None:
        self._batches.clear()
        self._commands.clear()
        self._taken.clear()
        self._bytes = 0

    def add(self, replica_id: int, incarnation: int, seq: int, commands: int, raw: bytes) -> bool:
        """False when it is not taken: the origin sends again when it sees no progress."""
        if self._bytes + len(raw) > self._settings.merge_bytes_max:
            return False
        if seq:
            taken = self._taken.get(replica_id)
            if taken is None or incarnation > taken.incarnation:
                self._taken[replica_id] = _Taken(incarnation, seq, seq)
            elif incarnation < taken.incarnation or taken.first <= seq <= taken.last:
                return True
            elif seq == taken.last + 1:
                taken.last = seq
            elif seq > taken.last:
                return False
            else:
                taken.first = taken.last = seq
        self._batches.append(QueuedBatch(raw, commands))
        self._bytes += len(raw)
        return True

    def propose(self, command: LeaderCommand) -> None:
        self._commands.append(command)

    def __bool__(self) -> bool:
        return bool(self._batches or self._commands)

    def next_entry(self, time_ms: int, clock_ms: int, digest: tuple[int, int]) -> bytes:
        """The payload of the next log entry, cut by bytes and by commands."""
        raws: list[msgspec.Raw] = []
        size = commands = 0
        limit = self._settings
        while self._batches:
            batch = self._batches[0]
            if raws and (
                size + len(batch.raw) > limit.entry_bytes_max
                or commands + batch.commands > limit.entry_commands_max
            ):
                break
            self._batches.popleft()
            raws.append(msgspec.Raw(batch.raw))
            size += len(batch.raw)
            commands += batch.commands
        self._bytes -= size
        own = tuple(self._commands[: limit.entry_commands_max])
        del self._commands[: len(own)]
        frame = EntryFrame(time_ms, clock_ms, tuple(raws), own, digest[0], digest[1])
        return REGULAR + _encoder.encode(frame)

    def entries(self, time_ms: int, clock_ms: int, digest: tuple[int, int]) -> Iterator[bytes]:
        """All that is queued; only the first entry carries the digest."""
        while self:
            yield self.next_entry(time_ms, clock_ms, digest)
            digest = (0, 0)
