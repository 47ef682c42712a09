"""Many executions at once: counted, shown before anything happens, and each acted on by itself."""

from __future__ import annotations

import pytest

from flowd.api.routers import actions
from flowd.orchestrator.executor import submit_workflow
from flowd.scheduler.hours import NoteHours
from flowd.store.executions import now_ms
from flowd.store.indexes import HOUR_MS
from tests.flow.engine import node, workflow
from tests.flow.test_reads import SOME_ID, serving


async def post(api, body, status: int = 200, **headers):
    response = await api._client.post("/workflows/actions", json=body, headers=headers)
    assert response.status_code == status, response.text
    return response.json()


async def status_of(api, execution_id: str) -> str:
    return str(await api.engine.store.executions.execution_status(execution_id))


def outcomes(answer) -> dict[str, str]:
    return {one["execution_id"]: one["code"] or one["outcome"] for one in answer["results"]}


async def test_a_preview_counts_them_and_changes_nothing(settings):
    async with serving(settings, workers=0) as api:
        submit = api.engine.store
        wanted = [await submit_workflow(submit, workflow(node("A"), name="night")) for _ in "abc"]
        await submit_workflow(submit, workflow(node("A"), name="day"))

        answer = await post(api, {"action": "cancel", "filter": {"name": "night"}, "preview": True})

        assert (answer["count"], answer["more"]) == (3, False)
        assert sorted(row["execution_id"] for row in answer["sample"]) == sorted(wanted)
        assert {await status_of(api, one) for one in wanted} == {"PENDING"}


async def test_each_is_acted_on_and_answered_by_itself(settings):
    async with serving(settings, workers=0) as api:
        store = api.engine.store
        waits = await submit_workflow(store, workflow(node("A")))
        runs = await api.engine.start(workflow(node("A")))
        ids = [runs, waits, SOME_ID, "rubbish", runs]

        assert outcomes(await post(api, {"action": "pause", "ids": ids})) == {
            runs: "done", waits: "wrong_state", SOME_ID: "unknown_execution",
            "rubbish": "unknown_execution",
        }  # fmt: skip
        assert await status_of(api, runs) == "PAUSED"
        paused = {"action": "resume", "filter": {"status": ["PAUSED"]}}
        assert outcomes(await post(api, paused)) == {runs: "done"}
        assert outcomes(await post(api, {"action": "delete", "ids": [runs, waits]})) == {
            runs: "wrong_state", waits: "done",
        }  # fmt: skip
        both = {"action": "cancel", "ids": [runs, waits]}
        assert outcomes(await post(api, both)) == {runs: "done", waits: "unknown_execution"}
        assert await status_of(api, runs) == "CANCELLED"


async def test_what_failed_runs_again_once_however_often_it_is_asked_under_one_key(settings):
    async with serving(settings, workers=1) as api:
        failed = await api.engine.run(workflow(node("A", handler="fail"), labels={"team": "x"}))
        fine = await api.engine.run(workflow(node("A"), labels={"team": "x"}))
        body = {"action": "rerun", "filter": {"status": ["FAILED"], "label": ["team:x"]}}

        first = await post(api, body, **{"idempotency-key": "k"})

        (result,) = first["results"]
        assert (result["execution_id"], result["outcome"]) == (failed, "done")
        again = result["new_execution_id"]
        assert str(await api.engine.end(again)) == "FAILED"
        second = await post(api, body, **{"idempotency-key": "k"})
        by_id = {one["execution_id"]: one["new_execution_id"] for one in second["results"]}
        assert by_id[failed] == again
        assert fine not in by_id
        refused = await post(api, {**body, "force": True}, 422, **{"idempotency-key": "k"})
        assert refused["code"] == "idempotency_mismatch"


async def test_no_more_than_a_request_acts_on_and_the_newest_of_them(settings, monkeypatch):
    monkeypatch.setattr(actions, "EXECUTIONS_MAX", 2)
    async with serving(settings, workers=0) as api:
        store = api.engine.store
        ids = [await submit_workflow(store, workflow(node("A"))) for _ in range(3)]
        body = {"action": "cancel", "filter": {"status": ["PENDING"]}}

        assert (await post(api, {**body, "preview": True}))["more"]
        answer = await post(api, body)

        assert (answer["count"], answer["more"]) == (2, True)
        assert sorted(outcomes(answer)) == sorted(ids)[1:]
        assert not (await post(api, body))["more"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"action": "cancel"}, "wrong_choice"),
        ({"action": "cancel", "ids": [SOME_ID], "filter": {"name": "x"}}, "wrong_choice"),
        ({"action": "cancel", "filter": {}}, "empty_filter"),
        ({"action": "cancel", "filter": {"status": []}}, "empty_filter"),
        ({"action": "explode", "ids": [SOME_ID]}, "invalid_value"),
        ({"action": "cancel", "ids": []}, "invalid_value"),
        ({"action": "cancel", "filter": {"status": ["LATE"]}}, "invalid_value"),
        ({"action": "cancel", "filter": {"label": ["x"]}}, "invalid_value"),
        ({"action": "cancel", "filter": {"nam": "x"}}, None),
        ({}, None),
    ],
)
async def test_what_is_not_said_well_touches_nothing(settings, body, code):
    async with serving(settings, workers=0) as api:
        one = await submit_workflow(api.engine.store, workflow(node("A")))

        answer = await post(api, body, 400)

        assert answer["code"] == "invalid_request"
        assert code is None or code in {each["code"] for each in answer["errors"]}
        assert await status_of(api, one) == "PENDING"


async def test_what_there_is_and_what_has_ended_is_counted(settings):
    async with serving(settings, workers=1) as api:
        begun_ms = now_ms()
        await NoteHours(api.engine.store, 0).run(0.0)
        ids = [await api.engine.run(workflow(node("A"), name="night")) for _ in range(3)]
        await api.engine.run(workflow(node("A", handler="fail"), name="night"))
        await submit_workflow(api.engine.store, workflow(node("A"), name="night"))
        await api.request(f"/workflows/{ids[0]}", method="DELETE")

        counts = await api.request("/workflows/counts")
        stats = await api.request("/workflows/stats?name=night")
        days = await api.request(f"/workflows/stats?bucket=day&since={begun_ms}")

        assert counts["total"] == 4
        assert counts["status"] == {
            "PENDING": 1, "RUNNING": 0, "PAUSED": 0, "COMPLETED": 2, "FAILED": 1, "CANCELLED": 0,
        }  # fmt: skip
        assert len(stats["buckets"]) == 24
        assert [one["at_ms"] % HOUR_MS for one in stats["buckets"]] == [0] * 24
        for answer in (stats, days):
            assert sum(one["COMPLETED"] for one in answer["buckets"]) == 3
            assert sum(one["FAILED"] for one in answer["buckets"]) == 1
        newest = stats["newest"]
        assert (newest["count"], newest["status"]) == (
            4, {"PENDING": 1, "FAILED": 1, "COMPLETED": 2},
        )  # fmt: skip
        assert newest["duration_ms"]["p50"] <= newest["duration_ms"]["max"]
        assert days["newest"] is None


@pytest.mark.parametrize("since", ["0", "9999999999999"])
async def test_however_far_back_is_asked_the_buckets_are_bounded(settings, since):
    async with serving(settings, workers=0) as api:
        for bucket, most in (("hour", 62 * 24), ("day", 62)):
            stats = await api.request(f"/workflows/stats?bucket={bucket}&since={since}")
            assert len(stats["buckets"]) == (most if since == "0" else 1)
