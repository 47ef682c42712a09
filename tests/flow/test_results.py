"""The results of an execution, of whatever size: whole, piece by piece, or refused."""

from __future__ import annotations

import gc
import tracemalloc

import orjson
import pytest

from flowd.errors import CorruptExecution
from flowd.orchestrator.executor import submit_workflow
from flowd.store.redis import keys
from flowd.store.results import PIECE_BYTES_MAX, RESULTS_BYTES_MAX
from tests.flow.api_server import api_server
from tests.flow.engine import node, workflow
from tests.store.engine import results_of

NODES = ("a", "b", "c", "d")


async def submit(store):
    return await submit_workflow(store, workflow(*map(node, NODES)))


async def get_results(settings, execution_id):
    async with api_server(settings) as api:
        return await api.get(f"/workflows/{execution_id}/results")


@pytest.mark.parametrize(
    "sizes",
    [
        (0, 0, 0, 0),
        (10, 0, 20, 0),
        (PIECE_BYTES_MAX, 10, 3 * PIECE_BYTES_MAX, 20),
        (PIECE_BYTES_MAX - 10, PIECE_BYTES_MAX - 10, 10, 5 * PIECE_BYTES_MAX),
    ],
)
async def test_the_body_is_the_same_however_it_is_sent(settings, redis, store, sizes):
    execution_id = await submit(store)
    outputs = {
        one: {"text": "ü" * (size // 2)} for one, size in zip(NODES, sizes, strict=True) if size
    }
    for one, output in outputs.items():
        redis.set(keys.output(execution_id, one), orjson.dumps(output))

    status, media_type, body = await get_results(settings, execution_id)

    assert (status, media_type) == (200, "application/json")
    assert body == orjson.dumps({"execution_id": execution_id, "results": outputs})


async def test_more_than_an_answer_may_hold_is_refused_and_names_a_way(settings, redis, store):
    execution_id = await submit(store)
    text = orjson.dumps({"text": "x" * (RESULTS_BYTES_MAX // 4)})
    for one in NODES:
        redis.set(keys.output(execution_id, one), text)

    status, media_type, body = await get_results(settings, execution_id)

    assert (status, media_type) == (413, "application/problem+json")
    assert orjson.loads(body)["code"] == "results_too_large"
    assert f"/workflows/{execution_id}/nodes" in orjson.loads(body)["detail"]


async def test_what_is_passed_on_is_never_held_as_a_whole(store, redis):
    execution_id = await submit(store)
    text = orjson.dumps({"text": "x" * 8_000_000})
    for one in NODES:
        redis.set(keys.output(execution_id, one), text)
    results = await store.open_results(execution_id, NODES)
    gc.collect()
    tracemalloc.start()
    try:
        size = 0
        async for piece in results.pieces():
            size += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size == results.size
    assert peak < 8 * PIECE_BYTES_MAX


async def test_an_output_replaced_while_it_is_read_ends_the_answer(store, redis):
    execution_id = await submit(store)
    redis.set(keys.output(execution_id, "a"), orjson.dumps({"text": "x" * 4 * PIECE_BYTES_MAX}))
    results = await store.open_results(execution_id, NODES)
    redis.set(keys.output(execution_id, "a"), b"{}")

    with pytest.raises(CorruptExecution, match="replaced"):
        await results.read()
    assert await results_of(store, execution_id) == {"a": {}}
