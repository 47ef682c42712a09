"""Nodes that wait for a signal: the first answer decides, whenever it comes, and all hear it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from flowd.client import ApiError, AsyncClient
from flowd.errors import WrongState
from flowd.handlers.registry import built_in_registry
from flowd.orchestrator.executor import (
    cancel_execution,
    pause_execution,
    resume_execution,
    submit_workflow,
    trigger_workflow,
)
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.store.events import END_TYPES
from flowd.store.redis import keys
from scripts.soaking.checker import find_violations
from tests.flow.api_server import api_server
from tests.flow.engine import Engine, node, until, workflow
from tests.flow.test_callbacks import delivering
from tests.local_services import Reply, running_service

SCHEMA = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}},
    "required": ["approved"],
}
T = TypeVar("T")


def gate(node_id: str = "ok", *dependencies: str, timeout_s: float | None = None, **config: Any):
    written = node(node_id, dependencies, "signal", **config)
    return written if timeout_s is None else written | {"timeout_s": timeout_s}


def behind(node_id: str = "B", *dependencies: str, **fields: Any):
    return node(node_id, dependencies or ("ok",), "noop") | fields


@dataclass
class Stand:
    """An engine with an API before it."""

    engine: Engine
    client: AsyncClient

    async def start(self, *nodes: Any, **fields: Any) -> str:
        """Returns once its gates wait."""
        execution_id = await self.engine.start(workflow(*nodes, **fields))
        await self.wait_for_gates(execution_id)
        return execution_id

    async def wait_for_gates(self, execution_id: str, count: int = 1) -> None:
        async def wait() -> bool:
            states = list((await self.engine.states(execution_id)).values())
            return states.count("WAITING") >= count

        await until(wait, "a node that waits")

    async def output(self, execution_id: str, node_id: str = "ok") -> Any:
        return (await self.engine.results(execution_id))[node_id]


@asynccontextmanager
async def stand(settings: Any, workers: int = 1) -> AsyncIterator[Stand]:
    async with (
        Engine(settings, workers, built_in_registry()) as engine,
        engine.ticking(),
        api_server(settings) as api,
        AsyncClient(f"http://127.0.0.1:{api.port}") as client,
    ):
        yield Stand(engine, client)


async def refused(answer: Any) -> tuple[int, str]:
    with pytest.raises(ApiError) as error:
        await answer
    return error.value.status, error.value.code


async def test_a_node_waits_without_a_worker_and_completes_with_what_is_sent(settings, redis):
    async with stand(settings) as here:
        execution_id = await here.start(gate(prompt="Ship?"), behind())
        assert redis.xlen("workflow:tasks") == 0
        assert await here.engine.states(execution_id) == {"ok": "WAITING", "B": "PENDING"}

        decision = await here.client.signal(execution_id, "ok", {"approved": True, "n": [1, None]})

        assert str(await here.engine.end(execution_id)) == "COMPLETED"
        output = await here.output(execution_id)
        assert output == {
            "data": {"approved": True, "n": [1, None]},
            "timed_out": False,
            "by": None,
            "at_ms": decision["at_ms"],
        }
        assert decision == {**output, "rejected": None}
        assert find_violations(redis, [execution_id]) == []


@pytest.mark.parametrize("is_triggered", [False, True])
async def test_a_signal_that_comes_before_the_node_waits_is_kept_and_used(settings, is_triggered):
    async with stand(settings, workers=0) as here:
        execution_id = await submit_workflow(here.engine.store, workflow(gate(), behind()))
        if is_triggered:
            await trigger_workflow(here.engine.store, execution_id)
        await here.client.signal(execution_id, "ok", "early")
        await trigger_workflow(here.engine.store, execution_id)
        await here.engine.add_worker()
        assert str(await here.engine.end(execution_id)) == "COMPLETED"
        assert (await here.output(execution_id))["data"] == "early"


async def test_the_first_decides_and_the_others_hear_what_did(settings):
    async with stand(settings) as here:
        execution_id = await here.start(gate(), gate("last", "ok"))
        first = await here.client.signal(execution_id, "ok", 1, idempotency_key="k1")
        await here.wait_for_gates(execution_id)

        again = await here.client.signal(execution_id, "ok", 1, idempotency_key="k1")
        assert again == first
        assert await refused(here.client.signal(execution_id, "ok", 2, idempotency_key="k1")) == (
            422,
            "idempotency_mismatch",
        )
        with pytest.raises(ApiError) as late:
            await here.client.reject(execution_id, "ok", "no", idempotency_key="k2")
        assert (late.value.status, late.value.code) == (409, "already_decided")
        assert late.value.detail.endswith("is decided: it was answered")

        await here.client.approve(execution_id, "last")
        await here.engine.end(execution_id)
        # Without a key nobody knows that it is the same.
        assert (await refused(here.client.approve(execution_id, "last")))[0] == 409
        # The answer to the same is the same when all has ended.
        assert await here.client.signal(execution_id, "ok", 1, idempotency_key="k1") == first
        assert (await refused(here.client.signal(execution_id, "ok", 1)))[1] == "already_decided"


async def test_a_rejection_fails_the_node_for_its_reason(settings):
    async with stand(settings) as here:
        execution_id = await here.start(
            gate(), behind(), behind("told", after="failed"), gate("may") | {"allow_failure": True}
        )
        await here.client.reject(execution_id, "ok", "too risky")
        await here.client.reject(execution_id, "may", "never mind")
        assert str(await here.engine.end(execution_id)) == "FAILED"
        states = await here.engine.states(execution_id)
        assert states == {"ok": "FAILED", "B": "FAILED", "told": "COMPLETED", "may": "FAILED"}
        assert (await here.output(execution_id))["error"] == "it was rejected: too risky"


async def test_a_default_can_be_told_from_the_same_value_sent(settings):
    async with stand(settings) as here:
        asked = gate(timeout_s=0.05, on_timeout="complete", default={"approved": False})
        execution_id = await here.engine.start(workflow(asked))
        assert str(await here.engine.end(execution_id)) == "COMPLETED"
        output = await here.output(execution_id)
        assert (output["data"], output["timed_out"]) == ({"approved": False}, True)
        with pytest.raises(ApiError) as late:
            await here.client.signal(execution_id, "ok", {"approved": False})
        assert late.value.detail.endswith("is decided: nobody had answered in time")

        sent = await here.start(gate(timeout_s=3600, on_timeout="complete", default={}))
        await here.client.signal(sent, "ok", {"approved": False})
        await here.engine.end(sent)
        output = await here.output(sent)
        assert (output["data"], output["timed_out"]) == ({"approved": False}, False)


async def test_a_time_out_fails_the_node_where_nothing_else_is_said(settings):
    async with stand(settings) as here:
        execution_id = await here.engine.start(workflow(gate(timeout_s=0.05), behind()))
        assert str(await here.engine.end(execution_id)) == "FAILED"
        error = (await here.output(execution_id))["error"]
        assert error == "timed out: nobody had answered in time"


async def test_the_default_time_out_of_nodes_is_none_of_a_signal(settings):
    async with stand(settings) as here:
        execution_id = await here.start(gate())
        assert await here.engine.redis("ZCARD", keys.RETRIES) == 0
        waits = await here.engine.store.tasks.waits.records(execution_id, ["ok"])
        assert waits["ok"] is not None and waits["ok"].due_ms is None


async def test_a_time_out_counts_from_the_moment_it_waits(settings):
    async with stand(settings) as here:
        execution_id = await here.start(gate(timeout_s=3600))
        (wait,) = (await here.engine.store.tasks.waits.records(execution_id, ["ok"])).values()
        assert wait is not None and wait.due_ms == wait.since_ms + 3_600_000
        score = await here.engine.redis("ZSCORE", keys.RETRIES, f"{execution_id} ok")
        assert int(score) == wait.due_ms


async def test_data_that_breaks_the_schema_is_refused_and_the_node_waits_on(settings):
    async with stand(settings) as here:
        execution_id = await here.start(gate(schema=SCHEMA))
        with pytest.raises(ApiError) as misfit:
            await here.client.signal(execution_id, "ok", {"approved": "yes"})
        assert (misfit.value.status, misfit.value.code) == (400, "invalid_request")
        assert [one["path"] for one in misfit.value.errors] == ["data.approved"]
        assert misfit.value.detail == "data.approved: 'yes' is not of type 'boolean'"
        with pytest.raises(ApiError) as misfit:
            await here.client.signal(execution_id, "ok", {})
        assert misfit.value.detail == "data: 'approved' is a required property"
        assert (await here.engine.states(execution_id))["ok"] == "WAITING"
        await here.client.reject(execution_id, "ok", "a reason needs to fit no schema")
        assert str(await here.engine.end(execution_id)) == "FAILED"


async def test_a_signal_for_the_second_gate_never_opens_the_first(settings):
    async with stand(settings) as here:
        execution_id = await here.start(gate("one"), gate("two", "one"), behind("B", "two"))
        await here.client.signal(execution_id, "two", "for two")
        assert (await here.engine.states(execution_id))["one"] == "WAITING"
        await here.client.signal(execution_id, "one", "for one")
        assert str(await here.engine.end(execution_id)) == "COMPLETED"
        results = await here.engine.results(execution_id)
        assert (results["one"]["data"], results["two"]["data"]) == ("for one", "for two")


async def test_an_answer_under_pause_is_kept_until_it_goes_on(settings, redis):
    async with stand(settings) as here:
        execution_id = await here.start(gate(), behind())
        await pause_execution(here.engine.store, execution_id)
        await here.client.signal(execution_id, "ok", "meanwhile")
        assert redis.hkeys(keys.parked(execution_id)) == ["ok"]
        assert (await refused(here.client.approve(execution_id, "ok")))[1] == "already_decided"
        await resume_execution(here.engine.store, execution_id)
        assert str(await here.engine.end(execution_id)) == "COMPLETED"
        assert (await here.output(execution_id))["data"] == "meanwhile"


async def test_what_takes_no_signal_says_so(settings):
    async with stand(settings) as here:
        nodes = [gate(), behind("plain"), gate("skipped") | {"when": "false"}]
        execution_id = await here.start(*nodes)
        send = here.client.approve
        assert await refused(send("0" * 24, "ok")) == (404, "unknown_execution")
        assert await refused(send("x", "ok")) == (404, "unknown_execution")
        assert await refused(send(execution_id, "no")) == (404, "unknown_node")
        assert await refused(send(execution_id, "plain")) == (404, "no_signal")
        await until_state(here, execution_id, "skipped", "SKIPPED")
        assert await refused(send(execution_id, "skipped")) == (409, "wrong_state")
        await cancel_execution(here.engine.store, execution_id)
        with pytest.raises(ApiError) as ended:
            await send(execution_id, "ok")
        assert (ended.value.status, ended.value.code) == (409, "wrong_state")
        assert ended.value.detail.endswith("it is CANCELLED")


async def test_each_item_of_a_map_is_asked_for_itself(settings, redis):
    async with stand(settings) as here:
        asked = gate("fan", prompt="Take {{ item }}?") | {"map": {"over": "{{ input.names }}"}}
        asked["map"]["concurrency"] = 2
        names = {"names": ["a", "b", "c"]}
        execution_id = await here.engine.start(workflow(asked, behind("B", "fan"), input=names))

        async def are_open() -> bool:
            items = [one async for one in here.client.items(execution_id, "fan")]
            return [one["state"] for one in items].count("WAITING") == 2

        await until(are_open, "two items to wait")
        send = here.client.signal
        with pytest.raises(ApiError, match=r"name one of its items, for example 'fan\.0'") as error:
            await send(execution_id, "fan", 0)
        assert error.value.code == "no_signal"
        assert (await refused(send(execution_id, "fan.2", 0)))[1] == "unknown_node"
        assert (await refused(send(execution_id, "fan.0:output", 0)))[1] == "unknown_node"
        await send(execution_id, "fan.1", "for b")
        await until(are_open, "the third item to wait")
        await send(execution_id, "fan.2", "for c")
        await here.client.signal(execution_id, "fan.0", "for a")
        assert str(await here.engine.end(execution_id)) == "COMPLETED"
        results = (await here.output(execution_id, "fan"))["results"]
        assert [one["data"] for one in results] == ["for a", "for b", "for c"]
        assert find_violations(redis, [execution_id]) == []


async def until_state(here: Stand, execution_id: str, node_id: str, state: str) -> None:
    async def reached() -> bool:
        return (await here.engine.states(execution_id))[node_id] == state

    await until(reached, f"{node_id} {state}")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b'{"data": 1, "reject": "no"}', 400),
        (b'{"reject": ""}', 400),
        (b'{"reject": null}', 400),
        (b'{"approve": true}', 400),
        (b'{"data": 1e999}', 400),
        (b'{"data": 12345678901234567890123}', 400),
        (b'{"data": 1, "data": 2}', 400),
        (b"[" * 100_000, 400),
        (b'{"data": "' + b"x" * 2**20 + b'"}', 413),
    ],
    ids=lambda one: one[:24] if isinstance(one, bytes) else one,
)
async def test_a_body_says_one_thing_and_not_too_much(settings, body, status):
    async with stand(settings) as here:
        execution_id = await here.start(gate())
        path = f"/workflows/{execution_id}/nodes/ok/signal"
        answer = await here.client._http.post(path, content=body)
        assert answer.status_code == status, answer.text
        if status == 413:
            assert "api.body_max_mb" not in answer.text
        assert (await here.client._http.get(path)).status_code == 405
        assert (await here.engine.states(execution_id))["ok"] == "WAITING"
        await here.client.signal(execution_id, "ok", None)
        await here.engine.end(execution_id)
        assert (await here.output(execution_id))["data"] is None


async def test_a_megabyte_is_taken_as_it_is(settings):
    data = {"text": "ä\u2028\\" * 70_000, "zero": 0, "empty": "", "no": False}
    async with stand(settings) as here:
        execution_id = await here.start(gate())
        await here.client.signal(execution_id, "ok", json.loads(json.dumps(data)))
        await here.engine.end(execution_id)
        assert (await here.output(execution_id))["data"] == data


@pytest.mark.parametrize("data", [False, 0, "", [], {}, None])
async def test_nothing_much_is_an_answer_too(settings, data):
    async with stand(settings) as here:
        execution_id = await here.start(gate(timeout_s=3600, on_timeout="complete", default="x"))
        assert (await here.client.signal(execution_id, "ok", data))["data"] == data
        assert str(await here.engine.end(execution_id)) == "COMPLETED"
        output = await here.output(execution_id)
        assert (output["data"], output["timed_out"]) == (data, False)


async def test_what_is_asked_is_shown_where_people_look(settings):
    async with stand(settings) as here:
        first = node("A", [], "noop")
        asked = gate("ok", "A", prompt="Ship {{ A.status }}? " + "x" * 5_000)
        execution_id = await here.start(first, asked)
        shown = await here.client.node(execution_id, "ok")
        prompt = shown["waiting"]["text"]
        assert prompt.startswith("Ship ok? xxx") and len(prompt) == 2_001
        (row,) = [one async for one in here.client.nodes(execution_id, state="WAITING")]
        assert row["waiting"]["text"] == prompt
        explained = await here.client.explain(execution_id, "ok")
        (reason,) = explained["nodes"][0]["reasons"]
        assert reason["code"] == "signal"
        assert f"POST /workflows/{execution_id}/nodes/ok/signal" in reason["message"]
        assert "Ship ok?" in reason["message"]


async def test_a_rerun_keeps_the_answer_of_a_node_that_does_not_run_again(settings):
    async with stand(settings) as here:
        nodes = [gate("one"), gate("two", "one"), node("bad", ["two"], "unreliable_handler")]
        nodes[2]["config"] = {"fail_first_attempts": 1}
        execution_id = await here.start(*nodes)
        await here.client.signal(execution_id, "one", "first")
        await here.wait_for_gates(execution_id)
        await here.client.signal(execution_id, "two", "second")
        assert str(await here.engine.end(execution_id)) == "FAILED"

        planned = await plan_rerun(here.engine.store, execution_id, "two")
        again = await rerun_execution(here.engine.store, planned)
        await trigger_workflow(here.engine.store, again)
        await here.wait_for_gates(again)
        assert (await here.output(again, "one"))["data"] == "first"
        assert await refused(here.client.approve(again, "one")) == (409, "wrong_state")
        await here.client.signal(again, "two", "anew")
        await here.engine.end(again)
        assert (await here.output(again, "two"))["data"] == "anew"


# What a race may come to.
OUTCOMES = {"sent", "timed out", "cancelled"}


async def race(here: Stand, execution_id: str, chance: random.Random) -> str:
    """A signal, a time-out and a cancellation at once; the one outcome, as the API, the events and
    the store have it."""
    sending = [
        here.client.signal(execution_id, "ok", "sent"),
        here.engine.store.tasks.waits.wake(execution_id, "ok", "date"),
        cancel_execution(here.engine.store, execution_id),
    ]
    # The signal goes the longer way, through the API: the others are late by as much, or they win.
    begun_s = time.monotonic()
    await here.client.node(execution_id, "ok")
    way_s = time.monotonic() - begun_s
    answers = await asyncio.gather(
        *(late(one, chance.uniform(0, 2 * way_s)) for one in sending), return_exceptions=True
    )
    status = str(await here.engine.end(execution_id))
    events = [event async for event in here.client.events(execution_id)]
    types = [event.type for event in events]
    ends = [one for one in types if one in END_TYPES]
    assert ends == [f"execution.{status.lower()}"]
    assert types.count("node.woken") <= 1
    output = (await here.engine.results(execution_id)).get("ok")
    shown = await here.client.node(execution_id, "ok")
    decisions = await here.engine.store.tasks.waits.decisions(execution_id, ["ok"])
    if status == "CANCELLED":
        assert (shown["state"], output) == ("CANCELLED", None)
        assert "node.completed" not in types
        return "cancelled"
    assert shown["output"] == output
    assert types.count("node.completed") == 1
    assert isinstance(answers[2], WrongState)
    decision = decisions["ok"]
    assert decision is not None and output["at_ms"] == decision.at_ms
    if isinstance(answers[0], dict):
        assert (output["data"], output["timed_out"], decision.kind) == ("sent", False, "signal")
        return "sent"
    assert isinstance(answers[0], ApiError) and answers[0].code == "already_decided"
    assert (output["data"], output["timed_out"], decision.kind) == (None, True, "date")
    return "timed out"


async def late(step: Awaitable[T], pause_s: float) -> T:
    await asyncio.sleep(pause_s)
    return await step


@pytest.mark.parametrize("count", [30, pytest.param(1_000, marks=pytest.mark.thorough)])
async def test_of_a_signal_a_time_out_and_a_cancellation_one_decides(settings, redis, store, count):
    chance = random.Random(count)
    outcomes: dict[str, str] = {}
    with running_service(lambda _: Reply(204)) as service:
        async with stand(settings, workers=2) as here, delivering(store, "127.0.0.1"):
            for _ in range(count):
                asked = gate(timeout_s=3600, on_timeout="complete")
                execution_id = await here.start(asked, callback={"url": service.url})
                outcomes[execution_id] = await race(here, execution_id, chance)
            await until(lambda: len(service.requests) >= count, "all callbacks")
        told = Counter((one.json["execution_id"], one.json["status"]) for one in service.requests)
    assert told == {
        (one, "CANCELLED" if outcome == "cancelled" else "COMPLETED"): 1
        for one, outcome in outcomes.items()
    }
    assert find_violations(redis, list(outcomes)) == []
    if count >= 1_000:
        assert set(outcomes.values()) == OUTCOMES
