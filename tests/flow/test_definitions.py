"""Saved definitions over HTTP: what is saved stays as it is, and what is run is started."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from flowd.client import ApiError, AsyncClient
from flowd.handlers.forked_calls import TookTooMuch
from flowd.handlers.registry import built_in_registry
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import RedisClient
from scripts.soaking.checker import find_violations
from tests.flow.api_server import ApiServer, api_server
from tests.flow.engine import Engine, node
from tests.manual import blocks

NAME = "report"


def written(*nodes: Any, **fields: Any) -> dict[str, Any]:
    return {
        "name": "Daily report",
        "dag": {"nodes": list(nodes) or [node("A", (), "noop")]},
        **fields,
    }


READS = written(
    node("A", (), "transform", input="{{ input }}", expression="{got: @}"),
    input={"day": "today", "of": "us"},
)


@dataclass
class Stand:
    engine: Engine
    api: ApiServer
    client: AsyncClient

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Status and body of a raw request."""
        call = self.client._http.request
        content = None if body is None else orjson.dumps(body)
        answer = await call(method, path, content=content, headers=headers)
        return answer.status_code, answer.json()


@asynccontextmanager
async def stand(settings: Any, workers: int = 1) -> AsyncIterator[Stand]:
    async with (
        Engine(settings, workers, built_in_registry()) as engine,
        engine.ticking(),
        api_server(settings) as api,
        AsyncClient(f"http://127.0.0.1:{api.port}") as client,
    ):
        yield Stand(engine, api, client)


async def refused(answer: Awaitable[Any]) -> tuple[int, str]:
    with pytest.raises(ApiError) as error:
        await answer
    return error.value.status, error.value.code


async def test_a_version_is_made_by_what_is_new_and_never_changes(settings, redis, lines):
    async with stand(settings, 0) as here:
        one = written(node("A", (), "noop"))
        assert await here.send("PUT", f"/definitions/{NAME}", one) == (
            201,
            {"name": NAME, "version": 1, "message": "Definition saved"},
        )
        before = redis.hgetall(keys.saved_definition(NAME))
        assert await here.send("PUT", f"/definitions/{NAME}", one) == (
            200,
            {"name": NAME, "version": 1, "message": "Definition unchanged"},
        )
        assert redis.hgetall(keys.saved_definition(NAME)) == before
        assert (await here.client.put_definition(NAME, READS))["version"] == 2
        assert (await here.client.put_definition(NAME, one))["version"] == 3
        assert (await here.client.put_definition("other", one))["version"] == 1

        shown = await here.client.saved_definition(NAME, 1)
        assert (shown["name"], shown["version"], shown["latest"]) == (NAME, 1, 3)
        assert shown["definition"]["dag"]["nodes"][0]["id"] == "A"
        latest = await here.client.saved_definition(NAME)
        assert latest["version"] == 3
        rows = [row async for row in here.client.definitions()]
        assert [(row["name"], row["version"], row["nodes"]) for row in rows] == [
            ("other", 1, 1),
            (NAME, 3, 1),
        ]
        versions = [row["version"] async for row in here.client.versions(NAME)]
        assert versions == [3, 2, 1]
    saved = [(NAME, 1), (NAME, 2), (NAME, 3), ("other", 1)]
    assert lines.of("definition.saved") == [
        ("info", {"name": name, "version": version}) for name, version in saved
    ]


async def test_lists_come_page_by_page(settings):
    async with stand(settings, 0) as here:
        for number in range(5):
            await here.client.put_definition(f"d{number}", READS)
            await here.client.put_definition(NAME, written(node(f"N{number}", (), "noop")))

        async def paged(path: str, key: str) -> list[list[Any]]:
            pages, cursor = [], ""
            while cursor is not None:
                _, page = await here.send("GET", f"{path}?limit=2&cursor={cursor}")
                pages.append([row.get("name", row["version"]) for row in page[key]])
                cursor = page["next_cursor"]
            return pages

        assert await paged("/definitions", "definitions") == [
            ["d0", "d1"],
            ["d2", "d3"],
            ["d4", NAME],
        ]
        assert await paged(f"/definitions/{NAME}/versions", "versions") == [[5, 4], [3, 2], [1]]
        assert (await here.send("GET", "/definitions?cursor=xyz"))[1]["code"] == "invalid_request"


