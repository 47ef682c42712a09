"""Places while everything dies: never two executions of one customer, and nobody waits in vain."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from operator import methodcaller

from flowd.store.redis import keys
from scripts.soaking.checker import find_violations
from tests.daemon import wait_until
from tests.process.faulty import FaultyFlowd
from tests.process.flowd_process import node

Run = Callable[..., FaultyFlowd]
CUSTOMERS = ("acme", "bolt", "corp")
ENDED = {"COMPLETED", "FAILED", "CANCELLED"}


def workflow(customer: str) -> bytes:
    nodes = [
        node("A", handler="delay", seconds=0.2),
        node("B", "A", handler="unreliable_handler", failure_rate=0),
        node("C", "B", handler="delay", seconds=0.1),
    ]
    said = {"key": "{{ input.customer }}", "max": 1}
    document = {"name": "import", "dag": {"nodes": nodes}, "concurrency": said}
    return json.dumps({**document, "input": {"customer": customer}}).encode()


def statuses(flowd: FaultyFlowd, execution_ids: list[str]) -> list[str]:
    return flowd.redis.mget([keys.status(one) for one in execution_ids])


def test_of_each_customer_one_execution_runs_whoever_is_killed_and_nobody_waits_in_vain(
    run_faulty: Run,
) -> None:
    flowd = run_faulty("start")
    flowd.wait_until_running()
    execution_ids: list[str] = []
    customers: list[str] = []
    for number in range(12):
        customer = CUSTOMERS[number % len(CUSTOMERS)]
        execution_id = flowd.api.submit_workflow(workflow(customer))
        flowd.insist(methodcaller("trigger", execution_id))
        execution_ids.append(execution_id)
        customers.append(customer)

    def has_ended(count: int) -> bool:
        found = statuses(flowd, execution_ids)
        pairs = zip(customers, found, strict=True)
        running = Counter(one for one, status in pairs if status == "RUNNING")
        assert max(running.values(), default=0) <= 1, running
        return sum(one in ENDED for one in found) >= count

    for count, victim in ((2, "worker-1"), (4, "scheduler"), (6, "api-1"), (8, "worker-1")):
        wait_until(partial(has_ended, count), f"{count} executions to end")
        flowd.kill(victim)
        flowd.wait_until_running()
    wait_until(partial(has_ended, len(execution_ids)), "all executions to end")

    assert set(statuses(flowd, execution_ids)) == {"COMPLETED"}
    assert flowd.redis.exists(keys.PLACE_HOLDERS, keys.PLACE_WAITERS) == 0
    assert find_violations(flowd.redis, execution_ids) == []
    flowd.check_and_stop()
