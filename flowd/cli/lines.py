"""Find the lines of a file where the places stand that problems name: `dag.nodes[2].config.url`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from flowd.workflow.strict_json import join_path

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[][{},:]|[^][{},:"\s]+|\n')


def line_of(path: str, lines: Mapping[str, int]) -> int | None:
    """Where it stands, or what is nearest around it, if that was found."""
    return next((lines[one] for one in _with_all_around(path) if one in lines), None)


def _with_all_around(path: str) -> Iterator[str]:
    """The path, and those of everything it may be in; the innermost first."""
    yield path
    for at in range(len(path) - 1, 0, -1):
        if path[at] in ".[":
            yield path[:at]
    yield ""


class _Wanted:
    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = {one for path in paths for one in _with_all_around(path)}
        self.lines: dict[str, int] = {}

    def note(self, path: str | None, line: int) -> None:
        if path is not None:
            self.lines[path] = line

    def key(self, path: str | None, key: str) -> str | None:
        """The path of a key of an object, None where nobody wants it or what is in it."""
        if path is None:
            return None
        # Some problems name their place as it would be written without quotes.
        spellings = (join_path(path, key), f"{path}.{key}" if path else key)
        return next((one for one in spellings if one in self._paths), None)

    def item(self, path: str | None, index: int) -> str | None:
        place = f"{path}[{index}]"
        return place if path is not None and place in self._paths else None


def lines_in_yaml(tree: Any, paths: Iterable[str]) -> Mapping[str, int]:
    """By path, the lines of those and of all around them, in the nodes of a YAML document."""
    wanted = _Wanted(paths)
    wanted.note("", tree.start_mark.line + 1)
    pending: list[tuple[str, Any]] = [("", tree)]
    while pending:
        path, node = pending.pop()
        if node.id == "mapping":
            children = [
                (wanted.key(path, str(key.value)), key, value)
                for key, value in node.value
                if key.id == "scalar"
            ]
        elif node.id == "sequence":
            children = [(wanted.item(path, at), one, one) for at, one in enumerate(node.value)]
        else:
            continue
        for place, mark, value in children:
            if place is not None:
                wanted.note(place, mark.start_mark.line + 1)
                pending.append((place, value))
    return wanted.lines


def lines_in_json(text: str, paths: Iterable[str]) -> Mapping[str, int]:
    """As `lines_in_yaml`, in JSON that may be wrong: what cannot be read is passed over."""
    wanted = _Wanted(paths)
    wanted.note("", 1)
    # Of each container around: its path, and the index of its present item, None in an object.
    around: list[tuple[str | None, int | None]] = []
    line, is_key = 1, False
    here: str | None = ""
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == "\n":
            line += 1
        elif token in "{[":
            if around and around[-1][1] is not None:
                wanted.note(here, line)
            around.append((here, 0 if token == "[" else None))
            is_key = token == "{"
            here = None if is_key else wanted.item(here, 0)
        elif token in "}]":
            around = around[:-1]
            is_key = False
        elif token == "," and around:
            path, index = around[-1]
            is_key = index is None
            if index is not None:
                around[-1] = (path, index + 1)
                here = wanted.item(path, index + 1)
        elif is_key and token[0] == '"' and around:
            is_key = False
            here = wanted.key(around[-1][0], _text(token))
            wanted.note(here, line)
        elif token[0] not in ":," and around and around[-1][1] is not None:
            wanted.note(here, line)
    return wanted.lines


def _text(token: str) -> str:
    try:
        return str(json.loads(token))
    except ValueError:
        return token[1:-1]
