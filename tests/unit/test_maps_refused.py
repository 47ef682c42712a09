"""What is wrong with a workflow that maps lists: each problem with its path, at submit."""

from __future__ import annotations

from typing import Any

import pytest

from flowd.workflow.graph import compile_plan
from tests.unit.test_api_validator import found, node, texts, validate, workflow


def mapped(*dependencies: str, over: Any = "{{ list.rows }}", said: Any = None, **fields: Any):
    config = fields.pop("config", {})
    return node("fan", *dependencies, **config) | {"map": {"over": over, **(said or {})}} | fields


def test_a_map_is_taken_with_what_it_says() -> None:
    said = {"concurrency": 3, "max_failed": 2, "fail_fast": True, "results": False}
    config = {"x": "{{ item.x }} of {{ index }}"}
    accepted = validate(workflow(node("list"), mapped("list", said=said, config=config)))
    plan = compile_plan(accepted.to_json())
    fan = plan.nodes["fan"]
    assert fan.map is not None
    assert fan.map[:4] == (3, 2, True, False)
    assert (plan.maps, fan.config.inputs) == (("fan",), ("list",))
    item = plan.node("fan.17")
    assert (item.id, item.handler, item.is_item) == ("fan.17", "noop", True)
    assert item.config.inputs == ("item", "index")
    assert [plan.find(one) for one in ("fan.x", "list.1", "gone.1", "fan.")] == [None] * 4


def test_equal_maps_give_equal_definitions() -> None:
    plain = validate(workflow(node("list"), mapped("list")))
    spelled = validate(workflow(node("list"), mapped("list", said={"concurrency": 50})))
    assert plain.to_json() == spelled.to_json()


@pytest.mark.parametrize(
    "over", ["rows", "a {{ list.rows }}", "{{ list.a }}{{ list.b }}", '{{ "x" }}']
)
def test_what_can_be_no_list_is_refused(over: str) -> None:
    document = workflow(node("list"), mapped("list", over=over))
    assert ("dag.nodes[1].map.over", "not_a_list") in found(document)


def test_every_problem_of_a_map_has_its_path() -> None:
    said = {"concurrency": 1001, "max_failed": -1, "fail_fast": "yes", "results": 1, "window": 3}
    document = workflow(node("list"), mapped("list", said=said))
    assert sorted(path for path, _ in found(document)) == [
        f"dag.nodes[1].map.{one}"
        for one in ("concurrency", "fail_fast", "max_failed", "results", "window")
    ]


def test_a_list_that_is_not_upstream_is_refused() -> None:
    document = workflow(node("list"), mapped())
    assert found(document) == [("dag.nodes[1].map.over", "not_upstream")]


def test_a_list_of_a_node_that_may_be_skipped_needs_a_default() -> None:
    skipped = node("list") | {"when": "input.x == 1"}
    document = workflow(skipped, node("other"), mapped("list", "other"))
    assert found(document) == [("dag.nodes[2].map.over", "may_be_missing")]


def test_the_fields_of_the_map_itself_read_no_item() -> None:
    document = workflow(mapped(over="{{ item.rows }}", when="index > 3"))
    assert sorted(found(document)) == [
        ("dag.nodes[0].map.over", "unknown_reference"),
        ("dag.nodes[0].when", "unknown_reference"),
    ]
    assert "in the config of a node that has `map`" in texts(document)[0]


def test_no_other_node_reads_an_item() -> None:
    document = workflow(node("A", x="{{ item.x }}"))
    assert found(document) == [("dag.nodes[0].config.x", "unknown_reference")]


def test_an_id_as_items_have_it_is_refused() -> None:
    document = workflow(node("fan.17"))
    assert found(document) == [("dag.nodes[0].id", "bad_id")]
