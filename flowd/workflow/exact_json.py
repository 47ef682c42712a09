"""JSON with every number as it was written: what would be changed in silence is an error.

orjson rounds an integer beyond 64 bits and a decimal beyond a double, and writes NaN as null.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from decimal import Context, Decimal
from enum import Enum
from typing import Any, Final

import orjson

INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**64 - 1
_SHOWN_CHARS_MAX: Final = 60
# Where what is no JSON is looked for: orjson goes no deeper, and what contains itself has no end.
_PLACES_MAX: Final = 20_000
_LEVELS_MAX: Final = 255
_END: Final = object()
# A double keeps fifteen digits, whatever they are; with the point these are sixteen characters.
_LONG_CHARS: Final = 16
_TINY_NUMBER: Final = re.compile(rb"(?:^|[\s:,\[])-?[0-9.]+[eE]-[0-9]{3}")
# An answer has megabytes: these look through one in the time of a copy, an expression takes fifty.
_SHAPE: Final = bytes(
    ord("0")
    if one in b"0123456789."
    else ord("e")
    if one in b"eE"
    else ord("-")
    if one == 45
    else 32
    for one in range(256)
)
_NUMBERS_ONLY: Final = bytes(one if one in b"0123456789." else 32 for one in range(256))
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class InexactNumber(ValueError):
    """A number that would not be the same afterwards. `str(error)` is a sentence."""


def loads(data: bytes) -> Any:
    """The document. Raises InexactNumber, and ValueError for what is no JSON.

    Half a surrogate pair, which no text can hold, becomes U+FFFD.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        if b"\\ud" not in data.lower():
            raise
        data = _without_lone_surrogates(data)
        document = orjson.loads(data)
    if may_be_inexact(data, document):
        _load_slowly(data)
    return document


def may_be_inexact(data: bytes, document: Any) -> bool:
    """False when every number of a parsed document is as it was written, and at times when not."""
    shape = data.translate(_SHAPE)
    if b"0" * _LONG_CHARS in shape and _long_numbers(data) != _long_numbers(orjson.dumps(document)):
        return True
    return b"0e-000" in shape and _TINY_NUMBER.search(data) is not None


def _long_numbers(data: bytes) -> list[bytes]:
    return [one for one in data.translate(_NUMBERS_ONLY).split() if len(one) >= _LONG_CHARS]


def dumps(value: Any) -> bytes:
    """Compact JSON. Raises InexactNumber for NaN and infinity, TypeError for what is no JSON; each
    says where that is."""
    try:
        text = orjson.dumps(value)
    except TypeError as error:
        raise TypeError(_misfit(value) or str(error)) from None
    # There is None far more often than NaN, and this encoder tells them apart in C.
    if b"null" in text and not _is_finite(value):
        for path, number in _not_finite(value):
            raise InexactNumber(f"{_place(path)} is {number}, which JSON has not")
    return text


def _misfit(value: Any) -> str | None:
    """The first of what orjson does not take, of as many as are looked at."""
    levels: list[Iterator[tuple[str, Any]]] = [iter([("", value)])]
    for _ in range(_PLACES_MAX):
        path, one = next(levels[-1], ("", _END))
        if one is _END:
            levels.pop()
            if not levels:
                break
        elif type(one) is dict and (strange := _strange_key(one)):
            return f"{_place(path)} has {strange} as a key, and JSON has only texts"
        elif type(one) in (dict, list, tuple):
            levels.append(_children(path, one))
        elif not _is_taken(one):
            return f"{_place(path)} is {_described(one)}"
        if len(levels) > _LEVELS_MAX:
            break
    return None


def _strange_key(around: Mapping[Any, Any]) -> str | None:
    return next((_kind(type(one).__name__) for one in around if not isinstance(one, str)), None)


def _children(path: str, around: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(around, dict):
        yield from ((f"{path}.{key}", child) for key, child in around.items())
    else:
        yield from ((f"{path}[{at}]", child) for at, child in enumerate(around))


def _is_taken(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def _described(value: Any) -> str:
    if isinstance(value, int):
        return "an integer beyond 64 bits"
    if isinstance(value, str):
        return "text with half a surrogate pair, which UTF-8 has not"
    return f"{_kind(type(value).__name__)}, which JSON has not"


def _kind(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _place(path: str) -> str:
    return path.removeprefix(".") or "it"


def _is_finite(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False, check_circular=False, default=_plain)
    except ValueError:
        return False
    return True


def _plain(value: Any) -> Any:
    """What orjson takes and json does not. The others hold no number."""
    if isinstance(value, Enum):
        return value.value
    return vars(value) if dataclasses.is_dataclass(value) else None


def fits_integer(written: str) -> bool:
    return len(written) <= 20 and INTEGER_MIN <= int(written) <= INTEGER_MAX


def fits_float(written: str) -> bool:
    """True when a double is the number written, or what its writer had.

    A double printed with more digits than it needs, such as 0.10000000000000000555, is that double.
    """
    number = float(written)
    if not math.isfinite(number):
        return False
    _, point, decimals = written.partition(".")
    if point and decimals.isdigit() and written == f"{number:.{len(decimals)}f}":
        return True
    exact = Decimal(written)
    if exact == Decimal(repr(number)):
        return True
    return exact == Context(prec=len(exact.as_tuple().digits)).create_decimal(Decimal(number))


def exact_float(written: str) -> float:
    """The `parse_float` of a reader. Raises InexactNumber."""
    if not fits_float(written):
        raise InexactNumber(f"the number {_shown(written)} has more digits than 64 bits hold")
    return float(written)


def _load_slowly(data: bytes) -> Any:
    try:
        return json.loads(data, parse_int=_integer, parse_float=exact_float)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _integer(written: str) -> int:
    if not fits_integer(written):
        raise InexactNumber(f"the integer {_shown(written)} does not fit into 64 bits")
    return int(written)


def _shown(written: str) -> str:
    return written if len(written) <= _SHOWN_CHARS_MAX else f"{written[:_SHOWN_CHARS_MAX]}..."


def _without_lone_surrogates(data: bytes) -> bytes:
    try:
        document = json.loads(
            data, parse_constant=_no_json, parse_int=_integer, parse_float=exact_float
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    text = json.dumps(document, ensure_ascii=False)
    return _LONE_SURROGATE.sub("\ufffd", text).encode()


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _not_finite(value: Any) -> Iterator[tuple[str, float]]:
    """Every NaN and infinity that orjson would write, with the path to it."""
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        path, one = pending.pop()
        if isinstance(one, float):
            if not math.isfinite(one):
                yield path, one
        elif isinstance(one, dict):
            pending += [(f"{path}.{key}", child) for key, child in one.items()]
        elif isinstance(one, list | tuple):
            pending += [(f"{path}[{index}]", child) for index, child in enumerate(one)]
        elif isinstance(one, Enum) or dataclasses.is_dataclass(one):
            pending.append((path, _plain(one)))
