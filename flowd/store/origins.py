"""Where an execution comes from, as its run hash says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from flowd.store.redis.client import Argument
from flowd.store.redis.text import readable


class Origin(NamedTuple):
    """What is empty is not said. `definition` is `name@version` of a saved one, `scheduled_at` the
    nominal time of its schedule (ISO 8601). Of children `Kin` says whose they are.
    """

    definition: str = ""
    labels: Mapping[str, str] = MappingProxyType({})
    schedule: str = ""
    scheduled_at: str = ""

    def fields(self) -> dict[str, Argument]:
        said = {
            "definition": self.definition,
            "labels": "\n".join(f"{name}={value}" for name, value in sorted(self.labels.items())),
            "schedule": self.schedule,
            "scheduled_at": self.scheduled_at,
        }
        return {name: value for name, value in said.items() if value}


# Of an execution that somebody submitted.
NOWHERE: Final = Origin()


def read_origin(values: Sequence[str | None]) -> Origin:
    """Of the fields in their order; what is damaged is not said."""
    definition, labels, schedule, scheduled_at = (readable(one or "") for one in values)
    pairs = (line.partition("=") for line in labels.split("\n"))
    return Origin(
        definition,
        {name: value for name, equals, value in pairs if equals},
        schedule,
        scheduled_at,
    )
