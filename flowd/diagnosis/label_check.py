"""Whether the lists of labels hold the executions that have them, and no others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flowd.store.inspection import Inspection


@dataclass(slots=True)
class Labels:
    """`lists` has the executions that stand under a label, None where that is no list; `given` the
    labels of each execution that exists."""

    lists: dict[str, set[str] | None] = field(default_factory=dict)
    given: dict[str, list[str]] = field(default_factory=dict)

    async def read_given(self, inspection: Inspection, execution_ids: Sequence[str]) -> None:
        labels = await inspection.labels_of(execution_ids)
        pairs = zip(execution_ids, labels, strict=True)
        self.given.update((one, some) for one, some in pairs if some)


def label_mismatches(
    labels: Labels, statuses: Mapping[str, str | None], in_progress: set[str]
) -> Iterator[str]:
    for label, listed in sorted(labels.lists.items()):
        if listed is None:
            yield f"the list of the label {label!r} is of another type than flowd keeps there"
            continue
        for execution_id in sorted(listed - in_progress):
            if label not in labels.given.get(execution_id, ()):
                yield f"execution {execution_id} is listed under the label {label!r} without it"
    for execution_id, given in labels.given.items():
        for label in given:
            listed = labels.lists.get(label, set())
            is_there = statuses.get(execution_id) is not None
            if is_there and listed is not None and execution_id not in listed:
                yield f"execution {execution_id} has the label {label!r} and is not listed under it"
