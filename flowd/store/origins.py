"""Where an execution comes from, as its run hash says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from flowd.store.redis.client import Argument
from flowd.store.redis.text import readable
from flowd.workflow.ids import is_execution_id


class Origin(NamedTuple):
    """What is empty is not said. `definition` is `name@version` of a saved one, `parent` the
    execution and the node that made it, `scheduled_at` the nominal time of its schedule (ISO 8601).
    """

    definition: str = ""
    labels: Mapping[str, str] = MappingProxyType({})
    parent: tuple[str, str] | None = None
    schedule: str = ""
    scheduled_at: str = ""

    def fields(self) -> dict[str, Argument]:
        said = {
            "definition": self.definition,
            "labels": "\n".join(f"{name}={value}" for name, value in sorted(self.labels.items())),
            "parent": " ".join(self.parent or ()),
            "schedule": self.schedule,
            "scheduled_at": self.scheduled_at,
        }
        return {name: value for name, value in said.items() if value}


# Of an execution that somebody submitted.
NOWHERE: Final = Origin()


def read_origin(values: Sequence[str | None]) -> Origin:
    """Of the fields in their order; what is damaged is not said."""
    definition, labels, parent, schedule, scheduled_at = (readable(one or "") for one in values)
    pairs = (line.partition("=") for line in labels.split("\n"))
    parent_id, node_id = [*parent.split(" "), "", ""][:2]
    return Origin(
        definition,
        {name: value for name, equals, value in pairs if equals},
        (parent_id, node_id) if is_execution_id(parent_id) and node_id else None,
        schedule,
        scheduled_at,
    )
