"""Fails when fewer tests ran than are recorded: a test that is deselected, skipped or renamed away
must not go unnoticed.

    python -m tests.interop.zookeeper.counts REPORT.xml

`expected_counts.toml` says how many tests of each client `make interop` runs at least; who adds a
test raises the number. A test belongs to the client that its module's name begins with.
"""

from __future__ import annotations

import sys
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

EXPECTED = Path(__file__).with_name("expected_counts.toml")

CLIENTS = {
    "test_kazoo": "kazoo",
    "test_zkcli": "zkCli",
    "test_c_shell": "C shell",
    "test_curator": "Curator",
}
"""What a module's name begins with, and the client it tests."""


def passed_by_client(report: str) -> Counter[str]:
    """How many tests passed, by client, in a report of JUnit's form."""
    passed: Counter[str] = Counter()
    for case in ElementTree.fromstring(report).iter("testcase"):
        if any(case.find(outcome) is not None for outcome in ("skipped", "failure", "error")):
            continue
        module = case.attrib["classname"].rpartition(".")[2]
        for beginning, client in CLIENTS.items():
            if module.startswith(beginning):
                passed[client] += 1
    return passed


def read_expected(text: str) -> dict[str, int]:
    """ValueError: it does not say a positive number for each client, or it names another one."""
    expected = tomllib.loads(text)["tests"]
    if set(expected) != set(CLIENTS.values()):
        raise ValueError(f"the clients are {sorted(CLIENTS.values())}, not {sorted(expected)}")
    for client, number in expected.items():
        if type(number) is not int or number <= 0:
            raise ValueError(f"{client}: {number!r} is not a number of tests")
    return dict(expected)


def too_few(passed: Mapping[str, int], expected: Mapping[str, int]) -> list[str]:
    """A sentence for each client of which fewer passed than are expected."""
    return [
        f"{client}: {passed.get(client, 0)} tests passed, {number} are recorded in {EXPECTED.name}"
        for client, number in expected.items()
        if passed.get(client, 0) < number
    ]


def main(arguments: list[str]) -> int:
    [report_path] = arguments
    passed = passed_by_client(Path(report_path).read_text())
    expected = read_expected(EXPECTED.read_text())
    for client, number in expected.items():
        print(f"{client}: {passed[client]} tests passed, {number} expected")
    if complaints := too_few(passed, expected):
        print("FAILED: " + "; ".join(complaints), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
