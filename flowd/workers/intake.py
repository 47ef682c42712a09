"""From a stream entry to a node that can be handled: its plan, its handler and its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson

from flowd.dag.graph import Plan
from flowd.errors import CorruptExecution, HandlerFailed, UnknownExecution
from flowd.log import get_logger
from flowd.orchestrator.plans import Plans
from flowd.store import Store
from flowd.store.tasks import Completion, Entry, Garbage
from flowd.workers.node_run import PreparedNode, error_text
from flowd.workers.registry import Handler, HandlerContext, Registry

log = get_logger(__name__)

_OUTPUTS_KEPT_MAX: Final = 4096
_OUTPUT_KEPT_BYTES_MAX: Final = 1024

_NodeKey = tuple[str, str]


class Intake:
    """Holds every entry from its arrival until its outcome is known, so that none starts twice."""

    def __init__(self, store: Store, plans: Plans, registry: Registry, consumer: str) -> None:
        self._store = store
        self._plans = plans
        self._registry = registry
        self._consumer = consumer
        self._held: set[str] = set()
        self._arrived: list[Entry | Garbage] = []
        self._outputs: dict[_NodeKey, bytes] = {}

    @property
    def arrived_count(self) -> int:
        return len(self._arrived)

    def receive(self, entries: Sequence[Entry | Garbage]) -> None:
        """Take note of entries; those known already came by two ways after a lost reply."""
        for entry in entries:
            if entry.entry_id not in self._held:
                self._held.add(entry.entry_id)
                self._arrived.append(entry)

    def release(self, entry_id: str) -> None:
        """Forget an entry whose outcome is known."""
        self._held.discard(entry_id)

    def keep_output(self, completion: Completion) -> None:
        """Keep a small output: whoever needs it next most often runs here."""
        if len(completion.output) <= _OUTPUT_KEPT_BYTES_MAX:
            if len(self._outputs) >= _OUTPUTS_KEPT_MAX:
                self._outputs.pop(next(iter(self._outputs)))
            entry = completion.entry
            self._outputs[entry.execution_id, entry.node_id] = completion.output

    async def prepare(self) -> list[PreparedNode]:
        """Everything that has arrived and can run. Entries that cannot are taken out of the stream.

        When the store fails on the way, what has arrived is as it was and can be prepared again.
        """
        arrived = list(self._arrived)
        if not arrived:
            return []
        planned: list[tuple[Entry, Plan]] = []
        for entry in arrived:
            plan = await self._plan_of(entry)
            if plan is None:
                self._arrived.remove(entry)
            elif isinstance(entry, Entry):
                planned.append((entry, plan))
        fetched = await self._fetch_inputs(planned)
        # What came in while the store was asked stays for the next time.
        del self._arrived[: len(planned)]
        return [self._prepare(entry, plan, fetched) for entry, plan in planned]

    async def _plan_of(self, entry: Entry | Garbage) -> Plan | None:
        """The plan of the entry's execution; None when it cannot run by one."""
        if isinstance(entry, Garbage):
            await self._bury(entry.entry_id, entry.reason)
            return None
        plan = self._plans.cached(entry.plan_digest)
        if plan is None:
            try:
                plan = await self._plans.load(entry.execution_id, entry.plan_digest)
            except (UnknownExecution, CorruptExecution) as error:
                await self._give_up(entry, str(error))
                return None
        if entry.node_id not in plan.nodes:
            await self._bury(entry.entry_id, f"its execution has no node {entry.node_id!r}")
            return None
        return plan

    async def _give_up(self, entry: Entry, reason: str) -> None:
        if await self._store.executions.fail_execution(entry.execution_id, reason):
            log.error("execution.corrupt", execution_id=entry.execution_id, reason=reason)
        await self._store.tasks.requeue_entry(entry.entry_id, self._consumer)
        self.release(entry.entry_id)

    async def _bury(self, entry_id: str, reason: str) -> None:
        await self._store.tasks.bury_entry(entry_id, reason)
        self.release(entry_id)
        log.error("entry.buried", entry_id=entry_id, reason=reason)

    async def _fetch_inputs(
        self, planned: Sequence[tuple[Entry, Plan]]
    ) -> dict[_NodeKey, str | bytes | None]:
        """The upstream outputs the templates of these nodes read, from memory or in one call."""
        wanted = {
            (entry.execution_id, upstream)
            for entry, plan in planned
            for upstream in plan.nodes[entry.node_id].config.inputs
        }
        if not wanted:
            return {}
        found: dict[_NodeKey, str | bytes | None] = {
            key: self._outputs[key] for key in wanted if key in self._outputs
        }
        missing = [key for key in wanted if key not in found]
        if missing:
            found.update(zip(missing, await self._store.executions.outputs(missing), strict=True))
        return found

    def _prepare(
        self, entry: Entry, plan: Plan, fetched: dict[_NodeKey, str | bytes | None]
    ) -> PreparedNode:
        node = plan.nodes[entry.node_id]
        if entry.plan_digest != plan.digest:
            entry = entry._replace(plan_digest=plan.digest)
        inputs = {}
        for upstream in node.config.inputs:
            try:
                inputs[upstream] = orjson.loads(fetched[entry.execution_id, upstream] or "")
            except ValueError:
                error = f"the output of {upstream!r} is gone or is not JSON"
                return PreparedNode(entry, plan, node, _refusing(node.handler, error), {})
        return PreparedNode(entry, plan, node, self._handler(node.handler), inputs)

    def _handler(self, name: str) -> Handler:
        try:
            return self._registry.load(name)
        except Exception as error:  # noqa: BLE001 - importing a handler's module may do anything
            return _refusing(name, f"handler {name!r} cannot be loaded: {error_text(error)}")


def _refusing(name: str, error: str) -> Handler:
    """A stand-in that fails its node with this error: a failed node takes the way of all others."""

    def refuse(_config: dict[str, object], _context: HandlerContext) -> dict[str, object]:
        raise HandlerFailed(error)

    return Handler(name, refuse, "inline")
