"""Every call that writes, through every fault of the line: row R5 of tests/README.md, call by call.

A caller that was not answered asks again. What Redis holds then is what it holds when nothing had
happened on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from flowd.errors import StoreUnavailable, UnknownDefinition, UnknownExecution
from flowd.orchestrator.executor import (
    advance_node,
    cancel_execution,
    cancel_items,
    cancel_nodes,
    fail_downstream,
    trigger_workflow,
)
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.schedules import Firings, put_schedule
from flowd.store import open_store
from flowd.store.budgets import TokenUsage
from flowd.store.callbacks import CallbackState
from flowd.store.limits import Limit
from flowd.store.redis import keys, scripts
from flowd.store.saved import About
from flowd.workflow.schedule import ScheduleDefinition
from flowd.workflow.states import NodeState
from tests.private_server import PrivateServer
from tests.proxy import FAULTS, Proxy
from tests.redis_calls import answer_within
from tests.store import limits, maps, schedules
from tests.store.cache import OUTPUT, A, B
from tests.store.engine import (
    CHAIN,
    DIAMOND,
    GROUP,
    STREAM,
    Execution,
    ScriptedEngine,
    compiled,
    fan,
    finish_continuations,
)
from tests.store.logs import Talk
from tests.store.test_claim_callbacks import ended
from tests.store.test_retry_node import later

AN_ID = "0123456789ab0123456789ab"
ABOUT = About(saved_ms=1, nodes=1, handlers="h")
# What is too wide for one call here.
PER_CALL_MAX = 10
WIDE = fan(PER_CALL_MAX + 1)


class Bench:
    """`near` prepares without faults; what is asked of `far` travels over the faulty line, and is
    soon asked again."""

    def __init__(
        self, near: ScriptedEngine, far: ScriptedEngine, redis: Any, patches: pytest.MonkeyPatch
    ) -> None:
        self.near, self.far, self.redis = near, far, redis
        self._patches = patches
        self.store = far.store
        far._plans = near._plans

    async def insist(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        with self._patches.context() as patches:
            answer_within(patches, 0.3)
            for _ in range(50):
                try:
                    return await ask()
                except StoreUnavailable:
                    await asyncio.sleep(0.005)
        raise AssertionError("it was never answered")


async def submit(bench: Bench) -> None:
    definition, plan = compiled(DIAMOND)
    submit_workflow = bench.store.submissions.submit_workflow
    await bench.insist(lambda: submit_workflow(definition, plan, execution_id=AN_ID))


async def stage(bench: Bench) -> None:
    definition, _ = compiled(CHAIN)
    stage_some = bench.store.submissions._stage
    await bench.insist(lambda: stage_some(AN_ID, definition, ["a", "b"], None))


async def stage_map(bench: Bench) -> None:
    execution, _ = await maps.expanded(bench.near, bench.near.worker(), 3, window=2)
    definition, _ = compiled(CHAIN)
    await bench.near.store.submissions._stage(AN_ID, definition, ["a"], None)
    submissions = bench.store.submissions
    outcome = await bench.insist(
        lambda: submissions._copies.copy(
            execution.id, AN_ID, "fan", "all", submissions._stage_nodes
        )
    )
    assert outcome == "staged"


async def close_submission(bench: Bench) -> None:
    definition, _ = compiled(CHAIN)
    await bench.near.store.submissions._stage(AN_ID, definition, ["a", "b"], None)
    await bench.insist(lambda: bench.store.submissions.discard_staged(AN_ID))


async def trigger(bench: Bench) -> None:
    execution = await bench.near.submit(DIAMOND)
    await bench.insist(lambda: bench.store.executions.trigger_workflow(execution.id))


async def run(bench: Bench) -> None:
    definition, plan = compiled(DIAMOND)
    run_workflow = bench.store.submissions.run_workflow
    await bench.insist(lambda: run_workflow(definition, plan, execution_id=AN_ID))


async def put(bench: Bench) -> None:
    await bench.insist(lambda: bench.store.saved.put("report", b"{}", "digest", ABOUT))


async def delete_saved(bench: Bench) -> None:
    await bench.near.store.saved.put("report", b"{}", "digest", ABOUT)
    with contextlib.suppress(UnknownDefinition):
        await bench.insist(lambda: bench.store.saved.delete("report"))


async def put_a_schedule(bench: Bench) -> None:
    await schedules.save(bench.near.store)
    said = ScheduleDefinition(workflow="report", cron="30 2 29 2 *")
    await bench.insist(lambda: put_schedule(bench.store, "nightly", said))


async def due_schedules(bench: Bench) -> None:
    await bench.insist(bench.store.schedules.due)


async def _leap(bench: Bench, **said: Any) -> schedules.Scheduled:
    return await schedules.schedule(bench.near.store, bench.redis, cron="30 2 29 2 *", **said)


async def fire_schedule(bench: Bench) -> None:
    leap = await _leap(bench)
    seen = await leap.seen()
    firings = Firings(bench.store, Plans(bench.store))
    await bench.insist(lambda: firings.attend(seen, leap.first_ms))


async def postpone_schedule(bench: Bench) -> None:
    leap = await _leap(bench)
    postpone = bench.store.schedules.postpone
    await bench.insist(lambda: postpone(leap.name, "another", 1_000, "why"))


async def delete_schedule(bench: Bench) -> None:
    leap = await _leap(bench)
    await bench.insist(lambda: bench.store.schedules.delete(leap.name))


async def start_child(bench: Bench) -> None:
    # Its own id, from which that of the child comes, is the same each time.
    definition, plan = compiled(CHAIN)
    await bench.near.store.submissions.run_workflow(definition, plan, execution_id=AN_ID)
    parent = Execution(AN_ID, plan, bench.redis)
    await bench.insist(lambda: bench.far.start_child(parent, "a", DIAMOND))


async def keep_output(bench: Bench) -> None:
    await bench.insist(lambda: bench.store.tasks.cache.keep([(A, OUTPUT)]))


async def drop_outputs(bench: Bench) -> None:
    await bench.near.store.tasks.cache.keep([(A, OUTPUT), (B, OUTPUT)])
    await bench.insist(bench.store.tasks.cache.clear)


async def prune_queues(bench: Bench) -> None:
    await bench.near.store.tasks.queues.ensure_groups(["gpu"])
    bench.redis.sadd(keys.QUEUES, "gpu")
    await bench.insist(bench.store.tasks.queues.prune)


async def drop_ended(bench: Bench) -> None:
    execution = await bench.near.start({"a": {"queue": "gpu"}})
    await cancel_execution(bench.near.store, execution.id)
    async for page in bench.near.store.tasks.outstanding():
        await bench.insist(lambda page=page: bench.store.tasks.drop_ended([page[0].entry]))


async def settle_follow(bench: Bench) -> None:
    execution = await bench.near.start(CHAIN)
    children = bench.store.children
    await bench.insist(lambda: children.settle_follow(execution.id, "hold", "RUNNING"))


async def claim(bench: Bench) -> None:
    _, (a,) = await bench.near.start_and_take(CHAIN, bench.near.worker())
    worker = bench.far.worker()
    await bench.insist(lambda: worker.claim(a))


async def take(bench: Bench) -> None:
    """What a reply that was lost has delivered is found under the consumer's name."""
    await bench.near.start(CHAIN)
    await bench.near.store.tasks.queues.ensure_groups(["gpu"])
    worker = bench.far.worker(queues=("gpu", "default"))
    taken = await bench.insist(worker.take)
    assert taken or await worker.session.own_entries()


