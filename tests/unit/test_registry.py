"""The registry names handlers without importing them, and loads each once."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from flowd.errors import UnknownHandler
from flowd.handlers.context import HandlerContext
from flowd.handlers.registry import Registry, built_in_registry, handler
from tests.daemon import PATIENCE_S

BUILT_IN = (
    "noop",
    "call_external_service",
    "llm",
    "unreliable_handler",
    "delay",
    "signal",
    "transform",
    "shell",
    "workflow",
)


@handler("of_this_module")
def _of_this_module(_config: dict[str, Any], _context: HandlerContext) -> dict[str, Any]:
    return {}


def test_the_built_in_handlers_are_the_documented_ones() -> None:
    assert built_in_registry().names() == BUILT_IN


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("noop", "inline"),
        ("call_external_service", "async"),
        ("llm", "async"),
        ("unreliable_handler", "inline"),
        ("delay", "inline"),
        ("transform", "thread"),
        ("shell", "async"),
    ],
)
def test_every_built_in_handler_loads(name: str, kind: str) -> None:
    registry = built_in_registry()

    loaded = registry.load(name)

    assert (loaded.name, loaded.kind) == (name, kind)
    assert registry.load(name) is loaded


def test_an_unknown_handler_is_named_with_a_suggestion() -> None:
    with pytest.raises(UnknownHandler, match=r"^unknown handler 'nop'; did you mean 'noop'\?$"):
        built_in_registry().load("nop")


def test_an_unknown_handler_like_no_other_gets_the_list() -> None:
    with pytest.raises(UnknownHandler, match=f"the handlers are {', '.join(BUILT_IN)}"):
        built_in_registry().load("zzz")


def test_a_module_without_the_handler_it_should_hold_is_an_error() -> None:
    with pytest.raises(UnknownHandler, match='mark its function with @handler\\("absent"\\)'):
        Registry({"absent": __name__}).load("absent")


def test_a_sync_function_runs_in_a_thread_unless_it_is_inline() -> None:
    loaded = Registry({"of_this_module": __name__}).load("of_this_module")

    assert (loaded.kind, loaded.function) == ("thread", _of_this_module)


def test_an_async_function_cannot_be_inline() -> None:
    async def waits(_config: dict[str, Any], _context: HandlerContext) -> dict[str, Any]:
        return {}

    with pytest.raises(TypeError, match="inline is for sync functions without isolation"):
        handler("waits", inline=True)(waits)


@pytest.mark.parametrize(
    ("action", "unwanted"),
    [
        ("registry.names()", ("httpx2", "pydantic", "flowd.handlers.builtin.noop")),
        ("registry.load('noop')", ("httpx2", "pydantic")),
        ("registry.load('call_external_service')", ("httpx2",)),
        ("registry.load('llm')", ("httpx2",)),
    ],
)
def test_a_worker_pays_only_for_the_libraries_it_uses(
    action: str, unwanted: tuple[str, ...]
) -> None:
    code = (
        "import sys; from flowd.handlers.registry import built_in_registry;"
        f"registry = built_in_registry(); {action};"
        f"print([name for name in {unwanted!r} if name in sys.modules])"
    )

    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )

    assert printed.stdout.strip() == "[]"
