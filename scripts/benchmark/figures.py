"""Every figure there is: what it says, what it is compared with, and the goal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from types import MappingProxyType
from typing import NamedTuple


class Reading(NamedTuple):
    """One repetition's figure, and what it is compared with, taken right beside it."""

    value: float
    floor: float | None = None
    # What it is made of, or was taken beside it; the names say the unit.
    details: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Figure:
    """`ratio_goal` bounds value / floor, `value_goal` the value: from above where less is better.

    A value goal beside a ratio goal is what that ratio came to on the machine the goals were set
    on: it says nothing about another one.
    """

    id: str
    what: str
    unit: str
    less_is_better: bool = False
    floor: str = ""
    ratio_goal: float | None = None
    value_goal: float | None = None
    # Work that is done now and then is seen by a mean, and missed by a median.
    summary: Callable[[Sequence[float]], float] = median
    # Only measured beside a stack without persistence.
    is_durable: bool = False

    @property
    def workload(self) -> str:
        return self.id.split(" ")[0]


FIGURES: tuple[Figure, ...] = (
    Figure("W1", "chain of 100 alone", "ms/hop", True, "hop", 1.5, 0.25),
    Figure("W1 apart", "the same, server on another core", "ms/hop", True, "hop", 1.5, 0.25),
    Figure("W1 always", "the same, durability always", "ms/hop", True, "W1", is_durable=True),
    Figure("W2", "1 → 1,000 → 1", "nodes/s", False, "drain-2", 0.7, 35_000),
    Figure("W2 always", "the same, durability always", "nodes/s", False, "W2", is_durable=True),
    Figure("W3", "1,000 diamonds at once", "nodes/s", False, "drain-2", 0.7, 35_000),
    Figure(
        "W3 always",
        "the same, durability always",
        "nodes/s",
        False,
        "W3",
        0.5,
        None,
        is_durable=True,
    ),
    Figure("W3 skipped", "the same, one arm of each skipped", "nodes/s", False, "W3", 0.7),
    Figure("W4 memory", "at rest, PSS without the server", "MiB", True, value_goal=90),
    Figure("W4 cpu", "at rest, with the server", "% of a core", True, value_goal=0.5),
    Figure("W4 start", "flowd start to first workflow done", "s", True, value_goal=0.5),
    Figure("W5 p50", "1 node, submit to done", "ms", True, "round-trip", 3.0),
    Figure("W5 p99", "1 node, submit to done", "ms", True, "W5 p50", 3.0),
    Figure("W5 run", "1 node, run in one call, to done", "ms", True, "W5 p50"),
    Figure("W6 hop", "chain beside 10,000 sleepers", "ms/hop", True, "W1", 1.1),
    Figure(
        "W6 scheduler",
        "CPU beside 10,000 sleepers",
        "% of a core",
        True,
        value_goal=1.0,
        summary=fmean,
    ),
    Figure("W7 x1", "POST + trigger, 1 client", "pairs/s"),
    Figure("W7 x32", "POST + trigger, 32 clients", "pairs/s", value_goal=3_000),
    Figure("W7 fused", "the same in one request, 32 clients", "runs/s", False, "W7 x32", 1.8),
    Figure("W7 core", "POST + trigger, a core of the API", "pairs/s", False, "bare Starlette", 0.5),
    Figure("W8 p50", "1 node over HTTP, submit to done", "ms", True, "2 GET /health + W5", 1.5),
    Figure("W8 p99", "1 node over HTTP, submit to done", "ms", True, "W8 p50"),
    Figure("W9 fan", "1 → 10,000 → 1", "nodes/s", False, "W2", 0.7),
    Figure("W9 chain", "chain of 10,000", "nodes/s", False, "hop"),
    Figure("W9 script", "longest script of all", "ms", True, value_goal=50, summary=max),
    Figure("W9 bytes", "server bytes per node, running", "bytes", True, value_goal=600),
    Figure("W9 map", "map of 10,000 items", "items/s", False, "W9 fan", 0.5),
    Figure("W9 item", "server bytes per item, running", "bytes", True, value_goal=800),
    Figure("W10 diamonds", "15,000 diamonds at once", "nodes/s", False, "socket-2", 0.4, 45_000),
    Figure("W10 chains", "400 chains of 100 at once", "nodes/s", False, "socket-2", 0.5, 55_000),
    Figure("W11 hop", "chain beside 10,000 WAITING nodes", "ms/hop", True, "W1", 1.1),
    Figure(
        "W11 scheduler",
        "CPU beside 10,000 WAITING nodes",
        "% of a core",
        True,
        value_goal=1.0,
        summary=fmean,
    ),
    Figure("W11 late", "from the date of a wait to its entry, p99", "ms", True, value_goal=50),
    Figure("W12 p50", "a signal, to the end of the node behind", "ms", True, "W5 p50", 3.0),
    Figure("W12 p99", "a signal, to the end of the node behind", "ms", True, "W12 p50"),
    Figure("W13 run", "a saved diamond is run, 32 clients", "runs/s", False, "POST + trigger", 2.0),
    Figure(
        "W13 inputs", "the same, 1,000 inputs a request", "runs/s", False, "POST + trigger", 10.0
    ),
    Figure("W14", "1,000 children of one node", "nodes/s", False, "W3", 0.4),
    Figure(
        "W15 scheduler",
        "CPU beside 10,000 schedules",
        "% of a core",
        True,
        value_goal=1.0,
        summary=fmean,
    ),
    Figure("W15 late", "500 due at once, to the start of each, p99", "ms", True, value_goal=1000),
    Figure("W16 limit", "1,000 nodes of 10 ms, ten at once", "nodes/s", False, "ten slots", 0.9),
    Figure(
        "W16 rate", "100 starts a second, four workers", "starts/s", False, "what it says", 0.98
    ),
    Figure("W16 keys", "1,000 diamonds, each with a key", "nodes/s", False, "W3", 0.4),
    Figure("W16 diamonds", "1,000 diamonds, three queues read", "nodes/s", False, "W3", 0.95),
    Figure("W16 three", "chain of 100, workers read three queues", "ms/hop", True, "W1", 1.05),
    Figure("W16 queue", "chain of 100 in another queue", "ms/hop", True, "W1", 1.05),
    Figure("W16 hop", "that chain beside 100,000 that wait", "ms/hop", True, "W16 three", 1.1),
    Figure(
        "W16 scheduler",
        "CPU beside 100,000 that wait for a place",
        "% of a core",
        True,
        value_goal=1.0,
        summary=fmean,
    ),
    Figure(
        "W17 hop", "chain of 100, redis.replicas = 1", "ms/hop", True, "without + 1.5 pings", 1.0
    ),
    Figure("W17 diamonds", "1,000 diamonds, redis.replicas = 1", "nodes/s", False, "without", 0.85),
)
WORKLOADS = tuple(dict.fromkeys(one.workload for one in FIGURES))


