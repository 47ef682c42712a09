"""Decide whether a node that chooses runs: by what has arrived at it, and by its condition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from flowd.store.entries import Entry
from flowd.store.facts import Fact
from flowd.store.waits import Decision, parse_decision
from flowd.workers.node_run import PreparedNode
from flowd.workflow.choices import Choice
from flowd.workflow.conditions import Read
from flowd.workflow.ids import split_item
from flowd.workflow.references import EXECUTION, STATE
from flowd.workflow.repeating import Repeat
from flowd.workflow.templating import INDEX, INPUT, ITEM

Fetched = Mapping[Fact, str | bytes | None]


def input_fact(prepared: PreparedNode, name: str) -> Fact:
    """Where a template finds what it reads: the output of a node, the input of the execution, or
    the item that a node runs for, or what the execution ends as.
    """
    execution_id = prepared.entry.execution_id
    if name in prepared.plan.nodes:
        return Fact("output", execution_id, name)
    if name in (INPUT, EXECUTION):
        return Fact("input" if name == INPUT else "ends", execution_id)
    return Fact("item", execution_id, prepared.entry.node_id)


def facts_of_choice(prepared: PreparedNode) -> Iterator[Fact]:
    """What `decide` will look for."""
    entry, choice = prepared.entry, prepared.node.choice
    if choice is None:
        return
    if choice.looks and entry.arrived is None:
        yield Fact("arrived", entry.execution_id, entry.node_id)
    yield from _facts_of(prepared, choice.reads)


def facts_of_repeat(prepared: PreparedNode, repeat: Repeat) -> Iterator[Fact]:
    """What the condition of a repeat looks up besides the output."""
    return _facts_of(prepared, repeat.reads)


def _facts_of(prepared: PreparedNode, reads: Sequence[Read]) -> Iterator[Fact]:
    for read in reads:
        if fact := _fact_of(prepared, read):
            yield fact


def decide(prepared: PreparedNode, choice: Choice, fetched: Fetched) -> None:
    """Raises SkipNode, DependencyFailed or Fail for a node that does not run."""
    if choice.looks:
        choice.check_arrivals(_arrived_at(prepared.entry, fetched))
    if choice.reads:
        choice.check_condition(scope_of(prepared, choice.reads, fetched))
    else:
        choice.check_condition({})


def _arrived_at(entry: Entry, fetched: Fetched) -> int:
    if entry.arrived is not None:
        return entry.arrived
    arrived = str(fetched.get(Fact("arrived", entry.execution_id, entry.node_id)) or "0")
    # What a hand has written there is told by whoever adds to it.
    return int(arrived) if arrived.isdecimal() else 0


def decision_fact(prepared: PreparedNode) -> Fact:
    """Where it says what has ended the wait of a node."""
    return Fact("decision", prepared.entry.execution_id, prepared.entry.node_id)


def decision_in(prepared: PreparedNode, fetched: Fetched) -> Decision | None:
    """What has ended the newest wait of a node; None for one that was begun anew instead."""
    text = fetched.get(decision_fact(prepared))
    decision = parse_decision(str(text)) if text else None
    return decision if decision and decision.number >= prepared.entry.waits else None


def _fact_of(prepared: PreparedNode, read: Read) -> Fact | None:
    """None for what the plan and the entry say already."""
    if read.name in prepared.plan.nodes or read.name in (INPUT, EXECUTION):
        return input_fact(prepared, read.name)
    if prepared.node.is_item and read.name in (ITEM, INDEX):
        return input_fact(prepared, read.name)
    if read.name == STATE and isinstance(read.step, str):
        return Fact("state", prepared.entry.execution_id, read.step)
    return None


def scope_of(prepared: PreparedNode, reads: Sequence[Read], fetched: Fetched) -> dict[str, Any]:
    """A value for each name the condition reads; a node of such a name wins over the others."""
    plan = prepared.plan
    scope: dict[str, Any] = {STATE: {}}
    for read in reads:
        fact = _fact_of(prepared, read)
        value = fetched.get(fact) if fact else None
        if fact and fact.kind == "state":
            scope[STATE][read.step] = value
        elif fact and fact.kind == "ends":
            scope[EXECUTION] = execution_facts(prepared, value)
        elif fact and fact.kind == "input":
            scope[INPUT] = {**plan.default_input, **_object(value)}
        elif fact and fact.kind == "item":
            index = int(split_item(prepared.entry.node_id)[1])
            scope[read.name] = index if read.name == INDEX else orjson.loads(value or "null")
        elif value is not None:
            scope[read.name] = _object(value)
    return scope


def execution_facts(prepared: PreparedNode, ends: str | bytes | None) -> dict[str, Any]:
    """What a node may read of its execution; one of `finally` also how the others ended."""
    known = {"id": prepared.entry.execution_id, "name": prepared.plan.name}
    node_id, _ = split_item(prepared.node.id)
    said = _object(ends)
    if node_id in prepared.plan.finally_nodes:
        return known | said
    return known | {"scheduled_at": said["scheduled_at"]} if "scheduled_at" in said else known


def _object(text: str | bytes | None) -> dict[str, Any]:
    """Empty for what is no JSON object: a condition then says which key it misses."""
    try:
        value = orjson.loads(text or "")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
