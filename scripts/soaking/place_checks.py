"""What has to hold of places: no more are held than there are, and none is free in vain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import redis as redis_py

from flowd.store.redis import keys

_LIVE = frozenset({"RUNNING", "PAUSED", "CANCELLING"})


def check_places(redis: redis_py.Redis, executions: Mapping[str, Any]) -> Iterator[str]:
    """Who holds a place runs, and who waits is PENDING. `executions` have `status` and `run`."""
    holders = {tuple(one.split(" ")) for one in redis.zrange(keys.PLACE_HOLDERS, 0, -1)}
    waiters = [one.split(" ") for one in redis.zrange(keys.PLACE_WAITERS, 0, -1)]
    asked = {
        (one.run["place"].partition(" ")[0], one.id): one
        for one in executions.values()
        if "place" in one.run
    }
    most = {digest: int(one.run["concurrency"].split(" ")[0]) for (digest, _), one in asked.items()}
    live = {member for member, one in asked.items() if one.status in _LIVE}
    for digest, execution_id in sorted(holders - live):
        yield f"{execution_id}: it holds a place of {digest} and does not run"
    for digest, execution_id in sorted(live - holders):
        yield f"{execution_id}: it runs and holds no place of {digest}"
    waiting = {(digest, execution_id) for digest, _, execution_id in waiters}
    pending = {
        member for member, one in asked.items() if one.status == "PENDING" and "waiting" in one.run
    }
    for _, execution_id in sorted(waiting ^ pending):
        yield f"{execution_id}: it waits for a place, or is among those that do, but not both"
    counts = Counter(digest for digest, _ in holders)
    for digest, count in counts.items():
        if count > most.get(digest, count):
            yield f"{digest}: {count} hold a place, and there are {most[digest]}"
    for digest in sorted({digest for digest, _ in waiting}):
        if counts[digest] < most.get(digest, 0):
            yield f"{digest}: a place is free, and somebody waits"
