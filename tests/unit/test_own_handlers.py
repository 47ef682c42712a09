"""Handlers of the user's own: found, bound to their models, and refused where they are wrong."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowd.config import Settings
from flowd.config.loading import load_settings
from flowd.errors import BadHandlers, HandlerFailed
from flowd.handlers import Context, Fail, Retry, handler
from flowd.handlers.config_checks import config_checks
from flowd.handlers.loading import open_registry
from flowd.handlers.registry import Registry
from flowd.handlers.trial_import import try_handlers

HEAD = """
from __future__ import annotations
from typing import TYPE_CHECKING
from pydantic import BaseModel
from flowd.handlers import Context, handler
if TYPE_CHECKING:
    from somewhere import Unknown
"""
CONTEXT = Context("e1", "A", 1)
Write = Callable[..., Settings]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """`write(one="source", two="source")`: settings that name these modules."""
    path, modules = list(sys.path), set(sys.modules)

    def write(**sources: str) -> Settings:
        names = {f"{name}_{tmp_path.name}": text for name, text in sources.items()}
        for name, text in names.items():
            (tmp_path / f"{name}.py").write_text(HEAD + text)
        handlers = replace(Settings().handlers, modules=tuple(names), folder=tmp_path)
        return replace(Settings(), handlers=handlers)

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.endswith(tmp_path.name):
            del sys.modules[name]


def call(registry: Registry, name: str, config: dict[str, Any]) -> Any:
    output: Any = registry.load(name).function(config, CONTEXT)  # type: ignore[arg-type]
    return asyncio.run(output) if asyncio.iscoroutine(output) else output


def refusal_of(settings: Settings) -> str:
    with pytest.raises(BadHandlers) as refused:
        open_registry(settings)
    return str(refused.value)


def test_every_way_to_write_a_handler_is_called_as_it_is_written(write: Write) -> None:
    settings = write(
        one="""
class Model(BaseModel):
    n: int

@handler("with_dict")
def with_dict(config): return {"got": config}

@handler("with_context")
async def with_context(config: dict, context: Context) -> dict:
    return {"got": config, "node": context.node_id}

@handler("with_model")
def with_model(config: Model, context: Unknown) -> Unknown: return {"n": config.n + 1}

@handler("with_model_only", inline=True)
def with_model_only(config: Model): return {"n": config.n}
"""
    )
    registry = open_registry(settings)

    assert registry.names()[-4:] == ("with_dict", "with_context", "with_model", "with_model_only")
    assert call(registry, "with_dict", {"a": 1}) == {"got": {"a": 1}}
    assert call(registry, "with_context", {"a": 1}) == {"got": {"a": 1}, "node": "A"}
    assert call(registry, "with_model", {"n": "1"}) == {"n": 2}
    assert call(registry, "with_model_only", {"n": 1}) == {"n": 1}
    assert [registry.load(name).kind for name in registry.names()[-4:]] == [
        "thread",
        "async",
        "thread",
        "inline",
    ]
    with pytest.raises(HandlerFailed, match=r"^config\.n is missing; config\.m is not known to"):
        call(registry, "with_model", {"m": 1})


ANYTHING_CALLABLE = """
import functools
from dataclasses import dataclass

class Model(BaseModel):
    n: int

def timed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

def scaled(factor: int, config: Model) -> dict:
    "Scales a number."
    return {"n": factor * config.n}

async def scaled_async(factor: int, config: Model) -> dict:
    return {"n": factor * config.n}

@dataclass
class Scale:
    "Scales a number."
    factor: int
    def __call__(self, config: Model) -> dict:
        return {"n": self.factor * config.n}
    def called(self, config: Model, context: Context) -> dict:
        return {"n": self.factor * config.n}

@dataclass(frozen=True)
class FrozenScale:
    factor: int
    def __call__(self, config: Model) -> dict:
        return {"n": self.factor * config.n}

class ScaleAsync:
    __slots__ = ()
    async def __call__(self, config: Model) -> dict:
        return {"n": 2 * config.n}

