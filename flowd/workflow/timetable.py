"""When a schedule is due: by a cron expression in a timezone, or every so many seconds.

Every moment is in Unix ms, and whoever asks brings the present one. `cronsim` reads the expression
and counts through the calendar; what a change of the clocks does to that is decided here, as in
Vixie's cron: a fixed time that such a change leaves out comes at the moment behind the gap, and one
that it repeats comes the first time only; where minute or hour begin with `*`, real time counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice, takewhile
from typing import Final, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

CatchUp = Literal["none", "last", "all"]

CRON_CHARS_MAX: Final = 200
EVERY_S_MAX: Final = 366 * 86_400
# Up to here a time is met, not caught up with: a scheduler may have been starting anew.
LATE_MS: Final = 60_000
CATCH_UP_MAX: Final = 100
# So many times are gone through at once; those who missed more look again.
TIMES_PER_LOOK: Final = 1_000
# No clock change repeats or leaves out more than a day, and no two lie closer together.
_CHANGE: Final = timedelta(hours=25)
_MINUTE: Final = timedelta(minutes=1)
_FIELDS: Final = 5
_SPAN_OF_ONE: Final = re.compile(r"\b(\w+)-\1/[1-9]\d*")


@dataclass(frozen=True, slots=True)
class Look:
    """What is to be done about what is due: `missed` times are counted, one runs, or none.

    `next_ms` is what the schedule waits for then, None for ever. `is_late` says that the run makes
    up for a time that had no run: one at a time.
    """

    missed: int
    run_ms: int | None
    next_ms: int | None
    is_late: bool
    # The last of those that are missed.
    missed_ms: int = field(default=0, compare=False)


class Timetable:
    """All times at which a schedule is due, in their order and none twice."""

    def __init__(
        self, *, cron: str | None = None, every_s: int | None = None, timezone: str = "UTC"
    ) -> None:
        """Exactly one of `cron` and `every_s`. Raises ValueError that says what is wrong."""
        self.zone = find_zone(timezone)
        self._every_ms = 1000 * every_s if every_s else 0
        if cron is not None:
            self._fields = _parse_cron(cron)
            # As cron decides it: by how the fields of the minute and the hour begin.
            self._is_fixed = not any(one.startswith("*") for one in cron.split()[:2])

    def after(self, at_ms: int) -> Iterator[int]:
        """The times later than this one."""
        if self._every_ms:
            return self._multiples(at_ms)
        return self._fixed(at_ms) if self._is_fixed else self._by_real_time(at_ms)

    def next_after(self, at_ms: int) -> int | None:
        return next(self.after(at_ms), None)

    def is_time(self, at_ms: int) -> bool:
        return self.next_after(at_ms - 1) == at_ms

    def look(self, next_ms: int, now_ms: int, catch_up: CatchUp, window_s: int) -> Look:
        """What to do at `now_ms` about the times from `next_ms` on, the first not met yet."""
        times = takewhile(lambda one: one <= now_ms, self._from(next_ms))
        due = list(islice(times, TIMES_PER_LOOK))
        if not due:
            return Look(0, None, next_ms, is_late=False)
        window_ms = max(LATE_MS, 0 if catch_up == "none" else 1000 * window_s)
        kept = due[-CATCH_UP_MAX:] if catch_up == "all" else due[-1:]
        following = self.next_after(due[-1])
        if following is not None and following <= now_ms:
            # There are more: which of these are kept is known when all have been seen.
            kept = kept if catch_up == "all" else []
            missed = len(due) - len(kept)
            next_ms = kept[0] if kept else following
            return Look(missed, None, next_ms, is_late=False, missed_ms=due[missed - 1])
        kept = [one for one in kept if now_ms - one <= window_ms]
        missed = len(due) - len(kept)
        missed_ms = due[missed - 1] if missed else 0
        if not kept:
            return Look(missed, None, following, is_late=False, missed_ms=missed_ms)
        is_late = len(kept) > 1 or now_ms - kept[0] > LATE_MS
        behind = kept[1] if len(kept) > 1 else following
        return Look(missed, kept[0], behind, is_late, missed_ms)

    def iso(self, at_ms: int) -> str:
        """ISO 8601 with the offset of the schedule's timezone."""
        return datetime.fromtimestamp(at_ms / 1000, self.zone).isoformat(timespec="seconds")

    def _from(self, at_ms: int) -> Iterator[int]:
        yield at_ms
        yield from self.after(at_ms)

    def _multiples(self, at_ms: int) -> Iterator[int]:
        """Counted from 1970, so that they do not depend on when the schedule was made."""
        while True:
            at_ms += self._every_ms - at_ms % self._every_ms
            yield at_ms

    def _fixed(self, at_ms: int) -> Iterator[int]:
        last = _moment(at_ms)
        for wall in self._walls(last.astimezone(self.zone).replace(tzinfo=None)):
            moment = _first_moment(wall, self.zone)
            if moment > last:
                last = moment
                yield _ms(moment)

    def _by_real_time(self, at_ms: int) -> Iterator[int]:
        last = _moment(at_ms)
        while True:
            is_near_change = self._changes_near(last)
            found = self._next_near_change(last) if is_near_change else None
            if found is None:
                wall = next(self._walls(last.astimezone(self.zone).replace(tzinfo=None)), None)
                if wall is None:
                    return
                found = wall.replace(tzinfo=self.zone).astimezone(UTC)
                # None matches before it, so only the day that leads to it is left to look at.
                eve = found - _CHANGE
                if eve > last or is_near_change:
                    last = max(eve, last + _CHANGE * is_near_change)
                    continue
            last = found
            yield _ms(found)

    def _changes_near(self, moment: datetime) -> bool:
        before, behind = (
            one.astimezone(self.zone).utcoffset() for one in (moment - _CHANGE, moment + _CHANGE)
        )
        return before != behind

    def _next_near_change(self, last: datetime) -> datetime | None:
        """The next that matches within the time a change may be off, minute by minute."""
        moment, end = last.replace(second=0, microsecond=0), last + _CHANGE
        while (moment := moment + _MINUTE) <= end:
            wall = moment.astimezone(self.zone)
            fields = self._fields
            if (
                wall.minute in fields.minutes
                and wall.hour in fields.hours
                and wall.month in fields.months
                and fields.match_day(wall.date())
            ):
                return moment
        return None

    def _walls(self, wall: datetime) -> Iterator[datetime]:
        """What clocks on the wall show when it is time, as if they never changed."""
        walls = copy(self._fields)
        walls.dt = wall.replace(microsecond=0)
        return walls


