"""When schedules are due, against a reference that watches a clock on the wall minute by minute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given
from hypothesis import strategies as st

from flowd.workflow.timetable import (
    CATCH_UP_MAX,
    EVERY_S_MAX,
    LATE_MS,
    TIMES_PER_LOOK,
    Look,
    Timetable,
)

# Whole hours, half hours and quarters of one; changes of one hour, of half an hour and of two; at
# midnight, twice a year, around Ramadan, and never.
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "Pacific/Chatham",
)
FIRST, LAST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 12, 31, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY_MS = 86_400_000


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def changes_of(zone: str) -> list[datetime]:
    """The moments in these years at which clocks in this zone change, to the hour before."""
    info, moment, found = ZoneInfo(zone), FIRST, []
    while moment < LAST:
        behind = moment + timedelta(hours=6)
        if moment.astimezone(info).utcoffset() != behind.astimezone(info).utcoffset():
            found.append(moment)
        moment = behind
    return found


CHANGES = {zone: changes_of(zone) for zone in ZONES}


def values_of(field: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, last = low, high
        if span != "*":
            begin, _, end = span.partition("-")
            first = int(begin)
            last = int(end) if end else (high if step else first)
        found.update(range(first, last + 1, int(step or 1)))
    return found


class Reference:
    """Watches the clock on the wall of a place; knows nothing of how anything else is computed."""

    def __init__(self, cron: str, zone: str) -> None:
        self.zone = ZoneInfo(zone)
        minute, hour, day, month, weekday = cron.split()
        self.minutes, self.hours = values_of(minute, 0, 59), values_of(hour, 0, 23)
        self.days, self.months = values_of(day, 1, 31), values_of(month, 1, 12)
        self.weekdays = {one % 7 for one in values_of(weekday, 0, 7)}
        self.is_both = day.startswith("*") or weekday.startswith("*")
        self.is_fixed = not (minute.startswith("*") or hour.startswith("*"))

    def matches(self, wall: datetime) -> bool:
        if wall.minute not in self.minutes or wall.hour not in self.hours:
            return False
        is_day, is_weekday = wall.day in self.days, wall.isoweekday() % 7 in self.weekdays
        is_date = is_day and is_weekday if self.is_both else is_day or is_weekday
        return is_date and wall.month in self.months

    def times(self, begin: datetime, end: datetime) -> Iterator[int]:
        """Those in the minutes behind `begin`, up to `end`."""
        moment = (begin - timedelta(days=1)).replace(second=0, microsecond=0)
        shown = moment.astimezone(self.zone).replace(tzinfo=None)
        while (moment := moment + MINUTE) <= end:
            wall = moment.astimezone(self.zone).replace(tzinfo=None)
            if not self.is_fixed:
                is_due = self.matches(wall)
            else:
                # What was shown already is past, and what is jumped over is due now.
                is_due = False
                while shown < wall:
                    shown += MINUTE
                    is_due = is_due or self.matches(shown)
            if is_due and moment > begin:
                yield round(moment.timestamp() * 1000)


def times_between(timetable: Timetable, begin: datetime, end: datetime) -> list[int]:
    first, last = (round(one.timestamp() * 1000) for one in (begin, end))
    found = []
    for one in timetable.after(first):
        if one > last:
            break
        found.append(one)
    return found


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.integers(1, high)
    return st.one_of(
        st.just("*"),
        number.map(str),
        span,
        step.map(lambda one: f"*/{one}"),
        st.tuples(span, step).map(lambda pair: f"{pair[0]}/{pair[1]}"),
        st.lists(number, min_size=2, max_size=4).map(lambda some: ",".join(map(str, some))),
    )


# Mostly daily, and in the hours in which clocks change: what is seldom due tells little.
CRONS = st.tuples(
    fields(0, 59),
    st.one_of(fields(0, 3), fields(0, 23)),
    st.one_of(st.just("*"), fields(1, 31)),
    st.one_of(st.just("*"), fields(1, 12)),
    st.one_of(st.just("*"), fields(0, 7)),
).map(" ".join)


@st.composite
def begins(draw: st.DrawFn) -> tuple[str, datetime]:
    """A zone, and a moment: within two days of a change of its clocks where it has any."""
    zone = draw(st.sampled_from(ZONES))
    if CHANGES[zone]:
        moment = draw(st.sampled_from(CHANGES[zone]))
        return zone, moment + draw(st.integers(-2_880, 1_000)) * MINUTE
    days = (LAST - FIRST).days
    return zone, FIRST + timedelta(days=draw(st.integers(0, days)))


@given(CRONS, begins())
@example("*/10 3 * * *", ("Australia/Lord_Howe", datetime(2026, 10, 3, 14, tzinfo=UTC)))
@example("*/30 0 6 9 *", ("America/Santiago", datetime(2026, 9, 4, tzinfo=UTC)))
@example("30 1 * * *", ("Europe/Berlin", datetime(2026, 10, 25, 0, 45, tzinfo=UTC)))
def test_a_schedule_is_due_when_the_clock_on_the_wall_says_so(
    cron: str, begin: tuple[str, datetime]
) -> None:
    zone, moment = begin
    end = moment + timedelta(days=2)
    wanted = list(Reference(cron, zone).times(moment, end))
    try:
        timetable = Timetable(cron=cron, timezone=zone)
    except ValueError:
        assert not wanted
        return
    assert times_between(timetable, moment, end) == wanted


@pytest.mark.thorough
@pytest.mark.parametrize("zone", ZONES)
def test_in_twenty_one_years_no_time_is_left_out_and_none_comes_twice(zone: str) -> None:
    for cron in (
        "30 2 * * *",
        "0 0 * * *",
        "*/20 1-3 * * *",
        "15,45 0-23/2 * * 1-5",
        "0 */3 13 * 5",
    ):
        wanted = list(Reference(cron, zone).times(FIRST, LAST))
        assert times_between(Timetable(cron=cron, timezone=zone), FIRST, LAST) == wanted, cron


@given(CRONS, begins())
def test_the_next_time_is_later_than_the_last(cron: str, begin: tuple[str, datetime]) -> None:
    zone, moment = begin
    try:
        timetable = Timetable(cron=cron, timezone=zone)
    except ValueError:
        return
    at_ms = round(moment.timestamp() * 1000)
    one_by_one = [at_ms]
    for _ in range(5):
        following = timetable.next_after(one_by_one[-1])
        assert following is not None
        one_by_one.append(following)
        assert timetable.is_time(following)
    assert one_by_one == sorted(set(one_by_one))
    assert one_by_one[1:] == list(islice(timetable.after(at_ms), 5))


@given(CRONS, st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "America/Santiago"]))
def test_fixed_times_are_those_of_cronsim(cron: str, zone: str) -> None:
    minute, hour, *rest = cron.split()
    cron = " ".join((minute.replace("*", "0-59"), hour.replace("*", "0-23"), *rest))
    begin = datetime(2027, 3, 1, tzinfo=ZoneInfo(zone))
    # It reads `5-5/2` as `5/2`; cron does not.
    cron = re.sub(r"\b(\d+)-\1/\d+", r"\1", cron)
    try:
        timetable = Timetable(cron=cron, timezone=zone)
    except ValueError:
        return
    own = islice(CronSim(cron, begin), 200)
    # It names the moment behind a gap once for each time in it.
    wanted = list(dict.fromkeys(round(one.timestamp() * 1000) for one in own))
    at_ms = round(begin.timestamp() * 1000)
    assert list(islice(timetable.after(at_ms), len(wanted))) == wanted


def shown(timetable: Timetable, at: str, count: int) -> list[str]:
    return [timetable.iso(one) for one in islice(timetable.after(ms(at)), count)]


def test_a_time_in_the_gap_is_due_once_at_the_moment_behind_it() -> None:
    timetable = Timetable(cron="0,30 2 * * *", timezone="Europe/Berlin")
    assert shown(timetable, "2026-03-28T12:00+01:00", 3) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_a_time_that_is_repeated_is_due_the_first_time_only() -> None:
    timetable = Timetable(cron="30 2 * * *", timezone="Europe/Berlin")
    assert shown(timetable, "2026-10-25T00:00+02:00", 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]
    # Asked in the repeated hour, before it shows the time again.
    assert shown(timetable, "2026-10-25T02:15+01:00", 1) == ["2026-10-26T02:30:00+01:00"]


def test_wildcards_follow_real_time() -> None:
    timetable = Timetable(cron="*/30 * * * *", timezone="Europe/Berlin")
    assert shown(timetable, "2026-10-25T01:45+02:00", 5) == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]
    assert shown(timetable, "2026-03-29T01:30+01:00", 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-29T03:30:00+02:00",
    ]


def test_midnight_that_is_left_out_in_santiago_is_one_in_the_morning() -> None:
    timetable = Timetable(cron="0 0 * * *", timezone="America/Santiago")
    assert shown(timetable, "2026-09-05T12:00-04:00", 3) == [
        "2026-09-06T01:00:00-03:00",
        "2026-09-07T00:00:00-03:00",
        "2026-09-08T00:00:00-03:00",
    ]


@pytest.mark.parametrize("day", ["2026-03-28", "2026-10-24"])
def test_ten_past_midnight_asked_at_ten_to_on_the_eve_of_a_change_is_the_next_day(day: str) -> None:
    timetable = Timetable(cron="10 0 * * *", timezone="Europe/Berlin")
    at_ms = round(datetime.fromisoformat(f"{day}T23:50").replace(tzinfo=timetable.zone).timestamp())
    assert timetable.next_after(1000 * at_ms) == 1000 * (at_ms + 20 * 60)


def test_every_so_many_seconds_is_counted_from_1970() -> None:
    timetable = Timetable(every_s=900, timezone="Asia/Kathmandu")
    assert shown(timetable, "2026-11-30T10:07:31.250Z", 2) == [
        "2026-11-30T16:00:00+05:45",
        "2026-11-30T16:15:00+05:45",
    ]
    assert timetable.next_after(900_000) == 1_800_000


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("61 * * * *", "bad minute"),
        ("* * * *", "has 4 fields"),
        ("0 0 0 * * *", "has 6 fields"),
        ("0 0 31 2 *", "is never due: no month of it has such a day"),
        ("0 0 31 2,4,6 *", "is never due: no month of it has such a day"),
        ("0 0 32 2 *", "bad day-of-month"),
        ("0 0 1 13 *", "bad month"),
        ("@daily", "has 1 fields"),
        ("", "has 0 fields"),
        ("*/0 * * * *", "bad minute"),
        (f"{','.join(['1'] * 200)} * * * *", "at most 200 characters"),
    ],
)
def test_a_cron_expression_that_is_none_is_refused(cron: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Timetable(cron=cron)


@given(st.text("0159*,-/#LWlwMONSUN¹² ", max_size=30))
def test_rubbish_is_refused_by_one_kind_of_error(cron: str) -> None:
    try:
        timetable = Timetable(cron=cron)
    except ValueError:
        return
    assert timetable.next_after(0) is not None


@pytest.mark.parametrize(
    "zone", ["", "Europe", "Europe/Nowhere", "../etc/passwd", "/etc/localtime", "x\0"]
)
def test_an_unknown_timezone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="unknown timezone"):
        Timetable(cron="0 0 * * *", timezone=zone)


HOURLY = Timetable(every_s=3600)
HOUR_MS = 3_600_000


def test_nothing_is_done_before_the_time() -> None:
    assert HOURLY.look(HOUR_MS, HOUR_MS - 1, "last", 60) == Look(0, None, HOUR_MS, is_late=False)


@pytest.mark.parametrize("catch_up", ["none", "last", "all"])
def test_what_is_due_now_runs(catch_up: str) -> None:
    look = HOURLY.look(HOUR_MS, HOUR_MS + LATE_MS, catch_up, 0)  # type: ignore[arg-type]
    assert look == Look(0, HOUR_MS, 2 * HOUR_MS, is_late=False)


def test_after_three_days_the_last_within_the_window_runs_and_the_rest_is_missed() -> None:
    now_ms = HOUR_MS + 3 * DAY_MS + 120_000
    assert HOURLY.look(HOUR_MS, now_ms, "last", 3600) == Look(
        72, HOUR_MS + 3 * DAY_MS, 2 * HOUR_MS + 3 * DAY_MS, is_late=True
    )
    assert HOURLY.look(HOUR_MS, now_ms, "last", 100).run_ms is None
    assert HOURLY.look(HOUR_MS, now_ms, "none", 3600) == Look(
        73, None, 2 * HOUR_MS + 3 * DAY_MS, is_late=False
    )


def test_all_runs_the_oldest_within_the_window_first() -> None:
    now_ms = 10 * HOUR_MS + 1_000
    look = HOURLY.look(HOUR_MS, now_ms, "all", 3 * 3600)
    assert look == Look(7, 8 * HOUR_MS, 9 * HOUR_MS, is_late=True)
    assert HOURLY.look(9 * HOUR_MS, now_ms, "all", 3 * 3600).is_late
    # The newest of them is not late at all.
    assert HOURLY.look(10 * HOUR_MS, now_ms, "all", 3 * 3600) == Look(
        0, 10 * HOUR_MS, 11 * HOUR_MS, is_late=False
    )


def test_of_several_that_are_not_late_yet_only_the_newest_waits_for_nobody() -> None:
    often = Timetable(every_s=10)
    looks = [often.look(at_ms, 40_000, "all", 60) for at_ms in (20_000, 30_000, 40_000)]
    assert looks == [
        Look(0, 20_000, 30_000, is_late=True),
        Look(0, 30_000, 40_000, is_late=True),
        Look(0, 40_000, 50_000, is_late=False),
    ]


@given(
    every_s=st.integers(1, 5_000),
    begin_ms=st.integers(0, 10**9),
    late_ms=st.integers(0, 10**8),
    catch_up=st.sampled_from(["none", "last", "all"]),
    window_s=st.integers(0, 100_000),
)
def test_each_time_runs_once_or_is_counted_as_missed(
    every_s: int, begin_ms: int, late_ms: int, catch_up: str, window_s: int
) -> None:
    timetable = Timetable(every_s=every_s)
    first_ms = next_ms = timetable.next_after(begin_ms)
    assert first_ms is not None and next_ms is not None
    now_ms = first_ms + late_ms
    runs, missed = [], 0
    for _ in range(late_ms // (1000 * every_s) // (TIMES_PER_LOOK - CATCH_UP_MAX) + 102):
        look = timetable.look(next_ms, now_ms, catch_up, window_s)  # type: ignore[arg-type]
        assert look.missed <= TIMES_PER_LOOK and look.next_ms is not None
        missed += look.missed
        if look.run_ms is not None:
            runs.append(look.run_ms)
        next_ms = look.next_ms
        if next_ms > now_ms:
            break
    count = late_ms // (1000 * every_s) + 1
    assert next_ms > now_ms
    assert len(runs) + missed == count
    assert len(runs) <= (CATCH_UP_MAX if catch_up == "all" else 1)
    # Those that run are the newest, in their order.
    newest = first_ms + (count - 1) * 1000 * every_s
    assert runs == [newest - 1000 * every_s * back for back in reversed(range(len(runs)))]


def test_the_longest_pause_is_a_leap_year() -> None:
    assert Timetable(every_s=EVERY_S_MAX).next_after(0) == 1000 * EVERY_S_MAX
