"""Attempts that fail and come again."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from flowd.config import CallExternalServiceSettings, HandlersSettings
from flowd.handlers.registry import built_in_registry
from tests.flow import handlers
from tests.flow.engine import Engine, calls, node, until, workflow
from tests.local_services import Reply, json_reply, running_service

SOON = {"max_attempts": 3, "delay_s": 0.01, "jitter": 0}


def flaky(node_id, times, retry=SOON, **config):
    return {**node(node_id, handler="fail_first", times=times, **config), "retry": retry}


async def test_a_node_that_fails_twice_completes_at_its_third_attempt(settings):
    async with Engine(settings) as engine, engine.ticking():
        execution_id = await engine.run(workflow(flaky("A", 2), node("B", ["A"])))

        assert (await engine.results(execution_id))["A"] == {"calls": 3}
        assert await engine.states(execution_id) == {"A": "COMPLETED", "B": "COMPLETED"}
        assert [attempt for _, one, attempt in handlers.CALLS if one == "A"] == [1, 2, 3]


async def test_after_its_last_attempt_a_node_fails_and_says_which_it_was(settings):
    async with Engine(settings) as engine, engine.ticking():
        execution_id = await engine.run(workflow(flaky("A", 9), node("B", ["A"])))

        results = await engine.results(execution_id)
        assert results["A"] == {"error": "attempt 3 of 3: RuntimeError: not yet"}
        assert calls(execution_id) == ["A", "A", "A"]


async def test_between_two_attempts_a_node_is_retrying_and_in_no_worker(settings):
    patient = {**SOON, "delay_s": 3600}
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.start(workflow(flaky("A", 1, patient)))

        async def is_retrying():
            return (await engine.states(execution_id))["A"] == "RETRYING"

        await until(is_retrying, "the pause")
        assert await engine.redis("XLEN", "workflow:tasks") == 0
        await engine.stop_worker(engine.workers[0])
        await engine.redis("ZADD", "flowd:retries", 1, f"{execution_id} A")
        await engine.tick()
        await engine.add_worker()
        assert str(await engine.end(execution_id)) == "COMPLETED"


@pytest.mark.parametrize(
    ("error", "on", "attempts"),
    [
        ("fail", None, 1),
        ("404", None, 1),
        ("503", None, 3),
        ("404", ["4xx"], 3),
        ("503", ["timeout"], 1),
        ("connection", ["connection"], 3),
        ("connection", ["timeout"], 1),
        ("", ["error"], 3),
        ("", ["5xx"], 1),
    ],
)
async def test_only_failures_that_may_pass_are_tried_again(settings, error, on, attempts):
    retry = SOON if on is None else {**SOON, "on": on}
    async with Engine(settings) as engine, engine.ticking():
        execution_id = await engine.run(workflow(flaky("A", 9, retry, error=error)))

        assert len(calls(execution_id)) == attempts
        error = (await engine.results(execution_id))["A"]["error"]
        assert error.startswith(f"attempt {attempts} of 3: ")
        told = "`on` does not name this failure" if on else "another attempt would not change it"
        assert error.endswith(f"; not tried again: {told}") is (attempts < 3)


async def test_many_nodes_fail_and_come_again_each_as_often_as_it_must(settings):
    nodes = [flaky(f"n{number}", number % 3) for number in range(300)]
    async with Engine(settings) as engine, engine.ticking():
        execution_id = await engine.run(workflow(*nodes))

        results = await engine.results(execution_id)
        assert results == {f"n{number}": {"calls": number % 3 + 1} for number in range(300)}
        assert len(calls(execution_id)) == sum(number % 3 + 1 for number in range(300))


async def test_a_service_that_says_when_to_come_back_is_heard(settings):
    replies = iter([Reply(429, b"slow down", {"Retry-After": "7"}), json_reply({"x": 1})])
    own = replace(
        settings,
        handlers=HandlersSettings(
            call_external_service=CallExternalServiceSettings(allow=("127.0.0.1",))
        ),
    )
    with running_service(lambda _: next(replies)) as service:
        async with Engine(own, registry=built_in_registry()) as engine:
            began_s = time.time()
            call = node("A", handler="call_external_service", url=service.url)
            execution_id = await engine.start(workflow({**call, "retry": SOON}))
            member = f"{execution_id} A"

            async def due_ms():
                return await engine.redis("ZSCORE", "flowd:retries", member)

            due = float(await until(due_ms, "the pause"))
            assert began_s + 6 < due / 1000 <= time.time() + 7.1
            await engine.redis("ZADD", "flowd:retries", 1, member)
            await engine.tick()
            assert str(await engine.end(execution_id)) == "COMPLETED"
            assert len(service.requests) == 2
            keys = {request.headers["idempotency-key"] for request in service.requests}
            assert keys == {f"{execution_id}:A"}
