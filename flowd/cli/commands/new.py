"""`flowd new`: a module with handlers to begin with, and its test."""

from __future__ import annotations

import keyword
import sys
from contextlib import suppress
from pathlib import Path

import click

_MODULE = '''\
"""Handlers of our own. `flowd handlers` lists them once flowd.toml names this module."""

from __future__ import annotations

from pydantic import BaseModel, Field

from flowd.handlers import Context, Fail, Retry, handler


class GreetConfig(BaseModel):
    """What the config of a node may hold. Anything else is refused when a workflow is submitted."""

    name: str = Field(min_length=1, description="whom to greet")
    language: str = "en"


@handler("@PREFIX@greet")
async def greet(config: GreetConfig, context: Context) -> dict:
    """Greets somebody in their language."""
    # An async function shares its thread with every other node of the worker: await whatever takes
    # time. A function that blocks is written with `def` instead, and gets a thread of its own.
    greetings = {"en": "Hello", "de": "Hallo", "fr": "Bonjour"}
    if config.language not in greetings:
        # Another attempt would change nothing. Any other exception fails the node too.
        raise Fail(f"there is no greeting in {config.language!r}")
    context.logger.info("somebody was greeted", language=config.language)
    # What is returned is the output of the node: `{{ A.greeting }}` reads it further down.
    return {"greeting": f"{greetings[config.language]} {config.name}"}


@handler("@PREFIX@count_words")
def count_words(config: dict, context: Context) -> dict:
    """Counts the words of `text`."""
    # With a dict the config is as it was written, its templates rendered; nothing is checked.
    if "text" not in config:
        # A handler may be called again. This one asks for it, in ten seconds at the soonest.
        raise Retry("there is no text yet", after_s=10)
    total = 0
    for line in config["text"].splitlines():
        # Long work in a thread cannot be stopped from outside: it says that it is alive, and ends
        # here when nobody waits for it any more.
        context.heartbeat()
        total += len(line.split())
    return {"words": total, "attempt": context.attempt}
'''

_TEST = '''\
"""The handlers are functions: call them. No flowd needs to run; `pytest` does."""

from __future__ import annotations

import asyncio

import pytest

from flowd.handlers import Context, Fail, Retry
from @NAME@ import GreetConfig, count_words, greet

CONTEXT = Context(execution_id="e1", node_id="A", attempt=1)


def test_somebody_is_greeted_in_their_language():
    config = GreetConfig(name="Ada", language="fr")

    assert asyncio.run(greet(config, CONTEXT)) == {"greeting": "Bonjour Ada"}


def test_a_language_nobody_speaks_fails_for_good():
    with pytest.raises(Fail, match="no greeting in 'xx'"):
        asyncio.run(greet(GreetConfig(name="Ada", language="xx"), CONTEXT))


def test_words_are_counted():
    assert count_words({"text": "one two\\nthree"}, CONTEXT) == {"words": 3, "attempt": 1}


def test_without_a_text_it_asks_to_be_called_again():
    with pytest.raises(Retry) as retry:
        count_words({}, CONTEXT)

    assert retry.value.after_s == 10
'''

_NEXT = """\
wrote {module} and {test}

Try them:                     pytest {test}
Make flowd use them:          name the module in flowd.toml of the same folder, in its [handlers]

    [handlers]
    modules = ["{name}"]

See that they are there:      flowd handlers
Then start flowd again, and submit a workflow with the handler "{prefix}greet"."""


@click.command()
@click.argument("name")
def new(name: str) -> None:
    """Write NAME.py, a module with two example handlers, and its test into this folder."""
    if not name.isidentifier() or keyword.iskeyword(name):
        hint = "; leave .py away" if name.endswith(".py") else ""
        raise click.UsageError(f"{name!r} cannot be the name of a Python module{hint}")
    if name in sys.stdlib_module_names or name == "flowd":
        raise click.UsageError(f"there is a module {name!r} already; choose another name")
    module, test = Path(f"{name}.py"), Path(f"test_{name}.py")
    for path in (module, test):
        if path.exists():
            raise click.ClickException(f"{path} exists already; nothing was written")
    prefix = f"{name}_" if _is_greeted() else ""
    texts = (_MODULE.replace("@PREFIX@", prefix), _TEST.replace("@NAME@", name))
    try:
        for path, text in zip((module, test), texts, strict=True):
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename}: {error.strerror}") from error
    click.echo(_NEXT.format(module=module, test=test, name=name, prefix=prefix))


def _is_greeted() -> bool:
    """Whether a module of this folder has these handlers already: a name belongs to one module."""
    for path in Path().glob("*.py"):
        with suppress(OSError):
            if b'@handler("greet")' in path.read_bytes():
                return True
    return False
