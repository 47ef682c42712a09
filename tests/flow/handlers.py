"""Handlers that tests can watch and hold."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from typing import Any

from flowd.errors import Fail, HandlerFailed, ProcessDied, Wait
from flowd.handlers.context import HandlerContext
from flowd.handlers.registry import handler

# (execution id, node id, attempt) of every call, in order.
CALLS: list[tuple[str, str, int]] = []
ERRORS: dict[str, Any] = {
    "fail": Fail,
    "404": lambda text: HandlerFailed(text, kinds=frozenset({"status", "404", "4xx"})),
    "connection": ConnectionResetError,
    "503": lambda text: HandlerFailed(text, kinds=frozenset({"status", "503", "5xx"})),
}
# The Idempotency-Keys of the calls that poll, in order.
KEYS: list[str] = []
# Nodes of `spin` whose thread has come to its end.
SPUN: list[str] = []
# Nodes of `held` wait for the event of their id, which may be set before they come to it.
GATES: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
# Nodes of `held` that are held no more, however that came.
LEFT: list[str] = []
# Nodes of `fated` that fail.
FATED: set[str] = set()


def _note(context: HandlerContext) -> None:
    CALLS.append((context.execution_id, context.node_id, context.attempt))


@handler("echo", inline=True)
def echo(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    return config


@handler("echo_async")
async def echo_async(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    await asyncio.sleep(0)
    return config


@handler("echo_in_thread")
def echo_in_thread(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    return {**config, "thread": threading.current_thread().name}


@handler("held")
async def held(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    try:
        await GATES[context.node_id].wait()
    finally:
        LEFT.append(context.node_id)
    return config


@handler("held_and_fated")
async def held_and_fated(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    await held(config, context)
    if context.node_id in FATED:
        raise RuntimeError("as it was fated to")
    return config


@handler("left", inline=True)
def left(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    return {"left": sorted(LEFT)}


@handler("spoil", inline=True)
def spoil(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """Changes what it was given, as a handler may."""
    _note(context)
    config["items"].append("mine")
    return {"items": config["items"]}


@handler("fail")
async def fail(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    raise RuntimeError(config.get("text", "no luck"))


@handler("perish", inline=True)
def perish(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """As one whose process dies."""
    _note(context)
    raise ProcessDied("the process of the handler was killed by SIGKILL")


@handler("fail_first")
async def fail_first(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """Fails as often as `times` says, then ends well."""
    _note(context)
    calls = sum(call[:2] == (context.execution_id, context.node_id) for call in CALLS)
    if calls <= config["times"]:
        raise ERRORS.get(config.get("error", ""), RuntimeError)("not yet")
    return {"calls": calls}


@handler("poll", inline=True)
def poll(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """Waits as often as `waits` says, then ends well with the keys of its calls."""
    _note(context)
    KEYS.append(context.idempotency_key)
    if context.call <= config["waits"]:
        raise Wait(after_s=config.get("after_s", 0))
    return {"call": context.call}


@handler("done_after", inline=True)
def done_after(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """Is done after it was called so many `times`."""
    _note(context)
    KEYS.append(context.idempotency_key)
    return {"done": context.call > config["times"], "calls": context.call}


@handler("poll_in_thread")
def poll_in_thread(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    return poll(config, context)


@handler("poll_async")
async def poll_async(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    return poll(config, context)


@handler("poll_and_fail", inline=True)
def poll_and_fail(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """Fails at the first attempt of each call, and waits at the second."""
    _note(context)
    KEYS.append(context.idempotency_key)
    if KEYS.count(context.idempotency_key) == 1:
        raise HandlerFailed("once more")
    if context.call <= config["waits"]:
        raise Wait(after_s=0)
    return {"call": context.call}


@handler("spin")
def spin(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """A thread that works until it is told that nobody waits, or is let go."""
    _note(context)
    while not (context.cancelled or GATES[context.node_id].is_set()):
        time.sleep(0.001)
    SPUN.append(context.node_id)
    return config


@handler("ignore_cancel")
def ignore_cancel(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """A thread that takes no notice of its time-out."""
    _note(context)
    while not GATES[context.node_id].is_set():
        time.sleep(0.001)
    return config


@handler("beat")
async def beat(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """Works for long, and says so."""
    _note(context)
    for _ in range(config["beats"]):
        await asyncio.sleep(config["every_s"])
        context.heartbeat()
    return config


@handler("mean")
async def mean(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """The mean of nothing, as libraries have it."""
    _note(context)
    return {"rows": [None, {"mean": float(config["mean"])}]}


class _Unreadable(Exception):
    def __str__(self) -> str:
        raise ValueError("even this fails")


@handler("fail_unreadably")
async def fail_unreadably(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    raise _Unreadable


@handler("exit")
async def exit_(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    raise SystemExit(3)


class _Foreign(BaseException):
    pass


@handler("raise_base")
async def raise_base(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    raise _Foreign("not even an Exception")


@handler("raise_base_in_thread")
def raise_base_in_thread(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    raise KeyboardInterrupt


@handler("raise_base_inline", inline=True)
def raise_base_inline(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    raise KeyboardInterrupt


@handler("cancel_itself")
async def cancel_itself(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    raise asyncio.CancelledError


@handler("return_set")
async def return_set(_config: dict[str, Any], context: HandlerContext) -> Any:
    _note(context)
    return {"members": {1, 2}}


@handler("return_list")
async def return_list(_config: dict[str, Any], context: HandlerContext) -> Any:
    _note(context)
    return [1, 2]


@handler("return_much")
async def return_much(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    return {"text": "x" * config["bytes"]}


@handler("fated", inline=True)
def fated(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    if context.node_id in FATED:
        raise RuntimeError("as it was fated to")
    return config


@handler("rows_so_far", inline=True)
def rows_so_far(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """A row for each of its calls, in whichever execution."""
    _note(context)
    return {"rows": [node_id for _, node_id, _ in CALLS if node_id == context.node_id]}


@handler("count_calls", inline=True)
def count_calls(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    return {"calls": sum(call[:2] == (context.execution_id, context.node_id) for call in CALLS)}


@handler("key", inline=True)
def key(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    return {"key": context.idempotency_key}
