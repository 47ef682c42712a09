"""Make schedules and look at them, hold them up, and run one by hand."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import Any, Final

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.cursor import read_cursor, write_cursor
from flowd.api.contract.model import Model
from flowd.api.contract.query import read_query
from flowd.api.contract.route import Endpoint
from flowd.api.contract.schemas import ScheduleDelivery
from flowd.api.contract.small_body import SmallBody, read_small_body
from flowd.api.http.responses import (
    IDEMPOTENCY_HEADER,
    json_response,
    requested_idempotency_key,
)
from flowd.api.routers.listing import HIDDEN
from flowd.api.shared import Shared, shared_of
from flowd.errors import (
    CorruptStore,
    InvalidRequest,
    NoCallback,
    Problem,
    UnknownDefinition,
    UnknownSchedule,
)
from flowd.log import get_logger
from flowd.orchestrator.schedules import (
    Firings,
    RunByHand,
    by_hand,
    find_schedule,
    hold_schedule,
    put_schedule,
    read_schedule,
    with_input,
)
from flowd.store.schedules import ScheduleRow
from flowd.workflow.concurrency import place_of
from flowd.workflow.ids import NAME_RULE, is_name, scheduled_id, time_of
from flowd.workflow.report import quote
from flowd.workflow.schedule import LATEST, Overlap, ScheduleCallback, ScheduleDefinition
from flowd.workflow.timetable import CatchUp

log = get_logger(__name__)

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 1000
NEXT_MAX: Final = 100
# However often it is read: what is due is read 100 at a time.
BODY_BYTES_MAX: Final = 64 * 1024
# What one answer may read, and so many rows at least.
PAGE_BYTES_MAX: Final = 4 * 2**20
_SLICE: Final = 100


class _Body(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScheduleBody(SmallBody, ScheduleDefinition):
    """When a saved definition runs, with which input, and what is done about times that clash."""


class SchedulePut(_Body):
    name: str
    message: str


class ScheduleHeld(_Body):
    name: str
    paused: bool
    message: str


class LastRun(_Body):
    """`execution_id` may have been deleted since."""

    scheduled_at: str
    execution_id: str


class _Said(_Body):
    """What a schedule says."""

    name: str
    workflow: str
    version: int | str
    cron: str | None
    every_s: int | None
    timezone: str
    input: dict[str, Any]
    overlap: Overlap
    catch_up: CatchUp
    catch_up_window_s: int
    paused: bool
    callback: ScheduleCallback | None


class ScheduleView(_Said):
    """What it says, and how far it has come: `next` is null while it is paused, `queued` the time
    that waits for an execution to end, `running` the executions that have not, up to 100. `fired`,
    `missed` and `skipped` count times; `error` is why the next one could not be started.
    """

    next: str | None
    queued: str | None
    running: list[str]
    last: LastRun | None
    fired: int
    missed: int
    skipped: int
    error: str | None


class DamagedSchedule(_Body):
    """One whose key holds what flowd did not write."""

    name: str
    error: str


class SchedulePage(_Body):
    schedules: list[ScheduleView | DamagedSchedule]
    next_cursor: str | None


class NextTimes(_Body):
    next: list[str]


class ScheduleRun(_Body):
    execution_id: str
    message: str


class ScheduleDeleted(_Body):
    name: str
    message: str


class SchedulesQuery(Model):
    limit: int = Field(default=LIMIT_DEFAULT, ge=1, le=LIMIT_MAX)
    cursor: str | None = Field(default=None, description="`next_cursor` of the previous page")


class NextQuery(Model):
    count: int = Field(default=5, ge=1, le=NEXT_MAX)


class RunScheduleBody(SmallBody):
    force: bool = Field(
        default=False, description="run it beside an execution that has not ended, whatever it says"
    )
    input: dict[str, Any] | None = Field(
        default=None, description="over the input the schedule says, this once; then it never waits"
    )


def _requested_name(request: Request) -> str:
    name = str(request.path_params["name"])
    if not is_name(name):
        raise UnknownSchedule(name[:128])
    return name


async def save_schedule(request: Request) -> Response:
    """Make a schedule, or change it: from then on nothing runs by the old rule."""
    name = str(request.path_params["name"])
    if not is_name(name):
        message = f"bad name {quote(name)}; use {NAME_RULE}"
        raise InvalidRequest([Problem("path.name", "bad_name", message)])
    body, _ = await read_small_body(request, ScheduleBody, BODY_BYTES_MAX)
    schedule = ScheduleDefinition(**{one: getattr(body, one) for one in body.model_fields_set})
    store = shared_of(request.app).store
    try:
        await _check_input(shared_of(request.app), schedule)
        outcome = await put_schedule(store, name, schedule)
    except UnknownDefinition as error:
        path = "version" if "version" in str(error) else "workflow"
        raise InvalidRequest([Problem(path, "unknown_definition", str(error))]) from None
    if outcome != "unchanged":
        log.info("schedule.changed", schedule=name)
    answer = SchedulePut(name=name, message=f"Schedule {outcome}")
    return json_response(answer, 201 if outcome == "created" else 200)


async def _check_input(shared: Shared, schedule: ScheduleDefinition) -> None:
    """Raises UnknownDefinition, and InvalidRequest where its input does not fit what it runs."""
    version = None if schedule.version == LATEST else int(schedule.version)
    # Not what is kept here: it may be out of date.
    shared.saved.forget(schedule.workflow, version)
    saved = await shared.saved.load(schedule.workflow, version)
    if saved.input_schema is not None:
        check = shared.check_workflow.expect_inputs_fit
        await check(saved.input_schema, saved.default_input, {"input": schedule.input})
    if saved.outline.concurrency is not None:
        place_of(saved.outline.concurrency, schedule.input)


async def list_schedules(request: Request) -> Response:
    """List the schedules by name."""
    query = read_query(request, SchedulesQuery)
    schedules = shared_of(request.app).store.schedules
    names = await schedules.names(query.limit + 1, read_cursor(query.cursor, is_name))
    rows: list[ScheduleRow] = []
    looked_at = size = 0
    while looked_at < min(len(names), query.limit) and size < PAGE_BYTES_MAX:
        some = names[looked_at : min(looked_at + _SLICE, query.limit)]
        rows += await schedules.rows(some)
        looked_at += len(some)
        size = sum(len(row.said) for row in rows)
    return json_response(
        SchedulePage(
            schedules=list(map(_view_or_damage, rows)),
            next_cursor=write_cursor(names[looked_at - 1] if looked_at < len(names) else None),
        )
    )


async def show_schedule(request: Request) -> Response:
    """Show a schedule: what it says, when it is due next, and what it has done."""
    store = shared_of(request.app).store
    return json_response(_view(await find_schedule(store, _requested_name(request))))


def _view_or_damage(row: ScheduleRow) -> ScheduleView | DamagedSchedule:
    try:
        return _view(row)
    except CorruptStore as error:
        return DamagedSchedule(name=row.name, error=str(error))


def _view(row: ScheduleRow) -> ScheduleView:
    schedule = read_schedule(row.name, row.said)
    iso = schedule.timetable.iso
    said = {one: getattr(schedule, one) for one in ScheduleDefinition.model_fields}
    last = None
    if row.last_ms is not None and row.last_id is not None:
        last = LastRun(scheduled_at=iso(row.last_ms), execution_id=row.last_id)
    return ScheduleView(
        name=row.name,
        **said | {"callback": _shown(schedule.callback)},
        next=None if row.next_ms is None else iso(row.next_ms),
        queued=None if row.queued_ms is None else iso(row.queued_ms),
        running=list(row.holders),
        last=last,
        fired=row.fired,
        missed=row.missed,
        skipped=row.skipped,
        error=row.error,
    )


def _shown(callback: ScheduleCallback | None) -> ScheduleCallback | None:
    """A secret that stands in it is hidden."""
    if callback is None or not isinstance(callback.secret, str):
        return callback
    return callback.model_copy(update={"secret": HIDDEN})


async def show_schedule_callback(request: Request) -> Response:
    """Show the delivery of a schedule's callback."""
    store, name = shared_of(request.app).store, _requested_name(request)
    row = await find_schedule(store, name)
    callback = read_schedule(name, row.said).callback
    if callback is None:
        raise NoCallback(f"schedule {name!r}")
    delivery = await store.callbacks.schedule_delivery(name)
    untold = await store.callbacks.untold(name)
    return json_response(
        ScheduleDelivery(
            name=name,
            url=callback.url,
            **asdict(delivery),
            missed=untold.missed,
            skipped=untold.skipped,
        )
    )


