"""What ended long ago is forgotten whole; what runs, waits or ended lately stays."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from flowd.errors import UnknownExecution
from flowd.orchestrator.executor import submit_workflow
from flowd.scheduler import retention
from flowd.scheduler.retention import DAY_MS, forget_finished
from flowd.store.executions import now_ms
from tests.flow.engine import Engine, node, workflow


async def keys_of(engine: Engine, execution_id: str) -> list[str]:
    return await engine.redis("KEYS", f"workflow:{execution_id}*")


async def test_an_execution_is_forgotten_with_all_its_keys(settings, lines):
    async with Engine(settings) as engine:
        well = await engine.run(workflow(node("A", n=1), node("B", ["A"])))
        failed = await engine.run(workflow(node("A", handler="fail"), node("B", ["A"])))
        running = await engine.start(workflow(node("A", handler="held")))
        waiting = await submit_workflow(engine.store, workflow(node("A")))

        assert await forget_finished(engine.store, 7, now_ms() + 6 * DAY_MS) == 0
        assert await forget_finished(engine.store, 7, now_ms() + 8 * DAY_MS) == 2

        assert lines.of("executions.forgotten") == [("info", {"count": 2, "finished_days": 7})]
        for execution_id in (well, failed):
            assert await keys_of(engine, execution_id) == []
            with pytest.raises(UnknownExecution):
                await engine.store.executions.execution_status(execution_id)
        assert await engine.redis("ZCARD", "flowd:finished") == 0
        assert await keys_of(engine, running) != []
        assert await keys_of(engine, waiting) != []


async def test_zero_days_keep_everything(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(workflow(node("A")))
        assert await forget_finished(engine.store, 0, now_ms() + 1000 * DAY_MS) == 0
        assert str(await engine.end(execution_id)) == "COMPLETED"


async def test_more_executions_than_one_step_are_forgotten(settings):
    async with Engine(settings) as engine:
        started = [await engine.start(workflow(node("A"))) for _ in range(150)]
        for execution_id in started:
            await engine.end(execution_id)
        assert await forget_finished(engine.store, 1, now_ms() + 2 * DAY_MS) == 150
        assert await engine.redis("KEYS", "workflow:0*") == []


async def test_large_executions_are_forgotten_one_after_the_other(settings, monkeypatch):
    """A hundred were begun together, however large, and whatever was due waited for the last."""
    monkeypatch.setattr(retention, "NODES_MAX", 3)
    async with Engine(settings) as engine:
        deleted: list[int] = []
        delete = engine.store.finished.delete

        async def counted(execution_ids):
            deleted.append(len(execution_ids))
            await delete(execution_ids)

        monkeypatch.setattr(engine.store.finished, "delete", counted)
        for size in (1, 2, 2, 9):
            await engine.run(workflow(*(node(f"A{at}") for at in range(size))))
        assert await forget_finished(engine.store, 1, now_ms() + 2 * DAY_MS) == 4
        assert deleted == [2, 1, 1]


async def test_what_is_left_when_the_time_is_over_is_for_the_next_tick(settings, monkeypatch):
    monkeypatch.setattr(retention, "NODES_MAX", 1)
    async with Engine(settings) as engine:
        for _ in range(2):
            await engine.run(workflow(node("A")))
        clock = itertools.count()
        monkeypatch.setattr(retention, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        monkeypatch.setattr(retention, "BUDGET_S", 1.5)
        assert await forget_finished(engine.store, 1, now_ms() + 2 * DAY_MS) == 1
        assert await forget_finished(engine.store, 1, now_ms() + 2 * DAY_MS) == 1


async def test_a_deletion_that_broke_off_is_carried_on(settings):
    """Its status is gone already, so that only the note of its end leads to the rest."""
    async with Engine(settings) as engine:
        execution_id = await engine.run(workflow(node("A"), node("B", ["A"])))
        await engine.redis("DEL", f"workflow:{execution_id}:status")
        await engine.redis("DEL", f"workflow:{execution_id}:node:A")
        assert await forget_finished(engine.store, 1, now_ms() + 2 * DAY_MS) == 1
        assert await keys_of(engine, execution_id) == []
