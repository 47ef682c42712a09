"""Numbers that JSON cannot hold are an error on the way out too."""

from __future__ import annotations

from dataclasses import dataclass
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


def test_an_integer_beyond_64_bits_is_refused() -> None:
    with pytest.raises(TypeError):
        exact_json.dumps({"n": 2**64})
