"""Read a request's body within bounds, and parse it as the strict JSON that flowd stores."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from flowd.dag.templating import format_step
from flowd.errors import FlowdError, InvalidWorkflow, Problem

# Of an application that says nothing else.
BODY_BYTES_MAX = 1024 * 1024
BODY_S_MAX = 60.0
# A refused body is read on for this long: a client that only listens once it has sent everything
# would see a broken connection instead of the refusal.
REFUSED_BODY_S_MAX = 2.0

# Parsed values cost some 60 bytes each, however short they are written: 16 MiB of `[` would
# become half a gigabyte. A workflow of 10,000 nodes and a million dependencies stays below.
# 1 MiB holds a chain of 10,000 nodes, with some 40 bytes of config each.
VALUES_MAX = 2_000_000

_LONG_DIGITS = re.compile(rb"[0-9]{19}")
_INTEGER_MIN, _INTEGER_MAX = -(2**63), 2**64 - 1


class BodyTooLarge(FlowdError):
    """The body is longer than flowd reads."""

    code = "body_too_large"

    def __init__(self, bytes_max: int) -> None:
        super().__init__(
            f"the body is longer than the limit of {bytes_max:,} bytes; the setting is "
            "api.body_max_mb"
        )


class BodyTooSlow(FlowdError):
    """The body did not arrive in time."""

    code = "body_too_slow"

    def __init__(self) -> None:
        super().__init__(f"the body did not arrive within {BODY_S_MAX:g} seconds; send it again")


async def read_body(request: Request) -> bytes:
    """The whole body. Raises BodyTooLarge or BodyTooSlow; close the connection after these."""
    try:
        async with asyncio.timeout(BODY_S_MAX):
            return await _read_bounded(request)
    except TimeoutError:
        raise BodyTooSlow from None


async def _read_bounded(request: Request) -> bytes:
    bytes_max = _bytes_max(request)
    if _announced_bytes(request) > bytes_max:
        # A client that asked first has sent nothing yet, and now will not.
        if "expect" not in request.headers:
            await _read_on(request)
        raise BodyTooLarge(bytes_max)
    chunks: list[bytes] = []
    length = 0
    has_more = True
    while has_more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        length += len(chunks[-1])
        has_more = message.get("more_body", False)
        if length > bytes_max:
            chunks.clear()
            if has_more:
                await _read_on(request)
            raise BodyTooLarge(bytes_max)
    return b"".join(chunks)


def _bytes_max(request: Request) -> int:
    app = request.scope.get("app")
    return BODY_BYTES_MAX if app is None else getattr(app.state, "body_bytes_max", BODY_BYTES_MAX)


def _announced_bytes(request: Request) -> int:
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isdigit() and len(announced) < 20 else 0


async def _read_on(request: Request) -> None:
    """Throw away what still arrives, until it ends or the time is up."""
    try:
        async with asyncio.timeout(REFUSED_BODY_S_MAX):
            while (await request.receive()).get("more_body", False):
                pass
    except TimeoutError:
        return


def parse_json(body: bytes) -> tuple[Any, bytes, list[Problem]]:
    """The document, the same as compact JSON, and what a parser passes over in silence.

    Those are keys written twice and integers that would lose digits. Raises InvalidWorkflow when
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
    if _may_hide_something(body, compact):
        return document, compact, list(_find_hidden(body))
    return document, compact, []


def _refusal(code: str, message: str) -> InvalidWorkflow:
    return InvalidWorkflow([Problem("", code, message)])


def _may_hide_something(body: bytes, compact: bytes) -> bool:
    """True when a key was written twice, and at times when not; at 2 % of the cost of looking.

    A key that was dropped took its colon along. Colons in strings count on both sides, unless one
    is written as an escape, which the compact form never does.
    """
    return (
        body.count(b":") != compact.count(b":")
        or b"\\u003" in body
        or _LONG_DIGITS.search(body) is not None
    )


class _Object(dict[str, Any]):
    """A parsed object that remembers which keys were written more than once."""

    duplicates: tuple[str, ...] = ()


class _LostInteger:
    """Stands for an integer that does not fit into 64 bits."""


def _object_of(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) < len(pairs):
        times = Counter(key for key, _ in pairs)
        found.duplicates = tuple(key for key in found if times[key] > 1)
    return found


def _integer_of(written: str) -> int | _LostInteger:
    if len(written) <= 20 and _INTEGER_MIN <= int(written) <= _INTEGER_MAX:
        return int(written)
    return _LostInteger()


def _find_hidden(body: bytes) -> Iterator[Problem]:
    """Parse again, slowly, and walk through all of it."""
    try:
        document = json.loads(body, object_pairs_hook=_object_of, parse_int=_integer_of)
    except RecursionError:
        yield Problem("", "too_deep", "the body is nested too deeply")
        return
    pending: list[tuple[str, Any]] = [("", document)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, _LostInteger):
            message = "the integer does not fit into 64 bits; send it as a string"
            yield Problem(path, "integer_too_large", message)
        elif isinstance(value, _Object):
            for key in value.duplicates:
                yield Problem(
                    join_path(path, key), "duplicate_key", "the key is written more than once"
                )
            _push(pending, [(join_path(path, key), child) for key, child in value.items()])
        elif isinstance(value, list):
            _push(pending, [(f"{path}[{index}]", item) for index, item in enumerate(value)])


def _push(pending: list[tuple[str, Any]], children: Iterable[tuple[str, Any]]) -> None:
    pending += [child for child in children if isinstance(child[1], list | dict | _LostInteger)]


def join_path(path: str, key: str) -> str:
    """The path of a key: `dag.nodes`, `dag.nodes[2].config["a b"]`."""
    step = format_step(key)
    return path + step if path else step.removeprefix(".")
