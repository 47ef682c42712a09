"""Times as people write and read them on the command line."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click
import pytest
from click.testing import CliRunner

from flowd.cli.times import clock, node_took, read_moment, span, took


def read(text: str) -> tuple[int, str]:
    @click.command()
    @click.option("--after", callback=read_moment)
    def command(after: str) -> None:
        click.echo(after)

    ended = CliRunner().invoke(command, ["--after", text])
    return ended.exit_code, ended.output.strip()


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("1.5h", 5400), ("2d", 172_800), ("1w", 604800)]
)
def test_so_long_ago_is_a_time(text: str, seconds: int) -> None:
    before = time.time()
    code, moment = read(text)
    ago = datetime.fromisoformat(moment).timestamp()

    assert code == 0
    assert before - 0.002 <= ago + seconds <= time.time()


def test_a_time_is_of_this_machine_s_zone_unless_it_names_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        assert read("2026-01-31T09:00") == (0, "2026-01-31T07:00:00.000Z")
        assert read("2026-01-31 09:00:00+05:00") == (0, "2026-01-31T04:00:00.000Z")
        assert read("1769850000000") == (0, "1769850000000")
        # Eight digits are a date, more of them milliseconds.
        assert read("20260131") == (0, "2026-01-30T22:00:00.000Z")
        assert read("176985000") == (0, "176985000")
        shown = clock(1769850000000)
        assert shown == "2026-01-31 11:00:00+02:00"
        # What is shown may be written again.
        assert read(shown) == (0, "2026-01-31T09:00:00.000Z")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "yesterday", "5", "5y", "-5m", "2026-13-01", "9999999999w"])
def test_what_is_no_time_is_said_with_what_would_be_one(text: str) -> None:
    code, said = read(text)

    assert code == 2
    assert "is no time; write 30s, 5m, 2h or 7d" in re.sub(r"\s+", " ", said)


def test_what_runs_has_taken_until_now() -> None:
    now_ms = int(datetime.now(UTC).timestamp() * 1000)

    assert took(1500, now_ms, is_over=False) == "1.5s"
    assert took(None, now_ms - 7_200_500, is_over=False) == "2h00m"
    assert took(None, now_ms + 60_000, is_over=False) == "0ms"
    assert took(None, now_ms, is_over=True) == "-"
    assert took(None, None, is_over=False) == "-"
    assert span(183_600_000) == "2d03h"


def test_a_node_that_waits_has_taken_until_now_since_its_first_start() -> None:
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    begun = {"began_ms": now_ms - 7_200_500, "started_ms": now_ms, "duration_ms": None}

    for state in ("RUNNING", "WAITING", "RETRYING", "QUEUED"):
        assert node_took({**begun, "state": state}) == "2h00m"
    assert node_took({**begun, "state": "CANCELLED"}) == "-"
    assert node_took({**begun, "state": "COMPLETED", "duration_ms": 1500}) == "1.5s"
    assert node_took({"started_ms": now_ms - 7_200_500, "duration_ms": None, "state": "RUNNING"})
