"""Every event a replica logs, and what it means: the one list. A test holds the code against it.

Names are `what.happened`; fields carry the rest. Operators search and alert by these names, so one
that is in use keeps its meaning.
"""

from __future__ import annotations

EVENTS: dict[str, str] = {
    # The process.
    "process.starting": "the process begins, with this configuration",
    "process.refused": "it cannot start; the error says what to do, exit_status which kind it is",
    "serving": "it answers requests, for the first time since the start, at these addresses",
    "process.signal": "it was told to stop",
    "process.stopped": "it stopped as told; everything proposed is decided",
    "process.stopped_late": "it did not finish stopping in time and ends as it is",
    "process.failed": "it ends because of something it must not go on with",
    "loop.exception": "a library's callback failed; nothing of the replica's own",
    "loop.stalled": "the loop stood still: the process was stopped, or too busy",
    # Front doors.
    "server.health": "it begins or ceases to serve: a leader came into or went out of reach",
    "rpc.done": "a call ended (debug)",
    "rpc.failed": "a call met a bug; the incident is what its caller was told",
    "rpc.strange_peer": "a connection's address cannot be read; it has no ip identity",
    # Sessions.
    "session.expiring": "the leader proposes to end a silent session",
    # The log and the disk.
    "wal.recovered": "the log was read",
    "wal.cut": "an unfinished write at the log's end was cut off; it may have been acknowledged "
    "by this replica alone, which in a cluster of one means it may be lost",
    "disk.silent": "the disk completes nothing; the leader hands over",
    # Consensus.
    "replica.leading": "it leads",
    "replica.not_leading": "it leads no longer",
    "replica.voter": "it has all that it may have promised before, and votes again",
    "replica.forgotten": "a peer says this replica holds less than it acknowledged once",
    "replica.fatal": "consensus, apply or the log met something that must not be",
    # Other replicas.
    "peer.connected": "a connection to another replica is up",
    "peer.disconnected": "it is gone",
    "peer.unreachable": "another replica cannot be dialled (debug)",
    "peer.protocol_error": "another replica broke the protocol; its connection was closed",
    "peer.silent": "another replica says nothing; its connection was closed",
    "peer.slow": "another replica takes too little; its connection was closed",
}
