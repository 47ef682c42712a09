"""What the API shows of executions, nodes and dead letters, of a real engine's doing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx2
import pytest

from flowd.api.app import create_app
from flowd.api.routers import nodes as nodes_router
from flowd.handlers.registry import Registry
from flowd.orchestrator.executor import submit_workflow
from flowd.store import open_store
from tests.flow.engine import Engine, calls, node, until, workflow

PATHS = (
    "/workflows",
    "/workflows?handler=echo",
    "/workflows/{id}/summary",
    "/workflows/{id}/definition",
    "/workflows/{id}/nodes",
    "/workflows/{id}/nodes/A",
    "/workflows/{id}/timeline",
    "/workflows/{id}/graph",
    "/workflows/{id}/states",
    "/workflows/{id}/explain",
    "/workflows/{id}/explain/A",
    "/dead-letters",
    "/overview",
    "/metrics",
    "/workers",
)
SOME_ID = "0123456789abcdef01234567"
ROW = [
    "execution_id",
    "name",
    "status",
    "nodes",
    "submitted_ms",
    "triggered_ms",
    "finished_ms",
    "duration_ms",
    "rerun_of",
    "labels",
]


class Api:
    def __init__(self, engine: Engine, client: httpx2.AsyncClient) -> None:
        self.engine = engine
        self._client = client

    async def request(self, path: str, status: int = 200, method: str = "GET"):
        response = await self._client.request(method, path)
        assert response.status_code == status, (path, response.text)
        kind = "json" if status == 200 else "problem+json"
        assert response.headers["content-type"] == f"application/{kind}"
        return response.json()

    async def refuses(self, path: str, status: int, code: str, method: str = "GET"):
        document = await self.request(path, status, method)
        assert (document["status"], document["code"]) == (status, code)
        return document


@asynccontextmanager
async def serving(
    settings, workers: int = 2, registry: Registry | None = None
) -> AsyncIterator[Api]:
    async with Engine(settings, workers, registry) as engine:
        transport = httpx2.ASGITransport(app=create_app(engine.store, {"echo": None}))
        async with httpx2.AsyncClient(transport=transport, base_url="http://flowd") as client:
            yield Api(engine, client)


async def test_the_list_has_the_newest_first_page_by_page(settings):
    async with serving(settings) as api:
        ids = [await api.engine.run(workflow(node("A"), name=f"n{one}")) for one in range(5)]
        first = await api.request("/workflows?limit=2")
        assert [row["execution_id"] for row in first["workflows"]] == [ids[4], ids[3]]
        assert all(list(row) == ROW for row in first["workflows"])
        assert (first["workflows"][0]["name"], first["workflows"][0]["nodes"]) == ("n4", 1)

        await api.engine.run(workflow(node("A")))
        second = await api.request(f"/workflows?limit=3&cursor={first['next_cursor']}")
        assert [row["execution_id"] for row in second["workflows"]] == ids[2::-1]
        assert second["next_cursor"] is None


async def test_the_list_is_filtered_and_its_fields_chosen(settings):
    async with serving(settings) as api:
        done = await api.engine.run(workflow(node("A"), name="night build"))
        failed = await api.engine.run(workflow(node("A", handler="fail"), name="night"))
        waits = await submit_workflow(api.engine.store, workflow(node("A"), name="day"))

        async def ids(query: str) -> list[str]:
            page = await api.request(f"/workflows?fields=execution_id&{query}")
            assert all(list(row) == ["execution_id"] for row in page["workflows"])
            return [row["execution_id"] for row in page["workflows"]]

        assert await ids("status=FAILED,PENDING") == [waits, failed]
        assert await ids("status=FAILED&status=PENDING") == [waits, failed]
        assert await ids("name=night*") == [failed, done]
        assert await ids("name=night") == [failed]
        assert await ids("handler=fail") == [failed]
        hour_ms = 3_600_000
        soon_ms = time.time_ns() // 1_000_000 + hour_ms
        soon = datetime.fromtimestamp(soon_ms / 1000, UTC)
        for moment in (soon_ms, f"{soon:%Y-%m-%dT%H:%M:%S}Z", f"{soon:%Y-%m-%dT%H:%M}+00:00"):
            assert await ids(f"submitted_before={moment}") == [waits, failed, done]
            assert await ids(f"submitted_after={moment}") == []
        page = await api.request("/workflows?fields=status,name&limit=1")
        assert page["workflows"] == [{"status": "PENDING", "name": "day"}]


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("limit=0", "query.limit"),
        ("limit=1001", "query.limit"),
        ("limit=x", "query.limit"),
        ("status=RUNING", "query.status.0"),
        ("fields=secret", "query.fields.0"),
        ("cursor=x", "query.cursor"),
        ("cursor=MTIz", "query.cursor"),
        ("submitted_after=yesterday", "query.submitted_after"),
        ("submitted_after=0001-01-01T00:00:00%2B14:00&submitted_before=", "query.submitted_before"),
        ("sort=name", "query.sort"),
        ("name=a&name=b", "query.name"),
    ],
)
async def test_a_query_that_cannot_be_meant_is_refused(settings, query, path):
    async with serving(settings, workers=0) as api:
        document = await api.refuses(f"/workflows?{query}", 400, "invalid_request")
        assert path in [problem["path"] for problem in document["errors"]]


async def test_a_summary_counts_what_became_of_the_nodes(settings):
    nodes = [node("A"), node("B", ["A"], "fail"), node("C", ["B"])]
    async with serving(settings) as api:
        execution_id = await api.engine.run(
            workflow(*nodes, input={"x": 1, "y": 1}, budget={"tokens": 50}), b'{"y":2}'
        )
        summary = await api.request(f"/workflows/{execution_id}/summary")
        row = (await api.request("/workflows"))["workflows"][0]
        # What it has not does not stand in there.
        assert row.pop("labels") == {}
        assert list(summary)[: len(row)] == list(row)
        assert {name: summary[name] for name in row} == row
        assert row["duration_ms"] == row["finished_ms"] - row["triggered_ms"]
        assert {name: value for name, value in summary.items() if name not in ROW} == {
            "counts": {"COMPLETED": 1, "FAILED": 2},
            "usage": {
                "calls": 0,
                "prompt_tokens": 0,
                "completion_tokens": 0,
                "total_tokens": 0,
            },
            "budget": {"tokens": 50, "spent": 0, "reserved": 0},
            "input": {"x": 1, "y": 2},
            "error": "B: RuntimeError: no luck",
            "cancelling": False,
            "callback": None,
        }


async def test_a_summary_shows_where_the_callback_stands(settings):
    async with serving(settings) as api:
        callback = {"url": "http://127.0.0.1:9/x", "secret": "s3cret"}
        execution_id = await api.engine.run(workflow(node("A"), callback=callback))
        summary = await api.request(f"/workflows/{execution_id}/summary")
        assert summary["callback"] == await api.request(f"/workflows/{execution_id}/callback")


async def test_the_definition_is_the_one_that_was_submitted_without_its_secret(settings):
    async with serving(settings, workers=0) as api:
        plain = workflow(node("A", x={"$secret": "name"}), node("B", ["A"], y="{{ A.x }}"))
        secret = workflow(node("A"), callback={"url": "http://x/", "secret": "s3cret"})
        named = workflow(node("A"), callback={"url": "http://x/", "secret": {"$secret": "name"}})
        ids = [await submit_workflow(api.engine.store, one) for one in (plain, secret, named)]
        shown = [await api.request(f"/workflows/{one}/definition") for one in ids]
        assert [one["dag"] for one in shown] == [
            {"nodes": [node.model_dump(exclude_unset=True) for node in one.dag.nodes]}
            for one in (plain, secret, named)
        ]
        assert shown[1]["callback"] == {"url": "http://x/", "secret": "***"}
        assert shown[2]["callback"]["secret"] == {"$secret": "name"}


async def test_nodes_come_page_by_page_in_the_order_of_the_definition(settings):
    nodes = [
        node(f"n{number}", handler="fail" if number % 3 == 0 else "echo") for number in range(9)
    ]
    async with serving(settings) as api:
        execution_id = await api.engine.run(workflow(*nodes))

        async def walk(query: str) -> list[list[str]]:
            pages, cursor = [], ""
            while True:
                page = await api.request(f"/workflows/{execution_id}/nodes?{query}&cursor={cursor}")
                pages.append([one["node_id"] for one in page["nodes"]])
                if (cursor := page["next_cursor"]) is None:
                    return pages

        assert await walk("limit=4") == [
            ["n0", "n1", "n2", "n3"],
            ["n4", "n5", "n6", "n7"],
            ["n8"],
        ]
        assert await walk("limit=2&state=FAILED") == [["n0", "n3"], ["n6"]]
        assert await walk("state=FAILED,COMPLETED&limit=9") == [[f"n{one}" for one in range(9)]]
        assert await walk("state=RUNNING") == [[]]
        await api.refuses(
            f"/workflows/{execution_id}/nodes?cursor=bm9ib2R5", 400, "invalid_request"
        )


async def test_ten_thousand_nodes_are_paged_in_bounded_commands(settings, monkeypatch):
    nodes = [node("A"), *(node(f"n{number}", ["A"]) for number in range(10_000))]
    async with serving(settings, workers=0) as api:
        execution_id = await submit_workflow(api.engine.store, workflow(*nodes))
        store = api.engine.store
        converse, longest = store._client.converse_freely, 0
        execute = store._client.execute

        async def counting(commands):
            nonlocal longest
            longest = max([longest, len(commands), *(len(one) for one in commands)])
            return await converse(commands)

        async def counting_one(*command):
            nonlocal longest
            longest = max(longest, len(command))
            return await execute(*command)

        monkeypatch.setattr(store._client, "converse_freely", counting)
        monkeypatch.setattr(store._client, "execute", counting_one)
        found, cursor = [], ""
        while cursor is not None:
            page = await api.request(f"/workflows/{execution_id}/nodes?limit=1000&cursor={cursor}")
            found += [one["node_id"] for one in page["nodes"]]
            cursor = page["next_cursor"]
        assert found == [one["id"] for one in nodes]
        summary = await api.request(f"/workflows/{execution_id}/summary")
        assert summary["counts"] == {"PENDING": 10_001}
        assert (await api.request(f"/workflows/{execution_id}/timeline"))["nodes"] == []
        explained = await api.request(f"/workflows/{execution_id}/explain")
        assert (len(explained["nodes"]), explained["more"]) == (100, 9_901)
        assert longest <= 1003


async def test_a_node_shows_its_config_as_written_and_as_rendered(settings, monkeypatch):
    monkeypatch.setenv("FLOWD_SECRET_name", "hush")
    nodes = [
        node("A", x={"deep": [1, 2]}),
        node("B", ["A"], text="{{ A.x.deep[1] }} of {{ input.n }}", key={"$secret": "name"}),
        node("C", ["B"], "fail"),
    ]
    async with serving(settings) as api:
        execution_id = await api.engine.run(workflow(*nodes, input={"n": 1}), b'{"n":3}')
        b = await api.request(f"/workflows/{execution_id}/nodes/B")
        record = (await api.engine.redis("HGET", f"workflow:{execution_id}:attempts", "B")).split()
        queued_ms, waited_ms, ran_ms = map(int, record[1:4])
        assert b == {
            "node_id": "B",
            "handler": "echo",
            "state": "COMPLETED",
            "attempt": 1,
            "worker": record[4],
            "queued_ms": queued_ms,
            "started_ms": queued_ms + waited_ms,
            "finished_ms": queued_ms + waited_ms + ran_ms,
            "began_ms": queued_ms + waited_ms,
            "duration_ms": ran_ms,
            "error": None,
            "skipped_because": None,
            "waiting": None,
            "cached": False,
            "items": None,
            "dependencies": ["A"],
            "dependents": ["C"],
            "config": {"text": "{{ A.x.deep[1] }} of {{ input.n }}", "key": {"$secret": "name"}},
            "rendered_config": {"text": "2 of 3", "key": {"$secret": "name"}},
            "output": b["output"],
            "traceback": None,
            "retry": None,
            "attempts": b["attempts"],
        }
        (attempt,) = b["attempts"]
        assert (attempt["attempt"], attempt["finished_ms"]) == (1, b["finished_ms"])
        assert b["output"]["text"] == "2 of 3"
        c = await api.request(f"/workflows/{execution_id}/nodes/C")
        assert (c["error"], c["output"]) == ("RuntimeError: no luck", None)
        await api.refuses(f"/workflows/{execution_id}/nodes/nobody", 404, "unknown_node")


async def test_a_config_is_not_rendered_before_all_it_reads_is_there(settings):
    nodes = [
        node("A"),
        node("B", ["A"], text="{{ A.x }}"),
        node("C", text="{{ input.x }}"),
        node("D", text="plain"),
    ]
    async with serving(settings, workers=0) as api:
        execution_id = await submit_workflow(api.engine.store, workflow(*nodes))
        shown = {
            one: (await api.request(f"/workflows/{execution_id}/nodes/{one}"))["rendered_config"]
            for one in "BCD"
        }
        assert shown == {"B": None, "C": None, "D": {"text": "plain"}}


async def test_a_config_that_would_be_huge_is_not_rendered(settings):
    nodes = [
        node("A", "", "return_much", bytes=100_000),
        node("B", ["A"], texts=["{{ A.text }}"] * 100),
    ]
    async with serving(settings) as api:
        execution_id = await api.engine.run(workflow(*nodes))
        b = await api.request(f"/workflows/{execution_id}/nodes/B")
        assert (b["state"], b["rendered_config"]) == ("COMPLETED", None)


async def test_a_node_that_waits_for_its_next_attempt_says_so(settings):
    retry = {"max_attempts": 4, "delay_s": 200, "jitter": 0}
    flaky = {**node("A", handler="fail_first", times=1), "retry": retry}
    async with serving(settings) as api:
        execution_id = await api.engine.start(workflow(flaky))

        async def is_retrying():
            return (await api.engine.states(execution_id))["A"] == "RETRYING"

        await until(is_retrying, "the pause")
        a = await api.request(f"/workflows/{execution_id}/nodes/A")
        assert a["finished_ms"] + 199_000 < a["retry"].pop("due_ms") < a["finished_ms"] + 201_000
        assert (a["state"], a["retry"]) == ("RETRYING", {"failures": 1, "max_attempts": 4})


async def test_the_timeline_is_in_the_order_of_the_starts(settings):
    async with serving(settings) as api:
        execution_id = await api.engine.run(
            workflow(node("C", ["B"]), node("B", ["A"], "echo_async"), node("A"))
        )
        timeline = await api.request(f"/workflows/{execution_id}/timeline")
        starts = [one["started_ms"] for one in timeline["nodes"]]
        assert starts == sorted(starts)
        assert timeline["triggered_ms"] <= starts[0]
        assert timeline["finished_ms"] >= timeline["nodes"][-1]["finished_ms"]
        assert {one["node_id"] for one in timeline["nodes"]} == {"A", "B", "C"}
        assert list(timeline["nodes"][0]) == [
            *("node_id", "state", "attempt", "worker", "queued_ms", "started_ms", "finished_ms"),
            *("began_ms", "duration_ms"),
        ]


async def test_a_timeline_that_is_too_long_says_so(settings, monkeypatch):
    monkeypatch.setattr(nodes_router, "TIMELINE_MAX", 2)
    async with serving(settings) as api:
        execution_id = await api.engine.run(workflow(*(node(f"n{one}") for one in range(5))))
        timeline = await api.request(f"/workflows/{execution_id}/timeline")
        assert (len(timeline["nodes"]), timeline["more"]) == (2, 3)


async def test_explain_answers_of_all_and_of_one(settings):
    async with serving(settings, workers=0) as api:
        execution_id = await api.engine.start(workflow(node("A"), node("B", ["A"])))
        found = await api.request(f"/workflows/{execution_id}/explain")
        assert [one["node_id"] for one in found["nodes"]] == ["A", "B"]
        assert found["nodes"][1]["reasons"] == [
            {"code": "waiting_for", "message": "waits for A (QUEUED)"}
        ]
        one = await api.request(f"/workflows/{execution_id}/explain/B")
        assert one["nodes"] == found["nodes"][1:]
        await api.refuses(f"/workflows/{execution_id}/explain/{'x' * 200}", 404, "unknown_node")


async def test_dead_letters_are_listed_shown_deleted_and_purged(settings):
    async with serving(settings, workers=1) as api:
        for number in range(3):
            await api.engine.redis("XADD", "workflow:tasks", "*", "number", number)

        async def are_buried():
            return await api.engine.redis("XLEN", "flowd:dead_letters") == 3

        await until(are_buried, "the dead letters")
        page = await api.request("/dead-letters?limit=2")
        rows = page["dead_letters"]
        rest = await api.request(f"/dead-letters?cursor={page['next_cursor']}")
        rows += rest["dead_letters"]
        assert (len(rows), rest["next_cursor"]) == (3, None)
        assert rows[0]["reason"] == "it names no execution_id and node_id"
        assert rows[0]["execution_id"] is rows[0]["attempt"] is None

        path = f"/dead-letters/{rows[0]['dead_letter_id']}"
        assert await api.request(path) == {
            **rows[0],
            "fields": [{"name": "number", "value": "2"}],
        }
        assert (await api.request(path, method="DELETE"))["message"] == "Dead letter deleted"
        for method in ("GET", "DELETE"):
            await api.refuses(path, 404, "unknown_dead_letter", method)
            await api.refuses("/dead-letters/x", 404, "unknown_dead_letter", method)
        assert (await api.request("/dead-letters", method="DELETE"))["deleted"] == 2
        assert (await api.request("/dead-letters"))["dead_letters"] == []


async def test_a_dead_letter_is_redriven_once_however_often_it_is_asked_for(settings):
    async with serving(settings) as api:
        first = await api.engine.run(workflow(node("A")))
        fields = ("reason", "given up", "execution_id", first, "node_id", "A")
        letter_id = await api.engine.redis("XADD", "flowd:dead_letters", "*", *fields)
        path = f"/dead-letters/{letter_id}/redrive"

        one, other = await asyncio.gather(*(api.request(path, method="POST") for _ in range(2)))

        assert one == other == {"execution_id": one["execution_id"], "rerun_of": first}
        assert str(await api.engine.end(one["execution_id"])) == "COMPLETED"
        assert await api.engine.redis("ZCARD", "flowd:executions") == 2
        # The letter is gone with the first answer, which may have been lost.
        await api.refuses(f"/dead-letters/{letter_id}", 404, "unknown_dead_letter")
        assert await api.request(path, method="POST") == one
        await api.request(f"/workflows/{one['execution_id']}", method="DELETE")
        await api.refuses(path, 404, "unknown_dead_letter", "POST")
        assert await api.engine.redis("ZCARD", "flowd:executions") == 1


async def test_a_redriven_node_takes_no_other_that_failed_along(settings):
    async with serving(settings) as api:
        first = await api.engine.run(
            workflow(node("A"), node("U", handler="fail"), node("B", ["A"]))
        )
        fields = ("reason", "given up", "execution_id", first, "node_id", "A")
        letter_id = await api.engine.redis("XADD", "flowd:dead_letters", "*", *fields)

        found = await api.request(f"/dead-letters/{letter_id}/redrive", method="POST")

        again = found["execution_id"]
        assert str(await api.engine.end(again)) == "FAILED"
        assert calls(again) == ["A", "B"]


async def test_without_a_store_readers_are_told_to_come_back(settings, tmp_path):
    nowhere = open_store(settings.with_redis_socket(str(tmp_path / "no.sock")))
    transport = httpx2.ASGITransport(app=create_app(nowhere, {}))
    async with httpx2.AsyncClient(transport=transport, base_url="http://flowd") as client:
        for path in PATHS:
            response = await client.get(path.format(id=SOME_ID))
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    await nowhere.close()


async def test_what_is_unknown_is_unknown_everywhere(settings):
    async with serving(settings, workers=0) as api:
        for path in PATHS:
            if "{id}" in path:
                await api.refuses(path.format(id=SOME_ID), 404, "unknown_execution")
                await api.refuses(path.format(id="x"), 404, "unknown_execution")


@pytest.mark.parametrize(
    "key",
    [
        "",
        ":status",
        ":run",
        ":attempts",
        ":input",
        ":parked",
        ":node:A",
        ":node:A:output",
        "flowd:executions",
        "flowd:dead_letters",
        "flowd:leases",
        "flowd:workers",
        "flowd:retries",
        "flowd:scheduler",
        "workflow:tasks",
    ],
)
@pytest.mark.parametrize("command", [("SET", "{key}", b"\xff{"), ("SADD", "{key}", "x")])
@pytest.mark.parametrize("state", ["COMPLETED", "RETRYING", "QUEUED", "FAILED"])
async def test_a_key_of_another_kind_is_shown_around_or_named(settings, key, command, state):
    async with serving(settings, workers=0) as api:
        definition = workflow(node("A", x="{{ input.x }}"), node("B", ["A"]), input={"x": 1})
        execution_id = await api.engine.start(definition)
        await api.engine.redis("SET", f"workflow:{execution_id}:node:A", state)
        name = f"workflow:{execution_id}{key}" if key[:1] in ("", ":") else key
        await api.engine.redis("DEL", name)
        await api.engine.redis(*(name if one == "{key}" else one for one in command))
        for path in PATHS:
            response = await api._client.get(path.format(id=execution_id))
            is_fine = response.status_code == 200
            code = "" if is_fine else response.json()["code"]
            assert is_fine or code in ("corrupt_execution", "corrupt_store"), (path, response.text)
            if not is_fine:
                assert key in response.text or "its " in response.text
