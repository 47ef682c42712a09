"""What the tests of limits act with: workers that ask for places."""

from __future__ import annotations

from flowd.store.attempt_records import lost_record
from flowd.store.limits import Asking, Limit
from flowd.store.redis import keys
from flowd.workflow.ids import DEFAULT_QUEUE

ONE = {"a": {"limit": "api"}}
THREE = {one: {"limit": "api"} for one in ("a", "b", "c")}
BROAD = {f"n{at:03}": {"limit": "api"} for at in range(120)}


def holding(entries):
    return [entry._replace(holds=True) for entry in entries]


def asking_for(entry, place="api", queues=(DEFAULT_QUEUE,)):
    return Asking(entry, place, lost_record(entry, "-"), queues.index(entry.queue))


async def ask(engine, entries, place="api", queues=(DEFAULT_QUEUE,)):
    """Who is admitted, as a worker of these queues is to go on with it, and the outcomes."""
    asking = [asking_for(one, place, queues) for one in entries]
    outcomes = await engine.store.tasks.limits.admit(asking)
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
