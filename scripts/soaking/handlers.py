"""Handlers that note their start and their end in the ledger at $SOAK_LEDGER.

Each returns its attempt, so that what was committed can be told from what was done. `calls` in a
node's config is up to which start of the node, by the ledger, it misbehaves.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from importlib.util import find_spec
from typing import Any

from flowd.handlers import Context, Fail, handler
from scripts.soaking.ledger import CANCELLED, END, START, conversation
from scripts.soaking.log_checks import last_line

LEDGER = "SOAK_LEDGER"
# Not in the other version of the soak.
_KEEPS_LOGS = find_spec("flowd.node_log") is not None


async def _note(phase: str, context: Context) -> int:
    reader, writer = await asyncio.open_unix_connection(os.environ[LEDGER])
    try:
        said = phase, context.execution_id, context.node_id, context.attempt, os.getpid()
        writer.write(json.dumps(said).encode() + b"\n")
        return int(await reader.readline())
    finally:
        writer.close()


async def _end(context: Context, **more: Any) -> dict[str, Any]:
    await _note(END, context)
    # The other version of the soak has no calls, and nothing that waits.
    call = getattr(context, "call", 1)
    print(last_line(context.attempt))
    said = {"said": True} if _KEEPS_LOGS else {}
    return {"attempt": context.attempt, "call": call, "pid": os.getpid(), **said, **more}


@handler("ledger_quick")
async def quick(_config: dict[str, Any], context: Context) -> dict[str, Any]:
    await _note(START, context)
    return await _end(context)


@handler("ledger_sleepy")
async def sleepy(config: dict[str, Any], context: Context) -> dict[str, Any]:
    await _note(START, context)
    try:
        await asyncio.sleep(config["seconds"])
    except asyncio.CancelledError:
        # The note must not take part in the cancellation.
        with conversation(os.environ[LEDGER]) as say:
            say(CANCELLED, context.execution_id, context.node_id, context.attempt, os.getpid())
        raise
    return await _end(context)


@handler("ledger_kept")
async def kept(config: dict[str, Any], context: Context) -> dict[str, Any]:
    """Says who has made it, and when: others may be given its output."""
    await _note(START, context)
    await _note(END, context)
    by = context.execution_id, context.node_id, context.attempt
    return {"key": config["key"], "by": by, "made_s": time.time()}


@handler("ledger_failing")
async def failing(config: dict[str, Any], context: Context) -> dict[str, Any]:
    """Fails at its first starts; with no `calls`, at all."""
    if await _note(START, context) <= config.get("calls", 1_000_000):
        await _note(END, context)
        raise RuntimeError("as the node has it")
    return await _end(context)


@handler("ledger_polling")
async def polling(config: dict[str, Any], context: Context) -> dict[str, Any]:
    """Waits until it was called so often."""
    await _note(START, context)
    if context.call < config["calls"]:
        await _note(END, context)
        from flowd.handlers import Wait

        raise Wait(after_s=config["after_s"])
    return await _end(context)


@handler("ledger_hopeless")
async def hopeless(_config: dict[str, Any], context: Context) -> dict[str, Any]:
    """Fails in a way that no retry helps."""
    await _note(START, context)
    await _note(END, context)
    raise Fail("as the node has it, for good")


@handler("ledger_poison")
async def poison(config: dict[str, Any], context: Context) -> dict[str, Any]:
    """Kills its worker at its first starts; with no `calls`, each time."""
    if await _note(START, context) <= config.get("calls", 1_000_000):
        os.kill(os.getpid(), signal.SIGKILL)
    return await _end(context)


@handler("ledger_hungry")
def hungry(config: dict[str, Any], context: Context) -> dict[str, Any]:
    """Takes memory at its first starts, and more than there is if there is a limit."""
    with conversation(os.environ[LEDGER]) as say:
        said = context.execution_id, context.node_id, context.attempt, os.getpid()
        if say(START, *said) <= config["calls"]:
            # Written to, or the kernel would only promise it.
            taken = bytearray(b"x") * (config["mib"] * 2**20)
            time.sleep(len(taken) and 0.1)
        say(END, *said)
    return {"attempt": context.attempt, "pid": os.getpid()}


@handler("ledger_thread")
def thread(config: dict[str, Any], context: Context) -> dict[str, Any]:
    with conversation(os.environ[LEDGER]) as say:
        said = context.execution_id, context.node_id, context.attempt, os.getpid()
        say(START, *said)
        time.sleep(config.get("seconds", 0.0))
        say(END, *said)
    return {"attempt": context.attempt, "pid": os.getpid()}


@handler("ledger_big")
async def big(config: dict[str, Any], context: Context) -> dict[str, Any]:
    await _note(START, context)
    return await _end(context, text="x" * config["bytes"])


@handler("ledger_breeder")
async def breeder(config: dict[str, Any], context: Context) -> dict[str, Any]:
    """Starts a child that would outlive it, and leaves it to whoever cleans up."""
    await _note(START, context)
    child = subprocess.Popen(  # noqa: ASYNC220
        ["sleep", "1000"], start_new_session=bool(config.get("own_session"))
    )
    return await _end(context, child=child.pid)
