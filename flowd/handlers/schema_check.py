"""Hold a value against a JSON Schema without holding up the worker."""

from __future__ import annotations

from typing import Any

from flowd.handlers.context import HandlerContext


async def judge(schema: dict[str, Any], context: HandlerContext, **value: Any) -> dict[str, Any]:
    """The `flaw` of the schema and, where there is a `value`, its `misfit`; None where there is
    none. What is not sure to be quick is looked at in a process of its own."""
    from flowd.handlers.json_schema import ANSWER_CHECK, check_answer, is_quick

    config = {"schema": schema, **value}
    if is_quick(schema, value.get("value")):
        return check_answer(config)
    isolated = context.resources.isolated(context.settings)
    await isolated.ready()
    verdict: dict[str, Any] = await isolated.call(ANSWER_CHECK, config, context)
    return verdict
