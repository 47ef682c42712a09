"""Hold what schedules give their executions against an `input_schema`, beside whoever fires them.

A schema may take long to look at: what is not sure to be quick is looked at in a process of its
own, and whoever asks meanwhile asks again later. A verdict is kept: the same is asked at each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import orjson

from flowd.config import Settings
from flowd.errors import InvalidRequest, Problem
from flowd.handlers.context import HandlerContext, Resources
from flowd.handlers.schema_check import judge
from flowd.workflow.graph import Plan

LOOK_S_MAX: Final = 10.0
# How long whoever asks first waits for the verdict.
WAIT_S: Final = 0.1
_KEPT_MAX: Final = 1_000


class InputFit:
    """To be closed: it may have opened a process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._resources = Resources()
        self._verdicts: dict[tuple[str, bytes], asyncio.Task[str]] = {}

    async def expect(self, plan: Plan, given: Mapping[str, Any]) -> None:
        """Raises InvalidRequest where this does not fit, or where that is not known yet."""
        if plan.input_schema is None:
            return
        schema, whole = dict(plan.input_schema), {**plan.default_input, **given}
        key = plan.digest, orjson.dumps(whole)
        if key not in self._verdicts:
            while len(self._verdicts) >= _KEPT_MAX:
                del self._verdicts[next(iter(self._verdicts))]
            self._verdicts[key] = asyncio.create_task(self._look(schema, whole))
        looking = self._verdicts[key]
        await asyncio.wait([looking], timeout=WAIT_S)
        if not looking.done():
            raise _refusal("holding it against the input_schema takes long")
        if looking.exception() is not None:
            # That says nothing of the input, and is tried again.
            self._verdicts.pop(key, None)
        if misfit := looking.result():
            raise _refusal(f"it does not fit the input_schema of what runs: {misfit}")

    async def _look(self, schema: dict[str, Any], whole: dict[str, Any]) -> str:
        context = HandlerContext("", "input", 1, self._settings, self._resources)
        try:
            async with asyncio.timeout(LOOK_S_MAX):
                verdict = await judge(schema, context, value=whole)
        except TimeoutError:
            text = f"holding it against the input_schema was given up after {LOOK_S_MAX:g} s"
            raise _refusal(text) from None
        return (verdict["misfit"] or "").replace("answer", "input", 1)

    async def close(self) -> None:
        for looking in self._verdicts.values():
            looking.cancel()
        await self._resources.close()


def _refusal(text: str) -> InvalidRequest:
    return InvalidRequest([Problem("input", "misfit", text)])
