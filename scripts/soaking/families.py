"""Workflows that run others, in a soak: what they run, and what has to become of each of those."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import redis as redis_py

from flowd.store.kin import Kin, parse_kin
from flowd.store.redis import keys

HANDLER: Final = "workflow"
# Ends CANCELLED: nobody waits for it as long as it takes.
SLOW: Final = "child-slow"
FAILS: Final = "child-fails"

Node = dict[str, Any]


def _node(node_id: str, handler: str, *above: str, **fields: Any) -> Node:
    return {"id": node_id, "handler": handler, "dependencies": list(above), **fields}


def _call(node_id: str, name: str, *above: str, **fields: Any) -> Node:
    return _node(node_id, HANDLER, *above, config={"name": name}, **fields)


_SHORT: Final = [
    _node("A", "ledger_sleepy", config={"seconds": 0.1}),
    _node("B", "ledger_quick", "A"),
]
_TIDY: Final = [_node("Tidy", "ledger_quick")]
_DAGS: Final[Mapping[str, Mapping[str, list[Node]]]] = MappingProxyType(
    {
        "child-good": {"nodes": _SHORT},
        "child-tidy": {"nodes": _SHORT, "finally": _TIDY},
        FAILS: {"nodes": [_node("A", "ledger_hopeless")], "finally": _TIDY},
        SLOW: {"nodes": [_node("A", "ledger_sleepy", config={"seconds": 60})], "finally": _TIDY},
        "child-nested": {
            "nodes": [_call("Deeper", "child-good"), _node("B", "ledger_quick", "Deeper")]
        },
    }
)
SAVED: Final = MappingProxyType({name: {"name": name, "dag": dag} for name, dag in _DAGS.items()})


def calling(above: str, chance: random.Random) -> list[Node]:
    """Behind a node: some that wait for a child, which may fail, take too long, or have a child of
    its own, or of which there is one for each item of a list; and a node behind them."""
    nodes = [
        _call("Called", "child-good", above),
        _call("Tidied", "child-tidy", above),
        _call("Nested", "child-nested", above),
        _call(
            "Fallen", FAILS, above, retry={"max_attempts": 2, "delay_s": 0.1}, allow_failure=True
        ),
        _call("Late", SLOW, above, timeout_s=0.5, allow_failure=True),
        _call("Each", "child-tidy", above, map={"over": "{{ input.kin }}", "max_failed": 3}),
    ]
    nodes = chance.sample(nodes, 3)
    return [*nodes, _node("Together", "ledger_quick", *(one["id"] for one in nodes))]


def is_awaited_in_vain(definition: Mapping[str, Any]) -> bool:
    """Whether its node's time is over long before it could end."""
    return definition.get("name") == SLOW


def kins_of(client: redis_py.Redis) -> dict[str, Kin]:
    """Of every child there is."""
    ids = client.zrange(keys.EXECUTIONS, 0, -1)
    with client.pipeline(transaction=False) as pipe:
        for one in ids:
            pipe.hget(keys.run(one), "parent")
        found = zip(ids, pipe.execute(raise_on_error=False), strict=True)
    return {one: kin for one, parent in found if (kin := parse_kin(parent))}


def check_deleted(kins: Mapping[str, Kin], deleted: Collection[str]) -> Iterator[str]:
    """That children went with the execution that was deleted."""
    for child, kin in kins.items():
        for gone in {kin.parent_id, kin.root_id} & set(deleted):
            yield f"{gone}: it was deleted, and its child {child} is left"