async def complete(bench: Bench) -> None:
    _, (a,) = await bench.near.start_and_take(DIAMOND, bench.near.worker())
    worker = bench.far.worker()
    await bench.insist(lambda: worker.complete(a))


async def skip(bench: Bench) -> None:
    _, (a,) = await bench.near.start_and_take(DIAMOND, bench.near.worker())
    worker = bench.far.worker()
    await bench.insist(lambda: worker.skip(a))


async def allow(bench: Bench) -> None:
    graph = {**DIAMOND, "a": {"allow_failure": True}}
    _, (a,) = await bench.near.start_and_take(graph, bench.near.worker())
    worker = bench.far.worker()
    await bench.insist(lambda: worker.allow(a))


async def fail(bench: Bench) -> None:
    _, (a,) = await bench.near.start_and_take(DIAMOND, bench.near.worker())
    worker = bench.far.worker()
    await bench.insist(lambda: worker.fail(a))


async def fail_many(bench: Bench) -> None:
    worker = bench.near.worker()
    execution, (first,) = await bench.near.start_and_take(WIDE, worker)
    await worker.fail(first)
    step = bench.store, execution.plan, execution.id, "first"
    await bench.insist(lambda: fail_downstream(*step))


async def advance_many(bench: Bench) -> None:
    worker = bench.near.worker()
    execution, (first,) = await bench.near.start_and_take(WIDE, worker)
    await worker.complete(first)
    step = bench.store, execution.plan, execution.id, "first"
    await bench.insist(lambda: advance_node(*step))


