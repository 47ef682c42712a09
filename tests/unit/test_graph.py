"""The plan a worker runs from."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given

from flowd.workflow.definition import SECONDS_MAX
from flowd.workflow.graph import compile_plan, plan_digest
from tests.unit.graphs import Graph, graphs, upstream_of


def definition(*nodes: dict[str, Any]) -> bytes:
    return orjson.dumps({"name": "test", "dag": {"nodes": nodes}})


def node(node_id: str, *dependencies: str, **config: Any) -> dict[str, Any]:
    return {"id": node_id, "handler": "noop", "dependencies": dependencies, "config": config}


DIAMOND = definition(
    node("A", url="http://a"),
    node("B", "A", prompt="{{ A.data }}"),
    node("C", "A"),
    node("D", "B", "C", both=["{{ C }}", "{{ B }}", "{{ C.x }}"]),
)


def test_a_diamond_compiles_to_what_each_node_opens_and_joins() -> None:
    plan = compile_plan(DIAMOND)
    assert plan.roots == ("A",)
    assert list(plan.nodes) == ["A", "B", "C", "D"]
    shape = {one.id: (one.dependencies, one.opens, one.joins) for one in plan.nodes.values()}
    assert shape == {
        "A": ((), ("B", "C"), ()),
        "B": (("A",), (), (("D", 2),)),
        "C": (("A",), (), (("D", 2),)),
        "D": (("B", "C"), (), ()),
    }
    assert plan.nodes["A"].handler == "noop"


def test_configs_know_which_outputs_they_read() -> None:
    plan = compile_plan(DIAMOND)
    inputs = {one.id: one.config.inputs for one in plan.nodes.values()}
    assert inputs == {"A": (), "B": ("A",), "C": (), "D": ("C", "B")}


def test_downstream_is_every_transitive_dependent_once_the_nearest_first() -> None:
    plan = compile_plan(DIAMOND)
    assert plan.downstream("A") == ("B", "C", "D")
    assert plan.downstream("C") == ("D",)
    assert plan.downstream("D") == ()


def test_equal_bytes_have_equal_digests_of_sixteen_hex_digits() -> None:
    digest = plan_digest(DIAMOND)
    assert compile_plan(DIAMOND).digest == digest == plan_digest(bytes(DIAMOND))
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    assert plan_digest(DIAMOND + b" ") != digest


@given(graphs(is_acyclic=True))
def test_following_what_nodes_open_runs_each_node_once(graph: Graph) -> None:
    written = [node(str(one), *map(str, graph[one])) for one in graph]
    plan = compile_plan(definition(*written))
    arrived = dict.fromkeys(plan.nodes, 0)
    ran: list[str] = []
    ready = list(plan.roots)
    while ready:
        one = plan.nodes[ready.pop()]
        assert set(one.dependencies) <= set(ran)
        ran.append(one.id)
        ready += one.opens
        for joined, needed in one.joins:
            arrived[joined] += 1
            ready += [joined] if arrived[joined] == needed else []
    assert sorted(ran) == sorted(plan.nodes)


@given(graphs(is_acyclic=True))
def test_downstream_agrees_with_a_plain_search(graph: Graph) -> None:
    plan = compile_plan(definition(*(node(str(one), *map(str, graph[one])) for one in graph)))
    for one in graph:
        below = {str(other) for other in graph if one in upstream_of(graph, other)}
        downstream = plan.downstream(str(one))
        assert set(downstream) == below
        assert len(downstream) == len(below)


def test_the_time_out_of_a_node_is_none_of_the_steps_that_the_engine_does_for_it() -> None:
    child = {**node("child", name="report"), "handler": "workflow", "timeout_s": 5}
    fan = {**node("fan"), "map": {"over": "{{ child.rows }}"}, "timeout_s": 5}
    plan = compile_plan(definition(child, fan, {**node("A"), "timeout_s": 5}, node("B")))

    limits = {one: plan.node(one).call_limit_s(30) for one in ("child", "fan", "fan.0", "A", "B")}

    assert limits == {"child": SECONDS_MAX, "fan": SECONDS_MAX, "fan.0": 5, "A": 5, "B": 30}
