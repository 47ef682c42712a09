"""`labels`, `input_schema` and `output` of a workflow: what is taken, what is refused, and why."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from flowd.api.workflow_check import check_here
from flowd.errors import InvalidWorkflow
from flowd.workflow.graph import compile_plan

HANDLERS = {"noop": None}
A: dict[str, Any] = {"id": "A", "handler": "noop"}
B: dict[str, Any] = {"id": "B", "handler": "noop", "dependencies": ["A"]}


def written(*nodes: Any, **fields: Any) -> bytes:
    return orjson.dumps({"name": "x", "dag": {"nodes": list(nodes) or [A, B]}, **fields})


def problems(body: bytes) -> list[tuple[str, str]]:
    with pytest.raises(InvalidWorkflow) as refused:
        check_here(body, HANDLERS)
    return [(one.path, one.code) for one in refused.value.problems]


def test_what_has_none_of_them_is_stored_as_ever() -> None:
    definition, outline = check_here(written(A), HANDLERS)

    assert orjson.loads(definition).keys() == {"name", "dag"}
    assert (outline.labels, outline.has_input_schema) == ({}, False)
    plan = compile_plan(definition)
    assert (plan.output, plan.input_schema, plan.labels) == (None, None, {})


def test_they_are_stored_and_planned() -> None:
    fields: dict[str, Any] = {
        "labels": {"team": "x", "env": "a b: c"},
        "input_schema": {"type": "object", "required": ["day"]},
        "output": {"sum": "{{ B.sum }}", "of": ["{{ input.day }}", 1]},
    }
    definition, outline = check_here(written(**fields), HANDLERS)

    assert {name: orjson.loads(definition)[name] for name in fields} == fields
    assert (outline.labels, outline.has_input_schema) == (fields["labels"], True)
    plan = compile_plan(definition)
    assert plan.output is not None
    assert plan.output.render({"B": {"sum": 3}, "input": {"day": "m"}}) == {
        "output": {"sum": 3, "of": ["m", 1]}
    }
    assert plan.input_schema == fields["input_schema"]


def test_equal_labels_in_another_order_are_an_equal_definition() -> None:
    one, _ = check_here(written(labels={"a": "1", "b": "2"}), HANDLERS)
    other, _ = check_here(written(labels={"b": "2", "a": "1"}), HANDLERS)

    assert one == other


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({"-x": "y"}, [("labels.-x", "bad_label")]),
        ({"a:b": "y"}, [('labels["a:b"]', "bad_label")]),
        ({"x": ""}, [("labels.x", "bad_label")]),
        ({"x": "a,b"}, [("labels.x", "bad_label")]),
        ({"x": "a\nb=c"}, [("labels.x", "bad_label")]),
        ({"x": "y" * 101}, [("labels.x", "bad_label")]),
        ({"x": 1, "y": None}, [("labels.x", "wrong_type"), ("labels.y", "wrong_type")]),
        ({f"l{at}": "y" for at in range(21)}, [("labels", "too_many_labels")]),
        ([], [("labels", "wrong_type")]),
    ],
)
def test_labels_that_nobody_could_ask_for_are_refused(labels: Any, found: Any) -> None:
    assert problems(written(labels=labels)) == found


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("{{ C.x }}", [("output", "unknown_reference")]),
        ({"a": ["{{ B.x }}", "{{ B. }}"]}, [("output.a[1]", "malformed_template")]),
        ({"{{ B }}": 1}, [("output", "template_in_key")]),
        ("{{ item }}", [("output", "unknown_reference")]),
        ("{{ execution.status }}", [("output", "unknown_reference")]),
    ],
)
def test_an_output_that_could_not_be_made_is_refused(output: Any, found: Any) -> None:
    assert problems(written(output=output)) == found


def test_an_output_says_what_to_take_of_a_node_that_may_be_missing() -> None:
    chosen = {**B, "when": "A.x"}
    below = {"id": "C", "handler": "noop", "dependencies": ["B"]}
    allowed = {"id": "D", "handler": "noop", "allow_failure": True}
    nodes = (A, chosen, below, allowed)
    for node_id in "BCD":
        assert problems(written(*nodes, output={"x": f"{{{{ {node_id}.x }}}}"})) == [
            ("output.x", "may_be_missing")
        ]
        check_here(written(*nodes, output=f"{{{{ {node_id}.x | default(null) }}}}"), HANDLERS)
    check_here(written(*nodes, output="{{ A.x }}"), HANDLERS)


def test_an_output_reads_what_cleaned_up_too() -> None:
    dag = {"nodes": [A], "finally": [{"id": "F", "handler": "noop"}]}
    body = orjson.dumps({"name": "x", "dag": dag, "output": "{{ F.status }}"})

    check_here(body, HANDLERS)


def test_an_unknown_id_is_named_also_beside_an_output() -> None:
    """What is read last has no id; unknown names were taken for that of a node without one."""
    reader = {**B, "config": {"x": "{{ nobody.y }}"}}

    assert problems(written(A, reader, output="{{ A.x }}")) == [
        ("dag.nodes[1].config.x", "unknown_reference")
    ]


def test_a_deep_output_is_refused() -> None:
    output: Any = "{{ A.x }}"
    for _ in range(70):
        output = [output]

    assert problems(written(output=output)) == [("output", "too_deep")]


@pytest.mark.parametrize("schema", [{"type": "objekt"}, {"required": 1}])
def test_a_schema_that_is_none_is_refused(schema: Any) -> None:
    assert problems(written(input_schema=schema)) == [("input_schema", "bad_schema")]


def test_everything_that_is_wrong_is_listed_at_once() -> None:
    body = written(
        {**A, "handler": "nop"},
        input_schema={"type": "objekt"},
        labels={"x": ""},
        output="{{ Z }}",
    )

    assert sorted(problems(body)) == [
        ("dag.nodes[0].handler", "unknown_handler"),
        ("input_schema", "bad_schema"),
        ("labels.x", "bad_label"),
        ("output", "unknown_reference"),
    ]


@pytest.mark.parametrize(
    ("node", "path"),
    [
        ({"timeout_s": "{{ input.deadline }}"}, "timeout_s"),
        ({"queue": "{{ input.queue }}"}, "queue"),
        ({"after": "{{ input.after }}"}, "after"),
        ({"retry": {"max_attempts": "{{ input.n }}"}}, "retry.max_attempts"),
        ({"map": {"over": "{{ A }}", "concurrency": "{{ input.n }}"}}, "map.concurrency"),
    ],
)
def test_a_field_that_takes_no_template_says_so(node: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidWorkflow) as refused:
        check_here(written({**A, **node}), HANDLERS)

    found = {one.path: one.message for one in refused.value.problems}
    assert found[f"dag.nodes[0].{path}"].endswith("; it takes no template"), found


def test_a_list_in_place_of_a_template_is_told_where_to_put_it() -> None:
    with pytest.raises(InvalidWorkflow) as refused:
        check_here(written({**A, "map": {"over": [1, 2, 3]}}), HANDLERS)

    (found,) = refused.value.problems
    assert (found.path, found.code) == ("dag.nodes[0].map.over", "wrong_type")
    assert "put a list that does not change into `input`" in found.message


def test_a_template_that_is_only_too_long_is_not_called_one() -> None:
    over = "{{ input." + "x" * 5_000 + " }}"
    with pytest.raises(InvalidWorkflow) as refused:
        check_here(written({**A, "map": {"over": over}}), HANDLERS)

    assert "takes no template" not in str(refused.value.problems)
