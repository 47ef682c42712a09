"""transform applies JMESPath expressions."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from flowd.errors import Fail, HandlerFailed
from tests.handler_calls import run_handler

NAMED = {"name": "a", "limit": 10}
ORDERS = {"orders": [{"name": "a", "price": 5}, {"name": "b", "price": 20}]}


@pytest.mark.parametrize(
    ("value", "expression", "result"),
    [
        (ORDERS, "orders[?price > `10`].name", ["b"]),
        (ORDERS, "sum(orders[].price)", 25),
        (
            ORDERS,
            "{total: sum(orders[].price), first: orders[0].name}",
            {"total": 25, "first": "a"},
        ),
        (ORDERS, "nothing.there", None),
        ([3, 1, 2], "sort(@)", [1, 2, 3]),
        ({**ORDERS, "limit": 10}, "orders[?price > $.limit].name", ["b"]),
        ({**ORDERS, "limit": 10}, "orders[].{name: name, limit: $.limit} | [0]", NAMED),
        ({**ORDERS, "limit": 10}, "map(&[name, $.limit], orders) | [1]", ["b", 10]),
        ({"a": {"b": 1}, "c": 2}, "a | [b, $.c, @.b]", [1, 2, 1]),
        ([3, 1], "$", [3, 1]),
        ([3, 1], "$[0]", 3),
        ({"$": 1}, '"$"', 1),
        (None, "@", None),
    ],
)
def test_the_result_is_what_the_expression_makes(value: Any, expression: str, result: Any) -> None:
    config = {"input": value, "expression": expression}

    assert run_handler("transform", config) == {"result": result}


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            {"expression": "@"},
            'config.input is missing: give the JSON to work on, such as "{{ A }}"',
        ),
        ({"input": 1, "expression": ""}, "config.expression: string should have at least 1"),
        (
            {"input": 1, "expression": "a["},
            "config.expression: this is not a valid JMESPath expression: ",
        ),
        (
            {"input": 1, "expression": "a.$"},
            "config.expression: this is not a valid JMESPath expression: ",
        ),
        (
            {"input": 1, "expression": "$a"},
            "config.expression: this is not a valid JMESPath expression: ",
        ),
        ({"input": 1, "expression": "[" * 9_000}, "config.expression: this goes too deep"),
        ({"input": 1, "expression": "a" * 16_385}, "config.expression: string should have at most"),
    ],
)
def test_a_wrong_config_fails_the_node(config: dict[str, Any], text: str) -> None:
    with pytest.raises(HandlerFailed) as failure:
        run_handler("transform", config)

    assert text in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("expression", ["sum(@)", "no_such_function(@)"])
def test_an_expression_that_cannot_be_applied_fails_for_good(expression: str) -> None:
    with pytest.raises(Fail, match="cannot be applied: "):
        run_handler("transform", {"input": "text", "expression": expression})


DOUBLED = "|".join(["[@,@]"] * 30)


@pytest.mark.parametrize(
    ("value", "expression"),
    [
        (0, DOUBLED),
        (0, f"to_string({DOUBLED})"),
        (0, f"{{a: {DOUBLED}, b: {DOUBLED}}} | a == b"),
        (0, f"contains([{DOUBLED}], {DOUBLED})"),
        (0, f"sum({DOUBLED})"),
        ({}, "|".join(["merge({a: @, b: @}, {c: @})"] * 40) + "|to_string(@)"),
        ("x", "|".join(["join('', [@,@])"] * 40)),
    ],
)
def test_what_would_grow_without_end_is_refused_in_bounded_memory(
    value: Any, expression: str
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Fail):
            run_handler("transform", {"input": value, "expression": expression})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 256 * 2**20


LONG_TEXTS = ["x" * 1_000_000, "x" * 999_999 + "y"]


@pytest.mark.parametrize(
    ("value", "expression"),
    [
        ([0] * 100, "map(&map(&map(&map(&@, $), $), $), @)".replace("$", f"`{[0] * 100}`")),
        (0, f"{DOUBLED}|" + "|".join(["[]"] * 29)),
        (LONG_TEXTS, "|".join(["[@,@]|[]"] * 12) + "|sort(@)"),
        (LONG_TEXTS, "|".join(["[@,@]|[]"] * 12) + "|sort_by(@, &@)"),
    ],
)
def test_what_would_take_steps_without_end_is_refused(value: Any, expression: str) -> None:
    with pytest.raises(Fail, match="takes more than 3,000,000 steps"):
        run_handler("transform", {"input": value, "expression": expression})


def test_half_a_million_items_are_no_reason_to_refuse() -> None:
    numbers = list(range(500_000))

    result = run_handler("transform", {"input": numbers, "expression": "[?@ > `499997`]"})

    assert result == {"result": [499_998, 499_999]}
