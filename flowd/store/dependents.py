"""What scripts are told of the dependents of a node, which only the plan knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from flowd.store.redis.client import Argument
from flowd.workflow.graph import Plan, PlannedNode

# Dependents opened within the call that completes their node; more than these go by advance_node.
DEPENDENTS_PER_CALL_MAX: Final = 1000
# In place of the dependents that look at a failure, where they are too many for one call.
LOOKS_LEFT: Final = " *"
# How a node has ended, as its dependents hear it.
Arrives = Literal["completed", "skipped", "failed"]
_NO_ADVANCE: Final = ("0", "0", "0")


def is_wide(node: PlannedNode) -> bool:
    """Whether the node has more dependents than the call that ends it may open."""
    return len(node.opens) + len(node.joins) > DEPENDENTS_PER_CALL_MAX


def advance_arguments(node: PlannedNode) -> Sequence[Argument]:
    """What complete_nodes is told of a node's dependents."""
    opens, joins = node.opens, node.joins
    if not joins:
        if not opens:
            return _NO_ADVANCE
        if len(opens) <= DEPENDENTS_PER_CALL_MAX:
            return (len(opens), "0", "0", *opens)
    total = len(opens) + len(joins)
    if total > DEPENDENTS_PER_CALL_MAX:
        return ("0", "0", total)
    said: list[Argument] = [len(opens), len(joins), "0", *opens]
    for join in joins:
        said += join
    return said


def downstream_arguments(plan: Plan, node_id: str) -> tuple[str, ...]:
    """The nodes that fail with this one, as fail_pending.lua takes them."""
    downstream = plan.downstream(node_id)
    if not plan.has_choices:
        return downstream
    return tuple(one + looks_argument(plan, one) for one in downstream)


def looks_argument(plan: Plan, node_id: str) -> str:
    """The dependents that look at a failure of this node, as arrive_failed.lua takes them."""
    looks = plan.nodes[node_id].looks
    if len(looks) > DEPENDENTS_PER_CALL_MAX:
        return LOOKS_LEFT
    return "".join(f" {one}/{count}" for one, count in looks)
