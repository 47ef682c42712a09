"""Whatever a handler raises ends its node at once, under its own name, in every kind of handler."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from flowd.config import HandlersSettings
from flowd.handlers.loading import open_registry
from tests.flow.engine import Engine, node, workflow

HANDLERS = r"""
import asyncio, os
from flowd.handlers import Context, Fail, Retry, handler

class Unreadable(Exception):
    def __str__(self):
        raise KeyboardInterrupt

class Headless(Retry):
    def __init__(self, text):
        self.text = text

class Odd(Fail):
    kinds = 7

class Numbered(Fail):
    kinds = 7
    def __init__(self, text):
        self.text = text

class Someday(Retry):
    after_s = "someday"
    def __init__(self, text):
        self.text = text

class Hostile(Fail):
    def __init__(self, text):
        self.text = text
    @property
    def kinds(self):
        raise KeyboardInterrupt
    @property
    def report(self):
        raise SystemExit

class Mute(Fail):
    def __str__(self):
        raise ValueError

class Foreign(BaseException):
    pass

class Unshown:
    def __repr__(self):
        raise ValueError

class Proud(str):
    pass

def raise_(error):
    raise error

THINGS = {
    "stop": lambda: next(iter([])),
    "stop_async": lambda: raise_(StopAsyncIteration()),
    "generator_exit": lambda: raise_(GeneratorExit("gone")),
    "cancelled": lambda: raise_(asyncio.CancelledError()),
    "interrupted": lambda: raise_(KeyboardInterrupt()),
    "foreign": lambda: raise_(Foreign("not even an Exception")),
    "exit": lambda: raise_(SystemExit(3)),
    "exit_oddly": lambda: raise_(SystemExit(Unshown())),
    "file_name": lambda: raise_(FileNotFoundError("no file " + os.fsdecode(b"caf\xe9.csv"))),
    "surrogate": lambda: raise_(Fail("bad \ud800 name")),
    "surrogate_retry": lambda: raise_(Retry("bad \ud800 name")),
    "surrogate_key": lambda: {}["\ud800"],
    "nul": lambda: raise_(ValueError("a\0b")),
    "unreadable": lambda: raise_(Unreadable()),
    "mute": lambda: raise_(Mute()),
    "headless": lambda: raise_(Headless("why")),
    "odd": lambda: raise_(Odd("why", kinds=["x"])),
    "numbered": lambda: raise_(Numbered("why")),
    "someday": lambda: raise_(Someday("why")),
    "hostile": lambda: raise_(Hostile("why")),
    "subclass": lambda: raise_(ValueError(Proud("text"))),
    "group": lambda: raise_(BaseExceptionGroup("two", [Foreign("first"), ValueError("second")])),
    "long": lambda: raise_(ValueError("x" * 5_000_000)),
    "deep": lambda: (lambda f: f(f))(lambda f: f(f)),
}

@handler("r_async")
async def in_async(config: dict) -> dict:
    await asyncio.sleep(0)
    return THINGS[config["what"]]()

def call(config: dict) -> dict:
    return THINGS[config["what"]]()

inline = handler("r_inline", inline=True)(lambda config: call(config))
in_thread = handler("r_thread")(lambda config: call(config))
in_process = handler("r_process", isolation="process")(lambda config: call(config))

@handler("r_process_async", isolation="process")
async def in_process_async(config: dict) -> dict:
    return await in_async(config)
"""
ERRORS = {
    "stop": "StopIteration",
    "stop_async": "StopAsyncIteration",
    "generator_exit": "GeneratorExit: gone",
    "cancelled": "the handler cancelled itself",
    "interrupted": "KeyboardInterrupt",
    "foreign": "Foreign: not even an Exception",
    "exit": "the handler called sys.exit(3)",
    "exit_oddly": "the handler called sys.exit(a Unshown)",
    "file_name": r"FileNotFoundError: no file caf\udce9.csv",
    "surrogate": r"bad \ud800 name",
    "surrogate_retry": r"bad \ud800 name",
    "surrogate_key": r"KeyError: '\ud800'",
    "nul": "ValueError: a\0b",
    "unreadable": "Unreadable: (its text could not be read)",
    "mute": "Mute: (its text could not be read)",
    "headless": "why",
    "odd": "why",
    "numbered": "why",
    "someday": "why",
    "hostile": "why",
    "subclass": "ValueError: text",
    "group": "Foreign: first",
    "long": f"ValueError: {'x' * (2_000 - len('ValueError: '))}…",
    "deep": "RecursionError: maximum recursion depth exceeded",
}
# Python says so itself: no coroutine may end by these.
IN_COROUTINES = {
    "stop": "RuntimeError: coroutine raised StopIteration",
    "stop_async": "StopAsyncIteration",
}


@pytest.fixture
def own(settings, tmp_path, monkeypatch):
    name = f"raising_{os.getpid()}_{time.monotonic_ns()}"
    (tmp_path / f"{name}.py").write_text(HANDLERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return replace(settings, handlers=HandlersSettings(modules=(name,), folder=tmp_path))


@pytest.mark.parametrize("kind", ["async", "inline", "thread", "process", "process_async"])
async def test_what_is_raised_ends_its_node_under_its_own_name(own, kind):
    wanted = ERRORS | (IN_COROUTINES if "async" in kind else {})
    nodes = [node(what, handler=f"r_{kind}", what=what) for what in wanted]
    async with Engine(own, workers=1, registry=open_registry(own)) as engine:
        results = await engine.results(await engine.run(workflow(*nodes)))
        assert {what: one["error"] for what, one in results.items()} == wanted
        # The worker lives, under the lease it had.
        assert len(await engine.store.tasks.owners()) == 1


@pytest.mark.parametrize("kind", ["async", "inline", "thread", "process"])
async def test_an_error_that_cannot_be_encoded_is_tried_again_as_any_other(own, kind):
    retry = {"max_attempts": 3, "delay_s": 0}
    one = {**node("A", handler=f"r_{kind}", what="file_name"), "retry": retry}
    registry = open_registry(own)
    async with Engine(own, workers=1, registry=registry) as engine, engine.ticking():
        results = await engine.results(await engine.run(workflow(one)))

    error = r"attempt 3 of 3: FileNotFoundError: no file caf\udce9.csv"
    assert results["A"] == {"error": error}
