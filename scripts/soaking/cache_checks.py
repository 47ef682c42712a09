"""The cache in a soak: what stands for a call was put out by an equal one, and not too long ago."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from flowd.store.attempt_records import AttemptRecord, parse_record
from flowd.workflow.states import NodeState
from scripts.soaking.ledger import END, Note

HANDLER: Final = "ledger_kept"
_TTL_S: Final = 2
_KEYS: Final = 6
# Between a call and the moment from which its output is kept, a worker may have been frozen.
_LATE_S: Final = 60.0


def reusing(above: str, chance: Any) -> list[dict[str, Any]]:
    """Behind a node: two whose calls others make as well, by a key and by their config, and one
    behind them."""
    key = chance.randrange(_KEYS)
    ways = ({"ttl_s": _TTL_S, "key": f"soak {key}"}, {"ttl_s": _TTL_S})
    nodes = [
        {"id": f"Kept{at}", "handler": HANDLER, "dependencies": [above], "cache": cache}
        | {"config": {"key": key + _KEYS * at}}
        for at, cache in enumerate(ways)
    ]
    behind = {"id": "Reused", "handler": "ledger_quick", "dependencies": ["Kept0", "Kept1"]}
    return [*nodes, behind]


def hit_of(execution: Any, node_id: str) -> AttemptRecord | None:
    """The record of a node that took what was kept."""
    record = parse_record(execution.attempts.get(node_id))
    return record if record is not None and record.is_cached else None


def check_cache(executions: Mapping[str, Any], ledger: Sequence[Note]) -> Iterator[str]:
    """Never the output of another call, of one that did not end, or of one that is long over; a
    rerun takes nothing."""
    called = {(*note.node, note.attempt) for note in ledger if note.phase == END}
    for execution in executions.values():
        for node_id, written in execution.written.items():
            is_over = execution.nodes.get(node_id) == NodeState.COMPLETED
            if written["handler"] == HANDLER and is_over:
                named = f"{execution.id} {node_id}"
                for text in _check_node(execution, node_id, written, called):
                    yield f"{named}: {text}"


def _check_node(
    execution: Any, node_id: str, written: Mapping[str, Any], called: set[tuple[str, str, int]]
) -> Iterator[str]:
    output, hit = _parsed(execution.outputs[node_id]), hit_of(execution, node_id)
    if output is None:
        yield "its output is no object"
        return
    if output.get("key") != written["config"]["key"]:
        yield f"its output is that of the key {output.get('key')}"
    made_by = tuple(output.get("by", ()))
    if made_by not in called:
        yield f"its output is of {made_by}, which was never called to its end"
    is_own = made_by[:2] == (execution.id, node_id)
    # What a rerun did not run again was copied, with its record.
    if not execution.is_rerun and is_own != (hit is None):
        yield f"its output is of {made_by}, and it was {'called' if hit is None else 'not called'}"
    if hit is not None and hit.queued_ms is not None:
        age_s = hit.queued_ms / 1000 - output["made_s"]
        if age_s > _TTL_S + _LATE_S:
            yield f"its output was made {age_s:.0f} s before"


def _parsed(text: str | None) -> Mapping[str, Any] | None:
    value = json.loads(text or "null")
    return value if isinstance(value, dict) else None