async def test_what_is_no_workflow_or_no_name_is_not_saved(settings, redis):
    async with stand(settings, 0) as here:
        cycle = written(node("A", ["B"], "noop"), node("B", ["A"], "noop"))
        status, problem = await here.send("PUT", f"/definitions/{NAME}", cycle)
        assert (status, problem["code"]) == (400, "invalid_workflow")
        assert "cycle" in problem["detail"]
        for name in ("-x", ".x", "a%20b", "x" * 101, "a:b"):
            status, problem = await here.send("PUT", f"/definitions/{name}", READS)
            assert (status, problem["errors"][0]["code"]) == (400, "bad_name"), name
            assert (await here.send("GET", f"/definitions/{name}"))[0] == 404
        assert redis.keys("flowd:definition*") == []


async def test_what_is_not_saved_is_unknown(settings, redis):
    async with stand(settings, 0) as here:
        await here.client.put_definition(NAME, READS)
        unknown = (404, "unknown_definition")
        assert await refused(here.client.saved_definition("no")) == unknown
        assert await refused(here.client.saved_definition(NAME, 2)) == unknown
        assert await refused(here.client.run_definition("no")) == unknown
        assert await refused(here.client.run_definition(NAME, version=2)) == unknown
        assert await refused(here.client.delete_definition("no")) == unknown
        with pytest.raises(ApiError, match="has no version 2; its latest is 1"):
            await here.client.saved_definition(NAME, 2)
        assert redis.zcard(keys.EXECUTIONS) == 0


async def test_a_run_is_made_and_started_in_one_call_and_says_what_it_is_a_run_of(settings, redis):
    async with stand(settings) as here:
        await here.client.put_definition(NAME, READS)
        status, answer = await here.send(
            "POST", f"/definitions/{NAME}/run", {"input": {"day": "monday"}}
        )
        execution_id = answer["execution_id"]
        assert (status, answer) == (
            200,
            {"execution_id": execution_id, "message": "Workflow started"},
        )
        assert str(await here.engine.end(execution_id)) == "COMPLETED"
        assert await here.client.results(execution_id) == {
            "A": {"result": {"got": {"day": "monday", "of": "us"}}}
        }
        assert redis.hget(keys.run(execution_id), "definition") == f"{NAME}@1"
        assert find_violations(redis, [execution_id]) == []


async def test_a_run_is_of_the_latest_version_or_of_the_one_it_names(settings, redis):
    async with stand(settings, 0) as here:
        for node_id in ("A", "B"):
            await here.client.put_definition(NAME, written(node(node_id, (), "noop")))
        first = await here.client.run_definition(NAME)
        # This process knows version 2 as the latest; a client of another one saves the third.
        async with (
            api_server(settings) as elsewhere,
            AsyncClient(f"http://127.0.0.1:{elsewhere.port}") as other,
        ):
            assert (await other.put_definition(NAME, written(node("C", (), "noop"))))[
                "version"
            ] == 3
        second = await here.client.run_definition(NAME)
        old = await here.client.run_definition(NAME, version=1)

        said = [redis.hget(keys.run(one), "definition") for one in (first, second, old)]
        assert said == [f"{NAME}@2", f"{NAME}@3", f"{NAME}@1"]
        roots = [redis.hget(keys.run(one), "roots") for one in (first, second, old)]
        assert roots == ["B", "C", "A"]


