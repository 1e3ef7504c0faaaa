"""Makes long histories, as a workload records them: some clients on some paths, one operation at a
time each, some of them never answered; all tied together by multis and lists."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.property.linearizable_brute import FOREVER, Op, Tree, with_times_of_their_own

CLIENTS = 8
REGISTERS = [f"/r/p{number}" for number in range(8)]
BASE = ["/r", "/r/q", "/r/e", *REGISTERS]
READS = ("exists", "get_data", "get_children")

Asked = tuple[str, dict[str, Any]]


class _World:
    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.tree = Tree()
        self.values = 0

    def ask(self, *, is_part: bool = False) -> Asked:
        rng, roll = self.rng, self.rng.random()
        self.values += 1
        data = f"v{self.values}"
        if not is_part and rng.random() < 0.08:
            asked = [self.ask(is_part=True) for _ in range(rng.randint(2, 3))]
            return "multi", {"ops": [{"name": name, **args} for name, args in asked]}
        if roll < 0.35:
            return self.set(data)
        if roll < 0.40:
            return "delete", {"path": rng.choice(REGISTERS[:3]), "version": None}
        if roll < 0.45:
            return self.create(rng.choice(REGISTERS[:3]), data, "persistent")
        if roll < 0.53:
            return self.create(f"/r/e/{rng.randrange(3)}", data, "ephemeral")
        if roll < 0.58:
            return "delete", {"path": f"/r/e/{rng.randrange(3)}", "version": None}
        if roll < 0.64:
            return self.create("/r/q/n-", data, "persistent_sequential")
        names = self.tree.names("/r/q")
        if roll < 0.70 and names:
            return "delete", {"path": f"/r/q/{names[0]}", "version": None}
        if is_part:
            return "check", {"path": rng.choice(REGISTERS), "version": None}
        return self.read(roll)

    def create(self, path: str, data: str, mode: str) -> Asked:
        return "create", {"path": path, "data": data, "mode": mode}

    def set(self, data: str) -> Asked:
        path = self.rng.choice(REGISTERS)
        node = self.tree.nodes.get(path)
        version = node.version if node is not None and self.rng.random() < 0.4 else None
        return "set_data", {"path": path, "data": data, "version": version}

    def read(self, roll: float) -> Asked:
        if roll < 0.75:
            name, path = "get_children", self.rng.choice(["/r", "/r/q", "/r/e"])
        elif roll < 0.85:
            name, path = "exists", self.rng.choice([*REGISTERS, "/r/e/0", "/r/e/1"])
        else:
            name, path = "get_data", self.rng.choice(REGISTERS)
        return name, {"path": path, "consistency": "linearizable"}


def long_history(rng: Random, *, count: int = 600, lost_count: int = 25) -> list[Op]:
    """Linearizable. A third of the lost writes never happen, a third do at once, a third later."""
    world = _World(rng)
    tree = world.tree
    ops: list[Op] = []
    now = 0
    for path in BASE:
        now += 10
        name, args = world.create(path, "0", "persistent")
        ops.append(Op(name, args, "", now, now + 2, "ok", "", tree.run(name, args, "")[1]))
    sessions = [f"s{client}" for client in range(CLIENTS)]
    free_at = [now] * CLIENTS
    late: list[tuple[int, str, dict[str, Any], str]] = []
    lost = set(rng.sample(range(count), lost_count))
    for number in range(count):
        client = rng.randrange(CLIENTS)
        began = max(now + rng.randint(1, 6) - rng.randint(0, 20), free_at[client] + 1)
        now = max(now + 1, began)
        for one in [one for one in late if one[0] < now]:
            late.remove(one)
            if one[3] in sessions:
                tree.run(*one[1:])
        if rng.random() < 0.01:
            tree.end(sessions[client], "")
            sessions[client] += "+"
        session = sessions[client]
        name, args = world.ask()
        free_at[client] = ended = now + rng.randint(1, 20)
        if number not in lost:
            code, result = tree.run(name, args, session)
            outcome = "error" if code else "ok"
            ops.append(Op(name, args, session, began, ended, outcome, code, result))
            continue
        if name in READS:
            name, args = world.set(f"u{number}")
        fate = rng.randrange(3)
        if fate == 0:
            tree.run(name, args, session)
        elif fate == 1:
            late.append((now + rng.randint(10, 400), name, args, session))
        ops.append(Op(name, args, session, began, FOREVER, "unknown", "", {}))
    return with_times_of_their_own(ops)
