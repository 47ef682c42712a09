"""Run a saved workflow as a child, and complete with what it is worth.

Begun anew at any moment it comes to the same child: its id says which wait of which node it is for.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Any, Final

from pydantic import Field

from flowd.backoff import growing_pauses
from flowd.errors import (
    Fail,
    HandlerFailed,
    OlderProcess,
    StoreFull,
    StoreUnavailable,
    WaitFor,
)
from flowd.handlers.config import NodeConfig
from flowd.handlers.context import ChildExecutions, HandlerContext, WantedChild
from flowd.handlers.outcome import OUTPUT_BYTES_MAX, JsonText
from flowd.handlers.registry import handler
from flowd.handlers.schema_check import judge
from flowd.store.budgets import Payer
from flowd.workflow.children import CHILD, Parent
from flowd.workflow.ids import NAME_PATTERN, WORKFLOW, child_id
from flowd.workflow.states import ExecutionState

_NESTED: Final = re.compile(r"its child '[0-9a-f]{24}' is FAILED: ")
_AWAY: Final = (StoreUnavailable, StoreFull, OlderProcess)


class WorkflowConfig(NodeConfig):
    name: str = Field(pattern=NAME_PATTERN, description="the saved definition that is run")
    version: int | None = Field(
        default=None, ge=1, description="which version of it; without one the latest at submit"
    )
    input: dict[str, Any] | None = Field(default=None, description="what the child is given")


@handler(WORKFLOW)
async def workflow(config: WorkflowConfig, context: HandlerContext) -> JsonText:
    """Runs a saved workflow as a child, and completes with its output."""
    children = context.resources.children
    assert children is not None
    # What it asks of Redis is no work of the node's, which could fail: it waits until there is one.
    for pause_s in growing_pauses():
        try:
            return await _advance(children, config, context)
        except _AWAY:
            await asyncio.sleep(pause_s)
    raise AssertionError("pauses grow for ever")


async def _advance(
    children: ChildExecutions, config: WorkflowConfig, context: HandlerContext
) -> JsonText:
    """Raises WaitFor until the child has ended."""
    parent = Parent(context.execution_id, context.node_id, context.failures + 1)
    execution_id = child_id(*parent)
    decision = context.decision
    if decision is not None and decision.number >= parent.number and decision.kind != CHILD:
        await children.stop(execution_id)
        text = f"timed out: its child {execution_id!r} had not ended in time, and is cancelled"
        raise HandlerFailed(text, kinds=frozenset({"timeout"}))
    is_new = decision is None or decision.number < parent.number
    check = partial(_check_input, context)
    wanted = WantedChild(config.name, config.version, config.input, check)
    if is_new and await children.start(parent, wanted, _payer(context)):
        raise WaitFor(CHILD, text=execution_id)
    if not is_new and decision is not None and decision.payload.endswith(" COMPLETED"):
        return JsonText(await children.output(execution_id, wanted, OUTPUT_BYTES_MAX))
    end = await children.find_end(execution_id)
    if end is None:
        raise WaitFor(CHILD, text=execution_id)
    if end.status is ExecutionState.COMPLETED:
        return JsonText(await children.output(execution_id, wanted, OUTPUT_BYTES_MAX))
    # Of the children of children the nodes are named, and what went wrong: the path to it.
    because = f": {_NESTED.sub('', end.error)}" if end.error else ""
    text = f"its child {execution_id!r} is {end.status}{because}"
    # Whoever cancelled it does not want another one.
    raise Fail(text) if end.status is ExecutionState.CANCELLED else HandlerFailed(text)


async def _check_input(
    context: HandlerContext, schema: dict[str, Any], given: dict[str, Any]
) -> None:
    verdict = await judge(schema, context, value=given)
    if verdict["misfit"]:
        text = verdict["misfit"].replace("answer", "config.input", 1)
        raise Fail(f"its child is not to be given this: {text}")


def _payer(context: HandlerContext) -> Payer | None:
    """Whose budget the child spends: that of the first execution above it that has one."""
    if context.budget_tokens is None:
        return None
    return Payer(context.payer_id or context.execution_id, context.budget_tokens)
