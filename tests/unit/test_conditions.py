"""Conditions: what they decide, what they refuse, and that nobody can make them costly."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowd.workflow.conditions import (
    NESTING_MAX,
    Condition,
    MalformedCondition,
    Read,
    UndecidedCondition,
)
from flowd.workflow.definition import CONDITION_CHARS_MAX

SCOPE: dict[str, Any] = {
    "A": {"score": 7, "items": [1, "b", None, True], "name": "prod", "no": None, "a key": {"x": 1}},
    "with-hyphen": {"ok": True},
    "5": {"x": 1},
    "B": {},
    "input": {"env": "prod", "limit": 7.0},
    "state": {"A": "COMPLETED", "B": "FAILED"},
}


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("A.score > 5", True),
        ("A.score > 5 and input.env == 'prod'", True),
        ("A.score >= 7 and A.score <= 7 and not A.score < 7", True),
        ("A.items | length > 0", True),
        ("A.name | length == 4", True),
        ("state.B == 'FAILED' or B.x is defined", True),
        ("state.B != 'FAILED' or B.x is defined", False),
        ("A.no is defined", True),
        ("A.gone is not defined", True),
        ("A.no == null", True),
        ("A.gone | default('x') == 'x'", True),
        ("A.gone.deeper | default([1, 2]) | length == 2", True),
        ("A.no | default(1) == null", True),
        ("'b' in A.items and 'c' not in A.items", True),
        ("'ro' in A.name", True),
        ("'a key' in A", True),
        ('A["a key"].x == 1', True),
        ("A.items[0] == 1", True),
        ("A.score in [1, 7]", True),
        ("A.score == input.limit", True),
        ("A.items[3] == 1", False),
        ("true in A.items", True),
        ("1 == true", False),
        ("[1, [true]] == [1, [1]]", False),
        ("-3 < 0 and 1.5 > 1e0", True),
        ("with-hyphen.ok", True),
        ("nodes['5'].x == 1", True),
        ("nodes.A.score == 7", True),
        ("not (A.score > 5 or false)", False),
        ("not not true", True),
        ("true or A.gone", True),
        ("false and A.gone", False),
        ("A.score > 5\n  and true", True),
        ("false or true and false", False),
        ("not false and false", False),
        ("'it\\'s' == \"it's\"", True),
    ],
)
def test_a_condition_decides(text: str, decision: bool) -> None:
    assert Condition(text).decide(SCOPE) is decision


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A.score", "A.score is a number, where true or false is needed"),
        ("A.score and true", "A.score is a number"),
        ("not A.name", "A.name is a string"),
        ("A.score > A.name", "A.score (a number) and A.name (a string) are not ordered"),
        ("A.score > true", "A.score (a number) and true (a boolean) are not ordered"),
        ("A.no < 1", "A.no (null) and 1 (a number) are not ordered"),
        ("1 in A.name", "1 (a number) and A.name (a string) do not go with `in`"),
        ("A.score | length > 1", "A.score is a number, it has no length"),
        ("A.gone == 1", "'A' has no key 'gone'; its keys are 'score'"),
        ("gone.x == 1", "node 'gone' has no output"),
    ],
)
def test_what_cannot_be_decided_says_what_was_compared(text: str, reason: str) -> None:
    with pytest.raises(UndecidedCondition) as undecided:
        Condition(text).decide(SCOPE)

    assert reason in str(undecided.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a value (at the end)"),
        ("A.score >", "expected a value (at the end)"),
        ("A.score > 5 B", "expected `and`, `or` or the end (at 'B')"),
        ("1 < A.score < 9", "one comparison at a time"),
        ("A.score + 1 > 5", "cannot read '+ 1 > 5'"),
        ("A.status = 'ok'", "cannot read \"= 'ok'\"; write `==`"),
        ("A.x && B.y", "cannot read '&& B.y'; write `and`"),
        ("!A.x", "cannot read '!A.x'; write `not`"),
        ("{{ A.x == 1 }}", "; a condition stands without braces"),
        ("A.x == {{ B.y }}", "; a condition stands without braces"),
        ("A.score(1)", "expected `and`, `or` or the end"),
        ("A.score | upper == 'X'", "unknown filter 'upper'; there is default, length"),
        ("A.x is none", "expected `defined`"),
        ("A.x | default", "default needs a value in brackets"),
        ("A.x | default(B.y)", "expected a value (at 'B.y)')"),
        ("(A.x", "expected `)`"),
        ("A[-1] == 1", "expected a number or a text in quotes"),
        ("A. == 1", "expected a key behind the dot"),
        ("'open", "cannot read"),
        ("and", "expected a value"),
        ("5.x == 1", "expected `and`, `or` or the end (at '.x == 1')"),
        ("[A.x] == 1", "expected a value"),
        ("1" * 5000, "a condition has at most 4,000 characters, this one has 5,000"),
        ("(" * 60 + "true" + ")" * 60, f"nested more than {NESTING_MAX} deep"),
        ("not " * 60 + "true", f"nested more than {NESTING_MAX} deep"),
        ("[" * 60 + "]" * 60 + " == []", f"nested more than {NESTING_MAX} deep"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_place(text: str, reason: str) -> None:
    with pytest.raises(MalformedCondition) as malformed:
        Condition(text)

    assert reason in str(malformed.value)


@pytest.mark.parametrize(
    ("text", "guarded"),
    [
        ("A.x is defined and A.y", [True, True]),
        ("(A.x is defined) and (B.x or A.y == 1)", [True, False, True]),
        ("A.y and A.x is defined", [False, True]),
        ("A.x is not defined and A.y", [True, False]),
        ("A.x is defined or A.y", [True, False]),
        ("(A.x is defined or B.x is defined) and A.y", [True, True, False]),
        ("A.x | default(1) is defined and A.y", [True, False]),
        ("B.x is defined and A.x is defined and A.y and B.y", [True] * 4),
    ],
)
def test_what_is_proved_to_be_there_is_read_behind_an_and(text: str, guarded: list[bool]) -> None:
    assert [read.is_guarded for read in Condition(text).reads] == guarded


def test_a_condition_tells_what_it_reads_and_what_may_be_missing() -> None:
    condition = Condition(
        "A.score > 5 and (B.x is defined or C | default(1) == 1) and state.D == 'x'"
    )

    assert condition.reads == (
        Read("A", "score", False),
        Read("B", "x", True),
        Read("C", None, True),
        Read("state", "D", False),
    )


@given(st.text(max_size=200))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    with contextlib.suppress(MalformedCondition):
        Condition(text)


def test_the_longest_condition_and_the_largest_values_cost_one_walk() -> None:
    """Counted, not timed: every value is compared with another once."""
    compared = 0

    class Counted(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        def __ne__(self, other: object) -> bool:
            return not self == other

    items = [Counted(str(number)) for number in range(10_000)]
    assert not Condition("'x' in A.items").decide({"A": {"items": items}})
    assert compared == 10_000
    terms = " or ".join(["A.x"] * (CONDITION_CHARS_MAX // 7 - 1))
    assert Condition(terms + " or true").decide({"A": {"x": False}})
