"""Make executions and start them in one call: what is run is never stored without being started."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

from flowd.errors import StoreUnavailable
from flowd.orchestrator import executor
from flowd.orchestrator.places import place_for, places_for, refusal
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.versions import expect_no_older_process
from flowd.store import Store
from flowd.store.executions import NODES_PER_CALL_MAX
from flowd.store.making import Runs
from flowd.store.origins import NOWHERE, Origin
from flowd.workflow.graph import Outline, Plan

# What the executions made in one call may take: the definition is copied for each.
BYTES_PER_CALL_MAX: Final = 4 * 1024 * 1024


async def run_workflow(
    store: Store,
    definition: bytes,
    plan: Plan | Outline,
    *,
    execution_id: str,
    given_input: bytes = b"",
    key_digest: str = "",
    claimant: str = "",
    traceparent: str = "",
    origin: Origin = NOWHERE,
) -> None:
    """Harmless when repeated with the same `execution_id`. Raises UnknownExecution when that was
    deleted since, StoreUnavailable, OlderProcess, LimitReached, and InvalidRequest where the key
    of its `concurrency` cannot be made.

    `given_input` (a JSON object) is what its templates read as `input`, over the workflow's own;
    `traceparent` (W3C Trace Context) goes along with its calls to services.
    """
    await expect_no_older_process(store, plan.language)
    place = place_for(plan.concurrency, given_input)
    outcome = await store.submissions.run_workflow(
        definition,
        plan,
        execution_id=execution_id,
        given_input=given_input,
        key_digest=key_digest,
        claimant=claimant,
        traceparent=traceparent,
        origin=origin,
        place=place,
    )
    if outcome == "refused":
        raise await refusal(store, plan.concurrency, place)
    await executor.stop_replaced(store, outcome)
    if outcome == "exists":
        # An older process has submitted it under this key, and may have gone no further.
        await executor.trigger_workflow(store, execution_id, given_input, traceparent)
    elif outcome == "continue":
        await _open_roots(store, execution_id)


async def run_each(store: Store, definition: bytes, plan: Plan | Outline, runs: Runs) -> bool:
    """Run one workflow for many inputs, as many to a call as it takes; False, with what came before
    made, where `runs.pin` is not what is saved any more. Harmless when repeated with the same ids.

    Those that were deleted since are not made again. Raises StoreUnavailable, OlderProcess,
    InvalidRequest where the key of a `concurrency` cannot be made, then nothing was, and
    LimitReached, when all that were not refused are made.
    """
    await expect_no_older_process(store, plan.language)
    is_one = not runs.claimant
    runs = runs._replace(places=places_for(plan.concurrency, runs.inputs, is_one=is_one))
    refused: set[str] = set()
    for some in _slices(runs.inputs, len(plan.nodes), len(definition)):
        outcomes = await store.submissions.run_slice(definition, plan, runs._replace(inputs=some))
        if outcomes == ["changed"]:
            return False
        if "closed" in outcomes:
            raise StoreUnavailable("storing the workflow took too long; send it again")
        for (execution_id, _), outcome in zip(some, outcomes, strict=True):
            if outcome == "continue":
                await _open_roots(store, execution_id)
            elif outcome in ("deleted", "refused") and len(plan.nodes) > NODES_PER_CALL_MAX:
                await store.submissions.discard_staged(execution_id)
            if outcome == "refused":
                refused.add(execution_id)
            await executor.stop_replaced(store, outcome)
    if refused:
        made = None if is_one else [None if id_ in refused else id_ for id_, _ in runs.inputs]
        place = runs.places[min(refused)]
        raise await refusal(store, plan.concurrency, place, execution_ids=made)
    return True


async def _open_roots(store: Store, execution_id: str) -> None:
    plan = await Plans(store).load(execution_id, "")
    await executor.advance_node(store, plan, execution_id, executor.ROOTS)


def _slices(
    inputs: Sequence[tuple[str, bytes]], nodes: int, definition_bytes: int
) -> Iterator[Sequence[tuple[str, bytes]]]:
    """As many runs as a call may make; at least one."""
    first, size = 0, 0
    for at, (_, given) in enumerate(inputs):
        more = definition_bytes + len(given)
        is_full = (at - first + 1) * nodes > NODES_PER_CALL_MAX or size + more > BYTES_PER_CALL_MAX
        if is_full and at > first:
            yield inputs[first:at]
            first, size = at, 0
        size += more
    if first < len(inputs):
        yield inputs[first:]


def ids_of(claimant: str, count: int) -> list[str]:
    """The ids of the executions an Idempotency-Key stands for: the same each time, as old as the
    id that was claimed for it, and other ones than that."""
    return [
        claimant[:12] + hashlib.sha256(f"{claimant} {at}".encode()).hexdigest()[:12]
        for at in range(count)
    ]
