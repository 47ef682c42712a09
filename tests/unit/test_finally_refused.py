"""What is wrong with a `finally`: each problem with its path, at submit."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_api_validator import found, node, texts, validate, workflow


def with_finally(*nodes: Any, last: Any) -> dict[str, Any]:
    document = workflow(*nodes)
    document["dag"]["finally"] = last
    return document


def test_a_finally_is_taken_and_kept_as_it_was_written() -> None:
    accepted = validate(
        with_finally(
            node("A"),
            last=[
                node("Z", x='{{ A.x | default("") }} {{ execution.status }} {{ execution.id }}'),
                node("Y", "Z", x="{{ Z.x }} {{ execution.error }}")
                | {"when": "execution.status == 'FAILED' or state.A == 'SKIPPED'"},
            ],
        )
    )
    assert [one.id for one in accepted.dag.finally_] == ["Z", "Y"]
    assert b'"finally":[{"id":"Z"' in accepted.to_json()


def test_one_without_nodes_is_none() -> None:
    accepted = validate(with_finally(node("A"), last=[]))
    assert accepted.to_json() == validate(workflow(node("A"))).to_json()


def test_the_two_kinds_of_nodes_do_not_depend_on_each_other() -> None:
    document = with_finally(node("A"), node("B", "Z"), last=[node("Z", "A")])
    assert found(document) == [
        ("dag.nodes[1].dependencies[0]", "other_phase"),
        ("dag.finally[0].dependencies[0]", "other_phase"),
    ]
    first, second = texts(document)
    assert "'Z' is of dag.finally, which begins when all of dag.nodes have ended" in first
    assert "'A' is of dag.nodes, all of which have ended" in second


def test_ids_are_unique_over_both() -> None:
    document = with_finally(node("A"), last=[node("A")])
    assert found(document) == [("dag.finally[0].id", "duplicate_id")]
    assert "dag.nodes[0] has it already" in texts(document)[0]


def test_a_cycle_in_it_is_named() -> None:
    document = with_finally(node("A"), last=[node("Y", "Z"), node("Z", "Y")])
    assert found(document) == [("dag.finally[0].dependencies[0]", "cycle")]


@pytest.mark.parametrize("reads", ["{{ A.x }}", "{{ A }}"])
def test_any_node_may_be_missing_in_it(reads: str) -> None:
    document = with_finally(node("A"), last=[node("Z", x=reads)])
    assert found(document) == [("dag.finally[0].config.x", "may_be_missing")]


def test_what_it_runs_after_itself_is_surely_there() -> None:
    document = with_finally(node("A"), last=[node("Z"), node("Y", "Z", x="{{ Z.x }}")])
    assert validate(document).dag.finally_[1].dependencies == ["Z"]


def test_a_node_of_it_that_is_not_upstream_is_refused() -> None:
    document = with_finally(node("A"), last=[node("Z"), node("Y", x='{{ Z.x | default("") }}')])
    assert found(document) == [("dag.finally[1].config.x", "not_upstream")]


def test_nobody_reads_it_before() -> None:
    document = with_finally(node("A", x='{{ Z.x | default("") }}'), last=[node("Z")])
    assert found(document) == [("dag.nodes[0].config.x", "not_upstream")]
    assert "node 'Z' of dag.finally, which runs after 'A'" in texts(document)[0]


@pytest.mark.parametrize("key", ["status", "error"])
def test_how_the_others_ended_is_known_in_it_only(key: str) -> None:
    document = with_finally(
        node("A", x=f"{{{{ execution.{key} }}}}") | {"when": f"execution.{key} == 'x'"},
        last=[node("Z")],
    )
    assert found(document) == [
        ("dag.nodes[0].config.x", "unknown_reference"),
        ("dag.nodes[0].when", "unknown_reference"),
    ]
    assert f"{key} is known to nodes of dag.finally" in texts(document)[0]


def test_of_the_execution_templates_read_what_there_is() -> None:
    document = workflow(node("A", x="{{ execution.id }}", y="{{ execution.owner }}"))
    assert found(document) == [("dag.nodes[0].config.y", "unknown_reference")]
    assert "there is id, name and scheduled_at" in texts(document)[0]


def test_what_has_not_the_form_of_one_is_told_item_by_item() -> None:
    document = with_finally(node("A"), last=[{"handler": "noop"}, 7, node("Z") | {"retri": 1}])
    assert found(document) == [
        ("dag.finally[0].id", "missing_field"),
        ("dag.finally[1]", "wrong_type"),
        ("dag.finally[2].retri", "unknown_field"),
    ]
    assert found(with_finally(node("A"), last={})) == [("dag.finally", "wrong_type")]


def test_a_misspelt_finally_has_a_suggestion() -> None:
    document = workflow(node("A"))
    document["dag"]["finaly"] = []
    assert found(document) == [("dag.finaly", "unknown_field")]
    assert "did you mean 'finally'?" in texts(document)[0]


def test_more_than_a_call_opens_are_too_many() -> None:
    document = with_finally(node("A"), last=[node(f"z{one}") for one in range(1_001)])
    assert found(document) == [("dag.finally", "too_many_nodes")]
