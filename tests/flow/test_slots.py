"""The calls of one worker: who is a suspect, and who is told that nobody waits any more."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from flowd.handlers.context import Resources
from flowd.handlers.registry import Handler
from flowd.pulse import Pulse, Vitals
from flowd.store.endings import Completion
from flowd.store.entries import Entry
from flowd.workers.node_run import PreparedNode
from flowd.workers.slots import Slots
from flowd.workflow.graph import compile_plan
from flowd.workflow.retrying import RetryPolicy
from tests.daemon import PATIENCE_S
from tests.flow.engine import node, workflow


def prepared(handler):
    plan = compile_plan(workflow(node("A")).to_json())
    entry = Entry("1-0", "0" * 24, "A", 1, plan.digest, 0)
    return PreparedNode(entry, plan, plan.nodes["A"], handler, {}, RetryPolicy(1, 1, 2, 300, 0))


def make_slots(settings, threads, on_end, pulse):
    return Slots(
        settings,
        Resources(),
        threads,
        "worker-1",
        pulse,
        on_end=on_end,
        on_claim_due=lambda: None,
    )


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("kind", ["inline", "async", "thread"])
async def test_a_node_is_a_suspect_while_it_runs_and_not_afterwards(settings, kind, raises):
    """Else it is blamed for whatever hangs next, and what hangs is never counted."""
    vitals, during, endings = Vitals(), [], []
    has_ended = asyncio.Event()

    def look(_config, _context):
        during.append(vitals.suspects)
        if raises:
            raise ValueError
        return {}

    async def look_async(config, context):
        return look(config, context)

    def end(ending):
        endings.append(ending)
        has_ended.set()

    handler = Handler("looks", look_async if kind == "async" else look, kind)
    with ThreadPoolExecutor(1) as threads:
        slots = make_slots(settings, threads, end, Pulse(vitals=vitals))
        slots.start(prepared(handler))
        await has_ended.wait()

    assert (during, vitals.suspects) == ([("1-0",)], ())
    assert [isinstance(one, Completion) for one in endings] == [not raises]


async def test_a_cancelled_call_in_a_thread_sees_it_in_its_context(settings):
    has_started, was_told = threading.Event(), threading.Event()

    def wait_for_cancellation(_config, context):
        has_started.set()
        while not context.cancelled:
            pass
        was_told.set()
        return {}

    endings = []
    with ThreadPoolExecutor(1) as threads:
        slots = make_slots(settings, threads, endings.append, Pulse())
        slots.start(prepared(Handler("waits", wait_for_cancellation, "thread")))
        assert await slots._loop.run_in_executor(None, has_started.wait, PATIENCE_S)
        assert slots.cancel("1-0")
        assert await slots._loop.run_in_executor(None, was_told.wait, PATIENCE_S)
    assert not slots.cancel("1-0")
    assert endings == []
    assert len(slots) == 0
