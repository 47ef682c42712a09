"""Decide `A.score > 5 and input.env == 'prod'`: boolean expressions over the look-ups of templates.

The syntax is Jinja2's, cut down to what always ends: literals, look-ups, comparisons, `and`, `or`,
`not`, the filters `default` and `length`, the test `is defined`. No calls, no arithmetic, no loops:
a decision costs no more than one walk over what it reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

import orjson

from flowd.errors import TemplateError
from flowd.workflow.definition import CONDITION_CHARS_MAX
from flowd.workflow.templating import abridge, describe_type, format_step, look_up, unquote

NESTING_MAX: Final = 50
# `nodes['5']` reads a node whose id is a word or a number here.
NODES: Final = "nodes"

_WORDS: Final = frozenset({"and", "or", "not", "in", "is", "true", "false", "null"})
_CONSTANTS: Final[Mapping[str, Any]] = {"true": True, "false": False, "null": None}
_ORDERINGS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w-]))
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<name>[A-Za-z0-9_][A-Za-z0-9_-]*)
      | (?P<sign>==|!=|<=|>=|[<>()\[\],|.])
      | (?P<end>$)
    )""",
    re.VERBOSE | re.DOTALL,
)


class MalformedCondition(TemplateError):
    """A text that is no condition; says where reading stopped."""


class UndecidedCondition(TemplateError):
    """The values a condition found cannot be compared, or are not there; never names a value."""


class Read(NamedTuple):
    """A name a condition looks up; `is_guarded` where a missing value is no error."""

    name: str
    step: str | int | None
    is_guarded: bool


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


T = TypeVar("T")
Scope = Mapping[str, Any]
_Evaluate = Callable[[Scope], Any]


class _Missing(Exception):
    """A look-up found nothing; carries the sentence that says so."""


@dataclass(frozen=True, slots=True)
class _Operand:
    """A value with the words it was written in, for errors; where it is true, there is something of
    each name that it `proves`."""

    evaluate: _Evaluate
    written: str
    reads: tuple[Read, ...] = ()
    proves: frozenset[str] = frozenset()


class Condition:
    """A condition ready to be decided.

    `reads` are the names it looks up, each with the first step behind it, in the order they are
    written. `decide` takes a scope of names and raises UndecidedCondition where there is no answer.
    """

    __slots__ = ("_evaluate", "reads", "text")

    def __init__(self, text: str) -> None:
        """Raises MalformedCondition."""
        operand = _Parser(text).parse()
        self.text = text
        self.reads = operand.reads
        self._evaluate = operand.evaluate

    def decide(self, scope: Scope) -> bool:
        """True or false. `scope` has a value for each name: outputs by node id, `input`, …"""
        try:
            return _truth(self._evaluate(scope), self.text)
        except _Missing as missing:
            raise UndecidedCondition(
                f"{missing}; write `is defined` or `| default(…)` where it may be missing"
            ) from None


