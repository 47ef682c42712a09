"""The documents of files and folders, and where in them a problem stands."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from flowd.cli.workflow_file import EMPTY, is_json, name_of, read_file
from flowd.errors import Problem
from flowd.workflow.ids import WORKFLOW, is_name

if TYPE_CHECKING:
    from flowd.client import ApiError

_SUFFIXES: Final = (".yaml", ".yml", ".json")
# `flowd schema > workflow.schema.json` stands beside the workflows that name it.
_SCHEMA: Final = ".schema.json"
_UNREADABLE: Final = "unreadable_file"
_NODE: Final = re.compile(r"dag\.(nodes|finally)\[(\d+)\]\.?")
_LINE: Final = re.compile(r": line (\d+) column")


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem and where it is: `line` of the file, `node` its id, None where they are not known;
    `place` is the path, within the node where there is one."""

    file: str
    line: int | None
    node: str | None
    place: str
    problem: Problem

    def to_json(self) -> dict[str, Any]:
        """For programs, beside the name of the file."""
        return {
            "line": self.line,
            "node_id": self.node,
            "path": self.problem.path,
            "code": self.problem.code,
            "message": self.problem.message,
        }

    def __str__(self) -> str:
        if self.problem.code == _UNREADABLE:
            return f"flowd: {self.problem.message}"
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        node = None if self.node is None else f"node {self.node!r}"
        return ": ".join(filter(None, (place, node, self.place, self.problem.message)))


class Verdict(NamedTuple):
    """What a check finds in a document; `nodes` is how many a valid workflow has."""

    problems: Sequence[Problem]
    nodes: int = 0


@dataclass(frozen=True)
class Document:
    """`body` is its JSON; `tree` are its nodes where it was YAML, `line` is where it begins."""

    file: str
    line: int
    body: bytes
    tree: Any = None

    def findings(self, problems: Sequence[Problem]) -> list[Finding]:
        """The same, in the order of the file."""
        # Not at the top: most documents have no problem.
        from flowd.cli.lines import line_of, lines_in_json, lines_in_yaml

        paths = [one.path for one in problems]
        if self.tree is None:
            lines = lines_in_json(self.body.decode("utf-8", "replace"), paths)
        else:
            lines = lines_in_yaml(self.tree, paths)
        found = []
        for one in problems:
            line = _line_of_syntax(one) or line_of(one.path, lines)
            found.append(Finding(self.file, line, *self._node_of(one.path), one))
        return sorted(found, key=lambda one: one.line or 0)

    @cached_property
    def _content(self) -> Any:
        return json.loads(self.body)

    def _node_of(self, path: str) -> tuple[str | None, str]:
        """The id of the node a path leads into, and the rest of the path."""
        match = _NODE.match(path)
        if match is None:
            return None, path
        node = self._content["dag"][match[1]][int(match[2])]
        node_id = node.get("id") if isinstance(node, dict) else None
        if not isinstance(node_id, str):
            return None, path
        return node_id, path[match.end() :]


def nodes_of(content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The nodes of a definition, each with its path; nothing of what is malformed."""
    dag = content.get("dag") if isinstance(content, dict) else None
    for part in ("nodes", "finally"):
        nodes = dag.get(part) if isinstance(dag, dict) else None
        for at, node in enumerate(nodes if isinstance(nodes, list) else ()):
            if isinstance(node, dict):
                yield f"dag.{part}[{at}]", node


def child_names(content: Any) -> Iterator[tuple[str, str]]:
    """The saved workflows that its nodes run, each with its path; nothing of what is malformed."""
    for path, node in nodes_of(content):
        config = node.get("config")
        name = config.get("name") if isinstance(config, dict) else None
        if isinstance(name, str) and is_name(name) and node.get("handler") == WORKFLOW:
            yield f"{path}.config.name", name


def _line_of_syntax(problem: Problem) -> int | None:
    match = _LINE.search(problem.message) if problem.code == "invalid_json" else None
    return int(match[1]) if match else None


def find_files(paths: Sequence[str], *, may_be_none: bool = False) -> Iterator[str]:
    """The files among them, and those of workflows in the folders, at any depth; hidden ones and
    the schema of an editor are left out. Raises ClickException for a folder without any, unless
    there `may_be_none`."""
    for path in paths:
        # What may not be looked at is read, and the reason said.
        if path == "-" or not os.path.isdir(path):  # noqa: PTH112
            yield path
            continue
        found = sorted(_files_below(Path(path)))
        if not found and not may_be_none:
            endings = ", ".join(_SUFFIXES)
            raise click.ClickException(f"{path} holds no workflow: no file ends in {endings}")
        yield from found


def _files_below(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [one for one in folders if not one.startswith(".")]
        for name in files:
            if name.endswith(_SUFFIXES) and not (name.startswith(".") or name.endswith(_SCHEMA)):
                yield str(Path(place, name))


def read_documents(file: str) -> Iterator[Document | Finding]:
    """Each document of a file, or what is wrong with it as YAML; empty ones beside others are left
    out. Raises ClickException where the file cannot be read."""
    name, data = name_of(file), read_file(file)
    if data.strip() and is_json(file, data):
        yield Document(name, 1, data)
        return
    from flowd.cli import workflow_yaml as yaml

    bad = partial(_bad_yaml, name)
    try:
        found = [one for one in yaml.read_documents(data) if one.body != b"null"]
    except yaml.BadYaml as error:
        yield bad(error)
        return
    for one in found:
        if isinstance(one.body, yaml.BadYaml):
            yield bad(one.body)
        else:
            yield Document(name, one.line, one.body, one.tree)
    if not found:
        yield Finding(name, None, None, "", Problem("", "empty", EMPTY))


def findings_in(file: str, problems: Sequence[Problem]) -> Iterator[Finding]:
    """Where in a file stands what is wrong with the workflow in it."""
    from flowd.cli.workflow_yaml import is_workflow

    found = [one for one in read_documents(file) if not isinstance(one, Finding)]
    for document in found:
        if len(found) == 1 or is_workflow(document.body):
            yield from document.findings(problems)


def unreadable(file: str, error: click.ClickException) -> Finding:
    """What `read_documents` has raised."""
    return Finding(name_of(file), None, None, "", Problem("", _UNREADABLE, error.message))


def _bad_yaml(name: str, error: Any) -> Finding:
    return Finding(name, error.line, None, "", Problem("", "invalid_yaml", str(error)))


def problems_of(error: ApiError) -> list[Problem]:
    """What flowd refused, as the checks here say it: a workflow may be a part of the body."""
    return [
        Problem(re.sub(r"^definition\.?", "", one.get("path", "")), one["code"], one["message"])
        for one in error.errors
    ]
