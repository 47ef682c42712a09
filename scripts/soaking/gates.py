"""Nodes that wait for a signal in the soak, what they are sent, and what has to become of that."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from flowd.workflow.states import NodeState
from scripts.soaking.checker import Execution

HANDLER = "signal"
# Answered or too late: whichever comes first.
DUE = "Due"
# Sent a rejection; it may fail.
REFUSED = "Refused"

Node = dict[str, Any]
# By execution and node, the decision that was answered with 200.
Answers = Mapping[tuple[str, str], Mapping[str, Any]]


def asking(above: str, seconds: float) -> list[Node]:
    """Behind a node: gates one behind the other, one with a time-out, one that is rejected."""
    return [
        _gate("Asked", above),
        _gate("Later", "Asked"),
        _gate(DUE, above, timeout_s=seconds, config={"on_timeout": "complete"}),
        _gate(REFUSED, allow_failure=True),
        {
            "id": "Answered",
            "handler": "ledger_quick",
            "dependencies": ["Asked", "Later", DUE, REFUSED],
        },
    ]


def _gate(node_id: str, *above: str, **fields: Any) -> Node:
    return {"id": node_id, "handler": HANDLER, "dependencies": list(above), **fields}


def gates_of(definition: Mapping[str, Any], chance: random.Random) -> list[str]:
    """In the order in which they are answered."""
    gates = [one["id"] for one in definition["dag"]["nodes"] if one["handler"] == HANDLER]
    return chance.sample(gates, len(gates))


def answer_to(execution_id: str, node_id: str) -> dict[str, Any]:
    """What the node is sent."""
    return {"reject": "no"} if node_id == REFUSED else {"data": f"{execution_id} {node_id}"}


def check_answers(
    executions: Iterable[Execution], answers: Answers, settled: Mapping[str, Collection[str]]
) -> Iterator[str]:
    """What was answered with 200 is what each gate ended by, and nobody else has answered; but for
    those that a rerun has taken over."""
    for execution in executions:
        for node_id, written in execution.written.items():
            state, text = execution.nodes[node_id], execution.outputs[node_id]
            if written["handler"] != HANDLER or node_id in settled.get(execution.id, ()):
                continue
            if state == NodeState.COMPLETED:
                decision = answers.get((execution.id, node_id))
                named = f"{execution.id} {node_id}"
                yield from _check_output(named, json.loads(text or "{}"), decision)


def _check_output(
    named: str, output: Mapping[str, Any], decision: Mapping[str, Any] | None
) -> Iterator[str]:
    if decision is not None:
        wanted = {name: decision[name] for name in ("data", "timed_out", "by", "at_ms")}
        if output != wanted:
            yield f"{named}: it was answered {decision}, and ended by {output}"
    elif not output.get("timed_out"):
        yield f"{named}: it ended by {output}, which nobody was told to be recorded"


def late_codes(node_id: str) -> Sequence[str]:
    """The refusals that are in order: the node has ended before, or its time was over."""
    return ("wrong_state", "already_decided") if node_id == DUE else ("wrong_state",)
