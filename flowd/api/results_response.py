"""Answer with an execution's results: whole while they are few, else piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from flowd.orchestrator.plans import Plans
from flowd.store import Store
from flowd.store.results import PIECE_BYTES_MAX, StoredResults

MEDIA_TYPE = "application/json"


async def results_response(
    store: Store, plans: Plans, execution_id: str, facts: BaseModel
) -> Response:
    """The fields of `facts`, and `results` behind them. Raises ResultsTooLarge.

    An output that is damaged is an error of its own where all are read first; else it ends the
    answer before its announced length, which no client takes for the whole.
    """
    plan = await plans.load(execution_id, "")
    results = await store.open_results(execution_id, tuple(plan.nodes))
    head = orjson.dumps(facts.__dict__)[:-1] + b',"results":'
    if results.size <= PIECE_BYTES_MAX:
        return Response(head + await results.read() + b"}", media_type=MEDIA_TYPE)
    length = str(len(head) + results.size + 1)
    body = _body(head, results)
    return StreamingResponse(body, headers={"content-length": length}, media_type=MEDIA_TYPE)


async def _body(head: bytes, results: StoredResults) -> AsyncIterator[bytes]:
    yield head
    async for piece in results.pieces():
        yield piece
    yield b"}"