async def retry(bench: Bench) -> None:
    _, (a,) = await bench.near.start_and_take(CHAIN, bench.near.worker())
    worker = bench.far.worker()
    await bench.insist(lambda: worker.exchange(failures=[later(a)]))


async def dispatch(bench: Bench) -> None:
    worker = bench.near.worker()
    _, (a,) = await bench.near.start_and_take(CHAIN, worker)
    await worker.exchange(failures=[later(a, pause_ms=0)])
    await bench.insist(bench.store.retries.dispatch)


async def wait(bench: Bench) -> None:
    _, (a,) = await bench.near.start_and_take(CHAIN, bench.near.worker())
    worker = bench.far.worker()
    await bench.insist(lambda: worker.wait(a))


async def wake(bench: Bench) -> None:
    worker = bench.near.worker()
    execution, (a,) = await bench.near.start_and_take(CHAIN, worker)
    await worker.wait(a, "signal")
    await bench.insist(lambda: bench.store.tasks.waits.wake(execution.id, "a", "signal"))


async def stage_items(bench: Bench) -> None:
    execution, _ = await bench.near.start_and_take(maps.mapping(), bench.near.worker())
    stage_list = bench.store.nodes.maps.stage
    assert await bench.insist(lambda: stage_list(execution.id, "fan", [1, 2, 3]))


async def expand_node(bench: Bench) -> None:
    execution, _ = await bench.near.start_and_take(maps.mapping(), bench.near.worker())
    await bench.near.store.nodes.maps.stage(execution.id, "fan", [1, 2, 3])
    assert await bench.insist(lambda: maps.expand(bench.store, execution, 3, window=2))


async def complete_items(bench: Bench) -> None:
    _, (first, _) = await maps.expanded(bench.near, bench.near.worker(), 3, window=2)
    worker = bench.far.worker()
    await bench.insist(lambda: worker.complete(first))


async def fail_items(bench: Bench) -> None:
    facts = {"window": 2, "fail_fast": True}
    _, (first, _) = await maps.expanded(bench.near, bench.near.worker(), 3, **facts)
    worker = bench.far.worker()
    await bench.insist(lambda: maps.fail(worker, first))


async def retry_item(bench: Bench) -> None:
    _, (first, _) = await maps.expanded(bench.near, bench.near.worker(), 3, window=2)
    worker = bench.far.worker()
    await bench.insist(lambda: maps.retry(worker, first))


async def cancel_some_items(bench: Bench) -> None:
    execution, _ = await maps.expanded(bench.near, bench.near.worker(), 3, window=2)
    await bench.near.store.lifecycle.cancel_execution(execution.id)
    await bench.insist(lambda: cancel_items(bench.store, execution.id, "fan"))


