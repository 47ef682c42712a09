"""Handlers that do to their worker what the worst handlers do, and take note of every call.

`attempts` in a node's config is up to which attempt it misbehaves; afterwards it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowd.errors import HandlerFailed
from flowd.handlers.context import HandlerContext
from flowd.handlers.registry import handler

CALLS = Path("calls")
OPEN = Path("open")


def _note(context: HandlerContext) -> None:
    """One write a line: the calls of all processes stand in one file."""
    facts = {
        "execution": context.execution_id,
        "node": context.node_id,
        "attempt": context.attempt,
        "pid": os.getpid(),
        "at": time.monotonic(),
    }
    with CALLS.open("ab", buffering=0) as file:
        file.write(json.dumps(facts).encode() + b"\n")


def _is_due(config: dict[str, Any], context: HandlerContext) -> bool:
    _note(context)
    return context.attempt <= int(config.get("attempts", 1))


def _is_in_company(config: dict[str, Any]) -> bool:
    """Whether so many others as the node wants beside it have been called."""
    return len(CALLS.read_text().splitlines()) > int(config.get("company", 0))


@handler("talk")
def talk(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """Numbers its lines, each with its time, until there is a file `open`."""
    _note(context)
    number = 0
    while not OPEN.exists():
        print(f"{number} {time.monotonic()}")
        number += 1
        time.sleep(0.01)
    return {"said": number}


@handler("held")
async def held(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """Returns once there is a file `open` in the folder flowd was started in."""
    _note(context)
    while not OPEN.exists():  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.01)
    return {"attempt": context.attempt}


@handler("sleep")
async def sleep(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    await asyncio.sleep(config["seconds"])
    return {"attempt": context.attempt}


def _leave_quietly() -> None:
    os._exit(0)


def _segfault() -> None:
    ctypes.string_at(0)


def _kill_itself() -> None:
    # What the kernel does to the largest process of a machine without memory.
    os.kill(os.getpid(), signal.SIGKILL)


_WAYS: dict[str, Callable[[], None]] = {
    "os._exit": _leave_quietly,
    "segfault": _segfault,
    "kill": _kill_itself,
}


@handler("die")
async def die(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    if _is_due(config, context):
        # Late enough to be known as RUNNING, and in the company of what runs beside it.
        await asyncio.sleep(0.5)
        _WAYS[config["way"]]()
    return {"attempt": context.attempt}


@handler("exit")
def exit_(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    sys.exit(3)


@handler("devour")
def devour(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """Runs into a limit of memory, as a machine with little of it has one."""
    _note(context)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20, before[1]))
    try:
        return {"size": len(bytearray(2**30))}
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@handler("block_loop")
async def block_loop(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    if _is_due(config, context):
        await asyncio.sleep(0.1)
        while not _is_in_company(config):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        time.sleep(1000)  # noqa: ASYNC251
    return {"attempt": context.attempt}


@handler("hold_gil")
def hold_gil(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    if _is_due(config, context):
        time.sleep(0.1)
        while not _is_in_company(config):
            time.sleep(0.01)
        sum(range(10**11))
    return {"attempt": context.attempt}


@handler("refuse")
async def refuse(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    await asyncio.sleep(0.02)
    raise HandlerFailed("refused")


@handler("fail_once")
async def fail_once(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """Fails at the first call for its node, whichever attempt that is."""
    path = Path(f"once-{context.execution_id}-{context.node_id}")
    _note(context)
    if not path.exists():  # noqa: ASYNC240
        path.touch()  # noqa: ASYNC240
        raise HandlerFailed("the first time")
    return {"attempt": context.attempt}


@handler("block_thread")
def block_thread(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    if _is_due(config, context):
        time.sleep(1000)
    return {"attempt": context.attempt}


@handler("ignore_cancel")
async def ignore_cancel(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    is_due = _is_due(config, context)
    while is_due:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)
    return {"attempt": context.attempt}


@handler("ignore_term")
async def ignore_term(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    if _is_due(config, context):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        await asyncio.sleep(1000)
    return {"attempt": context.attempt}


@handler("breed")
async def breed(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    if _is_due(config, context):
        children = [
            subprocess.Popen(["sleep", "1000"]),  # noqa: ASYNC220
            subprocess.Popen(["sleep", "1000"], start_new_session=True),  # noqa: ASYNC220
        ]
        Path("bred").write_text(" ".join(str(one.pid) for one in children))  # noqa: ASYNC240
        await asyncio.sleep(1000)
    return {"attempt": context.attempt}
