"""What is asked of a stored definition without compiling it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import orjson

from flowd.errors import CorruptExecution
from flowd.workflow.graph import nodes_of


@contextmanager
def reading_definition(execution_id: str) -> Iterator[None]:
    """Raises CorruptExecution for what is raised over a definition that is broken."""
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptExecution(execution_id, f"its definition is broken: {error}") from error


def map_ids_of(definition: bytes | str) -> list[str]:
    """The nodes with `map`. Raises as `node_ids_of`."""
    return [node["id"] for node in nodes_of(orjson.loads(definition)) if "map" in node]


def node_ids_of(definition: bytes | str) -> list[str]:
    """In its order. Raises ValueError, TypeError or KeyError for one that is broken."""
    return [node["id"] for node in nodes_of(orjson.loads(definition))]
