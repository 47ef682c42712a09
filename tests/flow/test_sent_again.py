"""What starts work is sent again when its answer was lost: under a key the work is done once."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import pytest

from flowd.api.app import all_routes
from flowd.store.redis import keys
from tests.flow import handlers
from tests.flow.engine import calls, node, until, workflow
from tests.flow.test_maps import mapped, over
from tests.flow.test_reads import Api, serving

KEY = {"idempotency-key": "once"}
ONE = {"name": "one", "dag": {"nodes": [node("A")]}}
# Beside what takes a key: what is done once it is asked for, whoever asks again.
DONE_ANYWAY = {
    "/workflow/validate",
    "/workflows/{execution_id}/cancel",
    "/workflows/{execution_id}/pause",
    "/workflows/{execution_id}/resume",
    "/schedules/{name}/pause",
    "/schedules/{name}/resume",
    "/dead-letters/{letter_id}/redrive",
}


class Request(NamedTuple):
    """`{failed}` in the path is an execution of which a node failed."""

    path: str
    body: dict[str, Any]
    makes: int = 1


REQUESTS = {
    "a submission": Request("/workflow?trigger=true", ONE),
    "a batch": Request("/workflows/batch?trigger=true", {"workflows": [ONE, ONE]}, 2),
    "a run": Request("/definitions/report/run", {}),
    "a run for each": Request("/definitions/report/run", {"inputs": [{"n": 1}, {"n": 2}]}, 2),
    "a run of a schedule": Request("/schedules/nightly/run", {"force": True}),
    "a rerun": Request("/workflows/{failed}/rerun", {"from": "F"}),
    "a corrected rerun": Request("/workflows/{failed}/rerun", {"definition": ONE}),
    "reruns": Request("/workflows/actions", {"action": "rerun", "filter": {"name": "failed"}}),
}


async def post(api: Api, path: str, body: Any, status: int = 200) -> Any:
    answer = await api._client.post(path, json=body, headers=KEY)
    assert answer.status_code == status, answer.text
    return answer.json()


async def known(api: Api) -> set[str]:
    return set(await api.engine.redis("ZRANGE", keys.EXECUTIONS, 0, -1))


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_what_starts_work_and_is_sent_again_is_done_once(settings, request_: Request):
    async with serving(settings, workers=1) as api:
        failed = await api.engine.run(workflow(node("F", handler="fail"), name="failed"))
        await api._client.put("/definitions/report", json=ONE)
        nightly = {"workflow": "report", "every_s": 86_400}
        await api._client.put("/schedules/nightly", json=nightly)
        before, path = await known(api), request_.path.format(failed=failed)

        first, second = await asyncio.gather(*(post(api, path, request_.body) for _ in "ab"))
        made = await known(api) - before
        for execution_id in made:
            await api.engine.end(execution_id)
        ended = await post(api, path, request_.body)
        for execution_id in made:
            await api.request(f"/workflows/{execution_id}", method="DELETE")
        deleted = await post(api, path, request_.body)

        assert len(made) == request_.makes
        assert first == second == ended == deleted
        assert await known(api) == before
        assert all(len(calls(execution_id)) == 1 for execution_id in made)


async def test_another_rerun_under_the_same_key_is_refused_and_a_preview_takes_none(settings):
    async with serving(settings, workers=1) as api:
        failed = await api.engine.run(workflow(node("F", handler="fail")))
        path = f"/workflows/{failed}/rerun"

        preview = await post(api, path, {"preview": True})
        done = await post(api, path, {})
        refusal = await post(api, path, {"from": "F"}, 422)

        assert (preview["execution_id"], preview["runs"]) == (None, done["runs"])
        assert refusal["code"] == "idempotency_mismatch"


async def test_what_acts_on_none_takes_no_key(settings):
    """The corrected request was refused as another one under the same key."""
    async with serving(settings, workers=1) as api:
        failed = await api.engine.run(workflow(node("F", handler="fail"), name="failed"))
        await post(api, "/workflows/actions", {"action": "rerun"}, 400)

        answer = await post(api, "/workflows/actions", {"action": "rerun", "ids": [failed]})

        assert [one["outcome"] for one in answer["results"]] == ["done"]


async def test_a_rerun_that_only_stores_keeps_what_it_was_given_meanwhile(settings):
    """Sent again, it put the input of its source over that of the trigger."""
    async with serving(settings, workers=1) as api:
        reads = node("F", n="{{ input.n }}")
        first = await api.engine.run(workflow(reads, input={"n": 0}), b'{"n": 1}')
        body = {"from": "F", "trigger": False}
        stored = await post(api, f"/workflows/{first}/rerun", body)
        again = stored["execution_id"]
        await api._client.post(f"/workflow/trigger/{again}", json={"input": {"n": 2}})
        await api.engine.end(again)

        assert await post(api, f"/workflows/{first}/rerun", body) == stored

        assert await api.engine.redis("GET", keys.given_input(again)) == '{"n":2}'


async def standing(api: Api, execution_id: str) -> Any:
    """How far the map of an execution is."""
    return await asyncio.gather(
        api.engine.redis("HGETALL", keys.map_of(execution_id, "fan")),
        api.engine.redis("LRANGE", keys.map_todo(execution_id, "fan"), 0, -1),
    )


async def test_items_that_run_again_are_not_set_back_by_the_same_rerun(settings):
    """The map was put back to how it stood at the beginning, while its items ran."""
    async with serving(settings, workers=1) as api:
        engine = api.engine
        handlers.FATED |= {"fan.1", "fan.2", "fan.3"}
        fan = mapped("held_and_fated", concurrency=1, n="{{ item }}", max_failed=3)
        for one in range(4):
            handlers.GATES[f"fan.{one}"].set()
        first = await engine.run(over(list(range(4)), fan))
        handlers.FATED.clear()
        handlers.GATES.clear()
        path = f"/workflows/{first}/rerun"
        again = (await post(api, path, {"from": "fan.1"}))["execution_id"]
        handlers.GATES["fan.1"].set()
        await until(lambda: "fan.2" in calls(again), "the second item")
        before = await standing(api, again)

        await post(api, path, {"from": "fan.1"})

        assert await standing(api, again) == before
        for one in (2, 3):
            handlers.GATES[f"fan.{one}"].set()
        assert str(await engine.end(again)) == "COMPLETED"
        assert calls(again) == ["fan.1", "fan.2", "fan.3"]


async def test_a_rerun_of_what_was_deleted_since_is_unknown_and_makes_nothing(settings):
    async with serving(settings, workers=1) as api:
        failed = await api.engine.run(workflow(node("F", handler="fail")))
        again = (await post(api, f"/workflows/{failed}/rerun", {}))["execution_id"]
        await api.engine.end(again)
        await api.request(f"/workflows/{failed}", method="DELETE")

        refusal = await post(api, f"/workflows/{failed}/rerun", {}, 404)

        assert refusal["code"] == "unknown_execution"
        assert await known(api) == {again}


def test_each_request_that_starts_work_takes_a_key_or_is_done_once_anyway():
    posts = {one.path: one for one in all_routes() if one.method == "POST"}
    keyed = {path for path, one in posts.items() if "Idempotency-Key" in one.description.headers}
    assert posts.keys() - keyed == DONE_ANYWAY
    assert all("idempotency_mismatch" in posts[path].description.problems for path in keyed)
