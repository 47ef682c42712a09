"""Named points on the way of a node and in the supervisor, where a test may have something happen.

`FLOWD_TEST_FAILPOINTS=read:kill,committed:hang` arms two of them in a flowd under test. Each goes
off once, in whichever process comes there first, and leaves a file `failed-<name>` behind. With
`FLOWD_TEST_FAILPOINTS_BY_TURNS=1` it also takes away a file `turn-<number>`, and waits for one: a
node that three workers died with is given up, so a test lets two points go off for each execution.
flowd itself knows nothing of them: they are put around its functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import time
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

from flowd.errors import StoreUnavailable

DELAY_S = 0.3
ACTIONS = ("kill", "lose", "hang", "delay")


class Point(NamedTuple):
    """Before or after the calls of one method. After a read only when it brought something."""

    owner: str
    method: str
    when: Literal["before", "after"]


# The way of a node through a worker, in its order; then what the scheduler does for it.
WORKER_POINTS = {
    "read": Point("flowd.store.tasks:TaskSession", "complete_and_claim", "after"),
    "doorbell": Point("flowd.store.tasks:TaskSession", "wait_for_entry", "after"),
    "prepare": Point("flowd.workers.intake:Intake", "prepare", "before"),
    "prepared": Point("flowd.workers.intake:Intake", "prepare", "after"),
    "start": Point("flowd.workers.slots:Slots", "start", "before"),
    "claimed": Point("flowd.workers.slots:Slots", "note_claimed", "before"),
    "ended": Point("flowd.workers.shift:Shift", "_end", "before"),
    "commit": Point("flowd.store.tasks:TaskSession", "complete_and_claim", "before"),
    "committed": Point("flowd.workers.shift:Shift", "_settle", "before"),
    "retried": Point("flowd.workers.settlement:Settlement", "_note_failure", "before"),
}
SCHEDULER_POINTS = {
    "dispatch": Point("flowd.store.retries:Retries", "dispatch", "before"),
    "dispatched": Point("flowd.store.retries:Retries", "dispatch", "after"),
    "heal": Point("flowd.scheduler.repairs:NoticeLoss", "run", "before"),
}
SUPERVISOR_POINTS = {
    "fork": Point("flowd.supervisor.crew:Crew", "start", "before"),
    "bury": Point("flowd.supervisor.supervisor:Supervisor", "_on_exit", "before"),
    "recover": Point("flowd.supervisor.recoveries:Recoveries", "start", "before"),
    "stop": Point("flowd.supervisor.supervisor:Supervisor", "_stop", "before"),
}
# In whoever gives the work of the dead away: a process of the supervisor's own, or the scheduler.
RECOVERY_POINTS = {
    "requeue": Point("flowd.store.tasks:Tasks", "requeue_entry", "before"),
    "requeued": Point("flowd.store.tasks:Tasks", "requeue_entry", "after"),
    "retire": Point("flowd.store.tasks:Tasks", "retire_worker", "before"),
}
# In a process of the API that takes a signal.
API_POINTS = {
    "signal": Point("flowd.store.waits:Waits", "wake", "before"),
    "signalled": Point("flowd.store.waits:Waits", "wake", "after"),
}
# In a worker whose node maps a list.
MAP_POINTS = {
    "stage": Point("flowd.store.maps:Maps", "stage", "before"),
    "staged": Point("flowd.store.maps:Maps", "stage", "after"),
    "expand": Point("flowd.store.maps:Maps", "expand", "before"),
    "expanded": Point("flowd.store.maps:Maps", "expand", "after"),
    "gather": Point("flowd.store.maps:Maps", "outputs", "before"),
    "gathered": Point("flowd.store.maps:Maps", "outputs", "after"),
}
# In a process of the API that cancels, or in the scheduler that carries on with that.
CANCEL_POINTS = {
    "cancel": Point("flowd.store.lifecycle:Lifecycle", "cancel_execution", "before"),
    "cancelled": Point("flowd.store.lifecycle:Lifecycle", "cancel_execution", "after"),
    "mark": Point("flowd.store.lifecycle:Lifecycle", "cancel_nodes", "before"),
}
# In a worker whose node has a child, and in whoever cancels, pauses or resumes a tree.
TREE_POINTS = {
    "make": Point("flowd.store.submissions:Submissions", "start_child", "before"),
    "made": Point("flowd.store.submissions:Submissions", "start_child", "after"),
    "breed": Point("flowd.store.child_starts:ChildStarts", "_start_together", "before"),
    "bred": Point("flowd.store.child_starts:ChildStarts", "_start_together", "after"),
    "worth": Point("flowd.orchestrator.children:Children", "output", "before"),
    "settle": Point("flowd.store.children:Children", "settle_follow", "before"),
}
# In a scheduler that does what schedules say.
SCHEDULE_POINTS = {
    "look": Point("flowd.orchestrator.schedules:Firings", "attend", "before"),
    "fire": Point("flowd.store.schedules:Schedules", "fire", "before"),
    "fired": Point("flowd.store.schedules:Schedules", "fire", "after"),
}
# Where places of limits are asked for, given, and given back by hand.
LIMIT_POINTS = {
    "limit": Point("flowd.store.limits:Limits", "put", "before"),
    "admit": Point("flowd.store.limits:Limits", "admit", "before"),
    "admitted": Point("flowd.store.limits:Limits", "admit", "after"),
    "release": Point("flowd.store.limits:Limits", "release_all", "before"),
}
POINTS = {
    **WORKER_POINTS,
    **SCHEDULER_POINTS,
    **SUPERVISOR_POINTS,
    **RECOVERY_POINTS,
    **API_POINTS,
    **MAP_POINTS,
    **CANCEL_POINTS,
    **TREE_POINTS,
    **SCHEDULE_POINTS,
    **LIMIT_POINTS,
}

# A lost reply is one of Redis: only what speaks to it can lose one.
LOSING = (
    *("read", "doorbell", "commit", "dispatch", "dispatched"),
    *RECOVERY_POINTS,
    *API_POINTS,
    *MAP_POINTS,
    *CANCEL_POINTS,
    *TREE_POINTS,
    *LIMIT_POINTS,
    *("fire", "fired"),
)


def arm(text: str) -> None:
    """Put what `FLOWD_TEST_FAILPOINTS` says around the functions it names."""
    for each in filter(None, text.split(",")):
        name, _, action = each.partition(":")
        module, _, owner = POINTS[name].owner.partition(":")
        target = getattr(import_module(module), owner)
        method = POINTS[name].method
        setattr(target, method, _around(name, action, getattr(target, method)))


def _around(name: str, action: str, function: Callable[..., Any]) -> Callable[..., Any]:
    is_before = POINTS[name].when == "before"
    if not inspect.iscoroutinefunction(function):

        @wraps(function)
        def fail_and_call(*arguments: Any, **named: Any) -> Any:
            _go_off(name, action)
            return function(*arguments, **named)

        return fail_and_call

    @wraps(function)
    async def fail_around_call(*arguments: Any, **named: Any) -> Any:
        if is_before:
            await _go_off_on_loop(name, action)
            return await function(*arguments, **named)
        result = await function(*arguments, **named)
        if _has_brought_something(result):
            await _go_off_on_loop(name, action)
        return result

    return fail_around_call


def _has_brought_something(result: Any) -> bool:
    """A call that brought nothing is not the one that is meant."""
    brought = (getattr(result, name, True) for name in ("entries", "completed"))
    return bool(result) and any(brought) and getattr(result, "next_in_s", 0.0) is not None


def _is_first(name: str) -> bool:
    if Path(f"failed-{name}").exists() or not _has_turn():
        return False
    try:
        os.close(os.open(f"failed-{name}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _has_turn() -> bool:
    if "FLOWD_TEST_FAILPOINTS_BY_TURNS" not in os.environ:
        return True
    for turn in Path().glob("turn-*"):
        with contextlib.suppress(FileNotFoundError):
            turn.unlink()
            return True
    return False


async def _go_off_on_loop(name: str, action: str) -> None:
    if action == "delay":
        if _is_first(name):
            await asyncio.sleep(DELAY_S)
    else:
        _go_off(name, action)


def _go_off(name: str, action: str) -> None:
    if not _is_first(name):
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "hang":
        time.sleep(1000)
    elif action == "delay":
        time.sleep(DELAY_S)
    elif action == "lose":
        raise StoreUnavailable("the reply was lost, as the test has it")
