"""Faults between the engine and Redis: rows R5, R7, R9 and R10 of tests/README.md."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pytest

from flowd.config import Settings
from flowd.errors import StoreUnavailable
from flowd.orchestrator.executor import submit_workflow, trigger_workflow
from flowd.orchestrator.runs import run_workflow
from flowd.scheduler.retention import DAY_MS, forget_finished
from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.executions import now_ms
from flowd.store.redis import scripts
from flowd.workflow.graph import compile_plan
from flowd.workflow.ids import new_execution_id
from scripts.soaking.checker import find_violations, read_events
from tests.flow import handlers
from tests.flow.engine import Engine, calls, node, until, workflow
from tests.private_server import PrivateServer
from tests.proxy import FAULTS, Fault, Proxy
from tests.redis_calls import answer_within

T = TypeVar("T")

WIDE = DEPENDENTS_PER_CALL_MAX + 1
RETRY = {"max_attempts": 3, "delay_s": 0.02}
SILENT: tuple[Fault, ...] = ("half_open", "black_hole")
# Everything a node may meet on its way, from its submission to the end of its execution.
ON_THE_WAY = (
    scripts.SUBMIT_WORKFLOW,
    scripts.TRIGGER_WORKFLOW,
    scripts.CLAIM_NODES,
    scripts.COMPLETE_NODES,
    scripts.FAIL_NODE,
    scripts.RETRY_NODE,
    scripts.DISPATCH_RETRIES,
    scripts.ADVANCE_NODE,
    scripts.FAIL_DOWNSTREAM,
    scripts.RENEW_LEASE,
    scripts.PAUSE_EXECUTION,
    scripts.PARK_NODE,
    scripts.RESUME_EXECUTION,
    scripts.STAGE_NODES,
    scripts.RUN_WORKFLOW,
)


@pytest.fixture
def proxy(server: PrivateServer) -> Iterator[Proxy]:
    path = server.folder / "proxy.sock"
    with Proxy(path, server.socket_path) as proxy:
        yield proxy
    path.unlink(missing_ok=True)


@pytest.fixture
def through(proxy: Proxy, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings by way of the proxy, for clients that are quick to give an answer up."""
    answer_within(monkeypatch, 0.5)
    monkeypatch.setattr("flowd.workers.lease.RENEW_EVERY_S", 0.1)
    monkeypatch.setattr("flowd.scheduler.continuations.OVERDUE_S", 0.3)
    monkeypatch.setattr("flowd.store.tasks.BLOCK_MS", 500)
    return settings.with_redis_socket(proxy.path)


async def insist(ask: Callable[[], Awaitable[T]]) -> T:
    """What clients do that were told that Redis does not answer: they ask again."""
    for _ in range(50):
        try:
            return await ask()
        except StoreUnavailable:
            await asyncio.sleep(0.01)
    raise AssertionError("Redis never answered")


async def submit(engine: Engine, *nodes: object) -> str:
    definition = workflow(*nodes)
    execution_id = new_execution_id(now_ms())
    await insist(lambda: submit_workflow(engine.store, definition, execution_id))
    await insist(lambda: trigger_workflow(engine.store, execution_id))
    return execution_id


async def run(engine: Engine, *nodes: object) -> str:
    """As `submit`, made and triggered in one call."""
    definition = workflow(*nodes).to_json()
    plan, execution_id = compile_plan(definition), new_execution_id(now_ms())
    call = partial(run_workflow, engine.store, definition, plan, execution_id=execution_id)
    await insist(call)
    return execution_id


def everything_at_once() -> list[object]:
    """Nodes that take every way there is, each with somebody behind it."""
    spread = [node(f"W{number}", ["wide"]) for number in range(WIDE)]
    doomed = [node(f"D{number}", ["doomed"]) for number in range(WIDE)]
    return [
        node("A"),
        node("slow", ["A"], handler="beat", beats=5, every_s=0.02),
        {**node("flaky", ["slow"], handler="fail_first", times=2), "retry": RETRY},
        node("B", ["flaky", "A"]),
        node("wide", ["B"]),
        *spread,
        node("doomed", ["A"], handler="fail"),
        *doomed,
    ]


