"""Entries of the task stream: one attempt of one node each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from flowd.workflow.ids import is_execution_id


class Entry(NamedTuple):
    """One attempt of one node, as it stands in the stream.

    `deaths` counts the workers lost with it, `failures` the attempts that failed; neither counts
    what was taken away from a worker that did nothing wrong, as `attempt` does. `waits` is how
    often the node has waited.
    """

    entry_id: str
    execution_id: str
    node_id: str
    attempt: int
    plan_digest: str
    deaths: int
    failures: int = 0
    waits: int = 0

    @property
    def queued_ms(self) -> int:
        return int(self.entry_id.partition("-")[0])


# The fields of append_entry.lua.
_FIRST_ATTEMPT: Final = ["execution_id", "node_id", "attempt", "plan"]


class Garbage(NamedTuple):
    """An entry flowd did not write, or somebody has damaged."""

    entry_id: str
    reason: str


def entry_order(entry_id: str) -> tuple[int, int]:
    """What sorts entry ids as the stream does."""
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence)


def parse_entry(entry_id: str, fields: Sequence[str] | None) -> Entry | Garbage | None:
    """None for an entry that is pending but was deleted from the stream."""
    if fields is None:
        return None
    deaths = failures = waits = "0"
    if fields[::2] == _FIRST_ATTEMPT:
        # Nearly every entry, and twice as fast so.
        execution_id, node_id, attempt, plan = fields[1::2]
    else:
        named = dict(zip(fields[::2], fields[1::2], strict=False))
        execution_id, node_id = named.get("execution_id", ""), named.get("node_id", "")
        attempt, plan = named.get("attempt", "1"), named.get("plan", "")
        deaths, failures = named.get("deaths", "0"), named.get("failures", "0")
        waits = named.get("waits", "0")
    if not is_execution_id(execution_id) or not node_id:
        return Garbage(entry_id, "it names no execution_id and node_id")
    try:
        counts = int(attempt), int(deaths), int(failures), int(waits)
    except ValueError:
        return Garbage(entry_id, "its attempt, deaths, failures or waits is not a number")
    return Entry(entry_id, execution_id, node_id, counts[0], plan, *counts[1:])
