"""The manual names every setting, and nothing that is not there; its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib import import_module
from itertools import takewhile
from pkgutil import iter_modules
from typing import Any

import click
import pytest

from flowd import __version__
from flowd.api import routers
from flowd.api.contract.openapi import documented_path
from flowd.cli.main import main
from flowd.config.loading import setting_fields
from flowd.config.reference import settings_file
from flowd.handlers.registry import built_in_registry
from flowd.workflow.states import EXECUTION_TRANSITIONS, NODE_TRANSITIONS
from scripts.generating.tables import TABLES
from tests.manual import MANUAL, PAGES, README, ROOT

_ROUTERS = f"{routers.__name__}."


def rows(page: str) -> list[list[str]]:
    """The cells of every row of the page's tables."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
        for line in PAGES[page].splitlines()
        if line.startswith("| ")
    ]


def test_the_newest_changes_are_those_of_this_version() -> None:
    headings = re.findall(r"^## (.+)$", PAGES["changes"], re.MULTILINE)

    assert headings[0] == __version__


@pytest.mark.parametrize("page", TABLES)
def test_a_table_says_what_the_code_says(page: str) -> None:
    assert TABLES[page]() in PAGES[page], "run ./scripts/generate"


def test_the_shipped_settings_say_what_the_code_says() -> None:
    assert (ROOT / "flowd.toml").read_text() == settings_file(), "run ./scripts/generate"


def test_each_example_of_a_setting_is_one_it_takes() -> None:
    tables = tomllib.loads(re.sub(r"(?m)^# (\w+ = .*)$", r"\1", settings_file()))
    for key, field in setting_fields().items():
        value: Any = tables
        for part in key.split("."):
            value = value[part]
        field.metadata["read"](value)


def test_every_file_it_names_exists() -> None:
    named = set(re.findall(r"`((?:flowd|scripts|tests)/[\w./-]+)`", MANUAL))

    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_function_of_the_path_table_is_in_its_file() -> None:
    table = [row for row in rows("architecture") if len(row) > 2 and row[1].endswith(".py`")]

    assert len(table) > 15
    for _, file, functions, *_ in table:
        text = (ROOT / file.strip("`")).read_text()
        for function in re.findall(r"`(\w+)`", functions):
            assert f"def {function}(" in text, f"{function} in {file}"


def test_every_handler_has_a_section() -> None:
    for name in built_in_registry().names():
        assert f"\n## {name}\n" in PAGES["handlers"]


@pytest.mark.parametrize(
    ("title", "transitions"),
    [("execution", EXECUTION_TRANSITIONS), ("node", NODE_TRANSITIONS)],
)
def test_the_state_tables_are_the_real_ones(title: str, transitions: Any) -> None:
    tables = rows("states")
    start = next(index for index, row in enumerate(tables) if row[:2] == [title, "when"])
    documented = {
        row[0]: set(filter(None, row[2].split(", ")))
        for row in tables[start + 1 : start + 1 + len(transitions)]
    }

    assert documented == {state: set(after) for state, after in transitions.items()}


def test_every_request_of_the_api_is_in_the_manual() -> None:
    modules = [import_module(name) for _, name, _ in iter_modules(routers.__path__, _ROUTERS)]
    endpoints = [one for module in modules for one in getattr(module, "ROUTES", ())]

    assert len(endpoints) > 20
    for endpoint in endpoints:
        (method,) = endpoint.methods - {"HEAD"}
        assert f"`{method} {documented_path(endpoint)}`" in MANUAL


def test_every_reason_of_an_explanation_is_in_the_manual() -> None:
    source = "".join(file.read_text() for file in (ROOT / "flowd" / "diagnosis").glob("*.py"))
    codes = set(re.findall(r'Reason\(\s*"(\w+)"', source))
    documented = {code for row in rows("http-api") for code in re.findall(r"`(\w+)`", row[0])}

    assert len(codes) > 15
    assert codes - documented == set()


def headings(text: str) -> set[str]:
    """The anchors of a page, as the places that show Markdown make them."""
    return {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }


@pytest.mark.parametrize("page", ["README", *PAGES])
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    text = README if page == "README" else PAGES[page]
    prefix = "flowd/docs/" if page == "README" else ""

    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        if target.startswith("pictures/"):
            assert (ROOT / target).is_file(), target
            continue
        file, _, anchor = target.partition("#")
        assert file.startswith(prefix), target
        linked = PAGES[file.removeprefix(prefix).removesuffix(".md")] if file else text
        assert not anchor or anchor in headings(linked), target


def test_every_page_is_linked_from_the_readme() -> None:
    assert {page for page in PAGES if f"(flowd/docs/{page}.md" in README} == set(PAGES)


def test_the_readme_is_what_one_reads_first() -> None:
    assert len(README.splitlines()) <= 200


def shown_commands() -> list[list[str]]:
    """The arguments of each `flowd` in an example for a shell, without what the shell does."""
    examples = re.findall(r"```(?:bash|console|crontab)\n(.*?)```", MANUAL, re.DOTALL)
    # Without comments; what a command in a command prints is some word.
    text = re.sub(r"\$\([^)]*\)", "X", re.sub(r" +#.*", "", "".join(examples)))
    lines = map(shlex.split, re.findall(r"(?m)(?:^|[ /])flowd ([a-z].*)$", text))
    return [list(takewhile(lambda word: word not in ("|", "||", ">"), line)) for line in lines]


@pytest.mark.parametrize("arguments", shown_commands(), ids=" ".join)
def test_a_command_that_is_shown_is_one_there_is_with_these_options(arguments: list[str]) -> None:
    command: click.Command = main
    path = ["flowd"]
    while isinstance(command, click.Group):
        name, *arguments = arguments
        path.append(name)
        inner = command.get_command(click.Context(command), name)
        assert inner is not None, " ".join(path)
        command = inner

    command.make_context(" ".join(path), arguments).close()


def test_every_script_an_example_runs_is_there() -> None:
    run = set(re.findall(r"(?m)^(?:sudo )?\./(scripts/\w+)", MANUAL))

    assert len(run) > 5
    assert [name for name in run if not (ROOT / name).exists()] == []
