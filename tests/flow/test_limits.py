"""Limits, with real workers: never above what they say, and nobody waits in vain."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from flowd.cli.remote import as_commands
from flowd.cli.samples import load_samples
from flowd.config import WorkersSettings
from flowd.diagnosis.doctor import check, look
from flowd.diagnosis.observer import Observer
from flowd.handlers.registry import Registry, built_in_registry, handler
from flowd.orchestrator.plans import Plans
from flowd.store.limits import Limit
from flowd.store.redis import keys
from flowd.workflow.definition import WorkflowDefinition
from tests.flow import handlers
from tests.flow.engine import _HANDLERS, Engine, calls, node, until, workflow
from tests.flow.test_reads import serving

# Calls under way by key, the most there were, and when each began.
RUNNING: dict[str, int] = {}
MOST: dict[str, int] = {}
BEGUN: list[float] = []


@handler("counted")
async def counted(config, _context):
    key = str(config.get("key"))
    BEGUN.append(time.monotonic())
    RUNNING[key] = RUNNING.get(key, 0) + 1
    MOST[key] = max(MOST.get(key, 0), RUNNING[key])
    try:
        await asyncio.sleep(config.get("seconds", 0.001))
    finally:
        RUNNING[key] -= 1
    return {}


def engine_of(settings, **options):
    for one in (RUNNING, MOST, BEGUN):
        one.clear()
    registry = Registry({**_HANDLERS, "counted": __name__})
    return Engine(settings, registry=registry, **options)


def limited(node_id, limit="api", dependencies=(), handler="counted", **config):
    return {**node(node_id, dependencies, handler, **config), "limit": limit}


def many(count, **config):
    return workflow(*(limited(f"n{at:04}", **config) for at in range(count)))


async def waiting(engine, count, place="api"):
    async def are_waiting():
        return await engine.redis("ZCARD", keys.waiters(place)) == count

    await until(are_waiting, f"{count} that wait for {place}")


async def violations(engine):
    return [one for each in check(await look(engine.store)) for one in each.violations]


async def test_no_more_run_at_once_than_a_limit_says(settings):
    async with engine_of(settings) as engine:
        await engine.store.tasks.limits.put(Limit("api", max=3))
        execution_id = await engine.run(many(60))

        assert (await engine.end(execution_id)) == "COMPLETED"
        assert MOST == {"None": 3}
        assert await violations(engine) == []
        assert await engine.redis("KEYS", "flowd:limit:*") == []


async def test_each_key_has_its_own_places_and_none_waits_for_another(settings):
    async with engine_of(settings) as engine:
        await engine.store.tasks.limits.put(Limit("tenant", max=1))
        limit = {"name": "tenant", "key": "{{ input.tenant }}"}
        nodes = [limited(f"n{at}", limit, key="{{ input.tenant }}") for at in range(8)]
        started = [
            await engine.start(workflow(*nodes), b'{"tenant": "%s"}' % tenant)
            for tenant in (b"a", b"b", b"c d")
        ]

        assert [await engine.end(one) for one in started] == ["COMPLETED"] * 3
        assert MOST == {"a": 1, "b": 1, "c d": 1}


async def test_each_item_of_a_map_takes_a_place_by_its_own_key(settings):
    async with engine_of(settings) as engine:
        await engine.store.tasks.limits.put(Limit("tenant", max=1))
        fan = limited("fan", {"name": "tenant", "key": "{{ item }}"}, key="{{ item }}")
        fan["map"] = {"over": "{{ input.rows }}"}
        execution_id = await engine.run(workflow(fan), b'{"rows": ["x", "y", "x", "y", "x"]}')

        assert (await engine.end(execution_id)) == "COMPLETED"
        assert MOST == {"x": 1, "y": 1}


async def test_a_node_whose_key_cannot_be_made_fails_and_says_so(settings):
    async with engine_of(settings) as engine:
        limit = {"name": "tenant", "key": "{{ input.tenant }}"}
        execution_id = await engine.run(workflow(limited("A", limit)))

        assert (await engine.end(execution_id)) == "FAILED"
        output = await engine.redis("GET", keys.output(execution_id, "A"))
        assert "the key of limit 'tenant'" in output
        assert BEGUN == []


async def test_a_node_that_is_skipped_asks_for_no_place(settings):
    async with engine_of(settings) as engine:
        await engine.store.tasks.limits.put(Limit("api", max=0))
        execution_id = await engine.run(workflow({**limited("A"), "when": "false"}))

        assert (await engine.end(execution_id)) == "COMPLETED"


async def test_a_hundred_that_wait_for_a_place_hold_up_nobody(settings):
    one_slot = replace(settings, workers=WorkersSettings(concurrency=1))
    async with engine_of(one_slot, workers=1) as engine:
        await engine.store.tasks.limits.put(Limit("api", max=0))
        held = await engine.start(many(200))
        await waiting(engine, 200)

        free = await engine.run(workflow(node("A")))

        assert (await engine.end(free)) == "COMPLETED"
        await engine.store.tasks.limits.delete("api")
        assert (await engine.end(held)) == "COMPLETED"


async def test_who_is_retried_gives_its_place_away_meanwhile(settings):
    async with engine_of(settings) as engine, engine.ticking():
        await engine.store.tasks.limits.put(Limit("api", max=1))
        handlers.FATED.add("A")
        failing = limited("A", handler="fated")
        failing["retry"] = {"max_attempts": 2, "delay_s": 3600}
        first = await engine.start(workflow(failing))

        async def is_retrying():
            return (await engine.states(first))["A"] == "RETRYING"

        await until(is_retrying, "the retry")
        second = await engine.run(workflow(limited("B")))
        assert (await engine.end(second)) == "COMPLETED"


async def test_a_call_of_a_repeat_holds_a_place_and_its_pause_does_not(settings):
    async with engine_of(settings) as engine, engine.ticking():
        await engine.store.tasks.limits.put(Limit("api", max=1))
        polling = {**limited("A"), "repeat": {"until": "1 == 2", "delay_s": 3600}}
        first = await engine.start(workflow(polling))

        async def is_paused():
            return await engine.redis("ZSCORE", keys.RETRIES, f"{first} A")

        await until(is_paused, "the pause")
        assert (await engine.end(await engine.run(workflow(limited("B"))))) == "COMPLETED"
        # The second call asks again, and is still the second.
        await engine.redis("ZADD", keys.RETRIES, "XX", 1, f"{first} A")

        async def has_called_again():
            return await engine.redis("HGET", f"workflow:{first}:run", "waits:A") == "2"

        await until(has_called_again, "the second call")


async def test_eight_workers_at_fifty_a_second_make_fifty_a_second(settings):
    async with engine_of(settings, workers=8) as engine, engine.ticking():
        await engine.store.tasks.limits.put(Limit("api", per_s=50))
        execution_id = await engine.run(many(51))

        assert (await engine.end(execution_id)) == "COMPLETED"
        # By the clock of the server alone: who waited has an entry since its turn came, and the
        # first, who did not, had one before it started. A ms is lost where both are rounded down.
        ids = [f"n{at:04}" for at in range(51)]
        records = await engine.store.nodes.records(execution_id, ids)
        queued_ms = [one.queued_ms for one in records.values()]
        assert max(queued_ms) - min(queued_ms) >= 999


async def test_explain_says_what_to_do_about_a_limit_that_lets_nothing_run(settings):
    async with engine_of(settings) as engine:
        await engine.store.tasks.limits.put(Limit("api", max=0))
        execution_id = await engine.start(workflow(limited("A")))
        await waiting(engine, 1)

        explanation = await Observer(engine.store, Plans(engine.store)).explain(execution_id)

        ((_, message),) = explanation.nodes[0].reasons
        assert as_commands(message) == (
            "it waits for a place of the limit: api; it lets nothing run (max 0): "
            "`flowd limits put api --max 1`"
        )


async def test_explain_says_who_holds_the_places_and_who_waits_before(settings):
    async with engine_of(settings) as engine:
        await engine.store.tasks.limits.put(Limit("api", max=1))
        first = await engine.start(workflow(limited("A", handler="held")))
        await until(lambda: "A" in handlers.GATES, "A to run")
        second = await engine.start(workflow(limited("B")))
        await waiting(engine, 1)
        third = await engine.start(workflow(limited("C")))
        await waiting(engine, 2)

        explanation = await Observer(engine.store, Plans(engine.store)).explain(third, "C")

        ((code, message),) = explanation.nodes[0].reasons
        assert code == "waiting_for_place"
        assert message == (
            "it waits for a place of the limit: api; 1 of 1 hold one: "
            f"A of {first}; 1 wait before it"
        )
        handlers.GATES["A"].set()
        for one in (first, second, third):
            assert (await engine.end(one)) == "COMPLETED"


async def test_the_api_makes_shows_and_lifts_limits(settings, lines):
    async with serving(settings, workers=0) as api:
        client = api._client
        assert (await client.put("/limits/api", json={})).status_code == 400
        assert (await client.put("/limits/api", json={"burst": 2})).status_code == 400
        unknown = await client.put("/limits/api", json={"max": 1, "mox": 1})
        assert (unknown.status_code, unknown.json()["errors"][0]["path"]) == (400, "mox")
        assert (await client.put("/limits/a:b", json={"max": 1})).status_code == 400

        made = await client.put("/limits/api", json={"max": 0, "per_s": 0.5})
        assert (made.status_code, made.json()) == (201, {"name": "api", "message": "Limit created"})
        again = await client.put("/limits/api", json={"max": 0, "per_s": 0.5})
        assert (again.status_code, again.json()["message"]) == (200, "Limit unchanged")

        row = {"name": "api", "max": 0, "per_s": 0.5, "burst": None, "holding": 0, "waiting": 0}
        assert (await client.get("/limits")).json() == {"limits": [row]}
        nobody = {"keys": [], "holders": [], "waiters": []}
        assert (await client.get("/limits/api")).json() == row | nobody
        assert 'flowd_limit_waiting{limit="api"} 0.0' in (await client.get("/metrics")).text

        assert (await client.delete("/limits/api")).json()["message"] == "Limit deleted"
        for gone in (await client.get("/limits/api"), await client.delete("/limits/api")):
            assert (gone.status_code, gone.json()["code"]) == (404, "unknown_limit")
    for event in ("limit.changed", "limit.deleted"):
        assert lines.of(event) == [("info", {"limit": "api"})]


async def test_the_reconciler_lets_one_that_stands_in_no_row_ask_again(settings):
    async with engine_of(settings) as engine:
        await engine.store.tasks.limits.put(Limit("api", max=0))
        execution_id = await engine.start(workflow(limited("A")))
        await waiting(engine, 1)
        await engine.redis("DEL", keys.waiters("api"))
        await engine.store.tasks.limits.put(Limit("api", max=1))

        record = (await engine.store.executions.attempts(execution_id, ["A"]))[0]
        assert await engine.store.executions.restore_node(
            execution_id, "A", state="WAITING", record=record
        )
        assert (await engine.end(execution_id)) == "COMPLETED"


async def test_who_waits_for_a_place_is_shown_with_how_many_are_before_it(settings):
    async with serving(settings) as api:
        await api.engine.store.tasks.limits.put(Limit("api", max=0))
        ids = [await api.engine.start(workflow(limited("A", handler="echo"))) for _ in range(3)]
        await waiting(api.engine, 3)
        queued = [(await api.engine.store.nodes.records(one, ["A"]))["A"].queued_ms for one in ids]

        rows = [(await api.request(f"/workflows/{one}/nodes"))["nodes"][0] for one in ids]
        assert {(one["waiting"]["waits_for"], one["waiting"]["text"]) for one in rows} == {
            ("slot", "api")
        }
        # Those that were queued within one millisecond have some order.
        assert sorted(one["waiting"]["before"] for one in rows) == [0, 1, 2]
        assert queued == sorted(queued)
        (detail,) = {(await api.request(f"/workflows/{ids[0]}/nodes/A"))["waiting"]["text"]}
        assert detail == "api"


async def test_who_is_urgent_is_shown_before_who_has_waited_longer(settings):
    reading = replace(settings.workers, queues=("urgent", "default", "low"))
    async with serving(replace(settings, workers=reading), workers=1) as api:
        engine = api.engine
        await engine.store.tasks.limits.put(Limit("api", max=0))
        ids = {}
        for at, queue in enumerate(("low", "default", "urgent")):
            ids[queue] = await engine.start(
                workflow({**limited("A", handler="echo"), "queue": queue})
            )
            await waiting(engine, at + 1)

        views = {
            queue: (await api.request(f"/workflows/{one}/nodes/A"))["waiting"]
            for queue, one in ids.items()
        }
        assert {queue: one["before"] for queue, one in views.items()} == {
            "urgent": 0,
            "default": 1,
            "low": 2,
        }
        assert (await api.request("/limits/api"))["waiters"] == [
            {
                "execution_id": ids[queue],
                "name": "test",
                "node_id": "A",
                "queue": queue,
                "key": None,
                "since_ms": views[queue]["since_ms"],
            }
            for queue in ("urgent", "default", "low")
        ]
        explanation = await Observer(engine.store, Plans(engine.store)).explain(ids["low"], "A")
        ((_, message),) = explanation.nodes[0].reasons
        assert message.endswith("; 2 wait before it")

        await engine.store.tasks.limits.put(Limit("api", max=1))
        for one in ids.values():
            assert (await engine.end(one)) == "COMPLETED"


async def test_who_is_let_in_while_somebody_looks_is_not_shown_as_waiting(settings):
    async with serving(settings) as api:
        await api.engine.store.tasks.limits.put(Limit("api", max=0))
        ids = [await api.engine.start(workflow(limited("A"))) for _ in range(2)]
        await waiting(api.engine, 2)
        await api.engine.redis("HDEL", keys.waits(ids[0]), "A")

        shown = await api.request("/limits/api")
        assert [one["execution_id"] for one in shown["waiters"]] == ids[1:]


@pytest.mark.parametrize("held_by", ["limit", "concurrency"])
async def test_of_many_inputs_those_that_wait_start_in_the_order_given(settings, held_by):
    """They were queued in one millisecond, and stood by the random half of their ids."""
    async with serving(settings, workers=1) as api:
        await api.engine.store.tasks.limits.put(Limit("api", max=1))
        one = node("A", (), "echo") | ({"limit": "api"} if held_by == "limit" else {})
        said = {"name": "w", "dag": {"nodes": [one]}}
        said |= {"concurrency": {"max": 1}} if held_by == "concurrency" else {}
        await api._client.put("/definitions/w", json=said)
        answer = await api._client.post("/definitions/w/run", json={"inputs": [{}] * 60})
        ids = answer.json()["execution_ids"]

        for each in ids:
            assert await api.engine.end(each) == "COMPLETED"
        assert [execution_id for execution_id, _, _ in handlers.CALLS] == ids


async def test_items_that_wait_for_a_limit_start_in_the_order_of_the_list(settings):
    """`fan.10` came before `fan.2`."""
    async with engine_of(settings, workers=1) as engine:
        await engine.store.tasks.limits.put(Limit("api", max=1))
        fan = {**limited("fan", handler="echo"), "map": {"over": "{{ input.rows }}"}}
        rows = {"rows": list(range(40))}
        execution_id = await engine.run(workflow(fan, input=rows))

        assert calls(execution_id) == [f"fan.{at}" for at in range(40)]


async def test_the_sample_that_holds_back_ends_without_a_network(settings):
    (text,) = load_samples(("hold",)).values()
    async with Engine(settings, registry=built_in_registry()) as engine:
        for name, most in (("api", 1), ("customer", 1)):
            await engine.store.tasks.limits.put(Limit(name, max=most))
        execution_id = await engine.run(WorkflowDefinition.model_validate_json(text))

        assert await engine.states(execution_id) == {"weather": "COMPLETED", "report": "COMPLETED"}
        assert await engine.redis("KEYS", "flowd:limit:*") == []
