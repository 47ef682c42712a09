"""The keys: all are named in one file, and what runs leaves nothing behind but its results."""

from __future__ import annotations

import inspect
import re

from flowd.orchestrator.executor import advance_node, fail_downstream
from flowd.orchestrator.recovery import recover_worker
from flowd.scheduler.reconciler import Reconciler
from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.executions import now_ms
from flowd.store.redis import keys
from flowd.workflow.ids import is_execution_id, new_execution_id
from tests.store.engine import CHAIN, DIAMOND, GROUP, STREAM, fan

AN_ID = "0123456789ab0123456789ab"


def documented(execution) -> set[str]:
    """The keys an execution may leave behind when it has ended."""
    nodes = execution.plan.nodes
    return {
        keys.definition(execution.id),
        keys.status(execution.id),
        keys.run(execution.id),
        keys.attempts(execution.id),
        *(keys.node(execution.id, node_id) for node_id in nodes),
        *(keys.output(execution.id, node_id) for node_id in nodes),
    }


async def test_an_execution_that_completed_leaves_its_documented_keys_and_nothing_else(
    engine, redis
):
    worker = engine.worker()
    await engine.store.tasks.enroll_worker("w1", b"{}")
    diamond, chain = await engine.start(DIAMOND), await engine.start(CHAIN)

    await engine.finish(worker)
    await engine.store.tasks.retire_worker("w1")

    assert set(redis.scan_iter()) == {
        STREAM,
        keys.FINISHED,
        keys.EXECUTIONS,
        keys.NAMES,
        keys.by_status("COMPLETED"),
        keys.EVENTS,
        keys.METRICS,
        *documented(diamond),
        *documented(chain),
    }
    assert redis.xlen(STREAM) == 0
    assert redis.xpending(STREAM, GROUP)["pending"] == 0
    assert redis.xinfo_consumers(STREAM, GROUP) == []
    assert set(redis.zrange(keys.FINISHED, 0, -1)) == {diamond.id, chain.id}


async def test_whatever_happens_on_the_way_nothing_else_is_left(engine, redis, store, plans):
    """Staged, wide, failed, requeued, restored, garbage: all in one."""
    width = DEPENDENTS_PER_CALL_MAX + 100
    wide, failing = await engine.start(fan(width)), await engine.start(fan(width))
    dying, worker = engine.worker("dying"), engine.worker("w1")
    for name in ("dying", "w1"):
        await store.tasks.enroll_worker(name, b"{}")
    await dying.claim(*await dying.take())
    await recover_worker(store, plans, "dying", "killed", is_blamed=True)
    first, other = await worker.take()
    await worker.complete(first)
    await worker.fail(other)
    await advance_node(store, wide.plan, wide.id, "first")
    await fail_downstream(store, failing.plan, failing.id, "first")
    (lost,) = await worker.take(1)
    redis.xdel(STREAM, lost.name)
    reconciler = Reconciler(store, plans)
    while not await reconciler.run_slice():
        pass
    await engine.finish(worker)
    await recover_worker(store, plans, "w1", "ended", is_blamed=False)

    assert (wide.state().status, failing.state().status) == ("COMPLETED", "FAILED")
    assert set(redis.scan_iter()) == {
        STREAM,
        keys.FINISHED,
        keys.EXECUTIONS,
        keys.NAMES,
        keys.by_status("COMPLETED"),
        keys.by_status("FAILED"),
        keys.EVENTS,
        keys.METRICS,
        keys.history(wide.id),
        keys.history(failing.id),
        *documented(wide),
        *documented(failing),
    }
    assert redis.xlen(STREAM) == 0
    assert redis.xpending(STREAM, GROUP)["pending"] == 0
    assert redis.xinfo_consumers(STREAM, GROUP) == []
    known = re.findall(r"[a-z_]+_ms|[a-z_]+", keys.run.__doc__)
    for execution in (wide, failing):
        fields = {name.partition(":")[0] for name in redis.hkeys(execution.key(":run"))}
        assert fields <= set(known)
        assert not any(name.startswith("opened:") for name in redis.hkeys(execution.key(":run")))


async def test_the_types_are_those_the_contract_names(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.complete(a)

    assert {key: redis.type(key) for key in redis.scan_iter()} == {
        f"workflow:{execution.id}": "string",
        f"workflow:{execution.id}:status": "string",
        f"workflow:{execution.id}:run": "hash",
        f"workflow:{execution.id}:attempts": "hash",
        f"workflow:{execution.id}:node:a": "string",
        f"workflow:{execution.id}:node:a:output": "string",
        f"workflow:{execution.id}:node:b": "string",
        f"workflow:{execution.id}:node:c": "string",
        "workflows:active": "set",
        "flowd:executions": "zset",
        "flowd:names": "zset",
        "flowd:events": "stream",
        "workflow:tasks": "stream",
    }


def test_every_key_is_flowds_own_or_in_the_contract():
    for name, value in vars(keys).items():
        if name.isupper() and not name.startswith("_") and name != "DEFAULT_QUEUE":
            assert value == "workflows:active" or value.startswith("flowd:")
    of_an_execution = (keys.definition, keys.status, keys.node, keys.output, keys.run)
    for function in (*of_an_execution, keys.attempts, keys.given_input, keys.parked):
        arguments = ["x"] * len(inspect.signature(function).parameters)
        assert function(*arguments).startswith("workflow:x")


def test_ids_are_new_and_sort_by_age():
    ids = [new_execution_id(now_ms()) for _ in range(1_000)]

    assert len(set(ids)) == 1_000
    assert all(is_execution_id(one) for one in ids)
    ages = [one[:12] for one in ids]
    assert ages == sorted(ages)


def test_anything_else_is_no_id():
    assert is_execution_id(AN_ID)
    for text in ("", AN_ID[1:], AN_ID + "0", AN_ID.upper(), AN_ID + "\n", "*", "\u0663" * 24):
        assert not is_execution_id(text)
