"""A copy of the repository in which one line is another."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

from tests.mutants.table import Mutant

ROOT = Path(__file__).parents[2]
# A mutant may make its test wait for what never comes; the slowest test has this and its deadline.
LIMIT_S = 600.0
_COPIED = ("flowd", "tests", "scripts", "pyproject.toml", "flowd.toml", "README.md")
_FAILED = 1


@cache
def sources() -> dict[Path, str]:
    found = (ROOT / "flowd").rglob("*")
    return {one: one.read_text() for one in found if one.suffix in (".py", ".lua")}


def places(mutant: Mutant) -> list[Path]:
    """The files its line is in, each as often as it is there."""
    return [one for one, text in sources().items() for _ in range(text.count(mutant.line))]


@cache
def defined_tests() -> dict[str, list[Path]]:
    """The files that each name of a test stands in."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found[node.name].append(path)
    return found


def copy(folder: Path) -> None:
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".flowd")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)


def notices(mutant: Mutant, folder: Path) -> tuple[bool, str]:
    """Whether its test fails where the line is the other, and what pytest says."""
    (path,) = places(mutant)
    copy(folder)
    broken = folder / path.relative_to(ROOT)
    broken.write_text(broken.read_text().replace(mutant.line, mutant.instead))
    name, bracket, parameters = mutant.test.partition("[")
    test = f"{defined_tests()[name][0].relative_to(ROOT)}::{name}{bracket}{parameters}"
    command = [sys.executable, "-m", "pytest", "-x", "-m", "thorough or not thorough", test]
    try:
        ended = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return True, "it did not end"
    # A test that could not begin, as a busy machine has it now and then, has noticed nothing.
    has_failed = ended.returncode == _FAILED and "\nFAILED " in ended.stdout
    return has_failed, ended.stdout[-2_000:] + ended.stderr[-2_000:]
