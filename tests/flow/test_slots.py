"""A handler call that nobody waits for any more is told so."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from flowd.handlers.context import Resources
from flowd.handlers.registry import Handler
from flowd.pulse import Pulse
from flowd.store.tasks import Entry
from flowd.workers.node_run import PreparedNode
from flowd.workers.slots import Slots
from flowd.workflow.graph import compile_plan
from flowd.workflow.retrying import RetryPolicy
from tests.flow.engine import node, workflow


async def test_a_cancelled_call_in_a_thread_sees_it_in_its_context(settings):
    has_started, was_told = threading.Event(), threading.Event()

    def wait_for_cancellation(_config, context):
        has_started.set()
        while not context.cancelled:
            pass
        was_told.set()
        return {}

    plan = compile_plan(workflow(node("A")).to_json())
    entry = Entry("1-0", "0" * 24, "A", 1, plan.digest, 0)
    handler = Handler("waits", wait_for_cancellation, "thread")
    endings = []
    with ThreadPoolExecutor(1) as threads:
        slots = Slots(
            settings,
            Resources(),
            threads,
            "worker-1",
            Pulse(),
            on_end=endings.append,
            on_claim_due=lambda: None,
        )
        slots.start(
            PreparedNode(entry, plan, plan.nodes["A"], handler, {}, RetryPolicy(1, 1, 2, 300, 0))
        )
        assert await slots._loop.run_in_executor(None, has_started.wait, 10)
        assert slots.cancel("1-0")
        assert await slots._loop.run_in_executor(None, was_told.wait, 10)
    assert not slots.cancel("1-0")
    assert endings == []
    assert len(slots) == 0
