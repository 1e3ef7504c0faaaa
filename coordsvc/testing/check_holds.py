"""What is held: by one client at a time, and with a fence above all those before.

A fence is what a guarded resource compares: were a later holder's not higher, an earlier holder
that has not noticed yet could still write.
"""

from __future__ import annotations

from coordsvc.testing.history import Held, Released
from coordsvc.testing.indexed_history import IndexedHistory
from coordsvc.testing.violation import Violation

CHECK = "holds"


def check_holds(history: IndexedHistory) -> list[Violation]:
    violations = []
    holder: dict[str, Held] = {}
    latest: dict[str, Held] = {}
    for record in history.records:
        if isinstance(record, Held):
            violations += _check_holder(record, holder.get(record.resource))
            violations += _check_fence(record, latest.get(record.resource))
            holder[record.resource] = latest[record.resource] = record
        elif isinstance(record, Released):
            held = holder.get(record.resource)
            # Another's hold was told of when it began; it goes on.
            if held is not None and held.client == record.client:
                del holder[record.resource]
    return violations


def _check_holder(record: Held, held: Held | None) -> list[Violation]:
    if held is None or held.client == record.client:
        return []
    text = f"{record.resource} is held by {record.client} while {held.client} holds it"
    return [Violation(CHECK, text, record.time, [held, record])]


def _check_fence(record: Held, before: Held | None) -> list[Violation]:
    if before is None or record.fence > before.fence:
        return []
    text = f"{record.resource} is held with fence {record.fence} after fence {before.fence}"
    return [Violation(CHECK, text, record.time, [before, record])]
