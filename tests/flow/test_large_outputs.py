"""Large outputs, and those that wait meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time

import orjson
import pytest

from flowd.errors import Fail
from flowd.handlers.registry import Handler, Registry
from flowd.orchestrator.executor import cancel_execution
from flowd.redaction import MASK, Redactor
from flowd.workers import slots
from flowd.workers.large_inputs import BYTES_HELD_MAX, SMALL_BYTES_MAX
from tests.daemon import PATIENCE_S
from tests.flow.engine import Engine, node, workflow


@pytest.mark.parametrize("kind", ["async", "thread", "inline"])
async def test_redacting_a_large_output_holds_up_no_loop(settings, monkeypatch, kind):
    redactor = Redactor()
    for at in range(200):
        redactor.learn(f"secret number {at} of two hundred")
    monkeypatch.setattr(slots, "REDACTOR", redactor)
    text = "x" * 4_000_000 + "secret number 77 of two hundred"
    # Of this thread: what others take of the machine holds up nothing, and no thread that redacts
    # while this one waits for a core.
    begun = time.thread_time()
    redactor.data(orjson.dumps(text))
    alone_s = time.thread_time() - begun

    def make(_config, _context):
        return {"text": text}

    async def make_async(config, context):
        return make(config, context)

    handler = Handler("large", make_async if kind == "async" else make, kind)
    longest_s = 0.0

    async def watch():
        nonlocal longest_s
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            longest_s = max(longest_s, time.thread_time() - before)

    async with Engine(settings, workers=1, registry=Registry({}, [handler])) as engine:
        watching = asyncio.create_task(watch())
        execution_id = await engine.run(workflow(node("a", handler="large")))
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        results = await engine.results(execution_id)

    assert results["a"]["text"][-len(MASK) :] == MASK
    # What is left is parsing and copying.
    assert longest_s < alone_s / 2


async def test_a_worker_holds_large_inputs_only_up_to_its_bound(settings):
    """And those that need none start meanwhile."""
    size = BYTES_HELD_MAX // 3
    running, most, begun = 0, 0, set()
    is_seen = asyncio.Event()

    async def make(_config, _context):
        return {"text": "x" * size}

    async def read(config, context):
        nonlocal running, most
        begun.add(context.node_id)
        is_large = "text" in config
        running += is_large
        most = max(most, running)
        if running >= 2 and "small" in begun:
            is_seen.set()
        if is_large:
            await is_seen.wait()
        running -= is_large
        return {}

    handlers = [Handler("make", make, "async"), Handler("read", read, "async")]
    readers = [node(f"r{at}", ["a"], handler="read", text="{{ a.text }}") for at in range(8)]
    small = node("small", ["a"], handler="read")
    async with Engine(settings, workers=1, registry=Registry({}, handlers)) as engine:
        execution_id = await engine.run(workflow(node("a", handler="make"), *readers, small))
        states = await engine.states(execution_id)

    assert set(states.values()) == {"COMPLETED"}
    # Quotes and a key are beside the text.
    assert most == 2


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
async def test_however_a_node_ends_others_may_have_the_large_inputs_it_held(
    settings, monkeypatch, end
):
    """A worker from which some were cancelled never started such a node again."""
    monkeypatch.setattr("flowd.workers.large_inputs.BYTES_HELD_MAX", 3 * SMALL_BYTES_MAX)
    monkeypatch.setattr("flowd.workers.slots.CLAIM_AGAIN_S", 0.05)
    started, gate, let_go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def make(_config, _context):
        return {"text": "x" * 2 * SMALL_BYTES_MAX}

    async def read(_config, _context):
        started.set()
        try:
            await gate.wait()
        except asyncio.CancelledError:
            let_go.set()
            raise
        if end == "failed":
            raise Fail("as it was told")
        return {}

    handlers = [Handler("make", make, "async"), Handler("read", read, "async")]
    nodes = [node("a", handler="make"), node("b", ["a"], handler="read", text="{{ a.text }}")]
    async with Engine(settings, workers=1, registry=Registry({}, handlers)) as engine:
        first = await engine.start(workflow(*nodes))
        await started.wait()
        if end == "cancelled":
            await cancel_execution(engine.store, first)
            # Else it ends by itself, which gives back as well.
            await asyncio.wait_for(let_go.wait(), PATIENCE_S)
        gate.set()
        assert str(await engine.end(first)) == end.upper()

        async with asyncio.timeout(PATIENCE_S):
            second = await engine.run(workflow(*nodes))
        assert (await engine.states(second))["a"] == "COMPLETED"
