"""`flowd` with the handlers of `fault_handlers`, and processes that die where a test says.

A process dies of SIGKILL at the first call of each function `FLOWD_TEST_CRASHES` names, and leaves
a file `crashed-<name>`: each once, whichever process comes there first. `FLOWD_TEST_LEASE_S` makes
leases shorter, `FLOWD_TEST_BROKEN_WORKER` workers that cannot be imported.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from flowd.cli.main import main
from flowd.orchestrator import leases
from flowd.store import tasks
from flowd.workers import registry


def _shorten_leases() -> None:
    if lease_s := float(os.environ.get("FLOWD_TEST_LEASE_S", "0")):
        # Before anybody has imported the numbers.
        constants: Any = leases
        constants.LEASE_S, constants.RENEW_EVERY_S = lease_s, lease_s / 6
        constants.LET_GO_AFTER_S = 0.7 * lease_s
        # A frozen worker's blocked read must be over before its lease is, as it is in earnest.
        constants = tasks
        constants.BLOCK_MS = int(lease_s / 6 * 1000)


def _add_handlers() -> None:
    names = (
        "held",
        "sleep",
        "die",
        "exit",
        "devour",
        "block_loop",
        "block_thread",
        "refuse",
        "hold_gil",
        "ignore_term",
        "breed",
    )
    modules = dict.fromkeys(names, "tests.process.fault_handlers")
    registry._BUILT_IN_MODULES = {**registry._BUILT_IN_MODULES, **modules}


def _crash_once(name: str) -> None:
    try:
        os.close(os.open(f"crashed-{name}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _before(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def crash_then_call(*arguments: Any, **named: Any) -> Any:
        _crash_once(name)
        return function(*arguments, **named)

    return crash_then_call


def _after(name: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @wraps(function)
    async def call_then_crash(*arguments: Any, **named: Any) -> Any:
        result = await function(*arguments, **named)
        # A call that brought nothing back is not the one that is meant.
        if result and (getattr(result, "entries", True) or getattr(result, "completed", True)):
            _crash_once(name)
        return result

    return call_then_crash


def _set_up_crashes() -> None:
    from flowd.store.tasks import TaskSession
    from flowd.workers.intake import Intake
    from flowd.workers.shift import Shift
    from flowd.workers.slots import Slots

    points: dict[str, tuple[Any, str, Any]] = {
        "read": (TaskSession, "complete_and_claim", _after),
        "prepared": (Intake, "prepare", _after),
        "starting": (Slots, "start", _before),
        "claimed": (Slots, "note_claimed", _before),
        "ended": (Shift, "_end", _before),
        "committed": (Shift, "_settle_completions", _before),
    }
    for name in filter(None, os.environ.get("FLOWD_TEST_CRASHES", "").split(",")):
        owner, method, wrap = points[name]
        setattr(owner, method, wrap(name, getattr(owner, method)))


def _break_worker() -> None:
    if "FLOWD_TEST_BROKEN_WORKER" in os.environ:
        from flowd.supervisor import roles

        def run_worker(*_: object) -> None:
            import the_module_that_is_missing  # type: ignore[import-not-found] # noqa: F401

        roles.run_worker = run_worker


if __name__ == "__main__":
    _break_worker()
    _shorten_leases()
    _add_handlers()
    _set_up_crashes()
    main(prog_name="flowd")