async def check_everything(engine: Engine, execution_id: str) -> None:
    states = Counter((await engine.states(execution_id)).values())
    assert states == {"COMPLETED": 5 + WIDE, "FAILED": 1 + WIDE}
    called = calls(execution_id)
    assert not [one for one in called if one.startswith("D")]
    # What ran again did so as another attempt, and the one before it can commit no more.
    attempts = [call for call in handlers.CALLS if call[0] == execution_id]
    assert len(attempts) == len(set(attempts)), "an attempt started twice"


@pytest.mark.parametrize("fault", FAULTS)
async def test_r05_every_call_on_the_way_of_a_node_survives_the_network(
    through, proxy, redis, figure, fault
):
    wanted = [script for script in ON_THE_WAY if fault not in SILENT or script in ON_THE_WAY[2:10]]
    rules = {script.name: proxy.add(fault, script.sha, seconds=0.02) for script in wanted}
    async with Engine(through) as engine, engine.ticking():
        held = await submit(engine, node("H", handler="held"), node("I", ["H"]), node("J", ["H"]))
        await until(lambda: "H" in handlers.GATES, "the start of H")
        await insist(lambda: engine.store.lifecycle.pause_execution(held))
        execution_id = await submit(engine, *everything_at_once())
        waiting = await run(engine, *(node(f"N{number}") for number in range(20)))
        handlers.GATES["H"].set()
        assert str(await insist(lambda: engine.end(execution_id))) == "FAILED"
        assert str(await insist(lambda: engine.end(waiting))) == "COMPLETED"
        await insist(lambda: engine.store.lifecycle.resume_execution(held))
        assert str(await insist(lambda: engine.end(held))) == "COMPLETED"
        await until(lambda: rules["renew_lease"].done, "a renewal that meets the fault")
        await check_everything(engine, execution_id)
        assert {name for name, rule in rules.items() if not rule.done} <= {"park_node"}
        assert find_violations(redis, [execution_id, held, waiting]) == []
        done = sum(rule.done for rule in rules.values())
        figure(f"{done} calls of {len(rules)} scripts met it")


@pytest.mark.parametrize("fault", ["lose_request", "lose_reply", "cut"])
async def test_r05_a_node_that_came_by_a_lost_answer_to_a_blocked_read_is_run(
    through, proxy, redis, fault
):
    """The line of the blocked read is one of its own, and may be lost alone."""
    async with Engine(through, workers=1) as engine:
        first = await submit(engine, node("A"))
        await insist(lambda: engine.end(first))
        rule = proxy.add(fault, "BLOCK")
        await until(lambda: rule.done, "a blocked read")
        execution_id = await submit(engine, node("B"), node("C", ["B"]))
        assert str(await insist(lambda: engine.end(execution_id))) == "COMPLETED"
        assert calls(execution_id) == ["B", "C"]
    assert find_violations(redis, [execution_id]) == []


async def test_r05_every_line_reset_again_and_again(through, proxy, redis):
    async with Engine(through) as engine, engine.ticking():
        nodes = [node(f"N{number}", handler="echo_async") for number in range(200)]
        chain = [node("C0"), *(node(f"C{at}", [f"C{at - 1}"]) for at in range(1, 100))]
        started = [await submit(engine, *nodes, *chain) for _ in range(3)]
        for _ in range(20):
            proxy.cut_all()
            await asyncio.sleep(0.01)
        for execution_id in started:
            await insist(lambda one=execution_id: engine.end(one))
        assert find_violations(redis, started) == []
        attempts = [call for call in handlers.CALLS if call[2] > 1]
        assert attempts == [], "a lost line cost an attempt"


