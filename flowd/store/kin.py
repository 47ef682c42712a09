"""What a child is to its parent, as its run hash says it."""

from __future__ import annotations

from typing import NamedTuple


class Kin(NamedTuple):
    """Where an execution stands in its tree: the node it is for, and the root."""

    parent_id: str
    node_id: str
    number: int
    root_id: str
    depth: int


def parse_kin(text: str | None) -> Kin | None:
    """None for a root, and for what flowd did not write."""
    parts = (text or "").split(" ")
    if len(parts) != 5 or not (parts[2].isdecimal() and parts[4].isdecimal()):
        return None
    return Kin(parts[0], parts[1], int(parts[2]), parts[3], int(parts[4]))
