"""Workflow files in JSON and YAML, and `--input`: what is read, and what is refused where."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowd.cli.workflow_file import read_input, read_schedule, read_workflow

WORKFLOW = {"name": "x", "dag": {"nodes": [{"id": "A", "handler": "noop", "config": {"n": 1.5}}]}}
YAML = """
name: x
dag:
  nodes:
    - {id: A, handler: noop, config: {n: 1.5}}
"""


def written(tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "a"])
def test_yaml_is_read_as_the_json_it_stands_for(tmp_path: Path, name: str) -> None:
    assert json.loads(read_workflow(written(tmp_path, name, YAML))) == WORKFLOW


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a"])
def test_json_goes_to_flowd_byte_for_byte(tmp_path: Path, name: str) -> None:
    text = '{"name": "x",  "name": "y"}\n'
    assert read_workflow(written(tmp_path, name, text)) == text.encode()


@pytest.mark.parametrize("name", ["a.yaml", "a"])
@pytest.mark.parametrize("text", ["{x: 1}", " {\n  x: 1}\n", "{'x': 1}", "{? x : 1}"])
def test_yaml_may_begin_with_a_brace(tmp_path: Path, name: str, text: str) -> None:
    """It was taken for JSON, which flowd refused."""
    assert json.loads(read_workflow(written(tmp_path, name, text))) == {"x": 1}


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a"])
@pytest.mark.parametrize("text", ["", " \n\n", "null\n"])
def test_an_empty_file_is_said_to_be_empty(tmp_path: Path, name: str, text: str) -> None:
    file = written(tmp_path, name, text)
    with pytest.raises(click.ClickException) as refused:
        read_workflow(file)
    assert refused.value.message == f"{file}: the file is empty"


@pytest.mark.parametrize("text", ["# nothing yet\n", "---\n---\n", "~"])
def test_yaml_without_a_document_is_an_empty_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(click.ClickException, match=r"a.yaml: the file is empty"):
        read_workflow(written(tmp_path, "a.yaml", text))


def test_a_schedule_is_found_beside_its_workflow(tmp_path: Path) -> None:
    timed = "workflow: x\nevery_s: 60\n"
    file = written(tmp_path, "a.yaml", f"{YAML}---\n{timed}")
    assert json.loads(read_schedule(file)) == {"workflow": "x", "every_s": 60}
    assert json.loads(read_workflow(file)) == WORKFLOW
    both = written(tmp_path, "b.yaml", f"{timed}---\n{timed}")
    with pytest.raises(click.ClickException, match=r"b.yaml:3: a file holds one schedule"):
        read_schedule(both)


@pytest.mark.parametrize("text", [YAML, json.dumps(WORKFLOW)])
def test_a_dash_is_stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert json.loads(read_workflow("-")) == WORKFLOW


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: 1\nx: .nan\n", 2, ".nan is no number that JSON has"),
        ("a: 1\nx: 12345678901234.567\n", 2, "12345678901234.567 has more digits than 64 bits"),
        ("a: 1\nx: [1, -.inf]\n", 2, "-.inf is no number that JSON has"),
        ("a: 1\n\nx: 1e999\n", 3, "1e999 is no number that JSON has"),
        ("name: a\nname: b\n", 2, "the key 'name' is written more than once"),
        ("dag:\n  nodes:\n    - id: A\n      id: B\n", 4, "the key 'id' is written more than once"),
        ("name: [a\n", 2, "expected ',' or ']'"),
        ("name: a\n\tb: c\n", 2, "this is neither JSON nor YAML: found a tab character"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "could not determine a constructor"),
        ("a: !!timestamp 2026-01-01\n", 1, "could not determine a constructor"),
        ("? [a]\n: 1\n", 1, "a key has to be text"),
        ("a: 1\n2: b\n", 2, "a key has to be text"),
        (f"a: {'1' * 5_000}\n", 1, "this number is too long"),
        ("a: *b\n", 1, "undefined alias"),
        ("a: 1\n---\nb: 1\n", 2, "here a second document begins; `flowd apply` takes several"),
    ],
)
def test_what_is_wrong_with_yaml_is_said_with_its_line(
    tmp_path: Path, text: str, line: int, problem: str
) -> None:
    file = written(tmp_path, "a.yaml", text)
    with pytest.raises(click.ClickException) as refused:
        read_workflow(file)
    assert f"{file}:{line}: " in refused.value.message
    assert problem in refused.value.message


@pytest.mark.parametrize("text", [b"\x80\x81", b"a: \x01"])
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(text)
    with pytest.raises(click.ClickException, match="neither JSON nor YAML") as refused:
        read_workflow(str(path))
    assert "\n" not in refused.value.message


def test_a_file_without_end_is_refused() -> None:
    """All of it was read first, until the memory of the machine was full."""
    with pytest.raises(click.ClickException, match="/dev/zero: it has more than 64 MiB"):
        read_workflow("/dev/zero")


def test_a_file_that_names_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="contains itself"):
        read_workflow(written(tmp_path, "a.yaml", "a: &a [*a]\n"))


@pytest.mark.parametrize("depth", [300, 20_000])
def test_nesting_without_end_is_refused(tmp_path: Path, depth: int) -> None:
    text = "a: " + "[" * depth + "]" * depth
    with pytest.raises(click.ClickException, match=r"a.yaml:1: .*nest"):
        read_workflow(written(tmp_path, "a.yaml", text))


def test_aliases_that_stand_for_too_much_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(click.ClickException, match="too large"):
        read_workflow(written(tmp_path, "a.yaml", "\n".join(lines)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on: no", {"on": "no"}),
        ("a: 012", {"a": 12}),
        ("a: 12:30", {"a": "12:30"}),
        ("a: 2026-01-01", {"a": "2026-01-01"}),
        ("a: 1_000", {"a": "1_000"}),
        ("a: [true, False, ~, null, -7, 1e3, .5, '1', 0x1F]",
         {"a": [True, False, None, None, -7, 1000.0, 0.5, "1", "0x1F"]}),
        ("a:", {"a": None}),
        ("'1': a", {"1": "a"}),
        ("a: |\n  b\n  c\n", {"a": "b\nc\n"}),
    ],
)  # fmt: skip
def test_a_scalar_is_what_it_looks_like(tmp_path: Path, text: str, expected: Any) -> None:
    assert json.loads(read_workflow(written(tmp_path, "a.yaml", text))) == expected


def test_merge_keys_are_no_keys_that_are_written_twice(tmp_path: Path) -> None:
    text = "base: &base {a: 1, b: 2}\nnode: {<<: *base, b: 3}\n"
    found = json.loads(read_workflow(written(tmp_path, "a.yaml", text)))
    assert found["node"] == {"a": 1, "b": 3}


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    standing = io.TextIOWrapper(io.BytesIO(text.encode("utf-8", "replace")))
    before, sys.stdin = sys.stdin, standing
    try:
        assert isinstance(read_workflow("-"), bytes)
    except click.ClickException:
        pass
    finally:
        sys.stdin = before


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], None),
        (["x=1", "y=1.5", "z=true", "n=null"], {"x": 1, "y": 1.5, "z": True, "n": None}),
        (['x={"a": [1]}', 'y="1"'], {"x": {"a": [1]}, "y": "1"}),
        (
            ["who=Ada", "where=", "url=http://a/?b=c"],
            {"who": "Ada", "where": "", "url": "http://a/?b=c"},
        ),
    ],
)
def test_a_value_of_the_input_is_json_where_it_can_be(pairs: list[str], expected: Any) -> None:
    assert read_input(pairs) == expected


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_what_json_does_not_know_is_text(value: str) -> None:
    assert read_input([f"x={value}"]) == {"x": value}


@pytest.mark.parametrize("pairs", [["x"], ["=1"], ["x=1", "x=2"], ["x=12345678901234.567"]])
def test_a_pair_that_cannot_be_kept_is_refused(pairs: list[str]) -> None:
    with pytest.raises(click.UsageError):
        read_input(pairs)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a"])
def test_a_byte_order_mark_says_how_to_read_and_is_no_text(
    tmp_path: Path, name: str, encoding: str
) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / name).write_bytes((mark + json.dumps(WORKFLOW)).encode(encoding))

    assert read_workflow(str(tmp_path / name)) == json.dumps(WORKFLOW).encode()


def test_what_only_begins_as_utf_16_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff\xfe{")

    with pytest.raises(click.ClickException, match="begins as UTF-16 does"):
        read_workflow(str(tmp_path / "a"))


def test_a_stdin_that_is_closed_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)

    with pytest.raises(click.ClickException, match="cannot read stdin: it is closed"):
        read_workflow("-")
