"""What an older worker would run wrongly is refused while there is one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from flowd.errors import OlderProcess
from flowd.orchestrator.executor import submit_workflow, trigger_workflow
from flowd.orchestrator.owner import Owner
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.store.saved import About
from flowd.workflow.graph import compile_plan, plan_digest
from flowd.workflow.language import LANGUAGE
from tests.flow.engine import Engine, node, workflow
from tests.flow.test_finally import with_finally

PLAIN = workflow(node("A"), node("B", ["A"]))
NEW = {
    "when": workflow(node("A") | {"when": "true"}),
    "after": workflow(node("A"), node("B", ["A"]) | {"after": "failed"}),
    "allow_failure": workflow(node("A") | {"allow_failure": True}),
    "repeat": workflow(node("A") | {"repeat": {"until": "true"}}),
    "map": workflow(node("A") | {"map": {"over": "{{ input.rows }}"}}),
    "delay": workflow(node("A", handler="delay", seconds=1)),
    "signal": workflow(node("A", handler="signal")),
    "finally": with_finally(node("A"), last=[node("Z")]),
}


async def enroll(engine: Engine, owner: bytes) -> None:
    await engine.store.tasks.enroll_worker("old-one", owner)


def before_languages() -> bytes:
    said = orjson.loads(Owner.of_this_process().to_json())
    del said["language"]
    return orjson.dumps(said)


@pytest.mark.parametrize("name", NEW)
async def test_what_an_older_worker_ignores_is_refused_and_taken_once_it_has_gone(settings, name):
    async with Engine(settings, workers=0) as engine:
        await enroll(engine, before_languages())
        with pytest.raises(OlderProcess, match=r"'old-one' on '.+' is of an older version"):
            await submit_workflow(engine.store, NEW[name])
        assert await engine.redis("ZCARD", "flowd:executions") == 0
        await submit_workflow(engine.store, PLAIN)
        await engine.redis("HDEL", "flowd:workers", "old-one")
        await submit_workflow(engine.store, NEW[name])


@pytest.mark.parametrize("owner", [b"rubbish", b"[]", b'{"host": 1}'])
async def test_a_worker_that_cannot_be_read_counts_as_older(settings, owner):
    async with Engine(settings, workers=0) as engine:
        await enroll(engine, owner)
        with pytest.raises(OlderProcess):
            await submit_workflow(engine.store, NEW["when"])


async def test_workers_of_this_version_and_of_later_ones_are_none(settings):
    async with Engine(settings) as engine:
        later = orjson.loads(Owner.of_this_process().to_json())
        later |= {"language": LANGUAGE + 1, "more": "than we know"}
        await enroll(engine, orjson.dumps(later))
        await submit_workflow(engine.store, NEW["finally"])


async def test_a_rerun_is_a_submission_too(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(workflow(node("A", [], "fail") | {"when": "true"}))
        await enroll(engine, before_languages())
        planned = await plan_rerun(engine.store, execution_id, "failed")
        with pytest.raises(OlderProcess):
            await rerun_execution(engine.store, planned)


async def test_a_plain_workflow_asks_for_nobody(settings, monkeypatch):
    async with Engine(settings, workers=0) as engine:

        async def asked() -> Any:
            raise AssertionError("it asked who is enrolled")

        monkeypatch.setattr(engine.store.tasks, "owners", asked)
        execution_id = await submit_workflow(engine.store, PLAIN)
        await trigger_workflow(engine.store, execution_id)


def test_the_language_a_definition_needs_is_known_without_its_plan():
    assert compile_plan(PLAIN.to_json()).outline.language == 0
    assert {compile_plan(one.to_json()).outline.language for one in NEW.values()} == {1}
    runs_another = workflow(node("A", handler="workflow", name="report"))
    assert compile_plan(runs_another.to_json()).outline.language == 2
    in_queue = workflow(node("A"), queue="gpu"), workflow(node("A") | {"queue": "gpu"})
    assert {compile_plan(one.to_json()).outline.language for one in in_queue} == {3}
    read_by = (
        node("A", text="{{ execution.scheduled_at }}"),
        node("A", text="{{ execution['scheduled_at'] | default('never') }}"),
        node("A", text='{{ execution["scheduled_at"] }}'),
        node("A") | {"when": "execution.scheduled_at is defined"},
    )
    for one in read_by:
        assert compile_plan(workflow(one).to_json()).outline.language == LANGUAGE == 4
    assert compile_plan(workflow(node("A", text="scheduled_at")).to_json()).outline.language == 0


async def test_who_would_tell_nobody_of_the_end_of_a_child_is_older(settings):
    async with Engine(settings, workers=0) as engine:
        definition = PLAIN.to_json()
        about = About(0, 1, "")
        await engine.store.saved.put("report", definition, plan_digest(definition), about)
        before_children = orjson.loads(Owner.of_this_process().to_json()) | {"language": 1}
        await enroll(engine, orjson.dumps(before_children))
        await submit_workflow(engine.store, NEW["when"])
        with pytest.raises(OlderProcess):
            await submit_workflow(
                engine.store, workflow(node("A", handler="workflow", name="report"))
            )
