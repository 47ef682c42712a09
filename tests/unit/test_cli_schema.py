"""`flowd schema`: it takes what flowd takes, and marks what an editor can mark."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from flowd.cli.main import main
from flowd.cli.samples import MORE, NAMES, load_samples
from flowd.cli.workflow_yaml import yaml_to_json
from flowd.config import Settings
from flowd.errors import InvalidWorkflow
from flowd.handlers.config_checks import config_checks
from flowd.handlers.registry import built_in_registry
from flowd.workflow.definition import MapDefinition, NodeDefinition, WorkflowDefinition
from flowd.workflow.schedule import ScheduleDefinition
from flowd.workflow.validator import validate_workflow
from tests.manual import blocks

HANDLERS = config_checks(built_in_registry(), Settings())


def schema(*arguments: str) -> dict[str, Any]:
    ended = CliRunner().invoke(main, ["schema", *arguments])
    assert ended.exit_code == 0, ended.output
    printed: dict[str, Any] = json.loads(ended.stdout)
    return printed


@pytest.fixture(scope="module")
def checker() -> Any:
    printed = schema()
    jsonschema.Draft202012Validator.check_schema(printed)
    return jsonschema.Draft202012Validator(printed)


def problems(checker: Any, document: Any) -> list[str]:
    return [error.message for error in checker.iter_errors(document)]


def workflow(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "dag": {"nodes": [{"id": "A", "handler": "noop"} | fields]}}


@pytest.mark.parametrize("name", [*NAMES, *MORE])
def test_every_sample_is_taken(checker: Any, name: str) -> None:
    assert problems(checker, json.loads(load_samples((name,))[name])) == []


BROKEN: dict[str, Any] = {
    "no nodes": {"name": "x", "dag": {"nodes": []}},
    "no dag": {"name": "x"},
    "a field too many": workflow(retries=3),
    "an unknown handler": workflow(handler="nop"),
    "a bad id": workflow(id="a.b"),
    "dependencies that are a text": workflow(dependencies="B"),
    "an unknown key of a config": workflow(
        handler="call_external_service", config={"url": "http://x", "metod": "GET"}
    ),
    "a missing key of a config": workflow(handler="transform", config={}),
    "no config where one is needed": workflow(handler="transform"),
    "a value of the wrong type": workflow(handler="delay", config={"seconds": [1]}),
    "a bad map": workflow(map={"ovr": "{{ A.x }}"}),
    "too many attempts": workflow(retry={"max_attempts": 10_000}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_workflow_is_marked(checker: Any, what: str) -> None:
    with pytest.raises(InvalidWorkflow):
        validate_workflow(json.dumps(BROKEN[what]).encode(), HANDLERS)

    assert problems(checker, BROKEN[what])


def test_it_has_every_field_the_models_have(checker: Any) -> None:
    definitions = checker.schema["$defs"]
    for model in (NodeDefinition, MapDefinition):
        assert set(definitions[model.__name__]["properties"]) == set(model.model_fields)
    assert set(definitions["WorkflowDefinition"]["properties"]) == set(
        WorkflowDefinition.model_fields
    )
    schedule = definitions["ScheduleDefinition"]["properties"]
    assert set(schedule) == {"name", *ScheduleDefinition.model_fields}


@pytest.mark.parametrize(
    ("document", "is_taken"),
    [
        ({"name": "s", "workflow": "w", "cron": "0 6 * * *"}, True),
        ({"name": "s", "workflow": "w", "every_s": 60, "paused": True}, True),
        ({"name": "s", "workflow": "w", "every_s": "60"}, False),
        ({"name": "s", "cron": "0 6 * * *"}, False),
        ({"workflow": "w", "cron": "0 6 * * *"}, False),
        ({"name": "s", "workflow": "w", "cron": "0 6 * * *", "overlaps": "skip"}, False),
    ],
)
def test_a_schedule_is_told_from_a_workflow(
    checker: Any, document: dict[str, Any], is_taken: bool
) -> None:
    assert (problems(checker, document) == []) is is_taken


SECONDS = st.sampled_from([1, 2.5, 0, -1, "1", "{{ input.n }}", {"$secret": "N"}, [], True])
RETRY = st.fixed_dictionaries(
    {}, optional={"max_attempts": st.sampled_from([0, 1, 5, 1.5, "2"]), "delay_s": SECONDS}
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "handler": st.sampled_from(["noop", "delay", "nop"]),
        "config": st.fixed_dictionaries({}, optional={"seconds": SECONDS}),
        "timeout_s": st.sampled_from([0, 1, 5.5, "1"]),
        "retry": RETRY,
        "when": st.sampled_from(["true", "", 1]),
        "after": st.sampled_from(["completed", "never"]),
    },
)


@given(FIELDS)
def test_whatever_flowd_takes_is_not_marked(checker: Any, fields: dict[str, Any]) -> None:
    document = workflow(**fields)
    try:
        validate_workflow(json.dumps(document).encode(), HANDLERS)
    except InvalidWorkflow:
        return

    assert problems(checker, document) == []


def test_own_handlers_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", __import__("sys").path[:])
    (tmp_path / "own_of_schema.py").write_text(
        "from flowd.handlers import handler\n\n\n"
        '@handler("greet")\ndef greet(config: dict) -> dict:\n    return {}\n'
    )
    (tmp_path / "flowd.toml").write_text('[handlers]\nmodules = ["own_of_schema"]\n')

    assert "greet" in schema()["$defs"]["NodeDefinition"]["properties"]["handler"]["enum"]


def test_the_schema_is_used_as_the_manual_shows(checker: Any) -> None:
    (command,) = blocks("Workflows in an editor", "console")
    (text,) = blocks("Workflows in an editor", "yaml")

    file = re.fullmatch(r"\$ flowd schema > (\S+)\n", command)
    assert file
    assert text.splitlines()[0] == f"# yaml-language-server: $schema={file[1]}"
    assert problems(checker, json.loads(yaml_to_json(text.encode()))) == []
