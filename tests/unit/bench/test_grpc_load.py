"""The programs in Go: built again when their sources change, and only then.

What the generator itself promises is tested in Go, beside it; here in the long form.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from bench import go_programs
from bench.go_programs import GRPC_LOAD, STAMP, GoProgram
from bench.load import PERCENTS, Load, Outcome
from coordsvc.testing.cluster import ClusterError


class FakeGo:
    """It notes what it is asked, and makes the program when it is to."""

    def __init__(self, program: GoProgram) -> None:
        self.asked: list[str] = []
        self.fails_at = ""
        self._program = program

    def __call__(self, folder: Path, *arguments: str, **more: object) -> None:
        self.asked.append(arguments[0])
        assert (folder / "main.go").read_text() == (self._program.sources / "main.go").read_text()
        if arguments[0] == self.fails_at:
            raise ClusterError("it does not compile")
        if arguments[0] == "build":
            self._program.file.write_text("program")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GoProgram:
    monkeypatch.setattr(go_programs, "BUILT", tmp_path / "built")
    sources = tmp_path / "sources"
    (sources / "below").mkdir(parents=True)
    (sources / "main.go").write_text("main")
    (sources / "below" / "more.go").write_text("more")
    return GoProgram("thing", sources)


@pytest.fixture
def go(program: GoProgram, monkeypatch: pytest.MonkeyPatch) -> FakeGo:
    fake = FakeGo(program)
    monkeypatch.setattr(go_programs, "_go", fake)
    return fake


def silent(_: str) -> None:
    pass


def test_it_is_built_once(program: GoProgram, go: FakeGo) -> None:
    assert not program.is_built()
    program.prepare(silent)
    assert program.is_built()
    assert go.asked == ["vet", "build"]
    program.prepare(silent)
    assert go.asked == ["vet", "build"]


@pytest.mark.parametrize(
    ("name", "text"), [("main.go", "other"), ("below/more.go", "other"), ("new.go", "")]
)
def test_it_is_built_anew_when_a_source_changes(
    program: GoProgram, go: FakeGo, name: str, text: str
) -> None:
    program.prepare(silent)
    (program.sources / name).write_text(text)
    assert not program.is_built()
    program.prepare(silent)
    assert go.asked == ["vet", "build"] * 2
    assert program.is_built()


def test_it_is_built_anew_when_a_source_is_gone(program: GoProgram, go: FakeGo) -> None:
    program.prepare(silent)
    (program.sources / "below" / "more.go").unlink()
    assert not program.is_built()


def test_it_is_built_anew_when_what_it_is_generated_from_changes(
    program: GoProgram, tmp_path: Path
) -> None:
    protos = tmp_path / "protos"
    protos.mkdir()
    (protos / "a.proto").write_text("one")
    with_stubs = GoProgram("thing", program.sources, generated_from=protos)
    before = with_stubs.wanted()
    assert before != program.wanted()
    (protos / "a.proto").write_text("two")
    assert with_stubs.wanted() != before


@pytest.mark.parametrize("fails_at", ["vet", "build"])
def test_what_failed_is_not_taken_for_built(program: GoProgram, go: FakeGo, fails_at: str) -> None:
    program.prepare(silent)
    (program.sources / "main.go").write_text("other")
    go.fails_at = fails_at
    with pytest.raises(ClusterError, match="does not compile"):
        program.prepare(silent)
    assert not program.is_built()
    assert not (program.directory / STAMP).exists()
    assert not program.file.exists()


def test_without_go_what_was_built_can_be_used(
    program: GoProgram, go: FakeGo, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.prepare(silent)
    monkeypatch.setenv("PATH", "")
    assert program.why_not() == ""
    (program.sources / "main.go").write_text("other")
    assert program.why_not() == "not installed: go"


def test_both_sides_know_the_same_fields() -> None:
    """What the generator does not know it refuses; what it leaves out has a default here."""
    text = (GRPC_LOAD.sources / "generator" / "load.go").read_text()
    load, outcome = text.split("type Outcome struct")
    assert [each.name for each in fields(Load) if f'`json:"{each.name}"`' not in load] == []
    missing = [each.name for each in fields(Outcome) if f'`json:"{each.name}"`' not in outcome]
    assert missing == ["messages"]


def test_both_sides_give_latencies_at_the_same_places() -> None:
    text = (GRPC_LOAD.sources / "generator" / "percentiles.go").read_text()
    assert f"{{{', '.join(f'{percent:g}' for percent in PERCENTS)}}}" in text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_the_generator_promises(tmp_path: Path) -> None:
    """Only its package that needs nothing but the standard library."""
    if shutil.which("go") is None:
        pytest.skip("go is not on PATH")
    copy = tmp_path / "generator"
    shutil.copytree(GRPC_LOAD.sources / "generator", copy)
    (copy / "go.mod").write_text("module generator\n\ngo 1.25\n")
    done = subprocess.run(
        ["go", "test", "."],
        cwd=copy,
        env={**os.environ, "GOFLAGS": "-buildvcs=false", "GOPROXY": "off"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
