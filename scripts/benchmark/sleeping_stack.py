"""`flowd` with one handler more, `wait`, and more slots in each worker than its settings allow.

Everything else is flowd's own: the supervisor, the workers it forks, the scheduler. The nodes of
`wait` run until their worker gets SIGUSR1.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from flowd.config import Settings
from flowd.handlers import registry
from flowd.handlers.context import HandlerContext
from flowd.handlers.registry import handler

WAIT = "wait"
SLOTS_VARIABLE = "BENCH_SLOTS"


@handler(WAIT)
async def wait(_config: dict[str, Any], _context: HandlerContext) -> dict[str, Any]:
    await _release().wait()
    return {"status": "ok"}


@cache
def _release() -> asyncio.Event:
    event = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, event.set)
    return event


def main() -> None:
    from flowd.cli.main import main as flowd
    from flowd.supervisor import roles

    run_worker = roles.run_worker

    def run_worker_with_slots(settings: Settings, name: str, ready: Callable[[], None]) -> None:
        # A worker that never ran such a node must not die of the signal.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        workers = replace(settings.workers, concurrency=int(os.environ[SLOTS_VARIABLE]))
        run_worker(replace(settings, workers=workers), name, ready)

    registry._BUILT_IN_MODULES = {  # type: ignore[misc]
        **registry._BUILT_IN_MODULES,
        WAIT: "scripts.benchmark.sleeping_stack",
    }
    roles.run_worker = run_worker_with_slots
    flowd(prog_name="flowd")


if __name__ == "__main__":
    main()
