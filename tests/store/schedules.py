"""What tests of schedules act with: a saved definition, schedules of it, a clock of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis as redis_py

from flowd.orchestrator.plans import Plans
from flowd.orchestrator.schedules import Firings, put_schedule
from flowd.store import Store
from flowd.store.redis import keys
from flowd.store.saved import About
from flowd.store.schedules import DueSchedule, ScheduleRow
from flowd.workflow.ids import scheduled_id
from flowd.workflow.schedule import ScheduleDefinition
from tests.store.engine import CHAIN, Execution, Graph, compiled

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
NAME = "nightly"


async def save(store: Store, graph: Graph = CHAIN, name: str = "report", **document: Any) -> None:
    definition, plan = compiled(graph, **document)
    await store.saved.put(name, definition, plan.digest, About(0, len(plan.nodes), ""))


@dataclass
class Scheduled:
    """A schedule, and a scheduler that looks at it when the test says so."""

    name: str
    store: Store
    redis: redis_py.Redis
    firings: Firings
    first_ms: int

    def field(self, name: str) -> str | None:
        return self.redis.hget(keys.schedule(self.name), name)

    def counts(self) -> dict[str, int]:
        found = {one: self.field(one) for one in ("fired", "missed", "skipped")}
        return {one: int(value) for one, value in found.items() if value}

    def holders(self) -> set[str]:
        return self.redis.smembers(keys.schedule_holders(self.name))

    def look_ms(self) -> float | None:
        return self.redis.zscore(keys.SCHEDULES_DUE, self.name)

    def id_at(self, time_ms: int) -> str:
        return scheduled_id(self.name, time_ms)

    def status_at(self, time_ms: int) -> str | None:
        return self.redis.get(keys.status(self.id_at(time_ms)))

    def execution_at(self, time_ms: int, graph: Graph = CHAIN) -> Execution:
        return Execution(self.id_at(time_ms), compiled(graph)[1], self.redis)

    async def row(self) -> ScheduleRow:
        row = await self.store.schedules.row(self.name)
        assert row is not None
        return row

    async def seen(self) -> DueSchedule:
        """As a scheduler sees it that looks now."""
        row = await self.row()
        return DueSchedule(
            row.name, row.said, row.revision, row.next_ms, row.queued_ms, row.failures
        )

    async def attend(self, now_ms: int, seen: DueSchedule | None = None) -> None:
        """A scheduler looks, or goes on with what it has seen, at this time."""
        await self.firings.attend(seen or await self.seen(), now_ms)

    async def end(self, time_ms: int) -> None:
        await self.store.executions.fail_execution(self.id_at(time_ms), "it is over")


async def schedule(
    store: Store, redis: redis_py.Redis, graph: Graph = CHAIN, name: str = NAME, **said: Any
) -> Scheduled:
    """One that is due every hour, unless it says when."""
    await save(store, graph)
    when = {} if "cron" in said else {"every_s": 3600}
    definition = ScheduleDefinition.model_validate({"workflow": "report", **when, **said})
    assert await put_schedule(store, name, definition) == "created"
    row = await store.schedules.row(name)
    assert row is not None
    return Scheduled(name, store, redis, Firings(store, Plans(store)), row.next_ms or 0)
