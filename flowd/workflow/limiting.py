"""Which limit a node names, and which of its places it takes: one for all, or one for each key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flowd.errors import Fail, Problem, TemplateError
from flowd.workflow.ids import WORKFLOW
from flowd.workflow.references import ReadingNode
from flowd.workflow.repeating import WAITING_HANDLERS
from flowd.workflow.templating import CompiledConfig, describe_type

# What a node that waits for a place says it waits for.
SLOT: Final = "slot"
KEY: Final = "key"
# What stands between the name of a limit and the key.
_BEHIND_NAME: Final = "/"
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.@+-]{1,64}")


class Limit:
    """As a node says it in `limit`: the name, or the name and a template for the key."""

    __slots__ = ("key", "name")

    def __init__(self, written: str | Mapping[str, Any]) -> None:
        said = {"name": written} if isinstance(written, str) else written
        self.name: str = said["name"]
        self.key = CompiledConfig({KEY: said[KEY]}) if KEY in said else None

    @property
    def inputs(self) -> tuple[str, ...]:
        """What its key reads."""
        return self.key.inputs if self.key else ()

    def place(self, inputs: Mapping[str, Any]) -> str:
        """What nodes hold and wait for: the same for all that share one. Raises Fail."""
        if self.key is None:
            return self.name
        try:
            value = self.key.render(inputs)[KEY]
        except TemplateError as error:
            raise Fail(f"the key of limit {self.name!r}: {error}") from None
        if isinstance(value, dict | list | None):
            what = describe_type(value)
            raise Fail(f"the key of limit {self.name!r} is {what}; it has to be text or a number")
        text = value if isinstance(value, str) else str(value).lower()
        return place_of(self.name, text)


def place_of(name: str, key: str) -> str:
    """Of a limit, for the nodes with this key; one that is long, or has other characters than
    names have, is known by a digest."""
    if not _PLAIN.fullmatch(key):
        key = "~" + hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).hexdigest()
    return f"{name}{_BEHIND_NAME}{key}"


def split_place(place: str) -> tuple[str, str | None]:
    """The name of a limit and the key; None for a limit without keys."""
    name, behind, key = place.partition(_BEHIND_NAME)
    return name, key if behind else None


def find_limit_problems(node: ReadingNode) -> Iterator[Problem]:
    """A wait holds no place, so nothing is held back where a node does nothing but wait."""
    if "limit" in node.keys and node.handler in WAITING_HANDLERS:
        message = f"{node.handler} waits by itself and holds no place of a limit; remove this"
        if node.handler == WORKFLOW:
            message += ", and limit the nodes of the child"
        yield Problem(f"{node.path}.limit", "not_limitable", message)
