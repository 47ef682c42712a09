"""What Prometheus reads, made anew for each scrape from what Redis and the supervisor say."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from flowd import __version__
from flowd.replicas import Replica
from flowd.store.cache import NOTHING_KEPT, Kept
from flowd.store.metrics import BUCKETS, Snapshot

_LATENCIES: Final = {
    "waited": ("flowd_node_waited_seconds", "From the queue to the handler, by handler"),
    "ran": ("flowd_node_ran_seconds", "The handler's run, by handler"),
}


_SCHEDULED: Final = {
    "fired": "Executions that schedules have started",
    "missed": "Times of schedules that passed while no scheduler ran, and were not made up for",
    "skipped": "Times of schedules left out as the execution before had not ended",
}
_PLACES: Final = {
    "waited": "Executions that had to wait for a place of their workflow",
    "replaced": "Executions that were cancelled to make room for a newer one",
}
_TRACES: Final = {
    "exported": ("flowd_trace_spans_exported", "Spans that the collector of traces has taken"),
    "dropped": ("flowd_trace_spans_dropped", "Spans it will never take, which are given up"),
    "failed": ("flowd_trace_exports_failed", "Calls that it has refused, or not answered"),
}


def measurements_text(
    snapshot: Snapshot,
    processes: Sequence[Mapping[str, Any]] = (),
    limits: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    kept: Kept = NOTHING_KEPT,
) -> bytes:
    """`limits` are how many hold and wait for each, by name."""
    registry = CollectorRegistry()
    registry.register(_Scrape(snapshot, processes, limits, kept))
    return generate_latest(registry)


class _Scrape(Collector):
    def __init__(
        self,
        snapshot: Snapshot,
        processes: Sequence[Mapping[str, Any]],
        limits: Mapping[str, tuple[int, int]],
        kept: Kept,
    ) -> None:
        self._snapshot = snapshot
        self._kept = kept
        self._limits = limits
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "flowd_build",
            "This flowd",
            {"version": __version__, "python": platform.python_version()},
        )
        yield from _executions(self._snapshot)
        yield from _gauges(self._snapshot)
        yield from _limits(self._limits)
        yield GaugeMetricFamily(
            "flowd_cache_entries", "Outputs that are kept for equal calls", self._kept.entries
        )
        yield GaugeMetricFamily("flowd_cache_bytes", "The room they take", self._kept.size)
        yield from _counts(self._snapshot.counts)
        yield _cached(self._snapshot.counts)
        yield _restarts(self._processes)


def _executions(snapshot: Snapshot) -> Iterator[Metric]:
    kept = GaugeMetricFamily(
        "flowd_executions", "Executions that have not ended", labels=["status"]
    )
    for state, count in snapshot.executions.items():
        kept.add_metric([state], count)
    yield kept
    yield GaugeMetricFamily(
        "flowd_executions_kept", "Executions that have ended and are kept", snapshot.finished
    )


def _limits(limits: Mapping[str, tuple[int, int]]) -> Iterator[Metric]:
    holding = GaugeMetricFamily(
        "flowd_limit_holding", "Nodes that hold a place of a limit", labels=["limit"]
    )
    waiting = GaugeMetricFamily(
        "flowd_limit_waiting", "Nodes that wait for a place of a limit", labels=["limit"]
    )
    for name, (holders, waiters) in limits.items():
        holding.add_metric([name], holders)
        waiting.add_metric([name], waiters)
    yield holding
    yield waiting


def _gauges(snapshot: Snapshot) -> Iterator[Metric]:
    queue = snapshot.queue
    for name, text, value in (
        ("flowd_queue_entries", "Nodes in the task stream", queue.entries),
        ("flowd_queue_waiting", "Nodes that were given to no worker yet", queue.waiting),
        ("flowd_in_flight", "Nodes that were given to a worker", queue.in_flight),
        (
            "flowd_queue_oldest_age_seconds",
            "Age of the oldest node in the task stream",
            queue.oldest_age_ms / 1000,
        ),
        ("flowd_workers_live", "Workers with a lease", snapshot.workers),
        ("flowd_retries_waiting", "Nodes that wait for their next attempt", snapshot.retries),
        ("flowd_retries_due", "Those whose time has come", snapshot.retries_due),
        ("flowd_dead_letters", "What no worker could run", snapshot.dead_letters),
        ("flowd_events_kept", "Entries in the stream of events", snapshot.events),
        ("flowd_callbacks_waiting", "Callbacks that are not delivered yet", snapshot.callbacks),
        (
            "flowd_executions_waiting",
            "Executions that wait for a place of their workflow",
            snapshot.places_awaited,
        ),
        ("flowd_redis_memory_used_bytes", "Memory Redis uses", snapshot.memory_used),
        ("flowd_redis_memory_max_bytes", "Its limit; 0 is none", snapshot.memory_max),
        *_replication(snapshot.replicas),
    ):
        if value is not None:
            yield GaugeMetricFamily(name, text, value)
    lengths = GaugeMetricFamily("flowd_queue_length", "Nodes in each queue", labels=["queue"])
    for name, one in snapshot.queues.items():
        lengths.add_metric([name], one.entries)
    yield lengths


def _replication(replicas: Sequence[Replica] | None) -> Iterator[tuple[str, str, int | None]]:
    online = [one for one in replicas or () if one.is_online]
    known = None if replicas is None else len(online)
    behind = max((one.behind_bytes for one in online), default=None)
    lag_s = max((one.lag_s for one in online), default=None)
    yield "flowd_redis_replicas", "Replicas of Redis that are online", known
    yield "flowd_redis_replica_behind_bytes", "What the last of them lacks", behind
    yield "flowd_redis_replica_lag_seconds", "Since the longest silent of them was heard of", lag_s


def _counts(counts: Mapping[str, int]) -> Iterator[Metric]:
    """What workers and scripts count; a field's handler stands last, and may hold spaces."""
    executions = CounterMetricFamily(
        "flowd_executions_ended", "Executions that have ended", labels=["status"]
    )
    nodes = CounterMetricFamily(
        "flowd_nodes_ended", "Attempts that have ended", labels=["handler", "state"]
    )
    waits = CounterMetricFamily(
        "flowd_waits_decided", "Waits that were decided, by what came first", labels=["by"]
    )
    schedules = dict.fromkeys(_SCHEDULED, 0)
    places = dict.fromkeys(_PLACES, 0)
    traces = dict.fromkeys(_TRACES, 0)
    buckets: dict[str, dict[str, list[int]]] = {
        name: defaultdict(lambda: [0] * BUCKETS) for name in _LATENCIES
    }
    for field, count in counts.items():
        kind, _, rest = field.partition(" ")
        first, _, handler = rest.partition(" ")
        if kind == "executions":
            executions.add_metric([first], count)
        elif kind == "ended":
            nodes.add_metric([handler, first], count)
        elif kind == "decided":
            waits.add_metric([first], count)
        elif kind == "schedules" and first in schedules:
            schedules[first] = count
        elif kind == "concurrency" and first in places:
            places[first] = count
        elif kind == "traces" and first in traces:
            traces[first] = count
        elif kind in buckets and first.isdecimal() and int(first) < BUCKETS:
            buckets[kind][handler][int(first)] = count
    yield executions
    yield nodes
    yield waits
    for word, text in _SCHEDULED.items():
        # Also 0: of a counter that begins with 1 nobody sees that it rose.
        yield CounterMetricFamily(f"flowd_schedules_{word}", text, value=schedules[word])
    for word, text in _PLACES.items():
        yield CounterMetricFamily(f"flowd_executions_{word}", text, value=places[word])
    for word, (name, text) in _TRACES.items():
        yield CounterMetricFamily(name, text, value=traces[word])
    for kind, (name, text) in _LATENCIES.items():
        family = HistogramMetricFamily(name, text, labels=["handler"])
        for handler, filled in buckets[kind].items():
            sum_s = counts.get(f"{kind}_ms {handler}", 0) / 1000
            family.add_metric([handler], list(_cumulative(filled)), sum_s)
        yield family


def _cached(counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(
        "flowd_cache_completions",
        "Completions of nodes that are cached: a hit took an output that was kept",
        labels=["handler", "outcome"],
    )
    for field, count in counts.items():
        kind, _, rest = field.partition(" ")
        if kind == "cache":
            outcome, _, handler = rest.partition(" ")
            family.add_metric([handler, outcome], count)
    return family


def _cumulative(filled: Iterable[int]) -> Iterator[tuple[str, float]]:
    total = 0
    for bucket, count in enumerate(filled):
        total += count
        bound = "+Inf" if bucket == BUCKETS - 1 else f"{2**bucket / 1000:g}"
        yield bound, total


def _restarts(processes: Sequence[Mapping[str, Any]]) -> Metric:
    family = CounterMetricFamily(
        "flowd_process_restarts", "Starts of a process after it died", labels=["role"]
    )
    by_role: dict[str, int] = defaultdict(int)
    for process in processes:
        by_role[str(process.get("role"))] += int(process.get("restarts", 0))
    for role, restarts in by_role.items():
        family.add_metric([role], restarts)
    return family
