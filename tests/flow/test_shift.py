"""However what a worker runs comes to its end: it takes work afterwards."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from flowd.config import ShutdownSettings
from flowd.diagnosis import readiness
from flowd.diagnosis.observer import Observer
from flowd.errors import StoreUnavailable
from flowd.orchestrator.executor import cancel_execution, pause_execution
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import recover_worker
from flowd.store.tasks import TaskSession
from flowd.workers.intake import Intake
from flowd.workers.shift import Shift
from tests.daemon import PATIENCE_S
from tests.flow import handlers
from tests.flow.engine import Engine, calls, node, until, workflow
from tests.flow.test_suspects import engine_of, lose_workers, own  # noqa: F401

MODES = ("ordinary", "suspect", "paused", "full")
TIMEOUT_S = 2.0


async def complete(_engine, _execution_id, folder):
    (folder / "open-A").touch()


async def fail(_engine, _execution_id, folder):
    (folder / "fail-A").touch()


async def cancel(engine, execution_id, _folder):
    await cancel_execution(engine.store, execution_id)


async def delete(engine, execution_id, _folder):
    """As somebody with redis-cli does it, who does not ask whether it runs."""
    await engine.redis("DEL", *await engine.redis("KEYS", f"workflow:{execution_id}*"))


async def time_out(_engine, _execution_id, _folder):
    """Its node has a limit, see below."""


async def lose_entry(engine, _execution_id, _folder):
    for entry_id, _ in await engine.redis("XRANGE", "workflow:tasks", "-", "+"):
        await engine.redis("XACK", "workflow:tasks", "workflow_group", entry_id)
        await engine.redis("XDEL", "workflow:tasks", entry_id)


async def lose_lease(engine, execution_id, _folder):
    """Its next shift takes the node again, and is to be free as well."""
    (consumer,) = await engine.store.tasks.leases()
    await engine.store.tasks.revoke_lease(consumer)

    async def is_over():
        return consumer not in await engine.store.tasks.leases()

    await until(is_over, "the end of the shift")
    await cancel_execution(engine.store, execution_id)


async def retire(engine, execution_id, _folder):
    await cancel_execution(engine.store, execution_id)
    await lose_entry(engine, execution_id, _folder)
    (consumer,) = await engine.store.tasks.leases()
    assert await engine.store.tasks.retire_worker(consumer)


async def recover(engine, execution_id, _folder):
    """Its work is taken for that of a dead one; another execution's end is all that is wanted."""
    (consumer,) = await engine.store.tasks.leases()
    plans = Plans(engine.store)
    await recover_worker(engine.store, plans, consumer, "the test", is_blamed=False)
    await cancel_execution(engine.store, execution_id)


async def drop_group(engine, execution_id, _folder):
    await engine.redis("XGROUP", "DESTROY", "workflow:tasks", "workflow_group")
    await cancel_execution(engine.store, execution_id)


ENDS = (
    complete,
    fail,
    cancel,
    delete,
    time_out,
    lose_entry,
    lose_lease,
    retire,
    recover,
    drop_group,
)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("mode", MODES)
async def test_a_worker_takes_work_after_whatever_ended_what_it_ran(
    own,  # noqa: F811
    tmp_path,
    monkeypatch,
    mode,
    end,
):
    """One that ran a suspect was deaf for good once that was cancelled, deleted or timed out."""
    monkeypatch.setattr("flowd.workers.slots.CLAIM_AGAIN_S", 0.05)
    monkeypatch.setattr("flowd.workers.lease.RENEW_EVERY_S", 0.05)
    one_slot = replace(own, workers=replace(own.workers, concurrency=1))
    timeout_s = TIMEOUT_S if end is time_out else 60
    async with engine_of(one_slot) as engine:
        execution_id = await engine.start(
            workflow({**node("A", handler="wait_async"), "timeout_s": timeout_s})
        )
        if mode == "suspect":
            await lose_workers(engine)
        await engine.add_worker()

        async def runs():
            return await engine.states(execution_id) == {"A": "RUNNING"}

        await until(runs, "the start")
        if mode == "paused":
            await pause_execution(engine.store, execution_id)
        shift = engine.workers[0]._shift
        if mode == "full":
            shift.note_room(is_full=True)
        await end(engine, execution_id, tmp_path)
        if mode == "full":
            shift.note_room(is_full=False)

        async with engine.ticking(), asyncio.timeout(PATIENCE_S):
            after = await engine.run(workflow(node("B", handler="say"), node("C", ["B"], "say")))
        assert await engine.states(after) == {"B": "COMPLETED", "C": "COMPLETED"}


