"""How this flowd is, in one look: a sentence, the numbers, and what somebody should look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flowd.diagnosis.readiness import Verdict
from flowd.errors import Problem
from flowd.store import Store
from flowd.store.attention import Notice, Notices
from flowd.store.executions import now_ms
from flowd.store.metrics import Snapshot
from flowd.store.troubles import Trouble
from flowd.workflow.states import ExecutionState

# As long ago as a failure counts as news.
FAILED_WITHIN_MS: Final = 24 * 3_600_000
SAMPLE_MAX: Final = 5
# As many places as are looked through for who waits.
_PLACES_LOOKED_AT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Overview:
    """`attention` has each kind of which there is something; `names` are those of the executions in
    it."""

    at_ms: int
    sentence: str
    problems: Sequence[Problem]
    server: str
    risks: Sequence[str]
    stalled: int
    scheduler_ticked_ms: int | None
    executions: Mapping[ExecutionState, int]
    snapshot: Snapshot
    attention: Mapping[str, Notices]
    names: Mapping[str, str | None]


async def look(store: Store, verdict: Verdict) -> Overview:
    """Raises StoreUnavailable while Redis does not answer; `verdict` is that of readiness."""
    checks, problems = verdict
    at_ms, snapshot = now_ms(), await store.health.metrics.snapshot()
    attention = await _attention(store, at_ms, checks, problems)
    named = {notice.execution_id for one in attention.values() for notice in one.sample}
    redis, workers = checks.get("redis", {}), checks.get("workers", {})
    executions = await store.executions.indexes.counts()
    running = executions.get(ExecutionState.RUNNING, 0)
    return Overview(
        at_ms,
        _sentence(snapshot, problems, attention, running),
        problems,
        redis.get("server", ""),
        redis.get("risks", ()),
        len(workers.get("stalled", ())),
        checks.get("scheduler", {}).get("ticked_ms"),
        executions,
        snapshot,
        attention,
        await store.health.attention.names([one for one in named if one is not None]),
    )


async def _attention(
    store: Store, at_ms: int, checks: Mapping[str, Any], problems: Sequence[Problem]
) -> dict[str, Notices]:
    attention, letters = store.health.attention, await store.health.dead_letters.page(SAMPLE_MAX)
    told = [one.message for one in problems]
    told += [f"{what} {why}" for what, why in _section(checks, "workers", "stalled")]
    told += [
        f"the duty {what!r} fails: {why}" for what, why in _section(checks, "duties", "failing")
    ]
    unread = checks.get("queues", {}).get("unread", ())
    told += [f"no worker reads the queue {name!r}, in which nodes wait" for name in unread]
    told += await _shut_limits(store)
    told = list(dict.fromkeys(told))
    stuck = await store.health.troubles.continuations()
    buried = [
        Notice(one.execution_id, one.node_id, one.reason, one.at_ms, one.letter_id)
        for one in letters.letters
    ]
    found = {
        "health": Notices(len(told), [Notice(None, None, one, None) for one in told[:SAMPLE_MAX]]),
        "failed": await attention.failed(at_ms - FAILED_WITHIN_MS, SAMPLE_MAX),
        "missed": await _missed(store, at_ms),
        "waiting_for_signal": await attention.signals(SAMPLE_MAX),
        "retrying": await attention.retrying(SAMPLE_MAX),
        "dead_letter": Notices(await store.health.dead_letters.count(), buried),
        "stuck": Notices(len(stuck), list(map(_stuck, stuck[:SAMPLE_MAX]))),
    }
    return {kind: one for kind, one in found.items() if one.sample}


async def _missed(store: Store, at_ms: int) -> Notices:
    count, sample = await store.health.attention.missed(at_ms - FAILED_WITHIN_MS, SAMPLE_MAX)
    return Notices(
        count,
        [
            Notice(
                None,
                None,
                f"{_counted(one.times, 'time')} of the schedule {one.schedule!r} "
                f"{'was' if one.times == 1 else 'were'} missed, as no scheduler ran",
                one.first_ms,
            )
            for one in sample
        ],
    )


async def _shut_limits(store: Store) -> list[str]:
    """Those that let nothing run, and hold something back."""
    limits = store.tasks.limits
    shut = [one.name for one in await limits.all() if one.max == 0]
    totals = await limits.totals(_PLACES_LOOKED_AT) if shut else {}
    waiting = {name: totals[name][1] for name in shut if name in totals}
    return [
        f"the limit {name!r} lets nothing run (max 0), and {_counted(count, 'node')} "
        f"{'waits' if count == 1 else 'wait'}"
        for name, count in waiting.items()
        if count
    ]


def _section(checks: Mapping[str, Any], name: str, what: str) -> Sequence[tuple[str, str]]:
    return list(checks.get(name, {}).get(what, {}).items())


def _stuck(trouble: Trouble) -> Notice:
    verb, _, rest = trouble.what.partition(" ")
    execution_id, _, node_id = rest.partition(" ")
    return Notice(execution_id or None, node_id or None, f"{verb}: {trouble.reason}", None)


def _sentence(
    snapshot: Snapshot,
    problems: Sequence[Problem],
    attention: Mapping[str, Notices],
    running: int,
) -> str:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return f"flowd is not ready: {problems[0].message}{more}."
    if "health" in attention:
        return f"flowd works, but {attention['health'].sample[0].text}."
    queue, workers = snapshot.queue, snapshot.workers
    if not workers:
        wait = "waits" if queue.waiting == 1 else "wait"
        return f"No worker is alive: {_counted(queue.waiting, 'node')} {wait} for one."
    executions = _counted(running, "execution") if running else "no execution"
    runs = "runs" if running < 2 else "run"
    nodes = [
        f"{_counted(count, 'node')} {where}"
        for count, where in ((queue.in_flight, "under way"), (queue.waiting, "in the queue"))
        if count
    ]
    if running and not nodes:
        # For an answer, a date, a place: what else there is to say of it stands below.
        nodes = ["no node under way or in the queue"]
    return (
        f"flowd works: {', '.join([_counted(workers, 'worker'), f'{executions} {runs}', *nodes])}."
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
