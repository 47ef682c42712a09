"""Connections when another server becomes the primary: real servers, a primary and its replica."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from flowd.errors import StoreReadOnly, StoreUnavailable
from flowd.orchestrator.plans import Plans
from flowd.scheduler.reconciler import Reconciler
from flowd.scheduler.repairs import NoticeLoss, Readmit
from flowd.store import open_store
from flowd.store.events import BEGINNING
from flowd.store.redis.client import RedisClient
from scripts.replica_set import MovingAddress, ReplicaSet
from tests.store.engine import until


def fail_over(pair: ReplicaSet, address: MovingAddress) -> None:
    """As it is planned: the connections to the old primary stay open."""
    _, second = pair.servers
    pair.wait_until_whole()
    pair.promote(second)
    address.target = second.address


async def test_who_is_told_that_it_is_a_replica_now_goes_to_the_primary(pair, address, moving):
    """Each session and each connection of the pool stayed with the old primary for ever."""
    client = RedisClient(moving)
    session = client.new_session()
    for one in (client, session):
        await one.execute("SET", "x", "1")
    fail_over(pair, address)

    for one in (client, session):
        with contextlib.suppress(StoreUnavailable):
            await one.execute("SET", "x", "2")
        await one.execute("SET", "y", "3")

    assert pair.servers[1].ask("MGET", "x", "y")[1] == "3"
    assert client.lineage.failovers == 1
    await session.close()
    await client.close()


async def test_an_error_within_a_transaction_leads_away_too(pair, address, moving):
    client = RedisClient(moving)
    session = client.new_session()
    write = ("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "x")
    await session.transaction([write, ("PING",)])
    fail_over(pair, address)

    replies = await session.transaction([write, ("PING",)])

    assert "READONLY" in str(replies[0]) or "ReadOnly" in type(replies[0]).__name__
    assert await session.transaction([write, ("PING",)]) == ["OK", "PONG"]
    await session.close()
    await client.close()


async def test_a_replica_is_not_talked_to_at_all(pair, address, moving):
    address.target = pair.servers[1].address
    client = RedisClient(moving)

    with pytest.raises(StoreReadOnly, match="primary"):
        await client.execute("GET", "x")

    address.target = pair.servers[0].address
    assert await client.execute("GET", "x") is None
    await client.close()


async def test_whoever_meets_the_new_primary_takes_the_others_along(pair, address, moving):
    """The old one is cut off from its replica and its Sentinels: it takes itself for the primary,
    and whoever waits there would wait on."""
    client = RedisClient(moving)
    waiting = client.new_session()
    await client.execute("PING")
    bell = asyncio.create_task(waiting.execute("BLPOP", "list", 60, timeout_s=70))
    first, second = pair.servers

    def is_waiting() -> bool:
        return first.ask("INFO", "clients")["blocked_clients"] == 1

    await until(is_waiting)
    second.ask("REPLICAOF", "NO", "ONE")
    address.target = second.address

    fresh = client.new_session()
    assert await fresh.execute("SET", "x", "1") == "OK"

    with pytest.raises(StoreUnavailable, match="does not answer"):
        await bell
    assert await waiting.execute("GET", "x") == "1"
    # None of the pool, either, is left with the old one.
    assert await client.execute("GET", "x") == "1"
    for one in (fresh, waiting, client):
        await one.close()


async def test_a_failover_is_told_as_such_and_all_is_looked_through(pair, address, moving, capfd):
    store = open_store(moving)
    reconciler = Reconciler(store, Plans(store))
    readmit = Readmit(store, reconciler)
    notice = NoticeLoss(store, 1.0, readmit)
    for _ in range(2):
        await store.tasks.queues.ensure_groups()
        pair.servers[0].ask("XADD", "workflow:tasks", "*", "a", "b")
        await notice.run(0.0)
    readmit.due_at_s = 1e9
    # A replica that has heard of all but the last entry.
    await until(lambda: pair.servers[1].ask("XLEN", "workflow:tasks") == 2)
    pair.servers[1].ask("REPLICAOF", "NO", "ONE")
    pair.servers[0].ask("XADD", "workflow:tasks", "*", "a", "b")
    await notice.run(0.0)
    pair.servers[0].ask("REPLICAOF", *pair.servers[1].address)
    address.target = pair.servers[1].address

    with contextlib.suppress(StoreUnavailable):
        await store.health.metrics.write_probe()
    await store.health.metrics.write_probe()
    await notice.run(0.0)

    told = capfd.readouterr().err
    assert '"redis.emptied"' not in told
    assert told.count("redis.failed_over") == 1
    assert "entries_before=3 entries=2" in told or '"entries_before":3,"entries":2' in told
    assert readmit.due_at_s < 0
    await notice.run(0.0)
    assert "redis" not in capfd.readouterr().err
    await store.close()


async def test_a_tail_hands_on_nothing_of_a_server_that_has_become_a_replica(
    pair, address, moving, monkeypatch
):
    """It answers reads, with what its new primary sends it: what is missing in between was told to
    nobody."""
    monkeypatch.setattr("flowd.store.events.ROLE_EVERY_S", 0.0)
    store = open_store(moving)
    tail = store.events.open_tail()
    assert await tail.next(BEGINNING, block_ms=1) == []
    _, second = pair.servers
    pair.promote(second)
    entry_id = second.ask("XADD", "flowd:events", "*", "node.completed", "x")
    pair.wait_until_whole()

    with pytest.raises(StoreReadOnly, match="primary"):
        await tail.next(BEGINNING, block_ms=1)

    address.target = second.address
    assert await tail.next(BEGINNING) == [(entry_id, ["node.completed", "x"])]
    assert store.events.failovers == 1
    for one in (tail, store):
        await one.close()


async def test_a_tail_asks_for_the_role_of_its_server_now_and_then_only(pair, moving):
    store = open_store(moving)
    tail = store.events.open_tail()

    def asked() -> int:
        return pair.servers[0].ask("INFO", "commandstats")["cmdstat_hello"]["calls"]

    await tail.next(BEGINNING, block_ms=1)
    before = asked()
    for _ in range(10):
        await tail.next(BEGINNING, block_ms=1)

    assert asked() - before <= 1
    for one in (tail, store):
        await one.close()