async def test_a_worker_that_asks_for_no_work_although_it_has_room_says_so(own, monkeypatch):  # noqa: F811
    monkeypatch.setattr("flowd.workers.lease.RENEW_EVERY_S", 0.05)
    monkeypatch.setattr("flowd.workers.worker.STALLED_AFTER_S", 0.2)
    monkeypatch.setattr("flowd.store.tasks.BLOCK_MS", 50)
    async with engine_of(own) as engine:
        worker = await engine.add_worker()
        # Any defect at all: its own idea of its room is not asked.
        monkeypatch.setattr(Shift, "_free_slots", lambda _shift: 0)
        execution_id = await engine.start(workflow(node("A", handler="say")))
        vitals = worker._pulse._vitals
        observer = Observer(engine.store, Plans(engine.store))

        async def is_told():
            checks, problems = await readiness.check(engine.store)
            return [one.code for one in problems if one.path == "checks.workers"] and checks

        checks = await until(is_told, "the word of it")
        (consumer,) = await engine.store.tasks.leases()
        assert not checks["workers"]["ok"]
        assert checks["workers"]["stalled"][consumer].startswith("has room and has asked for no")
        explanation = await observer.explain(execution_id)
        assert [one.code for one in explanation.nodes[0].reasons] == ["queued", "worker_stalled"]
        assert consumer in explanation.summary
        troubles = worker._store.health.troubles
        clear, tries = troubles.clear_worker, []

        async def clear_at_the_second_try(consumer):
            tries.append(consumer)
            if len(tries) == 1:
                raise StoreUnavailable("no answer")
            await clear(consumer)

        monkeypatch.setattr(troubles, "clear_worker", clear_at_the_second_try)
        monkeypatch.setattr("flowd.workers.worker.STALLED_AFTER_S", 1000)

        async def is_mended():
            checks, _ = await readiness.check(engine.store)
            return checks["workers"]["ok"] and vitals.stalled_s == 0

        await until(is_mended, "the end of it")


async def test_neither_idle_nor_busy_workers_stall(own, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("flowd.workers.lease.RENEW_EVERY_S", 0.05)
    monkeypatch.setattr("flowd.store.tasks.BLOCK_MS", 50)
    one_slot = replace(own, workers=replace(own.workers, concurrency=1))
    longest = {"idle": 0.0, "busy": 0.0}
    stalled_s = Shift.stalled_s

    def note(shift):
        for_s = stalled_s(shift)
        longest[state] = max(longest[state], for_s)
        looks.append(for_s)
        return for_s

    monkeypatch.setattr(Shift, "stalled_s", note)
    async with engine_of(one_slot) as engine:
        state, looks = "idle", []
        await engine.add_worker()
        await until(lambda: len(looks) > 20, "some looks at an idle one")
        state, looks = "busy", []
        execution_id = await engine.start(workflow(node("A", handler="wait_async")))
        await until(lambda: len(looks) > 20, "some looks at a busy one")
        assert await engine.states(execution_id) == {"A": "RUNNING"}
        (tmp_path / "open-A").touch()
        await engine.end(execution_id)
    # As long as between two looks, or two questions, and far from what counts.
    assert max(longest.values()) < 5


async def test_a_drain_that_comes_while_entries_are_prepared_is_not_forgotten(
    settings, monkeypatch
):
    """It was: the wake-up was cleared before the wait, and the whole grace period slept out."""
    prepare = Intake.prepare

    async def stop_and_prepare(self):
        prepared = await prepare(self)
        if prepared:
            engine.workers[0].stop()
            return []
        return prepared

    patient = replace(settings, shutdown=ShutdownSettings(grace_s=3600.0))
    async with Engine(patient, workers=1) as engine:
        monkeypatch.setattr(Intake, "prepare", stop_and_prepare)
        await engine.start(workflow(node("A")))
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*engine._tasks)


