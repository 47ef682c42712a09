"""Queues with real workers: who takes what, and that all of it ends."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import replace

from flowd.diagnosis import readiness
from flowd.diagnosis.observer import Observer
from flowd.handlers.registry import Registry
from flowd.orchestrator.executor import trigger_workflow
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.scheduler.scheduler import Scheduler
from flowd.store.saved import About
from flowd.workflow.definition import WorkflowDefinition
from flowd.workflow.graph import plan_digest
from flowd.workflow.ids import child_id
from tests.flow import handlers
from tests.flow.engine import _HANDLERS, Engine, node, until, workflow


def reading(settings, *queues: str, concurrency: int = 64):
    workers = replace(settings.workers, queues=queues, concurrency=concurrency)
    return replace(settings, workers=workers)


def in_queue(queue: str, said: dict) -> dict:
    return said | {"queue": queue}


async def has_state(engine, execution_id, node_id, state):
    return (await engine.states(execution_id))[node_id] == state


async def test_a_worker_of_other_queues_never_takes_it_by_no_short_cut(settings):
    """Neither the call that completed what it waits for takes it along, nor the doorbell."""
    both = workflow(node("A"), in_queue("gpu", node("B", ["A"])))
    async with Engine(settings) as engine:
        execution_id = await engine.start(both)
        await until(lambda: has_state(engine, execution_id, "B", "QUEUED"), "B in its queue")
        for _ in range(20):
            await engine.run(workflow(node("C")))
        assert await has_state(engine, execution_id, "B", "QUEUED")

        engine.settings = reading(settings, "gpu")
        await engine.add_worker()
        await engine.end(execution_id)
        assert await has_state(engine, execution_id, "B", "COMPLETED")


async def test_maps_retries_and_finally_run_in_the_queue_of_their_definition(settings):
    """Nobody reads the default one here."""
    nodes = [
        node("list", values=[1, 2, 3]),
        node("fan", ["list"], value="{{ item }}")
        | {"map": {"over": "{{ list.values }}", "concurrency": 2}},
        node("flaky", ["fan"], "fail_first", times=1)
        | {"retry": {"max_attempts": 3, "delay_s": 0}},
    ]
    whole = WorkflowDefinition.model_validate(
        {"name": "test", "queue": "gpu", "dag": {"nodes": nodes, "finally": [node("clean")]}}
    )
    async with Engine(reading(settings, "gpu")) as engine:
        scheduler = Scheduler(engine.store)

        async def ended():
            await scheduler.tick(time.monotonic())
            return (await engine.store.executions.execution_status(execution_id)).is_terminal

        execution_id = await engine.start(whole)
        await until(ended, "its end")
        assert set((await engine.states(execution_id)).values()) == {"COMPLETED"}


async def test_several_queues_never_give_a_worker_more_than_it_has_room_for(settings):
    """The doorbell of a worker with one slot may be answered by every queue at once."""
    queues = ("default", "gpu", "low")
    some = workflow(
        *(in_queue(queue, node(f"{queue}{n}", ())) for queue in queues for n in range(10))
    )
    async with Engine(reading(settings, *queues, concurrency=1), workers=1) as engine:
        for _ in range(5):
            execution_id = await engine.run(some)
            assert set((await engine.states(execution_id)).values()) == {"COMPLETED"}


async def test_low_priority_moves_under_endless_high_load(settings):
    """While the urgent queue is not empty, what is in the other ends all the same."""
    urgent = workflow(*(in_queue("urgent", node(f"u{number}")) for number in range(2000)))
    async with Engine(reading(settings, "urgent", "default", concurrency=1), workers=0) as engine:
        first, second = await engine.start(urgent), await engine.start(workflow(node("L")))
        await engine.add_worker()
        await engine.end(second)
        assert not (await engine.store.executions.execution_status(first)).is_terminal


async def test_a_queue_that_nobody_reads_is_named_by_explain_and_readiness(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(workflow(in_queue("gpu", node("A"))))

        explained = await Observer(engine.store, Plans(engine.store)).explain(execution_id)
        (a,) = explained.nodes
        assert [reason.code for reason in a.reasons] == ["queued", "no_worker"]
        assert a.reasons[1].message == (
            "no worker that is alive reads the queue 'gpu': add it to the `queues` of `[workers]`, "
            "or of a group of them, and `flowd reload`"
        )
        assert a.reasons[1].message[3:] in explained.summary
        checks, _ = await readiness.check(engine.store)
        assert checks["queues"] == {"ok": False, "unread": ["gpu"]}
        queues = await engine.store.health.metrics.queues()
        assert {name: queue.waiting for name, queue in queues.items()} == {"default": 0, "gpu": 1}
        snapshot = await engine.store.health.metrics.snapshot()
        assert (snapshot.queues["gpu"].entries, snapshot.queue.entries) == (1, 1)

        engine.settings = reading(settings, "gpu")
        await engine.add_worker()
        await engine.end(execution_id)
        checks, _ = await readiness.check(engine.store)
        assert checks["queues"] == {"ok": True, "unread": []}


async def test_without_queues_readiness_says_nothing_of_them(settings):
    async with Engine(settings) as engine:
        await engine.run(workflow(node("A")))
        checks, _ = await readiness.check(engine.store)
        assert "queues" not in checks


@asynccontextmanager
async def two_pools(settings, **options):
    """The first worker reads the default queue alone, the second the queue `gpu` alone."""
    async with Engine(settings, workers=1, **options) as engine:
        engine.settings = reading(settings, "gpu")
        await engine.add_worker()
        yield engine


async def ran_by(engine, execution_id, node_ids):
    records = await engine.store.nodes.records(execution_id, node_ids)
    return {one: record.worker.rpartition("-")[0] for one, record in records.items()}


async def test_a_fan_out_over_a_thousand_opens_in_its_queue(settings):
    """More than one call opens: the rest is a continuation's."""
    middle = [f"b{at}" for at in range(1_200)]
    nodes = [node("a"), *(in_queue("gpu", node(one, ["a"])) for one in middle), node("z", middle)]
    async with two_pools(settings) as engine, engine.ticking():
        execution_id = await engine.run(workflow(*nodes))

        assert set((await engine.states(execution_id)).values()) == {"COMPLETED"}
        assert set((await ran_by(engine, execution_id, middle)).values()) == {"worker-2"}
        assert await ran_by(engine, execution_id, ["a", "z"]) == {"a": "worker-1", "z": "worker-1"}


