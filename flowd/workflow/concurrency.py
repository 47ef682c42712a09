"""How many executions of a workflow run at a time, and which of them share the places there are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypedDict

import orjson

from flowd.errors import FlowdError, InvalidRequest, Problem, TemplateError
from flowd.workflow.report import quote
from flowd.workflow.templating import (
    INPUT,
    CompiledConfig,
    Reference,
    describe_type,
    find_templates,
)

KEY_SHOWN_MAX: Final = 200
# A larger one is no name of anything.
KEY_CHARS_MAX: Final = 10_000
_KEY: Final = "key"
_PATH: Final = "concurrency.key"


class Concurrency(TypedDict):
    """What the `concurrency` of a workflow of this name says; `input` is the workflow's own."""

    name: str
    key: str | None
    max: int
    when_full: str
    input: Mapping[str, Any]


class LimitReached(FlowdError):
    """All places of a workflow's `concurrency` are taken, and it says to refuse what comes then.

    Of many that were to run `execution_ids` has those that do, and None for each that was refused.
    """

    code = "limit_reached"

    def __init__(
        self,
        place: str,
        holders: Sequence[str],
        most: int,
        *,
        execution_id: str = "",
        execution_ids: Sequence[str | None] | None = None,
    ) -> None:
        self.holders = holders
        self.execution_ids = execution_ids
        key = place.partition(" ")[2]
        what = f"the execution {execution_id!r} is not started" if execution_id else "it is not run"
        if execution_ids is not None:
            refused = execution_ids.count(None)
            what = f"{refused:,} of {len(execution_ids):,} executions are not run"
        of_key = f" with the key {key!r}" if key else ""
        who = f": {holders[0]!r} has not ended" if holders else ""
        many = "1 runs" if most == 1 else f"{most:,} run"
        super().__init__(
            f"{what}: of this workflow at most {many} at a time{of_key}{who}; "
            "try again when that has, or let `concurrency` queue"
        )


def planned_concurrency(document: Mapping[str, Any]) -> Concurrency | None:
    """Of a definition as `to_json` wrote it. Raises KeyError or TypeError for a broken one."""
    written = document.get("concurrency")
    if written is None:
        return None
    if type(written["max"]) is not int or not isinstance(written.get(_KEY, ""), str):
        raise TypeError(f"{written!r} is no concurrency")
    return Concurrency(
        name=document["name"],
        key=written.get(_KEY),
        max=written["max"],
        when_full=written["when_full"],
        input=document.get("input") or {},
    )


def run_text(concurrency: Concurrency) -> str:
    """As the run of an execution says it, and the scripts read it."""
    return f"{concurrency['max']} {concurrency['when_full']}"


def place_of(concurrency: Concurrency, given: Mapping[str, Any], path: str = INPUT) -> str:
    """What an execution with this input asks a place of: the digest of its key, and the key.

    Raises InvalidRequest, with `path` as where the input stands, when the key cannot be made of it.
    """
    text = ""
    if concurrency["key"] is not None:
        try:
            value = _compiled(concurrency["key"]).render({INPUT: {**concurrency["input"], **given}})
        except TemplateError as error:
            raise _no_key(path, str(error)) from None
        text = _text(value[_KEY], path)
    digest = hashlib.blake2b(orjson.dumps([concurrency["name"], text]), digest_size=16).hexdigest()
    return f"{digest} {text[:KEY_SHOWN_MAX]}"


@lru_cache(maxsize=1_000)
def _compiled(key: str) -> CompiledConfig:
    return CompiledConfig({_KEY: key})


def _text(value: Any, path: str) -> str:
    """1 and "1" are one key, as both are written so in a text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return orjson.dumps(value).decode()
    if not isinstance(value, str):
        raise _no_key(path, f"it is {describe_type(value)}; it has to be a string or a number")
    if len(value) > KEY_CHARS_MAX:
        raise _no_key(path, f"it has {len(value):,} characters, more than {KEY_CHARS_MAX:,}")
    return value


def _no_key(path: str, why: str) -> InvalidRequest:
    return InvalidRequest([Problem(path, "no_key", f"{_PATH} cannot be made of this: {why}")])


def find_concurrency_problems(document: Any) -> Iterator[Problem]:
    """What is wrong with the templates of a submitted document's `concurrency`."""
    written = document.get("concurrency") if isinstance(document, dict) else None
    key = written.get(_KEY) if isinstance(written, dict) else None
    if not isinstance(key, str):
        return
    for found in find_templates({_KEY: key}, "concurrency"):
        if not isinstance(found, Reference):
            yield found
        elif found.node_id != INPUT:
            message = f"cannot read {quote(found.node_id)}: before it runs there is only `input`"
            yield Problem(_PATH, "unknown_reference", message)
