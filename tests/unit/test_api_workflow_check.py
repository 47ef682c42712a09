"""What the API checks on its own loop, and what where it can be killed."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from flowd.api.workflow_check import (
    _KEPT_BYTES_MAX,
    SMALL_BYTES_MAX,
    CheckedWorkflow,
    WorkflowCheck,
    _serve,
    check_here,
)
from flowd.errors import InvalidWorkflow
from flowd.handlers.forked_calls import ForkedCalls, TookTooMuch

WORD = "schema"
SPELLINGS = [
    f"{WORD[:at]}{escape}{WORD[at + 1 :]}"
    for at, letter in enumerate(WORD)
    for escape in (f"\\u{ord(letter):04x}", f"\\u{ord(letter):04X}")
]


class Calls:
    """The process, to which each check is too much."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def call(self, body: bytes) -> bytes:
        self.bodies.append(body)
        raise TookTooMuch("it takes more than this test has")


def workflow(**config: Any) -> str:
    node = {"id": "A", "handler": "llm", "config": config}
    return json.dumps({"name": "test", "dag": {"nodes": [node]}})


def is_checked_apart(text: str) -> bool:
    calls, body = Calls(), text.encode()
    check = WorkflowCheck({"llm": None}, cast("ForkedCalls", calls))
    try:
        asyncio.run(check(body))
    except InvalidWorkflow as error:
        assert [one.code for one in error.problems] == ["too_costly"]
    return [one.endswith(body) for one in calls.bodies] == [True]


def test_what_is_small_and_has_no_schema_is_checked_here() -> None:
    assert not is_checked_apart(workflow(prompt="x"))
    assert not is_checked_apart(workflow(prompt='"x"\n'))


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is really looked at."""
    looked_at: list[bytes] = []

    def check(body: bytes, handlers: Any) -> CheckedWorkflow:
        looked_at.append(body)
        return check_here(body, handlers)

    monkeypatch.setattr("flowd.api.workflow_check.check_here", check)
    return looked_at


def test_the_same_bytes_are_checked_once(checks: list[bytes]) -> None:
    check = WorkflowCheck({"llm": None})
    one, other = (workflow(prompt=text).encode() for text in ("a", "b"))

    first = asyncio.run(check(one))

    assert asyncio.run(check(one)) == first
    assert asyncio.run(check(other)).definition != first.definition
    assert asyncio.run(check(one + b" ")) == first
    assert checks == [one, other, one + b" "]


def test_what_is_refused_is_looked_at_again(checks: list[bytes]) -> None:
    check = WorkflowCheck({})
    body = workflow().encode()

    for _ in range(2):
        with pytest.raises(InvalidWorkflow):
            asyncio.run(check(body))

    assert checks == [body, body]


def test_of_the_checked_those_asked_for_last_are_kept_and_no_large_ones(
    checks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowd.api.workflow_check._KEPT_MAX", 2)
    check = WorkflowCheck({"llm": None})
    a, b, c = (workflow(prompt=text).encode() for text in "abc")
    large = workflow(prompt="x" * _KEPT_BYTES_MAX).encode()

    for body in (a, b, a, c, a, b, large, large):
        asyncio.run(check(body))

    assert checks == [a, b, c, b, large, large]


def test_what_is_large_is_checked_apart() -> None:
    assert is_checked_apart(workflow(prompt="x" * SMALL_BYTES_MAX))


@pytest.mark.parametrize("spelling", [WORD, *SPELLINGS])
def test_a_schema_is_checked_apart_however_its_key_is_written(spelling: str) -> None:
    """One of 54 KB, spelled out, once stopped the API for ten seconds."""
    kind = "json_schema"
    form = {"type": kind, kind: {"schema": {"type": "object"}}}
    plain = workflow(prompt="x", response_format=form)
    text = plain.replace(WORD, spelling)
    assert json.loads(text) == json.loads(plain)
    assert is_checked_apart(text)


class Apart:
    """The process, without being one."""

    async def call(self, body: bytes) -> bytes:
        return _serve(body, {"llm": None})


def test_what_is_checked_apart_comes_to_the_same_as_here() -> None:
    """The facts of queues once had no way out of the process: whatever was large was refused."""
    nodes = [
        {"id": "A", "handler": "llm", "queue": "gpu"},
        {"id": "B", "handler": "llm", "dependencies": ["A"]},
    ]
    more = {"labels": {"team": "x"}, "concurrency": {"key": "{{ input.a }}", "max": 2}}
    end = {"finally": [{"id": "Z", "handler": "llm"}]}
    large = {"input": {"a": "x" * SMALL_BYTES_MAX}}
    for other in ({}, more, {"queue": "low"}):
        body = json.dumps({"name": "test", "dag": {"nodes": nodes, **end}, **other, **large})
        here = asyncio.run(WorkflowCheck({"llm": None})(body.encode()))
        apart = WorkflowCheck({"llm": None}, cast("ForkedCalls", Apart()))
        there = asyncio.run(apart(body.encode()))

        assert there.definition == here.definition
        for name, value in here.outline._asdict().items():
            told = getattr(there.outline, name)
            assert told == value or list(told) == list(value)
