"""The workflow as a user writes it: names, nodes, dependencies and configs."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, FailFast, Field

# No colon, because ids are parts of key names; no dot, because templates separate keys by it.
NODE_ID_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$"
NAME_CHARS_MAX = 256

NodeId = Annotated[str, Field(pattern=NODE_ID_PATTERN)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX)]


class _Definition(BaseModel):
    # A field we do not know is most often a typo, and a typo must not be ignored in silence.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NodeDefinition(_Definition):
    id: NodeId
    handler: str
    # Lists stop at their first bad item: a body of a million bad items must not cost a million
    # error objects. Whoever explains a refusal looks at the items one by one.
    dependencies: Annotated[list[str], FailFast()] = []
    config: dict[str, Any] = {}


class DagDefinition(_Definition):
    nodes: Annotated[list[NodeDefinition], FailFast(), Field(min_length=1)]


class WorkflowDefinition(_Definition):
    name: Name
    dag: DagDefinition

    def to_json(self) -> bytes:
        """The normalised definition: every field of every node present, in one order.

        Equal definitions give equal bytes, however they were written. Built by hand because
        `model_dump_json` takes four times as long.
        """
        nodes = [
            {
                "id": node.id,
                "handler": node.handler,
                "dependencies": node.dependencies,
                "config": node.config,
            }
            for node in self.dag.nodes
        ]
        return orjson.dumps({"name": self.name, "dag": {"nodes": nodes}})