class _Parser:
    """Recursive descent, a method for each level of precedence, the loosest first."""

    def __init__(self, text: str) -> None:
        if len(text) > CONDITION_CHARS_MAX:
            raise MalformedCondition(
                f"a condition has at most {CONDITION_CHARS_MAX:,} characters, this one has "
                f"{len(text):,}"
            )
        self._text = text
        self._tokens = list(_tokens(text))
        self._at = 0
        self._nesting = 0

    def parse(self) -> _Operand:
        operand = self._either()
        if self._next.kind != "end":
            self._refuse("expected `and`, `or` or the end")
        return operand

    # The levels.

    def _either(self) -> _Operand:
        return self._joined("or", self._both, is_decided_by=True)

    def _both(self) -> _Operand:
        return self._joined("and", self._inverted, is_decided_by=False)

    def _joined(
        self, word: str, operand: Callable[[], _Operand], *, is_decided_by: bool
    ) -> _Operand:
        """Operands between one word; the first that decides leaves the others out."""
        parts = [operand()]
        while self._take(word):
            parts.append(operand())
        if len(parts) == 1:
            return parts[0]

        def evaluate(scope: Scope) -> bool:
            for part in parts:
                if _truth(part.evaluate(scope), part.written) is is_decided_by:
                    return is_decided_by
            return not is_decided_by

        if is_decided_by:
            return _combined(evaluate, f" {word} ", parts)
        return _combined(evaluate, f" {word} ", _behind_proofs(parts), _proven_by(parts))

    def _inverted(self) -> _Operand:
        if not self._take("not"):
            return self._compared()
        with_not = self._nested(self._inverted)
        return _Operand(
            lambda scope: not _truth(with_not.evaluate(scope), with_not.written),
            f"not {with_not.written}",
            with_not.reads,
        )

    def _compared(self) -> _Operand:
        left = self._filtered()
        operator = self._take_operator()
        if operator is None:
            return left
        right = self._filtered()
        if self._take_operator() is not None:
            self._at -= 1
            self._refuse("one comparison at a time; write `a < b and b < c`")
        compare = _comparison(operator, left, right)
        return _combined(compare, f" {operator} ", [left, right])

    def _filtered(self) -> _Operand:
        """A value with its filters, or the test whether it is there."""
        operand = self._value()
        while self._take("|"):
            operand = self._apply_filter(operand)
        if not self._take("is"):
            return operand
        is_negated = self._take("not")
        if not self._take("defined"):
            self._refuse("expected `defined`, the one test there is")
        written = f"{operand.written} is {'not ' if is_negated else ''}defined"
        reads = tuple(read._replace(is_guarded=True) for read in operand.reads)
        proves = () if is_negated else (read.name for read in operand.reads if not read.is_guarded)
        return _Operand(
            lambda scope: _is_there(operand, scope) is not is_negated,
            written,
            reads,
            frozenset(proves),
        )

    def _apply_filter(self, operand: _Operand) -> _Operand:
        name = self._next
        if self._take("length"):
            return _Operand(
                lambda scope: _length(operand.evaluate(scope), operand.written),
                f"{operand.written} | length",
                operand.reads,
            )
        if not self._take("default"):
            self._refuse(f"unknown filter {abridge(name.text)}; there is default, length")
        self._expect("(", 'default needs a value in brackets, such as default("none")')
        fallback = self._literal()
        self._expect(")", "expected `)`")
        reads = tuple(read._replace(is_guarded=True) for read in operand.reads)
        return _Operand(
            lambda scope: _value_or(operand, scope, fallback),
            f"{operand.written} | default({_json(fallback)})",
            reads,
        )

    def _value(self) -> _Operand:
        token = self._next
        if self._take("("):
            inner = self._nested(self._either)
            self._expect(")", "expected `)`")
            return replace(inner, written=f"({inner.written})")
        if token.kind == "name" and token.text not in _WORDS:
            return self._look_up()
        literal = self._literal()
        return _Operand(lambda _scope: literal, _json(literal))

    def _look_up(self) -> _Operand:
        name = self._advance().text
        steps = self._steps()
        if name == NODES and steps and isinstance(steps[0], str):
            name, steps = steps[0], steps[1:]
        written = name + "".join(format_step(step) for step in steps)

        def evaluate(scope: Scope) -> Any:
            try:
                return look_up(scope, name, steps)
            except TemplateError as error:
                raise _Missing(str(error)) from None

        return _Operand(evaluate, written, (Read(name, steps[0] if steps else None, False),))

    def _steps(self) -> tuple[str | int, ...]:
        steps: list[str | int] = []
        while True:
            if self._take("."):
                if self._next.kind not in ("name", "number"):
                    self._refuse("expected a key behind the dot")
                steps.append(self._advance().text)
            elif self._take("["):
                steps.append(self._index())
                self._expect("]", "expected `]`")
            else:
                return tuple(steps)

    def _index(self) -> str | int:
        token = self._next
        if token.kind == "string":
            index: str | int = unquote(token.text, token.position)
        elif token.kind == "number" and token.text.isdigit():
            index = int(token.text)
        else:
            self._refuse("expected a number or a text in quotes")
        self._advance()
        return index

    def _literal(self) -> Any:
        token = self._next
        if token.kind == "string":
            value: Any = unquote(token.text, token.position)
        elif token.kind == "number":
            value = self._number(token.text)
        elif token.text in _CONSTANTS:
            value = _CONSTANTS[token.text]
        elif self._take("["):
            return self._nested(self._list)
        else:
            self._refuse("expected a value")
        self._advance()
        return value

    def _number(self, written: str) -> int | float:
        try:
            number: int | float = orjson.loads(written)
        except orjson.JSONDecodeError:
            self._refuse("this is no number as JSON has them")
        return number

    def _list(self) -> list[Any]:
        items: list[Any] = []
        while not self._take("]"):
            if items:
                self._expect(",", "expected `,` or `]`")
            items.append(self._literal())
        return items

    # The tokens.

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _advance(self) -> _Token:
        token = self._tokens[self._at]
        if token.kind != "end":
            self._at += 1
        return token

    def _take(self, text: str) -> bool:
        if self._next.text != text or self._next.kind == "string":
            return False
        self._at += 1
        return True

    def _take_operator(self) -> str | None:
        for operator in ("==", "!=", *_ORDERINGS, "in"):
            if self._take(operator):
                return operator
        if self._next.text == "not" and self._tokens[self._at + 1].text == "in":
            self._at += 2
            return "not in"
        return None

    def _expect(self, text: str, complaint: str) -> None:
        if not self._take(text):
            self._refuse(complaint)

    def _nested(self, parse: Callable[[], T]) -> T:
        self._nesting += 1
        if self._nesting > NESTING_MAX:
            self._refuse(f"nested more than {NESTING_MAX} deep")
        parsed = parse()
        self._nesting -= 1
        return parsed

    def _refuse(self, complaint: str) -> NoReturn:
        token = self._next
        place = (
            "at the end" if token.kind == "end" else f"at {abridge(self._text[token.position :])}"
        )
        raise MalformedCondition(f"{complaint} ({place})")


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while True:
        found = _TOKEN.match(text, position)
        if found is None or found.lastgroup is None:
            rest = text[position:].lstrip()
            raise MalformedCondition(f"cannot read {abridge(rest)}{_cure(rest)}")
        kind = found.lastgroup
        yield _Token(kind, found[kind], found.start(kind))
        if kind == "end":
            return
        position = found.end()