async def show_next_times(request: Request) -> Response:
    """Show the next times of a schedule, as if it were not paused."""
    query = read_query(request, NextQuery)
    row = await find_schedule(shared_of(request.app).store, _requested_name(request))
    timetable = read_schedule(row.name, row.said).timetable
    times = islice(timetable.after(row.now_ms), query.count)
    return json_response(NextTimes(next=[timetable.iso(one) for one in times]))


async def pause_schedule(request: Request) -> Response:
    """Pause a schedule: nothing of it starts, and nothing is made up for later."""
    return await _hold(request, is_paused=True)


async def resume_schedule(request: Request) -> Response:
    """Resume a schedule from now on."""
    return await _hold(request, is_paused=False)


async def _hold(request: Request, *, is_paused: bool) -> Response:
    name = _requested_name(request)
    await hold_schedule(shared_of(request.app).store, name, is_paused=is_paused)
    message = "Schedule paused" if is_paused else "Schedule resumed"
    log.info("schedule.changed", schedule=name)
    return json_response(ScheduleHeld(name=name, paused=is_paused, message=message))


async def run_schedule(request: Request) -> Response:
    """Run a schedule now.

    It obeys its `overlap`: 202 says that it waits for an execution to end.
    """
    shared, name = shared_of(request.app), _requested_name(request)
    body, text = await read_small_body(request, RunScheduleBody)
    store = shared.store
    row = await find_schedule(store, name)
    await _check_input(shared, with_input(read_schedule(name, row.said), body.input))
    time_ms, key_digest = None, ""
    if key := requested_idempotency_key(request):
        time_ms = by_hand(row.now_ms)
        asked = b"schedule " + name.encode() + b" " + text
        claimed = await store.submissions.idempotency.claim(key, asked, scheduled_id(name, time_ms))
        time_ms, key_digest = time_of(claimed.execution_id), claimed.key_digest
        if claimed.is_deleted:
            return _ran(RunByHand(claimed.execution_id, is_queued=False))
    firings = Firings(store, shared.plans)
    return _ran(
        await firings.run_by_hand(
            name, time_ms, is_forced=body.force, given=body.input, key_digest=key_digest
        )
    )