async def test_a_rerun_and_a_redriven_node_come_back_to_their_queue(settings):
    nodes = [node("A"), in_queue("gpu", node("B", ["A"], "fated")), node("C", ["B"])]
    handlers.FATED.add("B")
    async with two_pools(settings) as engine:
        first = await engine.run(workflow(*nodes))
        handlers.FATED.clear()
        again = await rerun_execution(engine.store, await plan_rerun(engine.store, first, "failed"))
        await trigger_workflow(engine.store, again)

        assert await engine.end(again) == "COMPLETED"
        assert await ran_by(engine, again, ["B", "C"]) == {"B": "worker-2", "C": "worker-1"}


async def test_a_child_runs_in_the_queue_of_its_own_definition(settings):
    child = workflow(node("X"), node("Y", ["X"]), name="report", queue="gpu").to_json()
    registry = Registry({**_HANDLERS, "workflow": "flowd.handlers.builtin.workflow"})
    async with two_pools(settings, registry=registry) as engine:
        await engine.store.saved.put("report", child, plan_digest(child), About(0, 2, ""))
        parent = await engine.run(workflow(node("call", handler="workflow", name="report")))

        assert await engine.end(parent) == "COMPLETED"
        ran = await ran_by(engine, child_id(parent, "call", 1), ["X", "Y"])
        assert ran == {"X": "worker-2", "Y": "worker-2"}
        assert await ran_by(engine, parent, ["call"]) == {"call": "worker-1"}
