"""Many workflows in one request: each is accepted or refused on its own, once under one key."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from flowd.client import ApiError
from flowd.errors import StoreUnavailable
from flowd.store.redis import keys
from flowd.store.submissions import Submissions
from scripts.soaking.checker import find_violations
from tests.flow.engine import node
from tests.flow.test_definitions import SCHEMA, stand, written

GOOD = written(node("A", (), "noop"))
CYCLE = written(node("A", ["B"], "noop"), node("B", ["A"], "noop"))
UNKNOWN = written(node("A", (), "nop"))


def codes(results: Any) -> list[Any]:
    return [
        [one["code"] for one in result["problem"]["errors"]] if "problem" in result else "ok"
        for result in results
    ]


async def test_each_is_accepted_or_refused_on_its_own(settings, redis):
    async with stand(settings) as here:
        workflows = [GOOD, CYCLE, 7, UNKNOWN, {**GOOD, "labels": {"team": "x"}}]
        status, answer = await here.send("POST", "/workflows/batch", {"workflows": workflows})

        results = answer["results"]
        assert status == 200
        assert codes(results) == [
            "ok",
            ["cycle"],
            ["wrong_type"],
            ["unknown_handler"],
            "ok",
        ]
        made = [results[at]["execution_id"] for at in (0, 4)]
        assert results[0] == {"execution_id": made[0], "message": "Workflow accepted"}
        problem = results[3]["problem"]
        assert problem["errors"][0]["path"] == "dag.nodes[0].handler"
        assert problem.keys() == {"type", "title", "status", "detail", "code", "errors"}
        assert redis.zrange(keys.EXECUTIONS, 0, -1) == sorted(made)
        assert [redis.get(keys.status(one)) for one in made] == ["PENDING"] * 2


async def test_a_thousand_are_triggered_and_run(settings, redis):
    async with stand(settings) as here:
        results = await here.client.submit_batch([GOOD] * 1000, trigger=True)

        ids = [one["execution_id"] for one in results]
        assert len(set(ids)) == 1000
        for one in ids:
            assert str(await here.engine.end(one)) == "COMPLETED"
        assert find_violations(redis, ids) == []


async def test_what_hides_something_spoils_no_other(settings):
    async with stand(settings, 0) as here:
        twice = b'{"name": "x", "name": "y", "dag": {"nodes": [{"id": "A", "handler": "noop"}]}}'
        results = await here.client.submit_batch([orjson.dumps(GOOD), twice, orjson.dumps(GOOD)])

        assert codes(results) == ["ok", ["duplicate_key"], "ok"]
        assert results[1]["problem"]["errors"][0]["path"] == "name"


async def test_an_input_that_does_not_fit_refuses_only_what_is_started(settings):
    async with stand(settings, 0) as here:
        asked = written(input_schema=SCHEMA)
        assert codes(await here.client.submit_batch([asked, GOOD])) == ["ok", "ok"]
        assert codes(await here.client.submit_batch([asked, GOOD], trigger=True)) == [
            ["misfit"],
            "ok",
        ]


async def test_what_is_no_batch_is_refused_as_a_whole(settings, redis):
    async with stand(settings, 0) as here:
        for body in (
            {},
            [],
            {"workflows": []},
            {"workflows": {}},
            {"workflows": [GOOD], "more": 1},
            {"workflows": [GOOD] * 1001},
        ):
            status, problem = await here.send("POST", "/workflows/batch", body)
            assert (status, problem["code"]) == (400, "invalid_request"), body
        assert (await here.send("POST", "/workflows/batch"))[0] == 400
        # It was taken for the id of an execution.
        for method in ("GET", "DELETE"):
            status, problem = await here.send(method, "/workflows/batch")
            assert (status, problem["code"]) == (405, "method_not_allowed")
            assert "use POST" in problem["detail"]
        assert redis.zcard(keys.EXECUTIONS) == 0


@pytest.mark.parametrize("trigger", [False, True])
async def test_under_one_key_each_is_made_once_whatever_is_lost(
    settings, redis, monkeypatch, trigger
):
    async with stand(settings, 0) as here:
        batch = [written(node(f"N{at}", (), "noop")) for at in range(40)]
        left = [25]

        def losing(method: Any) -> Any:
            async def lost(self: Any, *arguments: Any, **said: Any) -> Any:
                answer = await method(self, *arguments, **said)
                left[0] -= 1
                if left[0] == 0:
                    raise StoreUnavailable("the reply is lost")
                return answer

            return lost

        for name in ("submit_workflow", "run_workflow"):
            monkeypatch.setattr(Submissions, name, losing(getattr(Submissions, name)))
        ask = {"trigger": trigger, "idempotency_key": "k"}
        with pytest.raises(ApiError) as error:
            await here.client.submit_batch(batch, **ask)
        assert error.value.status == 503
        results = await here.client.submit_batch(batch, **ask)

        ids = [one["execution_id"] for one in results]
        assert redis.zrange(keys.EXECUTIONS, 0, -1) == sorted(ids)
        assert {redis.get(keys.status(one)) for one in ids} == {"RUNNING" if trigger else "PENDING"}
        assert await here.client.submit_batch(batch, **ask) == results
        with pytest.raises(ApiError) as error:
            await here.client.submit_batch(batch[1:], **ask)
        assert error.value.status == 422

        if not trigger:
            await here.client.delete(ids[3])
            assert await here.client.submit_batch(batch, **ask) == results
            assert redis.zrange(keys.EXECUTIONS, 0, -1) == sorted(set(ids) - {ids[3]})


async def test_an_execution_says_where_it_comes_from_and_no_other_says_more(settings, redis):
    async with stand(settings, 0) as here:
        await here.client.put_definition("report", {**GOOD, "labels": {"team": "x"}})
        one = await here.client.run_definition("report")
        (plain,) = await here.client.submit_batch([GOOD], trigger=True)

        assert (await here.send("GET", f"/workflows/{one}"))[1] == {
            "execution_id": one,
            "status": "RUNNING",
            "definition": "report@1",
            "labels": {"team": "x"},
        }
        other = plain["execution_id"]
        bare = (200, {"execution_id": other, "status": "RUNNING"})
        assert await here.send("GET", f"/workflows/{other}") == bare
        redis.delete(keys.run(other))
        redis.set(keys.run(other), "x")
        assert await here.send("GET", f"/workflows/{other}") == bare
