"""Compiled plans by digest: a worker compiles a definition once, however often it is submitted."""

from __future__ import annotations

import asyncio
import gc
from typing import Final

from flowd.store import Store
from flowd.store.definitions import reading_definition
from flowd.workflow.graph import Plan, compile_plan, plan_digest

# Compiled within a few milliseconds.
_SMALL_BYTES_MAX: Final = 64 * 1024
# Bounded by nodes, not by plans: one plan may have a single node or ten thousand.
_NODES_MAX: Final = 100_000


class Plans:
    """A cache of plans, the least recently compiled thrown out first."""

    def __init__(self, store: Store) -> None:
        self._executions = store.executions
        self._plans: dict[str, Plan] = {}
        self._nodes = 0
        # Large ones one after the other, and each once, however many ask for it.
        self._compiling = asyncio.Lock()

    def cached(self, digest: str) -> Plan | None:
        return self._plans.get(digest)

    async def load(self, execution_id: str, digest: str) -> Plan:
        """The plan an execution runs by. Raises UnknownExecution, or CorruptExecution when the
        stored definition can no longer be read."""
        found = self._plans.get(digest)
        if found is not None:
            return found
        return await self.of_definition(
            execution_id, await self._executions.definition(execution_id)
        )

    async def of_definition(self, execution_id: str, definition: bytes) -> Plan:
        """As `compile`; a large one is compiled beside the loop."""
        if len(definition) <= _SMALL_BYTES_MAX:
            return self.compile(execution_id, definition)
        async with self._compiling:
            found = self._plans.get(plan_digest(definition))
            return found or self._keep(await asyncio.to_thread(_compile, execution_id, definition))

    def compile(self, execution_id: str, definition: bytes) -> Plan:
        """The plan of a stored definition. Raises CorruptExecution when it cannot be read."""
        found = self._plans.get(plan_digest(definition))
        return found or self._keep(_compile(execution_id, definition))

    def _keep(self, plan: Plan) -> Plan:
        self._plans[plan.digest] = plan
        self._nodes += len(plan.nodes)
        while self._nodes > _NODES_MAX and len(self._plans) > 1:
            oldest = self._plans.pop(next(iter(self._plans)))
            self._nodes -= len(oldest.nodes)
        return plan


def _compile(execution_id: str, definition: bytes) -> Plan:
    # Nothing of a plan is garbage yet, and looking for some would hold up every thread.
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        with reading_definition(execution_id):
            return compile_plan(definition)
    finally:
        if was_collecting:
            gc.enable()
