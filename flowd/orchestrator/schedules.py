"""What schedules do when their time comes, and what is done with them by hand.

Every step says what it has seen, and is done once among all who say it at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import orjson
from pydantic import ValidationError

from flowd.errors import (
    CorruptStore,
    ScheduleBusy,
    StoreError,
    StoreUnavailable,
    UnknownExecution,
    UnknownSchedule,
    WrongState,
)
from flowd.log import get_logger
from flowd.orchestrator import executor
from flowd.orchestrator.input_fit import InputFit
from flowd.orchestrator.pinning import pinned
from flowd.orchestrator.places import place_for
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.versions import expect_no_older_process
from flowd.store import Store
from flowd.store.origins import Origin
from flowd.store.saved import Saved
from flowd.store.schedules import DueSchedule, Fired, Firing, ScheduleRow
from flowd.workflow.concurrency import LimitReached
from flowd.workflow.ids import scheduled_id
from flowd.workflow.schedule import LATEST, STORED, ScheduleDefinition

log = get_logger(__name__)

PUTS_MAX: Final = 20
READ_MAX: Final = 20_000
# A definition that is kept while a hundred schedules are fired.
KEPT_BYTES_MAX: Final = 64 * 1024
# An execution was made, now or before.
MADE: Final = frozenset({"triggered", "continue", "exists", "held"})


def read_schedule(name: str, said: str) -> ScheduleDefinition:
    """Raises CorruptStore for what is none any more: a hand was in it, or a newer version."""
    try:
        return ScheduleDefinition.model_validate_json(said, context=STORED)
    except ValidationError as error:
        raise CorruptStore(f"flowd:schedule:{name}") from error


async def find_schedule(store: Store, name: str) -> ScheduleRow:
    """Raises UnknownSchedule."""
    row = await store.schedules.row(name)
    if row is None:
        raise UnknownSchedule(name)
    return row


async def put_schedule(store: Store, name: str, schedule: ScheduleDefinition) -> str:
    """Make it or change it: `created`, `changed`, or `unchanged` when it says just this."""
    said = schedule.to_json()
    for _ in range(PUTS_MAX):
        row = await store.schedules.row(name)
        if row is not None and row.said == said.decode():
            return "unchanged"
        if await _replace(store, name, row, schedule):
            return "created" if row is None else "changed"
    raise StoreUnavailable(f"the schedule {name!r} is changed by others all the time; try again")


async def hold_schedule(store: Store, name: str, *, is_paused: bool) -> None:
    """Pause it or let it go on; nothing is made up for then. Raises UnknownSchedule."""
    for _ in range(PUTS_MAX):
        row = await find_schedule(store, name)
        schedule = read_schedule(name, row.said)
        if schedule.paused == is_paused:
            return
        changed = schedule.model_copy(update={"paused": is_paused})
        if await _replace(store, name, row, changed):
            return
    raise StoreUnavailable(f"the schedule {name!r} is changed by others all the time; try again")


async def _replace(
    store: Store, name: str, row: ScheduleRow | None, schedule: ScheduleDefinition
) -> bool:
    """Whether nobody was quicker."""
    now_ms = await store.schedules.now_ms() if row is None else row.now_ms
    # Later than what has run, also where the clock was put back.
    past_ms = max(now_ms, (row.last_ms if row else None) or 0)
    next_ms = None if schedule.paused else schedule.timetable.next_after(past_ms)
    missed = missed_ms = 0
    if row is not None and row.next_ms is not None and row.next_ms <= now_ms:
        # Due, and no scheduler has come to it yet.
        if not schedule.paused and schedule.timetable.is_time(row.next_ms):
            next_ms = row.next_ms
        else:
            missed, missed_ms = 1, row.next_ms
            with suppress(CorruptStore):
                timetable = read_schedule(name, row.said).timetable
                look = timetable.look(row.next_ms, now_ms, "last", 0)
                missed = look.missed + (look.run_ms is not None)
                missed_ms = look.run_ms or look.missed_ms
    return await store.schedules.put(
        name,
        schedule.to_json(),
        workflow=schedule.workflow,
        revision=row.revision if row else "",
        next_ms=next_ms,
        missed=missed,
        missed_ms=missed_ms,
        has_callback=schedule.callback is not None,
    )


class RunByHand(NamedTuple):
    """The execution that has started, or will when the one before has ended."""

    execution_id: str
    is_queued: bool


class Firings:
    """Fires schedules: those that are due, and by hand."""

    def __init__(self, store: Store, plans: Plans, input_fit: InputFit | None = None) -> None:
        """Whoever fires by hand has looked at the input before, and brings no `input_fit`."""
        self._store = store
        self._plans = plans
        self._input_fit = input_fit
        # By name, with the revision that says so.
        self._read: dict[str, tuple[str, ScheduleDefinition]] = {}
        self._saved: dict[tuple[str, int | None], Saved] = {}

    def forget_saved(self) -> None:
        """From here on the latest version is asked for again: many schedules may run one."""
        self._saved.clear()

    async def attend(self, due: DueSchedule, now_ms: int) -> None:
        """Do what is to be done about a schedule now: about one time of it, two at most.

        Raises FlowdError where an execution cannot be made.
        """
        schedule = self._schedule(due)
        seen = (due.next_ms, due.queued_ms)
        firing = Firing(due.name, due.revision, seen, "due", schedule.overlap, moves_to=due.next_ms)
        if due.queued_ms is not None:
            queued = firing._replace(kind="queued", time_ms=due.queued_ms)
            if (await self._fire(schedule, queued)).outcome != "waiting":
                return
        if due.next_ms is not None:
            look = schedule.timetable.look(
                due.next_ms, now_ms, schedule.catch_up, schedule.catch_up_window_s
            )
            firing = firing._replace(
                kind="late" if look.is_late else "due",
                time_ms=look.run_ms,
                missed=look.missed,
                missed_ms=look.missed_ms,
                moves_to=look.next_ms,
            )
        await self._fire(schedule, firing)

    async def run_by_hand(
        self,
        name: str,
        time_ms: int | None,
        *,
        is_forced: bool,
        given: Mapping[str, Any] | None = None,
        key_digest: str = "",
    ) -> RunByHand:
        """Run it now, or at this time if that is what an earlier request under the same key has
        chosen. What is `given` goes over its own input; then it never waits for another execution
        to end: of what waits only the time is kept. Raises UnknownSchedule, ScheduleBusy, and
        FlowdError where it cannot be made."""
        for number in range(PUTS_MAX):
            row = await find_schedule(self._store, name)
            schedule = with_input(read_schedule(name, row.said), given)
            # Two that run it in the same millisecond run it twice.
            at_ms = by_hand(row.now_ms + number) if time_ms is None else time_ms
            if row.queued_ms == at_ms:
                if time_ms is None:
                    continue
                return RunByHand(scheduled_id(name, at_ms), is_queued=True)
            firing = Firing(
                name,
                row.revision,
                None,
                "force" if is_forced else "hand",
                "skip" if given and schedule.overlap in _WAITS else schedule.overlap,
                at_ms,
                key_digest=key_digest,
            )
            outcome, holders = await self._fire(schedule, firing)
            if outcome == "skipped":
                raise ScheduleBusy(name, holders, has_queue=schedule.overlap == "queue")
            if outcome != "changed" and not (outcome == "exists" and time_ms is None):
                return RunByHand(scheduled_id(name, at_ms), outcome == "queued")
        raise StoreUnavailable(f"the schedule {name!r} is changed by others; try again")

    def _schedule(self, due: DueSchedule) -> ScheduleDefinition:
        revision, schedule = self._read.get(due.name, ("", None))
        if schedule is None or revision != due.revision:
            while len(self._read) >= READ_MAX:
                self._read.pop(next(iter(self._read)))
            schedule = read_schedule(due.name, due.said)
            self._read[due.name] = (due.revision, schedule)
        return schedule

    async def _fire(self, schedule: ScheduleDefinition, firing: Firing) -> Fired:
        if firing.time_ms is not None:
            firing = await self._prepare(schedule, firing, firing.time_ms)
        fired = await self._store.schedules.fire(firing)
        self._log(schedule, firing, fired)
        await self._follow(firing, fired)
        return fired

    async def _follow(self, firing: Firing, fired: Fired) -> None:
        """What is left to do behind the one call."""
        making, outcome = firing.making, fired.outcome
        is_replacing = outcome.startswith(executor.REPLACED)
        if making and making.is_staged and outcome not in MADE and not is_replacing:
            await self._store.submissions.discard_staged(making.execution_id)
        await executor.stop_replaced(self._store, outcome)
        if outcome == "refused" and making and firing.kind in ("hand", "force"):
            holders = await self._store.lifecycle.places.holders(making.place)
            raise LimitReached(making.place, holders, making.places)
        if outcome == "closed":
            raise StoreError("storing the execution took too long")
        if outcome == "continue" and making:
            plan = await self._plans.load(making.execution_id, "")
            await executor.advance_node(self._store, plan, making.execution_id, executor.ROOTS)
        if firing.overlap == "replace" and firing.kind != "late" and outcome in _REPLACES:
            for execution_id in fired.holders:
                with suppress(UnknownExecution, WrongState):
                    await executor.cancel_execution(self._store, execution_id)

    def _log(self, schedule: ScheduleDefinition, firing: Firing, fired: Fired) -> None:
        if fired.outcome == "changed":
            return
        facts = {"schedule": firing.name}
        if firing.time_ms is not None:
            facts["scheduled_at"] = schedule.timetable.iso(firing.time_ms)
        if firing.missed:
            log.warning("schedule.missed", schedule=firing.name, times=firing.missed)
        is_made = fired.outcome in MADE - {"exists"} or fired.outcome.startswith(executor.REPLACED)
        if is_made and firing.making:
            log.info("schedule.fired", execution_id=firing.making.execution_id, **facts)
        elif fired.outcome in ("skipped", "refused") and firing.kind not in ("hand", "force"):
            log.info("schedule.skipped", **facts)

    async def _prepare(self, schedule: ScheduleDefinition, firing: Firing, time_ms: int) -> Firing:
        """The same with what its execution is made of."""
        version = None if schedule.version == LATEST else int(schedule.version)
        saved = self._saved.get((schedule.workflow, version))
        if saved is None:
            saved = await self._store.saved.find(schedule.workflow, version)
            if len(saved.definition) <= KEPT_BYTES_MAX:
                self._saved[schedule.workflow, version] = saved
        plan = await self._plans.of_definition(f"{saved.name}@{saved.version}", saved.definition)
        await expect_no_older_process(self._store, plan.language)
        if self._input_fit is not None:
            await self._input_fit.expect(plan, schedule.input)
        definition, outline = await pinned(self._store, saved.definition, plan.outline)
        given_input = orjson.dumps(schedule.input) if schedule.input else b""
        making = await self._store.submissions.prepare(
            definition,
            outline,
            execution_id=scheduled_id(firing.name, time_ms),
            given_input=given_input,
            place=place_for(plan.concurrency, given_input),
            key_digest=firing.key_digest,
            origin=Origin(
                definition=f"{saved.name}@{saved.version}",
                schedule=firing.name,
                scheduled_at=schedule.timetable.iso(time_ms),
            ),
        )
        return firing._replace(making=making)


# What lets a time wait that finds another execution.
_WAITS: Final = frozenset({"queue", "replace"})
# Outcomes at which what runs makes room for the time that waits.
_REPLACES: Final = frozenset({"queued", "waiting"})


def with_input(schedule: ScheduleDefinition, given: Mapping[str, Any] | None) -> ScheduleDefinition:
    """The same with this over its own input."""
    if not given:
        return schedule
    return schedule.model_copy(update={"input": {**(schedule.input or {}), **given}})


def by_hand(now_ms: int) -> int:
    """A time that no timetable has: all of those are whole seconds."""
    return now_ms + (now_ms % 1000 == 0)
