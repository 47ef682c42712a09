"""Show results: a table for people, JSON for programs, and what they were taken with."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flowd
from flowd.supervisor.embedded_server import find_binary
from scripts.benchmark.bench import Bench
from scripts.benchmark.figures import Figure, Reading, Result
from scripts.benchmark.sizes import Sizes

_ROOT = Path(__file__).parents[2]
_LIBRARIES = ("redis", "hiredis", "uvloop", "orjson", "uvicorn", "starlette")
_HEAD = ("", "workload", "measured", "", "floor", "ratio", "goal", "met")
_NOTES = """\
Measured and floor are medians over the repetitions, the ratio is the median of each repetition's
own. Means: W6 and W11 scheduler; a maximum: W9 script. Goals stand on the ratio where there is one;
what follows in brackets is what that came to on the machine they were set on."""

BUSY = "busy % before each"
_QUIET_PERCENT = 10
_NOT_ALONE = "Something else kept the machine {:.0f} % busy: these figures are not what it can do."
_OTHER_SIZES = (
    "Not the sizes the workloads are defined with: these figures say nothing about speed."
)


def environment() -> dict[str, str]:
    """What the figures depend on."""
    return {
        "flowd": f"{flowd.__version__}{_commit()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "server": _server_version(),
        **{name: version(name) for name in _LIBRARIES},
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
    }


def settings(bench: Bench, repetitions: int) -> dict[str, Any]:
    return {
        "taken": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "durability": bench.durability,
        "workers": 2,
        "repetitions": repetitions,
        "file system": _file_system(bench.folder),
        "sizes": dataclasses.asdict(bench.sizes),
    }


def as_json(
    results: Sequence[Result], environment: dict[str, str], settings: dict[str, Any]
) -> dict[str, Any]:
    return {
        "environment": environment,
        "settings": settings,
        "figures": [_figure_as_json(result) for result in results],
    }


def _figure_as_json(result: Result) -> dict[str, Any]:
    figure = result.figure
    written = {
        "id": figure.id,
        "what": figure.what,
        "unit": figure.unit,
        "less_is_better": figure.less_is_better,
        "floor_is": figure.floor or None,
        "ratio_goal": figure.ratio_goal,
        "value_goal": figure.value_goal,
        "void": result.void or None,
        "readings": [_reading_as_json(reading) for reading in result.readings],
    }
    if not result.void:
        written |= {
            "measured": result.value,
            "floor": result.floor,
            "ratio": result.ratio,
            "is_met": result.is_met,
            "is_value_met": result.is_value_met,
            "details": result.details,
        }
    return written


def _reading_as_json(reading: Reading) -> dict[str, Any]:
    return {"value": reading.value, "floor": reading.floor, "details": dict(reading.details)}


def as_text(
    results: Sequence[Result], environment: dict[str, str], settings: dict[str, Any]
) -> str:
    plain = {name: fact for name, fact in settings.items() if not isinstance(fact, dict)}
    facts = [
        ", ".join(f"{name} {fact}" for name, fact in some.items()) for some in (environment, plain)
    ]
    reasons = {one.figure.workload: one.void for one in results if one.void}
    voids = [f"{workload} is void: {reason}" for workload, reason in reasons.items()]
    warnings = []
    if settings["sizes"] != dataclasses.asdict(Sizes()):
        warnings.append(_OTHER_SIZES)
    if (busiest := max(settings[BUSY].values())) > _QUIET_PERCENT:
        warnings.append(_NOT_ALONE.format(busiest))
    return "\n".join(
        [*facts, "", *_table(results), "", *_beside(results), "", _NOTES, *warnings, *voids]
    )


def _beside(results: Sequence[Result]) -> list[str]:
    """What was read beside the figures."""
    described = {
        result.figure.id: ", ".join(
            f"{name} {number(value)}" for name, value in result.details.items()
        )
        for result in results
        if not result.void
    }
    return [f"{figure}: {text}" for figure, text in described.items() if text]


def _table(results: Sequence[Result]) -> list[str]:
    rows = [_HEAD, *(_row(result) for result in results)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEAD))]
    return ["  ".join(_aligned(row, widths)).rstrip() for row in rows]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Numbers to the right: measured, and the ratio."""
    return [
        cell.rjust(width) if at in (2, 5) else cell.ljust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def _row(result: Result) -> tuple[str, ...]:
    figure = result.figure
    if result.void:
        return (figure.id, figure.what, "void", "", "", "", goal_text(figure), "no")
    floor = "" if result.floor is None else f"{number(result.floor)} {figure.floor}"
    ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
    return (
        figure.id,
        figure.what,
        number(result.value),
        figure.unit,
        floor,
        ratio,
        goal_text(figure),
        verdict(result),
    )


def verdict(result: Result) -> str:
    """`yes` or `no`; empty where there is no goal."""
    if result.void:
        return "no"
    return {True: "yes", False: "no", None: ""}[result.is_met]


def goal_text(figure: Figure) -> str:
    """`≤ 1.5 (0.25)`: of the ratio, and what it came to where the goals were set."""
    sign = "≤" if figure.less_is_better else "≥"
    if figure.ratio_goal is None:
        return "" if figure.value_goal is None else f"{sign} {number(figure.value_goal)}"
    value = "" if figure.value_goal is None else f" ({number(figure.value_goal)})"
    return f"{sign} {figure.ratio_goal:g} ×{value}"


def number(value: float) -> str:
    """Three digits that mean something: 57,300 and 0.0812."""
    if abs(value) >= 1000:
        return f"{round(value, -1 if value < 10_000 else -2):,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _commit() -> str:
    """` (1a2b3c4, changed)` in a checkout."""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty=, changed"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f" ({found.stdout.strip()})"


def _server_version() -> str:
    found = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, timeout=10)
    return " ".join(found.stdout.split()[:3])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    """The type of the file system a path is on: a commit on tmpfs costs nothing."""
    found = ("", "unknown")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mounted, _, described = line.partition(" - ")
        point = mounted.split(" ")[4]
        if folder.is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, described.split(" ")[0])
    return found[1]
