"""Query parameters as their model, or everything that is wrong with them."""

from __future__ import annotations

from enum import StrEnum

import pytest
from pydantic import BaseModel, Field
from starlette.requests import Request

from flowd.api.contract.query import read_query
from flowd.errors import InvalidRequest
from flowd.workflow.report import PROBLEMS_MAX


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class Query(BaseModel):
    limit: int = Field(default=50, ge=1, le=100)
    name: str | None = None
    color: list[Color] = []
    start: str = Field(default="", alias="from")


def read(text: str) -> Query:
    return read_query(Request({"type": "http", "query_string": text.encode()}), Query)


def problems(text: str) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as refused:
        read(text)
    return [(one.path, one.code) for one in refused.value.problems]


def test_what_is_left_out_has_its_default() -> None:
    assert read("") == Query()


def test_values_become_what_the_model_says() -> None:
    query = read("limit=7&name=a%20b&from=x&color=red,blue&color=red")

    assert (query.limit, query.name, query.start) == (7, "a b", "x")
    assert query.color == [Color.RED, Color.BLUE, Color.RED]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("limit=0", [("query.limit", "invalid_value")]),
        ("limit=x", [("query.limit", "invalid_value")]),
        ("limit=", [("query.limit", "invalid_value")]),
        ("limit=1&limit=1", [("query.limit", "duplicate_parameter")]),
        ("limt=1", [("query.limt", "unknown_parameter")]),
        ("start=1", [("query.start", "unknown_parameter")]),
        ("color=red,green", [("query.color.1", "invalid_value")]),
        ("color=", [("query.color.0", "invalid_value")]),
        ("a=1&limit=x", [("query.a", "unknown_parameter"), ("query.limit", "invalid_value")]),
        ("&".join("a=1" for _ in range(101)), [("query", "too_many_parameters")]),
    ],
)
def test_everything_wrong_is_named_at_once(text: str, expected: list[tuple[str, str]]) -> None:
    assert problems(text) == expected


def test_a_name_that_is_nearly_right_is_suggested() -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'limit'"):
        read("limt=1")


def test_of_many_problems_the_first_are_listed() -> None:
    found = problems("color=" + ",".join("x" for _ in range(5000)))

    assert len(found) == PROBLEMS_MAX + 1
    assert found[-1] == ("", "more_problems")
