"""What clients and nodes see of a failover: real servers, a primary and its replica."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import redis as redis_py

from flowd.api.shared import shared_of
from flowd.errors import StoreUnavailable
from flowd.store.events import Tail, behind
from scripts.replica_set import ReplicaServer
from tests.flow.api_server import api_server
from tests.flow.test_events import completed, happen, named
from tests.store.engine import until


def client_of(server: ReplicaServer) -> redis_py.Redis:
    return redis_py.Redis(unix_socket_path=server.socket_path, decode_responses=True)


def now_ms(redis: redis_py.Redis) -> int:
    seconds, microseconds = redis.time()
    return seconds * 1000 + microseconds // 1000


@pytest.mark.parametrize(
    "demoted",
    ["while a read is open", "between two reads", "and another has met the new one"],
)
async def test_who_listens_is_told_that_events_may_be_lost(
    pair, address, moving, monkeypatch, demoted
):
    """What it was told of last is not in the replica, which goes on with events of its own. A
    demoted server answered reads: on an API that was only listened to, nobody noticed."""
    monkeypatch.setattr("flowd.store.events.ROLE_EVERY_S", 0.0)
    may_read, read_on = asyncio.Event(), Tail.next
    may_read.set()

    async def read_when_told(*arguments):
        await may_read.wait()
        return await read_on(*arguments)

    monkeypatch.setattr(Tail, "next", read_when_told)
    old, new = pair.servers
    with client_of(old) as before, client_of(new) as after:
        async with api_server(moving) as api:
            client = await api.connect("/events")
            await anext(client.blocks())
            kept = happen(before, completed("x", "a"))
            assert named(await client.take(1)) == ["a"]
            pair.wait_until_whole()
            after.replicaof("NO", "ONE")
            if demoted != "while a read is open":
                may_read.clear()
            lost = happen(before, completed("x", "b"))
            assert named(await client.take(1)) == ["b"]
            # What the new one says in the same millisecond has the same id, and counts as read.
            await until(lambda: now_ms(after) > behind(lost).ms)
            address.target = new.address
            if demoted == "while a read is open":
                await until(lambda: before.info("clients")["blocked_clients"] >= 1)
            before.replicaof(*new.address)
            happen(after, completed("x", "c"))
            pair.wait_until_whole()
            if demoted == "and another has met the new one":
                probe = shared_of(api.app).store.health.metrics.write_probe
                with contextlib.suppress(StoreUnavailable):
                    await probe()
                await probe()
            may_read.set()

            gap, event = await client.take(2)

    assert (gap["event"], gap["data"]) == ("gap", {"after": lost, "oldest": kept})
    assert named([event]) == ["c"]
