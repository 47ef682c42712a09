"""What an execution that completed is worth to a caller: its `output`, or else its results."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from flowd.errors import OutputFailed, ResultsTooLarge, TemplateError, WrongState
from flowd.orchestrator.rendering import effective_input
from flowd.store import Store
from flowd.workflow.graph import Plan
from flowd.workflow.references import EXECUTION
from flowd.workflow.repeating import OUTPUT
from flowd.workflow.states import ExecutionState
from flowd.workflow.templating import INPUT


async def output_of(store: Store, plan: Plan, execution_id: str, bytes_max: int) -> bytes:
    """JSON. Raises UnknownExecution, WrongState unless it is COMPLETED, OutputFailed where a
    template finds nothing, and ResultsTooLarge for more than so many bytes."""
    status = await store.executions.execution_status(execution_id)
    if status is not ExecutionState.COMPLETED:
        raise WrongState(execution_id, status, "read the output of")
    if plan.output is None:
        results = await store.open_results(execution_id, tuple(plan.nodes))
        if results.size > bytes_max:
            raise ResultsTooLarge(execution_id, results.size, bytes_max)
        return await results.read()
    read = [one for one in plan.output.inputs if one in plan.nodes]
    sizes = dict(zip(read, await store.nodes.output_sizes(execution_id, read), strict=True))
    if sum(sizes.values()) > bytes_max:
        raise ResultsTooLarge(execution_id, sum(sizes.values()), bytes_max)
    outputs: dict[str, Any] = {
        INPUT: await effective_input(store, plan, execution_id),
        EXECUTION: {"id": execution_id, "name": plan.name},
        **await store.nodes.outputs(execution_id, read),
    }
    try:
        return await asyncio.to_thread(_render, plan, outputs, sizes)
    except TemplateError as error:
        raise OutputFailed(execution_id, str(error)) from None


def _render(plan: Plan, outputs: dict[str, Any], sizes: dict[str, int]) -> bytes:
    assert plan.output is not None
    plan.output.check_size(outputs, sizes)
    return orjson.dumps(plan.output.render(outputs)[OUTPUT])
