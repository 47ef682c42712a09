"""Children of one workflow, made by as few calls as bear them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from flowd.config import Settings
from flowd.store.budgets import Payer
from flowd.store.executions import NODES_PER_CALL_MAX, begin_execution
from flowd.store.making import Pin, Reuse, making_arguments, new_run
from flowd.store.origins import Origin
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Argument, RedisClient
from flowd.store.redis.together import Together
from flowd.workflow.children import DEPTH_MAX, TREE_MAX, Parent
from flowd.workflow.graph import Plan

# Each takes the server some 50 µs, and keeps its definition.
_TOGETHER_MAX: Final = 64
_BYTES_MAX: Final = 1024 * 1024


class ChildStart(NamedTuple):
    """One child: for which wait, under which id, its input (JSON), or empty, and what it asks a
    place of, or empty."""

    parent: Parent
    execution_id: str
    given_input: bytes = b""
    place: str = ""


class ChildWorkflow(NamedTuple):
    """What children are made of. Their calls spend the budget of the `payer`, where there is one;
    `has_looked` says that it was asked what they take over from one that is rerun."""

    definition: bytes
    plan: Plan
    pin: Pin
    payer: Payer | None = None
    has_looked: bool = False


class _Kind(NamedTuple):
    """What children are equal in that one call makes."""

    digest: str
    pin: Pin
    payer: Payer | None
    has_looked: bool
    together_max: int


class ChildStarts:
    """Raises StoreUnavailable while Redis does not answer; may be repeated."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._stream = settings.tasks.stream
        self._group = settings.tasks.group
        self._together = Together[_Kind, tuple[ChildWorkflow, ChildStart], str](
            self._start_together, lambda kind: kind.together_max
        )

    async def start(self, workflow: ChildWorkflow, child: ChildStart) -> str:
        """The outcome of start_children.lua, which those share that ask for children of this
        workflow in one turn of the event loop."""
        digest, pin = workflow.plan.digest, workflow.pin
        kind = _Kind(digest, pin, workflow.payer, workflow.has_looked, _together_max(workflow))
        return await self._together.ask(kind, (workflow, child))

    async def start_staged(
        self, workflow: ChildWorkflow, child: ChildStart, reuse: Reuse | None, rest: Sequence[str]
    ) -> str:
        """The same, of one whose nodes were staged but for the `rest`."""
        (outcome,) = await self._start(workflow, [child], reuse, rest)
        return outcome

    async def _start_together(
        self, _: _Kind, asked: Sequence[tuple[ChildWorkflow, ChildStart]]
    ) -> list[str]:
        workflow, _child = asked[0]
        return await self._start(workflow, [child for _, child in asked])

    async def _start(
        self,
        workflow: ChildWorkflow,
        children: Sequence[ChildStart],
        reuse: Reuse | None = None,
        rest: Sequence[str] | None = None,
    ) -> list[str]:
        definition, plan, pin, payer, has_looked = workflow
        settled = reuse.settled() if reuse else ()
        fresh = [one for one in plan.nodes if one not in settled]
        run = new_run(plan, fresh, reuse, "", Origin(f"{pin.name}@{pin.version}"))
        run["triggered_ms"] = run["submitted_ms"]
        if payer is not None:
            run["payer"] = f"{payer.execution_id} {payer.tokens}"
        each: list[Argument] = []
        for parent, execution_id, given_input, place in children:
            each += (*parent, execution_id, given_input, place)
        node_ids = fresh if rest is None else rest
        outcomes: list[str] = await begin_execution(
            self._client,
            scripts.START_CHILDREN,
            (
                *(keys.ACTIVE, self._stream, keys.CONTINUATIONS, keys.EXECUTIONS),
                keys.saved_definition(pin.name),
            ),
            *("0" if rest is None else "1", DEPTH_MAX, TREE_MAX, pin.version, pin.digest),
            *("1" if has_looked else "0", len(children), *each),
            *making_arguments(plan, definition, group=self._group, run=run, node_ids=node_ids),
        )
        return outcomes


def _together_max(workflow: ChildWorkflow) -> int:
    """How many one call makes; one where each asks for a place, which may take that of another."""
    if workflow.plan.concurrency is not None:
        return 1
    nodes, size = len(workflow.plan.nodes), len(workflow.definition)
    return max(1, min(_TOGETHER_MAX, NODES_PER_CALL_MAX // nodes, _BYTES_MAX // size))
