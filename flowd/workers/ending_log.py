"""The lines a worker writes in the log when an attempt has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowd.log import get_logger
from flowd.store.attempt_records import waited_and_ran_ms
from flowd.store.endings import AllowedFailure, Ending, Failure, error_of, traceback_of

log = get_logger(__name__)


def log_poison(failure: Failure | AllowedFailure) -> None:
    entry = failure.entry
    log.error(
        "node.poisoned",
        execution_id=entry.execution_id,
        node_id=entry.node_id,
        attempt=entry.attempt,
        cause=failure.dead_letter,
    )


def log_failure(failure: Failure | AllowedFailure) -> None:
    """An exception nobody meant is a defect that a person must look at."""
    trace = traceback_of(failure.report)
    write = log.error if trace else log.warning
    log_ending(write, "node.failed", failure, error=error_of(failure.output), traceback=trace)


def log_ending(write: Callable[..., None], event: str, ending: Ending, **facts: Any) -> None:
    waited_ms, ran_ms = waited_and_ran_ms(ending.record)
    write(
        event,
        execution_id=ending.entry.execution_id,
        node_id=ending.entry.node_id,
        attempt=ending.entry.attempt,
        waited_ms=waited_ms,
        duration_ms=ran_ms,
        **facts,
    )
