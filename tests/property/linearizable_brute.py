"""The checker of linearizability by brute force: every order, on the whole tree, nothing clever.

Written from the semantics and not from the checker: znodes are a plain dict, and children are
found by looking at every path. Also the maker of the small histories both are asked about.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from coordsvc.testing.history import Invoke, Record, Return

FOREVER = 10**9


@dataclass
class Node:
    data: str | None
    owner: str
    version: int = 0
    creates: int = 0


class RefusedError(Exception):
    pass


@dataclass
class Tree:
    nodes: dict[str, Node] = field(default_factory=lambda: {"/": Node("", "")})

    def run(self, name: str, args: dict[str, Any], session: str) -> tuple[str, dict[str, Any]]:
        """The code and the result."""
        before = copy.deepcopy(self.nodes)
        try:
            if name != "multi":
                return "", getattr(self, name)(args, session)
            results = []
            for index, one in enumerate(args["ops"]):
                try:
                    results.append(getattr(self, one["name"])(one, session))
                except RefusedError as error:
                    self.nodes = before
                    return str(error), {"index": index}
            return "", {"results": results}
        except RefusedError as error:
            return str(error), {}

    def get(self, path: str) -> Node:
        if path not in self.nodes:
            raise RefusedError("NO_NODE")
        return self.nodes[path]

    def names(self, path: str) -> list[str]:
        below = path.rstrip("/") + "/"
        return sorted(
            one[len(below) :]
            for one in self.nodes
            if one.startswith(below) and one != path and "/" not in one[len(below) :]
        )

    def versioned(self, args: dict[str, Any]) -> Node:
        node = self.get(args["path"])
        if args["version"] not in (None, node.version):
            raise RefusedError("BAD_VERSION")
        return node

    def create(self, args: dict[str, Any], session: str) -> dict[str, Any]:
        path = args["path"]
        parent = self.get(path[: path.rfind("/")] or "/")
        if args["mode"].endswith("sequential"):
            path += f"{parent.creates:010d}"
        if path in self.nodes:
            raise RefusedError("NODE_EXISTS")
        if parent.owner:
            raise RefusedError("NO_CHILDREN_FOR_EPHEMERALS")
        parent.creates += 1
        self.nodes[path] = Node(args["data"], session if "ephemeral" in args["mode"] else "")
        return {"path": path}

    def set_data(self, args: dict[str, Any], session: str) -> dict[str, Any]:
        node = self.versioned(args)
        node.version += 1
        node.data = args["data"]
        return {"version": node.version}

    def delete(self, args: dict[str, Any], session: str) -> dict[str, Any]:
        self.versioned(args)
        if self.names(args["path"]):
            raise RefusedError("NOT_EMPTY")
        del self.nodes[args["path"]]
        return {}

    def check(self, args: dict[str, Any], session: str) -> dict[str, Any]:
        self.versioned(args)
        return {}

    def exists(self, args: dict[str, Any], session: str) -> dict[str, Any]:
        node = self.nodes.get(args["path"])
        if node is None:
            return {"exists": False}
        return {"exists": True, "version": node.version, "owner": node.owner}

    def get_data(self, args: dict[str, Any], session: str) -> dict[str, Any]:
        node = self.get(args["path"])
        return {"data": node.data, "version": node.version}

    def get_children(self, args: dict[str, Any], session: str) -> dict[str, Any]:
        self.get(args["path"])
        return {"names": self.names(args["path"])}

    def end(self, session: str, path: str) -> bool:
        """Ephemerals of the session vanish: at `path` and as its children, or everywhere."""
        gone = [
            one
            for one, node in self.nodes.items()
            if node.owner == session and (not path or path in (one, one[: one.rfind("/")]))
        ]
        for one in gone:
            del self.nodes[one]
        return bool(gone)


@dataclass
class Op:
    name: str
    args: dict[str, Any]
    session: str
    invoked: int
    returned: int
    outcome: str
    code: str
    result: dict[str, Any]

    @property
    def is_must(self) -> bool:
        return self.outcome in ("ok", "error")

    @property
    def is_read(self) -> bool:
        return self.name in ("exists", "get_data", "get_children")


# ------------------------------------------------------------------------------- the checker


def is_linearizable(ops: list[Op], *, is_strict: bool) -> bool:
    """Strict: a session ends for all of the tree at once, and none of its writes comes after. Not
    strict: it may end for each path at another time, and its writes go on."""
    taking_part = [op for op in ops if op.is_must or (op.outcome == "unknown" and not op.is_read)]
    return _is_orderable(Tree(), taking_part, _ends(taking_part, is_strict), frozenset())


End = tuple[str, str, int]


def _ends(ops: list[Op], is_strict: bool) -> list[End]:
    """(session, path, not before): the path is empty for all of them."""
    ends: dict[tuple[str, str], None] = {}
    for op in ops:
        for one in op.args.get("ops", [op.args]):
            if "ephemeral" in one.get("mode", ""):
                path = one["path"]
                if one["mode"].endswith("sequential"):
                    path = path[: path.rfind("/")]
                ends[(op.session, "" if is_strict else path)] = None
    return [
        (
            session,
            path,
            max((op.invoked for op in ops if _is_proof(op, session)), default=0),
        )
        for session, path in ends
    ]


def _is_proof(op: Op, session: str) -> bool:
    return op.session == session and op.is_must and not op.is_read


def _is_orderable(tree: Tree, left: list[Op], ends: list[End], dead: frozenset[str]) -> bool:
    musts = [op for op in left if op.is_must]
    if not musts:
        return True
    limit = min(op.returned for op in musts)
    for op in left:
        if op.invoked > limit or (op.session in dead and not op.is_read):
            continue
        after = copy.deepcopy(tree)
        code, result = after.run(op.name, op.args, op.session)
        if op.is_must and (code, result) != (op.code, op.result):
            continue
        if _is_orderable(after, [one for one in left if one is not op], ends, dead):
            return True
    for session, path, not_before in ends:
        after = copy.deepcopy(tree)
        if not_before > limit or not after.end(session, path):
            continue
        others = [end for end in ends if end != (session, path, not_before)]
        if _is_orderable(after, left, others, dead | {session} if not path else dead):
            return True
    return False


def records_of(ops: list[Op]) -> list[Record]:
    records: list[tuple[int, Record]] = []
    for number, op in enumerate(ops, 1):
        invoke = Invoke(op.invoked, number, f"c{number}", op.name, op.args, op.session)
        records.append((op.invoked, invoke))
        if op.outcome != "unknown" or number % 2:
            time = op.returned if op.returned < FOREVER else op.invoked + 1
            back = Return(time, number, op.outcome, code=op.code, result=op.result)
            records.append((time, back))
    records.sort(key=lambda record: (record[0], isinstance(record[1], Return)))
    return [record for _, record in records]


# --------------------------------------------------------------------------------- the maker

SESSIONS = ("s1", "s2")
PLAIN_PATHS = ("/a", "/a/b", "/q")
OPS_MAX = 6


def some_operation(rng: Random, *, may_be_multi: bool = True) -> tuple[str, dict[str, Any]]:
    choices = ["create"] * 5 + ["set_data"] * 3 + ["delete"] * 3
    if may_be_multi:
        choices += ["multi", "exists", "get_data", "get_data", "get_children", "get_children"]
    else:
        choices.append("check")
    name = rng.choice(choices)
    if name == "multi":
        count = rng.randint(1, 3)
        asked = [some_operation(rng, may_be_multi=False) for _ in range(count)]
        return name, {"ops": [{"name": one, **args} for one, args in asked]}
    path = rng.choice(PLAIN_PATHS)
    data = rng.choice(("x", "y", "z", None))
    version = rng.choice((None, None, None, 0, 1))
    if name == "create":
        modes = ("persistent", "persistent", "ephemeral", "sequential", "ephemeral_sequential")
        mode = rng.choice(modes)
        if mode.endswith("sequential"):
            path = rng.choice(("/q/n-", "/q/n-", "/a/"))
            mode = mode if mode.startswith("e") else "persistent_sequential"
        return name, {"path": path, "data": data, "mode": mode}
    if rng.random() < 0.15:
        path = "/q/n-0000000000"
    if name in ("exists", "get_data", "get_children"):
        if name == "get_children" and rng.random() < 0.3:
            # Not "/": of its children that are always there the brute force knows nothing.
            path = "/q"
        return name, {"path": path, "consistency": "linearizable"}
    if name == "set_data":
        return name, {"path": path, "data": data, "version": version}
    return name, {"path": path, "version": version}


def some_history(rng: Random) -> list[Op]:
    """Linearizable: operations took effect one after the other, and sessions ended in between."""
    tree = Tree()
    ops: list[Op] = []
    alive = list(SESSIONS)
    now = 10
    for path in PLAIN_PATHS:
        if rng.random() < 0.5 and path.count("/") == 1:
            args = {"path": path, "data": "x", "mode": "persistent"}
            _, result = tree.run("create", args, "")
            ops.append(Op("create", args, "", now, now + 2, "ok", "", result))
            now += 10
    spread = rng.choice((3, 15, 40))
    lost_share = rng.choice((0.05, 0.2, 0.6))
    count = len(ops) + rng.randint(2, OPS_MAX)
    while len(ops) < count:
        now += 10
        if rng.random() < 0.12 and alive:
            tree.end(alive.pop(), "")
        session = rng.choice(alive) if alive and rng.random() < 0.6 else ""
        name, args = some_operation(rng)
        if not session and "ephemeral" in str(args):
            continue
        is_lost = rng.random() < lost_share
        code, result = ("", {}) if is_lost and rng.random() < 0.4 else tree.run(name, args, session)
        invoked, returned = now - rng.randint(0, spread), now + rng.randint(1, spread)
        outcome = "unknown" if is_lost else "error" if code else "ok"
        if is_lost:
            code, result, returned = "", {}, FOREVER
        ops.append(Op(name, args, session, invoked, returned, outcome, code, result))
    return with_times_of_their_own(ops)


def with_times_of_their_own(ops: list[Op]) -> list[Op]:
    """The same order of invocations and answers, without two at one time: an answer after an
    invocation, so that the two overlap."""
    moments = [(op.invoked, 0, number) for number, op in enumerate(ops)]
    moments += [(op.returned, 1, number) for number, op in enumerate(ops)]
    for place, (_, is_return, number) in enumerate(sorted(moments)):
        if not is_return:
            ops[number].invoked = 2 * place
        elif ops[number].returned < FOREVER:
            ops[number].returned = 2 * place
    return ops


def mutated(rng: Random, ops: list[Op]) -> list[Op]:
    """One answer, or when it came, or whether it did, is another; it may still be linearizable."""
    ops = copy.deepcopy(ops)
    op = rng.choice(ops)
    choice = rng.randrange(6)
    if choice == 0:
        op.outcome, op.code, op.result, op.returned = "refused", "NO_QUORUM", {}, FOREVER
    elif choice == 1:
        # As if it had been asked only when it was answered.
        op.invoked = max(op.invoked, op.returned - 1 if op.returned < FOREVER else 0)
    elif choice == 2:
        op.returned = min(op.returned, op.invoked + 1) if op.is_must else op.returned
    elif choice == 3:
        others = [one for one in ops if one.name == op.name != "multi" and one.is_must]
        if others:
            other = rng.choice(others)
            op.outcome, op.code, op.result = other.outcome, other.code, other.result
            op.returned = min(op.returned, max(op.invoked, other.returned) + 1)
    else:
        _change_answer(rng, op)
    return ops


def _change_answer(rng: Random, op: Op) -> None:
    result = op.result
    if "version" in result:
        result["version"] += rng.choice((-1, 1))
    elif "names" in result:
        result["names"] = sorted({*result["names"], "b"} ^ {rng.choice(("b", "n-0000000000"))})
    elif "path" in result and op.args["path"] != result["path"]:
        result["path"] = op.args["path"] + f"{rng.randrange(3):010d}"
    elif op.outcome == "ok":
        op.outcome, op.code = "error", rng.choice(("NO_NODE", "BAD_VERSION", "NODE_EXISTS"))
        op.result = {"index": 0} if op.name == "multi" else {}
    elif op.outcome == "error":
        op.code = rng.choice(("NO_NODE", "BAD_VERSION", "NODE_EXISTS", "NOT_EMPTY"))