async def pause(bench: Bench) -> None:
    execution = await bench.near.start(CHAIN)
    await bench.insist(lambda: bench.store.lifecycle.pause_execution(execution.id))


async def park(bench: Bench) -> None:
    execution, (a,) = await bench.near.start_and_take(CHAIN, bench.near.worker())
    await bench.near.store.lifecycle.pause_execution(execution.id)
    await bench.insist(lambda: bench.store.lifecycle.park_node(a))


async def resume(bench: Bench) -> None:
    execution, (a,) = await bench.near.start_and_take(CHAIN, bench.near.worker())
    await bench.near.store.lifecycle.pause_execution(execution.id)
    await bench.near.store.lifecycle.park_node(a)
    await bench.insist(lambda: bench.store.lifecycle.resume_execution(execution.id))


async def cancel(bench: Bench) -> None:
    execution = await bench.near.start(DIAMOND)
    await bench.insist(lambda: bench.store.lifecycle.cancel_execution(execution.id))


async def cancel_its_nodes(bench: Bench) -> None:
    execution = await bench.near.start(DIAMOND)
    await bench.near.store.lifecycle.cancel_execution(execution.id)
    await bench.insist(lambda: cancel_nodes(bench.store, execution.plan, execution.id))


async def requeue(bench: Bench) -> None:
    _, (a,) = await bench.near.start_and_take(CHAIN, bench.near.worker())
    tasks = bench.store.tasks
    await bench.insist(lambda: tasks.requeue_entry(a.name, "w1", is_death=True))


async def restore(bench: Bench) -> None:
    execution = await bench.near.start(CHAIN)
    bench.redis.xtrim(STREAM, maxlen=0, approximate=False)
    restore_node = bench.store.executions.restore_node
    state = NodeState.QUEUED
    await bench.insist(lambda: restore_node(execution.id, "a", state=state, record=None))


async def bury(bench: Bench) -> None:
    await bench.near.store.tasks.queues.ensure_groups()
    entry_id = bench.redis.xadd(STREAM, {"x": "y"})
    await bench.near.worker().exchange(read_max=1)
    await bench.insist(lambda: bench.store.tasks.bury_entry(entry_id, "makes no sense"))


async def fail_whole(bench: Bench) -> None:
    execution = await bench.near.start(CHAIN)
    await bench.insist(lambda: bench.store.executions.fail_execution(execution.id, "enough"))


async def claim_callback(bench: Bench) -> None:
    ended(bench.redis, 1)
    await bench.insist(lambda: bench.store.callbacks.claim(5, repeat_after_ms=30_000))


async def settle_callback(bench: Bench) -> None:
    ended(bench.redis, 1)
    ((due,), _) = await bench.near.store.callbacks.claim(1, repeat_after_ms=30_000)
    settle = bench.store.callbacks.settle
    await bench.insist(lambda: settle(due, CallbackState.DELIVERED, status_code=204))


async def reserve(bench: Bench) -> None:
    reserve_tokens = bench.store.budgets.reserve
    await bench.insist(lambda: reserve_tokens(AN_ID, "a", 1, tokens=60, budget=100))


async def say(bench: Bench) -> None:
    bench.redis.set(f"workflow:{AN_ID}:status", "RUNNING")

    async def say_once() -> str:
        return await Talk(bench.store.tasks._settings, bench.store).say(AN_ID, "a", "once")

    await bench.insist(say_once)


async def settle_tokens(bench: Bench) -> None:
    await bench.near.store.budgets.reserve(AN_ID, "a", 1, tokens=60, budget=100)
    settle = bench.store.budgets.settle
    await bench.insist(lambda: settle(AN_ID, "a", 1, 10, TokenUsage(1, 6, 4, 10)))


async def renew(bench: Bench) -> None:
    await bench.near.store.tasks.enroll_worker("w1", b"{}")
    assert await bench.insist(lambda: bench.store.tasks.renew_lease("w1"))


