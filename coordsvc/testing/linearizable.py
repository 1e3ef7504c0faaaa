"""Whether a history is linearizable: whether all its operations can be put in one order that
explains every answer, and in which each took effect between its invocation and its answer.

Nothing here believes a zxid. What takes part, and within which bounds:

* Writes, and reads with consistency "linearizable". A read that was not answered says nothing.
* "Local" reads on a session on which a `sync` was answered before. The sync saw everything that was
  committed before it was invoked, and a session never goes back; so what the read shows was the
  newest state at some time after the invocation of that sync. That is where its bounds begin,
  whatever the session wrote in between. (That it sees the session's own writes is another promise.)
* A write that was refused is left out, and so is one answered with an error that does not come from
  the znodes (the session's end, a limit): it changed nothing. A write whose outcome is unknown
  takes effect at any time after its invocation, or never.
* A numbered write and its repetitions are one write, from the first invocation to the first answer.
* Sequential creates get the number of creates there were under their parent, to the digit.
* All ephemerals of a session may vanish together, once, at any time after the invocation of the
  last of its answered writes, and no write of that session takes effect after that. When a session
  can have ended is not asked beyond that: its client may not know, and whoever expired it may have
  been too early. So this makes no false alarm, and leaves it to other checks that ephemerals do
  not vanish too early or stay too long; and it is said of each component by itself, so that
  another check has to see whether those of different components vanish together.
* In the beginning there is "/", and what ZooKeeper has below it.

Containers and znodes with a TTL are not modelled: ValueError, as for a record that misses a part.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordsvc.testing.history import Invoke, Record, Return
from coordsvc.testing.linearizable_components import components_of
from coordsvc.testing.linearizable_operations import Operation, operations_of
from coordsvc.testing.linearizable_search import Search, Stuck
from coordsvc.testing.linearizable_steps import Step, Steps, steps_of
from coordsvc.testing.violation import Violation
from coordsvc.testing.znode_model import Tree

CHECK = "linearizability"

_PATHS_TOLD_MAX = 8


def check_linearizable(records: Sequence[Record], *, steps_max: int = 2_000_000) -> list[Violation]:
    """One violation for each component of the history (operations tied together by their paths)
    that has no order, or for which none was found within what is left of `steps_max`."""
    violations = []
    for component in components_of(operations_of(records)):
        steps = steps_of(component)
        search = Search(steps, steps_max)
        stuck = search.run()
        steps_max -= search.count
        if stuck is not None:
            violations.append(_violation(steps, stuck, search.count, records))
    violations.sort(key=lambda violation: violation.time)
    return violations


def _violation(steps: Steps, stuck: Stuck, count: int, records: Sequence[Record]) -> Violation:
    operation = stuck.step.operation
    assert operation is not None and operation.result is not None
    paths = sorted(steps.places)
    about = ", ".join(paths[:_PATHS_TOLD_MAX])
    if len(paths) > _PATHS_TOLD_MAX:
        about += f" and {len(paths) - _PATHS_TOLD_MAX} more"
    what = _told(operation)
    if stuck.is_given_up:
        text = f"the search was given up after {count} steps, and had come as far as {what}"
    else:
        text = f"no order explains the answers up to that of {what}"
    before = " or ".join(dict.fromkeys(_tree_told(steps, stuck, tree) for tree in stuck.trees))
    text = f"{about}: {text}; before it, without what was under way: {before}"
    return Violation(CHECK, text, operation.result.time, _records_around(steps, stuck, records))


def _told(operation: Operation) -> str:
    invoke, result = operation.invoke, operation.result
    assert result is not None
    arguments = ", ".join(f"{name} {value!r}" for name, value in invoke.args.items())
    answer = f"{result.code} " if result.code else ""
    answer += ", ".join(f"{name} {value!r}" for name, value in result.result.items())
    told = f"op {invoke.op} of {invoke.client}, {invoke.name} ({arguments})"
    return f"{told} -> {answer.strip() or 'done'}"


def _tree_told(steps: Steps, stuck: Stuck, tree: Tree) -> str:
    """What it says of the paths the operation names, and how it would have been answered."""
    assert stuck.step.operation is not None
    told = []
    for path in dict.fromkeys(part.made or part.path for part in stuck.step.operation.parts):
        znode = tree[steps.places[path]] if path in steps.places else None
        if znode is None:
            told.append(f"no {path}")
        else:
            owner = f", of session {znode.owner}" if znode.owner else ""
            told.append(f"{path} with {znode.data!r}, version {znode.version}{owner}")
    _, answer = stuck.step.action.apply(tree)
    return f"[{'; '.join(told)}: {answer!r}]"


def _records_around(steps: Steps, stuck: Stuck, records: Sequence[Record]) -> list[Record]:
    """Those of the step, of all that overlap it, and of the last write answered before it."""
    asked = stuck.step
    shown = [step for step in steps.steps if _overlap(step, asked)]
    earlier = [step for step in steps.steps if step.changes and step.returned < asked.invoked]
    if earlier:
        shown.append(max(earlier, key=lambda step: step.returned))
    ops = {step.operation.invoke.op for step in shown if step.operation is not None}
    around: list[Record] = []
    for record in records:
        if isinstance(record, Invoke) and record.repeats in ops:
            ops.add(record.op)
        if isinstance(record, Invoke | Return) and record.op in ops:
            around.append(record)
    return around


def _overlap(one: Step, other: Step) -> bool:
    return one.invoked <= other.returned and other.invoked <= one.returned
