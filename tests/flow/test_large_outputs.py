"""Large outputs, and those that wait meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time

import orjson
import pytest

from flowd.handlers.registry import Handler, Registry
from flowd.redaction import MASK, Redactor
from flowd.workers import slots
from tests.flow.engine import Engine, node, workflow


@pytest.mark.parametrize("kind", ["async", "thread", "inline"])
async def test_redacting_a_large_output_holds_up_no_loop(settings, monkeypatch, kind):
    redactor = Redactor()
    for at in range(200):
        redactor.learn(f"secret number {at} of two hundred")
    monkeypatch.setattr(slots, "REDACTOR", redactor)
    text = "x" * 4_000_000 + "secret number 77 of two hundred"
    begun = time.monotonic()
    redactor.data(orjson.dumps(text))
    alone_s = time.monotonic() - begun

    def make(_config, _context):
        return {"text": text}

    async def make_async(config, context):
        return make(config, context)

    handler = Handler("large", make_async if kind == "async" else make, kind)
    longest_s = 0.0

    async def watch():
        nonlocal longest_s
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest_s = max(longest_s, time.monotonic() - before)

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
