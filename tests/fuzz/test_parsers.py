"""Whatever is sent: a parser answers with what it is for, or with an error of its own."""

from __future__ import annotations

import gc
import json
import random
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flowd.config.loading import list_settings, load_settings
from flowd.errors import InvalidSettings, InvalidWorkflow, TemplateError
from flowd.home import DEFAULT_FILE
from flowd.store.entries import Entry, Garbage, parse_entry
from flowd.workflow.graph import compile_plan
from flowd.workflow.templating import CompiledConfig, MalformedTemplate, parse_text
from flowd.workflow.validator import validate_workflow
from tests.fuzz.test_sockets import SEED, mutate

SETTINGS = settings(max_examples=300, suppress_health_check=list(HealthCheck))

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=20,
)
WORDS = ["id", "handler", "dependencies", "config", "retry", "timeout_s", "name", "dag", "nodes"]
WORDS += ["input", "budget", "callback", "tokens", "url", "secret", "on", "$secret", "max_attempts"]
TEMPLATE_PARTS = [
    "{{",
    "}}",
    "{{ A",
    "A.b",
    "[0]",
    '["k"]',
    "| default(",
    '"x"',
    ")",
    "|json",
    " ",
    ".",
]


def nearly(valid: Any) -> st.SearchStrategy[Any]:
    """A document with some of its parts exchanged for others."""
    if isinstance(valid, dict):
        fields = {key: nearly(value) for key, value in valid.items()}
        more = st.dictionaries(st.sampled_from(WORDS), JSON, max_size=2)
        kept = st.fixed_dictionaries({}, optional=fields)
        return st.one_of(
            st.fixed_dictionaries(fields), kept, st.builds(lambda a, b: a | b, kept, more), JSON
        )
    if isinstance(valid, list):
        items = st.lists(st.one_of(*map(nearly, valid)) if valid else JSON, max_size=4)
        return st.one_of(items, JSON)
    return st.one_of(st.just(valid), st.just(valid), st.just(valid), SCALARS)


NODE = {
    "id": "A",
    "handler": "noop",
    "dependencies": ["B"],
    "config": {"x": "{{ B.y }}", "s": {"$secret": "KEY"}},
    "retry": {"max_attempts": 3, "delay_s": 1, "on": ["5xx"]},
    "timeout_s": 5,
}
WORKFLOW = {
    "name": "w",
    "dag": {"nodes": [NODE, {"id": "B", "handler": "noop"}]},
    "input": {"a": 1},
    "budget": {"tokens": 5},
    "callback": {"url": "https://x/", "secret": "s"},
}


def check_definition(body: bytes) -> None:
    try:
        workflow = validate_workflow(body, {"noop": None})
    except InvalidWorkflow as refused:
        assert refused.problems
        assert str(refused)
        return
    # What was accepted can be stored, and run from what was stored.
    plan = compile_plan(workflow.to_json())
    assert set(plan.nodes) == {node.id for node in workflow.dag.nodes}
    for node in plan.nodes.values():
        assert node.config.inputs is not None


@SETTINGS
@given(nearly(WORKFLOW))
def test_a_definition_is_accepted_or_refused_with_reasons(document: Any) -> None:
    check_definition(json.dumps(document).encode("utf-8", "surrogatepass"))


@SETTINGS
@given(st.binary(max_size=200))
@example(b"")
@example(b"\xff\xfe")
@example(b"[" * 100_000)
@example(b'{"a":' * 50_000)
@example(b'{"name":NaN}')
@example(b'{"name":' + b"9" * 5_000 + b"}")
@example(b'{"name":"\\ud800"}')
def test_any_bytes_are_refused_with_reasons(body: bytes) -> None:
    check_definition(body)


@SETTINGS
@given(st.lists(st.sampled_from(TEMPLATE_PARTS) | st.text(max_size=4), max_size=12).map("".join))
def test_a_text_is_a_template_or_is_said_to_be_none(text: str) -> None:
    try:
        pieces = parse_text(text)
    except MalformedTemplate as error:
        assert 0 <= error.position <= len(text)
        return
    assert pieces or not text
    outputs = {"A": {"b": [{"k": 1}], "k": "x"}}
    try:
        rendered = CompiledConfig({"x": text}).render(outputs)
    except TemplateError:
        return
    orjson.dumps(rendered)


@SETTINGS
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["execution_id", "node_id", "attempt", "plan", "deaths", "failures"])
            | st.text(max_size=5),
            st.text(max_size=30) | st.sampled_from(["0" * 24, "1", "-1", "9" * 40, "٣"]),
        ),
        max_size=8,
    )
)
def test_an_entry_is_read_or_is_garbage(fields: list[tuple[str, str]]) -> None:
    flat = [part for pair in fields for part in pair]
    for written in (flat, flat[:-1]):
        entry = parse_entry("1-0", written)
        assert isinstance(entry, Entry | Garbage)


SETTINGS_LINES = (Path(__file__).parents[2] / DEFAULT_FILE).read_text().splitlines()
# What people write in place of a value, and what they do not.
TOML_VALUES = ["-1", "nan", "1e999", "[[[", "{a=1}", '"~x/y"', '""', "9" * 5000, "1979-05-27", "'"]


def altered(changes: dict[int, str]) -> bytes:
    """The file that comes with flowd, with other values at some of its lines."""
    lines = list(SETTINGS_LINES)
    for number, value in changes.items():
        lines[number] = f"{lines[number].split('=')[0].lstrip('# ')} = {value}"
    return "\n".join(lines).encode(errors="surrogatepass")


CHANGES = st.dictionaries(
    st.integers(0, len(SETTINGS_LINES) - 1),
    st.sampled_from(TOML_VALUES) | st.text().map(repr),
    max_size=2,
)
LINES = st.text(st.characters(codec="utf-8"), max_size=40)


@settings(SETTINGS, max_examples=100)
@given(CHANGES.map(altered) | st.binary(), LINES.map(str.encode) | st.binary(max_size=40))
def test_settings_are_read_or_every_problem_is_named(toml: bytes, dotenv: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, DEFAULT_FILE).write_bytes(toml)
        Path(folder, ".env").write_bytes(dotenv)
        try:
            loaded = load_settings(Path(folder, DEFAULT_FILE), {}, {})
        except InvalidSettings as error:
            assert error.problems
            assert all(one.path and one.message for one in error.problems)
        else:
            assert dict(list_settings(loaded))


def test_no_parser_keeps_what_it_was_given() -> None:
    choose = random.Random(SEED)
    workflow = json.dumps(WORKFLOW).encode()
    entry = ["execution_id", "0" * 24, "node_id", "A", "attempt", "1"]

    def parse_some() -> None:
        for _ in range(500):
            check_definition(mutate(choose, workflow))
            text = "".join(choose.choices(TEMPLATE_PARTS, k=8)) + f"{choose.random()}"
            _render(text)
            parse_entry("1-0", [mutate(choose, one.encode()).decode("latin-1") for one in entry])

    tracemalloc.start()
    grown = [_memory_after(parse_some) for _ in range(4)]
    tracemalloc.stop()
    # The first rounds fill what is kept for good: caches, and what is imported late.
    assert grown[3] - grown[1] < 256 * 1024, grown


def _render(text: str) -> None:
    try:
        CompiledConfig({"x": text}).render({"A": {"b": [1]}})
    except (MalformedTemplate, TemplateError):
        return


def _memory_after(step: Callable[[], None]) -> int:
    """Bytes that Python holds behind `step`."""
    step()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
