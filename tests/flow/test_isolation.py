"""Handlers in processes of their own: whatever they do, it is their process that pays."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace

import psutil
import pytest

from flowd.config import HandlersSettings
from flowd.handlers import process_pool as isolation
from flowd.handlers.loading import open_registry
from tests.daemon import is_gone
from tests.flow.engine import Engine, node, until, workflow

HANDLERS = """
import asyncio, os, signal, subprocess, sys, time
from pathlib import Path
from pydantic import BaseModel
from flowd.handlers import Context, Fail, Retry, Wait, handler

class Greeting(BaseModel):
    name: str

@handler("greet_apart", isolation="process")
def greet(config: Greeting, context: Context) -> dict:
    print("handlers may print")
    told = {"pid": os.getpid(), "parent": os.getppid(), "key": context.idempotency_key}
    return {"hello": config.name, **told}

@handler("sleep_apart", isolation="process")
async def sleep(config: dict) -> dict:
    await asyncio.sleep(config["s"])
    return {"pid": os.getpid()}

@handler("meet_apart", isolation="process")
async def meet(config: dict, context: Context) -> dict:
    folder = Path(__file__).parent
    (folder / f"here-{context.node_id}").touch()
    while len(list(folder.glob("here-*"))) < config["count"]:
        await asyncio.sleep(0.05)
    return {}

@handler("hold_gil", isolation="process")
def hold_gil(config: dict) -> dict:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sum(range(10**12))
    return {}

@handler("leave_children", isolation="process")
def leave_children(config: dict) -> dict:
    code = "import os, time; os.setsid() if os.getpgid(0) != os.getpid() else None; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code, config["mark"]], start_new_session=True)
    if config.get("stay"):
        time.sleep(600)
    return {"child": child.pid}

@handler("die", isolation="process")
def die(config: dict) -> dict:
    if config["how"] == "exit":
        os._exit(3)
    os.kill(os.getpid(), getattr(signal, config["how"]))
    time.sleep(600)
    return {}

@handler("return_nan_apart", isolation="process")
def return_nan(config: dict) -> dict:
    return {"mean": float("nan")}

@handler("return_much_apart", isolation="process")
def return_much(config: dict) -> dict:
    return {"text": "x" * 100_000_000}

@handler("return_set_apart", isolation="process")
def return_set(config: dict) -> dict:
    return {"set": {1}}

@handler("raise_apart", isolation="process")
def raise_(config: dict, context: Context) -> dict:
    if context.attempt == 1:
        raise Retry("once more", after_s=0)
    raise Fail("never again")

@handler("poll_apart", isolation="process")
def poll(config: dict, context: Context) -> dict:
    if context.call < 3:
        raise Wait(after_s=0)
    return {"key": context.idempotency_key.partition(":")[2]}

@handler("beat_apart", isolation="process")
def beat(config: dict, context: Context) -> dict:
    for _ in range(config["beats"]):
        time.sleep(config["every_s"])
        context.heartbeat()
    return {}
