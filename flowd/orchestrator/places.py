"""What executions ask a place of, and what is said to those that are refused one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from flowd.store import Store
from flowd.workflow.concurrency import Concurrency, LimitReached, place_of
from flowd.workflow.templating import INPUT


def place_for(concurrency: Concurrency | None, given: bytes, path: str = INPUT) -> str:
    """Empty where a workflow has no `concurrency`. Raises InvalidRequest when its key cannot be
    made of this input (JSON, or empty)."""
    if concurrency is None:
        return ""
    return place_of(concurrency, orjson.loads(given) if given else {}, path)


def places_for(
    concurrency: Concurrency | None, inputs: Sequence[tuple[str, bytes]], *, is_one: bool
) -> Mapping[str, str]:
    """By execution id, of those that are to be run with these inputs."""
    if concurrency is None:
        return {}
    paths = [INPUT] if is_one else [f"inputs[{at}]" for at in range(len(inputs))]
    return {
        execution_id: place_for(concurrency, given, path)
        for (execution_id, given), path in zip(inputs, paths, strict=True)
    }


async def refusal(
    store: Store, concurrency: Concurrency | None, place: str, **about: Any
) -> LimitReached:
    """What to raise about an execution that was refused this place."""
    most = concurrency["max"] if concurrency else 0
    return LimitReached(place, await store.lifecycle.places.holders(place), most, **about)
