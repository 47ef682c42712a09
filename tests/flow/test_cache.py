"""The cache, with real workers: equal calls are made once, and no output is too old, or null."""

from __future__ import annotations

import asyncio

import pytest

from flowd.diagnosis.doctor import check, look
from flowd.orchestrator.executor import trigger_workflow
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.redaction import REDACTOR
from flowd.store.events import BEGINNING, behind, parse_event
from flowd.store.limits import Limit
from flowd.store.redis import keys
from tests.flow import handlers
from tests.flow.engine import Engine, calls, node, until, workflow
from tests.flow.test_reads import serving

HOUR = {"ttl_s": 3600}


def cached(node_id, dependencies=(), handler="echo", cache=HOUR, **config):
    return {**node(node_id, dependencies, handler, **config), "cache": cache}


async def kept(engine, count):
    async def are_kept():
        return (await engine.store.tasks.cache.size()).entries == count

    await until(are_kept, f"{count} outputs that are kept")


async def record(engine, execution_id, node_id):
    return (await engine.store.nodes.records(execution_id, [node_id]))[node_id]


async def test_an_equal_call_takes_what_is_kept_and_says_so(settings):
    definition = workflow(
        node("A", x="{{ input.x }}"),
        cached("B", ["A"], x="{{ A.x }}"),
        node("C", ["B"], y="{{ B.x }}"),
    )
    async with Engine(settings) as engine:
        first = await engine.run(definition, b'{"x": 1}')
        await kept(engine, 1)
        second = await engine.run(definition, b'{"x": 1}')
        other = await engine.run(definition, b'{"x": 2}')

        assert [calls(one) for one in (first, second, other)] == [
            list("ABC"),
            list("AC"),
            list("ABC"),
        ]
        assert await engine.results(second) == await engine.results(first)
        assert (await engine.results(other))["C"] == {"y": 2}
        assert [(await record(engine, second, one)).is_cached for one in "ABC"] == [
            False,
            True,
            False,
        ]
        assert not (await record(engine, first, "B")).is_cached
        assert [one for each in check(await look(engine.store)) for one in each.violations] == []


async def test_a_key_is_shared_between_workflows_and_the_config_does_not_count(settings):
    weather = {"ttl_s": 60, "key": "weather {{ input.city }}"}
    one = workflow(cached("A", cache=weather, said="here"), name="one")
    two = workflow(cached("Z", cache=weather, said="there"), name="two")
    async with Engine(settings) as engine:
        await engine.run(one, b'{"city": "Ulm"}')
        await kept(engine, 1)

        same = await engine.run(two, b'{"city": "Ulm"}')
        other = await engine.run(two, b'{"city": "Bonn"}')
        assert (calls(same), await engine.results(same)) == ([], {"Z": {"said": "here"}})
        assert await engine.results(other) == {"Z": {"said": "there"}}


@pytest.mark.parametrize("given", [b"{}", b'{"city": null}'])
async def test_without_a_key_nothing_is_cached_and_nothing_fails(settings, given):
    definition = workflow(cached("A", cache={"ttl_s": 60, "key": "{{ input.city }}"}, x=1))
    async with Engine(settings) as engine:
        for _ in range(2):
            execution_id = await engine.run(definition, given)
            assert (await engine.states(execution_id), calls(execution_id)) == (
                {"A": "COMPLETED"},
                ["A"],
            )
        assert (await engine.store.tasks.cache.size()).entries == 0


async def test_only_what_completed_is_kept(settings):
    fails = {**cached("A", handler="fail"), "allow_failure": True}
    skips = {**cached("B", x=1), "when": "input.go"}
    definition = workflow(fails, skips)
    async with Engine(settings) as engine:
        for _ in range(2):
            execution_id = await engine.run(definition, b'{"go": false}')
            assert await engine.states(execution_id) == {"A": "FAILED", "B": "SKIPPED"}
            assert calls(execution_id) == ["A"]
        assert (await engine.store.tasks.cache.size()).entries == 0


