"""The asyncio client: one session, whatever becomes of the replica it is attached to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from coordsvc.client.operations import ReadWatch
from coordsvc.client.records import (
    Acl,
    AclAnswer,
    AuthId,
    ChildrenPage,
    Created,
    Data,
    Guard,
    Stat,
    WatchKind,
)
from coordsvc.client.session import Session
from coordsvc.client.transaction import Transaction
from coordsvc.client.watch import Watch
from coordsvc.client.watch_queue import EVENTS_MAX


class Client(Session):
    """A session with a cluster, open within `async with`::

        async with coordsvc.Client("127.0.0.1:7401,127.0.0.1:7402") as client:
            await client.create("/config", b"1")
            data, stat, zxid = await client.get_data("/config")
            await client.set_data("/config", b"2", expected_version=stat.version)

    Operations run in the order in which they are submitted, reads as well as writes, also over a
    change of replica; a write is applied at most once. Everything submitted in one turn of the loop
    travels in one frame, so many at a time are cheap::

        await asyncio.gather(*(client.set_data("/config", b"%d" % i) for i in range(1000)))

    Each takes `timeout_ms`, 10 s unless given. Cancelling one gives up its answer, not the write.
    Besides the errors named at each, every operation may raise

    * UnavailableError (NoQuorumError and others): not done in its time, and certainly not applied;
    * OutcomeUnknownError: a write that was sent, and perhaps applied, or will be;
    * SessionExpiredError, SessionMovedError: the session is over; `error.applied` says whether a
      write may have been applied. This client is of no further use, and its ephemerals must be
      taken for gone;
    * BadArgumentsError, LimitExceededError: nothing that a replica would take;
    * ThrottledError: too many operations wait for an answer (`config.requests_waiting_max`).

    `endpoints` are the replicas, `host:port,host:port` or a sequence; one of them is drawn to
    begin with unless `randomize_endpoints` is False. `client_name` is for people who look at the
    list of sessions. `config` has further times, and goes before `endpoints`, `timeout_ms`, `tls`.

    One client belongs to one event loop.
    """

    # -------------------------------------------------------------------------------- writes

    async def create(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        ephemeral: bool = False,
        sequence: bool = False,
        container: bool = False,
        ttl_ms: int = 0,
        acl: Sequence[Acl] = (),
        guard: Guard | None = None,
        timeout_ms: int | None = None,
    ) -> Created:
        """Create a znode; its parent must exist. `data` None is null, which is not empty.

        `ephemeral`: it lives as long as this session. `sequence`: its name gets the parent's
        counter as a suffix. `container`: deleted some time after its last child. `ttl_ms`: deleted
        when neither written for so long nor a parent; 0 is for ever. `acl` empty: open to all.

        Errors: NodeExistsError, NoNodeError (the parent), NoAuthError, InvalidAclError,
        NoChildrenForEphemeralsError, QuotaExceededError, GuardFailedError."""
        return await self.nowait.create(
            path,
            data,
            ephemeral=ephemeral,
            sequence=sequence,
            container=container,
            ttl_ms=ttl_ms,
            acl=acl,
            guard=guard,
            timeout_ms=timeout_ms,
        )

    async def set_data(
        self,
        path: str,
        data: bytes | None,
        *,
        expected_version: int | None = None,
        guard: Guard | None = None,
        timeout_ms: int | None = None,
    ) -> Stat:
        """Write a znode's data. `data` None is null; `expected_version` None: whatever it is now.

        Errors: NoNodeError, BadVersionError, NoAuthError, QuotaExceededError, GuardFailedError."""
        return await self.nowait.set_data(
            path, data, expected_version=expected_version, guard=guard, timeout_ms=timeout_ms
        )

    async def delete(
        self,
        path: str,
        *,
        expected_version: int | None = None,
        guard: Guard | None = None,
        timeout_ms: int | None = None,
    ) -> int:
        """Delete a znode that has no children; the zxid at which it was deleted.

        Errors: NoNodeError, BadVersionError, NotEmptyError, NoAuthError, GuardFailedError."""
        return await self.nowait.delete(
            path, expected_version=expected_version, guard=guard, timeout_ms=timeout_ms
        )

    async def set_acl(
        self,
        path: str,
        acl: Sequence[Acl],
        *,
        expected_aversion: int | None = None,
        guard: Guard | None = None,
        timeout_ms: int | None = None,
    ) -> Stat:
        """Replace a znode's ACL. No watch sees it.

        Errors: NoNodeError, NoAuthError (ADMIN), BadVersionError (of aversion), InvalidAclError,
        GuardFailedError."""
        return await self.nowait.set_acl(
            path, acl, expected_aversion=expected_aversion, guard=guard, timeout_ms=timeout_ms
        )

    async def add_auth(
        self, scheme: str, credential: bytes, *, timeout_ms: int | None = None
    ) -> tuple[AuthId, ...]:
        """Show an identity: for the scheme "digest" `credential` is b"user:password". It holds for
        as long as the session, at every replica.

        Errors: AuthFailedError."""
        return await self.nowait.add_auth(scheme, credential, timeout_ms=timeout_ms)

    def transaction(self) -> Transaction:
        """Several operations, done together or not at all."""
        return Transaction(self.nowait.multi)

    # --------------------------------------------------------------------------------- reads

    async def exists(
        self,
        path: str,
        *,
        watch: ReadWatch = None,
        linearizable: bool = False,
        min_zxid: int = 0,
        timeout_ms: int | None = None,
    ) -> Stat | None:
        """A znode's state; None: there is no such znode.

        `watch` fires on its next creation, write or deletion. `linearizable`: see every write
        acknowledged to anybody before; without it a replica may be a moment behind the others, but
        never behind what this client has seen. `min_zxid`: see everything up to it.

        Errors: NoAuthError (READ); NotCaughtUpError (min_zxid)."""
        return await self.nowait.exists(
            path, watch=watch, linearizable=linearizable, min_zxid=min_zxid, timeout_ms=timeout_ms
        )

    async def get_data(
        self,
        path: str,
        *,
        watch: ReadWatch = None,
        linearizable: bool = False,
        min_zxid: int = 0,
        timeout_ms: int | None = None,
    ) -> Data:
        """A znode's data and state. `watch` fires on its next write or deletion, and is always told
        before any answer that shows it. The rest as for `exists`.

        Errors: NoNodeError, NoAuthError (READ); then no watch is left. NotCaughtUpError."""
        return await self.nowait.get_data(
            path, watch=watch, linearizable=linearizable, min_zxid=min_zxid, timeout_ms=timeout_ms
        )

    async def get_children(
        self,
        path: str,
        *,
        watch: ReadWatch = None,
        linearizable: bool = False,
        min_zxid: int = 0,
        timeout_ms: int | None = None,
    ) -> list[str]:
        """The names of a znode's children, sorted by their bytes. A list too long for one answer
        comes in several, which may be of several states; `watch` tells of any change since the
        first. It fires on the next creation or deletion of a child, and on the znode's deletion.

        Errors: as for `get_data`."""
        names: list[str] = []
        pages = self._pages(
            path,
            watch=watch,
            linearizable=linearizable,
            min_zxid=min_zxid,
            timeout_ms=timeout_ms,
        )
        async for page in pages:
            names.extend(child.name for child in page.children)
        return names

    async def children_pages(
        self,
        path: str,
        *,
        page_size: int = 0,
        include_stat: bool = False,
        include_data: bool = False,
        linearizable: bool = False,
        min_zxid: int = 0,
        timeout_ms: int | None = None,
    ) -> AsyncIterator[ChildrenPage]:
        """A znode's children in pages of at most `page_size` (0: as many as fit into one message).
        Each page is one consistent state, at its `zxid`. `timeout_ms` is for each.

        Errors: as for `get_data`."""
        pages = self._pages(
            path,
            page_size=page_size,
            include_stat=include_stat,
            include_data=include_data,
            linearizable=linearizable,
            min_zxid=min_zxid,
            timeout_ms=timeout_ms,
        )
        async for page in pages:
            yield page

    async def _pages(
        self,
        path: str,
        *,
        page_size: int = 0,
        include_stat: bool = False,
        include_data: bool = False,
        watch: ReadWatch = None,
        linearizable: bool = False,
        min_zxid: int = 0,
        timeout_ms: int | None = None,
    ) -> AsyncIterator[ChildrenPage]:
        token = ""
        while True:
            page, token = await self.nowait.children_page(
                path,
                page_size=page_size,
                page_token=token,
                include_stat=include_stat,
                include_data=include_data,
                watch=watch,
                linearizable=linearizable,
                min_zxid=min_zxid,
                timeout_ms=timeout_ms,
            )
            yield page
            if not token:
                return
            watch = None  # The first page has set it.

    async def get_acl(
        self,
        path: str,
        *,
        linearizable: bool = False,
        min_zxid: int = 0,
        timeout_ms: int | None = None,
    ) -> AclAnswer:
        """A znode's ACL and state. Without ADMIN, hashes in digest ids are hidden.

        Errors: NoNodeError, NoAuthError (READ or ADMIN), NotCaughtUpError."""
        return await self.nowait.get_acl(
            path, linearizable=linearizable, min_zxid=min_zxid, timeout_ms=timeout_ms
        )

    async def sync(self, path: str = "/", *, timeout_ms: int | None = None) -> int:
        """After it, reads see everything that was acknowledged to anybody before it; its zxid."""
        return await self.nowait.sync(path, timeout_ms=timeout_ms)

    # ------------------------------------------------------------------------------- watches

    def watch(
        self,
        path: str,
        kind: WatchKind = WatchKind.PERSISTENT,
        *,
        recursive: bool = False,
        include_data: bool = False,
        events_max: int = EVENTS_MAX,
        timeout_ms: int | None = None,
    ) -> Watch:
        """Every change of the znode and of its list of children; with `recursive` of everything
        below it, too. It need not exist. `include_data`: events carry the data and the Stat that
        the change left behind. See Watch."""
        kind = WatchKind.PERSISTENT_RECURSIVE if recursive else kind
        return Watch(
            self.nowait,
            path,
            kind,
            include_data=include_data,
            events_max=events_max,
            timeout_ms=timeout_ms,
        )
