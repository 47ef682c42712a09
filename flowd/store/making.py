"""What new executions are made of, as the scripts that make them read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.executions import now_ms
from flowd.store.map_copies import Again
from flowd.store.origins import NOWHERE, Origin
from flowd.store.redis.client import Argument
from flowd.workflow.concurrency import run_text
from flowd.workflow.graph import Outline, Plan
from flowd.workflow.states import ExecutionState


class Reuse(NamedTuple):
    """What a new execution takes over from one that has ended.

    `roots` are the nodes it begins with, none where only its `finally` runs; `arrived` says of
    every join that waits for others too what has arrived at it from nodes that do not run again.
    `skipped` are SKIPPED again, for the same reason; `allowed` are FAILED again, as they may be.
    `maps` says of nodes with `map` which items run again, where they have the list they had.
    `left_out` are FAILED from the beginning: with the error they failed of, or with this output
    where they never ran. `is_of_failed` says that what failed runs again, and no node was named.
    """

    rerun_of: str
    node_ids: frozenset[str]
    left_out: Mapping[str, bytes]
    roots: tuple[str, ...]
    arrived: Mapping[str, int]
    skipped: Mapping[str, str] = MappingProxyType({})
    allowed: frozenset[str] = frozenset()
    maps: Mapping[str, Again] = MappingProxyType({})
    is_of_failed: bool = False

    def settled(self) -> set[str]:
        """The nodes that do not run again."""
        return {*self.node_ids, *self.left_out, *self.skipped, *self.allowed}


class Making(NamedTuple):
    """An execution that one call makes and starts: `place` is what it asks a place of, or empty, of
    which there are so many `places`; `common` is what read_making.lua reads."""

    execution_id: str
    given_input: bytes
    is_staged: bool
    place: str
    places: int
    common: Sequence[Argument]


class Pin(NamedTuple):
    """The version of a saved definition that is run; nothing is made where it is not saved any
    more, or `is_latest` and is not the latest any more."""

    name: str
    version: int
    is_latest: bool
    digest: str


class Runs(NamedTuple):
    """New executions of one workflow: the id of each, and its input (JSON), or empty.

    `key_digest` is that of the Idempotency-Key that stands for the `claimant`, of whom they are
    some; empty where it stands for the execution itself. `places` are what they ask a place of, by
    id, where the workflow has a `concurrency`.
    """

    inputs: Sequence[tuple[str, bytes]]
    key_digest: str = ""
    claimant: str = ""
    traceparent: str = ""
    origin: Origin = NOWHERE
    pin: Pin | None = None
    places: Mapping[str, str] = MappingProxyType({})


def new_run(
    plan: Plan | Outline,
    fresh: Sequence[str],
    reuse: Reuse | None,
    key_digest: str,
    origin: Origin = NOWHERE,
) -> dict[str, Argument]:
    """The run hash of a new execution; `fresh` are the nodes to run."""
    roots = plan.roots if reuse is None else [plan.queues.called(one) for one in reuse.roots]
    nodes_to_run = len(fresh) - len(plan.finally_nodes)
    # A rerun of its `finally` alone begins where the others have ended.
    is_begun = not nodes_to_run
    if is_begun:
        roots, nodes_to_run = plan.finally_roots, len(fresh)
    # Too many to open in one call are opened slice by slice.
    is_wide = len(roots) > DEPENDENTS_PER_CALL_MAX
    run: dict[str, Argument] = {
        "name": plan.name,
        "nodes": len(plan.nodes),
        "plan": plan.digest,
        "roots": "" if is_wide else ",".join(roots),
        "remaining": nodes_to_run,
        "submitted_ms": now_ms(),
    }
    if plan.has_callback:
        run["callback"] = 1
    if is_begun:
        is_failed = reuse is not None and reuse.left_out
        run["ends_as"] = ExecutionState.FAILED if is_failed else ExecutionState.COMPLETED
    elif plan.finally_nodes:
        run["finally"] = f"{len(plan.finally_nodes)} {','.join(plan.finally_roots)}"
    run.update(_queue_fields(plan))
    if plan.has_input_schema:
        run["input_schema"] = 1
    if plan.concurrency is not None:
        run["concurrency"] = run_text(plan.concurrency)
    if key_digest:
        run["idempotency"] = key_digest
    if reuse is not None:
        run["rerun_of"] = reuse.rerun_of
        if reuse.is_of_failed:
            run["rerun_failed"] = 1
        if reuse.left_out:
            run["failed"] = 1
        if is_wide:
            run["rerun_roots"] = ",".join(roots)
        run.update({f"arrived:{join}": count for join, count in reuse.arrived.items()})
        run.update({f"skipped:{one}": reason for one, reason in reuse.skipped.items()})
        run.update({f"allowed:{one}": 1 for one in reuse.allowed})
    return run | origin._replace(labels={**plan.labels, **origin.labels}).fields()


def flat(run: Mapping[str, Argument]) -> list[Argument]:
    return [part for pair in run.items() for part in pair]


def _queue_fields(plan: Plan | Outline) -> dict[str, Argument]:
    """Where its nodes are queued, for those who bring one back and do not know the plan."""
    queues = plan.queues
    if not queues.names:
        return {}
    return {
        "queues": " ".join(queues.names),
        "queue": queues.own,
        **{f"queue:{node_id}": queue for node_id, queue in queues.others.items()},
    }


def making_arguments(
    plan: Plan | Outline,
    definition: bytes,
    *,
    group: str,
    run: Mapping[str, Argument],
    node_ids: Sequence[str],
    status: ExecutionState = ExecutionState.RUNNING,
) -> list[Argument]:
    """What read_making.lua reads: what new executions have in common."""
    values = flat(run)
    head: tuple[Argument, ...]
    head = (group, run["triggered_ms"], definition, status, plan.digest, run["roots"])
    head += (run.get("labels", ""), run.get("concurrency", ""))
    return [*head, len(values), *values, len(node_ids), *node_ids]


def is_made(outcome: str) -> bool:
    """Whether an execution was made, now or before, by what answers with this."""
    return outcome in _MADE or outcome.startswith("replaced")


_MADE: Final = frozenset({"triggered", "continue", "exists", "waiting"})
