"""What is kept of a handler call: how large an output, and what of an error."""

from __future__ import annotations

import contextlib
from asyncio import CancelledError
from typing import Final

import orjson

from flowd.errors import (
    DependencyFailed,
    Fail,
    FlowdError,
    HandlerElsewhere,
    HandlerFailed,
    Retry,
    SkipNode,
    TemplateError,
    Wait,
    WaitFor,
)
from flowd.handlers.traceback_text import TRACEBACK_CHARS_MAX, traceback_text
from flowd.log import describe_error
from flowd.redaction import REDACTOR
from flowd.workflow.retrying import kinds_of

OUTPUT_BYTES_MAX: Final = 16 * 1024 * 1024
ERROR_CHARS_MAX: Final = 2_000
# Redacted before it is cut to what is kept, but nobody looks for secrets in a gigabyte.
_CHARS_READ_MAX: Final = 1 << 20


class JsonText(bytes):
    """An output that is JSON already, of a handler of flowd's own."""


def as_failure(error: BaseException) -> HandlerFailed:
    """Whatever a handler raised as an error that a future, JSON and Redis can carry.

    Never raises, and is idempotent. What decides on another attempt stays as it was.
    """
    text = error_text(error)
    try:
        failure = _of_same_kind(error, text)
    except BaseException:  # noqa: BLE001 - the attributes of somebody else's exception
        failure = HandlerFailed(text)
    with contextlib.suppress(BaseException):
        failure.report = _report(error)
    return failure


def _report(error: BaseException) -> bytes:
    report = getattr(error, "report", None) if isinstance(error, HandlerFailed) else None
    if report and isinstance(report, bytes):
        return report
    # Who fails on purpose has said why, and names a cause where there is more to see.
    if isinstance(error, FlowdError) and error.__cause__ is None:
        return b""
    trace = traceback_text(error)
    return orjson.dumps({"traceback": bounded(trace, 2 * TRACEBACK_CHARS_MAX)}) if trace else b""


def _of_same_kind(error: BaseException, text: str) -> HandlerFailed:
    kinds = frozenset(kinds_of(error))
    if isinstance(error, WaitFor):
        return WaitFor(error.waker, error.due_ms, error.text)
    if isinstance(error, Wait):
        return Wait(after_s=error.after_s or 0.0)
    if isinstance(error, Retry):
        return Retry(text, after_s=error.after_s, kinds=kinds)
    if isinstance(error, SkipNode | DependencyFailed | HandlerElsewhere):
        return type(error)(text)
    if isinstance(error, Fail | TemplateError):
        return Fail(text, kinds=kinds)
    return HandlerFailed(text, kinds=kinds)


def error_text(error: BaseException) -> str:
    """An exception for users: flowd's own say what happened, others need their type to be clear."""
    return bounded(_text_of(error), ERROR_CHARS_MAX)


def _text_of(error: BaseException) -> str:
    if isinstance(error, CancelledError):
        return "the handler cancelled itself"
    if isinstance(error, SystemExit):
        return f"the handler called sys.exit({_shown(error.code)})"
    if isinstance(error, FlowdError):
        with contextlib.suppress(Exception):
            return str(error) or type(error).__name__
    return describe_error(error)


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - somebody else's __repr__
        return f"a {type(value).__name__}"


def bounded(text: str, chars_max: int) -> str:
    """Without secrets, no longer than this, and without what UTF-8 cannot hold."""
    text = REDACTOR.text(text[:_CHARS_READ_MAX])
    if len(text) > chars_max:
        text = text[:chars_max] + "…"
    return text.encode("utf-8", "backslashreplace").decode()
