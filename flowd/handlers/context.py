"""What a call of a handler can use: connections, processes, settings, limits."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from flowd.errors import StoreError
from flowd.handlers import Context
from flowd.node_log import LineSink, NodeLog

if TYPE_CHECKING:
    from flowd.config import Settings
    from flowd.destinations import Destination
    from flowd.handlers.process_pool import IsolatedCalls
    from flowd.outgoing.http_client import HttpClient
    from flowd.store.budgets import Budgets, Payer
    from flowd.store.executions import Executions
    from flowd.store.maps import Maps
    from flowd.store.waits import Decision
    from flowd.workflow.children import Parent
    from flowd.workflow.states import ExecutionState


class ChildEnd(NamedTuple):
    """What a child has ended as, and the failure it did of, where it is known."""

    status: ExecutionState
    error: str | None


class WantedChild(NamedTuple):
    """Which saved workflow a node runs, None for its latest version, and what it is given."""

    name: str
    version: int | None
    given: Mapping[str, Any] | None
    # Called with the schema of its input and that input. Raises Fail.
    check_input: Callable[[dict[str, Any], dict[str, Any]], Awaitable[None]]


class ChildExecutions(Protocol):
    """The executions that nodes wait for. Raises StoreUnavailable; each call may be repeated."""

    async def start(self, parent: Parent, wanted: WantedChild, payer: Payer | None) -> bool:
        """Make it; False where it was made before. Raises Fail where none is to be made, or what it
        is given does not fit."""
        ...

    async def find_end(self, execution_id: str) -> ChildEnd | None:
        """None while it has not ended. Raises Fail where it is gone."""
        ...

    async def stop(self, execution_id: str) -> None:
        """Cancel it, if it has not ended."""
        ...

    async def follow(self, execution_id: str) -> None:
        """Cancel the children of this execution that nobody waits for any more."""
        ...

    async def output(self, execution_id: str, wanted: WantedChild, bytes_max: int) -> bytes:
        """What one that completed is worth, as a JSON object. Raises Fail where there is none."""
        ...


class LogKeeper(Protocol):
    """Keeps the lines of the calls of one worker process."""

    def open(self, execution_id: str, node_id: str, attempt: int) -> NodeLog: ...

    def close(self, node_log: NodeLog) -> None: ...


class Resources:
    """What the handlers of one worker process share; opened at first use, closed at drain."""

    __slots__ = ("_executions", "_http", "_isolated", "budgets", "children", "logs", "maps")

    def __init__(
        self,
        budgets: Budgets | None = None,
        executions: Executions | None = None,
        maps: Maps | None = None,
        children: ChildExecutions | None = None,
        logs: LogKeeper | None = None,
    ) -> None:
        # None where nobody keeps what calls say.
        self.logs = logs
        # None where nobody counts what a call costs.
        self.budgets = budgets
        # None where no node with `map` runs.
        self.maps = maps
        # None where no node of the handler `workflow` runs.
        self.children = children
        self._executions = executions
        self._isolated: IsolatedCalls | None = None
        self._http: dict[tuple[str, tuple[str, ...]], HttpClient] = {}

    def http(self, setting: str, allow: tuple[str, ...]) -> HttpClient:
        """The pooled HTTP client that may call public hosts and those of `allow`.

        `setting` is where a user would add an entry. Must be used on the worker's event loop.
        """
        client = self._http.get((setting, allow))
        if client is None:
            # Imported here so that a worker that never calls out never loads an HTTP library.
            from flowd.outgoing.guarded_transport import Gate
            from flowd.outgoing.http_client import HttpClient

            client = HttpClient(Gate(allow, setting=setting))
            self._http[setting, allow] = client
        return client

    async def trace_headers(self, execution_id: str) -> dict[str, str]:
        """What a call carries of the trace its execution was triggered in."""
        traceparent = ""
        if self._executions is not None:
            # A trace is not worth a node.
            with contextlib.suppress(StoreError):
                traceparent = await self._executions.traceparent(execution_id)
        return {"traceparent": traceparent} if traceparent else {}

    def isolated(self, settings: Settings) -> IsolatedCalls:
        """Where handlers run that want a process of their own."""
        if self._isolated is None:
            from flowd.handlers.process_pool import IsolatedCalls

            self._isolated = IsolatedCalls(settings)
        return self._isolated

    async def close(self) -> None:
        """Close what was opened. Safe to call twice; the next use opens it again."""
        if self._isolated is not None:
            await self._isolated.close()
            self._isolated = None
        opened, self._http = list(self._http.values()), {}
        for client in opened:
            await client.close()


@dataclass(slots=True)
class HandlerContext(Context):
    """What a built-in handler may use besides."""

    settings: Settings
    resources: Resources
    # What the execution may spend; None is no limit.
    budget_tokens: int | None = None
    # What ended the wait of the node, where it has waited.
    decision: Decision | None = None
    # How many attempts of the node have failed.
    failures: int = 0
    # The execution above it whose budget that is; empty for its own.
    payer_id: str = ""
    # Where the secrets of this call may go; None is anywhere.
    only: tuple[Destination, ...] | None = None
    log: NodeLog | None = field(default=None, init=False)
    has_ended: bool = field(default=False, init=False)

    def node_log(self) -> LineSink | None:
        logs = self.resources.logs
        if self.log is None and logs is not None and not self.has_ended:
            self.log = logs.open(self.execution_id, self.node_id, self.attempt)
        return self.log

    def feed(self, stream: str, text: str) -> str:
        """Add to its log what comes as it comes. The lines that have ended."""
        if (log := self.node_log()) is not None:
            return log.feed(stream, text)
        return text

    def end(self) -> None:
        """Hear nothing more of this call."""
        self.has_ended = True
        if self.log is not None and self.resources.logs is not None:
            self.resources.logs.close(self.log)
