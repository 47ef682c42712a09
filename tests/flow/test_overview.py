"""What a page is made of: the graph and the states of an execution, and flowd at a glance."""

from __future__ import annotations

import os

import pytest

from flowd.handlers.registry import Registry, built_in_registry
from flowd.orchestrator.executor import submit_workflow, trigger_workflow
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.store.limits import Limit
from flowd.store.redis import keys
from flowd.workflow.definition import WorkflowDefinition
from flowd.workflow.ids import child_id
from tests.flow import handlers
from tests.flow.engine import node, until, workflow
from tests.flow.test_children import WITH_CHILDREN, call, save
from tests.flow.test_reads import SOME_ID, serving
from tests.store.schedules import HOUR_MS, MINUTE_MS, schedule


@pytest.fixture(autouse=True)
def _nobody_is_fated():
    yield
    handlers.FATED.clear()


async def states(api, execution_id: str) -> str:
    return (await api.request(f"/workflows/{execution_id}/states"))["states"]


async def test_a_graph_has_its_nodes_in_columns_and_in_the_order_of_the_definition(settings):
    async with serving(settings, workers=0) as api:
        saved = {"name": "x", "dag": {"nodes": [node("A")]}}
        assert (await api._client.put("/definitions/x", json=saved)).is_success
        written = {
            "name": "page",
            "dag": {
                "nodes": [
                    {"id": "B", "handler": "echo", "dependencies": ["A"], "when": "A.x == 1"},
                    {"id": "A", "handler": "noop", "allow_failure": True},
                    {"id": "M", "handler": "echo", "map": {"over": "{{ input.xs }}"}},
                    {"id": "S", "handler": "signal", "dependencies": ["A", "M"]},
                ],
                "finally": [{"id": "tidy", "handler": "workflow", "config": {"name": "x"}}],
            },
        }
        one = await submit_workflow(api.engine.store, WorkflowDefinition.model_validate(written))

        graph = await api.request(f"/workflows/{one}/graph")

        assert graph.pop("plan")
        assert graph == {
            "execution_id": one,
            "name": "page",
            "nodes": 5,
            "ids": ["B", "A", "M", "S", "tidy"],
            "handlers": ["echo", "noop", "signal", "workflow"],
            "handler": [0, 1, 0, 2, 3],
            "dependencies": [[1], [], [], [1, 2], []],
            "maps": [2],
            "finally": [4],
            "when": [0],
            "allow_failure": [1],
            "signals": [3],
            "workflows": [4],
        }


async def test_a_graph_that_is_known_is_not_sent_again(settings):
    async with serving(settings, workers=0) as api:
        ids = [await submit_workflow(api.engine.store, workflow(node("A"))) for _ in range(2)]
        first = await api._client.get(f"/workflows/{ids[0]}/graph")
        tag = first.headers["etag"]
        assert tag == f'"{first.json()["plan"]}"'

        for asked in (tag, f'"other", W/{tag}', "*"):
            again = await api._client.get(
                f"/workflows/{ids[1]}/graph", headers={"if-none-match": asked}
            )
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        for asked in ('"other"', "x", tag.strip('"')):
            again = await api._client.get(
                f"/workflows/{ids[1]}/graph", headers={"if-none-match": asked}
            )
            assert again.status_code == 200
        unknown = await api._client.get(
            f"/workflows/{SOME_ID}/graph", headers={"if-none-match": tag}
        )
        assert unknown.status_code == 404


async def test_each_state_has_a_letter_and_a_failure_from_upstream_its_own(settings):
    async with serving(settings, workers=1) as api:
        one = await api.engine.run(
            workflow(node("A", handler="fail"), node("B", ["A"]), node("C"), node("D", ["B"]))
        )

        seen = await api.request(f"/workflows/{one}/states")

        graph = await api.request(f"/workflows/{one}/graph")
        assert dict(zip(graph["ids"], seen["states"], strict=True)) == {
            "A": "F", "B": "U", "C": "C", "D": "U",
        }  # fmt: skip
        assert seen["plan"] == graph["plan"]
        assert (seen["status"], seen["cancelling"], seen["items"]) == ("FAILED", False, {})
        assert seen["counts"] == {"FAILED": 3, "COMPLETED": 1}


