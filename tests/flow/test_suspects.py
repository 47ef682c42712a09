"""Nodes that were there when workers died: each runs in a process of its own, beside all others."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from flowd.config import HandlersSettings
from flowd.handlers.loading import open_registry
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import recover_worker
from flowd.store.tasks import DEATHS_BEFORE_APART
from tests.flow.engine import Engine, node, until, workflow

HANDLERS = """
import asyncio, os, signal
from pathlib import Path
from flowd.handlers import Context, handler

FOLDER = Path(__file__).parent

def started(context: Context) -> None:
    (FOLDER / f"started-{context.node_id}").write_text(f"{os.getpid()} {context.attempt}")

@handler("wait_async")
async def wait_async(config: dict, context: Context) -> dict:
    started(context)
    while not (FOLDER / f"open-{context.node_id}").exists():
        if (FOLDER / f"fail-{context.node_id}").exists():
            raise RuntimeError("as it was told")
        await asyncio.sleep(0.01)
    return {"pid": os.getpid()}

@handler("wait_in_thread")
def wait_in_thread(config: dict, context: Context) -> dict:
    return asyncio.run(wait_async(config, context))

@handler("say", inline=True)
def say(config: dict, context: Context) -> dict:
    started(context)
    return {"pid": os.getpid()}

@handler("die")
async def die(config: dict, context: Context) -> dict:
    started(context)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def own(settings, tmp_path, monkeypatch):
    """Settings with the module above."""
    name = f"suspects_{os.getpid()}_{time.monotonic_ns()}"
    (tmp_path / f"{name}.py").write_text(HANDLERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return replace(settings, handlers=HandlersSettings(modules=(name,), folder=tmp_path))


def engine_of(settings):
    return Engine(settings, workers=0, registry=open_registry(settings))


async def lose_workers(engine, times=DEATHS_BEFORE_APART):
    """Workers that take everything there is, and die."""
    for death in range(times):
        consumer = f"dead-{death}"
        await engine.store.tasks.enroll_worker(consumer, b"{}")
        session = engine.store.tasks.open_session(consumer)
        await session.complete_and_claim((), (), (), 64)
        await session.close()
        await recover_worker(engine.store, Plans(engine.store), consumer, "killed", is_blamed=True)


async def test_those_that_were_only_near_run_side_by_side_and_hold_up_nobody(own, tmp_path):
    """Each waited until its worker was empty, ran there alone, and nothing else was taken."""
    waiting = ["wait_async", "wait_in_thread", "wait_async"]
    async with engine_of(own) as engine:
        suspects = await engine.start(
            workflow(*(node(f"s{at}", handler=name) for at, name in enumerate(waiting)))
        )
        await lose_workers(engine)
        await engine.add_worker()
        started = [tmp_path / f"started-s{at}" for at in range(3)]
        await until(lambda: all(one.exists() and one.read_text() for one in started), "the starts")
        others = await engine.run(workflow(node("A", handler="say"), node("B", ["A"], "say")))

        assert set((await engine.states(suspects)).values()) == {"RUNNING"}
        assert await engine.states(others) == {"A": "COMPLETED", "B": "COMPLETED"}
        assert (await engine.results(others))["A"] == {"pid": os.getpid()}
        for at in range(3):
            (tmp_path / f"open-s{at}").touch()
        assert str(await engine.end(suspects)) == "COMPLETED"
        pids = {one["pid"] for one in (await engine.results(suspects)).values()}
        assert (len(pids), os.getpid() in pids) == (3, False)
        assert [one.read_text().split()[1] for one in started] == ["3"] * 3


async def test_one_that_dies_apart_is_given_up_and_costs_nobody_anything(own, tmp_path):
    async with engine_of(own) as engine:
        execution_id = await engine.start(
            workflow(
                {**node("K", handler="die"), "retry": {"max_attempts": 9}},
                node("after", ["K"], "say"),
                node("near", handler="say"),
                name="poison",
            )
        )
        await lose_workers(engine)
        worker = await engine.add_worker()

        assert str(await engine.end(execution_id)) == "FAILED"
        assert await engine.states(execution_id) == {
            "K": "FAILED",
            "after": "FAILED",
            "near": "COMPLETED",
        }
        error = (await engine.results(execution_id))["K"]["error"]
        assert error == (
            "given up: 2 workers died while they ran this node, "
            "and then the process of the handler was killed by SIGKILL"
        )
        ((_, fields),) = await engine.redis("XRANGE", "flowd:dead_letters", "-", "+")
        letter = dict(zip(fields[::2], fields[1::2], strict=True))
        assert (letter["node_id"], letter["reason"]) == ("K", error)
        assert (tmp_path / "started-K").read_text().split()[1] == "3"
        assert not engine._tasks[engine.workers.index(worker)].done()


async def test_built_in_handlers_work_apart_as_they_do_in_a_worker(own):
    async with engine_of(own) as engine:
        execution_id = await engine.start(
            workflow(
                node("noop", handler="noop"),
                node("llm", handler="llm", prompt="hello"),
                node("delay", handler="delay", seconds=0.01),
                node("call", handler="call_external_service", url="http://nosuchname/x"),
            )
        )
        await lose_workers(engine)
        await engine.add_worker()
        async with engine.ticking():
            await engine.end(execution_id)

        results = await engine.results(execution_id)
        assert results["noop"] == {"status": "ok"}
        assert results["llm"] == {"answer": "Simulated response for: hello"}
        assert results["delay"]["status"] == "ok"
        # Whether the name stands for a service is the concern of the settings.
        assert "http://nosuchname/x" in str(results["call"])


async def test_a_node_whose_handler_is_unknown_fails_as_ever(own):
    async with engine_of(own) as engine:
        execution_id = await engine.start(workflow(node("A", handler="nobody")))
        await lose_workers(engine)
        await engine.add_worker()
        await engine.end(execution_id)

        error = (await engine.results(execution_id))["A"]["error"]
        assert error.startswith("unknown handler 'nobody'")
