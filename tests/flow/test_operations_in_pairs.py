"""Two operations on one execution, the second at every step of the first; and each step the last
its process took, until another carries it on.

Whatever the order: every answer is a 200, 404 or 409, the checker of the soak finds nothing, no key
is left of an execution that is unknown, and nothing is triggered twice.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import redis as redis_py

from flowd.api.app import create_app
from flowd.orchestrator.executor import submit_workflow
from flowd.orchestrator.plans import Plans
from flowd.scheduler.retention import DAY_MS, forget_finished
from flowd.store import Store
from flowd.store.endings import RetryLater
from flowd.store.executions import now_ms
from flowd.store.redis import keys
from flowd.workflow.definition import WorkflowDefinition
from flowd.workflow.ids import new_execution_id
from scripts.soaking.checker import find_violations
from tests.redis_calls import Ask, listen_to_calls
from tests.store.engine import ScriptedEngine, Worker, compiled, finish_continuations

# Two nodes to a call: whatever may take several calls, takes several.
PER_CALL_MAX = 2
CALLS_MAX = 40
GRAPH = {
    "a": [],
    **{f"m{number}": ["a"] for number in range(3)},
    "x": [],
    "y": ["x"],
    "z": ["m0", "m1", "m2"],
}
KEY = {"idempotency-key": "order-17"}


class Killed(BaseException):
    """The process is no more, in the middle of what it did."""


@dataclass
class Bench:
    engine: ScriptedEngine
    redis: Any
    api: httpx2.AsyncClient
    worker: Worker
    body: bytes
    id: str = ""
    key_digest: str = ""
    letter_id: str = ""
    answers: list[tuple[str, int]] = field(default_factory=list)

    async def request(self, method: str, path: str, **more: Any) -> None:
        answer = await self.api.request(method, path, **more)
        if answer.status_code == 503:
            # It says so itself: submit it again.
            answer = await self.api.request(method, path, **more)
        self.answers.append((f"{method} {path}", answer.status_code))

    async def close(self) -> None:
        await self.engine.close()
        await self.api.aclose()


Operation = Callable[[Bench], Awaitable[None]]


# What is done, as clients do it.


async def submit(bench: Bench) -> None:
    await bench.request("POST", "/workflow?trigger=true", content=bench.body, headers=KEY)


async def trigger(bench: Bench) -> None:
    await bench.request("POST", f"/workflow/trigger/{bench.id}")


async def pause(bench: Bench) -> None:
    await bench.request("POST", f"/workflows/{bench.id}/pause")


async def resume(bench: Bench) -> None:
    await bench.request("POST", f"/workflows/{bench.id}/resume")


async def cancel(bench: Bench) -> None:
    await bench.request("POST", f"/workflows/{bench.id}/cancel")


async def delete(bench: Bench) -> None:
    await bench.request("DELETE", f"/workflows/{bench.id}")


async def rerun(bench: Bench) -> None:
    headers = {"idempotency-key": "rerun"}
    await bench.request("POST", f"/workflows/{bench.id}/rerun", json={"from": "z"}, headers=headers)


async def redrive(bench: Bench) -> None:
    await bench.request("POST", f"/dead-letters/{bench.letter_id}/redrive")


async def expire(bench: Bench) -> None:
    """The days of an execution are over."""
    await forget_finished(bench.engine.store, 1, now_ms() + 2 * DAY_MS)


async def work(bench: Bench) -> None:
    """A worker ends one node, and takes another."""
    entries = await bench.worker.session.own_entries()
    if entries:
        await bench.worker.complete(entries[0])
    await bench.worker.take(1)


OPERATIONS = (submit, trigger, pause, resume, cancel, delete, rerun, redrive, expire)


# In what state it finds the execution.


async def is_claimed(_bench: Bench) -> None:
    """Its key was taken, by a process that came no further."""


async def is_pending(bench: Bench) -> None:
    """Submitted, by a process that did not come to trigger it."""
    workflow = WorkflowDefinition.model_validate_json(bench.body)
    await submit_workflow(bench.engine.store, workflow, bench.id, bench.key_digest)


async def is_running(bench: Bench) -> None:
    """One node COMPLETED, one waits for its retry, one is held by a worker, one is queued."""
    await is_pending(bench)
    await trigger(bench)
    a, x = await bench.worker.take(2)
    await bench.worker.complete(a)
    later = RetryLater(x, f"1 {x.queued_ms} 0 0 w1", 3_600_000, 1, "boom")
    await bench.worker.exchange(failures=[later])
    await heal(bench)
    await bench.worker.claim(await bench.worker.take_one())


async def is_paused(bench: Bench) -> None:
    """What was queued is kept."""
    await is_running(bench)
    await pause(bench)
    for entry in await bench.worker.take():
        await bench.engine.store.lifecycle.park_node(entry)


async def has_ended(bench: Bench) -> None:
    """x has FAILED, and is a dead letter; all but y are COMPLETED."""
    await is_pending(bench)
    await trigger(bench)
    a, x = await bench.worker.take(2)
    await bench.worker.exchange(failures=[bench.worker.failure(x, "given up")])
    await bench.worker.complete(a)
    await finish(bench)
    (letter,) = bench.redis.xrange(keys.DEAD_LETTERS)
    bench.letter_id = letter[0]


async def is_cancelled(bench: Bench) -> None:
    await is_running(bench)
    await cancel(bench)


SCENES = (is_claimed, is_pending, is_running, is_paused, has_ended, is_cancelled)


async def heal(bench: Bench) -> None:
    """What a scheduler carries on once it is overdue."""
    for _ in range(3):
        await finish_continuations(bench.engine.store, Plans(bench.engine.store))
    assert bench.redis.zrange(keys.CONTINUATIONS, 0, -1) == []


async def finish(bench: Bench) -> None:
    """Heal, resume what is paused, and let a worker complete whatever there is."""
    while True:
        await heal(bench)
        for active in bench.redis.smembers(keys.ACTIVE):
            await bench.engine.store.lifecycle.resume_execution(active)
        for member in bench.redis.zrange(keys.RETRIES, 0, -1):
            bench.redis.zadd(keys.RETRIES, {member: 1})
        await bench.engine.store.retries.dispatch()
        entries = await bench.worker.session.own_entries() or await bench.worker.take(2)
        if not entries:
            return
        await bench.worker.complete(*entries)


def check(bench: Bench) -> None:
    redis = bench.redis
    assert [one for one in bench.answers if one[1] not in (200, 404, 409)] == []
    assert redis.smembers(keys.ACTIVE) == set()
    assert find_violations(redis, []) == []
    known = {one.split(":")[1] for one in redis.keys("workflow:*:status")}
    assert set(redis.zrange(keys.EXECUTIONS, 0, -1)) == known
    named = {one.split(":")[1] for one in redis.keys("workflow:*")} - {"tasks"}
    assert named == known, "keys are left of what is unknown"
    for zset in (keys.FINISHED, keys.CALLBACKS):
        assert set(redis.zrange(zset, 0, -1)) <= known
    triggered = Counter(
        text
        for _, fields in redis.xrange(keys.EVENTS)
        for what, text in fields.items()
        if what == "execution.triggered"
    )
    assert [one for one, count in triggered.items() if count > 1] == []


class Interruption:
    """Does `act` once, before the call to Redis that `armed_for` others went before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_happened = False
        self._left: int | None = None
        self._act: Callable[[], Awaitable[None]] | None = None

        async def interrupted(_commands: Any, ask: Ask) -> list[Any]:
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    self._left, self.has_happened = None, True
                    await self._act()
            return await ask()

        listen_to_calls(monkeypatch, interrupted)

    def arm(self, calls: int, act: Callable[[], Awaitable[None]]) -> None:
        self.has_happened, self._left, self._act = False, calls, act

    def disarm(self) -> None:
        self._left = None


