"""The replicas of a primary, as it says itself, and how far behind they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_NAME = re.compile(r"slave\d+")


class Replica(NamedTuple):
    """`lag_s` is since it was heard of last; one that is not online is still to get the whole."""

    address: str
    is_online: bool
    behind_bytes: int
    lag_s: int


def parse_replicas(facts: Mapping[str, str]) -> tuple[Replica, ...]:
    """From the fields of INFO."""
    offset = int(facts.get("master_repl_offset", 0))
    found = []
    for name, text in facts.items():
        if _NAME.fullmatch(name):
            said = dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)
            behind = max(0, offset - int(said.get("offset", 0)))
            address = f"{said.get('ip')}:{said.get('port')}"
            is_online = said.get("state") == "online"
            found.append(Replica(address, is_online, behind, int(said.get("lag", 0))))
    return tuple(found)


def describe(replicas: Iterable[Replica]) -> str:
    """For people."""
    online = [one for one in replicas if one.is_online]
    if not online:
        return "none online"
    behind = max(one.behind_bytes for one in online)
    return f"{len(online)} online" + (f", up to {behind:,} bytes behind" if behind else "")
