"""Read a workflow from a file, JSON or YAML, and the values of `--input`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click


def read_workflow(file: str) -> bytes:
    """The workflow as JSON, for flowd to judge; `-` is stdin. Raises ClickException."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise click.ClickException(f"cannot read {file}: {error.strerror}") from None
    if file.endswith(".json") or data.lstrip()[:1] in (b"{", b"["):
        # As it is: flowd also sees keys that are written twice, and says where.
        return data
    return json.dumps(_parse_yaml(data, file), allow_nan=True, default=str).encode()


def _parse_yaml(data: bytes, file: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that is written twice, which YAML's own would pass over."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    mark = key_node.start_mark
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} is written more than once", mark
                    )
                seen.add(key)
            return dict(super().construct_mapping(node, deep))

    try:
        return yaml.load(data, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise click.ClickException(
            f"{file}{place}: this is neither JSON nor YAML: {problem}"
        ) from None


def read_input(pairs: Iterable[str]) -> dict[str, Any] | None:
    """`x=1` and `name=Ada` as `{"x": 1, "name": "Ada"}`: a value is JSON where it can be."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, written = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--input {pair!r}: write name=value")
        try:
            found[name] = json.loads(written)
        except ValueError:
            found[name] = written
    return found or None
