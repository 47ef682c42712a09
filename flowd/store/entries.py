"""Entries of the task streams: one attempt of one node each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from flowd.workflow.ids import DEFAULT_QUEUE, is_execution_id


class Entry(NamedTuple):
    """One attempt of one node, as it stands in the stream of its queue.

    `name` is its full name: two streams may give equal ids. That is its id in the default queue,
    and `queue/id` in another.
    `deaths` counts the workers lost with it, `failures` the attempts that failed; neither counts
    what was taken away from a worker that did nothing wrong, as `attempt` does. `waits` is how
    often the node has waited. What `holds` has, or may have, a place of a limit to give back; where
    the stream says so, it has one. `arrived` is what has arrived at the node, as the module
    `choices` has it; None where the stream does not say.
    """

    name: str
    execution_id: str
    node_id: str
    attempt: int
    plan_digest: str
    deaths: int
    failures: int = 0
    waits: int = 0
    holds: bool = False
    arrived: int | None = None

    @property
    def queue(self) -> str:
        return queue_of(self.name)

    @property
    def queued_ms(self) -> int:
        return int(self.name.rpartition("/")[2].partition("-")[0])


# The fields of append_entry.lua.
_FIRST_ATTEMPT: Final = ["execution_id", "node_id", "attempt", "plan"]


class Garbage(NamedTuple):
    """An entry flowd did not write, or somebody has damaged."""

    name: str
    reason: str


def name_in(queue: str, entry_id: str) -> str:
    """The full name of the entry of this id."""
    return entry_id if queue == DEFAULT_QUEUE else f"{queue}/{entry_id}"


def queue_of(name: str) -> str:
    return name.partition("/")[0] if "/" in name else DEFAULT_QUEUE


def id_of(name: str) -> str:
    """What an entry is called in its own stream."""
    return name.partition("/")[2] if "/" in name else name


def entry_order(name: str) -> tuple[int, int]:
    """What sorts the entries of one stream as that does."""
    ms, _, sequence = id_of(name).partition("-")
    return int(ms), int(sequence)


def parse_entry(name: str, fields: Sequence[str] | None) -> Entry | Garbage | None:
    """None for an entry that is pending but was deleted from the stream."""
    if fields is None:
        return None
    if fields[::2] == _FIRST_ATTEMPT:
        # Nearly every entry, and three times as fast so.
        execution_id, node_id, attempt, plan = fields[1::2]
        if attempt == "1" and node_id and is_execution_id(execution_id):
            return Entry(name, execution_id, node_id, 1, plan, 0)
    named = dict(zip(fields[::2], fields[1::2], strict=False))
    execution_id, node_id = named.get("execution_id", ""), named.get("node_id", "")
    attempt, plan = named.get("attempt", "1"), named.get("plan", "")
    deaths, failures = named.get("deaths", "0"), named.get("failures", "0")
    waits = named.get("waits", "0")
    holds = "place" in named
    if not is_execution_id(execution_id) or not node_id:
        return Garbage(name, "it names no execution_id and node_id")
    try:
        counts = int(attempt), int(deaths), int(failures), int(waits)
        arrived = int(named["arrived"]) if "arrived" in named else None
    except ValueError:
        return Garbage(name, "its attempt, deaths, failures, waits or arrived is not a number")
    return Entry(
        name, execution_id, node_id, counts[0], plan, *counts[1:], holds=holds, arrived=arrived
    )
