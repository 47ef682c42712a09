"""Whether everything that belongs to a set is something that is applied."""

from __future__ import annotations

from typing import NamedTuple

from flowd.store import Store
from flowd.store.sets import parse_member
from flowd.workflow.ids import is_name
from flowd.workflow.report import quote


class SetsView(NamedTuple):
    """How many members sets have, and what is wrong with them."""

    members: int = 0
    mismatches: tuple[str, ...] = ()


async def look_at_sets(store: Store) -> SetsView:
    """What is not there yet may be a member: it is noted before it is made."""
    owners = await store.saved.sets.owners()
    found = [
        f"{quote(member)} belongs to the set {quote(owner)}, and is nothing that is applied"
        for member, owner in sorted(owners.items())
        if parse_member(member) is None
    ]
    found += [
        f"{quote(member)} belongs to {quote(owner)}, which is no name of a set"
        for member, owner in sorted(owners.items())
        if not is_name(owner)
    ]
    return SetsView(len(owners), tuple(found))
