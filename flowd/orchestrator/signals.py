"""Send signals to nodes: what comes first decides, and whoever comes later hears what did."""

from __future__ import annotations

from typing import NoReturn

from flowd.errors import (
    AlreadyDecided,
    CorruptExecution,
    IdempotencyMismatch,
    UnknownExecution,
    UnknownNode,
    WrongState,
)
from flowd.log import get_logger
from flowd.store import Store
from flowd.store.waits import Decision
from flowd.workflow.graph import Plan
from flowd.workflow.signals import SIGNAL, Answer, Signal, answer_of, describe, signal_of

log = get_logger(__name__)


async def send_signal(
    store: Store, plan: Plan, execution_id: str, node_id: str, signal: Signal
) -> Answer:
    """Decide what a node waits for, or will wait for; what it was decided by.

    The same signal under the same key decides once, and is answered so each time. Raises
    UnknownExecution, UnknownNode for an item that is not open, AlreadyDecided, IdempotencyMismatch,
    and WrongState for a node that has ended without a decision, or whose execution has.
    """
    payload = signal.to_json().decode()
    try:
        outcome, decision = await store.tasks.waits.wake(execution_id, node_id, SIGNAL, payload)
    except UnknownExecution:
        if node_id in plan.nodes:
            raise
        # An item that is not open: nobody knows yet whether there will be one.
        raise UnknownNode(execution_id, node_id) from None
    if decision is None:
        await _refuse_ended(store, execution_id, node_id)
    standing = _signal_in(decision, execution_id, node_id)
    default = plan.node(node_id).config.source.get("default")
    answer = answer_of(standing, default, decision.at_ms)
    if outcome in ("woken", "kept"):
        kind = "rejected" if signal.rejected else "answered"
        log.info(
            "node.signalled", execution_id=execution_id, node_id=node_id, by=signal.by, kind=kind
        )
        return answer
    if standing is None or not signal.key or standing.key != signal.key:
        raise AlreadyDecided(execution_id, node_id, describe(answer), answer._asdict())
    if standing.body != signal.body:
        raise IdempotencyMismatch
    return answer


def _signal_in(decision: Decision, execution_id: str, node_id: str) -> Signal | None:
    """None for a wait whose time was over."""
    if decision.kind != SIGNAL:
        return None
    try:
        return signal_of(decision.payload)
    except (ValueError, TypeError):
        reason = f"the decision of node {node_id!r} is not one"
        raise CorruptExecution(execution_id, reason) from None


async def _refuse_ended(store: Store, execution_id: str, node_id: str) -> NoReturn:
    verb = f"signal node {node_id!r} of"
    status = await store.executions.execution_status(execution_id)
    if status.is_terminal:
        raise WrongState(execution_id, status, verb)
    state = (await store.nodes.states(execution_id, [node_id]))[node_id]
    if state is not None and state.is_terminal:
        raise WrongState(execution_id, f"{status}, and the node {state}", verb)
    raise WrongState(execution_id, status, verb, " and being cancelled; send it again")
