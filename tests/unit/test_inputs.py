"""What a workflow knows of its input: nobody is warned of a key that something reads."""

from __future__ import annotations

from typing import Any

import pytest

from flowd.workflow.inputs import known_inputs


def written(**fields: Any) -> dict[str, Any]:
    node = {"id": "A", "handler": "noop", **fields.pop("node", {})}
    return {"name": "w", "dag": {"nodes": [node], **fields.pop("dag", {})}, **fields}


@pytest.mark.parametrize(
    "document",
    [
        written(input={"day": None}),
        written(input_schema={"type": "object", "properties": {"day": {}}}),
        written(input_schema={"properties": {"day": {}}, "additionalProperties": False}),
        written(node={"config": {"url": ["x/{{ input.day | urlencode }}"]}}),
        written(node={"config": {"x": '{{ input["day"].month }}'}}),
        written(node={"when": "not input.day"}),
        written(node={"repeat": {"until": "input.day == 1"}}),
        written(node={"map": {"over": "{{ input.day }}"}}),
        written(node={"limit": {"name": "api", "key": "{{ input.day }}"}}),
        written(node={"cache": {"key": "{{ input.day }}", "ttl_s": 60}}),
        written(dag={"finally": [{"id": "B", "handler": "noop", "when": "input.day"}]}),
        written(concurrency={"key": "{{ input.day }}"}),
        written(output={"x": "{{ input.day }}"}),
    ],
)
def test_a_key_is_known_wherever_it_stands(document: dict[str, Any]) -> None:
    assert known_inputs(document) == {"day"}


@pytest.mark.parametrize(
    "document",
    [
        written(node={"config": {"x": "{{ input }}"}}),
        written(input_schema={"additionalProperties": {"type": "string"}}),
        written(input_schema={"allOf": [{"properties": {"day": {}}}]}),
    ],
)
def test_of_who_takes_all_of_it_nothing_is_said(document: dict[str, Any]) -> None:
    assert known_inputs(document) is None


def test_who_reads_nothing_knows_no_key() -> None:
    assert known_inputs(written()) == set()
