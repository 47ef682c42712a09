"""A rerun with a corrected definition: what runs, what is reused, and why."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowd.orchestrator.rerun import Standing, sort_out
from flowd.workflow.corrections import Correction, correct
from flowd.workflow.definition import WorkflowDefinition
from flowd.workflow.graph import compile_plan
from flowd.workflow.states import NodeState

STATES = {
    Standing.COMPLETED: NodeState.COMPLETED,
    Standing.SKIPPED: NodeState.SKIPPED,
    Standing.ALLOWED: NodeState.FAILED,
    Standing.FAILED: NodeState.FAILED,
    Standing.OPEN: NodeState.PENDING,
}


def node(node_id: str, *dependencies: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": node_id,
        "handler": "noop",
        "dependencies": list(dependencies),
        "config": {},
        **fields,
    }


def stored(*nodes: dict[str, Any], last: Any = (), **fields: Any) -> bytes:
    document = {"name": "w", "dag": {"nodes": list(nodes), "finally": list(last)}, **fields}
    return WorkflowDefinition.model_validate(document).to_json()


def changes(before: bytes, after: bytes, failed: tuple[str, ...] = (), **given: Any) -> Correction:
    return correct(before, after, given, frozenset(failed))


A, B = node("A"), node("B", "A")


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ({"config": {"x": 1}}, "its config changed"),
        ({"handler": "delay", "config": {"seconds": 1}}, "its handler and config changed"),
        ({"dependencies": []}, "its dependencies changed"),
        ({"when": "A.x > 1"}, "its when changed"),
        ({"after": "ended"}, "its after changed"),
        ({"repeat": {"until": "output.x"}}, "its repeat changed"),
        ({"map": {"over": "{{ A.rows }}"}}, "its map changed"),
    ],
)
def test_a_change_of_what_makes_an_output_is_named(after: dict[str, Any], why: str) -> None:
    assert changes(stored(A, B), stored(A, B | after)).changed == {"B": why}


@pytest.mark.parametrize(
    "after",
    [
        {"retry": {"max_attempts": 5}},
        {"timeout_s": 5},
        {"allow_failure": True},
        {"after": "completed"},
        {"dependencies": ["A"]},
    ],
)
def test_a_change_of_what_makes_none_is_no_change(after: dict[str, Any]) -> None:
    assert changes(stored(A, B), stored(A, B | after)).changed == {}


def test_the_order_of_dependencies_and_of_keys_is_no_change() -> None:
    before = stored(A, node("C"), node("B", "A", "C", config={"x": 1, "y": [1]}))
    after = stored(A, node("C"), node("B", "C", "A", config={"y": [1], "x": 1}))

    assert changes(before, after).changed == {}


def test_true_and_one_are_not_the_same() -> None:
    assert changes(
        stored(node("A", config={"x": 1})), stored(node("A", config={"x": True}))
    ).changed


def test_new_and_removed_nodes_are_told() -> None:
    found = changes(stored(A, B), stored(A, node("C", "A")))

    assert (found.new, found.removed, dict(found.changed)) == (("C",), ("B",), {})


def test_a_node_that_became_one_of_finally_is_changed() -> None:
    found = changes(stored(A, node("B")), stored(A, last=[node("B")]))

    assert found.changed == {"B": "it has moved from one part of dag to the other"}


READS = (
    node("A", config={"x": "{{ input.day }}"}),
    node("B", config={"x": "{{ input.who }}"}),
    node("C", config={"x": "{{ input }}"}),
    node("D", when="input.day == 1"),
    node("E", map={"over": "{{ input.day }}"}),
)


def test_who_reads_an_input_that_changed_runs() -> None:
    found = changes(stored(*READS, input={"day": 1}), stored(*READS, input={"day": 2}))

    assert set(found.changed) == {"A", "C", "D", "E"}
    assert found.changed["A"] == "it reads input.day, which changed"
    assert found.lists == {"E"}


def test_a_default_under_an_input_that_was_given_is_no_change() -> None:
    assert not changes(stored(*READS, input={"day": 1}), stored(*READS, input={"day": 2}), day=7)[0]


def test_who_reads_a_name_that_changed_runs() -> None:
    reads = node("A", config={"x": "{{ execution.name }}"})
    before, after = stored(reads, B), stored(reads, B, name="v")

    assert set(changes(before, after.replace(b'"w"', b'"v"')).changed) == {"A"}


def test_how_the_items_ran_together_matters_only_where_the_map_failed() -> None:
    before = stored(A, node("B", "A", map={"over": "{{ A.rows }}"}))
    after = stored(A, node("B", "A", map={"over": "{{ A.rows }}", "max_failed": 3}))

    assert changes(before, after).changed == {}
    found = changes(before, after, failed=("B",))
    assert (found.changed, found.lists) == ({"B": "its map changed"}, {"B"})


Nodes = dict[str, dict[str, Any]]
MUTATIONS = ("config", "retry", "new", "remove", "depend", "handler")


@st.composite
def runs(draw: st.DrawFn) -> tuple[Nodes, Nodes, dict[str, Standing]]:
    """The nodes before and after a correction, and how they had ended."""
    before: Nodes = {}
    for at in range(draw(st.integers(1, 8))):
        above = (
            draw(st.lists(st.sampled_from(sorted(before)), unique=True, max_size=3)) if at else ()
        )
        before[f"n{at}"] = node(f"n{at}", *above, config={"x": 0})
    standings = {one: draw(st.sampled_from(list(STATES))) for one in before}
    after = copy.deepcopy(before)
    for _ in range(draw(st.integers(0, 3))):
        _mutate(draw, after)
    return before, after, standings


def _mutate(draw: st.DrawFn, nodes: Nodes) -> None:
    name = draw(st.sampled_from(sorted(nodes)))
    match draw(st.sampled_from(MUTATIONS)):
        case "config":
            nodes[name]["config"]["x"] = nodes[name]["config"].get("x", 0) + 1
        case "retry":
            nodes[name]["retry"] = {"max_attempts": 2}
        case "handler":
            nodes[name]["handler"] = "transform"
        case "new":
            new = f"m{len(nodes)}"
            nodes[new] = node(new, name)
        case "remove" if len(nodes) > 1:
            del nodes[name]
            for one in nodes.values():
                one["dependencies"] = [each for each in one["dependencies"] if each != name]
        case "depend":
            nodes["z"] = nodes.get("z") or node("z")
            if name != "z" and not nodes["z"]["dependencies"] and "z" not in _all(nodes, name):
                nodes[name]["dependencies"] = sorted({*nodes[name]["dependencies"], "z"})


def _all(nodes: Nodes, name: str) -> set[str]:
    above = nodes[name]["dependencies"]
    return {*above, *(one for each in above for one in _all(nodes, each))}


def naive(before: Nodes, after: Nodes, standings: Mapping[str, Standing]) -> set[str]:
    """The nodes that are reused: unchanged, well, and so is all they wait for."""

    def is_reused(name: str) -> bool:
        was, now = before.get(name), after[name]
        if was is None or not standings[name].is_settled:
            return False
        same = all(was[field] == now[field] for field in ("handler", "config"))
        same = same and set(was["dependencies"]) == set(now["dependencies"])
        return same and all(map(is_reused, now["dependencies"]))

    return {name for name in after if is_reused(name)}


@given(runs())
def test_what_is_reused_is_what_a_naive_reference_reuses(
    case: tuple[Nodes, Nodes, dict[str, Standing]],
) -> None:
    before, after, standings = case
    old, new = stored(*before.values()), stored(*after.values())
    unwell = frozenset(one for one, each in standings.items() if each is not Standing.COMPLETED)
    correction = correct(old, new, {}, unwell)
    plan = compile_plan(new)
    now = {one: standings.get(one, Standing.OPEN) for one in plan.nodes}
    states = {one: STATES[standing] for one, standing in now.items()}

    wanted = sort_out("e", plan, states, now, None, correction)

    assert set(wanted.reused) == naive(before, after, standings)
    assert set(wanted.reused) | set(wanted.runs) == set(after)
    assert not wanted.left_out
    assert set(correction.removed) == set(before) - set(after)
    for name, why in wanted.runs.items():
        above = [one for one in after[name]["dependencies"] if one in wanted.runs]
        assert why == "new" or name in before
        assert "downstream" not in why or f"downstream of {above[0]!r}" in why or len(above) > 1


@given(runs(), st.data())
def test_from_a_node_on_whatever_is_changed_runs_too(
    case: tuple[Nodes, Nodes, dict[str, Standing]], data: st.DataObject
) -> None:
    before, after, standings = case
    old, new = stored(*before.values()), stored(*after.values())
    correction = correct(old, new, {}, frozenset())
    plan = compile_plan(new)
    now = {one: standings.get(one, Standing.OPEN) for one in plan.nodes}
    states = {one: STATES[standing] for one, standing in now.items()}
    start = data.draw(st.sampled_from(sorted(after)))

    wanted = sort_out("e", plan, states, now, start, correction)

    assert {start, *correction.changed, *correction.new} <= set(wanted.runs)
    for name in wanted.runs:
        needed = after[name]["dependencies"]
        assert all(one in wanted.runs or now[one].is_settled for one in needed)
    for name in wanted.reused:
        assert now[name].is_settled
        assert not set(after[name]["dependencies"]) & set(wanted.runs) or wanted.left_out
