"""What follows from a mistake in a workflow is not reported as a mistake of its own."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowd.config import Settings
from flowd.errors import InvalidWorkflow
from flowd.handlers.config_checks import config_checks
from flowd.handlers.registry import built_in_registry
from flowd.workflow.validator import validate_workflow

HANDLERS = config_checks(built_in_registry(), Settings())


def found(document: Any) -> list[tuple[str, str]]:
    try:
        validate_workflow(orjson.dumps(document), HANDLERS)
    except InvalidWorkflow as refused:
        return [(one.path, one.code) for one in refused.problems]
    return []


def node(node_id: Any, *dependencies: Any, **fields: Any) -> dict[str, Any]:
    return {"id": node_id, "handler": "noop", "dependencies": list(dependencies), **fields}


def workflow(*nodes: Any, **fields: Any) -> dict[str, Any]:
    return {"name": "test", "dag": {"nodes": list(nodes), **fields}}


def reads(*names: str) -> dict[str, Any]:
    return {"config": {f"x{at}": f"{{{{ {name}.x }}}}" for at, name in enumerate(names)}}


LIST = node("list")
ONE_MISTAKE = {
    "a dependency nobody has, and it is read": (
        workflow(node("B", "lod", **reads("lod"))),
        ("dag.nodes[0].dependencies[0]", "unknown_dependency"),
    ),
    "a misspelt dependency, and the node that was meant is read": (
        workflow(node("load"), node("B", "laod", **reads("load"))),
        ("dag.nodes[1].dependencies[0]", "unknown_dependency"),
    ),
    "the same, further down": (
        workflow(node("load"), node("B", "laod"), node("C", "B", **reads("load", "B"))),
        ("dag.nodes[1].dependencies[0]", "unknown_dependency"),
    ),
    "a node below that could run without what is not known": (
        workflow(
            node("A", when="true"),
            node("B", "A", "lost"),
            node("C", "B", **reads("B")),
        ),
        ("dag.nodes[1].dependencies[1]", "unknown_dependency"),
    ),
    "a map that is no object": (
        workflow(LIST, node("B", "list", map="{{ list.rows }}", config={"n": "{{ item }}"})),
        ("dag.nodes[1].map", "wrong_type"),
    ),
    "a map whose list is misspelt": (
        workflow(
            LIST, node("B", "list", map={"ovr": "{{ list.rows }}"}, config={"n": "{{ item }}"})
        ),
        ("dag.nodes[1].map.ovr", "unknown_field"),
    ),
    "a map that is misspelt": (
        workflow(
            LIST, node("B", "list", mpa={"over": "{{ list.rows }}"}, config={"n": "{{ index }}"})
        ),
        ("dag.nodes[1].mpa", "unknown_field"),
    ),
    "a map that reads no list": (
        workflow(LIST, node("B", "list", map={"over": "list.rows"}, config={"n": "{{ item }}"})),
        ("dag.nodes[1].map.over", "not_a_list"),
    ),
    "two nodes of one id, and what is upstream of the second is read": (
        workflow(node("A"), node("B", "A"), node("A", "B"), node("C", "A", **reads("B"))),
        ("dag.nodes[2].id", "duplicate_id"),
    ),
    "two nodes of one id, which is read by itself": (
        workflow(node("A"), node("A", **reads("A"))),
        ("dag.nodes[1].id", "duplicate_id"),
    ),
    "a cycle whose nodes read each other": (
        workflow(node("A", "B", **reads("B")), node("B", "A", **reads("A"))),
        ("dag.nodes[0].dependencies[0]", "cycle"),
    ),
    "a cycle of a node with a condition": (
        workflow(
            node("A", "B", when="true"), node("B", "A", **reads("A")), node("C", "B", **reads("B"))
        ),
        ("dag.nodes[0].dependencies[0]", "cycle"),
    ),
    "dependencies that are no list": (
        workflow(node("A"), {**node("B", **reads("A")), "dependencies": "A"}),
        ("dag.nodes[1].dependencies", "wrong_type"),
    ),
    "dependencies under another name": (
        workflow(node("A"), {"id": "B", "handler": "noop", "needs": ["A"], **reads("A")}),
        ("dag.nodes[1].needs", "unknown_field"),
    ),
    "misspelt dependencies": (
        workflow(node("A"), {"id": "B", "handler": "noop", "dependncies": ["A"], **reads("A")}),
        ("dag.nodes[1].dependncies", "unknown_field"),
    ),
    "a misspelt id": (
        workflow({"Id": "load", "handler": "noop"}, node("B", "load", **reads("load"))),
        ("dag.nodes[0].Id", "unknown_field"),
    ),
    "no id at all": (
        workflow({"handler": "noop"}, node("B", "load", **reads("load"))),
        ("dag.nodes[0].id", "missing_field"),
    ),
    "an id that is a number": (
        workflow(node(5), node("load"), node("B", "5", "load")),
        ("dag.nodes[0].id", "wrong_type"),
    ),
    "an id with a dot": (
        workflow(node("load.all"), node("B", "load.all", **reads("load.all"))),
        ("dag.nodes[0].id", "bad_id"),
    ),
    "an id with a space": (
        workflow(node("load all"), node("B", "load all", **reads("load all"), when="load all.x")),
        ("dag.nodes[0].id", "bad_id"),
    ),
    "a misspelt handler": (
        workflow({"id": "A", "handlr": "noop"}),
        ("dag.nodes[0].handlr", "unknown_field"),
    ),
    "misspelt nodes": (
        {"name": "x", "dag": {"node": [node("A")]}},
        ("dag.node", "unknown_field"),
    ),
    "nodes without a dag": (
        {"name": "x", "nodes": [node("A")]},
        ("nodes", "unknown_field"),
    ),
    "a misspelt key of a config": (
        workflow({"id": "A", "handler": "call_external_service", "config": {"ulr": "http://x"}}),
        ("dag.nodes[0].config.ulr", "unknown_config"),
    ),
    "a dependency on finally, which is read": (
        workflow(node("A", "Z", **reads("Z")), **{"finally": [node("Z")]}),
        ("dag.nodes[0].dependencies[0]", "other_phase"),
    ),
}


@pytest.mark.parametrize("mistake", ONE_MISTAKE)
def test_one_mistake_is_one_problem(mistake: str) -> None:
    document, problem = ONE_MISTAKE[mistake]

    assert found(document) == [problem]


def test_a_second_mistake_beside_the_first_is_told() -> None:
    document = workflow(
        node("A"),
        node("B", "lost", **reads("nobody")),
        node("C", **reads("A")),
        node("D", "A", config={"n": "{{ item }}"}),
    )

    assert found(document) == [
        ("dag.nodes[1].dependencies[0]", "unknown_dependency"),
        ("dag.nodes[1].config.x0", "unknown_reference"),
        ("dag.nodes[3].config.n", "unknown_reference"),
        ("dag.nodes[2].config.x0", "not_upstream"),
    ]


@st.composite
def good(draw: st.DrawFn) -> dict[str, Any]:
    """A workflow in which every node reads what is upstream of it."""
    nodes: list[dict[str, Any]] = []
    above: dict[str, set[str]] = {}
    for at in range(draw(st.integers(2, 7))):
        name = f"node-{'abcdefg'[at]}"
        direct = draw(st.lists(st.sampled_from(sorted(above)), unique=True)) if above else []
        above[name] = {*direct, *(each for one in direct for each in above[one])}
        read = draw(st.lists(st.sampled_from(sorted(above[name])))) if direct else []
        nodes.append(node(name, *direct, **reads(*read)))
    return workflow(*nodes)


def lose_a_dependency(one: dict[str, Any]) -> None:
    one["dependencies"][0] = "nobody-at-all-has-this"


def write_no_list(one: dict[str, Any]) -> None:
    one["dependencies"] = {}


def misspell_the_id(one: dict[str, Any]) -> None:
    one["idd"] = one.pop("id")


def misspell_the_handler(one: dict[str, Any]) -> None:
    one["handler"] = "nop"


MISTAKES = (lose_a_dependency, write_no_list, misspell_the_id, misspell_the_handler)


@given(good(), st.sampled_from(MISTAKES), st.data())
def test_one_mistake_in_any_workflow_is_one_problem(
    document: dict[str, Any], make: Any, data: st.DataObject
) -> None:
    assert found(document) == []
    wrong = copy.deepcopy(document)
    nodes = wrong["dag"]["nodes"]
    having = [one for one in nodes if one["dependencies"]] or nodes
    if make is lose_a_dependency and not having[0]["dependencies"]:
        return
    make(data.draw(st.sampled_from(having)))

    assert len(found(wrong)) == 1
