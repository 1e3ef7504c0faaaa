"""Generates the Python code of the API: proto/**/*.proto to coordsvc/v1/ (or, with --check, to a
temporary folder, and fails when what is committed differs or cannot be imported).

Runs in the environment of its own that `make proto` creates, because the code generator is pinned
to a version whose output runs on protobuf 6 and 7, and would hold back the project's own
environment. It has protobuf 6, so importing the result here is the test of that half of the
promise. proto/ mirrors the package, so the generated imports need no patching.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.resources
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTO_ROOT = "proto"
PACKAGE = Path("coordsvc/v1")
GENERATED_SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def generate(destination: Path) -> None:
    """Writes all generated files below `destination`, which is the root of the package tree."""
    # The stub generators are console scripts of this environment, which need not be on PATH.
    scripts = Path(sys.executable).parent
    os.environ["PATH"] = f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"
    with_service = {"coordination.proto", "cluster.proto"}
    names = sorted(path.name for path in Path(PROTO_ROOT, PACKAGE).glob("*.proto"))
    well_known = str(importlib.resources.files("grpc_tools") / "_proto")
    base = ["protoc", f"-I{PROTO_ROOT}", f"-I{well_known}"]
    out = str(destination)
    _run([*base, f"--python_out={out}", f"--mypy_out=quiet:{out}"], names)
    services = [name for name in names if name in with_service]
    _run([*base, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}"], services)


def _run(arguments: list[str], names: list[str]) -> None:
    status = protoc.main([*arguments, *(f"{PACKAGE.as_posix()}/{name}" for name in names)])
    if status != 0:
        sys.exit(f"protoc failed with status {status}")


def generated_files(root: Path) -> set[str]:
    folder = root / PACKAGE
    return {path.name for path in folder.iterdir() if path.name.endswith(GENERATED_SUFFIXES)}


def differences(fresh: Path, committed: Path) -> list[str]:
    """One line for each file that is missing, superfluous or different in `committed`."""
    wanted, present = generated_files(fresh), generated_files(committed)
    found = [f"missing: {name}" for name in sorted(wanted - present)]
    found += [f"has no .proto: {name}" for name in sorted(present - wanted)]
    for name in sorted(wanted & present):
        if not filecmp.cmp(fresh / PACKAGE / name, committed / PACKAGE / name, shallow=False):
            found.append(f"stale: {name}")
    return found


def check_imports(root: Path) -> None:
    """Imports every generated module with this environment's libraries."""
    names = sorted(name for name in generated_files(root) if name.endswith(".py"))
    modules = [".".join((*PACKAGE.parts, Path(name).stem)) for name in names]
    subprocess.run([sys.executable, "-c", f"import {', '.join(modules)}"], cwd=root, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate the Python code of proto/.")
    parser.add_argument("--check", action="store_true", help="only compare with what is there")
    check = parser.parse_args().check
    os.chdir(Path(__file__).resolve().parent.parent)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        found = differences(fresh, Path())
        if check:
            if found:
                sys.exit("generated code is not fresh, run `make proto`:\n  " + "\n  ".join(found))
            check_imports(Path())
            return
        for name in generated_files(Path()) - generated_files(fresh):
            (PACKAGE / name).unlink()
        for name in sorted(generated_files(fresh)):
            (PACKAGE / name).write_bytes((fresh / PACKAGE / name).read_bytes())
    print(f"{len(found)} file(s) of {PACKAGE} changed")


if __name__ == "__main__":
    main()
