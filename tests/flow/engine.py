"""An engine in the test's own process: real workers and scheduler over the private server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Self

from flowd.config import Settings
from flowd.handlers.registry import Registry
from flowd.orchestrator.executor import submit_workflow, trigger_workflow
from flowd.pulse import Pulse
from flowd.scheduler.scheduler import Scheduler
from flowd.store import Store, open_store
from flowd.workers.worker import Worker
from flowd.workflow.definition import WorkflowDefinition
from flowd.workflow.states import ExecutionState
from tests.daemon import warn_of_long_wait
from tests.flow import handlers
from tests.store.engine import results_of

DEADLINE_S = 300.0
_HANDLERS = {
    one.__flowd_handler__.name: handlers.__name__
    for one in vars(handlers).values()
    if hasattr(one, "__flowd_handler__")
}


def node(
    node_id: str, dependencies: Iterable[str] = (), handler: str = "echo", **config: Any
) -> Any:
    return {
        "id": node_id,
        "handler": handler,
        "dependencies": list(dependencies),
        "config": config,
    }


def workflow(*nodes: Any, name: str = "test", **fields: Any) -> WorkflowDefinition:
    document = {"name": name, "dag": {"nodes": list(nodes)}, **fields}
    return WorkflowDefinition.model_validate(document)


async def until(condition: Callable[[], Awaitable[Any] | Any], what: str) -> Any:
    """Wait for a condition to become true, and say what never came when it does not."""
    begun = time.monotonic()
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            warn_of_long_wait(begun, DEADLINE_S, what)
            return value
        assert time.monotonic() < begun + DEADLINE_S, f"never came: {what}"
        await asyncio.sleep(0.002)


class Engine:
    """`async with Engine(settings) as engine`; `workers` may be 0 to look at what waits."""

    def __init__(
        self, settings: Settings, workers: int = 2, registry: Registry | None = None
    ) -> None:
        self.settings = settings
        self.store = open_store(settings)
        self.workers: list[Worker] = []
        self._count = workers
        self._registry = registry or Registry(_HANDLERS)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        handlers.CALLS.clear()
        handlers.KEYS.clear()
        handlers.SPUN.clear()
        handlers.GATES.clear()
        handlers.LEFT.clear()
        for _ in range(self._count):
            await self.add_worker()
        return self

    async def __aexit__(self, *_: object) -> None:
        for gate in handlers.GATES.values():
            gate.set()
        for worker in self.workers:
            worker.stop()
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*self._tasks)
        await self.store.close()

    async def add_worker(self) -> Worker:
        ready = asyncio.Event()
        name = f"worker-{len(self.workers) + 1}"
        store, pulse = open_store(self.settings), Pulse(ready.set)
        worker = Worker(self.settings, name, store, self._registry, pulse)
        self.workers.append(worker)
        self._tasks.append(asyncio.create_task(worker.run()))
        await ready.wait()
        return worker

    async def stop_worker(self, worker: Worker) -> None:
        worker.stop()
        await self._tasks[self.workers.index(worker)]

    async def start(self, definition: WorkflowDefinition, given_input: bytes = b"") -> str:
        execution_id = await submit_workflow(self.store, definition)
        await trigger_workflow(self.store, execution_id, given_input)
        return execution_id

    async def end(self, execution_id: str) -> ExecutionState:
        """Wait until the execution has ended; the state it ended in."""

        async def ended() -> bool:
            return (await self.store.executions.execution_status(execution_id)).is_terminal

        await until(ended, f"the end of {execution_id}")
        return await self.store.executions.execution_status(execution_id)

    async def run(self, definition: WorkflowDefinition, given_input: bytes = b"") -> str:
        """Submit, trigger, wait for the end; the execution's id."""
        execution_id = await self.start(definition, given_input)
        await self.end(execution_id)
        return execution_id

    async def states(self, execution_id: str) -> dict[str, str]:
        states = await self.store.executions.node_states(execution_id)
        return {node_id: str(state) for node_id, state in states.items()}

    async def results(self, execution_id: str) -> dict[str, Any]:
        return await results_of(self.store, execution_id)

    @asynccontextmanager
    async def ticking(self) -> AsyncIterator[Store]:
        """A scheduler beside the workers; its store."""
        # A store of its own: a connection that blocks is nobody else's.
        store = open_store(self.settings)
        scheduler = Scheduler(store, interval_s=0.05)
        ends: list[bool] = []
        scheduler.start(Pulse(), on_end=lambda: ends.append(True))
        try:
            yield store
            assert not ends
        finally:
            await scheduler.stop()
            await store.close()

    async def tick(self) -> None:
        assert await Scheduler(self.store).tick(time.monotonic())

    async def redis(self, *command: Any) -> Any:
        """What redis-cli would print."""
        return await self.store._client.execute(*command)


def calls(execution_id: str) -> list[str]:
    """The node ids of an execution's handler calls, in order."""
    return [node_id for called, node_id, _ in handlers.CALLS if called == execution_id]
