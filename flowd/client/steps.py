"""What takes several calls, written once for both clients: each step is a call to make or a pause.

A client makes the call, or waits, and hands the answer back in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from flowd.client import calls
from flowd.client.calls import Call, Json, Workflow
from flowd.client.errors import ClientError, OutageTolerance, StillRunning, WorkflowFailed

T = TypeVar("T")
FIRST_PAUSE_S: Final = 0.01
PAUSE_S_MAX: Final = 1.0


class Pause(NamedTuple):
    seconds: float


Steps = Generator[Call | Pause, Any, T]


def submit(
    workflow: Workflow,
    *,
    trigger: bool,
    given_input: Mapping[str, Any] | None,
    idempotency_key: str | None,
) -> Steps[str]:
    if given_input is not None and not trigger:
        raise ValueError("an input is given when the execution starts: submit with trigger=True")
    # An input has a call of its own; without one, a single call stores and starts.
    is_started_at_once = trigger and given_input is None
    call = calls.submit(workflow, trigger=is_started_at_once, idempotency_key=idempotency_key)
    execution_id = str((yield call)["execution_id"])
    if given_input is not None:
        yield calls.trigger(execution_id, given_input)
    return execution_id


def wait(execution_id: str, timeout_s: float | None) -> Steps[str]:
    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s = FIRST_PAUSE_S
    tolerance, status = OutageTolerance(), ""
    while True:
        try:
            status = str((yield calls.look(execution_id))["status"])
            tolerance.note_answer()
        except ClientError as error:
            tolerance.check(error)
        if status in calls.ENDED:
            return status
        left_s = pause_s if end_s is None else end_s - time.monotonic()
        if left_s <= 0:
            raise StillRunning(execution_id, status, timeout_s)
        yield Pause(min(pause_s, left_s))
        pause_s = min(1.5 * pause_s, PAUSE_S_MAX)


def run(
    workflow: Workflow, given_input: Mapping[str, Any] | None, timeout_s: float | None
) -> Steps[Json]:
    execution_id = yield from submit(
        workflow, trigger=True, given_input=given_input, idempotency_key=None
    )
    status = yield from wait(execution_id, timeout_s)
    results = dict((yield calls.look(execution_id, "/results"))["results"])
    if status != "COMPLETED":
        raise WorkflowFailed(execution_id, status, calls.node_errors(results))
    return results


class Pages:
    """Page after page of a list, up to `count_max` items."""

    def __init__(
        self,
        page: Callable[..., Call],
        key: str,
        count_max: int | None,
        filters: Mapping[str, Any],
    ) -> None:
        self._page = page
        self._key = key
        self._filters = filters
        self._left = count_max
        self._cursor: str | None = None
        self._is_over = False

    def next_call(self) -> Call | None:
        """None when that was all."""
        if self._is_over or (self._left is not None and self._left <= 0):
            return None
        size = calls.PAGE_SIZE if self._left is None else min(self._left, calls.PAGE_SIZE)
        return self._page(**self._filters, limit=size, cursor=self._cursor)

    def take(self, answer: Mapping[str, Any]) -> list[Json]:
        items: list[Json] = answer[self._key]
        self._left = None if self._left is None else self._left - len(items)
        self._cursor = answer["next_cursor"]
        self._is_over = self._cursor is None
        return items
