"""The house: rooms that say what they are for, no circle, nothing that outgrows its purpose."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator

import pytest

from scripts.generating.tables import rooms
from tests.manual import ROOT

MODULES = {
    str(path.relative_to(ROOT))
    .removesuffix(".py")
    .removesuffix("/__init__")
    .replace("/", "."): path
    for path in sorted((ROOT / "flowd").rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}

FUNCTION_LINES_MAX = 50
MODULE_LINES_MAX = 500
CLASS_ATTRIBUTES_MAX = 15
# What is larger today. The list may only become shorter, and the numbers smaller.
EXCESS = {
    "flowd.workers.shift.Shift": 24,
}


# What is subclassed, or replaced in parts that are private: a new version may have it otherwise.
BORROWED = ("jmespath", "uvicorn", "httpx2", "redis[hiredis]")


@pytest.mark.parametrize("package", BORROWED)
def test_what_is_subclassed_in_private_parts_has_an_upper_bound(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (bounds,) = [text for text in project["dependencies"] if re.split("[<>=]", text)[0] == package]

    assert "<" in bounds


@pytest.mark.parametrize("room", rooms())
def test_a_room_says_what_it_is_for_what_it_may_use_and_who_calls_it(room: str) -> None:
    text = ast.get_docstring(TREES[room.replace("/", ".")]) or ""
    purpose, _, more = text.partition("\n\n")

    assert purpose.endswith((".", ":"))
    assert "\n" not in purpose
    assert len(more.splitlines()) >= 3
    assert "May use" in more or "no other room" in more


def test_every_package_is_a_room_of_the_layers() -> None:
    packages = {
        str(path.parent.relative_to(ROOT)) for path in (ROOT / "flowd").rglob("__init__.py")
    }

    assert packages - {"flowd"} == set(rooms())


def imports_of(module: str) -> set[str]:
    """Modules of flowd a module imports, wherever in it: at its top, in a function, for types."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return (found & MODULES.keys()) - {module}


def test_no_circle_runs_through_the_modules() -> None:
    """What is imported by nothing that is left is taken away until nothing is: Kahn 1962."""
    left = {module: imports_of(module) for module in MODULES}
    while free := {module for module, wanted in left.items() if not wanted & left.keys()}:
        for module in free:
            del left[module]

    assert left == {}


def sizes() -> Iterator[tuple[str, int, int]]:
    """Everything that has a limit: its name, its size, the limit."""
    for module, path in MODULES.items():
        yield module, len(path.read_text().splitlines()), MODULE_LINES_MAX
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                yield f"{module}.{node.name}", lines, FUNCTION_LINES_MAX
            elif isinstance(node, ast.ClassDef):
                yield f"{module}.{node.name}", len(attributes_of(node)), CLASS_ATTRIBUTES_MAX


def attributes_of(node: ast.ClassDef) -> set[str]:
    """What its instances keep: fields, and what its methods set on self."""
    fields = {
        one.target.id
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }
    return fields | {
        one.attr
        for one in ast.walk(node)
        if isinstance(one, ast.Attribute)
        and isinstance(one.ctx, ast.Store)
        and isinstance(one.value, ast.Name)
        and one.value.id == "self"
    }


def test_nothing_outgrows_its_purpose() -> None:
    too_large = {name: size for name, size, limit in sizes() if size > limit}

    assert too_large.keys() <= EXCESS.keys(), "split it by what it is for"
    assert {name: EXCESS[name] for name in too_large} == EXCESS, "shorten the list: this shrank"
    assert all(size <= EXCESS[name] for name, size in too_large.items())
