"""YAML as JSON: the core schema of YAML 1.2, in which `on`, `no`, `012` and `12:30` are what they
look like, and nothing that JSON does not have."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import yaml

from flowd.workflow.exact_json import fits_float

# Far deeper than any workflow, and far less than the stack bears.
DEPTH_MAX: Final = 200
# No flowd takes more; aliases may stand for any amount.
BYTES_MAX: Final = 16 * 1024 * 1024
_TAG: Final = "tag:yaml.org,2002:"
_DECIMAL: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SCALARS: Final = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", _DECIMAL.pattern, "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
)
_KINDS: Final = ("null", "bool", "int", "float", "str", "seq", "map")


class BadYaml(Exception):
    """`line` counts from 1; None where it is about the whole file."""

    def __init__(self, line: int | None, problem: str) -> None:
        self.line = line
        super().__init__(problem)


# libyaml's parser is ten times as fast, where the wheel has it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _CoreLoader(_Loader):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way
    yaml_constructors = {  # noqa: RUF012
        tag: made
        for tag, made in _Loader.yaml_constructors.items()
        if tag is None or tag in {_TAG + kind for kind in _KINDS}
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == _TAG + "merge":
                continue
            line = key_node.start_mark.line + 1
            if key_node.tag != _TAG + "str":
                raise BadYaml(line, "a key has to be text; put it in quotes")
            if key_node.value in seen:
                raise BadYaml(line, f"the key {key_node.value!r} is written more than once")
            seen.add(key_node.value)
        return dict(super().construct_mapping(node, deep))

    def construct_integer(self, node: Any) -> int:
        try:
            return int(self.construct_scalar(node))
        except ValueError:
            raise BadYaml(node.start_mark.line + 1, "this number is too long") from None

    def construct_real(self, node: Any) -> float:
        written = self.construct_scalar(node)
        value = float(self.construct_yaml_float(node))
        if not math.isfinite(value):
            message = (
                f"{written} is no number that JSON has; write a finite one, or put it in quotes"
            )
            raise BadYaml(node.start_mark.line + 1, message)
        if _DECIMAL.fullmatch(written) and not fits_float(written):
            message = f"{written} has more digits than 64 bits hold; put it in quotes"
            raise BadYaml(node.start_mark.line + 1, message)
        return value


_CoreLoader.add_constructor(_TAG + "int", _CoreLoader.construct_integer)
_CoreLoader.add_constructor(_TAG + "float", _CoreLoader.construct_real)
for _kind, _pattern, _first in _SCALARS:
    # By the first character; an empty scalar has none.
    _CoreLoader.add_implicit_resolver(_TAG + _kind, re.compile(rf"(?:{_pattern})\Z"), list(_first))


def yaml_to_json(data: bytes) -> bytes:
    """Raises BadYaml."""
    try:
        _check_depth(data)
        value = yaml.load(data, _CoreLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # What stands on a second line is where, in words of the library's own.
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        message = f"this is neither JSON nor YAML: {problem}"
        if problem == "but found another document":
            message = "a file holds one workflow, and here a second document begins"
        raise BadYaml(mark.line + 1 if mark else None, message) from None
    return _as_json(value)


def _check_depth(data: bytes) -> None:
    depth = 0
    for event in yaml.parse(data, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                mark = event.start_mark
                raise BadYaml(mark.line + 1 if mark else None, "this is nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _as_json(value: Any) -> bytes:
    parts: list[str] = []
    size = 0
    try:
        for part in json.JSONEncoder().iterencode(value):
            parts.append(part)
            size += len(part)
            if size > BYTES_MAX:
                raise BadYaml(None, "it is too large, with all its aliases written out")
    except (ValueError, RecursionError):
        raise BadYaml(None, "it contains itself, by an alias") from None
    return "".join(parts).encode()