@pytest.fixture
def interruption(monkeypatch: pytest.MonkeyPatch) -> Interruption:
    for name in ("executions", "lifecycle", "finished"):
        monkeypatch.setattr(f"flowd.store.{name}.NODES_PER_CALL_MAX", PER_CALL_MAX)
    for name in (
        *("store.making", "store.endings", "store.dependents"),
        "orchestrator.executor",
    ):
        monkeypatch.setattr(f"flowd.{name}.DEPENDENTS_PER_CALL_MAX", PER_CALL_MAX)
    return Interruption(monkeypatch)


async def open_bench(store: Store, redis: redis_py.Redis, scene: Operation) -> Bench:
    redis.flushall()
    engine = ScriptedEngine(store, redis)
    app = create_app(store, {"noop": None})
    api = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://flowd")
    await store.tasks.queues.ensure_groups()
    await store.tasks.enroll_worker("w1", b"{}")
    body, plan = compiled(GRAPH)
    engine._plans[plan.digest] = plan
    bench = Bench(engine, redis, api, engine.worker(), body)
    claimed = await store.submissions.idempotency.claim(
        KEY["idempotency-key"], b"submit 1 " + body, new_execution_id(now_ms())
    )
    bench.id, bench.key_digest = claimed.execution_id, claimed.key_digest
    await scene(bench)
    bench.answers.clear()
    return bench


