"""How many executions there are, and how those that have ended did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.model import Model
from flowd.api.contract.query import read_query
from flowd.api.contract.route import Endpoint
from flowd.api.http.responses import json_response
from flowd.api.routers.listing import Time
from flowd.api.shared import shared_of
from flowd.store.executions import now_ms
from flowd.store.indexes import ENDED_STATES, HOUR_MS, HOURS_KEPT
from flowd.store.listing import ExecutionRow, Filters
from flowd.workflow.states import ExecutionState

# Of one name so many of the newest are looked at.
NEWEST_MAX: Final = 200
_HOURS_OF: Final = {"hour": 1, "day": 24}
_BUCKETS_SHOWN: Final = {"hour": 24, "day": 30}


class StatsQuery(Model):
    bucket: Literal["hour", "day"] = Field(default="hour", description="what is counted together")
    since: Time | None = Field(
        default=None, description="from then on; by default 24 hours, or 30 days"
    )
    name: str | None = Field(
        default=None, description="also how the newest executions of this name did"
    )


class _Body(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bucket(_Body):
    """What has ended from `at_ms` on."""

    at_ms: int
    COMPLETED: int
    FAILED: int
    CANCELLED: int


class DurationStats(_Body):
    """From the trigger to the end, in ms, of those that are COMPLETED."""

    p50: int
    p90: int
    p99: int
    max: int


class NewestStats(_Body):
    """How many of the newest were looked at, their states, and how long they took; null where none
    is COMPLETED."""

    name: str
    count: int
    status: dict[str, int]
    duration_ms: DurationStats | None


class Stats(_Body):
    """Every bucket from `since_ms` to `until_ms`, also one in which nothing has ended; a day is one
    of UTC. `newest` is null unless a name was asked for."""

    bucket: Literal["hour", "day"]
    since_ms: int
    until_ms: int
    buckets: list[Bucket]
    newest: NewestStats | None


class Counts(_Body):
    total: int
    status: dict[str, int]


async def show_counts(request: Request) -> Response:
    """Count the executions by status."""
    counts = await shared_of(request.app).store.executions.indexes.counts()
    status = {str(state): count for state, count in counts.items()}
    return json_response(Counts(total=sum(status.values()), status=status))


async def show_stats(request: Request) -> Response:
    """Count what has ended by the hour or the day, for up to 62 days; what was deleted counts."""
    query = read_query(request, StatsQuery)
    store = shared_of(request.app).store
    width, until_ms = _HOURS_OF[query.bucket], now_ms()
    last = until_ms // HOUR_MS // width
    shown = last - _BUCKETS_SHOWN[query.bucket] + 1
    first = shown if query.since is None else query.since // HOUR_MS // width
    first = min(max(first, last - HOURS_KEPT // width + 1), last)
    hours = range(first * width, (last + 1) * width)
    ended = await store.executions.indexes.ended(hours)
    buckets = [
        Bucket(at_ms=hours[at] * HOUR_MS, **_summed(ended[at : at + width]))
        for at in range(0, len(hours), width)
    ]
    newest = None
    if query.name is not None:
        page = await store.executions.listing.page(Filters(name=query.name), NEWEST_MAX, None)
        newest = _newest(query.name, page.rows)
    return json_response(
        Stats.model_construct(
            bucket=query.bucket,
            since_ms=hours[0] * HOUR_MS,
            until_ms=until_ms,
            buckets=buckets,
            newest=newest,
        )
    )


def _summed(hours: Sequence[Mapping[ExecutionState, int]]) -> dict[str, int]:
    return {str(state): sum(one[state] for one in hours) for state in ENDED_STATES}


def _newest(name: str, rows: Sequence[ExecutionRow]) -> NewestStats:
    took = sorted(
        row.duration_ms
        for row in rows
        if row.status is ExecutionState.COMPLETED and row.duration_ms is not None
    )
    duration = None
    if took:
        # Nearest rank.
        p50, p90, p99 = (took[-(-len(took) * part // 100) - 1] for part in (50, 90, 99))
        duration = DurationStats(p50=p50, p90=p90, p99=p99, max=took[-1])
    status = Counter(str(row.status) for row in rows if row.status)
    return NewestStats(name=name, count=len(rows), status=status, duration_ms=duration)


_STORED = ("store_unavailable",)

ROUTES = [
    Endpoint(
        "GET",
        "/workflows/counts",
        show_counts,
        scope="read",
        answers={200: Counts},
        problems=_STORED,
    ),
    Endpoint(
        "GET",
        "/workflows/stats",
        show_stats,
        scope="read",
        answers={200: Stats},
        problems=("invalid_request", "corrupt_store", *_STORED),
        query=StatsQuery,
    ),
]
