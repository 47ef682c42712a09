"""The traceback of an exception for the author of a handler: where it came from in their own code.

The frames of what called the handler are left out, so that the author's own come first; of a long
stack both ends are kept.
"""

from __future__ import annotations

import asyncio
import importlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import flowd

TRACEBACK_CHARS_MAX: Final = 6_000
_FRAMES_AT_EACH_END: Final = 8
# An exception may have come from another, and that from a third.
_CHAIN_MAX: Final = 10

_CALLERS: Final = (
    *(f"{Path(module.__path__[0])}/" for module in (flowd, asyncio, importlib)),
    "<frozen importlib",
)


def traceback_text(error: BaseException) -> str:
    """As Python writes it; empty for what has no frames. Not redacted; never raises."""
    try:
        whole = traceback.TracebackException.from_exception(error, lookup_lines=False)
        if not whole.stack:
            return ""
        for link in _chain(whole):
            link.stack = _shortened(link.stack)
        return _middle_cut("".join(whole.format()).rstrip())
    except Exception:  # noqa: BLE001 - somebody else's exception, whose parts may be anything
        return ""


def _chain(whole: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    pending = [whole]
    for _ in range(_CHAIN_MAX):
        if not pending:
            return
        link = pending.pop()
        yield link
        pending += [each for each in (link.__cause__, link.__context__) if each is not None]
        pending += getattr(link, "exceptions", None) or []


def _shortened(stack: traceback.StackSummary) -> traceback.StackSummary:
    frames = list(stack)
    own = next((at for at, frame in enumerate(frames) if not _is_caller(frame.filename)), 0)
    frames = frames[own:]
    if len(frames) > 2 * _FRAMES_AT_EACH_END:
        frames[_FRAMES_AT_EACH_END:-_FRAMES_AT_EACH_END] = []
    return traceback.StackSummary.from_list(frames)


def _is_caller(file: str) -> bool:
    return file.startswith(_CALLERS)


def _middle_cut(text: str) -> str:
    if len(text) <= TRACEBACK_CHARS_MAX:
        return text
    half = TRACEBACK_CHARS_MAX // 2
    return f"{text[:half]}\n…\n{text[-half:]}"
