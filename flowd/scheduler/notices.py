"""What a callback says and where: that an execution has ended, or what a schedule missed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from flowd.errors import CorruptExecution, CorruptStore, Fail
from flowd.orchestrator.schedules import read_schedule
from flowd.store import Store
from flowd.store.callbacks import DueCallback, UntoldTimes

if TYPE_CHECKING:
    import httpx2


class Notice(NamedTuple):
    """`place` is host and port, `secret` as it is written; `key` is the same however often this is
    sent, and another for whatever else is told. `told` are the times of a schedule in it."""

    url: httpx2.URL
    place: str
    secret: Any
    key: str
    body: bytes
    told: UntoldTimes | None = None


async def read_notice(store: Store, due: DueCallback) -> Notice:
    """Raises Fail for what is not to be sent, and what the store raises."""
    if due.schedule is not None:
        return await _of_schedule(store, due.schedule)
    return await _of_execution(store, due.subject)


async def _of_execution(store: Store, execution_id: str) -> Notice:
    from flowd.outgoing.http_client import parse_url, place_of

    try:
        definition = orjson.loads(await store.executions.definition(execution_id))
        callback = definition["callback"]
        url = parse_url(str(callback["url"]), source="callback.url")
        secret, name = callback.get("secret"), definition.get("name")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptExecution(execution_id, f"its callback is broken: {error}") from error
    body = {
        "execution_id": execution_id,
        "name": name,
        "status": await store.executions.execution_status(execution_id),
        "finished_ms": await store.callbacks.finished_ms(execution_id),
    }
    return Notice(url, place_of(url), secret, execution_id, orjson.dumps(body))


async def _of_schedule(store: Store, name: str) -> Notice:
    from flowd.outgoing.http_client import parse_url, place_of

    row = await store.schedules.row(name)
    schedule = read_schedule(name, row.said) if row else None
    if schedule is None or schedule.callback is None:
        raise Fail("it has no callback any more")
    told = await store.callbacks.untold(name)
    if not told.missed and not told.skipped:
        raise CorruptStore(f"flowd:schedule:{name}:callback")
    body = {
        "schedule": name,
        "workflow": schedule.workflow,
        "missed": told.missed,
        "skipped": told.skipped,
        "scheduled_at": schedule.timetable.iso(told.last_ms),
    }
    url = parse_url(schedule.callback.url, source="callback.url")
    # What was told in an attempt whose answer was lost may have become more since.
    key = f"{name}:{told.last_ms}:{told.missed}:{told.skipped}"
    return Notice(url, place_of(url), schedule.callback.secret, key, orjson.dumps(body), told)
