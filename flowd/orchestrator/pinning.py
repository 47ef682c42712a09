"""Settle which versions the nodes of a workflow run, when an execution of it is made."""

from __future__ import annotations

import orjson

from flowd.errors import InvalidWorkflow, Problem, UnknownDefinition
from flowd.store import Store
from flowd.workflow.graph import Outline, plan_digest
from flowd.workflow.ids import WORKFLOW


async def pinned(store: Store, definition: bytes, outline: Outline) -> tuple[bytes, Outline]:
    """As `pin_versions`, with the outline of what is stored. Most definitions stay as they are."""
    if not outline.has_children:
        return definition, outline
    definition = await pin_versions(store, definition)
    return definition, outline._replace(digest=plan_digest(definition))


async def pin_versions(store: Store, definition: bytes) -> bytes:
    """The definition with the version of each workflow that its nodes run: where they say none, the
    latest. Raises InvalidWorkflow naming what is not saved.
    """
    document = orjson.loads(definition)
    problems: list[Problem] = []
    latest: dict[tuple[str, int | None], int] = {}
    for part in ("nodes", "finally"):
        for index, node in enumerate(document["dag"].get(part, ())):
            if node["handler"] != WORKFLOW:
                continue
            config = node["config"]
            wanted = config["name"], config.get("version")
            try:
                if wanted not in latest:
                    latest[wanted] = (await store.saved.find(*wanted)).version
                config["version"] = latest[wanted]
            except UnknownDefinition as error:
                path = f"dag.{part}[{index}].config.{'version' if wanted[1] else 'name'}"
                problems.append(Problem(path, error.code, str(error)))
    if problems:
        raise InvalidWorkflow(problems)
    return orjson.dumps(document)
