"""PySyncObj as it was read.

Methods of it are replaced and others relied on, by private names. Goal: another version, or a
patched copy, cannot come in unread. When a hash differs: read the new source against the hazards
in test_hazards.py, adapt `adapter.py`, and only then take the new hash into the table.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pysyncobj
import pytest
from pysyncobj import SyncObj

from coordsvc.raft import adapter
from coordsvc.testing.raft_harness import RaftCluster

PACKAGE = Path(adapter.__file__).resolve().parents[1]

SOURCE_HASHES = {
    "_SyncObj__applyLogEntries": (
        "073db677773b5a2dddf17cc51f84ac8803ed456da0f0011e15240d6bd1600684"
    ),
    "_SyncObj__generateRaftTimeout": (
        "92ed37d3620e781a15680bc5af8a1983a2c265c42aef4322d403001319bbb1a7"
    ),
    "_SyncObj__getCurrentLogIndex": (
        "e5af22ca246686bdc5fd2bd9c5e34eac491a571ca9ed3dae493a232cacbacb7a"
    ),
    "_SyncObj__getCurrentLogTerm": (
        "1cb8867e6a13d3976c07506c31d71681bc4921334dda8c5958da5d91f2e939ac"
    ),
    "_SyncObj__loadDumpFile": ("ec66e83905de703bcead2735be875e71870a6bbe271c854867611e555a90bbba"),
    "_SyncObj__onBecomeLeader": (
        "5a3fd97bc17dc1cf3070b007538b6a8d46adb71f0b6523f3922dc953420645e8"
    ),
    "_SyncObj__onLeaderChanged": (
        "53b7685e1d897887fe7d32a74e2d02eacba30cc7bf916b1a4dbf100eba8f1ec0"
    ),
    "_SyncObj__onMessageReceived": (
        "ddfe34b6c02821795146dc533fb7c0fcf6574a082a68a227b4c885c9e14be206"
    ),
    "_SyncObj__sendAppendEntries": (
        "9cb9073128c392fa9e5efc4691420ba435bfafb4c74e83a34f931fa16aa760c6"
    ),
    "_SyncObj__setCurrentTerm": (
        "0ad5bf456ac06bd314d2dbc8991c6b6240e63bf33aaa975620aa84a7079d5f39"
    ),
    "_SyncObj__setState": ("2c1f239f7bd79b3945b63418b4f564c40c07893d3cf747af2ddd5c6a045093a8"),
    "_SyncObj__tryLogCompaction": (
        "c2f8a0ec14cc7312e3ff41a16cde9be71ff0f908bd66aec9e2673d97a775be2c"
    ),
    "__init__": ("09df12cd7fd7d7270fee82c1a025acc1f3a68e98dafbad81be467947ab95cbf0"),
    "_checkCommandsToApply": ("a386a8079361d204f2c11f895416548c432a254671a9114258921c25108a966e"),
    "_onTick": ("cc9eb08232d005ba4e21a33ec453e5d02fe3537dadebda8571406c57f65a3c37"),
    "transferLeadership": ("c3ac67963962d9aa847c52e6331403ca86596707869eced2438472b7ccd3fae2"),
}


def source_hash(name: str) -> str:
    return hashlib.sha256(inspect.getsource(getattr(SyncObj, name)).encode()).hexdigest()


def test_the_version_is_the_one_that_was_read() -> None:
    assert importlib.metadata.version("pysyncobj") == adapter.LIBRARY_VERSION


def test_the_project_pins_that_version() -> None:
    text = (PACKAGE.parent / "pyproject.toml").read_text()
    assert f'"pysyncobj=={adapter.LIBRARY_VERSION}"' in text


def test_every_method_that_matters_is_in_the_table() -> None:
    assert set(SOURCE_HASHES) == set(adapter.LIBRARY_METHODS)


@pytest.mark.parametrize("name", sorted(adapter.LIBRARY_METHODS))
def test_the_source_is_the_one_that_was_read(name: str) -> None:
    assert source_hash(name) == SOURCE_HASHES[name], f"SyncObj.{name} has changed: read it"


def names_used(pattern: str) -> set[str]:
    """Of the library's names, those that the adapter spells."""
    names = set()
    for node in ast.walk(ast.parse(Path(adapter.__file__).read_text())):
        if isinstance(node, ast.Attribute) and re.fullmatch(pattern, node.attr):
            names.add(node.attr)
        elif isinstance(node, ast.FunctionDef) and re.fullmatch(pattern, node.name):
            names.add(node.name)
    return names