@lru_cache(maxsize=1024)
def find_zone(name: str) -> tzinfo:
    """Raises ValueError for what the timezone database does not know."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        pass
    raise ValueError(f"unknown timezone {name!r}; write one such as 'Europe/Berlin' or 'UTC'")


def _parse_cron(cron: str) -> CronSim:
    count = len(cron.split())
    if len(cron) > CRON_CHARS_MAX:
        raise ValueError(f"a cron expression has at most {CRON_CHARS_MAX} characters")
    if count != _FIELDS:
        raise ValueError(
            f"{cron!r} has {count} fields; a cron expression has five: minute, hour, day of the "
            "month, month, day of the week"
        )
    # `5-5/2` is 5; cronsim takes it for `5/2`.
    plain = _SPAN_OF_ONE.sub(r"\1", cron)
    try:
        fields = CronSim(plain, datetime(2000, 1, 1))
        next(copy(fields))
    except CronSimError as error:
        minute, hour, day, _month, weekday = plain.split()
        if "day-of-month" in str(error).lower() and _is_cron(f"{minute} {hour} {day} * {weekday}"):
            raise ValueError(f"{cron!r} is never due: no month of it has such a day") from None
        raise ValueError(f"{str(error).lower()} in the cron expression {cron!r}") from None
    except StopIteration:
        raise ValueError(f"{cron!r} is never due") from None
    return fields


def _is_cron(cron: str) -> bool:
    try:
        CronSim(cron, datetime(2000, 1, 1))
    except CronSimError:
        return False
    return True


def _first_moment(wall: datetime, zone: tzinfo) -> datetime:
    """When clocks show this, the first time; when they never do, the moment behind the gap."""
    moment = wall.replace(tzinfo=zone).astimezone(UTC)
    shown = moment.astimezone(zone)
    if shown.replace(tzinfo=None) == wall:
        return moment
    # Read by the offset before the gap, the moment lies behind it, by as much as the wall time lies
    # in it: go back to where that offset ends.
    low, high = moment - (shown.replace(tzinfo=None) - wall), moment
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        if middle.astimezone(zone).utcoffset() == shown.utcoffset():
            high = middle
        else:
            low = middle
    return high.replace(microsecond=0)


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