by_partial = handler("partial")(functools.partial(scaled, 2))
by_async_partial = handler("async_partial")(functools.partial(scaled_async, 2))
by_object = handler("object")(Scale(2))
by_frozen_object = handler("frozen_object")(FrozenScale(2))
by_async_object = handler("async_object")(ScaleAsync())
by_method = handler("method")(Scale(2).called)
by_partial_of_object = handler("partial_of_object")(functools.partial(Scale(2)))
decorated = handler("decorated")(timed(functools.partial(scaled, 2)))
decorated_async = handler("decorated_async")(timed(timed(functools.partial(scaled_async, 2))))
decorated_after = timed(handler("decorated_after")(functools.partial(scaled, 2)))
"""


def test_anything_that_can_be_called_may_be_a_handler(write: Write) -> None:
    settings = write(one=ANYTHING_CALLABLE)
    registry = open_registry(settings)
    try_handlers(settings)

    own = registry.names()[len(open_registry(Settings()).names()) :]
    assert own == (
        "partial",
        "async_partial",
        "object",
        "frozen_object",
        "async_object",
        "method",
        "partial_of_object",
        "decorated",
        "decorated_async",
        "decorated_after",
    )
    for name in own:
        assert call(registry, name, {"n": 3}) == {"n": 6}, name
        assert (module := registry.load(name).model) is not None, name
        assert module.__name__ == "Model", name
        with pytest.raises(HandlerFailed, match="valid integer"):
            call(registry, name, {"n": "x"})
    kinds = {name: registry.load(name).kind for name in own}
    assert {name for name, kind in kinds.items() if kind == "async"} == {
        "async_partial",
        "async_object",
    }
    assert registry.load("partial").description == "Scales a number."
    assert registry.load("object").description == "Scales a number."
    assert ".Scale.__call__ (" in registry.load("object").place
    assert ".scaled (" in registry.load("partial").place


def test_a_lazy_proxy_among_the_names_of_a_module_is_left_alone(write: Write) -> None:
    settings = write(
        one="""
import unittest.mock
class Proxy:
    @property
    def __class__(self):
        raise RuntimeError("working outside of request context")
    def __getattr__(self, name):
        raise RuntimeError("working outside of request context")
request, anything = Proxy(), unittest.mock.MagicMock()
@handler("fine")
def fine(config: dict) -> dict: return {"ok": True}
"""
    )

    assert call(open_registry(settings), "fine", {}) == {"ok": True}


def test_without_modules_there_are_the_built_in_handlers() -> None:
    assert "noop" in open_registry(Settings()).names()
    try_handlers(Settings())


def test_a_module_that_fails_to_import_is_named_with_its_traceback(write: Write) -> None:
    text = refusal_of(write(broken="\ndef f():\n    return 1 / 0\n\nf()\n"))

    assert text.startswith("the module 'broken_")
    assert "of [handlers] modules cannot be imported:\nTraceback (most recent call last):" in text
    assert text.endswith("ZeroDivisionError: division by zero")
    assert "own_handlers.py" not in text
    assert "importlib" not in text


def test_a_module_that_is_not_there_is_named() -> None:
    handlers = replace(Settings().handlers, modules=("no_such_module",))
    text = refusal_of(replace(Settings(), handlers=handlers))

    assert text.endswith(f"is not there: no installed package of {sys.executable} has it")


def test_a_module_that_is_not_there_is_said_with_its_line_and_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was a traceback of two lines, without the file that names it or the folder."""
    file = tmp_path / "flowd.toml"
    file.write_text('[handlers]\nmodules = ["my_handlrs"]\n')
    (tmp_path / "my_handlers.py").touch()
    monkeypatch.setattr(sys, "path", list(sys.path))

    assert refusal_of(load_settings(file, environ={})) == (
        f"{file}:2: the module 'my_handlrs' of [handlers] modules is not there: {tmp_path} has no "
        f"my_handlrs.py, and no installed package of {sys.executable} has it; "
        "did you mean 'my_handlers'?"
    )


