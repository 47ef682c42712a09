"""Handlers in processes of their own: the worker's side.

A process that has imported the handlers once waits to be forked, so that a call costs a fork and no
imports. It is the parent of the calls and reaps them; whatever a call leaves behind it kills.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any, Final

import orjson

from flowd.config import Settings
from flowd.errors import Fail, HandlerFailed, ProcessDied, Retry, Wait, WaitFor
from flowd.handlers import Context
from flowd.handlers.frames import LINE, framed, read_frame
from flowd.handlers.limits import IMPORT_LIMIT_S
from flowd.handlers.process_output import Outputs
from flowd.redaction import REDACTOR

MAIN: Final = "flowd.handlers.process_main"


class IsolatedCalls:
    """One per worker process. Cancelling a call kills its process and all that it started."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._mother: asyncio.Task[_Mother] | None = None

    async def ready(self) -> None:
        """Wait until calls need no imports. Raises HandlerFailed when that cannot be.

        Whoever stops waiting stops nothing: the next call finds it further on.
        """
        try:
            async with asyncio.timeout(IMPORT_LIMIT_S):
                await self._started()
        except TimeoutError:
            reason = f"the handlers were not imported within {IMPORT_LIMIT_S:g} s"
            raise HandlerFailed(reason, kinds=frozenset({"timeout"})) from None

    async def call(
        self, name: str, config: Mapping[str, Any], context: Context, **facts: Any
    ) -> Any:
        """What the handler returns. Raises what it raised, ProcessDied when it ended its process,
        and HandlerFailed where there was none. `facts` are for its context there."""
        mother = await self._started()
        facts |= {
            "execution_id": context.execution_id,
            "node_id": context.node_id,
            "attempt": context.attempt,
            "call": context.call,
        }
        request = {"name": name, "config": config, "context": facts, "secrets": REDACTOR.secrets}
        with contextlib.closing(Outputs(context)) as outputs:
            reader, writer = await _fork(mother, outputs)
            try:
                pid = int((await read_frame(reader)) or 0)
                try:
                    writer.write(framed(pickle.dumps(request)))
                    return await _follow(reader, context, await_end=lambda: mother.end_of(pid))
                finally:
                    mother.kill(pid)
            finally:
                writer.close()

    async def _started(self) -> _Mother:
        if self._mother is None or _is_over(self._mother):
            self._mother = asyncio.create_task(_Mother.start(self._settings))
        return await asyncio.shield(self._mother)

    async def close(self) -> None:
        if self._mother is not None:
            self._mother.cancel()
            await asyncio.gather(self._mother, return_exceptions=True)
            if not _has_failed(self._mother):
                await self._mother.result().stop()


async def _fork(
    mother: _Mother, outputs: Outputs
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A process for one call, and the line to it. Raises HandlerFailed."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            mother.fork_onto(theirs, outputs.open())
        return await asyncio.open_connection(sock=ours)
    except OSError as error:
        ours.close()
        raise HandlerFailed(f"the process of the handler cannot be started: {error}") from None


def _is_over(starting: asyncio.Task[_Mother]) -> bool:
    return starting.done() and (_has_failed(starting) or starting.result().has_ended)


def _has_failed(starting: asyncio.Task[_Mother]) -> bool:
    return starting.cancelled() or starting.exception() is not None


class _Mother:
    """The process that is forked, as the worker sees it."""

    def __init__(self, process: asyncio.subprocess.Process, orders: socket.socket) -> None:
        self._process = process
        self._orders = orders
        # How processes ended that somebody waits for, and those that nobody does any more: each end
        # is told once, and a number that is given out again must not be taken for the one before.
        self._ends: dict[int, int] = {}
        self._let_go: set[int] = set()
        self._change = asyncio.Condition()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, settings: Settings) -> _Mother:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                # Without -P a file in the current folder would stand in for a library.
                *(sys.executable, "-P", "-m", MAIN),
                *(str(theirs.fileno()), str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
            )
        assert process.stdout is not None
        try:
            ours.sendall(framed(pickle.dumps(settings)))
            is_ready = bool(await process.stdout.readline())
        except BaseException:
            process.kill()
            raise
        if not is_ready:
            ours.close()
            raise HandlerFailed(
                f"the handlers could not be imported in a process of their own, which ended with "
                f"the exit code {await process.wait()}; stderr has its traceback"
            )
        return cls(process, ours)

    @property
    def has_ended(self) -> bool:
        return self._listening.done()

    def fork_onto(self, theirs: socket.socket, outputs: list[int]) -> None:
        """Have a process forked that is called through this socket, and writes to these, which are
        closed here."""
        try:
            socket.send_fds(self._orders, [b"+"], [theirs.fileno(), *outputs])
        finally:
            for descriptor in outputs:
                os.close(descriptor)

    async def _listen(self) -> None:
        """Hear of every process that has ended, until the one that tells has ended itself."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            pid, status = map(int, line.split())
            if pid in self._let_go:
                self._let_go.discard(pid)
                continue
            async with self._change:
                self._ends[pid] = status
                self._change.notify_all()
        async with self._change:
            self._change.notify_all()
        await self._process.wait()

    async def end_of(self, pid: int) -> HandlerFailed:
        """How this process ended."""
        async with self._change:
            await self._change.wait_for(lambda: pid in self._ends or self._listening.done())
        status = self._ends.get(pid)
        if status is None:
            return HandlerFailed(
                "the process of the handler was killed together with the one that had started it"
            )
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return ProcessDied(
                f"the process of the handler was killed by {signal.Signals(-code).name}"
            )
        return ProcessDied(f"the process of the handler ended with the exit code {code}")

    def kill(self, pid: int) -> None:
        """End a process with its group, unless it is known to have ended; nobody asks again."""
        if pid and self._ends.pop(pid, None) is None:
            self._let_go.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    async def stop(self) -> None:
        self._orders.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await asyncio.gather(self._listening, return_exceptions=True)


async def _follow(reader: asyncio.StreamReader, context: Context, await_end: Any) -> Any:
    """Listen to a call until its result, which may be an error it raised, or its death."""
    while (frame := await read_frame(reader)) is not None:
        if frame == b"heartbeat":
            context.heartbeat()
            continue
        if frame.startswith(LINE):
            _write_line(context, frame)
            continue
        result = orjson.loads(frame)
        if "error" in result:
            raise _error(**result["error"])
        return result["output"]
    raise await await_end()


def _write_line(context: Context, frame: bytes) -> None:
    stream, _, text = frame.removeprefix(LINE).decode("utf-8", "replace").partition(" ")
    if (log := context.node_log()) is not None:
        log.write(stream, text)


def _error(
    code: str,
    text: str,
    after_s: float | None,
    kinds: list[str],
    report: str,
    waits_for: tuple[str, int | None, str] | None,
) -> HandlerFailed:
    failure: HandlerFailed
    if waits_for is not None:
        failure = WaitFor(*waits_for)
    elif code == "wait":
        failure = Wait(after_s=after_s or 0.0)
    elif code == "retry":
        failure = Retry(text, after_s=after_s, kinds=frozenset(kinds))
    else:
        failure = (Fail if code == "fail" else HandlerFailed)(text, kinds=frozenset(kinds))
    failure.report = report.encode()
    return failure