async def test_a_worker_ends_whose_last_node_was_taken_away(settings):
    """It waited for its lease to be kept no more, for ever: what is stale makes it doubt that."""
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.start(workflow(node("A", handler="held")))
        await until(lambda: calls(execution_id), "A to run")
        await cancel_execution(engine.store, execution_id)
        handlers.GATES["A"].set()
        engine.workers[0].stop()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*engine._tasks)


async def test_what_the_doorbell_brings_late_finds_a_slot(settings, monkeypatch):
    """Whatever is asked for meanwhile leaves one free for it."""
    monkeypatch.setattr("flowd.workers.slots.CLAIM_AGAIN_S", 0.01)
    wait_for_entry, complete_and_claim = TaskSession.wait_for_entry, TaskSession.complete_and_claim
    brought, asked, may_answer = [], [], asyncio.Event()

    async def answer_late(self):
        entries = await wait_for_entry(self)
        if [entry.node_id for entry in entries] == ["B"]:
            brought.extend(entries)
            await may_answer.wait()
        return entries

    async def count(self, *args):
        asked.append(None)
        return await complete_and_claim(self, *args)

    monkeypatch.setattr(TaskSession, "wait_for_entry", answer_late)
    monkeypatch.setattr(TaskSession, "complete_and_claim", count)
    two_slots = replace(settings, workers=replace(settings.workers, concurrency=2))
    async with Engine(two_slots, workers=1) as engine:
        handlers.GATES.update((one, asyncio.Event()) for one in "ABC")
        started = []
        for one in "ABC":
            started.append(await engine.start(workflow(node(one, handler="held"))))
            if one == "A":
                await until(lambda: calls(started[0]), "A to run")
                await until(lambda: bool(engine.workers[0]._shift._doorbell), "the doorbell")
            if one == "B":
                await until(lambda: brought, "what the doorbell brings")
        before = len(asked)
        await until(lambda: len(asked) > before + 3, "calls that could bring C")
        may_answer.set()
        await until(lambda: calls(started[1]), "B to run")
        assert calls(started[2]) == []

        handlers.GATES["A"].set()
        await until(lambda: calls(started[2]), "C to run")


async def test_who_is_told_to_end_again_and_again_has_no_more_time_for_it(settings):
    brief = replace(settings, shutdown=ShutdownSettings(grace_s=0.5))
    async with Engine(brief, workers=1) as engine:
        execution_id = await engine.start(workflow(node("A", handler="held")))
        await until(lambda: calls(execution_id), "A to run")
        async with asyncio.timeout(PATIENCE_S):
            while not engine._tasks[0].done():
                engine.workers[0].stop()
                await asyncio.sleep(0.01)
        assert await engine.states(execution_id) == {"A": "QUEUED"}


async def test_who_had_all_the_time_it_needs_may_be_given_an_end(settings):
    brief = replace(settings, shutdown=ShutdownSettings(grace_s=0.5))
    async with Engine(brief, workers=1) as engine:
        execution_id = await engine.start(workflow(node("A", handler="held")))
        await until(lambda: calls(execution_id), "A to run")
        (worker,), (running,) = engine.workers, engine._tasks
        worker._pulse._vitals.be_patient(True)
        worker.stop()
        _, still = await asyncio.wait({running}, timeout=1.0)
        assert still
        worker._pulse._vitals.be_patient(False)
        worker.stop()
        async with asyncio.timeout(PATIENCE_S):
            await running
        assert await engine.states(execution_id) == {"A": "QUEUED"}
