"""Put a server on one core and everybody who talks to it on the other.

Left alone, the kernel moves a client that blocks for each answer next to its server, and a round
trip costs a third. A worker waits in epoll and is not moved. Latencies compare only when both sides
stand alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from scripts.benchmark.stack import Stack

_WORKER = "worker"


@contextmanager
def across_cores(stack: Stack) -> Iterator[None]:
    """This process and the stack's workers on one core, its server on another; then as before."""
    cores = os.sched_getaffinity(0)
    others = {max(cores)} if len(cores) > 1 else cores
    near, far = [0, *stack.pids(_WORKER)], [stack.server_pid()]
    try:
        for pid in near:
            os.sched_setaffinity(pid, {min(cores)})
        for pid in far:
            os.sched_setaffinity(pid, others)
        yield
    finally:
        for pid in near + far:
            os.sched_setaffinity(pid, cores)
