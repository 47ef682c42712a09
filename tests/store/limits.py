"""What the tests of limits act with: workers that ask for places."""

from __future__ import annotations

from flowd.store.attempt_records import lost_record
from flowd.store.limits import Asking, Limit
from flowd.store.redis import keys

ONE = {"a": {"limit": "api"}}
THREE = {one: {"limit": "api"} for one in ("a", "b", "c")}
BROAD = {f"n{at:03}": {"limit": "api"} for at in range(120)}


def holding(entries):
    return [entry._replace(holds=True) for entry in entries]


def asking_for(entry, place="api"):
    return Asking(entry, place, lost_record(entry, "-"))


async def ask(engine, entries, place="api"):
    """Who is admitted, as a worker is to go on with it, and the outcomes."""
    outcomes = await engine.store.tasks.limits.admit([asking_for(one, place) for one in entries])
    admitted = [
        one for one, outcome in zip(entries, outcomes, strict=True) if outcome == "admitted"
    ]
    return holding(admitted), outcomes


async def start(engine, graph=THREE, **limit):
    """A worker that has asked for all roots, the execution, and the entries that got a place."""
    await engine.store.tasks.limits.put(Limit("api", **limit))
    worker = engine.worker()
    execution, entries = await engine.start_and_take(graph, worker)
    admitted, _ = await ask(engine, entries)
    return worker, execution, admitted


def nodes_of(redis, key):
    return [member.partition(" ")[2] for member in redis.zrange(key, 0, -1)]


def holders(redis, place="api"):
    return nodes_of(redis, keys.holders(place))


def waiters(redis, place="api"):
    return nodes_of(redis, keys.waiters(place))
