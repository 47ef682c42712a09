"""Compiled plans by digest: a worker compiles a definition once, however often it is submitted."""

from __future__ import annotations

from typing import Final

from flowd.errors import CorruptExecution
from flowd.store import Store
from flowd.workflow.graph import Plan, compile_plan, plan_digest

# Bounded by nodes, not by plans: one plan may have a single node or ten thousand.
_NODES_MAX: Final = 100_000


class Plans:
    """A cache of plans, the least recently compiled thrown out first."""

    def __init__(self, store: Store) -> None:
        self._executions = store.executions
        self._plans: dict[str, Plan] = {}
        self._nodes = 0

    def cached(self, digest: str) -> Plan | None:
        return self._plans.get(digest)

    async def load(self, execution_id: str, digest: str) -> Plan:
        """The plan an execution runs by. Raises UnknownExecution, or CorruptExecution when the
        stored definition can no longer be read."""
        found = self._plans.get(digest)
        if found is not None:
            return found
        return self.compile(execution_id, await self._executions.definition(execution_id))

    def compile(self, execution_id: str, definition: bytes) -> Plan:
        """The plan of a stored definition. Raises CorruptExecution when it cannot be read."""
        found = self._plans.get(plan_digest(definition))
        if found is not None:
            return found
        try:
            plan = compile_plan(definition)
        except (ValueError, TypeError, KeyError) as error:
            reason = f"its definition is broken: {error}"
            raise CorruptExecution(execution_id, reason) from error
        self._keep(plan)
        return plan

    def _keep(self, plan: Plan) -> None:
        if plan.digest in self._plans:
            return
        self._plans[plan.digest] = plan
        self._nodes += len(plan.nodes)
        while self._nodes > _NODES_MAX and len(self._plans) > 1:
            oldest = self._plans.pop(next(iter(self._plans)))
            self._nodes -= len(oldest.nodes)