"""


@pytest.fixture
def apart(settings, tmp_path, monkeypatch):
    """Settings with the module above, and its registry."""
    name = f"apart_{os.getpid()}_{time.monotonic_ns()}"
    (tmp_path / f"{name}.py").write_text(HANDLERS)
    own = replace(settings, handlers=HandlersSettings(modules=(name,), folder=tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    return own


def engine_of(settings, **options):
    return Engine(settings, registry=open_registry(settings), **options)


async def gone(pid):
    await until(lambda: is_gone(pid), f"the end of process {pid}")


async def test_a_call_has_a_process_of_its_own(apart):
    async with engine_of(apart) as engine:
        nodes = [node(f"n{number}", handler="greet_apart", name="x") for number in range(20)]
        execution_id = await engine.run(workflow(*nodes))
        results = await engine.results(execution_id)

    pids = {one["pid"] for one in results.values()}
    assert (len(pids), os.getpid() in pids) == (20, False)
    assert results["n3"]["key"] == f"{execution_id}:n3"


async def test_what_is_forked_for_a_call_waits_before_the_first(apart):
    async with engine_of(apart, workers=1):

        def is_mother(process):
            # What other tests have left may end meanwhile.
            with contextlib.suppress(psutil.NoSuchProcess):
                return isolation.MAIN in process.cmdline()

        def has_mother():
            return any(map(is_mother, psutil.Process().children(recursive=True)))

        await until(has_mother, "the process that has imported the handlers")


async def test_calls_run_side_by_side(apart):
    async with engine_of(apart, workers=1) as engine:
        nodes = [node(f"n{number}", handler="meet_apart", count=20) for number in range(20)]
        # One after the other, the first would wait for the last for ever.
        execution_id = await engine.run(workflow(*nodes))
        assert set((await engine.states(execution_id)).values()) == {"COMPLETED"}


async def test_a_call_that_cannot_be_interrupted_is_killed_at_its_time_out(apart):
    async with engine_of(apart, workers=1) as engine:
        execution_id = await engine.run(
            workflow(
                {**node("stuck", handler="hold_gil"), "timeout_s": 1.0},
                node("neighbour", handler="greet_apart", name="x"),
            )
        )
        results = await engine.results(execution_id)
        assert results["stuck"] == {"error": "timed out: it took longer than 1 s"}
        assert results["neighbour"]["hello"] == "x"

        def spinning():
            found = []
            for one in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found += [one] if one.status() == psutil.STATUS_RUNNING else []
            return found

        await until(lambda: not spinning(), "the end of the loop")


async def test_what_a_call_leaves_behind_is_ended(apart):
    async with engine_of(apart, workers=1) as engine:
        execution_id = await engine.run(
            workflow(
                node("A", handler="leave_children", mark="left-behind"),
                {
                    **node("B", handler="leave_children", mark="left-behind", stay=True),
                    "timeout_s": 1.5,
                },
            )
        )
        await gone((await engine.results(execution_id))["A"]["child"])

        def left():
            running = psutil.process_iter(["cmdline"])
            return [one for one in running if "left-behind" in (one.info["cmdline"] or [])]

        await until(lambda: not left(), "the end of all they started")


@pytest.mark.parametrize(
    ("how", "end"),
    [
        ("exit", "ended with the exit code 3"),
        ("SIGSEGV", "was killed by SIGSEGV"),
        ("SIGKILL", "was killed by SIGKILL"),
    ],
)
async def test_a_death_fails_its_node_and_nobody_else(apart, how, end):
    async with engine_of(apart, workers=1) as engine:
        execution_id = await engine.run(workflow(node("A", handler="die", how=how)))
        results = await engine.results(execution_id)
        assert results["A"] == {"error": f"the process of the handler {end}"}
        assert len(await engine.store.tasks.owners()) == 1


async def test_an_output_too_large_fails_the_node(apart):
    async with engine_of(apart, workers=1) as engine:
        execution_id = await engine.run(workflow(node("A", handler="return_much_apart")))
        assert "the output has" in (await engine.results(execution_id))["A"]["error"]


async def test_an_output_that_is_no_json_fails_the_node(apart):
    async with engine_of(apart) as engine:
        execution_id = await engine.run(workflow(node("A", handler="return_set_apart")))
        error = (await engine.results(execution_id))["A"]["error"]
        said = (
            "handler 'return_set_apart' returned what is not JSON: set is a set, which JSON has not"
        )
        assert error == said
        execution_id = await engine.run(workflow(node("A", handler="return_nan_apart")))
        error = (await engine.results(execution_id))["A"]["error"]
        assert error.endswith("returned what is not JSON: mean is nan, which JSON has not")


async def test_what_a_handler_raises_means_the_same_as_elsewhere(apart):
    retry = {"max_attempts": 5, "delay_s": 0}
    async with engine_of(apart) as engine, engine.ticking():
        execution_id = await engine.run(
            workflow({**node("A", handler="raise_apart"), "retry": retry})
        )
        results = await engine.results(execution_id)
        why = "not tried again: another attempt would not change it"
        assert results["A"] == {"error": f"attempt 2 of 5: never again; {why}"}


async def test_a_wait_is_heard_across_processes(apart):
    async with engine_of(apart) as engine, engine.ticking():
        execution_id = await engine.run(workflow(node("A", handler="poll_apart")))

        assert await engine.results(execution_id) == {"A": {"key": "A:3"}}


async def test_a_heartbeat_is_heard_across_processes(apart):
    async with engine_of(apart, workers=1) as engine:
        # Its process is there from here on, and its start no part of the time.
        await engine.run(workflow(node("A", handler="greet_apart", name="x")))
        execution_id = await engine.run(
            workflow({**node("A", handler="beat_apart", beats=4, every_s=1.5), "timeout_s": 5.0})
        )
        assert await engine.states(execution_id) == {"A": "COMPLETED"}


async def test_a_process_is_forgotten_once_it_has_ended(apart, monkeypatch):
    """Its end was kept for ever. When the system gave its number out again, the new process counted
    as ended, and one beyond its time was not killed."""
    kill, let_go = isolation._Mother.kill, []

    def noting(mother, pid):
        kill(mother, pid)
        let_go.append((mother, pid))

    monkeypatch.setattr(isolation._Mother, "kill", noting)
    async with engine_of(apart, workers=1) as engine:
        nodes = [node(f"n{number}", handler="greet_apart", name="x") for number in range(5)]
        await engine.run(workflow(*nodes, node("D", handler="die", how="exit")))
        mother, pids = let_go[0][0], {pid for _, pid in let_go}
        assert len(pids) == 6
        await until(lambda: not mother._let_go, "the end of every process")
        assert mother._ends == {}


async def test_imports_take_their_time_and_print_what_they_like(settings, tmp_path, monkeypatch):
    # What a call may take where each core has ten others to serve.
    timeout_s = 4.0
    name = f"slow_{os.getpid()}_{time.monotonic_ns()}"
    (tmp_path / f"{name}.py").write_text(
        "import sys, time\n"
        "if 'process_main' in sys.argv[0]:  # not where the test itself imports it\n"
        "    print('hello', flush=True)\n"
        f"    time.sleep({1.2 * timeout_s})\n" + HANDLERS
    )
    own = replace(settings, handlers=HandlersSettings(modules=(name,), folder=tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    nodes = [
        {**node(f"n{number}", handler="greet_apart", name="x"), "timeout_s": timeout_s}
        for number in range(3)
    ]
    async with engine_of(own, workers=1) as engine:
        execution_id = await engine.run(workflow(*nodes))
        parents = {one["parent"] for one in (await engine.results(execution_id)).values()}
        assert len(parents) == 1


async def test_no_process_outlives_the_worker(apart):
    async with engine_of(apart, workers=1) as engine:
        await engine.run(workflow(node("A", handler="greet_apart", name="x")))
        assert len(mothers()) == 1
    await until(lambda: not mothers(), "the end of the process that calls are forked from")


def mothers():
    found = []
    for one in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [one] if isolation.MAIN in one.cmdline() else []
    return found
