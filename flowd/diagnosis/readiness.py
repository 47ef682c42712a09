"""Check whether this installation is ready to work: what is checked, and what is required."""

from __future__ import annotations

import time
from typing import Any

from flowd.errors import Problem, StoreError
from flowd.orchestrator.owner import Owner
from flowd.store import Store
from flowd.store.fitness import Fitness
from flowd.store.troubles import Trouble
from flowd.workflow.ids import DEFAULT_QUEUE

# Every check with what it found, and what is wrong.
Verdict = tuple[dict[str, dict[str, Any]], list[Problem]]


async def check(store: Store) -> Verdict:
    """Ask everything that work needs.

    Workers and the queue are told, not judged: work may wait for workers of another machine. So are
    the duties of the schedulers: while one fails, the others go on. Where all workers ask for no
    work there is none.
    """
    begun = time.monotonic()
    try:
        await store.health.metrics.write_probe()
        took_ms = round((time.monotonic() - begun) * 1000, 1)
        fitness = await store.health.metrics.fitness()
        ticked_ms = await store.health.metrics.ticked_ms()
        queue = await store.health.metrics.queue()
        workers = await store.health.metrics.workers()
        stalled = await store.health.troubles.workers()
        failing = await store.health.troubles.duties()
        queues = await _queues_check(store)
    except StoreError as error:
        return {}, [Problem("checks.redis", error.code, str(error))]
    checks: dict[str, dict[str, Any]] = {
        "redis": _redis_check(fitness, store.health.metrics.primary, took_ms),
        "scheduler": {"ok": ticked_ms is not None, "ticked_ms": ticked_ms},
        "queue": {
            "ok": True,
            "entries": queue.entries,
            "waiting": queue.waiting,
            "in_flight": queue.in_flight,
            "oldest_age_ms": queue.oldest_age_ms,
        },
        "workers": {
            "ok": not stalled,
            "live": workers,
            "stalled": {one.what: one.reason for one in stalled},
        },
        **queues,
        "duties": {"ok": not failing, "failing": {one.what: one.reason for one in failing}},
    }
    problems = [Problem("checks.redis", "unfit_redis", text) for text in fitness.defects]
    if len(stalled) >= workers:
        problems += map(_stall_problem, stalled)
    if ticked_ms is None:
        message = "no scheduler has ticked for five intervals; start one with `flowd scheduler`"
        problems.append(Problem("checks.scheduler", "no_scheduler", message))
    return checks, problems


def _redis_check(fitness: Fitness, primary: str | None, write_ms: float) -> dict[str, Any]:
    return {
        "ok": not fitness.defects,
        "write_ms": write_ms,
        "server": fitness.server,
        "primary": primary,
        "risks": fitness.risks,
        "replicas": [one._asdict() for one in fitness.replicas],
    }


async def _queues_check(store: Store) -> dict[str, dict[str, Any]]:
    """The queues that nodes wait in and no enrolled worker reads; empty where there is only one."""
    queues = await store.health.metrics.queues()
    if len(queues) == 1:
        return {}
    read: set[str] = set()
    for text in (await store.tasks.owners()).values():
        try:
            read.update(Owner.from_json(text).queues)
        except (ValueError, TypeError):
            read.add(DEFAULT_QUEUE)
    unread = [name for name, queue in queues.items() if queue.waiting and name not in read]
    return {"queues": {"ok": not unread, "unread": unread}}


def _stall_problem(stalled: Trouble) -> Problem:
    return Problem("checks.workers", "worker_stalled", f"{stalled.what} {stalled.reason}")