async def test_every_state_a_node_can_have_is_a_letter_of_the_legend(settings):
    async with serving(settings, workers=0) as api:
        names = [
            "PENDING", "QUEUED", "RUNNING", "RETRYING", "WAITING", "COMPLETED", "SKIPPED",
            "CANCELLED", "rubbish",
        ]  # fmt: skip
        one = await submit_workflow(api.engine.store, workflow(*map(node, "abcdefghi")))
        for letter, name in zip("abcdefghi", names, strict=True):
            await api.engine.redis("SET", f"workflow:{one}:node:{letter}", name)

        seen = await api.request(f"/workflows/{one}/states")

        assert seen["states"] == "PQRTWCSX?"
        assert [seen["letters"][letter] for letter in seen["states"]] == [*names[:-1], "CORRUPT"]


async def test_the_items_of_a_map_are_counted_beside_its_letter(settings):
    async with serving(settings, workers=1) as api:
        written = {
            "name": "page",
            "input": {"xs": [1, 2, 3]},
            "dag": {"nodes": [{"id": "M", "handler": "echo", "map": {"over": "{{ input.xs }}"}}]},
        }
        one = await submit_workflow(api.engine.store, WorkflowDefinition.model_validate(written))
        assert (await api.request(f"/workflows/{one}/states"))["items"] == {}

        one = await api.engine.run(WorkflowDefinition.model_validate(written))

        seen = await api.request(f"/workflows/{one}/states")
        assert (seen["states"], seen["items"]) == ("C", {"0": {"COMPLETED": 3}})


async def test_ten_thousand_nodes_are_little_more_than_ten_thousand_letters(settings):
    async with serving(settings, workers=0) as api:
        ids = [f"n{number}" for number in range(10_000)]
        many = workflow(node("n0"), *(node(one, ["n0"]) for one in ids[1:]))
        one = await submit_workflow(api.engine.store, many)

        response = await api._client.get(f"/workflows/{one}/states")

        assert response.json()["states"] == "P" * 10_000
        assert len(response.content) < 10_600


async def test_the_overview_says_how_flowd_is_and_what_needs_somebody(settings):
    async with serving(settings, 1, built_in_registry()) as api:
        quiet = await api.request("/overview")
        assert quiet["executions"]["RUNNING"] == 0
        # The scheduler of this test is none.
        assert [one["kind"] for one in quiet["attention"]] == ["health"]
        assert not quiet["health"]["ok"]
        assert quiet["health"]["problems"][0]["code"] == "no_scheduler"

        await api.engine.store.health.metrics.beat()
        failing = node("A", handler="unreliable_handler", failure_rate=1.0)
        failed = await api.engine.run(workflow(failing, name="night"))
        gate = workflow(node("G", handler="signal", prompt="go?"), name="gate")
        asked = await api.engine.start(gate)
        await until(lambda: _waits(api, asked), "the wait")

        seen = await api.request("/overview")

        assert seen["health"]["ok"]
        sentence = "flowd works: 1 worker, 1 execution runs, no node under way or in the queue."
        assert seen["health"]["sentence"] == sentence
        assert seen["executions"]["RUNNING"] == 1
        assert seen["workers"] == {"live": 1, "stalled": 0}
        by_kind = {one["kind"]: one for one in seen["attention"]}
        assert list(by_kind) == ["failed", "waiting_for_signal"]
        (row,) = by_kind["failed"]["sample"]
        assert by_kind["failed"]["count"] == 1
        assert (row["execution_id"], row["name"]) == (failed, "night")
        assert "A" in row["text"]
        assert row["at_ms"] <= seen["at_ms"]
        (row,) = by_kind["waiting_for_signal"]["sample"]
        assert (row["execution_id"], row["node_id"], row["name"]) == (asked, "G", "gate")