def _ran(ran: RunByHand) -> Response:
    message = "Waits for an execution to end" if ran.is_queued else "Workflow started"
    answer = ScheduleRun(execution_id=ran.execution_id, message=message)
    return json_response(answer, 202 if ran.is_queued else 200)


async def delete_schedule(request: Request) -> Response:
    """Delete a schedule. What it has started goes on."""
    name = _requested_name(request)
    if not await shared_of(request.app).store.schedules.delete(name):
        raise UnknownSchedule(name)
    log.info("schedule.deleted", schedule=name)
    return json_response(ScheduleDeleted(name=name, message="Schedule deleted"))


_OF_ONE: Final = ("unknown_schedule", "corrupt_store")

ROUTES = [
    Endpoint(
        "GET",
        "/schedules",
        list_schedules,
        scope="read",
        answers={200: SchedulePage},
        problems=("invalid_request",),
        query=SchedulesQuery,
    ),
    Endpoint(
        "PUT",
        "/schedules/{name}",
        save_schedule,
        scope="trigger",
        answers={200: SchedulePut, 201: SchedulePut},
        problems=("invalid_request", "corrupt_store"),
        body=ScheduleBody,
    ),
    Endpoint(
        "GET",
        "/schedules/{name}",
        show_schedule,
        scope="read",
        answers={200: ScheduleView},
        problems=_OF_ONE,
    ),
    Endpoint(
        "DELETE",
        "/schedules/{name}",
        delete_schedule,
        scope="admin",
        answers={200: ScheduleDeleted},
        problems=("unknown_schedule",),
    ),
    Endpoint(
        "GET",
        "/schedules/{name}/next",
        show_next_times,
        scope="read",
        answers={200: NextTimes},
        problems=(*_OF_ONE, "invalid_request"),
        query=NextQuery,
    ),
    Endpoint(
        "GET",
        "/schedules/{name}/callback",
        show_schedule_callback,
        scope="read",
        answers={200: ScheduleDelivery},
        problems=(*_OF_ONE, "no_callback"),
    ),
    *(
        Endpoint(
            "POST",
            f"/schedules/{{name}}/{answer.__name__.partition('_')[0]}",
            answer,
            scope="trigger",
            answers={200: ScheduleHeld},
            problems=_OF_ONE,
        )
        for answer in (pause_schedule, resume_schedule)
    ),
    Endpoint(
        "POST",
        "/schedules/{name}/run",
        run_schedule,
        scope="trigger",
        answers={200: ScheduleRun, 202: ScheduleRun},
        problems=(
            *_OF_ONE,
            "unknown_definition",
            "schedule_busy",
            "limit_reached",
            "older_process",
            "invalid_request",
            "idempotency_mismatch",
        ),
        body=RunScheduleBody,
        headers=IDEMPOTENCY_HEADER,
    ),
]