async def retire(bench: Bench) -> None:
    await bench.near.store.tasks.queues.ensure_groups()
    await bench.near.store.tasks.enroll_worker("w1", b"{}")
    await bench.insist(lambda: bench.store.tasks.retire_worker("w1"))


async def readmit(bench: Bench) -> None:
    execution = await bench.near.start(CHAIN)
    bench.redis.srem(keys.ACTIVE, execution.id)
    await bench.insist(lambda: bench.store.executions.readmit_slice("0", 100))


async def strike(bench: Bench) -> None:
    await bench.near.start(CHAIN)
    bench.redis.zadd(keys.NAMES, {f"gone\0{AN_ID}": 0})

    async def sweep() -> None:
        async for _ in bench.store.executions.indexes.sweep(1):
            pass

    await bench.insist(sweep)


async def set_aside(bench: Bench) -> None:
    bench.redis.set(keys.RETRIES, "raw")
    await bench.insist(bench.store.tasks.set_aside)


async def make_group(bench: Bench) -> None:
    bench.redis.delete(STREAM)
    await bench.insist(bench.store.tasks.queues.ensure_groups)


async def enroll(bench: Bench) -> None:
    await bench.insist(lambda: bench.store.tasks.enroll_worker("w1", b"{}"))


async def revoke(bench: Bench) -> None:
    await bench.near.store.tasks.enroll_worker("w1", b"{}")
    await bench.insist(lambda: bench.store.tasks.revoke_lease("w1"))


async def claim_key(bench: Bench) -> None:
    claim_key = bench.store.submissions.idempotency.claim
    claimed = await bench.insist(lambda: claim_key("key", b"body", AN_ID))
    assert (claimed.execution_id, claimed.is_deleted) == (AN_ID, False)


async def forget(bench: Bench) -> None:
    worker = bench.near.worker()
    execution = await bench.near.start(CHAIN)
    await bench.near.finish(worker)
    await bench.insist(lambda: bench.store.finished.delete([execution.id]))


async def delete(bench: Bench) -> None:
    execution = await bench.near.start(CHAIN)
    await bench.near.finish(bench.near.worker())
    with contextlib.suppress(UnknownExecution):
        # Whose answer is lost finds it gone.
        await bench.insist(lambda: bench.store.finished.delete_execution(execution.id))
    await finish_continuations(bench.near.store, Plans(bench.near.store))


async def purge(bench: Bench) -> None:
    bench.redis.xadd(keys.DEAD_LETTERS, {"x": "y"})
    await bench.insist(bench.store.health.dead_letters.purge)


async def beat(bench: Bench) -> None:
    await bench.insist(bench.store.health.metrics.beat)


async def postpone(bench: Bench) -> None:
    ended(bench.redis, 1)
    ((due,), _) = await bench.near.store.callbacks.claim(1, repeat_after_ms=30_000)
    await bench.insist(lambda: bench.store.callbacks.postpone(due, 5_000))


async def limited(bench: Bench) -> tuple[Execution, list[Any]]:
    """An execution that holds the one place there is, and waits for it twice."""
    _, execution, admitted = await limits.start(bench.near, max=1)
    return execution, admitted


async def admit(bench: Bench) -> None:
    await bench.near.store.tasks.limits.put(Limit("api", max=1))
    _, entries = await bench.near.start_and_take(limits.THREE, bench.near.worker())
    asking = [limits.asking_for(one) for one in entries]
    await bench.insist(lambda: bench.store.tasks.limits.admit(asking))


async def put_a_limit(bench: Bench) -> None:
    await limited(bench)
    await bench.insist(lambda: bench.store.tasks.limits.put(Limit("api", max=2)))


async def check_limits(bench: Bench) -> None:
    _, (a,) = await limited(bench)
    await bench.near.worker().complete(a._replace(holds=False))
    await bench.insist(lambda: bench.store.tasks.limits.check_slice(""))


async def release(bench: Bench) -> None:
    execution, _ = await limited(bench)
    await bench.near.store.lifecycle.cancel_execution(execution.id)
    await bench.insist(lambda: bench.store.tasks.limits.release_all(execution.id))


