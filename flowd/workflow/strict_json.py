"""Parse strict JSON: nothing that a parser passes over in silence gets through."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from flowd.errors import InvalidWorkflow, Problem
from flowd.workflow.exact_json import fits_float, fits_integer, may_be_inexact
from flowd.workflow.templating import format_step

# Parsed values cost some 60 bytes each, however short they are written: 16 MiB of `[` would
# become half a gigabyte. A workflow of 10,000 nodes and a million dependencies stays below.
# 1 MiB holds a chain of 10,000 nodes, with some 40 bytes of config each.
VALUES_MAX = 2_000_000


def parse_json(body: bytes) -> tuple[Any, bytes, list[Problem]]:
    """The document, the same as compact JSON, and what a parser passes over in silence.

    Those are keys written twice and numbers that would lose digits. Raises InvalidWorkflow when
    there is no document at all.
    """
    if not body.strip():
        raise _refusal("invalid_json", "the body is empty; send a workflow as JSON")
    if body.count(b",") + body.count(b"[") + body.count(b"{") > VALUES_MAX:
        raise _refusal("too_many_values", f"the body holds more than {VALUES_MAX:,} values")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _refusal("invalid_json", f"the body is not valid JSON: {error}") from None
    try:
        compact = orjson.dumps(document)
    except orjson.JSONEncodeError:
        raise _refusal("too_deep", "the body is nested too deeply") from None
    if _may_hide_a_key(body, compact) or may_be_inexact(body, document):
        return document, compact, list(_find_hidden(body))
    return document, compact, []


def _refusal(code: str, message: str) -> InvalidWorkflow:
    return InvalidWorkflow([Problem("", code, message)])


def _may_hide_a_key(body: bytes, compact: bytes) -> bool:
    """True when a key was written twice, and at times when not; at 2 % of the cost of looking.

    A key that was dropped took its colon along. Colons in strings count on both sides, unless one
    is written as an escape, which the compact form never does.
    """
    return body.count(b":") != compact.count(b":") or b"\\u003" in body


class _Object(dict[str, Any]):
    """A parsed object that remembers which keys were written more than once."""

    duplicates: tuple[str, ...] = ()


class _LostNumber:
    """Stands for a number that 64 bits do not hold."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message


def _object_of(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) < len(pairs):
        times = Counter(key for key, _ in pairs)
        found.duplicates = tuple(key for key in found if times[key] > 1)
    return found


def _integer_of(written: str) -> int | _LostNumber:
    if fits_integer(written):
        return int(written)
    message = "the integer does not fit into 64 bits; send it as a string"
    return _LostNumber("integer_too_large", message)


def _float_of(written: str) -> float | _LostNumber:
    if fits_float(written):
        return float(written)
    message = "the number has more digits than 64 bits hold; send it as a string"
    return _LostNumber("number_too_long", message)


def _find_hidden(body: bytes) -> Iterator[Problem]:
    """Parse again, slowly, and walk through all of it."""
    try:
        document = json.loads(
            body, object_pairs_hook=_object_of, parse_int=_integer_of, parse_float=_float_of
        )
    except RecursionError:
        yield Problem("", "too_deep", "the body is nested too deeply")
        return
    pending: list[tuple[str, Any]] = [("", document)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, _LostNumber):
            yield Problem(path, value.code, value.message)
        elif isinstance(value, _Object):
            for key in value.duplicates:
                yield Problem(
                    join_path(path, key), "duplicate_key", "the key is written more than once"
                )
            _push(pending, [(join_path(path, key), child) for key, child in value.items()])
        elif isinstance(value, list):
            _push(pending, [(f"{path}[{index}]", item) for index, item in enumerate(value)])


def _push(pending: list[tuple[str, Any]], children: Iterable[tuple[str, Any]]) -> None:
    pending += [child for child in children if isinstance(child[1], list | dict | _LostNumber)]


def join_path(path: str, key: str) -> str:
    """The path of a key: `dag.nodes`, `dag.nodes[2].config["a b"]`."""
    step = format_step(key)
    return path + step if path else step.removeprefix(".")
