"""Workflows of random shape, and what has to become of each of their nodes."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from flowd.workflow.states import ExecutionState, NodeState

NODES_MAX = 40
# How often a node is of this kind, of all of them together.
_KINDS = {
    "quick": 70,
    "sleepy": 14,
    "thread": 6,
    "failing": 6,
    "exhausted": 1,
    "hopeless": 1,
    "timed_out": 1,
}

Node = dict[str, Any]
Definition = Mapping[str, Any]


def random_workflow(chance: random.Random, *, is_poisoned: bool = False) -> bytes:
    """A definition as it is submitted; with `is_poisoned` one node kills its workers."""
    graph = chance.choice((_chain, _diamond, _fan, _tangle))(chance)
    kinds = chance.choices(list(_KINDS), list(_KINDS.values()), k=len(graph))
    if is_poisoned:
        kinds[chance.randrange(len(kinds))] = chance.choice(("poison", "poison_once"))
    nodes = [
        _node(f"N{number}", [f"N{one}" for one in above], kind, chance)
        for number, (above, kind) in enumerate(zip(graph, kinds, strict=True))
    ]
    return json.dumps({"name": "soak", "dag": {"nodes": nodes}}).encode()


def _chain(chance: random.Random) -> list[list[int]]:
    return [[number - 1] if number else [] for number in range(chance.randint(1, 12))]


def _diamond(chance: random.Random) -> list[list[int]]:
    width = chance.randint(2, 6)
    return [[], *([0] for _ in range(width)), list(range(1, width + 1))]


def _fan(chance: random.Random) -> list[list[int]]:
    return [[], *([0] for _ in range(chance.randint(1, NODES_MAX - 1)))]


def _tangle(chance: random.Random) -> list[list[int]]:
    """Each node depends on up to three of those before it."""
    count = chance.randint(2, NODES_MAX)
    return [
        sorted(chance.sample(range(number), min(number, chance.randint(0, 3))))
        for number in range(count)
    ]


def _node(node_id: str, above: Sequence[str], kind: str, chance: random.Random) -> Node:
    node: Node = {"id": node_id, "handler": f"ledger_{kind}", "dependencies": list(above)}
    if kind in ("sleepy", "thread"):
        node["config"] = {"seconds": round(chance.uniform(0.01, 0.6), 2)}
    elif kind == "failing":
        calls = chance.randint(1, 2)
        retry = {"max_attempts": calls + 1, "delay_s": round(chance.uniform(0.02, 0.5), 2)}
        node |= {"config": {"calls": calls}, "retry": retry}
    elif kind == "exhausted":
        node |= {"handler": "ledger_failing", "retry": {"max_attempts": 2, "delay_s": 0.05}}
    elif kind == "timed_out":
        node |= {"handler": "ledger_sleepy", "config": {"seconds": 60}, "timeout_s": 0.3}
    elif kind == "poison_once":
        node |= {"handler": "ledger_poison", "config": {"calls": 1}}
    return node


def is_doomed(node: Mapping[str, Any]) -> bool:
    """Whether it has to fail by itself, however often it is tried."""
    config = node.get("config") or {}
    handler = node["handler"]
    if handler in ("ledger_failing", "ledger_poison"):
        return "calls" not in config
    return handler == "ledger_hopeless" or "timeout_s" in node


def expected_states(
    definition: Definition,
    given_up: Sequence[str] = (),
    settled: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The state each node has to end in. `given_up` failed though they need not have; `settled`
    were in their state from the beginning."""
    states: dict[str, str] = {}
    for node in definition["dag"]["nodes"]:
        if node["id"] in settled:
            states[node["id"]] = settled[node["id"]]
            continue
        above = [states[one] for one in node["dependencies"]]
        fails = is_doomed(node) or node["id"] in given_up or NodeState.FAILED in above
        states[node["id"]] = NodeState.FAILED if fails else NodeState.COMPLETED
    return states


def expected_status(states: Mapping[str, str]) -> str:
    is_failed = NodeState.FAILED in states.values()
    return ExecutionState.FAILED if is_failed else ExecutionState.COMPLETED