def test_what_a_module_imports_in_vain_is_no_fault_of_its_name(write: Write) -> None:
    text = refusal_of(write(broken="import broken_not_there"))

    assert "of [handlers] modules cannot be imported:\nTraceback" in text
    assert text.endswith("ModuleNotFoundError: No module named 'broken_not_there'")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("x = 1", 'holds no handler (it was read from {file}); mark its functions with @handler("'),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        (
            '@handler("noop")\ndef f(config): ...',
            "handler 'noop' is one of flowd's own, and {module}.f ({file}:8) has the same name",
        ),
        (
            '@handler("a")\ndef f(): ...',
            "handler 'a' cannot be called: {module}.f ({file}:8) takes ()",
        ),
        ('@handler("a")\ndef f(a, b, c): ...', "takes (a, b, c); it must take the config"),
        ('@handler("a")\ndef f(a, *, b): ...', "takes (a, *, b); it must take the config"),
        ('@handler("a")\ndef f(a: Unknown): ...', "cannot be read: name 'Unknown' is not defined"),
        ('@handler("a")\ndef f(a: int): ...', "takes a config that is <class 'int'>; annotate it"),
        ('@handler("a")\ndef f(a: BaseModel | None): ...', "annotate it with dict or with one"),
        ('@handler("a b")\ndef f(a): ...', "bad handler name 'a b'"),
        ("@handler\ndef f(a): ...", '@handler("greet")'),
        ('f = handler("a")(7)', "handler 'a': 7 cannot be called; mark a function with @handler"),
        ('@handler("a")\nclass F: ...', "cannot be called; mark a function with @handler"),
        ('f = handler("a")(iter)', "handler 'a': how builtins.iter is called cannot be read: "),
    ],
)
def test_a_bad_module_is_refused_with_its_place(write: Write, source: str, text: str) -> None:
    settings = write(own=source)
    (module,) = settings.handlers.modules
    file = f"{settings.handlers.folder}/{module}.py"

    assert text.format(module=module, file=file) in refusal_of(settings)


def test_two_handlers_of_one_name_are_an_error_that_names_both_places(write: Write) -> None:
    source = '@handler("a")\ndef f(config): ...'
    settings = write(one=source, two=source)
    one, two = settings.handlers.modules

    text = refusal_of(settings)

    assert "handler 'a' is defined twice, by " in text
    assert all(f"{name}.f ({settings.handlers.folder}/{name}.py:8)" in text for name in (one, two))


def test_a_handler_two_modules_share_is_one_handler(write: Write, tmp_path: Path) -> None:
    settings = write(
        one='@handler("a")\ndef f(config): ...',
        two=f"from one_{tmp_path.name} import f, f as g",
    )

    assert open_registry(settings).names()[-1] == "a"


