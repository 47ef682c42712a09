"""transform applies JMESPath expressions."""

from __future__ import annotations

from typing import Any

import pytest

from flowd.errors import Fail, HandlerFailed
from tests.handler_calls import run_handler

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
        ({"input": 1, "expression": "a["}, "config.expression: this is no JMESPath expression: "),
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