def test_every_private_name_exists_in_the_library() -> None:
    """A name that is gone would be set or overridden without any effect."""
    used = names_used(r"_SyncObj__\w+")
    assert len(used) > 15
    in_source = set(re.findall(r"self\.(__\w+)", inspect.getsource(SyncObj)))
    methods = {name for name in dir(SyncObj) if name.startswith("_SyncObj__")}
    for name in sorted(used):
        assert name in methods or name.removeprefix("_SyncObj") in in_source, name


def test_every_attribute_is_there_after_the_constructor() -> None:
    node = RaftCluster(3).hosts[1].node
    for name in sorted(names_used(r"_SyncObj__\w+")):
        assert hasattr(node, name), name


def test_no_other_file_knows_a_private_name() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name not in ("adapter.py", "node.py"):
            assert "_SyncObj__" not in path.read_text(), path


def test_what_is_replaced_is_replaced() -> None:
    for name in adapter.REPLACED:
        ours = getattr(adapter.RaftAdapter, name)
        assert inspect.getsourcefile(ours) == adapter.__file__, name


def test_every_overridden_method_is_declared() -> None:
    """An override by accident would change the library in silence."""
    own = {name for name in vars(adapter.RaftAdapter) if not name.startswith("__")}
    by_accident = {name for name in own if name in dir(SyncObj)} - set(adapter.REPLACED)
    assert not by_accident


@pytest.mark.parametrize(
    "name",
    [
        "_checkCommandsToApply",
        "_SyncObj__applyLogEntries",
        "_SyncObj__tryLogCompaction",
    ],
)
def test_ways_that_must_not_be_gone_are_shut(name: str) -> None:
    node = RaftCluster(3).hosts[1].node
    with pytest.raises(adapter.LibraryPathError):
        getattr(node, name)()


def test_the_library_names_used_at_module_level_exist() -> None:
    source = inspect.getsource(sys.modules["pysyncobj.syncobj"])
    for name in ("monotonicTime", "createJournal"):
        assert re.search(rf"\b{name}\(", source), f"the library does not call {name} any more"


def test_the_library_works_for_others_in_the_same_process() -> None:
    """Its clock and its journal maker are replaced; an ordinary SyncObj still gets its own."""
    stock = SyncObj(None, [], pysyncobj.SyncObjConf(autoTick=False), transportClass=_NoTransport)
    assert type(stock._SyncObj__raftLog).__name__ == "MemoryJournal"


class _NoTransport(pysyncobj.transport.Transport):  # type: ignore[misc]
    ready = True


# ------------------------------------------------------------------------- pickle


def test_nothing_of_ours_uses_pickle() -> None:
    """The library patches the standard pickle for the whole process, and unpickling runs code."""
    shunned = {"pickle", "cPickle", "_pickle", "shelve", "marshal", "dill", "cloudpickle"}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(alias.name for alias in node.names)]
            for name in names:
                assert name.split(".")[0] not in shunned, f"{path} imports {name}"
                assert not name.endswith(".pickle"), f"{path} imports {name}"


def test_consensus_pickles_nothing_while_it_runs() -> None:
    """An election, writes and a restart, with pickle made to explode."""
    program = """
import pickle
import pysyncobj.pickle
def explode(*args, **kwargs):
    raise SystemExit("pickle was used")
import coordsvc.raft.replica
from coordsvc.testing.raft_harness import RaftCluster
for module in (pickle, pysyncobj.pickle):
    for name in ("dump", "dumps", "load", "loads"):
        setattr(module, name, explode)
cluster = RaftCluster(3)
cluster.elect()
cluster.write()
cluster.run(0.5)
cluster.restart(2)
cluster.link_all()
cluster.run(0.5)
assert cluster.settled
"""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