@dataclass(slots=True)
class Result:
    """A figure with its readings; `void` says why they are worth nothing."""

    figure: Figure
    readings: list[Reading] = field(default_factory=list)
    void: str = ""

    @property
    def value(self) -> float:
        return self.figure.summary([one.value for one in self.readings])

    @property
    def floor(self) -> float | None:
        floors = [one.floor for one in self.readings if one.floor is not None]
        return median(floors) if floors else None

    @property
    def ratio(self) -> float | None:
        """Value to floor; of each repetition, because noise then hits both."""
        ratios = [one.value / one.floor for one in self.readings if one.floor]
        return median(ratios) if ratios else None

    @property
    def details(self) -> dict[str, float]:
        """The median of each detail."""
        names = self.readings[0].details if self.readings else ()
        return {name: median(one.details[name] for one in self.readings) for name in names}

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met: of ratio and value the ratio decides. None without a goal."""
        if self.figure.ratio_goal is not None:
            return self._holds(self.ratio, self.figure.ratio_goal)
        return self.is_value_met

    @property
    def is_value_met(self) -> bool | None:
        return self._holds(self.value, self.figure.value_goal)

    def _holds(self, found: float | None, goal: float | None) -> bool | None:
        if goal is None:
            return None
        if found is None:
            return False
        return found <= goal if self.figure.less_is_better else found >= goal
