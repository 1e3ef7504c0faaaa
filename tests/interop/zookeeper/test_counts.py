"""A test that did not run is noticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.zookeeper import counts

MODULES = {
    "test_kazoo_a": "def test_one(): pass\ndef test_two(): pass\n",
    "test_kazoo_b": "def test_three(): pass\n",
    "test_zkcli": "def test_one(): pass\n",
    "test_c_shell": "def test_one(): pass\n",
    "test_curator": "import pytest\n@pytest.mark.parametrize('n', 'xyz')\ndef test_it(n): pass\n",
    "test_counts": "def test_of_no_client(): pass\n",
}
PASSED = {"kazoo": 3, "zkCli": 1, "C shell": 1, "Curator": 3}

ONE_OF_SEVEN = """
import pytest
def test_passes(): pass
def test_skips(): pytest.skip("no")
@pytest.mark.skip
def test_is_skipped(): pass
@pytest.mark.xfail
def test_fails_as_expected(): assert False
def test_fails(): assert False
def test_lacks(fixture_of_no_one): pass
@pytest.fixture
def ending():
    yield
    assert False
def test_ends_badly(ending): pass
"""


def report_of(folder: Path, *options: str, **changed: str) -> Path:
    """pytest's report of the modules."""
    for name, text in (MODULES | changed).items():
        (folder / f"{name}.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    subprocess.run([*command, "--junitxml=report.xml", "."], cwd=folder, capture_output=True)
    return folder / "report.xml"


def missing(report: Path) -> list[str]:
    passed = counts.passed_by_client(report.read_text())
    return [each.split(",")[0] for each in counts.too_few(passed, PASSED)]


def test_what_passed_is_counted_by_client(tmp_path: Path) -> None:
    passed = counts.passed_by_client(report_of(tmp_path).read_text())
    assert passed == PASSED
    assert counts.too_few(passed, PASSED) == []
    assert counts.too_few(passed, PASSED | {"kazoo": 1}) == []
    assert counts.too_few(passed, PASSED | {"kazoo": 4}) == [
        "kazoo: 3 tests passed, 4 are recorded in expected_counts.toml"
    ]


def test_what_did_not_pass_is_missing(tmp_path: Path) -> None:
    report = report_of(tmp_path, test_kazoo_a=ONE_OF_SEVEN, test_zkcli="import nothing_such\n")
    # pytest ends at a module that it cannot read.
    assert missing(report) == [f"{client}: 0 tests passed" for client in PASSED]
    report = report_of(tmp_path, test_kazoo_a=ONE_OF_SEVEN, test_zkcli="def left_out(): pass\n")
    assert missing(report) == ["kazoo: 2 tests passed", "zkCli: 0 tests passed"]


def test_a_deselected_test_is_missing(tmp_path: Path) -> None:
    report = report_of(tmp_path, "-k", "not three and not it")
    assert missing(report) == ["kazoo: 2 tests passed", "Curator: 0 tests passed"]


def test_the_program_fails_when_too_few_ran(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="a.test_kazoo_b" name="test_a"/></testsuite>'
        "</testsuites>"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.interop.zookeeper.counts", str(report)],
        capture_output=True,
        text=True,
        cwd=counts.EXPECTED.parents[3],
    )
    assert done.returncode == 1
    assert "kazoo: 1 tests passed, " in done.stdout
    assert "FAILED: kazoo: 1 tests passed" in done.stderr


def test_the_program_succeeds_when_as_many_ran(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = counts.read_expected(counts.EXPECTED.read_text())
    beginnings = {client: beginning for beginning, client in counts.CLIENTS.items()}
    cases = "".join(
        f'<testcase classname="tests.{beginnings[client]}" name="test_{n}"/>'
        for client, number in expected.items()
        for n in range(number)
    )
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    assert counts.main([str(report)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(expected)


@pytest.mark.parametrize(
    "text",
    [
        "[tests]\nkazoo = 2\n",
        '[tests]\nkazoo = 2\nzkCli = 0\n"C shell" = 1\nCurator = 1\n',
        '[tests]\nkazoo = 2\nzkCli = true\n"C shell" = 1\nCurator = 1\n',
    ],
)
def test_the_recorded_numbers_are_of_all_clients(text: str) -> None:
    with pytest.raises(ValueError, match="clients|number"):
        counts.read_expected(text)