async def disturb(
    bench: Bench, interruption: Interruption, calls: int, first: Operation, second: Operation
) -> bool:
    """Do the second before one call of the first; False when that came to its end before."""
    interruption.arm(calls, lambda: second(bench))
    await first(bench)
    interruption.disarm()
    return interruption.has_happened


async def kill(
    bench: Bench, interruption: Interruption, calls: int, first: Operation, second: Operation
) -> bool:
    """Let the first end before one of its calls, and the second find what it has left."""

    async def die() -> None:
        raise Killed

    interruption.arm(calls, die)
    with contextlib.suppress(Killed):
        await first(bench)
    interruption.disarm()
    await second(bench)
    return interruption.has_happened


OFTEN = {(rerun, delete), (submit, delete), (delete, submit), (delete, delete), (resume, cancel)}
PAIRS = [
    pytest.param(
        first,
        second,
        id=f"{first.__name__} and {second.__name__}",
        marks=[] if (first, second) in OFTEN else [pytest.mark.thorough],
    )
    for first in OPERATIONS
    for second in (*OPERATIONS, work)
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
async def test_of_two_operations_each_is_whole(store, redis, interruption, figure, first, second):
    done = 0
    for scene in SCENES:
        if redrive in (first, second) and scene is not has_ended:
            continue
        for meet in (disturb, kill):
            calls, has_happened = 0, True
            while has_happened:
                bench = await open_bench(store, redis, scene)
                has_happened = await meet(bench, interruption, calls, first, second)
                await finish(bench)
                check(bench)
                await bench.close()
                calls += 1
                done += 1
                assert calls < CALLS_MAX
    figure(f"{done} orders")


async def test_a_key_whose_execution_is_gone_answers_as_before_and_does_nothing(store, redis):
    """It ran everything again, under the id that was deleted."""
    bench = await open_bench(store, redis, has_ended)
    entries_before = redis.xinfo_stream("workflow:tasks")["entries-added"]
    await delete(bench)

    answer = await bench.api.post("/workflow?trigger=true", content=bench.body, headers=KEY)

    assert answer.json() == {"execution_id": bench.id, "message": "Workflow accepted"}
    assert (await bench.api.get(f"/workflows/{bench.id}")).status_code == 404
    assert redis.xinfo_stream("workflow:tasks")["entries-added"] == entries_before
    other = await bench.api.post("/workflow", content=bench.body, headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    await bench.close()


@pytest.mark.parametrize("what", ["results", "summary", "nodes", "timeline", "explain"])
async def test_what_is_read_while_it_is_deleted_is_whole_or_unknown(
    store, redis, interruption, what
):
    calls, has_happened, whole = 0, True, []
    while has_happened:
        bench = await open_bench(store, redis, has_ended)
        interruption.arm(calls, lambda bench=bench: delete(bench))
        answer = await bench.api.get(f"/workflows/{bench.id}/{what}")
        interruption.disarm()
        has_happened = interruption.has_happened
        if answer.status_code == 200:
            whole.append(shape(answer.json()))
        else:
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_execution")
        await bench.close()
        calls += 1
    assert whole
    assert all(one == whole[-1] for one in whole)


def shape(document: Any) -> Any:
    """A document without what differs from one execution to the next."""
    if isinstance(document, dict):
        return {name: shape(value) for name, value in document.items()}
    if isinstance(document, list):
        return [shape(value) for value in document]
    return type(document) if isinstance(document, int) or len(str(document)) == 24 else document
