"""The replicas of a Redis, and how far behind they are; `status` loads no more for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Replica(NamedTuple):
    """`lag_s` is since it was heard of last; one that is not online is still to get the whole."""

    address: str
    is_online: bool
    behind_bytes: int
    lag_s: int


def describe(replicas: Iterable[Replica]) -> str:
    """For people."""
    online = [one for one in replicas if one.is_online]
    if not online:
        return "none online"
    behind = max(one.behind_bytes for one in online)
    return f"{len(online)} online" + (f", up to {behind:,} bytes behind" if behind else "")
