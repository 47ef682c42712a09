"""Who looks at a failed node sees where it came from, and what a program wrote."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import httpx2
import pytest

from flowd.api.app import create_app
from flowd.config import HandlersSettings, ShellSettings
from flowd.handlers.loading import open_registry
from flowd.orchestrator.executor import cancel_execution
from tests.flow.engine import Engine, node, until, workflow

HANDLERS = """
from flowd.handlers import Fail, Retry, handler

def look_up(rows):
    return rows["price"]

@handler("r_async")
async def in_async(config: dict) -> dict:
    return look_up({})

@handler("r_inline", inline=True)
def inline(config: dict) -> dict:
    return look_up({})

@handler("r_thread")
def in_thread(config: dict) -> dict:
    return look_up({})

@handler("r_process", isolation="process")
def in_process(config: dict) -> dict:
    return look_up({})

@handler("on_purpose")
def on_purpose(config: dict) -> dict:
    raise Fail("no such order")
"""
KINDS = ("r_async", "r_inline", "r_thread", "r_process")


@pytest.fixture
def own(settings, tmp_path, monkeypatch):
    name = f"reporting_{os.getpid()}_{time.monotonic_ns()}"
    (tmp_path / f"{name}.py").write_text(HANDLERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    handlers = HandlersSettings(
        modules=(name,), folder=tmp_path, shell=ShellSettings(enabled=True, timeout_s=30.0)
    )
    return replace(settings, handlers=handlers)


def api_of(engine):
    transport = httpx2.ASGITransport(app=create_app(engine.store, {}))
    return httpx2.AsyncClient(transport=transport, base_url="http://flowd")


async def test_the_traceback_is_shown_where_people_look_and_nowhere_else(own):
    file = f"{own.handlers.folder}/{own.handlers.modules[0]}.py"
    async with Engine(own, workers=1, registry=open_registry(own)) as engine, api_of(engine) as api:
        nodes = [node(kind, handler=kind) for kind in (*KINDS, "on_purpose")]
        execution_id = await engine.run(workflow(*nodes, node("after", ["r_async"], "r_async")))
        path = f"/workflows/{execution_id}"
        for kind in KINDS:
            found = (await api.get(f"{path}/nodes/{kind}")).json()
            lines = found["traceback"].splitlines()
            assert lines[0] == "Traceback (most recent call last):", kind
            assert lines[1].startswith(f'  File "{file}", line '), kind
            assert "return look_up({})" in lines[2], kind
            assert lines[-1] == "KeyError: 'price'", kind
            assert "/flowd/" not in found["traceback"], kind
            assert (found["error"], found["output"]) == ("KeyError: 'price'", None)
            (why,) = (await api.get(f"{path}/explain/{kind}")).json()["nodes"]
            assert why["traceback"] == found["traceback"]
        for other in ("on_purpose", "after"):
            assert (await api.get(f"{path}/nodes/{other}")).json()["traceback"] is None
            why = (await api.get(f"{path}/explain/{other}")).json()
            assert (why["traceback"], why["nodes"][0]["traceback"]) == (None, None)
        whole = (await api.get(f"{path}/explain")).json()
        first = (await api.get(f"{path}/summary")).json()["error"].partition(":")[0]
        assert whole["summary"].startswith(f"FAILED: {first!r} failed: ")
        told = (await api.get(f"{path}/nodes/{first}")).json()["traceback"]
        assert whole["traceback"] == told
        # What was documented stays as it was.
        results = (await api.get(f"{path}/results")).json()["results"]
        assert results["r_async"] == {"error": "KeyError: 'price'"}
        assert results["on_purpose"] == {"error": "no such order"}


async def test_an_attempt_that_is_tried_again_shows_its_traceback_meanwhile(own):
    retry = {"max_attempts": 3, "delay_s": 3600, "max_delay_s": 3600}
    async with Engine(own, workers=1, registry=open_registry(own)) as engine, api_of(engine) as api:
        execution_id = await engine.start(
            workflow({**node("A", handler="r_thread"), "retry": retry})
        )

        async def waits():
            return (await engine.states(execution_id))["A"] == "RETRYING"

        await until(waits, "the failure of the first attempt")
        found = (await api.get(f"/workflows/{execution_id}/nodes/A")).json()
        assert found["traceback"].endswith("KeyError: 'price'")


async def test_a_failed_program_keeps_what_it_wrote(own):
    script = "echo so far; echo went wrong >&2; exit 3"
    async with Engine(own, workers=1, registry=open_registry(own)) as engine, api_of(engine) as api:
        execution_id = await engine.run(
            workflow(node("A", handler="shell", command=["sh", "-c", script]))
        )
        found = (await api.get(f"/workflows/{execution_id}/nodes/A")).json()
        results = await engine.results(execution_id)

    assert found["output"] == {"exit_code": 3, "stdout": "so far\n", "stderr": "went wrong\n"}
    assert (found["error"], found["traceback"]) == ("'sh' exited with 3: went wrong", None)
    assert results == {"A": {"error": "'sh' exited with 3: went wrong"}}


def told(lines, event):
    return [(level, facts, trace) for level, seen, facts, trace in lines if seen == event]


async def test_a_failure_and_the_end_of_an_execution_are_lines_that_say_why(own, lines):
    async with (
        Engine(own, workers=1, registry=open_registry(own)) as engine,
        engine.ticking(),
    ):
        failing = workflow(
            node("A", handler="r_thread"), node("B", ["A"]), node("C", handler="delay", seconds=0.1)
        )
        failed = await engine.run(failing)
        await until(lambda: told(lines, "execution.failed"), "the line of its end")
        purpose = await engine.run(workflow(node("A", handler="on_purpose"), name="orders"))
        await until(lambda: len(told(lines, "execution.failed")) == 2, "the line of the other")
        done = await engine.run(workflow(node("A", handler="noop"), name="fine"))

    (first, second) = told(lines, "node.failed")
    level, facts, trace = first
    assert (level, facts["execution_id"], facts["node_id"]) == ("error", failed, "A")
    assert facts["error"] == "KeyError: 'price'"
    assert trace.splitlines()[-1] == "KeyError: 'price'"
    level, facts, trace = second
    assert (level, facts["error"], trace) == ("warning", "no such order", "")
    assert told(lines, "execution.failed") == [
        ("error", {"execution_id": failed, "name": "test", "error": "A: KeyError: 'price'"}, ""),
        ("error", {"execution_id": purpose, "name": "orders", "error": "A: no such order"}, ""),
    ]
    assert told(lines, "execution.completed") == [
        ("info", {"execution_id": done, "name": "fine"}, "")
    ]


@pytest.mark.parametrize(
    ("more", "node_id"),
    [({}, "A"), ({"allow_failure": True}, "A"), ({"map": {"over": "{{ input.rows }}"}}, "A.0")],
    ids=["node", "allowed", "item"],
)
async def test_what_is_given_up_is_a_line_that_says_why(
    settings, lines, monkeypatch, more, node_id
):
    monkeypatch.setattr("flowd.workers.node_run.DEATHS_BEFORE_APART", 0)
    async with Engine(settings, workers=1) as engine, engine.ticking():
        one = await engine.run(workflow(node("A", handler="perish") | more), b'{"rows": [1]}')

    ((level, facts, _),) = told(lines, "node.poisoned")
    why = "given up: 0 workers died while they ran this node, and then the process of the handler "
    assert (level, facts) == (
        "error",
        {
            "execution_id": one,
            "node_id": node_id,
            "attempt": 1,
            "cause": f"{why}was killed by SIGKILL",
        },
    )


async def test_a_cancelled_execution_is_a_line(settings, lines):
    async with Engine(settings, workers=0) as engine:
        cancelled = await engine.start(workflow(node("A")))
        await cancel_execution(engine.store, cancelled)

    assert told(lines, "execution.cancelled") == [("info", {"execution_id": cancelled}, "")]


async def test_an_attempt_that_is_tried_again_is_no_warning(own, lines):
    retry = {"max_attempts": 2, "delay_s": 0}
    registry = open_registry(own)
    async with Engine(own, workers=1, registry=registry) as engine, engine.ticking():
        await engine.run(workflow({**node("A", handler="r_thread"), "retry": retry}))

    ((level, facts, trace),) = told(lines, "node.retrying")
    assert (level, facts["error"], trace) == ("info", "attempt 1 of 2: KeyError: 'price'", "")
    assert [level for level, _, _ in told(lines, "node.failed")] == ["error"]
