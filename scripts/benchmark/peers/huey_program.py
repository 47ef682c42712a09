"""Huey as its documentation has it fast: `work SOCKET`, or `drive SOCKET` with orders on stdin.

Run by the interpreter of the bench with Huey's own folder on its path. An order is a workload and
its size; the answer is the seconds it took. The end of the last task of each workflow, whose result
is stored by then, is pushed to a list; who waits for a single task reads its result, too.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from huey import RedisHuey, chord  # type: ignore[import-not-found]
from huey.signals import SIGNAL_COMPLETE  # type: ignore[import-not-found]

_DONE = "peer:done"
_WORKERS = 2
_LIMIT_S = 120

_role, _socket = sys.argv[1:3]
huey = RedisHuey("peer", url=f"unix://{_socket}")


@huey.task()  # type: ignore[untyped-decorator]
def step(*_results: Any) -> int:
    return 1


@huey.task()  # type: ignore[untyped-decorator]
def end(*_results: Any) -> int:
    return 1


@huey.signal(SIGNAL_COMPLETE)  # type: ignore[untyped-decorator]
def _tell(_signal: str, task: Any) -> None:
    if task.name == "end":
        huey.storage.conn.rpush(_DONE, 1)


@huey.task()  # type: ignore[untyped-decorator]
def begin(width: int) -> int:
    """The first node of a fan, which opens what follows."""
    huey.enqueue(chord([step.s() for _ in range(width)], end.s()))
    return 1


def _wait(count: int) -> None:
    for _ in range(count):
        if huey.storage.conn.blpop([_DONE], timeout=_LIMIT_S) is None:
            sys.exit("a workflow did not end")


def _single() -> None:
    result = end()
    _wait(1)
    if result.get() != 1:
        sys.exit("a result is missing")


def _chain(length: int) -> None:
    first = step.s()
    for at in range(1, length):
        first.then(step.s() if at < length - 1 else end.s())
    huey.enqueue(first)
    _wait(1)


def _fans(count: int, width: int) -> None:
    for _ in range(count):
        begin(width)
    _wait(count)


def _drive() -> None:
    for line in sys.stdin:
        workload, size = line.split()
        begun = time.perf_counter()
        if workload == "single":
            _single()
        elif workload == "chain":
            _chain(int(size))
        elif workload == "fan":
            _fans(1, int(size))
        else:
            _fans(int(size), 2)
        print(time.perf_counter() - begun, flush=True)
        # What they leave behind: the results nobody asks for.
        huey.flush()


if _role == "work":
    huey.create_consumer(workers=_WORKERS, worker_type="process", periodic=False).run()
else:
    _drive()
