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
    "process.not_handed_over": "no other replica took over in time; it stops all the same",
    "process.streams_left": "clients did not read to the end of their streams; these are cut off",
    "loop.stuck": "the loop has not turned for seconds; where says at what",
    "loop.stalled": "the loop stood still: the process was stopped, or too busy",
    # Front doors.
    "server.health": "it begins or ceases to serve: a leader came into or went out of reach",
    "rpc.done": "a call ended (debug)",
    "rpc.failed": "a call met a bug; the incident is what its caller was told",
    "rpc.strange_peer": "a connection's address cannot be read; it has no ip identity",
    "rpc.strange_certificate": "a client certificate's subject cannot be used; no x509 identity",
    "tls.loaded": "certificates were read, and are used from now on",
    "tls.not_loaded": "changed certificates cannot be used; those from before stay in use",
    "tls.expired": "a certificate in use is past its time, or before it",
    "tls.check_failed": "looking for changed certificates met a bug; those in use stay",
    # Sessions.
    "session.expiring": "the leader proposes to end a silent session",
    # ZooKeeper's clients.
    "zookeeper.connection_broken": "a connection was ended, and why; its client goes elsewhere",
    "zookeeper.connection_failed": "a connection met a bug, and was ended",
    "zookeeper.unreadable_request": "a request's body is not what its type says; it was refused",
    "zookeeper.too_many_connections": "a connection was closed at once: this address, or this "
    "replica, has enough",
    # The log and the disk.
    "wal.recovered": "the checkpoint, if any, and the log after it were read",
    "wal.cut": "an unfinished write at the log's end was cut off; it may have been acknowledged "
    "by this replica alone, which in a cluster of one means it may be lost",
    "checkpoint.written": "the state up to this log entry is on disk",
    "disk.silent": "the disk completes nothing; the leader hands over",
    "disk.space_low": "little space is left below data_dir: only deletes are taken from clients",
    "disk.space_enough": "there is enough space again: all writes are taken",
    "disk.space_unknown": "the file system does not say how much space is left",
    "cluster.space_low": "so many replicas are low on space that all of them take deletes only",
    "cluster.space_enough": "a majority of the replicas has enough space again",
    # Consensus.
    "replica.rebuilding": "a snapshot took the place of its state; it begins anew from disk",
    "replica.rebuilt": "it has; it serves again when it has caught up",
    "replica.leading": "it leads",
    "replica.not_leading": "it leads no longer",
    "replica.voter": "it has all that it may have promised before, and votes again",
    "replica.nothing_left": "its data directory belongs to a cluster, holds nothing of it, and no "
    "member leads; if all of them were set aside by `coordsvc rejoin`, put one's folder back",
    "replica.forgotten": "a peer says this replica holds less than it acknowledged once",
    "clock.jumped": "the leader's wall clock jumped against its monotonic one, by so many ms",
    "replica.fatal": "consensus, apply or the log met something that must not be",
    # Snapshots from a leader to a follower that is too far behind.
    "snapshot.receiving": "this replica's log ends before its leader's begins; the state comes",
    "snapshot.installing": "it has arrived; this replica stops and starts anew from it",
    "snapshot.rejected": "what arrived is not the state that was announced",
    "snapshot.not_stored": "the disk did not take what a leader sends; nothing is left of it, and "
    "the leader tries again",
    "snapshot.not_copied": "the disk did not take the copy for a follower; it is tried again",
    "snapshot.not_read": "a copy for a follower cannot be read; another one is made",
    "snapshot.refused": "a follower's disk does not take the state; it is sent again later",
    "snapshot.sent": "a follower has come back with the state it was sent",
    "snapshot.outdated": "the log was not kept so long; the transfer starts over with a newer copy",
    "snapshot.damaged": "a follower got something else than was sent; another copy is made",
    # Other replicas.
    "peer.connected": "a connection to another replica is up",
    "peer.disconnected": "it is gone",
    "peer.unreachable": "another replica cannot be dialled (debug)",
    "peer.protocol_error": "another replica broke the protocol; its connection was closed",
    "peer.silent": "another replica says nothing; its connection was closed",
    "peer.slow": "another replica takes too little; its connection was closed",
    "peer.config_differs": "another replica has other settings in [cluster], which should be equal "
    "everywhere; compare what `coordsvc config print` says there and here",
}