async def test_what_a_rerun_has_mended_needs_nobody_any_more(settings):
    async with serving(settings, 1) as api:

        async def failed() -> list[str]:
            seen = await api.request("/overview")
            groups = [one for one in seen["attention"] if one["kind"] == "failed"]
            assert [one["count"] for one in groups] == [len(one["sample"]) for one in groups]
            return [row["execution_id"] for one in groups for row in one["sample"]]

        async def rerun(execution_id: str) -> str:
            planned = await plan_rerun(api.engine.store, execution_id, "failed")
            return await rerun_execution(api.engine.store, planned)

        handlers.FATED |= {"B"}
        other = await api.engine.run(workflow(node("X", handler="fail")))
        first = await api.engine.run(workflow(node("A"), node("B", ["A"], handler="fated")))
        assert await failed() == [first, other]

        # A rerun that has not ended mends nothing yet; one that has failed stands for the first.
        second = await rerun(first)
        assert await failed() == [first, other]
        assert (await api.request(f"/workflows/{first}/summary"))["rerun_as"] == second
        await trigger_workflow(api.engine.store, second)
        await api.engine.end(second)
        assert await failed() == [second, other]

        handlers.FATED.clear()
        third = await rerun(second)
        await trigger_workflow(api.engine.store, third)
        await api.engine.end(third)
        assert await failed() == [other]
        assert "rerun_as" not in await api.request(f"/workflows/{third}/summary")

        # What nobody has any more has mended nothing that can be shown.
        await api.engine.redis("SET", f"workflow:{third}:status", "CANCELLED")
        assert await failed() == [second, other]
        await api.engine.redis("DEL", f"workflow:{third}:status")
        assert await failed() == [second, other]


async def test_a_child_that_failed_is_shown_by_its_parent_alone(settings):
    async with serving(settings, 1, Registry(WITH_CHILDREN)) as api:
        await save(api.engine, node("L", handler="fail"), name="leaf")
        one = await api.engine.run(workflow(call(name="leaf")))
        child = await api.request(f"/workflows/{child_id(one, 'call', 1)}")
        assert child["status"] == "FAILED"

        seen = await api.request("/overview")

        (group,) = (one for one in seen["attention"] if one["kind"] == "failed")
        assert (group["count"], [row["execution_id"] for row in group["sample"]]) == (1, [one])


async def test_what_waits_for_a_while_is_not_retrying(settings):
    async with serving(settings, 1, built_in_registry()) as api:
        delayed = await api.engine.start(workflow(node("D", handler="delay", seconds=3000)))
        await until(lambda: _waits(api, delayed), "the wait")
        assert await api.engine.redis("ZCARD", "flowd:retries") == 1

        seen = await api.request("/overview")

        assert seen["retries"]["waiting"] == 0
        assert "retrying" not in [one["kind"] for one in seen["attention"]]
        again = node("R", handler="unreliable_handler", failure_rate=1.0)
        again["retry"] = {"max_attempts": 2, "delay_s": 3000}
        retrying = await api.engine.start(workflow(again))

        async def is_retrying() -> bool:
            return await states(api, retrying) == "T"

        await until(is_retrying, "the pause")
        seen = await api.request("/overview")
        assert seen["retries"]["waiting"] == 1
        (group,) = (one for one in seen["attention"] if one["kind"] == "retrying")
        assert (group["count"], [one["node_id"] for one in group["sample"]]) == (1, ["R"])


async def _waits(api, execution_id: str) -> bool:
    return await states(api, execution_id) == "W"


