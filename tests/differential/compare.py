"""Holds the results of two servers against each other, and against what is documented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.differential.case import Case, Group, Step

Results = Mapping[tuple[str, str], Sequence[Sequence[str]]]

LAST = Step("what else came", lambda _: [])


@dataclass
class Verdict:
    steps: int = 0
    """That showed something."""
    cases: int = 0
    equal: int = 0
    named: dict[str, int] = field(default_factory=dict)
    """Differences that occurred as they are documented, by their id."""
    faults: list[str] = field(default_factory=list)


def compare(
    groups: Sequence[Group], names: tuple[str, str], theirs: Results, ours: Results
) -> Verdict:
    """Prints both results of each step."""
    verdict = Verdict()
    for group in groups:
        for case in group.cases:
            verdict.cases += 1
            print(f"\n{group.name}: {case.name}")
            key = group.name, case.name
            _compare_case(verdict, case, names, theirs[key], ours[key])
    return verdict


def _compare_case(
    verdict: Verdict,
    case: Case,
    names: tuple[str, str],
    theirs: Sequence[Sequence[str]],
    ours: Sequence[Sequence[str]],
) -> None:
    for step, left, right in zip((*case.steps, LAST), theirs, ours, strict=True):
        if step is LAST and not left and not right:
            continue
        fault = judge(step, left, right)
        shows = bool(left or right)
        verdict.steps += shows
        mark = "!" if fault else "=" if left == right else "~"
        note = f"  [{step.difference}]" if step.difference else ""
        print(f"  {mark} {step.text}{note}")
        if shows:
            width = max(map(len, names))
            for name, lines in zip(names, (left, right), strict=True):
                for line in lines or ["-"]:
                    print(f"      {name:{width}}  {line}")
        if fault:
            print(f"      *** {fault}")
            verdict.faults.append(f"{case.name}: {step.text}: {fault}")
        elif left == right:
            verdict.equal += shows
        else:
            verdict.named[step.difference] = verdict.named.get(step.difference, 0) + 1


def faulty(groups: Sequence[Group], theirs: Results, ours: Results) -> list[Group]:
    """The cases with a fault."""
    found = []
    for group in groups:
        cases = []
        for case in group.cases:
            pairs = zip(theirs[group.name, case.name], ours[group.name, case.name], strict=True)
            if any(
                judge(step, *pair) for step, pair in zip((*case.steps, LAST), pairs, strict=True)
            ):
                cases.append(case)
        if cases:
            found.append(Group(group.name, cases, group.server))
    return found


def judge(step: Step, theirs: Sequence[str], ours: Sequence[str]) -> str:
    """What is wrong with the two results of a step; empty: nothing."""
    if theirs == ours:
        if step.difference:
            return f"{step.difference} does not occur any more"
        return ""
    if not step.difference:
        return "a difference that has no name"
    left, right = "\n".join(theirs), "\n".join(ours)
    if step.zookeeper not in left:
        return f"{step.difference}: ZooKeeper was to say {step.zookeeper!r}"
    if step.coordsvc not in right:
        return f"{step.difference}: coordsvc was to say {step.coordsvc!r}"
    return ""
