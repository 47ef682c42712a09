"""Faults within one process: drains, lost leases, forgotten scripts, an emptied server."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import orjson
import pytest

from flowd.config import ShutdownSettings
from flowd.errors import StoreUnavailable
from flowd.handlers.registry import Registry
from flowd.orchestrator import leases
from flowd.orchestrator.executor import submit_workflow, trigger_workflow
from flowd.orchestrator.owner import Owner
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import recover_worker
from flowd.pulse import Pulse
from flowd.scheduler.scheduler import Scheduler
from flowd.store import open_store
from flowd.store.redis.client import Session
from flowd.store.redis.scripts import COMPLETE_NODES
from flowd.store.tasks import TaskSession
from flowd.workers.worker import Worker
from tests.daemon import PATIENCE_S
from tests.flow import handlers
from tests.flow.engine import Engine, calls, node, until, workflow
from tests.private_server import PrivateServer


async def consumers(engine: Engine) -> list[str]:
    return sorted(await engine.store.tasks.owners())


async def started(node_id: str) -> None:
    await until(lambda: node_id in handlers.GATES, f"the start of {node_id}")


async def test_a_drain_lets_the_running_node_end_and_takes_nothing_new(settings):
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.start(workflow(node("A", handler="held"), node("B", ["A"])))
        await started("A")
        stopping = asyncio.create_task(engine.stop_worker(engine.workers[0]))
        handlers.GATES["A"].set()
        await stopping
        assert await engine.states(execution_id) == {"A": "COMPLETED", "B": "QUEUED"}
        assert await consumers(engine) == []
        await engine.add_worker()
        await engine.end(execution_id)
        assert calls(execution_id) == ["A", "B"]


async def test_what_does_not_end_within_the_grace_goes_back_uncounted(brief_settings):
    async with Engine(brief_settings, workers=1) as engine:
        execution_id = await engine.start(workflow(node("A", handler="held")))
        await started("A")
        await engine.stop_worker(engine.workers[0])
        rows = await engine.redis("XRANGE", "workflow:tasks", "-", "+")
        fields = dict(zip(rows[0][1][::2], rows[0][1][1::2], strict=True))
        assert (fields["node_id"], fields["attempt"], fields["deaths"]) == ("A", "2", "0")
        assert await engine.states(execution_id) == {"A": "QUEUED"}
        handlers.GATES["A"].set()
        await engine.add_worker()
        await engine.end(execution_id)
        assert [attempt for _, _, attempt in handlers.CALLS] == [1, 2]


async def test_a_worker_whose_work_was_given_away_commits_nothing(settings):
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.start(workflow(node("A", handler="held", of="first")))
        await started("A")
        (late,) = await consumers(engine)
        gate = handlers.GATES.pop("A")
        await recover_worker(
            engine.store, Plans(engine.store), late, "the test says so", is_blamed=True
        )
        await engine.add_worker()
        await started("A")
        gate.set()
        await until(lambda: _refused(engine, late), "the late commit")
        assert await engine.states(execution_id) in ({"A": "QUEUED"}, {"A": "RUNNING"})
        handlers.GATES["A"].set()
        await engine.end(execution_id)
        record = await engine.redis("HGET", f"workflow:{execution_id}:attempts", "A")
        attempts = [attempt for _, _, attempt in handlers.CALLS]
        # The late worker may take the entry once more before it hears that its lease is gone.
        assert attempts in ([1, 2], [1, 3], [1, 2, 3])
        assert record.split(" ")[0] == str(attempts[-1])


async def _refused(engine: Engine, consumer: str) -> bool:
    """The late worker has spoken since its consumer was deleted: reading made it anew."""
    rows = await engine.redis("XINFO", "CONSUMERS", "workflow:tasks", "workflow_group")
    return any(consumer in row for row in rows)


async def test_a_lost_lease_begins_a_new_shift_under_a_new_name(settings, monkeypatch):
    monkeypatch.setattr("flowd.workers.lease.RENEW_EVERY_S", 0.02)

    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.start(workflow(node("A", handler="held")))
        await started("A")
        (first,) = await consumers(engine)
        await engine.redis("HDEL", "flowd:leases", first)
        await until(lambda: _is_other(engine, first), "a new consumer")
        handlers.GATES["A"].set()
        assert str(await engine.end(execution_id)) == "COMPLETED"
        assert [attempt for _, _, attempt in handlers.CALLS] == [1, 2]


async def _is_other(engine: Engine, first: str) -> bool:
    found = await consumers(engine)
    return len(found) == 1 and found != [first]


async def test_the_scheduler_gives_away_the_work_of_a_silent_worker(settings, monkeypatch):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A")))
        await engine.store.tasks.enroll_worker("gone-1", b"{}")
        session = engine.store.tasks.open_session("gone-1")
        taken = await session.complete_and_claim((), (), (), 1)
        await session.close()
        assert len(taken.entries) == 1
        monkeypatch.setattr("flowd.orchestrator.leases.LEASE_S", 0.0)
        await engine.tick()
        await engine.add_worker()
        await engine.end(execution_id)
        assert [(execution_id, "A", 2)] == handlers.CALLS
        assert "gone-1" not in await consumers(engine)


async def test_an_entry_delivered_in_a_lost_reply_to_the_doorbell_is_found(settings, monkeypatch):
    """The doorbell has a connection of its own. When only that one broke, behind the delivery of an
    entry, the worker went on as if nothing had come, and held the entry for ever."""
    wait_for_entry = TaskSession.wait_for_entry
    lost = []

    async def lose_first_reply(self):
        entries = await wait_for_entry(self)
        if entries and not lost:
            lost.extend(entries)
            raise StoreUnavailable("the line broke")
        return entries

    monkeypatch.setattr(TaskSession, "wait_for_entry", lose_first_reply)
    async with Engine(settings, workers=1) as engine:
        worker = engine.workers[0]
        await until(lambda: bool(worker._shift and worker._shift._doorbell), "rest")
        execution_id = await engine.run(workflow(node("A"), node("B", ["A"])))
        assert [entry.node_id for entry in lost] == ["A"]
        assert calls(execution_id) == ["A", "B"]


async def test_scripts_forgotten_again_right_after_they_were_loaded_end_nobody(
    settings, monkeypatch
):
    """The worker loaded what was missing, called again, was told the same, and died of it."""
    load_scripts = Session.load_scripts
    flushed = []

    async def load_and_lose(self, scripts):
        await load_scripts(self, scripts)
        if COMPLETE_NODES in scripts and not flushed:
            flushed.append(await self.execute("SCRIPT", "FLUSH"))

    async with Engine(settings, workers=1) as engine:
        execution_id = await submit_workflow(engine.store, workflow(node("A"), node("B", ["A"])))
        await engine.redis("SCRIPT", "FLUSH")
        monkeypatch.setattr(Session, "load_scripts", load_and_lose)
        await trigger_workflow(engine.store, execution_id)
        assert str(await engine.end(execution_id)) == "COMPLETED"
        assert len(flushed) == 1


async def test_forgotten_scripts_are_loaded_again(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(workflow(node("A", handler="held"), node("B", ["A"])))
        await started("A")
        await engine.redis("SCRIPT", "FLUSH")
        handlers.GATES["A"].set()
        assert str(await engine.end(execution_id)) == "COMPLETED"
        assert calls(execution_id) == ["A", "B"]


async def test_a_destroyed_group_is_made_anew_and_its_late_commits_are_refused(settings):
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.start(
            workflow(node("A", handler="held"), node("B"), node("C", ["A", "B"]))
        )
        await started("A")
        gate = handlers.GATES.pop("A")
        await engine.redis("XGROUP", "DESTROY", "workflow:tasks", "workflow_group")
        attempts = f"workflow:{execution_id}:attempts"

        async def is_requeued() -> bool:
            return (await engine.redis("HGET", attempts, "A") or "").startswith("2 ")

        await until(is_requeued, "the second attempt of A")
        gate.set()
        await started("A")
        handlers.GATES["A"].set()
        assert str(await engine.end(execution_id)) == "COMPLETED"
        assert [attempt for _, one, attempt in handlers.CALLS if one == "A"] == [1, 2]
        assert calls(execution_id).count("C") == 1


async def test_a_server_that_was_emptied_goes_on_with_what_is_new(settings, monkeypatch):
    monkeypatch.setattr("flowd.workers.lease.RENEW_EVERY_S", 0.02)

    async with Engine(settings) as engine:
        lost = await engine.start(workflow(node("A", handler="held"), node("B", ["A"])))
        await started("A")
        await engine.redis("FLUSHALL")
        handlers.GATES["A"].set()
        await engine.tick()
        fresh = await engine.run(workflow(node("C"), node("D", ["C"])))
        assert calls(fresh) == ["C", "D"]
        assert "B" not in calls(lost)
        assert await engine.redis("KEYS", f"workflow:{lost}*") == []


async def test_garbage_in_the_stream_is_buried_and_the_others_go_on(settings):
    async with Engine(settings) as engine:
        for fields in (["nonsense", b"\xff\xfe"], ["execution_id", "x", "node_id", "y"]):
            await engine.redis("XADD", "workflow:tasks", "*", *fields)
        stranger = "0" * 24
        await engine.redis("XADD", "workflow:tasks", "*", "execution_id", stranger, "node_id", "A")
        execution_id = await engine.run(workflow(node("A")))
        assert await engine.states(execution_id) == {"A": "COMPLETED"}
        await until(lambda: _is_empty_stream(engine), "the end of the garbage")
        assert await engine.redis("XLEN", "flowd:dead_letters") == 2


async def _is_empty_stream(engine: Engine) -> bool:
    return await engine.redis("XLEN", "workflow:tasks") == 0


async def test_a_damaged_execution_fails_visibly_beside_healthy_ones(settings):
    async with Engine(settings) as engine:
        hurt = await engine.start(workflow(node("A", handler="held"), node("B", ["A"])))
        await started("A")
        await engine.redis("SET", f"workflow:{hurt}:run", "not a hash")
        well = await engine.start(workflow(node("C"), node("D", ["C"])))
        handlers.GATES["A"].set()
        assert str(await engine.end(hurt)) == "FAILED"
        assert str(await engine.end(well)) == "COMPLETED"
        assert await engine.redis("SCARD", "workflows:active") == 0


def damaged(**node_fields: Any) -> str:
    one = {"id": "A", "handler": "fail", "dependencies": [], "config": {}, **node_fields}
    return orjson.dumps({"name": "x", "dag": {"nodes": [one]}}).decode()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("", "not JSON"),
        ("", "[]"),
        ("", '{"name":"x","dag":{"nodes":null}}'),
        ("", '{"name":"x","dag":{"nodes":[]}}'),
        ("", damaged(id=5)),
        ("", damaged(handler=["echo"])),
        ("", damaged(dependencies=5)),
        ("", damaged(config=[])),
        ("", damaged(config={"x": "{{ nonsense"})),
        ("", damaged(retry="often")),
        ("", damaged(handler="held", timeout_s="long")),
        ("", damaged()[:-1] + ',"budget":5}'),
        ("", damaged(config={"x": "{{ input.x }}"})[:-1] + ',"input":[1]}'),
        (":input", "not JSON"),
        (":input", "[1]"),
    ],
)
async def test_whatever_stands_in_its_keys_the_others_go_on(settings, key, text):
    """JSON that is no workflow once ended every worker that met it, one after another."""
    async with Engine(settings, workers=0) as engine:
        hurt = await engine.start(workflow(node("A", x="{{ input.x }}")), b'{"x":1}')
        await engine.redis("SET", f"workflow:{hurt}{key}", text)
        well = await engine.start(workflow(node("C"), node("D", ["C"])))
        await engine.add_worker()
        assert str(await engine.end(well)) == "COMPLETED"
        async with engine.ticking():
            assert str(await engine.end(hurt)) == "FAILED"
        assert not engine._tasks[0].done()


def test_the_lease_leaves_room_to_let_go_before_it_is_given_away():
    assert leases.RENEW_EVERY_S * 2 < leases.LET_GO_AFTER_S < leases.LEASE_S


async def test_what_died_with_its_supervisor_is_given_away_at_the_second_sight(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A")))
        gone = replace(Owner.of_this_process(), started_ticks=1)
        elsewhere = replace(gone, host="far-away")
        for consumer, owner in (("gone-1", gone), ("far-1", elsewhere)):
            await engine.store.tasks.enroll_worker(consumer, owner.to_json())
        session = engine.store.tasks.open_session("gone-1")
        await session.complete_and_claim((), (), (), 1)
        await session.close()
        scheduler = Scheduler(engine.store)
        await scheduler.tick(time.monotonic())
        assert await consumers(engine) == ["far-1", "gone-1"]
        await scheduler.tick(time.monotonic())
        assert await consumers(engine) == ["far-1"]
        await engine.add_worker()
        await engine.end(execution_id)
        assert [(execution_id, "A", 2)] == handlers.CALLS


async def test_a_stop_while_redis_is_away_does_not_wait_for_it(settings):
    """It once waited for Redis to come back, until the supervisor lost its patience."""
    away = PrivateServer()
    away.start()
    patient = replace(settings, shutdown=ShutdownSettings(grace_s=10 * PATIENCE_S))
    settings = patient.with_redis_socket(away.socket_path)
    ready = asyncio.Event()
    worker = Worker(settings, "worker-1", open_store(settings), Registry({}), Pulse(ready.set))
    running = asyncio.create_task(worker.run())
    await ready.wait()
    away.stop()
    worker.stop()
    async with asyncio.timeout(PATIENCE_S):
        await running


async def test_a_drain_while_redis_is_away_says_so_once(settings, capfd):
    """It once said so with every try, fifty times a second until the grace was over."""
    away = PrivateServer()
    away.start()
    brief = replace(settings, shutdown=ShutdownSettings(grace_s=0.5))
    async with Engine(brief.with_redis_socket(away.socket_path), workers=1) as engine:
        await engine.start(workflow(node("A", handler="held")))
        await started("A")
        away.stop()
        handlers.GATES["A"].set()

    assert capfd.readouterr().err.count("redis.lost") == 1
