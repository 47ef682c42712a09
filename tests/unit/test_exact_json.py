"""Numbers that JSON cannot hold are an error on the way out too."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest

from flowd.workflow import exact_json
from flowd.workflow.exact_json import InexactNumber


@dataclass
class Point:
    x: float


class Odd(Enum):
    NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"mean": float("nan")}, "mean is nan, which JSON has not"),
        ({"a": [{"b": (1, float("-inf"))}]}, "a[0].b[1] is -inf, which JSON has not"),
        ({"p": Point(float("inf"))}, "p.x is inf, which JSON has not"),
        ({"o": Odd.NAN}, "o is nan, which JSON has not"),
        (float("nan"), "it is nan, which JSON has not"),
    ],
)
def test_what_would_become_null_is_named(value: Any, text: str) -> None:
    with pytest.raises(InexactNumber) as error:
        exact_json.dumps(value)

    assert str(error.value) == text


def test_none_and_the_word_null_are_written_as_they_are() -> None:
    value = {"a": None, "b": "null", "c": [1.5, {"d": None}], "p": Point(2.0)}

    assert exact_json.dumps(value) == b'{"a":null,"b":"null","c":[1.5,{"d":null}],"p":{"x":2.0}}'


def contains_itself() -> dict[str, Any]:
    value: dict[str, Any] = {"ok": 1}
    value["me"] = [value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"n": 2**64}, "n is an integer beyond 64 bits"),
        ({"ok": [1], "rows": [{}, {"tags": {1, 2}}]}, "rows[1].tags is a set, which JSON has not"),
        ({"a": Decimal(1)}, "a is a Decimal, which JSON has not"),
        ({"a": [(object(),)]}, "a[0][0] is an object, which JSON has not"),
        ({"by": {1: "x"}}, "by has an int as a key, and JSON has only texts"),
        ({"t": "\ud800"}, "t is text with half a surrogate pair, which UTF-8 has not"),
        (contains_itself(), "Recursion limit reached"),
        ({"a": [1] * 200_000 + [{1}]}, "Type is not JSON serializable: set"),
    ],
)
def test_what_is_no_json_is_said_with_its_place(value: Any, text: str) -> None:
    with pytest.raises(TypeError) as error:
        exact_json.dumps(value)

    assert str(error.value) == text