async def test_a_definition_saved_anew_under_a_deleted_name_is_not_taken_for_the_old(
    settings, redis
):
    async with stand(settings, 0) as here:
        await here.client.put_definition(NAME, written(node("A", (), "noop")))
        kept = await here.client.run_definition(NAME, version=1)
        async with (
            api_server(settings) as elsewhere,
            AsyncClient(f"http://127.0.0.1:{elsewhere.port}") as other,
        ):
            await other.delete_definition(NAME)
            assert await refused(here.client.run_definition(NAME)) == (404, "unknown_definition")
            assert (await other.put_definition(NAME, written(node("B", (), "noop"))))[
                "version"
            ] == 1

        for version in (None, 1):
            execution_id = await here.client.run_definition(NAME, version=version)
            assert redis.hget(keys.run(execution_id), "roots") == "B"
        assert redis.get(keys.status(kept)) == "RUNNING"


async def test_a_definition_that_schedules_run_is_not_deleted(settings, redis, lines):
    async with stand(settings, 0) as here:
        await here.client.put_definition(NAME, READS)
        redis.sadd(keys.schedules_of(NAME), "nightly")
        with pytest.raises(ApiError, match="'nightly'") as error:
            await here.client.delete_definition(NAME)
        assert (error.value.status, error.value.code) == (409, "definition_in_use")
        assert (await here.client.saved_definition(NAME))["version"] == 1

        redis.srem(keys.schedules_of(NAME), "nightly")
        assert lines.of("definition.deleted") == []
        await here.client.delete_definition(NAME)
        assert redis.keys("flowd:definition*") == []
    assert lines.of("definition.deleted") == [("info", {"name": NAME})]


async def test_a_definition_that_another_one_calls_is_not_deleted(settings):
    calls = {"handler": "workflow", "config": {"name": NAME}}
    async with stand(settings, 0) as here:
        await here.client.put_definition(NAME, READS)
        await here.client.put_definition(
            "weekly",
            {
                "name": "weekly",
                "dag": {"nodes": [node("A", (), "noop")], "finally": [{"id": "F", **calls}]},
            },
        )
        with pytest.raises(ApiError, match="is run by the definition 'weekly'") as error:
            await here.client.delete_definition(NAME)
        assert (error.value.status, error.value.code) == (409, "definition_in_use")

        await here.client.put_definition("weekly", written())
        await here.client.delete_definition(NAME)


async def test_each_of_many_inputs_becomes_an_execution_of_its_own(settings, redis, monkeypatch):
    calls = []
    run = RedisClient.run

    async def counting(self, script, names, *arguments):
        calls.append(script.name)
        return await run(self, script, names, *arguments)

    monkeypatch.setattr(RedisClient, "run", counting)
    async with stand(settings) as here:
        await here.client.put_definition(NAME, READS)
        inputs = [{"day": number} for number in range(1000)]
        ids = await here.client.run_definition_each(NAME, inputs)

        assert calls.count("run_workflow") == 1
        assert len(set(ids)) == 1000
        for number in (0, 1, 999):
            await here.engine.end(ids[number])
            (result,) = (await here.client.results(ids[number])).values()
            assert result == {"result": {"got": {"day": number, "of": "us"}}}
        for one in ids:
            await here.engine.end(one)
        assert find_violations(redis, ids) == []


