"""Make an execution and start it in one call: what is run is never stored without being started."""

from __future__ import annotations

from flowd.orchestrator import executor
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.versions import expect_no_older_process
from flowd.store import Store
from flowd.store.submissions import NOWHERE, Origin
from flowd.workflow.graph import Outline, Plan


async def run_workflow(
    store: Store,
    definition: bytes,
    plan: Plan | Outline,
    *,
    execution_id: str,
    given_input: bytes = b"",
    key_digest: str = "",
    traceparent: str = "",
    origin: Origin = NOWHERE,
) -> None:
    """Harmless when repeated with the same `execution_id`. Raises UnknownExecution when that was
    deleted since, StoreUnavailable, and OlderProcess.

    `given_input` (a JSON object) is what its templates read as `input`, over the workflow's own;
    `traceparent` (W3C Trace Context) goes along with its calls to services.
    """
    await expect_no_older_process(store, plan.language)
    outcome = await store.submissions.run_workflow(
        definition,
        plan,
        execution_id=execution_id,
        given_input=given_input,
        key_digest=key_digest,
        traceparent=traceparent,
        origin=origin,
    )
    if outcome == "exists":
        # An older process has submitted it under this key, and may have gone no further.
        await executor.trigger_workflow(store, execution_id, given_input, traceparent)
    elif outcome == "continue":
        compiled = await Plans(store).load(execution_id, "")
        await executor.advance_node(store, compiled, execution_id, executor.ROOTS)