async def test_what_is_over_is_made_anew(settings):
    definition = workflow(cached("A", x=1))
    async with Engine(settings) as engine:
        await engine.run(definition)
        await kept(engine, 1)
        # An hour later.
        await engine.redis("HSET", keys.CLOCK, "ahead_ms", 3_600_000)

        assert calls(await engine.run(definition)) == ["A"]


async def test_a_rerun_does_it_again_and_renews_what_is_kept(settings):
    definition = workflow(cached("A", cache={"ttl_s": 60, "key": "k"}, at="{{ execution.id }}"))
    async with Engine(settings) as engine:
        first = await engine.run(definition)
        await kept(engine, 1)
        again = await rerun_execution(engine.store, await plan_rerun(engine.store, first, "A"))
        await trigger_workflow(engine.store, again)
        await engine.end(again)
        assert calls(again) == ["A"]

        async def is_renewed():
            execution_id = await engine.run(definition)
            return (await engine.results(execution_id))["A"] == {"at": again}

        await until(is_renewed, "the output of the rerun")


async def test_what_has_waited_is_amid_its_calls_and_takes_nothing_that_was_kept_meanwhile(
    settings,
):
    same = {"ttl_s": 3600, "key": "k"}
    async with Engine(settings) as engine:
        first = await engine.start(
            workflow(cached("A", handler="poll", cache=same, waits=1, after_s=60))
        )

        async def waits():
            return await engine.states(first) == {"A": "WAITING"}

        await until(waits, "the wait")
        await engine.run(workflow(cached("B", handler="poll", cache=same, waits=0)))
        await kept(engine, 1)
        # Two minutes later.
        await engine.redis("HSET", keys.CLOCK, "ahead_ms", 120_000)
        await engine.tick()
        await engine.end(first)
        assert (calls(first), await engine.results(first)) == (["A", "A"], {"A": {"call": 2}})


async def test_a_hit_takes_no_place_of_a_limit(settings):
    limited = {**cached("A", x=1), "limit": "api"}
    async with Engine(settings) as engine:
        await engine.run(workflow(limited))
        await kept(engine, 1)
        await engine.store.tasks.limits.put(Limit("api", max=0))

        assert await engine.end(await engine.start(workflow(limited))) == "COMPLETED"
        assert await engine.redis("KEYS", "flowd:limit:*") == []


async def test_who_has_waited_for_a_place_takes_what_was_kept_meanwhile(settings):
    """Ten equal nodes and one place: the first calls, the others have nothing left to do."""
    nodes = [{**cached(f"n{at}", handler="held", x=1), "limit": "api"} for at in range(10)]
    async with Engine(settings, workers=1) as engine:
        await engine.store.tasks.limits.put(Limit("api", max=1))
        execution_id = await engine.start(workflow(*nodes))
        await until(lambda: calls(execution_id), "the first call")
        (first,) = calls(execution_id)

        async def others_wait():
            return await engine.redis("ZCARD", keys.waiters("api")) == 9

        await until(others_wait, "nine that wait")
        handlers.GATES[first].set()
        for at in range(10):
            handlers.GATES.setdefault(f"n{at}", asyncio.Event()).set()

        assert await engine.end(execution_id) == "COMPLETED"
        # What was kept may be written a moment after the place was given on.
        assert len(calls(execution_id)) <= 2
        assert await engine.redis("KEYS", "flowd:limit:*") == []


async def test_each_item_of_a_map_is_a_call_of_its_own(settings):
    fan = {**cached("A", handler="echo", x="{{ item }}"), "map": {"over": "{{ input.rows }}"}}
    async with Engine(settings) as engine, engine.ticking():
        await engine.run(workflow(fan), b'{"rows": [1, 2, 3]}')
        await kept(engine, 3)
        second = await engine.run(workflow(fan), b'{"rows": [3, 4, 1]}')

        assert calls(second) == ["A.1"]
        assert (await engine.results(second))["A"]["results"] == [{"x": 3}, {"x": 4}, {"x": 1}]
        assert (await record(engine, second, "A.0")).is_cached