@pytest.mark.parametrize("count", [1, 250])
async def test_under_one_key_each_is_made_once_whatever_is_lost(
    settings, redis, monkeypatch, count
):
    """Each call is done, and its reply lost; the second one is asked for again, and so on."""
    run, lost = RedisClient.run, set()

    async def losing(self, script, names, *arguments):
        reply = await run(self, script, names, *arguments)
        if script is scripts.RUN_WORKFLOW and arguments[-2] not in lost:
            lost.add(arguments[-2])
            raise ConnectionError("the reply is lost")
        return reply

    monkeypatch.setattr(RedisClient, "run", losing)
    async with stand(settings, 0) as here:
        many = [node(f"N{number}", (), "noop") for number in range(10)]
        await here.client.put_definition(NAME, written(*many))

        async def ask() -> Any:
            if count == 1:
                return [await here.client.run_definition(NAME, idempotency_key="k")]
            inputs = [{"n": one} for one in range(count)]
            return await here.client.run_definition_each(NAME, inputs, idempotency_key="k")

        answers = []
        for _ in range(6):
            try:
                answers.append(await ask())
            except ApiError as error:
                assert error.status == 500
        calls = -(-10 * count // 1000)
        assert len(lost) == calls
        assert len(answers) == 6 - calls
        assert all(one == answers[0] for one in answers)
        assert redis.zrange(keys.EXECUTIONS, 0, -1) == sorted(answers[0])
        assert redis.xlen("workflow:tasks") == 10 * count


async def test_a_key_that_came_with_another_request_is_refused(settings, redis):
    async with stand(settings, 0) as here:
        await here.client.put_definition(NAME, READS)
        await here.client.put_definition("other", READS)
        first = await here.client.run_definition(NAME, {"n": 1}, idempotency_key="k")
        mismatch = (422, "idempotency_mismatch")
        for call in (
            here.client.run_definition(NAME, {"n": 2}, idempotency_key="k"),
            here.client.run_definition("other", {"n": 1}, idempotency_key="k"),
            here.client.run_definition_each(NAME, [{"n": 1}], idempotency_key="k"),
        ):
            assert await refused(call) == mismatch
        assert await here.client.run_definition(NAME, {"n": 1}, idempotency_key="k") == first
        assert redis.zcard(keys.EXECUTIONS) == 1


async def test_of_many_under_one_key_only_what_was_deleted_is_not_made_again(settings, redis):
    async with stand(settings) as here:
        await here.client.put_definition(NAME, READS)
        inputs = [{"n": number} for number in range(3)]
        ids = await here.client.run_definition_each(NAME, inputs, idempotency_key="k")
        for one in ids:
            await here.engine.end(one)
        await here.client.delete(ids[1])

        assert await here.client.run_definition_each(NAME, inputs, idempotency_key="k") == ids
        assert redis.zrange(keys.EXECUTIONS, 0, -1) == sorted([ids[0], ids[2]])
        (mark,) = redis.keys("flowd:idempotency:*:*")
        assert (mark[-24:], 0 < redis.ttl(mark) <= 86_400) == (ids[1], True)

        single = await here.client.run_definition(NAME, idempotency_key="s")
        await here.engine.end(single)
        await here.client.delete(single)
        assert await here.client.run_definition(NAME, idempotency_key="s") == single
        assert redis.zscore(keys.EXECUTIONS, single) is None


async def test_what_is_no_run_is_refused(settings, redis):
    async with stand(settings, 0) as here:
        await here.client.put_definition(NAME, READS)
        for body, path in (
            ({"input": 1}, "input"),
            ({"inputs": []}, "inputs"),
            ({"inputs": [{}] * 1001}, "inputs"),
            ({"inputs": [{}, 2]}, "inputs[1]"),
            ({"input": {}, "inputs": [{}]}, ""),
            ({"version": 0}, "version"),
            ({"imput": {}}, "imput"),
        ):
            status, problem = await here.send("POST", f"/definitions/{NAME}/run", body)
            assert (status, problem["code"]) == (400, "invalid_request"), body
            assert problem["errors"][0]["path"] == path, problem
        large = written(*(node(f"N{number}", (), "noop") for number in range(101)))
        await here.client.put_definition("large", large)
        with pytest.raises(ApiError, match=r"101,000 nodes together; at most 100,000"):
            await here.client.run_definition_each("large", [{}] * 1000)
        assert redis.zcard(keys.EXECUTIONS) == 0


async def test_many_of_a_workflow_that_is_staged_are_made_one_after_the_other(settings, redis):
    async with stand(settings, 0) as here:
        large = written(*(node(f"N{number}", (), "noop") for number in range(1_500)))
        await here.client.put_definition(NAME, large)
        ids = await here.client.run_definition_each(NAME, [{}, {"n": 1}])
        assert [redis.get(keys.status(one)) for one in ids] == ["RUNNING"] * 2
        assert redis.xlen("workflow:tasks") == 3_000
        assert redis.zcard(keys.CONTINUATIONS) == 0


async def test_one_saved_by_a_flowd_of_other_handlers_is_checked_before_it_is_run(settings):
    async with stand(settings, 0) as here:
        await here.client.put_definition(NAME, written(node("A", (), "echo")))
        shared = here.api.app.state.shared
        shared.saved.forget(NAME, None)
        del shared.check_workflow.__dict__["handlers_digest"]
        shared.check_workflow._handlers = {"noop": None}

        with pytest.raises(ApiError, match="unknown handler 'echo'") as error:
            await here.client.run_definition(NAME)
        assert (error.value.status, error.value.code) == (400, "invalid_workflow")


async def test_a_run_does_not_check_again_what_was_checked_when_it_was_saved(
    settings,
):
    async with stand(settings, 0) as here:
        await here.client.put_definition(NAME, READS)

        async def fail(_body: bytes) -> None:
            raise AssertionError("it was checked again")

        here.api.app.state.shared.saved._check = fail
        ids = await asyncio.gather(*(here.client.run_definition(NAME) for _ in range(3)))
        assert len(set(ids)) == 3


@pytest.mark.parametrize("damage", ["type", "latest", "about"])
async def test_a_damaged_definition_is_said_and_spoils_no_list(settings, redis, damage):
    async with stand(settings, 0) as here:
        await here.client.put_definition(NAME, READS)
        await here.client.put_definition("whole", READS)
        key = keys.saved_definition(NAME)
        if damage == "type":
            redis.delete(key)
            redis.set(key, "x")
        elif damage == "latest":
            redis.hset(key, "latest", "x1")
        else:
            redis.hset(key, "about:1", "{")
        for call in (here.client.saved_definition(NAME), here.client.run_definition(NAME)):
            assert await refused(call) == (500, "corrupt_store")
        rows = [(row["name"], row["version"]) async for row in here.client.definitions()]
        assert rows == [(NAME, None), ("whole", 1)]


async def test_the_example_of_the_manual_saves_and_runs(settings, redis, monkeypatch):
    (example,) = blocks("Running it", "python")
    async with stand(settings) as here:
        monkeypatch.setenv("FLOWD_URL", here.client.url)
        said: dict[str, Any] = {}
        await asyncio.to_thread(exec, example, said)

        assert said["saved"]["version"] == 1
        assert len({said["execution_id"], *said["ids"]}) == 8
        for one in (said["execution_id"], *said["ids"]):
            assert str(await here.engine.end(one)) == "COMPLETED"
        assert redis.get(keys.given_input(said["ids"][6])) == '{"day":6}'


SCHEMA = {
    "type": "object",
    "required": ["day"],
    "properties": {"day": {"type": "string"}, "n": {"type": "integer", "maximum": 9}},
    "additionalProperties": False,
}


def misfits(problem: Any) -> list[tuple[str, str]]:
    return [(one["path"], one["code"]) for one in problem["errors"]]


async def test_an_input_that_does_not_fit_is_refused_wherever_it_is_given(settings, redis):
    async with stand(settings) as here:
        asked = written(input_schema=SCHEMA)
        bad, good = {"day": 1, "n": 10}, {"day": "monday"}
        wrong = [("input.day", "misfit"), ("input.n", "misfit")]
        await here.client.put_definition(NAME, asked)

        status, problem = await here.send("POST", f"/definitions/{NAME}/run", {"input": bad})
        assert (status, misfits(problem)) == (400, wrong)
        status, problem = await here.send(
            "POST", f"/definitions/{NAME}/run", {"inputs": [good, {}, bad]}
        )
        assert (status, misfits(problem)) == (
            400,
            [("inputs[1]", "misfit"), ("inputs[2].day", "misfit"), ("inputs[2].n", "misfit")],
        )
        assert "required" in problem["errors"][0]["message"]
        status, problem = await here.send("POST", "/workflow?trigger=true", asked)
        assert (status, misfits(problem)) == (400, [("input", "misfit")])
        assert redis.zcard(keys.EXECUTIONS) == 0

        execution_id = await here.client.submit(asked)
        path = f"/workflow/trigger/{execution_id}"
        status, problem = await here.send("POST", path, {"input": bad})
        assert (status, misfits(problem)) == (400, wrong)
        assert (await here.send("POST", path))[0] == 400
        assert await here.client.status(execution_id) == "PENDING"
        await here.client.trigger(execution_id, good)
        await here.engine.end(execution_id)
        # It is not asked about once it has started.
        assert (await here.send("POST", path, {"input": bad}))[0] == 200

        ran = await here.client.run_definition(NAME, good)
        await here.engine.end(ran)
        rerun = await here.client.rerun(ran, "A")
        assert str(await here.engine.end(rerun["execution_id"])) == "COMPLETED"


async def test_an_input_is_held_against_the_version_that_runs_and_not_against_one_known_before(
    settings,
):
    """A process that knew an older version refused what the latest takes, for ever."""
    async with stand(settings, 0) as here, api_server(settings) as elsewhere:
        await here.client.put_definition(NAME, written(input_schema=SCHEMA))
        await here.client.run_definition(NAME, {"day": "monday"})
        async with AsyncClient(f"http://127.0.0.1:{elsewhere.port}") as other:
            await other.put_definition(NAME, written(input_schema={"required": ["hour"]}))

        await here.client.run_definition(NAME, {"hour": 7})
        assert await refused(here.client.run_definition(NAME, {"day": "x"})) == (
            400,
            "invalid_request",
        )
        await here.client.run_definition(NAME, {"day": "x"}, version=1)
        async with AsyncClient(f"http://127.0.0.1:{elsewhere.port}") as other:
            await other.delete_definition(NAME)
        assert await refused(here.client.run_definition(NAME, {"day": "x"})) == (
            404,
            "unknown_definition",
        )


async def test_the_workflows_own_input_counts_for_its_schema(settings, redis):
    async with stand(settings, 0) as here:
        await here.client.put_definition(
            NAME, written(input_schema=SCHEMA, input={"day": "sunday"})
        )
        await here.client.run_definition(NAME)
        await here.client.submit(written(input_schema=SCHEMA, input={"day": "x"}), trigger=True)
        assert await refused(here.client.run_definition(NAME, {"day": 7})) == (
            400,
            "invalid_request",
        )
        assert redis.zcard(keys.EXECUTIONS) == 2


async def test_what_an_execution_is_worth_is_its_output_or_else_its_results(settings):
    async with stand(settings) as here:
        worth = {"got": "{{ A.result.got.day }}", "of": ["{{ input.of }}", "{{ execution.id }}"]}
        with_output = {**READS, "output": worth}
        one = await here.client.submit(with_output, trigger=True)
        other = await here.client.submit(READS, trigger=True)
        for execution_id in (one, other):
            await here.engine.end(execution_id)

        assert await here.client.output(one) == {"got": "today", "of": ["us", one]}
        assert await here.client.output(other) == await here.client.results(other)
        assert await here.send("GET", f"/workflows/{one}/output") == (
            200,
            {"execution_id": one, "output": {"got": "today", "of": ["us", one]}},
        )
        # The documented bodies know nothing of it.
        _, results = await here.send("GET", f"/workflows/{one}/results")
        assert results.keys() == {"execution_id", "results"}


async def test_there_is_no_output_of_what_did_not_complete_or_lacks_what_it_reads(settings):
    async with stand(settings) as here:
        pending = await here.client.submit({**READS, "output": "{{ A.result.nothing }}"})
        assert await refused(here.client.output(pending)) == (409, "wrong_state")
        await here.client.trigger(pending)
        await here.engine.end(pending)
        with pytest.raises(ApiError, match="nothing") as error:
            await here.client.output(pending)
        assert (error.value.status, error.value.code) == (409, "output_failed")
        assert await refused(here.client.output("0" * 24)) == (404, "unknown_execution")


async def test_executions_are_listed_by_their_labels(settings, redis):
    async with stand(settings) as here:
        await here.client.put_definition(NAME, {**READS, "labels": {"team": "x", "env": "prod"}})
        one = await here.client.run_definition(NAME)
        _, answer = await here.send(
            "POST", f"/definitions/{NAME}/run", {"labels": {"env": "a b:c", "run": "1"}}
        )
        other = answer["execution_id"]
        plain = await here.client.submit(READS, trigger=True)
        for execution_id in (one, other, plain):
            await here.engine.end(execution_id)

        async def found(*labels: str) -> list[str]:
            return [row["execution_id"] async for row in here.client.list(label=list(labels))]

        shown = {row["execution_id"]: row["labels"] async for row in here.client.list()}
        assert shown == {
            one: {"env": "prod", "team": "x"},
            other: {"env": "a b:c", "run": "1", "team": "x"},
            plain: {},
        }
        assert (await here.client.get(one))["labels"] == shown[one]
        assert await found("team:x") == [other, one]
        assert await found("env:prod") == [one]
        assert await found("team:x", "env:a b:c") == [other]
        assert await found("team:y") == []
        for text in ("team", "team:", ":x", "a b:c"):
            assert await refused(here.client.list(label=text).__anext__()) == (
                400,
                "invalid_request",
            )
        await here.client.put_definition("other", READS)

        async def saved(*labels: str) -> list[tuple[str, dict[str, str]]]:
            path = "/definitions?" + "&".join(f"label={one}" for one in labels)
            _, page = await here.send("GET", path)
            return [(row["name"], row["labels"]) for row in page["definitions"]]

        its = {"team": "x", "env": "prod"}
        assert await saved() == [("other", {}), (NAME, its)]
        assert await saved("team:x", "env:prod") == await saved("team:x") == [(NAME, its)]
        assert await saved("team:y") == await saved("team:x", "env:y") == []

        again = await here.client.rerun(other, "A")
        assert await found("run:1") == [again["execution_id"], other]
        await here.engine.end(again["execution_id"])
        assert find_violations(redis, [one, other, plain]) == []


async def test_labels_that_nobody_could_ask_for_are_refused_at_a_run(settings):
    async with stand(settings, 0) as here:
        await here.client.put_definition(NAME, READS)
        for labels in ({"a:b": "c"}, {"a": ""}, {"a": "b,c"}, {"a": 1}, {"a": "b\nc"}):
            status, problem = await here.send(
                "POST", f"/definitions/{NAME}/run", {"labels": labels}
            )
            assert (status, problem["code"]) == (400, "invalid_request"), labels


async def test_a_slow_schema_holds_nobody_up(settings):
    """The check runs in a process that the kernel ends; here it is made to give up at once."""
    slow = {**SCHEMA, "properties": {"day": {"pattern": "^(a+)+$"}}}
    async with stand(settings, 0) as here:
        await here.client.put_definition(NAME, written(input_schema=slow))

        class Calls:
            async def call(self, asked: bytes) -> bytes:
                assert b"(a+)+" in asked
                raise TookTooMuch("it takes more than 10 s")

            def close(self) -> None:
                pass

        here.api.app.state.shared.check_workflow._calls = Calls()
        with pytest.raises(ApiError, match="given up") as error:
            await here.client.run_definition(NAME, {"day": "a" * 50 + "!"})
        assert (error.value.status, error.value.code) == (400, "invalid_request")
