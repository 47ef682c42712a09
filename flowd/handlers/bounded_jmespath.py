"""Evaluate JMESPath expressions within bounds: of steps, and of what is made on the way.

A hundred characters can ask for 2^100 values: `[@,@]|[@,@]|…` by references, `[]` and `join` in
earnest. Every step is counted, and what a function of C would do at once is counted before it.

`$` is the whole input wherever it stands (JEP-17 of JMESPath Community): without it a filter sees
its own element only, and nothing that stands beside the list.
"""

from __future__ import annotations

from typing import Any, Final

from jmespath.exceptions import JMESPathTypeError, ParseError
from jmespath.functions import Functions
from jmespath.lexer import Lexer
from jmespath.parser import ParsedResult, Parser
from jmespath.visitor import Options, TreeInterpreter

from flowd.errors import Fail
from flowd.workflow.json_size import JsonSizes

# A step takes about a microsecond, and leaves no more than some 50 bytes.
STEPS_MAX: Final = 3_000_000
# What C compares or copies counts as a step for so many characters.
_CHARS_PER_STEP: Final = 16
_VALUE_CHARS_SHOWN_MAX: Final = 200


def search(expression: str, value: Any, result_bytes_max: int) -> Any:
    """The result of an expression. Raises JMESPathError, and Fail when it would take too much."""
    effort = _Effort()
    interpreter = _Interpreter(effort, value)
    try:
        result = interpreter.visit(parse_expression(expression), value)
    except JMESPathTypeError as error:
        # The text of the error has the value in it.
        if effort.size_of(error.current_value) <= _VALUE_CHARS_SHOWN_MAX:
            raise
        raise Fail(
            f"config.expression cannot be applied: {error.function_name}() got a value of type "
            f"{error.actual_type}; it takes {', '.join(error.expected_types)}"
        ) from None
    size = effort.size_of(result)
    if size > result_bytes_max:
        raise Fail(f"the result has at least {size:.3g} bytes; at most {result_bytes_max} are kept")
    return result


def parse_expression(expression: str) -> Any:
    """The tree of an expression. Raises JMESPathError, and RecursionError when it goes too deep."""
    return _Parser().parse(expression).parsed


class _Lexer(Lexer):
    SIMPLE_TOKENS = {**Lexer.SIMPLE_TOKENS, "$": "root"}  # noqa: RUF012 - as it is declared there


class _Parser(Parser):
    BINDING_POWER = {**Parser.BINDING_POWER, "root": 0}  # noqa: RUF012 - as it is declared there
    _CACHE: dict[str, ParsedResult] = {}  # noqa: RUF012 - what is parsed without `$` is another's

    def _parse(self: Any, expression: str) -> ParsedResult:
        # As the original, which takes no lexer.
        self._tokens = list(_Lexer().tokenize(expression))
        self._index = 0
        parsed = self._expression(binding_power=0)
        if self._current_token() != "eof":
            token = self._lookahead_token(0)
            reason = f"Unexpected token: {token['value']}"
            raise ParseError(token["start"], token["value"], token["type"], reason)
        return ParsedResult(expression, parsed)

    def _token_nud_root(self, _token: Any) -> dict[str, Any]:
        return {"type": "root", "children": []}


class _Effort:
    """What one evaluation has cost so far."""

    def __init__(self) -> None:
        self._steps = 0
        self._sizes = JsonSizes()

    def spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > STEPS_MAX:
            raise Fail(
                f"config.expression takes more than {STEPS_MAX:,} steps on this input; pick what "
                "is needed first, or split the work over several nodes"
            )

    def spend_chars(self, chars: int) -> None:
        self.spend(chars // _CHARS_PER_STEP)

    def size_of(self, value: Any) -> int:
        measured = self._sizes.measured
        size = self._sizes.size(value)
        self.spend((self._sizes.measured - measured) // 4)
        return size

    def spend_comparison(self, left: Any, right: Any) -> None:
        if isinstance(left, dict | list) and isinstance(right, dict | list):
            self.spend(min(self.size_of(left), self.size_of(right)) // 16)
        elif isinstance(left, str) and isinstance(right, str):
            self.spend_chars(min(len(left), len(right)))


class _Interpreter(TreeInterpreter):
    def __init__(self, effort: _Effort, root: Any) -> None:
        self._effort = effort
        self._root = root
        super().__init__(Options(custom_functions=_Functions(effort)))

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self._effort.spend(1)
        return super().visit(node, *args, **kwargs)

    def visit_root(self, _node: Any, _value: Any) -> Any:
        return self._root

    def visit_comparator(self, node: Any, value: Any) -> Any:
        left, right = (self.visit(child, value) for child in node["children"])
        self._effort.spend_comparison(left, right)
        name = node["value"]
        if name not in ("eq", "ne") and not (_has_order(left) and _has_order(right)):
            return None
        return self.COMPARATOR_FUNC[name](left, right)

    def visit_multi_select_dict(self, node: Any, value: Any) -> Any:
        # A small dict has the memory of some four small lists.
        self._effort.spend(3)
        return super().visit_multi_select_dict(node, value)

    def visit_flatten(self, node: Any, value: Any) -> Any:
        base = self.visit(node["children"][0], value)
        if isinstance(base, list):
            self._effort.spend(len(base))
            self._effort.spend(sum(len(one) for one in base if isinstance(one, list)))
        looked_up: Any = {**node, "children": [{"type": "literal", "value": base}]}
        return super().visit_flatten(looked_up, value)

    def visit_slice(self, node: Any, value: Any) -> Any:
        if isinstance(value, list):
            self._effort.spend(len(value))
        return super().visit_slice(node, value)

    def visit_expref(self, node: Any, value: Any) -> Any:
        return _Expression(super().visit_expref(node, value), self._effort)


class _Expression:
    """What `&key` stands for; JMESPath knows it by the name of its class.

    Texts that are sorted by are compared as often as they are made, or nearly.
    """

    def __init__(self, original: Any, effort: _Effort) -> None:
        self.expression = original.expression
        self._original = original
        self._effort = effort

    def visit(self, node: Any, value: Any) -> Any:
        result = self._original.visit(node, value)
        if isinstance(result, str):
            self._effort.spend_chars(len(result))
        return result


def _has_order(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


class _Functions(Functions):
    """Those of JMESPath; what their work grows with is counted before it is done."""

    def __init__(self, effort: _Effort) -> None:
        self._effort = effort

    def call_function(self, function_name: str, resolved_args: Any) -> Any:
        lists = [one for one in resolved_args if isinstance(one, dict | list)]
        self._effort.spend(sum(map(len, lists)))
        if function_name in ("join", "max", "min", "reverse", "sort"):
            texts = [one for part in lists for one in part if isinstance(one, str)]
            texts += (one for one in resolved_args if isinstance(one, str))
            self._effort.spend_chars(sum(map(len, texts)))
        if function_name == "join" and lists and isinstance(resolved_args[0], str):
            self._effort.spend_chars(len(resolved_args[0]) * len(lists[0]))
        elif function_name == "to_string":
            # Writing is slow, and the text stays.
            self._effort.spend_chars(8 * sum(map(self._effort.size_of, lists)))
        elif function_name == "contains" and len(resolved_args) == 2:
            self._spend_search(*resolved_args)
        return super().call_function(function_name, resolved_args)

    def _spend_search(self, subject: Any, search: Any) -> None:
        if isinstance(subject, list):
            each = len(subject) * self._effort.size_of(search)
            self._effort.spend(min(each, self._effort.size_of(subject)) // 16)
        elif isinstance(subject, str):
            self._effort.spend_chars(len(subject))
