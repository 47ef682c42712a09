"""What a node with `map` runs by itself: it reads its list, waits for its items, and gathers.

Whatever breaks off is begun anew and comes to the same: the list is stored once, opening items
fills the window up, and who comes back when all have ended gathers.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson

from flowd.backoff import growing_pauses
from flowd.errors import Fail, StoreFull, StoreUnavailable, WaitFor
from flowd.handlers import handler
from flowd.handlers.context import HandlerContext
from flowd.handlers.outcome import OUTPUT_BYTES_MAX, JsonText
from flowd.store.maps import Maps, MapStanding
from flowd.workflow.ids import MAP_HANDLER
from flowd.workflow.states import NodeState
from flowd.workflow.templating import describe_type

ITEMS: Final = "items"
_AWAY: Final = (StoreUnavailable, StoreFull)


@handler(MAP_HANDLER)
async def map_node(config: dict[str, Any], context: HandlerContext) -> Any:
    """Raises WaitFor until its items have ended, and Fail where too many failed."""
    maps = context.resources.maps
    assert maps is not None
    # What it asks of Redis is no work of the node's, which could fail: it waits until there is one.
    for pause_s in growing_pauses():
        try:
            return await _advance(maps, config, context)
        except _AWAY:
            await asyncio.sleep(pause_s)
    raise AssertionError("pauses grow for ever")


async def _advance(maps: Maps, config: dict[str, Any], context: HandlerContext) -> Any:
    execution_id, node_id = context.execution_id, context.node_id
    standing = await maps.standing(execution_id, node_id)
    if standing is not None and standing.is_over:
        if standing.stopped and (await maps.places(execution_id, node_id)).open:
            # What was stopped still runs, until its worker has heard of it.
            raise WaitFor(ITEMS)
        return await _gather(maps, config, context, standing)
    n = standing.n if standing else await _stage(maps, config, context)
    if n == 0:
        return _output([], 0, []) if config["results"] else _output(None, 0, [])
    is_running = await maps.expand(
        execution_id,
        node_id,
        n=n,
        window=config["concurrency"],
        max_failed=config["max_failed"],
        fail_fast=config["fail_fast"],
        bytes_max=_results_bytes_max(n) if config["results"] else 0,
    )
    if not is_running:
        raise Fail("it was cancelled while its items were opened")
    raise WaitFor(ITEMS)


async def _stage(maps: Maps, config: dict[str, Any], context: HandlerContext) -> int:
    items, items_max = config["over"], context.settings.map.items_max
    if not isinstance(items, list):
        raise Fail(f"map.over is {describe_type(items)}; it must be an array")
    if len(items) > items_max:
        raise Fail(
            f"map.over has {len(items):,} items, and at most {items_max:,} may be; "
            "`map.items_max` in flowd.toml sets that"
        )
    if not await maps.stage(context.execution_id, context.node_id, items):
        raise Fail("it was cancelled while its list was stored")
    return len(items)


async def _gather(
    maps: Maps, config: dict[str, Any], context: HandlerContext, standing: MapStanding
) -> JsonText:
    execution_id, node_id, n = context.execution_id, context.node_id, standing.n
    if standing.stopped:
        await maps.cancel_items(execution_id, node_id, n)
        if context.resources.children is not None:
            await context.resources.children.follow(execution_id)
    if standing.stopped == "bytes":
        raise Fail(
            f"the results of its items have more than {OUTPUT_BYTES_MAX:,} bytes after "
            f'{standing.ended} of {n}; `"results": false` leaves them with the items'
        )
    if standing.failed > standing.max_failed:
        raise Fail(_failure(standing))
    failed: list[int] = []
    if standing.failed:
        states = await maps.states(execution_id, node_id, range(n))
        failed = [index for index, state in enumerate(states) if state is not NodeState.COMPLETED]
    if not config["results"]:
        return _output(None, n, failed)
    outputs = await maps.outputs(execution_id, node_id, n, standing.bytes // n)
    for index in failed:
        outputs[index] = b"null"
    return _output(outputs, n, failed)


def _failure(standing: MapStanding) -> str:
    allowed = f", and at most {standing.max_failed} may" if standing.max_failed else ""
    ended = f"; {standing.ended} had ended" if standing.stopped else ""
    return f"{standing.failed} of {standing.n} items failed{allowed}{ended}; {standing.failure}"


def _output(results: list[bytes] | None, n: int, failed: list[int]) -> JsonText:
    tail = b'"count":%d,"failed":%s}' % (n, orjson.dumps(failed))
    if results is None:
        return JsonText(b"{" + tail)
    return JsonText(b'{"results":[' + b",".join(results) + b"]," + tail)


def _results_bytes_max(n: int) -> int:
    """What the outputs of the items may have together, without what stands round them."""
    return OUTPUT_BYTES_MAX - len(_output([], n, [])) - n
