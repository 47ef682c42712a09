"""YAML as JSON: the core schema of YAML 1.2, in which `on`, `no`, `012` and `12:30` are what they
look like, and nothing that JSON does not have."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Set
from typing import Any, Final, NamedTuple

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


class YamlDocument(NamedTuple):
    """`body` is what it says, as JSON; `tree` are its nodes, which know their lines."""

    line: int
    body: bytes | BadYaml
    tree: Any


def yaml_to_json(
    data: bytes, what: str = "workflow", marks: Set[str] = frozenset({"dag"})
) -> bytes:
    """The one document there is, null where there is none, or the only one among several that has
    one of these keys. Raises BadYaml, where `what` is the name of such a document."""
    documents = [one for one in read_documents(data) if one.body != b"null"]
    if len(documents) > 1:
        meant = [one for one in documents if _has_one(one.body, marks)]
        if len(meant) != 1:
            message = (
                f"a file holds one {what}, and here a second document begins; "
                "`flowd apply` takes several"
            )
            raise BadYaml(documents[1].line, message)
        documents = meant
    body = documents[0].body if documents else b"null"
    if isinstance(body, BadYaml):
        raise body
    return body


def is_workflow(body: bytes | BadYaml) -> bool:
    """Whether a document among others is meant to be one."""
    return _has_one(body, {"dag"})


def _has_one(body: bytes | BadYaml, marks: Set[str]) -> bool:
    content = json.loads(body) if isinstance(body, bytes) else None
    return isinstance(content, dict) and not marks.isdisjoint(content)


def read_documents(data: bytes) -> Iterator[YamlDocument]:
    """Each document of a stream. Raises BadYaml where the stream itself cannot be read."""
    try:
        lines = _first_lines(data)
        loader = _CoreLoader(data)
        for line in lines:
            loader.check_node()
            tree = loader.get_node()
            yield YamlDocument(line, _body_of(loader, tree), tree)
    except yaml.YAMLError as error:
        raise _bad(error) from None


def _body_of(loader: Any, tree: Any) -> bytes | BadYaml:
    try:
        return _as_json(loader.construct_document(tree))
    except yaml.YAMLError as error:
        return _bad(error)
    except BadYaml as error:
        return error


# Where the library says less than it could.
_SAID: Final = {
    "found character that cannot start any token": (
        "nothing begins with this character; indent with spaces, not tabs, and put a text that "
        "begins with @, ` or % in quotes"
    )
}


def _bad(error: yaml.YAMLError) -> BadYaml:
    mark: Any = getattr(error, "problem_mark", None)
    # What stands on a second line is where, in words of the library's own.
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    problem = _SAID.get(problem, problem)
    line = mark.line + 1 if mark else None
    return BadYaml(line, f"this is neither JSON nor YAML: {problem}")


def _first_lines(data: bytes) -> list[int]:
    """Where each document begins. Raises BadYaml for one that is nested too deeply."""
    depth, lines = 0, []
    for event in yaml.parse(data, _Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.DocumentStartEvent):
            lines.append(line)
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise BadYaml(line, "this is nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return lines


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
