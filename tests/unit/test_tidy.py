"""The house rules, kept by a test and not by memory.

Goal: a part that imports what it must not know, or a core that reads the clock, fails here at
once, with the replacement in the message. Method: walk the syntax trees; import nothing, but in
the two tests that measure what an import drags in.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "coordsvc"

BASE = {"errors", "paths", "exit_status"}

ARROWS: dict[str, set[str]] = {
    # part: what of the package it may import, besides itself.
    "errors": set(),
    "exit_status": set(),
    "paths": {"errors"},
    "v1": set(),
    "core": {"errors", "paths"},
    "storage": BASE | {"core"},
    "raft": BASE | {"core"},
    "server": BASE | {"core", "storage", "raft", "v1"},
    "client": BASE | {"v1"},
    "cli": BASE | {"v1", "client"},
    "__main__": {"cli"},
    # Test tools put everything together; nothing else may import them.
    "testing": BASE | {"core", "storage", "raft", "server", "v1", "client", "cli"},
}

LAZY_ARROWS: dict[str, set[str]] = {
    # Commands that run or open a replica's parts, and only when they are called: all other
    # commands start without paying for a replica.
    "cli/serve.py": {"server"},
    "cli/config.py": {"server"},
    "cli/replica_options.py": {"server"},
    "cli/dev.py": {"server"},
    "cli/inspect.py": {"server", "storage", "raft", "core"},
    "cli/rejoin.py": {"storage"},
}

ONLY_IMPORTER = {"pysyncobj": "raft", "lmdb": "storage", "aiohttp": "server", "click": "cli"}
"""Library: the one part that may import it (besides testing)."""

CORE_LIBRARIES = {"msgspec"}

BANNED_IN_CORE = {
    # module: what to do instead.
    "asyncio": "return what is to be done; the caller does it",
    "datetime": "use Entry.time_ms, which the leader stamps",
    "locale": "compare code points or bytes",
    "logging": "return an effect; the caller logs it",
    "multiprocessing": "the core runs on the caller's thread",
    "os": "take the value as an argument, or carry it in the command",
    "pathlib": "the core reads no files",
    "random": "the proposer draws it and carries it in the command",
    "secrets": "the proposer draws it and carries it in the command",
    "socket": "the core does no input or output",
    "tempfile": "the core writes no files",
    "threading": "the core runs on one thread and needs no lock",
    "time": "use Entry.time_ms or Entry.clock_ms, which the leader stamps",
    "unicodedata": "its tables differ between Python versions; compare code points",
    "uuid": "derive the value in apply, or carry it in the command",
}

BANNED_CALLS_IN_CORE = {
    "hash": "differs between processes; use hashlib.blake2b over the encoded record",
    "id": "differs between processes; use a number from the replicated state",
    "input": "the core does no input or output",
    "open": "the core reads no files",
    "print": "return an effect; the caller logs it",
}


class Import(NamedTuple):
    file: str
    line: int
    module: str
    is_lazy: bool

    @property
    def library(self) -> str:
        return self.module.partition(".")[0]

    @property
    def part(self) -> str:
        """The part of this package it imports; "" for the package itself."""
        return (self.module.split(".") + [""])[1]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def part_of(file_path: Path) -> str:
    return file_path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def source_files(part: str | None = None) -> list[Path]:
    """Hand-written sources of the package, or of one part of it."""
    files = sorted(path for path in PACKAGE.rglob("*.py") if "_pb2" not in path.name)
    return [path for path in files if part is None or part_of(path) == part]


def imports_of(file_path: Path) -> list[Import]:
    return list(_walk_imports(ast.parse(file_path.read_text()), file_path, is_lazy=False))


def _walk_imports(node: ast.AST, file_path: Path, *, is_lazy: bool) -> Iterator[Import]:
    name = file_path.relative_to(PACKAGE).as_posix()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(name, child.lineno, alias.name, is_lazy)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{name}:{child.lineno}: use an absolute import"
            assert child.module is not None
            # `from coordsvc import core` imports a part, `from coordsvc.core import x` the same.
            names = [alias.name for alias in child.names] if child.module == "coordsvc" else []
            parts = [f"coordsvc.{each}" for each in names if not each.startswith("__")]
            for module in parts or [child.module]:
                yield Import(name, child.lineno, module, is_lazy)
        else:
            inside_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            is_lazy_below = is_lazy or inside_function or for_types
            yield from _walk_imports(child, file_path, is_lazy=is_lazy_below)


def test_the_walk_sees_the_package() -> None:
    """Guards the tests below against walking over nothing."""
    assert source_files("core"), "coordsvc/core is missing"
    assert {part_of(path) for path in source_files()} <= set(ARROWS) | {"__init__"}
    every_import = [each for path in source_files() for each in imports_of(path)]
    assert any(each.module == "coordsvc.errors" for each in every_import)


@pytest.mark.parametrize("part", sorted(ARROWS))
def test_import_directions(part: str) -> None:
    allowed = ARROWS[part] | {part, ""}
    for file_path in source_files(part):
        name = file_path.relative_to(PACKAGE).as_posix()
        for each in imports_of(file_path):
            if each.library != "coordsvc":
                continue
            lazily_allowed = LAZY_ARROWS.get(name, set()) if each.is_lazy else set()
            assert each.part in allowed | lazily_allowed, (
                f"{each}; {part} may import {sorted(allowed - {'', part})} only"
            )


def test_the_package_itself_imports_only_what_is_asked_of_it() -> None:
    """What it lends names from is imported when a name is first used."""
    at_once = [each for each in imports_of(PACKAGE / "__init__.py") if not each.is_lazy]
    assert {each.library for each in at_once} <= sys.stdlib_module_names


@pytest.mark.parametrize("library", sorted(ONLY_IMPORTER))
def test_only_one_part_imports(library: str) -> None:
    owner = ONLY_IMPORTER[library]
    for file_path in source_files():
        for each in imports_of(file_path):
            if each.library == library:
                assert part_of(file_path) in {owner, "testing"}, f"{each}; only {owner}/ may"


def test_the_core_imports_the_standard_library_and_msgspec_only() -> None:
    allowed = sys.stdlib_module_names | CORE_LIBRARIES | {"coordsvc"}
    for part in ("core", "errors", "paths"):
        for file_path in source_files(part):
            for each in imports_of(file_path):
                assert each.library in allowed, f"{each}; core may import {CORE_LIBRARIES} only"


def test_the_core_is_pure() -> None:
    for part in ("core", "errors", "paths"):
        for file_path in source_files(part):
            for each in imports_of(file_path):
                instead = BANNED_IN_CORE.get(each.library)
                assert instead is None, f"{each}; instead: {instead}"
            for node in ast.walk(ast.parse(file_path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    instead = BANNED_CALLS_IN_CORE.get(node.func.id)
                    assert instead is None, (
                        f"{file_path.name}:{node.lineno} calls {node.func.id}(): {instead}"
                    )


def loaded_by(statement: str) -> set[str]:
    """Names of everything that a fresh interpreter has loaded after `statement`."""
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    return set(finished.stdout.split())


def test_importing_the_package_loads_no_library() -> None:
    libraries = {"grpc", "google", "lmdb", "pysyncobj", "msgspec", "aiohttp"}
    assert not loaded_by("import coordsvc") & libraries


def test_importing_the_messages_loads_no_grpc() -> None:
    assert "grpc" not in loaded_by("from coordsvc.v1 import coordination_pb2, cluster_pb2")


def test_a_client_loads_no_part_of_a_replica() -> None:
    """Importing pysyncobj patches pickle for the whole process; no client program shall have it."""
    replica = {"lmdb", "pysyncobj", "aiohttp"}
    replica |= {f"coordsvc.{part}" for part in ("core", "storage", "raft", "server")}
    for part in ("client", "cli"):
        if not source_files(part):
            pytest.skip(f"coordsvc/{part} does not exist")
        module = "coordsvc.client" if part == "client" else "coordsvc.cli.main"
        assert not loaded_by(f"import {module}") & replica, module


def test_generated_code_is_only_generated() -> None:
    header = "generated by"
    files = sorted(path for path in (PACKAGE / "v1").iterdir() if path.suffix in {".py", ".pyi"})
    generated = [path for path in files if "_pb2" in path.name]
    assert [path.name for path in files if path not in generated] == ["__init__.py"]
    assert generated
    for path in generated:
        beginning = "".join(path.read_text().splitlines(keepends=True)[:6]).lower()
        assert header in beginning, f"{path.name} has not the generator's header"


def test_generated_code_imports_only_its_own_package() -> None:
    allowed = sys.stdlib_module_names | {"google", "grpc"}
    for path in sorted((PACKAGE / "v1").glob("*_pb2*.py")):
        for each in imports_of(path):
            ours = each.module == "coordsvc.v1" or each.module.startswith("coordsvc.v1.")
            assert ours or each.library in allowed, str(each)


def test_no_reminders_left_in_the_source() -> None:
    reminders = ["FIX" + "ME", "TO" + "DO"]
    suffixes = {".go", ".js", ".md", ".proto", ".py", ".sh", ".toml", ".yaml", ".yml"}
    folders = ["coordsvc", "proto", "scripts", "tests", "deploy", "docs"]
    files = [path for name in folders for path in (ROOT / name).rglob("*")]
    for path in [*files, *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"]:
        if path.suffix not in suffixes | {""} or not path.is_file():
            continue
        if {"node_modules", "gen"} & set(path.relative_to(ROOT).parts):  # not ours
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            found = [word for word in reminders if word in line]
            assert not found, f"{path.relative_to(ROOT)}:{number} has a {found[0]}"