async def test_missed_times_need_somebody_for_a_day(settings, redis):
    async with serving(settings, workers=0) as api:
        nightly = await schedule(api.engine.store, redis, catch_up="none")

        async def missed() -> list[dict[str, object]]:
            attention = (await api.request("/overview"))["attention"]
            return [one for one in attention if one["kind"] == "missed"]

        assert await missed() == []
        await nightly.attend(nightly.first_ms + 72 * HOUR_MS + 5 * MINUTE_MS)
        (found,) = await missed()
        assert found["count"] == 1
        (one,) = found["sample"]
        assert one["text"] == "73 times of the schedule 'nightly' were missed, as no scheduler ran"
        assert one["at_ms"] == nightly.first_ms
        assert redis.pttl(keys.SCHEDULES_MISSED) > 0

        # More of them are one more that somebody has to know.
        await nightly.attend(nightly.first_ms + 73 * HOUR_MS + 5 * MINUTE_MS)
        ((one,),) = [found["sample"] for found in await missed()]
        assert one["text"].startswith("74 times of ")
        noted_ms = redis.zscore(keys.SCHEDULES_MISSED, "nightly")
        redis.zadd(keys.SCHEDULES_MISSED, {"nightly": noted_ms - 24 * HOUR_MS - 1})
        assert await missed() == []
        await nightly.attend(nightly.first_ms + 74 * HOUR_MS + 5 * MINUTE_MS)
        ((one,),) = [found["sample"] for found in await missed()]
        assert one["text"].startswith("1 time of the schedule 'nightly' was missed")
        assert one["at_ms"] == nightly.first_ms + 74 * HOUR_MS
        await api.engine.store.schedules.delete("nightly")
        assert await missed() == []


async def test_without_a_worker_the_overview_says_so(settings):
    async with serving(settings, workers=0) as api:
        await api.engine.store.health.metrics.beat()
        await api.engine.start(workflow(node("A")))

        seen = await api.request("/overview")

        assert seen["health"]["sentence"] == "No worker is alive: 1 node waits for one."


async def test_what_nobody_will_ever_run_needs_somebody(settings):
    """Nodes behind a limit of none, and in a queue that no worker reads, were nothing to see to."""
    async with serving(settings, 1, built_in_registry()) as api:
        await api.engine.store.health.metrics.beat()
        await api.engine.store.tasks.limits.put(Limit("api", 0))
        await api.engine.start(
            workflow({**node("A"), "limit": "api"}, {**node("B"), "queue": "gpu"})
        )
        told = [
            "no worker reads the queue 'gpu', in which nodes wait",
            "the limit 'api' lets nothing run (max 0), and 1 node waits",
        ]

        async def is_told() -> bool:
            attention = (await api.request("/overview"))["attention"]
            return [[row["text"] for row in one["sample"]] for one in attention] == [told]

        await until(is_told, "both to be told")
        seen = await api.request("/overview")
        assert seen["health"]["sentence"] == f"flowd works, but {told[0]}."
        assert seen["health"]["ok"]


async def test_a_worker_is_shown_with_what_it_holds(settings):
    async with serving(settings, workers=1) as api:
        one = await api.engine.start(workflow(node("A", handler="held")))

        async def held() -> bool:
            (worker,) = (await api.request("/workers"))["workers"]
            return worker["in_flight"] == 1

        await until(held, "the node to be held")
        (worker,) = (await api.request("/workers"))["workers"]
        assert worker["name"].startswith("worker-1-")
        assert (worker["pid"], worker["alive"], worker["why_not"]) == (os.getpid(), True, None)
        handlers.GATES["A"].set()
        await api.engine.end(one)


async def test_without_a_daemon_there_are_no_processes(settings):
    async with serving(settings, workers=0) as api:
        assert await api.request("/processes") == {
            "pid": None, "state": None, "uptime_s": None, "processes": [],
        }  # fmt: skip


async def test_every_handler_is_listed_with_the_schema_of_its_config(settings):
    async with serving(settings, workers=0) as api:
        for _ in range(2):
            rows = {one["name"]: one for one in (await api.request("/handlers"))["handlers"]}
            assert rows["noop"]["config"] is None
            assert rows["delay"]["config"]["properties"].keys() >= {"seconds"}
            assert all(one["summary"].endswith(".") for one in rows.values())


@pytest.mark.parametrize("path", ["/overview", "/workers", "/handlers", "/processes", "/token"])
async def test_what_is_about_flowd_is_read_only(settings, path):
    async with serving(settings, workers=0) as api:
        await api.refuses(path, 405, "method_not_allowed", "POST")
