"""Saved definitions as one process knows them: read, checked and compiled once, and run often."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from flowd.errors import CorruptExecution, CorruptStore
from flowd.orchestrator.plans import Plans
from flowd.store import Store
from flowd.store.saved import Saved
from flowd.workflow.graph import Outline

# Of the definitions that are kept.
_BYTES_MAX: Final = 64 * 1024 * 1024


class SavedWorkflow(NamedTuple):
    """A version of a saved definition; what it says is known to be valid here."""

    saved: Saved
    outline: Outline
    input_schema: Mapping[str, Any] | None
    default_input: Mapping[str, Any]


class SavedWorkflows:
    """What was asked for under a name and a version, or the latest, is kept until it is forgotten:
    whoever runs it says which one it is, and hears where that is out of date.
    """

    def __init__(
        self,
        store: Store,
        plans: Plans,
        check: Callable[[bytes], Awaitable[object]],
        handlers_digest: Callable[[], str],
    ) -> None:
        """`check` raises InvalidWorkflow; it is asked about what was saved elsewhere."""
        self._saved = store.saved
        self._plans = plans
        self._check = check
        self._handlers_digest = handlers_digest
        self._known: dict[tuple[str, int | None], SavedWorkflow] = {}
        self._bytes = 0

    async def load(self, name: str, version: int | None = None) -> SavedWorkflow:
        """Raises UnknownDefinition, CorruptStore, and InvalidWorkflow for one that was valid where
        it was saved, and is not with the handlers there are here."""
        found = self._known.get((name, version))
        if found is not None:
            return found
        saved = await self._saved.find(name, version)
        if saved.about.handlers != self._handlers_digest():
            await self._check(saved.definition)
        try:
            plan = await self._plans.of_definition(f"{name}@{saved.version}", saved.definition)
        except CorruptExecution as error:
            raise CorruptStore(f"{name}@{saved.version}") from error
        loaded = SavedWorkflow(saved, plan.outline, plan.input_schema, plan.default_input)
        # Somebody may have been quicker.
        self.forget(name, version)
        self._known[name, version] = loaded
        self._bytes += len(saved.definition)
        while self._bytes > _BYTES_MAX and len(self._known) > 1:
            self._forget(next(iter(self._known)))
        return loaded

    def forget(self, name: str, version: int | None) -> None:
        if (name, version) in self._known:
            self._forget((name, version))

    def _forget(self, key: tuple[str, int | None]) -> None:
        self._bytes -= len(self._known.pop(key).saved.definition)