@pytest.mark.parametrize("first", [0, 1])
async def test_r07_a_node_two_workers_hold_is_committed_once(settings, redis, capfd, figure, first):
    """Both were given it, as after a failover to a replica that had not heard of the first."""
    alone = replace(settings, workers=replace(settings.workers, concurrency=1))
    async with Engine(alone, workers=1) as engine:
        execution_id = await engine.start(workflow(node("A", handler="held"), node("B", ["A"])))
        await until(lambda: "A" in handlers.GATES, "the first start of A")
        state = f"workflow:{execution_id}:node:A"
        await until(lambda: redis.get(state) == "RUNNING", "the claim of A")
        gates = [handlers.GATES.pop("A")]
        ((entry_id, _),) = redis.xrange("workflow:tasks")
        redis.xack("workflow:tasks", "workflow_group", entry_id)
        redis.xgroup_setid("workflow:tasks", "workflow_group", "0")
        await engine.add_worker()
        await until(lambda: "A" in handlers.GATES, "the second start of A")
        gates.append(handlers.GATES.pop("A"))
        gates[first].set()
        assert str(await engine.end(execution_id)) == "COMPLETED"
        for gate in gates:
            gate.set()
        await until(lambda: refusals(capfd), "the other to hear that it is too late")
        assert sorted(calls(execution_id)) == ["A", "A", "B"]
        ends = [what for what, about in read_events(redis) if about.split()[1:2] == ["A"]]
        assert ends.count("node.completed") == 1
        figure(f"{calls(execution_id).count('A')} starts, 1 commit")
    assert find_violations(redis, [execution_id]) == []


def refusals(capfd) -> bool:
    """Its own entry is what refuses it: that the node has ended would not stop who comes sooner."""
    said = capfd.readouterr()
    return "outcome=stale" in said.err + said.out


async def test_r10_ten_thousand_executions_leave_what_was_there_before(
    settings, redis, monkeypatch, figure
):
    monkeypatch.setattr("flowd.workers.lease.RENEW_EVERY_S", 0.5)
    async with Engine(settings) as engine, engine.ticking():
        await engine.run(workflow(node("A")))
        await forget_finished(engine.store, 1, now_ms() + 2 * DAY_MS)
        # There for good from the first renewal, the first hour and the first round on, however soon
        # or late those come.
        lasting_keys = ("flowd:metrics", "flowd:ended", "flowd:indexed")
        await until(lambda: redis.exists(*lasting_keys) == 3, "the first counts")
        before = baseline(redis)

        definition = workflow(node("A"), node("B", ["A"]))
        count = 10_000

        async def run_some(some: int) -> list[str]:
            return [await engine.start(definition) for _ in range(some)]

        clients = await asyncio.gather(*(run_some(count // 20) for _ in range(20)))
        started = [execution_id for some in clients for execution_id in some]
        await until(lambda: redis.scard("workflows:active") == 0, "the end of all")
        assert redis.zcard("flowd:finished") == count
        assert find_violations(redis, started) == []

        most = redis.dbsize()
        while await forget_finished(engine.store, 1, now_ms() + 2 * DAY_MS):
            pass
        # A reconciliation that a loaded machine broke off is a trouble until the next one.
        await until(lambda: baseline(redis) == before, f"{before}, as it was")
        lasting = len(baseline(redis)["keys without lifetime"])
        figure(f"{most} keys with 10,000 executions, {lasting} before and after")


def baseline(redis) -> dict[str, object]:
    return {
        "entries": redis.xlen("workflow:tasks"),
        "pending": redis.xpending("workflow:tasks", "workflow_group")["pending"],
        "consumers": len(redis.xinfo_consumers("workflow:tasks", "workflow_group")),
        "executions": redis.zcard("flowd:executions"),
        # Keys with a lifetime come and go: the scheduler's sign of life does when it is late.
        "keys without lifetime": sorted(
            key for key in redis.scan_iter(count=1000) if redis.ttl(key) == -1
        ),
    }
