"""What is wrong with a node that waits for a signal: each problem with its path, at submit."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from flowd.config import Settings
from flowd.errors import WAIT_S_MAX, InvalidWorkflow
from flowd.handlers.config_checks import config_checks
from flowd.handlers.registry import built_in_registry
from flowd.workflow.definition import SECONDS_MAX, WorkflowDefinition
from flowd.workflow.validator import validate_workflow

HANDLERS = config_checks(built_in_registry(), Settings())


def asking(config: Any = None, handler: str = "signal", **fields: Any) -> dict[str, Any]:
    return {"id": "ok", "handler": handler, "dependencies": ["A"], "config": config or {}, **fields}


def validate(node: dict[str, Any]) -> WorkflowDefinition:
    nodes = [{"id": "A", "handler": "noop"}, node]
    return validate_workflow(orjson.dumps({"name": "w", "dag": {"nodes": nodes}}), HANDLERS)


def found(node: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidWorkflow) as refused:
        validate(node)
    return [(one.path.removeprefix("dag.nodes[1]."), one.code) for one in refused.value.problems]


def test_a_node_may_wait_for_ten_years_and_say_what_it_takes() -> None:
    config = {
        "schema": {"type": "object", "required": ["approved"]},
        "on_timeout": "complete",
        "default": {"approved": False},
        "prompt": "Ship {{ A.version }}?",
    }
    accepted = validate(asking(config, timeout_s=WAIT_S_MAX)).dag.nodes[1]
    assert (accepted.timeout_s, accepted.config) == (WAIT_S_MAX, config)
    assert validate(asking()).dag.nodes[1].timeout_s is None


def test_who_waits_for_nothing_outside_has_a_day() -> None:
    validate(asking(handler="noop", timeout_s=SECONDS_MAX))
    node = asking(handler="noop", timeout_s=SECONDS_MAX + 1)
    assert found(node) == [("timeout_s", "invalid_value")]
    assert found(asking(timeout_s=WAIT_S_MAX + 1)) == [("timeout_s", "invalid_value")]
    assert found({**node, "nonsense": 1}) == [
        ("timeout_s", "invalid_value"),
        ("nonsense", "unknown_field"),
    ]


@pytest.mark.parametrize("retry", [{}, {"max_attempts": 2}])
def test_it_is_not_retried(retry: Any) -> None:
    assert found(asking(retry=retry)) == [("retry", "retry_of_signal")]


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"default": "{{ A.x }}"}, "config.default"),
        ({"default": {"a b": [1, "{{ A.x }}"]}}, 'config.default["a b"][1]'),
        ({"default": {"$secret": "TOKEN"}}, "config.default"),
        ({"schema": {"const": "{{ A.x }}"}}, "config.schema.const"),
        ({"schema": {"properties": {"x": {"$secret": "TOKEN"}}}}, "config.schema.properties.x"),
        ({"on_timeout": "{{ A.x }}"}, "config.on_timeout"),
    ],
    ids=str,
)
def test_what_judges_a_signal_is_literal(config: dict[str, Any], path: str) -> None:
    assert (path, "literal_config") in found(asking(config))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"schema": {"type": "objekt"}}, ("config.schema", "bad_config")),
        ({"schema": []}, ("config.schema", "bad_config")),
        ({"on_timeout": "wait"}, ("config.on_timeout", "bad_config")),
        ({"prompt": None, "scheme": {}}, ("config.scheme", "unknown_config")),
        ({"prompt": "{{ B.x }}"}, ("config.prompt", "unknown_reference")),
    ],
    ids=str,
)
def test_a_config_that_makes_no_sense_is_refused(config: Any, expected: tuple[str, str]) -> None:
    assert found(asking(config)) == [expected]
