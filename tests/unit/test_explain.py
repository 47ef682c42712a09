"""How explanations are worded."""

from __future__ import annotations

import pytest

from flowd.diagnosis.phrases import ahead, listed, span


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (-5, "0.0 s"),
        (0, "0.0 s"),
        (449, "0.4 s"),
        (9_940, "9.9 s"),
        (12_345, "12 s"),
        (59_700, "1 min 0 s"),
        (185_000, "3 min 5 s"),
        (3_599_900, "1 h 0 min"),
        (7_800_000, "2 h 10 min"),
    ],
)
def test_a_length_of_time(ms: int, text: str) -> None:
    assert span(ms) == text


def test_names_are_listed_and_the_rest_counted() -> None:
    assert listed(["A"]) == "A"
    assert listed(["A", "B"]) == "A and B"
    assert listed(["A", "B", "C"]) == "A, B and C"
    many = listed([f"n{number}" for number in range(1_210)])
    assert many.startswith("n0, n1, ")
    assert many.endswith(", n9 and 1,200 more")


def test_what_isahead() -> None:
    assert [ahead(count) for count in (0, 1, 1_204)] == [
        "no entry is",
        "1 entry is",
        "1,204 entries are",
    ]
