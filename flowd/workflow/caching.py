"""What a node's output is kept under, so that equal calls are made once within its lifetime."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import orjson

from flowd.errors import Problem, TemplateError
from flowd.workflow.ids import WORKFLOW
from flowd.workflow.references import ReadingNode
from flowd.workflow.repeating import WAITING_HANDLERS
from flowd.workflow.templating import CompiledConfig

KEY: Final = "key"
# What stands in front of a key that was written, and of the digest of a config.
_WRITTEN, _DIGEST = "=", "~"
# A longer key is known by its beginning and a digest of all of it.
_CHARS_MAX: Final = 120


class Keep(NamedTuple):
    """What an output is kept under, and for how long; `may_read` where what is kept there may stand
    for the call, `is_hit` where it does."""

    name: str
    ttl_ms: int
    may_read: bool = True
    is_hit: bool = False


class Cache:
    """As a node says it in `cache`: for how long an output is kept, and a template for the key."""

    __slots__ = ("key", "ttl_ms")

    def __init__(self, written: Mapping[str, Any]) -> None:
        self.ttl_ms = round(1000 * written["ttl_s"])
        self.key = CompiledConfig({KEY: written[KEY]}) if KEY in written else None

    @property
    def inputs(self) -> tuple[str, ...]:
        """What its key reads."""
        return self.key.inputs if self.key else ()

    def name(
        self, handler: str, config: CompiledConfig, inputs: Mapping[str, Any]
    ) -> tuple[str, bytes] | None:
        """What equal calls have in common, and the JSON that it was made of; None where it cannot
        be made. Secrets are in it as their references."""
        try:
            if self.key is None:
                text = _canonical(config.render(inputs))
                return f"{handler}/{_DIGEST}{_digest(text)}", text
            value = self.key.render(inputs)[KEY]
            text = _canonical(value)
        except (TemplateError, TypeError, ValueError):
            return None
        if value is None:
            return None
        shown = value if isinstance(value, str) else text.decode()
        if len(shown) > _CHARS_MAX:
            shown = f"{shown[:_CHARS_MAX]}{_DIGEST}{_digest(text)}"
        return f"{handler}/{_WRITTEN}{shown}", text


def names_under(handler: str | None, key: str | None) -> str:
    """What the names begin with of what is kept for this handler, under keys that begin so."""
    if handler is None:
        return ""
    return f"{handler}/" if key is None else f"{handler}/{_WRITTEN}{key}"


def _canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def find_cache_problems(node: ReadingNode) -> Iterator[Problem]:
    """What a node waits for does not follow from what it is given, nor what it is repeated for."""
    if "cache" not in node.keys:
        return
    if node.handler in WAITING_HANDLERS:
        message = f"{node.handler} waits by itself and its output is not cached; remove this"
        if node.handler == WORKFLOW:
            message += ", and cache the nodes of the child"
        yield Problem(f"{node.path}.cache", "not_cacheable", message)
    elif node.until is not None:
        message = "a node with repeat is called until its output has changed; remove one of both"
        yield Problem(f"{node.path}.cache", "not_cacheable", message)
