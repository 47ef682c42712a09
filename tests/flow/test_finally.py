"""Nodes of `finally` with workers that run them: what they see, and when they run."""

from __future__ import annotations

from typing import Any

import pytest

from flowd.cli.samples import load_samples
from flowd.diagnosis.doctor import examine
from flowd.diagnosis.observer import Observer
from flowd.handlers.registry import built_in_registry
from flowd.orchestrator.executor import (
    cancel_execution,
    submit_workflow,
    trigger_workflow,
)
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.rendering import rendered_config
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.store.maps import Maps
from flowd.workflow.definition import WorkflowDefinition
from tests.flow import handlers
from tests.flow.engine import Engine, calls, node, until
from tests.flow.test_choices import COMPLETED, FAILED, SKIPPED, choosing

CANCELLED = "CANCELLED"


def with_finally(*nodes: Any, last: list[Any], **fields: Any) -> WorkflowDefinition:
    document = {"name": "test", "dag": {"nodes": list(nodes), "finally": last}, **fields}
    return WorkflowDefinition.model_validate(document)


async def test_finally_runs_after_all_others_and_reads_them(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(
            with_finally(
                node("A", x=1),
                node("B", ["A"]),
                last=[
                    node("tidy", x="{{ A.x | default(0) }}", how="{{ execution.status }}"),
                    node("tell", ["tidy"], x="{{ tidy.x }}", why="{{ execution.error }}"),
                ],
            )
        )
        assert calls(execution_id) == ["A", "B", "tidy", "tell"]
        results = await engine.results(execution_id)
        assert results["tidy"] == {"x": 1, "how": "COMPLETED"}
        assert results["tell"] == {"x": 1, "why": None}
        assert str(await engine.end(execution_id)) == COMPLETED


async def test_finally_runs_after_a_failure_and_says_of_what(settings):
    async with Engine(settings) as engine:
        tell = node(
            "tell", text="{{ execution.name }} {{ execution.status }}: {{ execution.error }}"
        )
        quiet = node("quiet") | {"when": "execution.status == 'COMPLETED'"}
        loud = node("loud") | {"when": "state.A == 'FAILED' and execution.error is defined"}
        execution_id = await engine.run(
            with_finally(choosing("A", fails=True), node("B", ["A"]), last=[tell, quiet, loud])
        )
        assert await engine.states(execution_id) == {
            "A": FAILED,
            "B": FAILED,
            "tell": COMPLETED,
            "quiet": SKIPPED,
            "loud": COMPLETED,
        }
        results = await engine.results(execution_id)
        assert results["tell"] == {"text": "test FAILED: A: RuntimeError: no luck"}
        assert str(await engine.end(execution_id)) == FAILED


async def test_a_failure_in_finally_is_no_error_of_what_it_cleans_up_after(settings):
    async with Engine(settings) as engine:
        last = [
            choosing("bad", fails=True),
            node("then", ["bad"], how="{{ execution.status }} {{ execution.error }}")
            | {"after": "ended"},
        ]
        execution_id = await engine.run(with_finally(node("A"), last=last))
        assert (await engine.results(execution_id))["then"] == {"how": "COMPLETED null"}
        assert str(await engine.end(execution_id)) == FAILED


async def test_finally_runs_on_a_cancel_once_what_runs_has_stopped(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(
            with_finally(
                node("A", handler="held"),
                node("B", ["A"]),
                last=[node("tidy", how="{{ execution.status }}")],
            )
        )
        await until(lambda: "A" in handlers.GATES, "A to run")
        await cancel_execution(engine.store, execution_id)

        assert str(await engine.end(execution_id)) == CANCELLED
        assert await engine.states(execution_id) == {
            "A": CANCELLED,
            "B": CANCELLED,
            "tidy": COMPLETED,
        }
        assert await engine.results(execution_id) == {"tidy": {"how": CANCELLED}}
        assert calls(execution_id) == ["A", "tidy"]


async def test_nothing_that_waited_starts_after_a_cancel_but_finally(settings):
    async with Engine(settings, workers=0) as engine:
        nodes = [node(f"n{one}", handler=(one % 2 and "echo") or "echo_async") for one in range(20)]
        execution_id = await engine.start(with_finally(*nodes, last=[node("tidy")]))
        await cancel_execution(engine.store, execution_id)
        await engine.add_worker()
        assert str(await engine.end(execution_id)) == CANCELLED
        assert calls(execution_id) == ["tidy"]


async def test_items_that_run_have_stopped_before_finally_begins(settings):
    async with Engine(settings) as engine:
        fan = node("fan", handler="held", x="{{ item }}") | {
            "map": {"over": "{{ input.rows }}", "concurrency": 3}
        }
        execution_id = await engine.start(
            with_finally(fan, node("B", ["fan"]), last=[node("tidy")], input={"rows": [1] * 9})
        )
        await until(lambda: {f"fan.{one}" for one in range(3)} <= set(calls(execution_id)), "them")
        await cancel_execution(engine.store, execution_id)

        assert str(await engine.end(execution_id)) == CANCELLED
        made = calls(execution_id)
        assert sorted(made[:3]) == ["fan.0", "fan.1", "fan.2"]
        assert made[3:] == ["tidy"]
        assert await engine.states(execution_id) == {
            "fan": CANCELLED,
            "B": CANCELLED,
            "tidy": COMPLETED,
        }


@pytest.mark.parametrize("call", [None, "standing", "places", "cancel_items"])
async def test_finally_begins_when_the_items_of_a_map_that_failed_fast_have_stopped(
    settings, monkeypatch, call
):
    """Also where a cancellation comes at that call of the node that gathers them."""
    async with Engine(settings, workers=1) as engine:
        handlers.FATED.add("fan.3")
        fan = node("fan", handler="held_and_fated", x="{{ item }}") | {
            "map": {"over": "{{ input.rows }}", "fail_fast": True}
        }
        execution_id = await engine.start(
            with_finally(fan, last=[node("tidy", handler="left")], input={"rows": [1] * 4})
        )
        await until(lambda: len(handlers.GATES) == 4, "the items that run")
        if call:
            original = getattr(Maps, call)

            async def cancelled(*arguments):
                if not (await engine.store.executions.execution_status(execution_id)).is_terminal:
                    monkeypatch.setattr(Maps, call, original)
                    await cancel_execution(engine.store, execution_id)
                return await original(*arguments)

            monkeypatch.setattr(Maps, call, cancelled)

        handlers.GATES["fan.3"].set()
        assert str(await engine.end(execution_id)) == (CANCELLED if call else FAILED)
        handlers.FATED.clear()
        everybody = [f"fan.{one}" for one in range(4)]
        assert (await engine.results(execution_id))["tidy"] == {"left": everybody}


async def test_a_map_in_finally_runs_its_items_and_is_told_how_it_ended(settings):
    async with Engine(settings) as engine:
        tidy = node("tidy", x="{{ item }} {{ execution.status }}") | {
            "map": {"over": "{{ input.rows }}"}
        }
        execution_id = await engine.run(
            with_finally(node("A"), last=[tidy], input={"rows": [1, 2]})
        )
        results = (await engine.results(execution_id))["tidy"]["results"]
        assert results == [{"x": "1 COMPLETED"}, {"x": "2 COMPLETED"}]


async def test_a_map_in_finally_cleans_all_up_again_when_it_is_run_again(settings):
    async with Engine(settings) as engine:
        tidy = node("tidy", x="{{ item }}") | {"map": {"over": "{{ input.rows }}"}}
        nodes = [node("A", handler="fail_first", times=1)]
        first = await engine.run(with_finally(*nodes, last=[tidy], input={"rows": [1, 2]}))
        planned = await plan_rerun(engine.store, first, "failed")
        assert planned.runs["tidy"] == "of `finally`, which always runs again"
        again = await rerun_execution(engine.store, planned)
        await trigger_workflow(engine.store, again)
        await engine.end(again)
        assert sorted(calls(again)) == ["A", "tidy.0", "tidy.1"]


async def test_a_node_that_waits_is_cancelled_before_finally(settings):
    async with Engine(settings, registry=built_in_registry()) as engine:
        nodes = [node("pause", handler="delay", seconds=3600), node("ok", handler="signal")]
        execution_id = await engine.start(with_finally(*nodes, last=[node("tidy", handler="noop")]))

        async def waits() -> bool:
            return set((await engine.states(execution_id)).values()) == {"WAITING", "PENDING"}

        await until(waits, "the waits")
        await cancel_execution(engine.store, execution_id)
        assert str(await engine.end(execution_id)) == CANCELLED
        assert await engine.states(execution_id) == {
            "pause": CANCELLED,
            "ok": CANCELLED,
            "tidy": COMPLETED,
        }
        assert await engine.redis("ZCARD", "flowd:retries") == 0


async def test_finally_uses_its_own_time_out(settings):
    async with Engine(settings) as engine:
        hangs = node("tidy", handler="held") | {"timeout_s": 0.2}
        execution_id = await engine.run(with_finally(node("A") | {"timeout_s": 60}, last=[hangs]))
        error = (await engine.results(execution_id))["tidy"]["error"]
        assert "0.2 s" in error
        assert str(await engine.end(execution_id)) == FAILED


async def test_a_second_cancel_by_force_breaks_finally_off(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(
            with_finally(node("A"), last=[node("tidy", handler="held"), node("tell", ["tidy"])])
        )
        await until(lambda: "tidy" in handlers.GATES, "the finally to run")
        await cancel_execution(engine.store, execution_id)
        await cancel_execution(engine.store, execution_id)
        assert not (await engine.store.executions.execution_status(execution_id)).is_terminal
        await cancel_execution(engine.store, execution_id, force=True)
        assert str(await engine.end(execution_id)) == CANCELLED
        assert set((await engine.states(execution_id)).values()) == {COMPLETED, CANCELLED}


async def test_what_was_never_triggered_runs_none_of_it(settings):
    async with Engine(settings) as engine:
        definition = with_finally(node("A"), last=[node("tidy")])
        execution_id = await engine.start(definition)
        await engine.end(execution_id)
        handlers.CALLS.clear()
        pending = await submit_workflow(engine.store, definition)
        await cancel_execution(engine.store, pending)
        assert str(await engine.end(pending)) == CANCELLED
        assert calls(pending) == []


async def test_explain_says_what_finally_waits_for(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(
            with_finally(node("A", handler="held"), last=[node("tidy")])
        )
        await until(lambda: "A" in handlers.GATES, "A to run")
        observer = Observer(engine.store, Plans(engine.store))
        seen = await observer.explain(execution_id, "tidy")
        ((reason,),) = [one.reasons for one in seen.nodes]
        assert (reason.code, reason.message.startswith("waits for A (")) == ("waiting_for", True)


async def test_explain_says_that_a_cancelled_execution_still_runs_its_finally(settings):
    async with Engine(settings) as engine:
        nodes = [node("A", handler="held"), node("B", ["A"])]
        execution_id = await engine.start(with_finally(*nodes, last=[node("tidy", handler="held")]))
        await until(lambda: "A" in handlers.GATES, "A to run")
        await cancel_execution(engine.store, execution_id)
        await until(lambda: "tidy" in handlers.GATES, "the finally to run")
        seen = await Observer(engine.store, Plans(engine.store)).explain(execution_id)
        assert "It was cancelled, and ends when its `finally` has run." in seen.summary


async def test_a_node_of_finally_shows_what_its_handler_gets_once_it_can_be_known(settings):
    async with Engine(settings) as engine:
        tidy = node(
            "tidy", handler="held", how="{{ execution.status }}", x='{{ A.x | default("") }}'
        )
        execution_id = await engine.start(with_finally(node("A", handler="held"), last=[tidy]))
        plan = await Plans(engine.store).load(execution_id, "")

        async def shown() -> Any:
            return await rendered_config(engine.store, plan, execution_id, tidy["config"])

        await until(lambda: "A" in handlers.GATES, "A to run")
        assert await shown() is None
        await cancel_execution(engine.store, execution_id)
        await until(lambda: "tidy" in handlers.GATES, "the finally to run")
        assert await shown() == {"how": CANCELLED, "x": ""}


async def test_the_doctor_finds_nothing_wrong_with_an_execution_that_is_being_cancelled(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(with_finally(node("A"), last=[node("tidy")]))
        await cancel_execution(engine.store, execution_id)
        examination = await examine(engine.store, pause_s=0)
        broken = [one for check in examination.checks for one in check.violations]
        assert [one for one in broken if execution_id in one] == []


async def test_the_sample_that_cleans_up_ends_without_a_network(settings):
    (text,) = load_samples(("cleanup",)).values()
    async with Engine(settings, registry=built_in_registry()) as engine:
        execution_id = await engine.run(WorkflowDefinition.model_validate_json(text))
        assert await engine.states(execution_id) == {
            "rent": COMPLETED,
            "work": COMPLETED,
            "give_back": COMPLETED,
            "alarm": SKIPPED,
        }
