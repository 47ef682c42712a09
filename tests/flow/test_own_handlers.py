"""Handlers of the user's own, in the folder they are kept in."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from flowd.config import HandlersSettings
from flowd.handlers.loading import open_registry
from flowd.handlers.registry import built_in_registry
from tests.flow import handlers
from tests.flow.engine import Engine, node, until, workflow

HANDLERS = """
import functools, multiprocessing, sys
from flowd.handlers import handler

def leave():
    sys.exit(3)

@handler("fork_in_thread")
def fork_in_thread(config: dict) -> dict:
    process = multiprocessing.get_context("fork").Process(target=leave)
    process.start()
    process.join()
    return {"exit_code": process.exitcode}

@handler("apart", isolation="process")
def apart(config: dict) -> dict:
    import email
    return {"is_library": hasattr(email, "message_from_string")}

def timed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

@handler("decorated")
@timed
async def decorated(config: dict) -> dict:
    return {"decorated": True}

@handler("decorated_apart", isolation="process")
@timed
async def decorated_apart(config: dict) -> dict:
    return {"decorated": True}
"""


@pytest.fixture
def own(settings, tmp_path, monkeypatch):
    name = f"own_{os.getpid()}_{time.monotonic_ns()}"
    (tmp_path / f"{name}.py").write_text(HANDLERS)
    (tmp_path / "email.py").write_text("raise ImportError('this is no library')")
    monkeypatch.chdir(tmp_path)
    return replace(settings, handlers=HandlersSettings(modules=(name,), folder=tmp_path))


async def test_own_handlers_do_what_they_do_elsewhere(own):
    """A process forked in a thread of a pool ended with 1, whatever it said (CPython 88110), and a
    file beside flowd.toml stood in for a library wherever a handler had a process of its own."""
    async with Engine(own, workers=1, registry=open_registry(own)) as engine:
        nodes = [node(name, handler=name) for name in ("fork_in_thread", "apart", "decorated")]
        nodes.append(node("decorated_apart", handler="decorated_apart"))
        results = await engine.results(await engine.run(workflow(*nodes)))

    assert results == {
        "fork_in_thread": {"exit_code": 3},
        "apart": {"is_library": True},
        "decorated": {"decorated": True},
        "decorated_apart": {"decorated": True},
    }


async def test_a_node_waits_for_a_worker_that_knows_its_handler(settings):
    """A second flowd on the same Redis took nodes of the first and failed them: unknown handler."""
    one_at_a_time = replace(settings, workers=replace(settings.workers, concurrency=1))
    async with (
        Engine(settings, workers=1, registry=built_in_registry()),
        Engine(one_at_a_time, workers=1) as knowing,
        knowing.ticking(),
    ):
        first = await knowing.start(workflow(node("H", handler="held")))
        await until(lambda: has_state(knowing, first, "H", "RUNNING"), "the only slot taken")
        second = await knowing.start(workflow(node("A"), node("B", ["A"])))
        await until(lambda: has_state(knowing, second, "A", "RETRYING"), "A handed on")
        (notice,) = (await knowing.store.health.attention.retrying(9)).sample
        assert "does not know the handler 'echo'; worker-1-" in notice.text
        handlers.GATES["H"].set()
        await knowing.end(second)
        assert await knowing.states(second) == {"A": "COMPLETED", "B": "COMPLETED"}


async def test_a_node_whose_handler_nobody_knows_fails_at_once(settings):
    async with Engine(settings, workers=2, registry=built_in_registry()) as engine:
        execution_id = await engine.run(workflow(node("A")))
        assert await engine.states(execution_id) == {"A": "FAILED"}


async def has_state(engine, execution_id, node_id, state):
    return (await engine.states(execution_id))[node_id] == state