async def keep_clock(bench: Bench) -> None:
    await bench.insist(lambda: bench.store.retries.keep_clock(0, 0))


async def report(bench: Bench) -> None:
    await bench.insist(lambda: bench.store.health.troubles.report_duty("retention", "a defect"))


async def settle_places(bench: Bench) -> None:
    executions = [await bench.near.submit({"a": []}, concurrency={}) for _ in "12"]
    for one in executions:
        await trigger_workflow(bench.near.store, one.id)
    bench.redis.delete(keys.PLACE_HOLDERS)
    await bench.insist(lambda: bench.store.lifecycle.places.settle_slice(f"{keys.PLACE_WAITERS} -"))


SCRIPT_CALLS = {
    scripts.SETTLE_PLACES: settle_places,
    scripts.SUBMIT_WORKFLOW: submit,
    scripts.STAGE_MAP: stage_map,
    scripts.STAGE_NODES: stage,
    scripts.CLOSE_SUBMISSION: close_submission,
    scripts.TRIGGER_WORKFLOW: trigger,
    scripts.RUN_WORKFLOW: run,
    scripts.PUT_DEFINITION: put,
    scripts.DELETE_DEFINITION: delete_saved,
    scripts.PUT_SCHEDULE: put_a_schedule,
    scripts.DUE_SCHEDULES: due_schedules,
    scripts.FIRE_SCHEDULE: fire_schedule,
    scripts.POSTPONE_SCHEDULE: postpone_schedule,
    scripts.DELETE_SCHEDULE: delete_schedule,
    scripts.TAKE_ENTRIES: take,
    scripts.CLAIM_NODES: claim,
    scripts.COMPLETE_NODES: complete,
    scripts.SKIP_NODES: skip,
    scripts.ALLOW_FAILURES: allow,
    scripts.FAIL_NODE: fail,
    scripts.FAIL_DOWNSTREAM: fail_many,
    scripts.ADVANCE_NODE: advance_many,
    scripts.RETRY_NODE: retry,
    scripts.STAGE_ITEMS: stage_items,
    scripts.EXPAND_NODE: expand_node,
    scripts.START_CHILDREN: start_child,
    scripts.SETTLE_FOLLOW: settle_follow,
    scripts.COMPLETE_ITEMS: complete_items,
    scripts.FAIL_ITEMS: fail_items,
    scripts.RETRY_ITEM: retry_item,
    scripts.CANCEL_ITEMS: cancel_some_items,
    scripts.WAIT_NODES: wait,
    scripts.WAKE_NODE: wake,
    scripts.DISPATCH_RETRIES: dispatch,
    scripts.PAUSE_EXECUTION: pause,
    scripts.PARK_NODE: park,
    scripts.RESUME_EXECUTION: resume,
    scripts.CANCEL_EXECUTION: cancel,
    scripts.CANCEL_NODES: cancel_its_nodes,
    scripts.REQUEUE_ENTRY: requeue,
    scripts.RESTORE_NODE: restore,
    scripts.BURY_ENTRY: bury,
    scripts.FAIL_EXECUTION: fail_whole,
    scripts.DELETE_EXECUTIONS: delete,
    scripts.CLAIM_CALLBACKS: claim_callback,
    scripts.SETTLE_CALLBACK: settle_callback,
    scripts.RESERVE_TOKENS: reserve,
    scripts.APPEND_LOG: say,
    scripts.SETTLE_TOKENS: settle_tokens,
    scripts.RENEW_LEASE: renew,
    scripts.RETIRE_WORKER: retire,
    scripts.READMIT_EXECUTIONS: readmit,
    scripts.STRIKE_NAMES: strike,
    scripts.SET_ASIDE: set_aside,
    scripts.NOTE_TICK: beat,
    scripts.ENROLL_WORKER: enroll,
    scripts.REPORT_TROUBLE: report,
    scripts.KEEP_CLOCK: keep_clock,
    scripts.ADMIT_NODES: admit,
    scripts.PUT_LIMIT: put_a_limit,
    scripts.CHECK_LIMITS: check_limits,
    scripts.SETTLE_LIMITS: release,
    scripts.POSTPONE_CALLBACK: postpone,
    scripts.KEEP_OUTPUTS: keep_output,
    scripts.DROP_OUTPUTS: drop_outputs,
    scripts.PRUNE_QUEUES: prune_queues,
    scripts.DROP_ENDED: drop_ended,
}
# No reply of these that is lost can leave anything behind.
WRITES_NOTHING = {scripts.CHECK_RIGHTS, scripts.FIND_OUTPUTS}
CALLS = {script.name: (script.sha, call) for script, call in SCRIPT_CALLS.items()} | {
    "make a group": ("XGROUP", make_group),
    "revoke a lease": ("HDEL", revoke),
    "claim an idempotency key": ("flowd:idempotency", claim_key),
    "forget an execution": ("ZREM", forget),
    "purge the dead letters": ("XTRIM", purge),
}


