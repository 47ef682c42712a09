"""`flowd handlers`: every handler there is, with what its config may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowd.cli.options import config_option, running_settings_of
from flowd.suggestions import nearest

if TYPE_CHECKING:
    from flowd.handlers.registry import Handler


@click.command()
@click.argument("name", required=False)
@config_option
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def handlers(name: str | None, config: Path | None, output: str) -> None:
    """List all handlers, or show one; your own are included."""
    from flowd.handlers.loading import open_registry

    registry = open_registry(running_settings_of(config))
    names = registry.names()
    if name is not None and name not in names:
        near = nearest(name, names)
        hint = f"; did you mean {near!r}?" if near else "; `flowd handlers` lists them"
        raise click.ClickException(f"there is no handler {name!r}{hint}")
    shown = [registry.load(one) for one in ([name] if name else names)]
    if output == "json":
        click.echo(json.dumps([_record(entry) for entry in shown], indent=2, ensure_ascii=False))
    else:
        click.echo("\n\n".join(_page(entry) for entry in shown))


def _record(entry: Handler) -> dict[str, Any]:
    from flowd.handlers.config_schema import schema_of

    return {
        "name": entry.name,
        "runs": entry.kind,
        "description": entry.description,
        "defined": entry.place,
        # None: it takes any config.
        "config": entry.model and schema_of(entry.model),
    }


def _page(entry: Handler) -> str:
    lines = [click.style(entry.name, bold=True)]
    lines += [f"  {line}".rstrip() for line in entry.description.splitlines()]
    lines.append(f"  defined by {entry.place}")
    if entry.model is None:
        return "\n".join([*lines, "  takes any config"])
    from flowd.handlers.config_schema import schema_of

    schema = schema_of(entry.model)
    required = schema.get("required", ())
    keys = [
        (name, _type_of(value), _note(name in required, value))
        for name, value in schema.get("properties", {}).items()
    ]
    widths = [max((len(key[column]) for key in keys), default=0) for column in (0, 1)]
    for name, kind, note in keys:
        lines.append(f"    {name:{widths[0]}}  {kind:{widths[1]}}  {note}".rstrip())
    return "\n".join(lines)


def _type_of(schema: dict[str, Any]) -> str:
    """A short word for a type: `text`, `list of number`, `"a" or "b"`."""
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            kinds = (_type_of(one) for one in schema[choice] if one.get("type") != "null")
            return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return " or ".join(json.dumps(one) for one in schema["enum"])
    if "$ref" in schema:
        return "object"
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type_of(schema.get('items', {}))}"
    return {"string": "text", "boolean": "true or false"}.get(kind, str(kind))


def _note(is_required: bool, schema: dict[str, Any]) -> str:
    parts = [schema["description"]] if "description" in schema else []
    if is_required:
        parts.insert(0, "required")
    elif schema.get("default") is not None:
        parts.append(f"default {json.dumps(schema['default'], ensure_ascii=False)}")
    return "; ".join(parts)
