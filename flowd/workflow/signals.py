"""Signals: what is sent to a node that waits for one, and what the node may say of it.

A signal may come before anything of its node is rendered, so what judges it is literal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import orjson

from flowd.errors import Problem
from flowd.workflow.definition import SECONDS_MAX
from flowd.workflow.ids import WORKFLOW
from flowd.workflow.references import ReadingNode
from flowd.workflow.secret_places import SECRET_KEY
from flowd.workflow.strict_json import join_path
from flowd.workflow.templating import OPENING

SIGNAL: Final = "signal"
_LITERAL: Final = ("schema", "default", "on_timeout")


class Signal(NamedTuple):
    """What somebody sends: `data`, or why it is a rejection. `by` is the name of a token; under a
    `key` the same `body` is the same signal, however often it comes.
    """

    data: Any = None
    rejected: str | None = None
    by: str | None = None
    key: str = ""
    body: str = ""

    def to_json(self) -> bytes:
        said = {name: value for name, value in self._asdict().items() if value is not None}
        return orjson.dumps(said)


class Answer(NamedTuple):
    """What decided a node that waited for a signal, as everybody is shown it."""

    data: Any
    rejected: str | None
    timed_out: bool
    by: str | None
    at_ms: int

    def output(self) -> dict[str, Any]:
        """What the node completes with."""
        said = self._asdict()
        del said["rejected"]
        return said


def signal_of(payload: str | bytes) -> Signal:
    """Raises ValueError or TypeError for what `to_json` did not write."""
    return Signal(**orjson.loads(payload))


def answer_of(signal: Signal | None, default: Any, at_ms: int) -> Answer:
    """None for no signal: the time was over, and what stands is the default."""
    if signal is None:
        return Answer(default, None, True, None, at_ms)
    return Answer(signal.data, signal.rejected, False, signal.by, at_ms)


def describe(answer: Answer) -> str:
    """`it was rejected by 'alice': too risky`"""
    by = f" by {answer.by!r}" if answer.by else ""
    if answer.timed_out:
        return "nobody had answered in time"
    return f"it was rejected{by}: {answer.rejected}" if answer.rejected else f"it was answered{by}"


def find_signal_problems(node: ReadingNode) -> Iterator[Problem]:
    """What is wrong with its retries, its time-out and what has to be literal."""
    if node.handler != SIGNAL:
        is_long = node.timeout_s is not None and node.timeout_s > SECONDS_MAX
        if is_long and node.handler != WORKFLOW:
            message = f"input should be less than or equal to {SECONDS_MAX:g}"
            yield Problem(f"{node.path}.timeout_s", "invalid_value", message)
        return
    if node.has_retry:
        message = "a node that waits for a signal is not retried: leave out retry"
        yield Problem(f"{node.path}.retry", "retry_of_signal", message)
    for name in _LITERAL:
        if name in node.config:
            yield from _find_rendered(node.config[name], f"{node.path}.config.{name}", name)


def _find_rendered(value: Any, path: str, name: str) -> Iterator[Problem]:
    """What another handler's config could hold, and is not filled in here."""
    pending = [(path, value)]
    while pending:
        place, item = pending.pop()
        if isinstance(item, list):
            pending += [(f"{place}[{at}]", one) for at, one in enumerate(item)]
        elif isinstance(item, dict):
            pending += [(join_path(place, key), one) for key, one in item.items()]
        if isinstance(item, str) and OPENING in item:
            what = "template"
        elif isinstance(item, dict) and SECRET_KEY in item:
            what = "secret"
        else:
            continue
        message = f"{name} is literal, since a signal may come first: no {what} is filled in here"
        yield Problem(place, "literal_config", message)