async def test_nothing_is_kept_under_a_key_with_a_secret_in_it(settings, monkeypatch):
    monkeypatch.setattr("flowd.workers.intake.REDACTOR", type(REDACTOR)())
    from flowd.workers import intake

    intake.REDACTOR.learn("s3cret-value")
    by_key = {"ttl_s": 60, "key": "k {{ input.token }}"}
    definition = workflow(cached("A", cache=by_key), cached("B", token="{{ input.token }}"))
    async with Engine(settings) as engine:
        for _ in range(2):
            execution_id = await engine.run(definition, b'{"token": "s3cret-value"}')
            assert sorted(calls(execution_id)) == ["A", "B"]
        assert (await engine.store.tasks.cache.size()).entries == 0
        await engine.run(definition, b'{"token": "innocent"}')
        await kept(engine, 2)


async def test_a_full_or_damaged_cache_stops_nobody(settings):
    definition = workflow(cached("A", x=1))
    async with Engine(settings) as engine:
        await engine.redis("SET", keys.CACHE, "damaged")
        for _ in range(2):
            execution_id = await engine.run(definition)
            assert (await engine.states(execution_id), calls(execution_id)) == (
                {"A": "COMPLETED"},
                ["A"],
            )


async def test_the_api_shows_what_was_cached_and_clears_it(settings, lines):
    definition = workflow(cached("A", x=1), cached("B", cache={"ttl_s": 9, "key": "b/1"}, x=1))
    async with serving(settings) as api:
        engine = api.engine
        await engine.run(definition)
        await kept(engine, 2)
        second = await engine.run(definition)

        shown = await api.request(f"/workflows/{second}/nodes/A")
        assert (shown["cached"], shown["duration_ms"], shown["output"]) == (True, 0, {"x": 1})
        assert [
            one["cached"] for one in (await api.request(f"/workflows/{second}/nodes"))["nodes"]
        ] == [True, True]
        view = await api.request("/cache")
        assert (view["entries"], [one["handler"] for one in view["handlers"]]) == (2, ["echo"])
        assert view["bytes"] == view["handlers"][0]["bytes"]
        refused = await api.request("/cache?key=b", 400, "DELETE")
        assert "/cache/{handler}" in refused["detail"]
        assert (await api.request("/cache/echo?key=b/", method="DELETE"))["removed"] == 1
        assert (await api.request("/cache", method="DELETE"))["removed"] == 1
        assert sorted(calls(await engine.run(definition))) == ["A", "B"]
    assert lines.of("cache.cleared") == [
        ("info", {"handler": "echo", "removed": 1}),
        ("info", {"removed": 1}),
    ]


async def test_hits_are_counted_and_told_as_events(settings):
    definition = workflow(cached("A", x=1))
    async with Engine(settings, workers=1) as engine:
        await engine.run(definition)
        await kept(engine, 1)
        second = await engine.run(definition)
        await engine.stop_worker(engine.workers[0])

        counts = (await engine.store.health.metrics.snapshot()).counts
        assert (counts["cache miss echo"], counts["cache hit echo"]) == (1, 1)
        assert counts["ended COMPLETED echo"] == 2
        assert (
            sum(
                count
                for name, count in counts.items()
                if name.startswith("ran ") and name.endswith(" echo")
            )
            == 1
        )
        page = await engine.store.events.read(BEGINNING)
        told = [
            parse_event(entry, behind(entry[0]), at)
            for entry in page.entries
            for at in range(len(entry[1]) // 2)
        ]
        ends = {
            one.execution_id: one.rarely == {"cached": True}
            for one in told
            if one.type == "node.completed"
        }
        assert ends[second] is True
        assert list(ends.values()).count(False) == 1
