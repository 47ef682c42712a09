"""Check values against the JSON Schema a user wrote. Never looks anything up on the network.

A schema of a few lines can take for ever: by a pattern, by references that multiply, by comparing
all with all. Only what is sure to be quick is checked where others wait for it.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from referencing import Registry
from referencing.exceptions import Unresolvable

from flowd.handlers import handler
from flowd.handlers.lean_jsonschema import (
    Draft202012Validator,
    SchemaError,
    ValidationError,
    best_match,
    validator_for,
)
from flowd.redaction import REDACTOR

TEXT_CHARS_SHOWN_MAX = 300
# Of one value; and how deep it looks for them is up to the schema.
MISFITS_MAX = 20
ANSWER_CHECK = "flowd.answer_check"
# A check looks at each place of the schema at most once for each place of the value, unless there
# is one of these keywords; a look takes some microseconds.
_LOOKS_MAX = 5_000
_SLOW_KEYWORDS = frozenset(
    {
        "$dynamicRef",
        "$recursiveRef",
        "$ref",
        "$schema",
        "const",
        "contains",
        "enum",
        "format",
        "pattern",
        "patternProperties",
        "uniqueItems",
    }
)
# Without one of its own, jsonschema fetches what a `$ref` names from wherever it is.
_NO_REMOTE: Registry[Any] = Registry()


@handler(ANSWER_CHECK)
def check_answer(config: dict[str, Any]) -> dict[str, Any]:
    """What is wrong with `schema` and, where there is a `value`, with that."""
    flaw = find_schema_flaw(config["schema"])
    misfit = find_misfit(config["schema"], config["value"]) if "value" in config else None
    return {"flaw": flaw, "misfit": misfit}


def is_quick(schema: dict[str, Any], value: Any) -> bool:
    """Whether checking both takes milliseconds at most."""
    places = _count_places(schema, _SLOW_KEYWORDS)
    return places * _count_places(value, frozenset()) <= _LOOKS_MAX


def _count_places(value: Any, slow: frozenset[str]) -> int:
    """How many values there are in it; more than there may be when a slow keyword is met."""
    count, pending = 0, [value]
    while pending and count <= _LOOKS_MAX:
        place = pending.pop()
        count += 1
        if isinstance(place, dict):
            if not slow.isdisjoint(place):
                return _LOOKS_MAX + 1
            pending += place.values()
        elif isinstance(place, list):
            pending += place
    return count


def find_schema_flaw(schema: dict[str, Any]) -> str | None:
    """What is wrong with a schema itself."""
    try:
        kind = _kind(schema)
        kind.check_schema(schema, format_checker=kind.FORMAT_CHECKER)
    except SchemaError as error:
        return _sentence(error, "schema")
    except Exception as error:  # noqa: BLE001 - a "$schema" that is no text, a depth without end
        return f"it cannot be read: {type(error).__name__}"
    return None


def find_misfit(schema: dict[str, Any], value: Any, root: str = "answer") -> str | None:
    """The first thing in which the value, which it calls `root`, does not fit the schema."""
    try:
        errors = _kind(schema)(schema, registry=_NO_REMOTE).iter_errors(value)
        error = best_match(errors)
    except Unresolvable as unresolvable:
        return f"the schema refers to what is not in it: {unresolvable}"
    except Exception as error:  # noqa: BLE001 - a schema that refers to itself without end
        return f"the schema cannot be applied: {type(error).__name__}"
    return None if error is None else _sentence(error, root)


def find_misfits(schema: dict[str, Any], value: Any, root: str) -> list[tuple[str, str]]:
    """In what the value, which is at `root`, does not fit the schema: paths, and what is wrong
    there."""
    try:
        errors = islice(_kind(schema)(schema, registry=_NO_REMOTE).iter_errors(value), MISFITS_MAX)
        return [(_path(error, root), _message(error.message)) for error in errors]
    except Unresolvable as unresolvable:
        return [(root, f"the schema refers to what is not in it: {unresolvable}")]
    except Exception as error:  # noqa: BLE001 - a schema that refers to itself without end
        return [(root, f"the schema cannot be applied: {type(error).__name__}")]


def _kind(schema: dict[str, Any]) -> Any:
    return validator_for(schema, default=Draft202012Validator)


def _sentence(error: ValidationError | SchemaError, root: str) -> str:
    return _message(f"{_path(error, root)}: {error.message}")


def _path(error: ValidationError | SchemaError, root: str) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    return f"{root}{''.join(steps)}"


def _message(written: str) -> str:
    # Redacted before it is cut: half a secret would not be found any more.
    text = REDACTOR.text(written)
    return text if len(text) <= TEXT_CHARS_SHOWN_MAX else text[:TEXT_CHARS_SHOWN_MAX] + "…"
