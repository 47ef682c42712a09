"""Workflows of random shape, and what has to become of each of their nodes."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from flowd.workflow.graph import nodes_of
from flowd.workflow.states import ExecutionState, NodeState
from scripts.soaking import cache_checks, families, gates, limit_checks

NODES_MAX = 40
# Of the workflows, those with nodes that choose.
CHOOSING_SHARE = 0.25
# And those with nodes that wait.
WAITING_SHARE = 0.25
# And those that ask somebody.
ASKING_SHARE = 0.25
# And those with a node that maps a list.
MAPPING_SHARE = 0.25
# And those that run others.
CALLING_SHARE = 0.2
# And those with nodes that clean up.
FINALLY_SHARE = 0.25
# And those of which only some run at a time, by a key that many share.
PLACES_SHARE = 0.25
# And those of which nodes take places of limits, or are in another queue.
HELD_SHARE = 0.4
# And those with nodes whose calls others make as well.
REUSING_SHARE = 0.3
# A node of `finally` that runs when the others have failed.
AFTER_FAILURE = "execution.status == 'FAILED'"
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

# What a correction makes of a node.
_CORRECTED = {
    "ledger_hopeless": ("ledger_quick", {}),
    "ledger_quick": ("ledger_sleepy", {"seconds": 0.1}),
}

# Every item of the list; one may be given up with its workers, and is no failure.
_SWEEP = {"over": "{{ input.rows }}", "max_failed": 12}

Node = dict[str, Any]
Definition = Mapping[str, Any]


def random_workflow(
    chance: random.Random, *, is_poisoned: bool = False, may_choose: bool = True
) -> bytes:
    """A definition as it is submitted; with `is_poisoned` one node kills its workers."""
    graph = chance.choice((_chain, _diamond, _fan, _tangle))(chance)
    kinds = chance.choices(list(_KINDS), list(_KINDS.values()), k=len(graph))
    if is_poisoned:
        kinds[chance.randrange(len(kinds))] = chance.choice(("poison", "poison_once"))
    nodes = [
        _node(f"N{number}", [f"N{one}" for one in above], kind, chance)
        for number, (above, kind) in enumerate(zip(graph, kinds, strict=True))
    ]
    if may_choose and chance.random() < CHOOSING_SHARE:
        nodes += _choosing(nodes[-1]["id"])
    if may_choose and chance.random() < WAITING_SHARE:
        nodes += _waiting(nodes[0]["id"], round(chance.uniform(0.0, 1.0), 2))
    if may_choose and chance.random() < ASKING_SHARE:
        nodes += gates.asking(nodes[0]["id"], round(chance.uniform(0.01, 1.0), 2))
    plain = nodes[: len(graph)]
    document: dict[str, Any] = {"name": "soak", "dag": {"nodes": nodes}}
    if may_choose and chance.random() < REUSING_SHARE:
        nodes += cache_checks.reusing(nodes[0]["id"], chance)
    if may_choose and chance.random() < MAPPING_SHARE:
        document["input"] = {"rows": list(range(chance.randint(0, 12)))}
        nodes += _mapping(nodes[0]["id"], document["input"]["rows"], chance)
    if may_choose and chance.random() < CALLING_SHARE:
        document["input"] = document.get("input", {}) | {"kin": ["x", "y"]}
        nodes += families.calling(nodes[0]["id"], chance)
    if may_choose and chance.random() < FINALLY_SHARE:
        document["dag"]["finally"] = _cleaning_up(has_rows="rows" in document.get("input", {}))
    if may_choose and chance.random() < PLACES_SHARE:
        said = {"key": f"key {chance.randrange(8)}", "max": chance.randint(1, 3)}
        document["concurrency"] = said
    if may_choose and chance.random() < HELD_SHARE:
        document["input"] = document.get("input", {}) | {"lane": chance.randrange(3)}
        limit_checks.held_back(plain, chance)
    return json.dumps(document).encode()


def corrected(definition: Definition, chance: random.Random) -> dict[str, Any]:
    """The same but for one of its plain nodes: one that fails is mended, another takes longer."""
    changed: dict[str, Any] = json.loads(json.dumps(definition))
    plain = [one for one in changed["dag"]["nodes"] if one["handler"] in _CORRECTED]
    if plain:
        node = chance.choice(plain)
        node["handler"], node["config"] = _CORRECTED[node["handler"]]
    return changed


def _mapping(above: str, rows: Sequence[int], chance: random.Random) -> list[Node]:
    """Behind a node: the items of a list, each of which may have to be tried again, or of which the
    first that fails stops the others, and one behind them. An item that is given up with its
    workers fails nothing."""
    retry = {"max_attempts": 2, "delay_s": round(chance.uniform(0.02, 0.5), 2)}
    kinds: list[Node] = [
        {"handler": "ledger_quick"},
        {"handler": "ledger_sleepy", "config": {"seconds": round(chance.uniform(0.01, 0.3), 2)}},
        {"handler": "ledger_failing", "config": {"calls": 1}, "retry": retry},
    ]
    if rows:
        kinds.append({"handler": "ledger_hopeless", "allow_failure": True})
    kind = chance.choice(kinds)
    said = {**_SWEEP, "concurrency": chance.randint(1, 5)}
    if "allow_failure" in kind:
        said |= {"max_failed": 0, "fail_fast": True}
    return [_quick("Mapped", above, **kind, map=said), _quick("Gathered", "Mapped")]


def _choosing(above: str) -> list[Node]:
    """Behind a node: a skipped arm, a branch for its failure, and a failure that is allowed."""
    return [
        _quick("Arm", above, when="false"),
        _quick("Below", "Arm"),
        _quick("Mended", above, after="failed"),
        _quick("May", handler="ledger_hopeless", allow_failure=True),
        _quick("Other", above, when="true"),
        _quick("Joined", "Below", "May", "Other"),
        _quick("Last", "Joined", "Mended", after="ended"),
    ]


def _waiting(above: str, seconds: float) -> list[Node]:
    """Behind a node: a delay, a node that is called again, a handler that waits by itself."""
    return [
        _quick("Delay", above, handler="delay", config={"seconds": seconds}),
        _quick("Again", above, repeat={"until": "output.call >= 3", "delay_s": seconds / 2}),
        _quick("Polling", handler="ledger_polling", config={"calls": 2, "after_s": seconds}),
        _quick("Waited", "Delay", "Again", "Polling"),
    ]


def _cleaning_up(*, has_rows: bool) -> list[Node]:
    """Last of all: a node that always runs, one behind it that is told of failures only, and one
    that goes through the list, if there is one."""
    swept = [_quick("Swept", map=_SWEEP)] if has_rows else []
    return [_quick("Tidy"), _quick("Told", "Tidy", when=AFTER_FAILURE), *swept]


def _quick(node_id: str, *above: str, **fields: Any) -> Node:
    return {"id": node_id, "handler": "ledger_quick", "dependencies": list(above), **fields}


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
    if handler == families.HANDLER and config["name"] == families.FAILS:
        return True
    if handler == gates.HANDLER:
        return bool(node["id"] == gates.REFUSED)
    return handler == "ledger_hopeless" or "timeout_s" in node


def expected_states(
    definition: Definition,
    given_up: Sequence[str] = (),
    settled: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The state each node has to end in. `given_up` failed though they need not have; `settled`
    were in their state from the beginning."""
    states: dict[str, str] = {}
    arrives: dict[str, str] = {}
    for node in nodes_of(definition):
        node_id = node["id"]
        above = [arrives[one] for one in node["dependencies"]]
        decided = _decided(node, above)
        if node.get("when") == AFTER_FAILURE and NodeState.FAILED not in arrives.values():
            decided = NodeState.SKIPPED
        fails = is_doomed(node) or node_id in given_up
        own = NodeState.FAILED if fails else NodeState.COMPLETED
        states[node_id] = settled.get(node_id, decided or own)
        is_allowed = node.get("allow_failure") and decided is None
        arrives[node_id] = (
            NodeState.COMPLETED
            if is_allowed and states[node_id] == NodeState.FAILED
            else states[node_id]
        )
    return states


def _decided(node: Mapping[str, Any], above: Sequence[str]) -> str | None:
    """What becomes of a node without a call of its handler; None where there is one."""
    after = node.get("after", "completed")
    if above and after == "failed" and NodeState.FAILED not in above:
        return NodeState.SKIPPED
    if after == "completed":
        if NodeState.FAILED in above:
            return NodeState.FAILED
        if above and set(above) == {NodeState.SKIPPED}:
            return NodeState.SKIPPED
    return NodeState.SKIPPED if node.get("when") == "false" else None


def expected_status(definition: Definition, states: Mapping[str, str]) -> str:
    may_fail = {one["id"] for one in nodes_of(definition) if one.get("allow_failure")}
    is_failed = any(
        state == NodeState.FAILED and one not in may_fail for one, state in states.items()
    )
    return ExecutionState.FAILED if is_failed else ExecutionState.COMPLETED
