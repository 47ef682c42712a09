"""What clients and nodes see of a failover: real servers, a primary and its replica."""

from __future__ import annotations

import redis as redis_py

from scripts.replica_set import ReplicaServer
from tests.flow.api_server import api_server
from tests.flow.test_events import completed, happen, named
from tests.store.engine import until


def client_of(server: ReplicaServer) -> redis_py.Redis:
    return redis_py.Redis(unix_socket_path=server.socket_path, decode_responses=True)


async def test_who_listens_is_told_that_events_may_be_lost(pair, address, moving):
    """What it was told of last is not in the replica, which goes on with events of its own."""
    old, new = pair.servers
    with client_of(old) as before, client_of(new) as after:
        async with api_server(moving) as api:
            client = await api.connect("/events")
            await anext(client.blocks())
            kept = happen(before, completed("x", "a"))
            assert named(await client.take(1)) == ["a"]
            pair.wait_until_whole()
            after.replicaof("NO", "ONE")
            lost = happen(before, completed("x", "b"))
            assert named(await client.take(1)) == ["b"]
            address.target = new.address
            # A replica answers reads: who has none open there is told by the next write only.
            await until(lambda: before.info("clients")["blocked_clients"] >= 1)
            before.replicaof(*new.address)
            happen(after, completed("x", "c"))

            gap, event = await client.take(2)

    assert (gap["event"], gap["data"]) == ("gap", {"after": lost, "oldest": kept})
    assert named([event]) == ["c"]
