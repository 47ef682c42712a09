"""Handlers that tests can watch and hold."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from flowd.workers.registry import HandlerContext, handler

# (execution id, node id, attempt) of every call, in order.
CALLS: list[tuple[str, str, int]] = []
# Nodes of `held` wait for the event of their id.
GATES: dict[str, asyncio.Event] = {}


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
    await GATES.setdefault(context.node_id, asyncio.Event()).wait()
    return config


@handler("fail")
async def fail(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    _note(context)
    raise RuntimeError(config.get("text", "no luck"))


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