@pytest.fixture
def proxy(server: PrivateServer) -> Iterator[Proxy]:
    path = server.folder / "faulty.sock"
    with Proxy(path, server.socket_path) as proxy:
        yield proxy
    path.unlink()


@pytest.mark.parametrize("name", CALLS)
async def test_r05_a_call_through_any_fault_leaves_what_it_leaves_without(
    proxy, engine, redis, settings, monkeypatch, name
):
    for name_of in ("orchestrator.executor", "store.endings", "store.dependents"):
        monkeypatch.setattr(f"flowd.{name_of}.DEPENDENTS_PER_CALL_MAX", PER_CALL_MAX)
    for script in scripts.ALL:
        redis.script_load(script.text)
    pattern, call = CALLS[name]
    await call(Bench(engine, ScriptedEngine(engine.store, redis), redis, monkeypatch))
    expected = picture(redis)
    for fault in FAULTS:
        redis.flushall()
        rule = proxy.add(fault, pattern, seconds=0.01)
        far = ScriptedEngine(open_store(settings.with_redis_socket(proxy.path)), redis)
        await call(Bench(engine, far, redis, monkeypatch))
        assert rule.done == 1, f"{fault} never happened"
        assert picture(redis) == expected, fault
        await far.close()
        await far.store.close()
        proxy.heal()


def test_every_script_is_among_them():
    assert {*SCRIPT_CALLS, *WRITES_NOTHING} == set(scripts.ALL)


def picture(redis: Any) -> dict[str, Any]:
    """All there is, but for the ids and times that differ from one time to the next."""
    readers = {
        "string": redis.get,
        "hash": lambda key: sorted(redis.hgetall(key).items()),
        "set": lambda key: sorted(redis.smembers(key)),
        "zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
        "list": lambda key: redis.lrange(key, 0, -1),
        "stream": lambda key: redis.xrange(key),
    }
    # A name that says nothing of ids is that of several.
    alikes: dict[str, list[str]] = {}
    for key in redis.scan_iter():
        alikes.setdefault(alike(key), []).append(alike(readers[redis.type(key)](key)))
    found: dict[str, Any] = {name: sorted(values) for name, values in alikes.items()}
    if redis.exists(STREAM) and redis.xinfo_groups(STREAM):
        held = redis.xpending_range(STREAM, GROUP, "-", "+", 10_000)
        found["pending"] = sorted(row["consumer"] for row in held)
    # A heartbeat more or less says nothing.
    found[keys.LEASES] = re.sub(r"'\d+'", "", str(found.get(keys.LEASES, "")))
    return found


def alike(value: Any) -> str:
    text = str(value).replace("\\x00", " ")
    text = re.sub(r"\b(?!0{12})[0-9a-f]{24}\b", "<id>", text)
    return re.sub(r"\b1\d{12}(\d{3}|-\d+|\.0)?\b", "<ms>", text)