def test_an_installed_package_offers_handlers_by_an_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "offering_package.py").write_text(HEAD + '@handler("a")\ndef f(config): ...')
    info = tmp_path / "offering-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: offering\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flowd.handlers]\nmine = offering_package\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert open_registry(Settings()).load("a").place.startswith("offering_package.f (")

    (tmp_path / "offering_package.py").unlink()
    monkeypatch.delitem(sys.modules, "offering_package")
    assert "entry point 'mine' of offering in flowd.handlers" in refusal_of(Settings())


def test_the_trial_reports_what_is_wrong_and_imports_nothing_here(write: Write) -> None:
    settings = write(broken="raise ValueError('no')")

    with pytest.raises(BadHandlers, match="ValueError: no"):
        try_handlers(settings)
    with pytest.raises(BadHandlers, match="ended the process that imported it"):
        try_handlers(write(deadly="import os; os._exit(0)"))
    try_handlers(write(good='@handler("a")\ndef f(config): ...'))
    assert not set(settings.handlers.modules) & sys.modules.keys()


MODELS = """
from pydantic import Field, field_validator
class Inner(BaseModel):
    k: int
class Model(BaseModel):
    n: int = Field(description="how many")
    inner: Inner | None = None
    items: list[Inner] = []
    odd: str = ""
    key: str | Inner = ""
    @field_validator("odd")
    @classmethod
    def check(cls, odd):
        if odd == "surrogate":
            raise ValueError("No \\ud800 here")
        if odd == "raise" or "{" in odd:
            raise KeyError(odd)
        return odd
@handler("a")
def f(config: Model): ...
"""


@pytest.mark.parametrize(
    ("config", "problems"),
    [
        ({"n": 1}, []),
        ({}, [(".n", "missing_config", "this key is required; how many")]),
        ({"n": "x"}, [(".n", "bad_config", "input should be a valid integer, unable to parse")]),
        ({"n": []}, [(".n", "bad_config", "input should be a valid integer; how many")]),
        ({"n": "{{ A.n }}"}, []),
        (
            {"n": "{{ A.n }}", "iner": 1},
            [(".iner", "unknown_config", "unknown key; did you mean 'inner'?")],
        ),
        ({"n": 1, "inner": "{{ A }}"}, []),
        ({"n": 1, "inner": {"k": "{{ A.k }}"}}, []),
        ({"n": 1, "inner": {}}, [(".inner.k", "missing_config", "this key is required")]),
        (
            {"n": 1, "items": [{"k": 1}, {"k": 2, "zz": "{{ A.k }}"}]},
            [(".items[1].zz", "unknown_config", "unknown key; it knows k")],
        ),
        ({"n": 1, "odd": "raise"}, [("", "bad_config", "checking it raised KeyError")]),
        (
            {"n": 1, "odd": "surrogate"},
            [("", "bad_config", "checking it raised UnicodeEncodeError")],
        ),
        ({"n": 1, "odd": "{{ A }}"}, []),
        ({"n": 1, "key": {"$secret": "X"}}, []),
        (
            {"n": 1, "key": {"secret": "X"}},
            [
                (".key", "bad_config", "input should be a valid string"),
                (".key.k", "missing_config", "this key is required"),
                (".key.secret", "unknown_config", "unknown key; it knows k"),
            ],
        ),
    ],
)
def test_a_config_is_judged_before_its_templates_are_rendered(
    write: Write, config: dict[str, Any], problems: list[tuple[str, str, str]]
) -> None:
    settings = write(own=MODELS)
    check = config_checks(open_registry(settings), settings)["a"]
    assert check is not None

    found = check(config, "dag.nodes[3]")

    assert [(one.path, one.code) for one in found] == [
        (f"dag.nodes[3].config{path}", code) for path, code, _ in problems
    ]
    for one, (_, _, text) in zip(found, problems, strict=True):
        assert one.message.startswith(text)


def test_a_context_says_who_is_called_and_hears_of_life() -> None:
    context = Context("e1", "A", 2)
    assert context.idempotency_key == "e1:A"
    assert context.heartbeat_at is None

    context.heartbeat()
    assert context.heartbeat_at is not None

    context.cancelled = True
    with pytest.raises(Fail, match="nobody waits"):
        context.heartbeat()


def test_retry_and_fail_say_what_happened_without_a_text_too() -> None:
    assert str(Retry()) == "the handler asked to be called again"
    assert str(Retry(after_s=1.5)) == "the handler asked to be called again after 1.5 s"
    assert str(Retry("busy", after_s=1)) == "busy"
    assert str(Retry("busy", after_s=-1)) == "busy"
    assert Retry(after_s=-1).after_s == 0
    assert str(Fail("no")) == "no"
    assert str(Fail()) == "the handler failed for good"


@pytest.mark.parametrize("after_s", ["10", float("nan"), float("inf"), True])
def test_a_pause_that_is_no_number_of_seconds_is_an_error_of_the_handler(after_s: Any) -> None:
    with pytest.raises(ValueError, match="it must be a number of seconds"):
        Retry("busy", after_s=after_s)


def test_a_marked_function_stays_a_function() -> None:
    @handler("a")
    def double(config: dict[str, Any]) -> dict[str, Any]:
        return {"n": 2 * config["n"]}

    assert double({"n": 2}) == {"n": 4}
