"""Call a pure function in a process that the kernel ends when it takes too much.

A process that was forked before its owner had a loop, a thread or a connection waits to be forked
again, for one call each: whatever the call does, its owner goes on, and nothing of it stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import setproctitle

from flowd.errors import FlowdError
from flowd.handlers.frames import framed, read_frame, receive_frame
from flowd.prctl import end_with_parent

CPU_S_MAX: Final = 10
WALL_S_MAX: Final = 60
MEMORY_BYTES_MAX: Final = 1024 * 1024 * 1024
# Each takes a core while it runs; the others wait.
CALLS_AT_ONCE_MAX: Final = 2

Function = Callable[[bytes], bytes]


class TookTooMuch(FlowdError):
    """A call was ended, or could not be begun."""

    code = "took_too_much"


class ForkedCalls:
    """One per process, made before its event loop. Closing it ends what it has forked."""

    def __init__(self, name: str, function: Function, prepare: Callable[[], None]) -> None:
        """`name` is what process lists show; `prepare` is called once, before the first call."""
        self._orders, theirs = socket.socketpair()
        owner = os.getpid()
        pid = os.fork()
        if pid == 0:
            _serve(theirs, owner, name, function, prepare)
        theirs.close()
        self._room = asyncio.Semaphore(CALLS_AT_ONCE_MAX)

    async def call(self, data: bytes) -> bytes:
        """What the function makes of this. Raises TookTooMuch."""
        async with self._room:
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    socket.send_fds(self._orders, [b"+"], [theirs.fileno()])
                reader, writer = await asyncio.open_connection(sock=ours)
            except OSError as error:
                ours.close()
                raise TookTooMuch(f"no process can be forked for it: {error}") from None
            try:
                async with asyncio.timeout(WALL_S_MAX):
                    writer.write(framed(data))
                    answer = await read_frame(reader)
            except (TimeoutError, OSError):
                answer = None
            finally:
                writer.close()
        if answer is None:
            limits = f"{CPU_S_MAX} s or {MEMORY_BYTES_MAX // 2**20:,} MiB"
            raise TookTooMuch(f"it takes more than {limits}")
        return answer

    def close(self) -> None:
        self._orders.close()


def _serve(
    orders: socket.socket,
    owner: int,
    name: str,
    function: Function,
    prepare: Callable[[], None],
) -> NoReturn:
    """In the fork: fork again for each call, until the owner has closed the other end."""
    try:
        end_with_parent()
        # The owner decides when this ends.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        setproctitle.setproctitle(f"flowd: {name}")
        _let_go_of_all_but(orders.fileno())
        gc.disable()
        is_prepared = False
        while os.getppid() == owner:
            order, fds, _, _ = socket.recv_fds(orders, 1, 1)
            if not order:
                break
            if not is_prepared:
                prepare()
                is_prepared = True
            with socket.socket(fileno=fds[0]) as line, contextlib.suppress(OSError):
                if os.fork() == 0:
                    _answer(line, function)
    finally:
        os._exit(0)


def _let_go_of_all_but(kept: int) -> None:
    """Of everything that was inherited, and keep the numbers taken: somebody may yet write."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in [int(one.name) for one in Path("/proc/self/fd").iterdir()]:
        if number > 2 and number not in (kept, nothing):
            with contextlib.suppress(OSError):
                os.dup2(nothing, number)


def _answer(line: socket.socket, function: Function) -> NoReturn:
    """In the fork of the fork: one call, and the end of the process."""
    try:
        end_with_parent()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(WALL_S_MAX)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
        os.nice(5)
        if (request := receive_frame(line)) is not None:
            line.sendall(framed(function(request)))
    finally:
        os._exit(0)
