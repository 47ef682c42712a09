"""A node's config as its handler would get it: templates filled in, secrets by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

from flowd.errors import TemplateError
from flowd.store import Store
from flowd.store.facts import Fact
from flowd.workflow.graph import Plan
from flowd.workflow.references import ENDING_KEYS, EXECUTION
from flowd.workflow.states import NodeState
from flowd.workflow.templating import INPUT, OPENING, CompiledConfig

# A template may put the same output in many times; beyond this nothing is rendered for a reader.
RENDERED_BYTES_MAX: Final = 4 * 1024 * 1024
# Where nodes choose, a template finds the error of one that failed, and nothing of a skipped one.
_READABLE: Final = (
    *(NodeState.COMPLETED, NodeState.SKIPPED, NodeState.FAILED, NodeState.CANCELLED),
)


NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


async def rendered_config(
    store: Store,
    plan: Plan,
    execution_id: str,
    config: dict[str, Any],
    given: Mapping[str, Any] = NOTHING,
) -> dict[str, Any] | None:
    """None while a node it reads has not ended, when it cannot be rendered, or is too large.

    `given` is what it reads besides: of an item of a map.
    """
    compiled = CompiledConfig(config)
    wanted = [one for one in compiled.inputs if one in plan.nodes]
    states = await store.nodes.states(execution_id, wanted)
    readable = _READABLE if plan.has_choices else _READABLE[:1]
    if not all(state in readable for state in states.values()):
        return None
    outputs: dict[str, Any] = {name: given[name] for name in given if name not in plan.nodes}
    size = len(orjson.dumps(outputs)) if outputs else 0
    size += sum(await store.nodes.output_sizes(execution_id, wanted))
    if INPUT in compiled.inputs and INPUT not in plan.nodes:
        outputs[INPUT] = await effective_input(store, plan, execution_id)
        size += len(orjson.dumps(outputs[INPUT]))
    if EXECUTION in compiled.inputs and EXECUTION not in plan.nodes:
        outputs[EXECUTION] = {"id": execution_id, "name": plan.name}
        ends = Fact("ends", execution_id)
        found, _ = await store.tasks.facts.find([ends], 0)
        known = orjson.loads(found[ends] or "{}")
        is_ending = bool(known.get("status"))
        outputs[EXECUTION] |= {
            key: value for key, value in known.items() if is_ending or key not in ENDING_KEYS
        }
    if size * orjson.dumps(config).count(OPENING.encode()) > RENDERED_BYTES_MAX:
        return None
    outputs |= await store.nodes.outputs(execution_id, wanted)
    try:
        return compiled.render(outputs)
    except TemplateError:
        return None


async def effective_input(store: Store, plan: Plan, execution_id: str) -> dict[str, Any]:
    """What templates read as `input`: what the trigger gave, over the workflow's own."""
    given = await store.executions.listing.given_input(execution_id)
    return {**plan.default_input, **(given if isinstance(given, dict) else {})}
