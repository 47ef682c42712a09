"""Limits while everything dies: the service that is called counts, and nobody waits in vain."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from operator import methodcaller
from typing import Any

import pytest

from flowd.client import ApiError, Client, ConnectionFailed
from flowd.store.redis import keys
from scripts.soaking.checker import find_violations
from tests.daemon import wait_until
from tests.process.failpoints import ACTIONS, LIMIT_POINTS
from tests.process.faulty import FaultyFlowd
from tests.process.flowd_process import CONFIG, definition, node
from tests.process.metered import Metered

Run = Callable[..., FaultyFlowd]
CUSTOMERS = ("acme", "bolt")
READING = '\n[workers]\nqueues = ["default", "low"]\n'


def calling(service: Metered, count: int) -> Iterator[dict[str, Any]]:
    """Calls of an API that allows three at once, and of customers who allow one; every third is of
    less importance."""
    for number in range(count):
        customer = CUSTOMERS[number % 2]
        for name, limit in (("api", "api"), (customer, {"name": "customer", "key": customer})):
            call = node(f"{name}-{number}", handler="call_external_service")
            call |= {"limit": limit, "config": {"url": f"{service.url}/{name}?n={number}"}}
            yield call | ({"queue": "low"} if number % 3 == 0 else {})


def statuses(flowd: FaultyFlowd, execution_ids: list[str]) -> list[str]:
    # While the server is away nobody answers.
    with contextlib.suppress(ConnectionFailed, ApiError, OSError), Client(flowd.url) as client:
        return [client.status(one) for one in execution_ids]
    return []


def nothing_is_left(flowd: FaultyFlowd) -> bool:
    left = {one for one in flowd.redis.scan_iter("flowd:limit:*") if not one.endswith(":rate")}
    return not left and not flowd.redis.exists(keys.PLACES)


def test_a_limit_is_never_exceeded_whoever_is_killed_and_nobody_waits_in_vain(
    run_faulty: Run, figure: Callable[[str], None], tmp_path: Any
) -> None:
    """By the ledger of the service, under kill -9 of every process, the daemon at last."""
    (tmp_path / "flowd.toml").write_text(CONFIG + READING)
    with Metered(holds_s=0.05) as service:
        flowd = run_faulty("start")
        flowd.wait_until_running()
        for name, most in (("api", 3), ("customer", 1)):
            flowd.insist(methodcaller("put_limit", name, max=most))
        ids = [flowd.submit_and_trigger(*calling(service, 15)) for _ in range(3)]

        def have_called(count: int) -> bool:
            return service.calls.total() >= count

        for count, victim in ((8, "worker-1"), (16, "scheduler"), (24, "redis"), (34, "worker-2")):
            wait_until(partial(have_called, count), f"{count} calls")
            flowd.kill(victim)
            flowd.wait_until_running()
        wait_until(partial(have_called, 45), "half of the calls")
        flowd.process.kill()
        flowd.wait_for_end()
        wait_until(lambda: flowd.survivors() == [], "every descendant to be gone")
        flowd = run_faulty("start")
        flowd.wait_until_running()
        wait_until(lambda: statuses(flowd, ids) == ["COMPLETED"] * 3, "all to end")

        assert service.most == {"/api": 3, "/acme": 1, "/bolt": 1}
        assert nothing_is_left(flowd)
        assert find_violations(flowd.redis, ids) == []
        figure(f"{service.calls.total()} calls of 90 nodes, never more than 3 and 1 at once")
        flowd.check_and_stop()


@pytest.mark.parametrize("action", ACTIONS)
def test_whatever_happens_where_places_are_asked_for_and_given_back_all_run(
    run_faulty: Run, action: str
) -> None:
    armed = ",".join(f"{name}:{action}" for name in LIMIT_POINTS)
    flowd = run_faulty("start", FLOWD_TEST_FAILPOINTS=armed, FLOWD_SUPERVISOR__HUNG_AFTER_S="0.8")
    flowd.wait_until_running()
    ids = []
    nodes = [
        node(f"N{number}", handler="sleep", seconds=0.01) | {"limit": "api"} for number in range(9)
    ]
    held = node("held", handler="sleep", seconds=60) | {"limit": "api"}
    for number in flowd.until_failed(LIMIT_POINTS, most=10):
        flowd.insist(methodcaller("put_limit", "api", max=2 + number % 2))
        gone = start(flowd, held)
        ids.append(start(flowd, *nodes))
        flowd.insist(methodcaller("cancel", gone))
        flowd.insist(partial(delete, execution_id=gone))
        wait_until(lambda: statuses(flowd, ids[-1:]) == ["COMPLETED"], "its end")
    wait_until(partial(nothing_is_left, flowd), "the last place to be given back")
    # Of an API that died amid a deletion, which others carry on.
    wait_until(lambda: not flowd.redis.exists(keys.CONTINUATIONS), "the deletions to end")
    assert find_violations(flowd.redis, ids) == []
    flowd.check_and_stop()


def start(flowd: FaultyFlowd, *nodes: dict[str, Any]) -> str:
    said = json.loads(definition(*nodes))
    execution_id: str = flowd.insist(methodcaller("submit", said))
    flowd.insist(methodcaller("trigger", execution_id))
    return execution_id


def delete(client: Client, execution_id: str) -> None:
    """Whoever asks again, as the first answer was lost, may be told that it is gone."""
    try:
        client.delete(execution_id)
    except ApiError as error:
        if error.status != 404:
            raise
