"""From messages to plain values, and back."""

from __future__ import annotations

from collections.abc import Iterable

from coordsvc.client.records import (
    Acl,
    AuthId,
    Child,
    ChildrenPage,
    Created,
    Stat,
    WatchEvent,
    WatchEventType,
    WatchGap,
    WatchGapReason,
)
from coordsvc.v1 import common_pb2, coordination_pb2, watch_pb2

EVENT_TYPES = {int(each): each for each in WatchEventType}
GAP_REASONS = {each.value: each for each in WatchGapReason}


def stat_from(message: common_pb2.Stat) -> Stat:
    # Not through the function that NamedTuple makes of the class, which takes twice as long: every
    # write and every read answers with one of these.
    return tuple.__new__(
        Stat,
        (
            message.czxid,
            message.mzxid,
            message.pzxid,
            message.ctime_ms,
            message.mtime_ms,
            message.version,
            message.cversion,
            message.aversion,
            message.ephemeral_owner,
            message.data_length,
            message.num_children,
        ),
    )


def acl_from(messages: Iterable[common_pb2.Acl]) -> tuple[Acl, ...]:
    return tuple(Acl(each.permissions, each.scheme, each.id) for each in messages)


def acl_messages(acl: Iterable[Acl]) -> list[common_pb2.Acl]:
    return [
        common_pb2.Acl(permissions=int(permissions), scheme=scheme, id=id)
        for permissions, scheme, id in acl
    ]


def ids_from(messages: Iterable[common_pb2.AuthId]) -> tuple[AuthId, ...]:
    return tuple(AuthId(each.scheme, each.id) for each in messages)


def created_from(
    message: coordination_pb2.CreateResponse | coordination_pb2.CreateResult,
) -> Created:
    return Created(message.path, stat_from(message.stat))


def page_from(
    message: coordination_pb2.GetChildrenResponse, zxid: int, *, has_stat: bool
) -> ChildrenPage:
    children = tuple(
        Child(
            each.name,
            stat_from(each.stat) if has_stat else None,
            each.data if each.HasField("data") else None,
        )
        for each in message.children
    )
    return ChildrenPage(children, stat_from(message.stat), zxid)


def results_from(
    messages: Iterable[coordination_pb2.MultiResult],
) -> tuple[Created | Stat | None, ...]:
    results: list[Created | Stat | None] = []
    for each in messages:
        if each.HasField("create"):
            results.append(created_from(each.create))
        elif each.HasField("set_data"):
            results.append(stat_from(each.set_data.stat))
        else:
            results.append(None)
    return tuple(results)


def event_from(message: watch_pb2.WatchEvent) -> WatchEvent:
    return WatchEvent(
        EVENT_TYPES.get(message.type, WatchEventType.UNKNOWN),
        message.path,
        message.zxid,
        message.last_of_zxid,
        message.data if message.HasField("data") else None,
        stat_from(message.stat) if message.HasField("stat") else None,
    )


def gap_from(message: watch_pb2.WatchGap) -> WatchGap:
    reason = GAP_REASONS.get(message.reason, WatchGapReason.UNKNOWN)
    return WatchGap(message.after_zxid, message.resumed_at_zxid, reason)
