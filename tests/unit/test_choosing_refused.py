"""What is wrong with a workflow that chooses: each problem with its path, at submit."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_api_validator import found, node, texts, validate, workflow


def choosing(node_id: str, *dependencies: str, x: Any = None, **fields: Any) -> dict[str, Any]:
    return node(node_id, *dependencies, **({} if x is None else {"x": x})) | fields


def test_a_workflow_that_chooses_is_taken_with_what_it_says() -> None:
    accepted = validate(
        workflow(
            node("A"),
            choosing("B", "A", when="A.x > 5 and state.A == 'COMPLETED'", after="completed"),
            choosing("C", "B", x='{{ B.y | default("") }}', after="failed", allow_failure=True),
        )
    )
    _, b, c = accepted.dag.nodes
    assert (b.when, b.after, b.allow_failure) == (
        "A.x > 5 and state.A == 'COMPLETED'",
        "completed",
        False,
    )
    assert (c.when, c.after, c.allow_failure) == (None, "failed", True)


@pytest.mark.parametrize("when", ["A.x >", "A.x = 5", "f(A)", "A.x + 1 > 2", "(true", "'a"])
def test_a_condition_that_is_none_is_malformed(when: str) -> None:
    document = workflow(node("A"), choosing("B", "A", when=when))
    assert found(document) == [("dag.nodes[1].when", "malformed_condition")]


def test_a_condition_names_unknown_nodes_and_what_is_meant() -> None:
    document = workflow(node("fetch"), choosing("B", "fetch", when="fetsh.x == 1"))
    assert found(document) == [("dag.nodes[1].when", "unknown_reference")]
    (text,) = texts(document)
    assert "condition reads the unknown node 'fetsh'; did you mean 'fetch'?" in text


def test_what_an_execution_does_not_have_is_unknown() -> None:
    document = workflow(choosing("A", when="execution.owner == 'me'"))
    assert found(document) == [("dag.nodes[0].when", "unknown_reference")]


@pytest.mark.parametrize("when", ["C.x == 1", "state.C == 'FAILED'", "B.x is defined"])
def test_a_condition_reads_upstream_only(when: str) -> None:
    document = workflow(node("A"), choosing("B", "A", when=when), node("C"))
    assert found(document) == [("dag.nodes[1].when", "not_upstream")]


@pytest.mark.parametrize(
    "maybe",
    [
        {"when": "true"},
        {"after": "failed"},
        {"allow_failure": True},
    ],
    ids=str,
)
def test_what_may_be_missing_is_read_with_a_default(maybe: dict[str, Any]) -> None:
    above = [node("R"), choosing("A", "R", **maybe), node("J", "A", "R", x="{{ A.y }}")]
    assert found(workflow(*above)) == [("dag.nodes[2].config.x", "may_be_missing")]
    above[2]["config"]["x"] = '{{ A.y | default("") }}'
    validate(workflow(*above))


def test_a_condition_that_reads_what_may_be_missing_says_what_to_take() -> None:
    nodes = [node("R"), choosing("A", "R", when="true"), choosing("J", "A", "R", when="A.y > 1")]
    assert found(workflow(*nodes)) == [("dag.nodes[2].when", "may_be_missing")]
    (text,) = texts(workflow(*nodes))
    assert "A.key is defined" in text
    assert "A.key | default(false)" in text
    for when in ("A.y is defined and R.y == 1", "A.y | default(false)", "A.y is defined and A.y"):
        nodes[2]["when"] = when
        validate(workflow(*nodes))


def test_who_could_not_run_without_a_node_reads_it_without_a_default() -> None:
    validate(workflow(choosing("A", when="true"), node("B", "A", x="{{ A.y }}")))


def test_a_node_after_all_have_ended_reads_nothing_for_sure() -> None:
    document = workflow(node("A"), choosing("B", "A", after="ended", x="{{ A.y }}"))
    assert found(document) == [("dag.nodes[1].config.x", "may_be_missing")]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"after": "started"}, "dag.nodes[0].after"),
        ({"when": ""}, "dag.nodes[0].when"),
        ({"when": True}, "dag.nodes[0].when"),
        ({"when": "x" * 4_001}, "dag.nodes[0].when"),
        ({"allow_failure": "yes"}, "dag.nodes[0].allow_failure"),
    ],
    ids=str,
)
def test_fields_of_another_form_are_refused(fields: dict[str, Any], path: str) -> None:
    assert path in {one for one, _ in found(workflow(choosing("A", **fields)))}