def _cure(rest: str) -> str:
    """What to write instead of what is most often meant with this."""
    if rest.startswith(("{{", "}}", "{%", "%}")):
        return "; a condition stands without braces"
    signs = {"=": "==", "!": "not", "&": "and"}
    for sign, word in signs.items():
        if rest.startswith(sign):
            return f"; write `{word}`"
    return ""


def _combined(
    evaluate: _Evaluate, between: str, parts: list[_Operand], proves: frozenset[str] = frozenset()
) -> _Operand:
    return _Operand(
        evaluate,
        between.join(part.written for part in parts),
        tuple(read for part in parts for read in part.reads),
        proves,
    )


def _proven_by(parts: Iterable[_Operand]) -> frozenset[str]:
    return frozenset(name for part in parts for name in part.proves)


def _behind_proofs(parts: Sequence[_Operand]) -> list[_Operand]:
    """Parts between `and`: what one has proved to be there, those behind it read as they like."""
    return [
        replace(
            part,
            reads=tuple(
                read._replace(is_guarded=read.is_guarded or read.name in _proven_by(parts[:at]))
                for read in part.reads
            ),
        )
        for at, part in enumerate(parts)
    ]


def _comparison(operator: str, left: _Operand, right: _Operand) -> _Evaluate:
    if operator in _ORDERINGS:
        order = _ORDERINGS[operator]

        def compare(scope: Scope) -> bool:
            values = left.evaluate(scope), right.evaluate(scope)
            if not (all(map(_is_number, values)) or all(isinstance(one, str) for one in values)):
                _refuse_pair("are not ordered", left, right, values)
            return order(*values)

        return compare
    if operator in ("==", "!="):
        wanted = operator == "=="
        return lambda scope: _equal(left.evaluate(scope), right.evaluate(scope)) is wanted
    is_wanted = operator == "in"

    def contains(scope: Scope) -> bool:
        item, holder = left.evaluate(scope), right.evaluate(scope)
        if isinstance(holder, list):
            return any(_equal(item, one) for one in holder) is is_wanted
        if isinstance(holder, str | dict) and isinstance(item, str):
            return (item in holder) is is_wanted
        _refuse_pair(f"do not go with `{operator}`", left, right, (item, holder))

    return contains


def _refuse_pair(
    complaint: str, left: _Operand, right: _Operand, values: tuple[Any, Any]
) -> NoReturn:
    kinds = [describe_type(value) for value in values]
    raise UndecidedCondition(
        f"{left.written} ({kinds[0]}) and {right.written} ({kinds[1]}) {complaint}"
    )


def _truth(value: Any, written: str) -> bool:
    if not isinstance(value, bool):
        raise UndecidedCondition(
            f"{written} is {describe_type(value)}, where true or false is needed"
        )
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(left: Any, right: Any) -> bool:
    """As JSON: true is not 1, 1 is 1.0; without recursion, in one walk."""
    pending = [(left, right)]
    while pending:
        one, other = pending.pop()
        if isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            pending += zip(one, other, strict=True)
        elif isinstance(one, dict) and isinstance(other, dict):
            if one.keys() != other.keys():
                return False
            pending += ((value, other[key]) for key, value in one.items())
        elif isinstance(one, bool) is not isinstance(other, bool) or one != other:
            return False
    return True


def _length(value: Any, written: str) -> int:
    if not isinstance(value, str | list | dict):
        raise UndecidedCondition(f"{written} is {describe_type(value)}, it has no length")
    return len(value)


def _is_there(operand: _Operand, scope: Scope) -> bool:
    try:
        operand.evaluate(scope)
    except _Missing:
        return False
    return True


def _value_or(operand: _Operand, scope: Scope, fallback: Any) -> Any:
    try:
        return operand.evaluate(scope)
    except _Missing:
        return fallback


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
