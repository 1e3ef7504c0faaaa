"""What the end of a catcher says about a mutant: caught, for the reason expected, or not."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.mutants.definition import SIMULATION, Found, Mutant

CAUGHT, SURVIVED = "caught", "SURVIVED"
OTHER_REASON, TOO_LONG = "OTHER REASON", "TOOK TOO LONG"

VIOLATION = re.compile(r"^seed (\d+): (.+?) at [\d.]+ s: (.*)", re.MULTILINE)
UNSPECIFIC = ("no bug", "liveness")
"""Checks that show that something is wrong, but not what; they count for mutants that say so."""


@dataclass(frozen=True)
class Run:
    """How a catcher ended. `said`: the lines that say why it failed."""

    status: int | None
    """None: it took too long."""
    said: str
    output: str
    seconds: float


@dataclass(frozen=True)
class Outcome:
    mutant: Mutant
    catcher: str
    verdict: str
    seconds: float
    detail: str = ""
    found: Found | None = None
    """By the simulation."""


def judge(mutant: Mutant, catcher: str, ended: Run) -> Outcome:
    def outcome(verdict: str, detail: str = "", found: Found | None = None) -> Outcome:
        return Outcome(mutant, catcher, verdict, ended.seconds, detail, found)

    tail = "\n".join(ended.output.splitlines()[-25:])
    if ended.status is None:
        return outcome(TOO_LONG, tail)
    if ended.status == 0:
        return outcome(SURVIVED, tail)
    if ended.status == 1 and catcher == SIMULATION:
        tail = "\n".join(each[0] for each in VIOLATION.finditer(ended.output)) or tail
        for seed, check, text in VIOLATION.findall(ended.output):
            is_expected = check not in UNSPECIFIC or mutant.violation
            if is_expected and mutant.violation in f"{check}: {text}":
                return outcome(CAUGHT, found=Found(int(seed), check))
    elif ended.status == 1 and mutant.expect in ended.said:
        return outcome(CAUGHT)
    return outcome(OTHER_REASON, ended.said or tail)


def said_by_pytest(output: str) -> str:
    """Its lines about the failure, and before them the assertion that failed, if one did: those in
    the package itself have no more to say than their source."""
    said: list[str] = []
    source = ""
    for line in output.splitlines():
        if line.startswith("E "):
            text = line[1:].strip()
            if source and text.startswith(("assert", "AssertionError")):
                said.append(source)
            said.append(text)
            source = ""
        elif line.strip(" ^~"):
            source = line.strip()
    return "\n".join(said)
