"""What is wrong with a `concurrency` is said with its path."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from flowd.errors import InvalidRequest, InvalidWorkflow
from flowd.workflow.concurrency import place_of
from flowd.workflow.definition import WorkflowDefinition
from flowd.workflow.graph import compile_plan
from flowd.workflow.validator import validate_workflow


def document(concurrency: Any, **more: Any) -> dict[str, Any]:
    node = {"id": "a", "handler": "noop"}
    return {"name": "report", "dag": {"nodes": [node]}, "concurrency": concurrency, **more}


@pytest.mark.parametrize(
    ("concurrency", "path", "message"),
    [
        ({"max": 0}, "concurrency.max", "greater than or equal to 1"),
        ({"max": 10_001}, "concurrency.max", "less than or equal to 10000"),
        ({"max": "1"}, "concurrency.max", "integer"),
        ({"key": 5}, "concurrency.key", "string"),
        ({"key": ""}, "concurrency.key", "at least 1"),
        ({"when_full": "wait"}, "concurrency.when_full", "'queue', 'refuse' or 'replace'"),
        ({"keys": "a"}, "concurrency.keys", "did you mean 'key'"),
        ({"key": "{{ a.x }}"}, "concurrency.key", "there is only `input`"),
        ({"key": "{{ input.x"}, "concurrency.key", "template"),
        (["a"], "concurrency", "expected an object"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(concurrency: Any, path: str, message: str) -> None:
    with pytest.raises(InvalidWorkflow) as refused:
        validate_workflow(orjson.dumps(document(concurrency)), {"noop": None})

    (problem,) = refused.value.problems
    assert problem.path == path
    assert message in problem.message


def place(key: str | None, given: dict[str, Any], **more: Any) -> str:
    said = {} if key is None else {"key": key}
    written = WorkflowDefinition.model_validate(document(said, **more)).to_json()
    concurrency = compile_plan(written).concurrency
    assert concurrency is not None
    return place_of(concurrency, given)


def test_a_number_and_its_text_are_one_key_and_another_workflow_has_another() -> None:
    by_number, by_text = place("{{ input.n }}", {"n": 1}), place("{{ input.n }}", {"n": "1"})

    assert by_number == by_text
    assert by_number.endswith(" 1")
    assert place("{{ input.n }}", {"n": 2}) != by_number
    assert place("{{ input.n }}", {"n": 1}, name="other") != by_number


def test_the_workflows_own_input_is_under_what_is_given() -> None:
    own = {"input": {"n": "own"}}

    assert place("{{ input.n }}", {}, **own) == place("{{ input.n }}", {"n": "own"})
    assert place("{{ input.n }}", {"n": "given"}, **own).endswith(" given")
    assert place("{{ input.x | default('none') }}", {}).endswith(" none")


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, "x" * 10_001])
def test_what_is_no_key_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"concurrency\.key cannot be made of this"):
        place("{{ input.n }}", {"n": value})


def test_a_long_key_is_shown_by_its_beginning_and_told_from_others() -> None:
    one, other = (place("{{ input.n }}", {"n": "x" * 9_000 + end}) for end in "ab")

    assert one != other
    assert len(one) < 300
