"""What the API and explain show of maps and their items."""

from __future__ import annotations

import pytest

from flowd.api.routers import items as items_router
from tests.flow import handlers
from tests.flow.engine import calls, node, until, workflow
from tests.flow.test_reads import serving


@pytest.fixture(autouse=True)
def _nobody_is_fated():
    yield
    handlers.FATED.clear()


async def test_the_items_of_a_map_are_paged_with_what_they_ran_for_and_what_came_of_it(settings):
    async with serving(settings) as api:
        handlers.FATED |= {"fan.1"}
        rows = [{"n": one} for one in range(5)]
        fan = node("fan", [], "fated", n="{{ item.n }}") | {
            "map": {"over": "{{ input.rows }}", "max_failed": 1}
        }
        execution_id = await api.engine.run(workflow(fan, input={"rows": rows}))
        path = f"/workflows/{execution_id}/nodes/fan/items"
        first = await api.request(f"{path}?limit=2")
        assert (first["count"], [one["index"] for one in first["items"]]) == (5, [0, 1])
        good, bad = first["items"]
        assert (good["node_id"], good["state"], good["item"]) == ("fan.0", "COMPLETED", {"n": 0})
        assert (good["output"], good["error"], good["attempt"]) == ({"n": 0}, None, 1)
        assert (bad["state"], bad["output"]) == ("FAILED", None)
        assert "as it was fated to" in bad["error"]
        rest = await api.request(f"{path}?limit=9&cursor={first['next_cursor']}")
        assert ([one["index"] for one in rest["items"]], rest["next_cursor"]) == ([2, 3, 4], None)
        failed = await api.request(f"{path}?state=FAILED")
        assert [one["index"] for one in failed["items"]] == [1]
        listed = await api.request(f"/workflows/{execution_id}/nodes")
        (row,) = listed["nodes"]
        assert (row["handler"], row["items"]) == ("fated", {"COMPLETED": 4, "FAILED": 1})
        detail = await api.request(f"/workflows/{execution_id}/nodes/fan.2")
        assert (detail["output"], detail["rendered_config"]) == ({"n": 2}, {"n": 2})


async def test_a_page_of_items_ends_where_it_would_be_too_large(settings, monkeypatch):
    monkeypatch.setattr(items_router, "PAGE_BYTES_MAX", 500)
    async with serving(settings) as api:
        fan = node("fan", [], text="{{ item }}") | {"map": {"over": "{{ input.rows }}"}}
        execution_id = await api.engine.run(workflow(fan, input={"rows": ["x" * 100] * 5}))
        path = f"/workflows/{execution_id}/nodes/fan/items"
        page = await api.request(path)
        assert [one["index"] for one in page["items"]] == [0, 1]
        page = await api.request(f"{path}?cursor={page['next_cursor']}")
        assert [one["index"] for one in page["items"]] == [2, 3]


async def test_items_there_are_not_are_refused_or_none(settings):
    async with serving(settings) as api:
        fan = node("fan") | {"map": {"over": "{{ input.rows }}"}}
        execution_id = await api.engine.run(workflow(fan, node("A"), input={"rows": [1]}))
        path = f"/workflows/{execution_id}/nodes"
        await api.refuses(f"{path}/A/items", 404, "no_map")
        await api.refuses(f"{path}/gone/items", 404, "unknown_node")
        for one in ("fan.1", "fan.01", "fan.x", "A.0", "fan."):
            await api.refuses(f"{path}/{one}", 404, "unknown_node")
        await api.refuses(f"{path}/fan/items?cursor=eHg", 400, "invalid_request")


async def test_an_item_between_two_calls_waits_and_one_between_two_attempts_is_retrying(settings):
    async with serving(settings) as api:
        again = {"repeat": {"until": "output.calls > 9", "delay_s": 3600}}
        retry = {"retry": {"max_attempts": 2, "delay_s": 3600}}
        nodes = [
            node("asks", handler="count_calls") | again,
            node("fails", handler="fail_first", times=1) | retry,
        ]
        maps = {"map": {"over": "{{ input.rows }}", "concurrency": 1}}
        execution_id = await api.engine.start(
            workflow(*(one | maps for one in nodes), input={"rows": [1, 2, 3]})
        )

        async def all_pause() -> bool:
            return await api.engine.redis("ZCARD", "flowd:retries") == 6

        await until(all_pause, "every item to pause")
        rows = (await api.request(f"/workflows/{execution_id}/nodes"))["nodes"]
        assert [row["items"] for row in rows] == [{"WAITING": 3}, {"RETRYING": 3}]


async def test_items_that_end_while_they_are_counted_are_counted_once(settings):
    """What had ended between two reads was said to be RETRYING, of items without a retry."""
    async with serving(settings) as api:
        fan = node("fan", [], n="{{ item }}") | {
            "map": {"over": "{{ input.rows }}", "concurrency": 100, "results": False}
        }
        counted = []
        for _ in range(20):
            execution_id = await api.engine.start(
                workflow(fan, input={"rows": list(range(500))}),
            )

            async def has_ended(execution_id: str = execution_id) -> bool:
                counted.append(await api.engine.store.nodes.maps.counts(execution_id, "fan"))
                return counted[-1] == {"COMPLETED": 500}

            await until(has_ended, "all items")
        assert {sum(one.values()) for one in counted if one} == {500}
        states = {state for one in counted for state in one}
        assert states <= {"PENDING", "QUEUED", "RUNNING", "COMPLETED"}


async def test_what_an_item_and_its_map_wait_for_is_explained(settings):
    async with serving(settings) as api:
        fan = node("fan", [], "held") | {"map": {"over": "{{ input.rows }}", "concurrency": 2}}
        execution_id = await api.engine.start(workflow(fan, input={"rows": [1, 2, 3, 4, 5]}))
        await until(lambda: len(calls(execution_id)) == 2, "two items")

        async def reasons(node_id: str) -> dict[str, str]:
            path = f"/workflows/{execution_id}/explain/{node_id}"
            (row,) = (await api.request(path))["nodes"]
            return {one["code"]: one["message"] for one in row["reasons"]}

        async def is_claimed() -> bool:
            rows = (await api.request(f"/workflows/{execution_id}/nodes"))["nodes"]
            return rows[0]["items"] == {"PENDING": 3, "RUNNING": 2}

        await until(is_claimed, "the items to be seen running")
        assert (await reasons("fan"))["items"].endswith("3 PENDING, 2 RUNNING")
        assert "running" in await reasons("fan.0")
        path = f"/workflows/{execution_id}/explain/fan.0"
        assert (await api.request(path))["summary"].startswith("RUNNING: of 1 node 1 WAITING.")
        waits = (await reasons("fan.4"))["window_full"]
        assert "at most 2 items of 'fan'" in waits and "3 wait for one" in waits
