"""Schedules over HTTP: made, changed, held up and run, by their times and by hand."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import orjson
import pytest

from flowd.client import ApiError
from flowd.store.redis import keys
from tests.daemon import PATIENCE_S
from tests.flow.engine import node
from tests.flow.test_definitions import Stand, stand

URL = "https://example.com/flowd"
HOURLY = {"workflow": "report", "every_s": 3600}
SECOND = {"workflow": "report", "every_s": 1}
READS = {
    "name": "Daily report",
    "dag": {
        "nodes": [
            node(
                "A",
                (),
                "transform",
                input={"at": "{{ execution.scheduled_at }}", "of": "{{ input.of }}"},
                expression="@",
            )
        ]
    },
}
# What waits for ever: nobody sends it a signal.
WAITS = {"name": "Slow", "dag": {"nodes": [node("A", (), "signal")]}}


async def until(ask: Any, wanted: Any) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while not wanted(found := await ask()):  # noqa: ASYNC110 - the other side is a server
            await asyncio.sleep(0.02)
    return found


async def made(stand: Stand, workflow: dict[str, Any], **said: Any) -> None:
    await stand.client.put_definition("report", workflow)
    await stand.client.put_schedule("nightly", {**SECOND, **said})


async def input_of(stand: Stand, execution_id: str) -> Any:
    _, summary = await stand.send("GET", f"/workflows/{execution_id}/summary")
    return summary["input"]


async def schedule_of(stand: Stand) -> dict[str, Any]:
    return await stand.client.schedule("nightly")


async def test_it_runs_at_its_times_and_its_nodes_read_them(settings):
    async with stand(settings) as here:
        await made(here, READS, timezone="Asia/Kathmandu", input={"of": "us"}, overlap="allow")
        shown = await until(lambda: schedule_of(here), lambda one: one["fired"] >= 2)
        last = shown["last"]

        assert await here.client.wait(last["execution_id"]) == "COMPLETED"
        results = await here.client.results(last["execution_id"])
        assert results["A"]["result"] == {"at": last["scheduled_at"], "of": "us"}
        assert last["scheduled_at"].endswith("+05:45")
        summary = await here.client.get(last["execution_id"])
        assert {name: summary[name] for name in ("definition", "schedule", "scheduled_at")} == {
            "definition": "report@1",
            "schedule": "nightly",
            "scheduled_at": last["scheduled_at"],
        }
        assert "labels" not in summary
        explained = await here.client.explain(last["execution_id"])
        wanted = f"The schedule 'nightly' has started it for {last['scheduled_at']}."
        assert explained["summary"].endswith(wanted)


async def test_made_again_it_is_unchanged_and_changed_when_it_says_something_else(settings, lines):
    async with stand(settings) as here:
        await here.client.put_definition("report", READS)
        said = {"workflow": "report", "cron": "30 6 * * 1-5", "timezone": "Europe/Berlin"}
        answers = [
            await here.send("PUT", "/schedules/nightly", body)
            for body in (said, {**said, "overlap": "skip"}, {**said, "input": {"x": 1}})
        ]
        assert answers == [
            (201, {"name": "nightly", "message": "Schedule created"}),
            (200, {"name": "nightly", "message": "Schedule unchanged"}),
            (200, {"name": "nightly", "message": "Schedule changed"}),
        ]
        assert lines.of("schedule.changed") == [("info", {"schedule": "nightly"})] * 2
        status, shown = await here.send("GET", "/schedules/nightly")
        nexts = await here.client.next_times("nightly", 3)
        assert status == 200 and shown["next"] == nexts[0]
        assert all("T06:30:00+0" in one for one in nexts) and nexts == sorted(set(nexts))
        assert {**shown, "next": None} == {
            "name": "nightly",
            "workflow": "report",
            "version": "latest",
            "every_s": None,
            "cron": "30 6 * * 1-5",
            "timezone": "Europe/Berlin",
            "input": {"x": 1},
            "overlap": "skip",
            "catch_up": "last",
            "catch_up_window_s": 3600,
            "paused": False,
            "callback": None,
            "next": None,
            "queued": None,
            "running": [],
            "last": None,
            "fired": 0,
            "missed": 0,
            "skipped": 0,
            "error": None,
        }


async def test_a_callback_is_shown_without_its_secret_and_kept_with_it(settings, redis):
    async with stand(settings, workers=0) as here:
        await here.client.put_definition("report", READS)
        named = {"url": URL, "secret": {"$secret": "CALLBACK"}}
        shown = []
        for callback in ({"url": URL, "secret": "shared"}, named, {"url": URL}):
            await here.client.put_schedule("hourly", {**HOURLY, "callback": callback})
            shown.append((await here.client.schedule("hourly"))["callback"])
            await here.client.pause_schedule("hourly")
            kept = orjson.loads(redis.hget(keys.schedule("hourly"), "said"))
            assert kept["callback"] == callback

        assert shown == [{"url": URL, "secret": "***"}, named, {"url": URL, "secret": None}]
        assert (await here.client.schedule_callback("hourly"))["state"] == "PENDING"


@pytest.mark.parametrize(
    ("said", "path", "text"),
    [
        ({"workflow": "nothing", "every_s": 60}, "workflow", "no definition 'nothing' is saved"),
        ({"workflow": "report", "every_s": 60, "version": 9}, "version", "no version 9"),
        ({"workflow": "report", "cron": "61 * * * *"}, "cron", "bad minute"),
        ({"workflow": "report", "every_s": 60, "timezone": "Mars"}, "timezone", "unknown timezone"),
        ({"workflow": "report"}, "", "either cron"),
        ({"workflow": "report", "cron": "* * * * *", "every_s": 1}, "", "either cron"),
        ({"workflow": "report", "every_s": 0}, "every_s", "greater than or equal to 1"),
        ({"workflow": "report", "every_s": 60, "overlp": "skip"}, "overlp", "overlap"),
        ({"workflow": "report", "every_s": 60, "overlap": "never"}, "overlap", "'replace'"),
        ({"every_s": 60}, "workflow", "required"),
        ({**HOURLY, "callback": {}}, "callback.url", "required"),
        ({**HOURLY, "callback": {"url": "nowhere"}}, "callback.url", "match"),
        ({**HOURLY, "callback": {"url": URL, "to": "me"}}, "callback.to", "there is url, secret"),
        ({**HOURLY, "callback": {"url": URL, "secret": {"$secret": 1}}}, "callback.secret", "name"),
        ({**HOURLY, "callback": {"url": URL, "secret": {"a": "B"}}}, "callback.secret", "one key"),
        ({**HOURLY, "callback": URL}, "callback", "object"),
    ],
)
async def test_what_is_no_schedule_is_refused_with_the_reason(settings, said, path, text):
    async with stand(settings, workers=0) as here:
        await here.client.put_definition("report", READS)
        status, problem = await here.send("PUT", "/schedules/nightly", said)

        assert (status, [one["path"] for one in problem["errors"]]) == (400, [path])
        assert text in problem["detail"]
        assert await here.send("GET", "/schedules") == (
            200,
            {"schedules": [], "next_cursor": None},
        )


async def test_one_that_is_not_there_is_unknown(settings):
    async with stand(settings, workers=0) as here:
        for method, path in (
            *(("GET", ""), ("DELETE", ""), ("GET", "/next")),
            *(("POST", "/pause"), ("POST", "/resume"), ("POST", "/run")),
        ):
            status, problem = await here.send(method, f"/schedules/nightly{path}")
            assert (status, problem["code"]) == (404, "unknown_schedule")
        assert (await here.send("PUT", "/schedules/-x", SECOND))[0] == 400


async def test_paused_nothing_runs_and_nothing_is_made_up_for(settings):
    async with stand(settings) as here:
        await made(here, READS, paused=True)
        assert (await schedule_of(here))["next"] is None
        times = await here.client.next_times("nightly", 100)
        assert len(times) == 100
        second = datetime.fromisoformat(times[1]).timestamp()
        await until(here.engine.store.schedules.now_ms, lambda now_ms: now_ms > 1000 * second)
        assert (await schedule_of(here))["fired"] == 0

        await here.client.resume_schedule("nightly")
        await until(lambda: schedule_of(here), lambda one: one["fired"] >= 1)
        await here.client.pause_schedule("nightly")

        shown = await schedule_of(here)
        assert (shown["paused"], shown["missed"]) == (True, 0)


async def test_by_hand_it_obeys_its_overlap_unless_it_is_forced(settings):
    async with stand(settings) as here:
        await made(here, WAITS, paused=True)
        first = await here.client.run_schedule("nightly", idempotency_key="k")
        assert await here.client.run_schedule("nightly", idempotency_key="k") == first
        with pytest.raises(ApiError, match="has not ended") as refused:
            await here.client.run_schedule("nightly")
        assert (refused.value.status, refused.value.code) == (409, "schedule_busy")

        second = await here.client.run_schedule("nightly", force=True)

        assert (await schedule_of(here))["running"] == sorted([first, second])


@pytest.mark.parametrize("overlap", ["skip", "queue", "replace"])
async def test_by_hand_it_takes_an_input_over_its_own_and_then_never_waits(settings, overlap):
    async with stand(settings) as here:
        await made(here, WAITS, paused=True, overlap=overlap, input={"x": 1, "y": 2})

        first = await here.client.run_schedule("nightly", input={"y": 3, "z": 4})

        assert await input_of(here, first) == {"x": 1, "y": 3, "z": 4}
        with pytest.raises(ApiError, match="has not ended") as refused:
            await here.client.run_schedule("nightly", input={"y": 5})
        assert (refused.value.status, refused.value.code) == (409, "schedule_busy")
        forced = await here.client.run_schedule("nightly", input={"y": 5}, force=True)
        assert await input_of(here, forced) == {"x": 1, "y": 5}
        schedule = await here.client.schedule("nightly")
        assert (schedule["input"], schedule["queued"]) == ({"x": 1, "y": 2}, None)


async def test_an_input_by_hand_that_does_not_fit_is_refused(settings):
    async with stand(settings) as here:
        schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
        await made(here, WAITS | {"input_schema": schema}, paused=True)

        with pytest.raises(ApiError, match="not of type") as refused:
            await here.client.run_schedule("nightly", input={"x": "many"})

        assert refused.value.status == 400


async def test_a_time_waits_for_the_end_of_the_one_before_and_runs_then(settings):
    async with stand(settings) as here:
        await made(here, WAITS, paused=True, overlap="queue")
        first = await here.client.run_schedule("nightly")
        status, queued = await here.send("POST", "/schedules/nightly/run", {})
        assert (status, queued["message"]) == (202, "Waits for an execution to end")
        assert (await schedule_of(here))["queued"] is not None

        await here.client.signal(first, "A", {"go": "on"})
        await here.client.wait(first)

        running = [queued["execution_id"]]
        await until(lambda: schedule_of(here), lambda one: one["running"] == running)


async def test_a_newer_time_replaces_what_runs(settings):
    async with stand(settings) as here:
        await made(here, WAITS, paused=True, overlap="replace")
        first = await here.client.run_schedule("nightly")
        _, queued = await here.send("POST", "/schedules/nightly/run", {})

        assert await here.client.wait(first) == "CANCELLED"
        running = [queued["execution_id"]]
        await until(lambda: schedule_of(here), lambda one: one["running"] == running)


async def test_what_is_skipped_is_told_as_an_event_and_counted(settings, redis):
    async with stand(settings) as here:
        await made(here, WAITS)
        # Each second there is one more, so it is no matter when this begins to listen.
        async with asyncio.timeout(PATIENCE_S):
            async for event in here.client.events():
                if event.type == "schedule.skipped":
                    break
        await here.client.pause_schedule("nightly")
        shown = await schedule_of(here)

        assert event.data["schedule"] == "nightly" and "execution_id" not in event.data
        # Of several at once where the scheduler was late.
        assert event.data["times"] >= 1 and event.data["scheduled_ms"] % 1000 == 0
        assert shown["skipped"] >= 1 and shown["fired"] == 1
        call = await here.client._http.request("GET", "/metrics")
        assert "flowd_schedules_fired_total 1.0" in call.text
        skipped = float(redis.hget(keys.METRICS, "schedules skipped"))
        assert skipped == shown["skipped"]
        assert f"flowd_schedules_skipped_total {skipped}" in call.text


async def test_one_that_cannot_start_says_why_and_goes_on_when_it_can(settings, redis):
    async with stand(settings) as here:
        await made(here, READS, input={"of": "us"})
        key = keys.saved_definition("report")
        redis.rename(key, "aside")
        shown = await until(lambda: schedule_of(here), lambda one: one["error"])
        assert "no definition 'report' is saved" in shown["error"]

        redis.rename("aside", key)

        await until(lambda: schedule_of(here), lambda one: not one["error"] and one["fired"])


async def test_they_are_listed_by_name_page_by_page(settings):
    async with stand(settings, workers=0) as here:
        await here.client.put_definition("report", READS)
        for name in ("b", "a", "c"):
            await here.client.put_schedule(name, {**SECOND, "paused": True})
        assert [one["name"] async for one in here.client.schedules()] == ["a", "b", "c"]
        _, page = await here.send("GET", "/schedules?limit=2")
        assert [one["name"] for one in page["schedules"]] == ["a", "b"]
        _, page = await here.send("GET", f"/schedules?limit=2&cursor={page['next_cursor']}")
        assert ([one["name"] for one in page["schedules"]], page["next_cursor"]) == (["c"], None)

        await here.client.delete_schedule("b")
        assert [one["name"] async for one in here.client.schedules()] == ["a", "c"]
        with pytest.raises(ApiError, match="is run by the schedule") as refused:
            await here.client.delete_definition("report")
        assert refused.value.status == 409


async def test_an_input_that_does_not_fit_is_refused(settings):
    schema = {"type": "object", "properties": {"of": {"type": "string"}}, "required": ["of"]}
    async with stand(settings, workers=0) as here:
        await here.client.put_definition("report", {**READS, "input_schema": schema})
        status, problem = await here.send(
            "PUT", "/schedules/nightly", {**SECOND, "input": {"of": 1}}
        )
        assert (status, problem["code"]) == (400, "invalid_request")
        assert problem["errors"][0]["path"].startswith("input")

        assert (await here.send("PUT", "/schedules/nightly", {**SECOND, "input": {"of": "us"}}))[
            0
        ] == 201


async def test_a_rerun_is_of_the_same_time(settings):
    async with stand(settings) as here:
        await made(here, READS, paused=True, input={"of": "us"})
        first = await here.client.run_schedule("nightly")
        await here.client.wait(first)

        again = (await here.client.rerun(first, "A"))["execution_id"]

        assert await here.client.wait(again) == "COMPLETED"
        assert await here.client.results(again) == await here.client.results(first)
        assert (await schedule_of(here))["running"] == []
