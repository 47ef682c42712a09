"""Read a workflow from a file, JSON or YAML, and the values of `--input`."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any, Final

import click

from flowd.workflow.exact_json import InexactNumber, exact_float

# No flowd takes a larger body; white space and comments of YAML have room beside it.
FILE_BYTES_MAX: Final = 64 * 2**20
# By their marks. The longer first: that of UTF-32 begins as that of UTF-16 does.
_WIDE = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BEGINS_AS_JSON: Final = re.compile(rb"\s*(\[|\{\s*[\"}])")
EMPTY: Final = "the file is empty"


def read_workflow(file: str) -> bytes:
    """The workflow as JSON, for flowd to judge; `-` is stdin. Raises ClickException."""
    return _read(file, "workflow", {"dag"})


def read_schedule(file: str) -> bytes:
    return _read(file, "schedule", {"cron", "every_s"})


def _read(file: str, what: str, marks: Set[str]) -> bytes:
    """The one document there is, or of several the one with one of these keys."""
    body = read_file(file)
    # JSON as it is: flowd also sees keys that are written twice, and says where.
    if not is_json(file, body):
        body = _from_yaml(body, file, what, marks)
    if body.strip() in (b"", b"null"):
        raise click.ClickException(f"{name_of(file)}: {EMPTY}")
    return body


def is_json(file: str, data: bytes) -> bool:
    """By its name, or as it begins: an object whose first key is no text in quotes is YAML."""
    return file.endswith(".json") or _BEGINS_AS_JSON.match(data) is not None


def name_of(file: str) -> str:
    return "stdin" if file == "-" else file


def read_file(file: str) -> bytes:
    """All of it in UTF-8; `-` is stdin. Raises ClickException."""
    name = name_of(file)
    if file == "-" and sys.stdin is None:
        raise click.ClickException("cannot read stdin: it is closed")
    try:
        data = _beginning(file)
    except OSError as error:
        raise click.ClickException(f"cannot read {name}: {error.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        limit = f"{FILE_BYTES_MAX // 2**20} MiB"
        raise click.ClickException(f"cannot read {name}: it has more than {limit}")
    return _as_utf8(data, name)


def _beginning(file: str) -> bytes:
    """All of it, or so much that it is too much."""
    if file == "-":
        return sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
    with Path(file).open("rb") as source:
        return source.read(FILE_BYTES_MAX + 1)


def _as_utf8(data: bytes, name: str) -> bytes:
    """Without the byte order mark of an editor, and not in the UTF-16 of some shells."""
    data = data.removeprefix(codecs.BOM_UTF8)
    encoding = next((encoding for mark, encoding in _WIDE if data.startswith(mark)), None)
    if encoding is None:
        return data
    try:
        return data.decode(encoding).encode()
    except UnicodeDecodeError:
        message = f"cannot read {name}: it begins as {encoding.upper()} does, and is none"
        raise click.ClickException(message) from None


def _from_yaml(data: bytes, file: str, what: str, marks: Set[str]) -> bytes:
    from flowd.cli.workflow_yaml import BadYaml, yaml_to_json

    try:
        return yaml_to_json(data, what, marks)
    except BadYaml as error:
        place = name_of(file) if error.line is None else f"{name_of(file)}:{error.line}"
        raise click.ClickException(f"{place}: {error}") from None


def read_input(pairs: Iterable[str]) -> dict[str, Any] | None:
    """`x=1` and `name=Ada` as `{"x": 1, "name": "Ada"}`: a value is JSON where it can be."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, written = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--input {pair!r}: write name=value")
        if name in values:
            raise click.UsageError(f"--input {pair!r}: {name!r} is given more than once")
        try:
            values[name] = json.loads(written, parse_constant=_no_json, parse_float=exact_float)
        except InexactNumber as error:
            raise click.UsageError(f"--input {pair!r}: {error}; write it as a string") from None
        except (ValueError, RecursionError):
            values[name] = written
    return values or None


def read_json(option: str, written: str) -> Any:
    """The value of an option that has to be JSON. Raises UsageError."""
    try:
        return json.loads(written, parse_constant=_no_json, parse_float=exact_float)
    except InexactNumber as error:
        raise click.UsageError(f"{option}: {error}; write it as a string") from None
    except (ValueError, RecursionError):
        raise click.UsageError(
            f"{option}: {written[:100]!r} is not JSON; text needs its quotes, and those need the "
            "shell's: '\"text\"'"
        ) from None


def _no_json(text: str) -> Any:
    """`NaN` and `Infinity`, which Python's reader knows beyond JSON."""
    raise ValueError(text)
