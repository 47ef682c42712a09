"""The models of a definition and the bytes they are stored as."""

from __future__ import annotations

import orjson
import pytest
from pydantic import ValidationError

from flowd.workflow.definition import NodeDefinition, WorkflowDefinition


def test_the_stored_form_has_every_field_of_every_node_in_one_order() -> None:
    loose = {"dag": {"nodes": [{"handler": "noop", "id": "A"}]}, "name": "w"}
    full = {
        "name": "w",
        "dag": {"nodes": [{"id": "A", "handler": "noop", "dependencies": [], "config": {}}]},
    }
    stored = WorkflowDefinition.model_validate(loose).to_json()
    assert stored == orjson.dumps(full)
    assert WorkflowDefinition.model_validate(orjson.loads(stored)).to_json() == stored


def test_the_stored_form_says_what_the_model_says() -> None:
    nodes = [
        {"id": "A", "handler": "h", "dependencies": ["B"], "config": {"ü": [1.5, None]}},
        {"id": "B", "handler": "h", "dependencies": [], "config": {}, "timeout_s": 1.5}
        | {"after": "ended", "when": "true", "allow_failure": True},
    ]
    workflow = WorkflowDefinition.model_validate({"name": "é", "dag": {"nodes": nodes}})
    assert orjson.loads(workflow.to_json()) == workflow.model_dump(exclude_unset=True)


@pytest.mark.parametrize("node_id", ["A", "_a", "0", "a-b_c", "x" * 128])
def test_ids_of_letters_digits_underscores_and_dashes_are_good(node_id: str) -> None:
    assert NodeDefinition(id=node_id, handler="noop").id == node_id


@pytest.mark.parametrize(
    "node_id",
    ["", "-a", "a:b", "a.b", "a\n", "a\x00", "..", "ä", "a b", "x" * 129, "x" * 10_000, 7, None],
)
def test_other_ids_are_refused(node_id: object) -> None:
    with pytest.raises(ValidationError):
        NodeDefinition.model_validate({"id": node_id, "handler": "noop"})


def test_numbers_are_not_taken_for_strings_nor_strings_for_numbers() -> None:
    for wrong in ({"handler": 1}, {"dependencies": "A"}, {"dependencies": [1]}, {"config": []}):
        with pytest.raises(ValidationError):
            NodeDefinition.model_validate({"id": "A", "handler": "noop", **wrong})
