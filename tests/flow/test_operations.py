"""Alive, ready, measured: what those who operate flowd ask it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from dataclasses import replace

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from flowd import __version__
from flowd.api.shared import shared_of
from flowd.api.shared_check import CHECKS_PER_S_MAX
from flowd.config import SchedulerSettings
from flowd.scheduler.scheduler import Scheduler
from flowd.store import open_store
from flowd.store.executions import now_ms
from flowd.store.redis import keys
from flowd.workers import lease
from flowd.workers.tally import Tally
from flowd.workflow.ids import new_execution_id
from tests.daemon import PATIENCE_S
from tests.flow.api_server import api_server
from tests.flow.engine import Engine, until
from tests.private_server import PrivateServer


def samples(body):
    """Every sample by its name and labels; a name that is no metric's own would not parse."""
    families = list(text_string_to_metric_families(body.decode()))
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


async def test_it_is_ready_once_a_scheduler_ticks_and_until_none_does(settings, redis):
    rare = replace(settings, scheduler=SchedulerSettings(interval_s=2.0))
    async with api_server(rare) as api:
        status, media_type, body = await api.get("/readyz")
        assert (status, media_type) == (503, "application/problem+json")
        document = orjson.loads(body)
        assert document["code"] == "not_ready"
        assert [one["path"] for one in document["errors"]] == ["checks.scheduler"]

        ticking = open_store(rare)
        await Scheduler(ticking, interval_s=2.0).tick(1.0)
        await ticking.close()
        redis.hset(keys.LEASES, "w1", 0)
        redis.xadd("workflow:tasks", {"execution_id": "x", "node_id": "a"}, id="1000-0")
        status, media_type, body = await api.get("/readyz")
        assert (status, media_type) == (200, "application/json")
        document = orjson.loads(body)
        assert document["status"] == "ok"
        assert document["checks"]["redis"].keys() == {
            *("ok", "write_ms", "server", "primary", "risks", "replicas"),
        }
        assert document["checks"]["scheduler"]["ok"] is True
        assert document["checks"]["workers"] == {"ok": True, "live": 1, "stalled": {}}
        assert document["checks"]["queue"]["waiting"] == 1
        assert document["checks"]["queue"]["oldest_age_ms"] > 10**12
        assert 0 < redis.pttl(keys.SCHEDULER) <= 10_000
        assert 0 < redis.pttl(keys.READY_PROBE) <= 10_000

        redis.pexpire(keys.SCHEDULER, 1)
        await until(lambda: not redis.exists(keys.SCHEDULER), "the end of the heartbeat")
        assert (await api.get("/readyz"))[0] == 503


async def test_a_redis_that_takes_no_writes_is_named(settings, redis):
    redis.set(keys.SCHEDULER, 1)
    async with api_server(settings) as api:
        assert (await api.get("/readyz"))[0] == 200
        redis.config_set("maxmemory", 1)
        try:
            status, _, body = await api.get("/readyz")
        finally:
            redis.config_set("maxmemory", 0)
        assert (status, orjson.loads(body)["errors"][0]["path"]) == (503, "checks.redis")
        assert (await api.get("/readyz"))[0] == 200


async def test_however_many_ask_whether_it_is_ready_few_writes_follow(settings, redis):
    redis.set(keys.SCHEDULER, 1)
    async with api_server(settings) as api:
        writes = redis.info("commandstats").get("cmdstat_set", {}).get("calls", 0)
        begun = time.monotonic()
        for _ in range(10):
            answers = await asyncio.gather(*(api.get("/readyz") for _ in range(20)))
            assert {status for status, _, _ in answers} == {200}
        took_s = time.monotonic() - begun
        written = redis.info("commandstats")["cmdstat_set"]["calls"] - writes
    assert 1 <= written <= 1 + (1 + took_s) * CHECKS_PER_S_MAX


async def test_without_redis_it_is_alive_and_not_ready():
    own = PrivateServer()
    own.start()
    try:
        async with api_server(own.settings()) as api:
            assert (await api.get("/livez"))[2] == b'{"status":"ok"}'
            own.process.kill()
            own.process.wait()
            assert (await api.get("/livez"))[0] == 200
            status, _, body = await api.get("/readyz")
            assert (status, orjson.loads(body)["errors"][0]["path"]) == (503, "checks.redis")
            assert (await api.get("/metrics"))[0] == 503
            assert (await api.get("/events"))[0] == 503
    finally:
        own.stop()


async def test_everything_is_measured_and_parses(settings, redis, store):
    tally = Tally()
    for waited_ms, ran_ms in ((0, 0), (1, 2), (3, 4), (10**7, 5)):
        tally.note("noop", "COMPLETED", waited_ms, ran_ms)
    tally.note('odd "name" of mine', "FAILED", 1, 1)
    await tally.flush(store.health.metrics)
    active = [new_execution_id(now_ms()) for _ in range(3)]
    for one, state in zip(active, ("RUNNING", "PAUSED", "RUNNING"), strict=True):
        redis.set(keys.status(one), state)
        redis.sadd(keys.ACTIVE, one)
    redis.zadd(keys.by_status("PAUSED"), {active[1]: 0})
    redis.zadd(keys.EXECUTIONS, dict.fromkeys([*active, "finished", "pending"], 0))
    redis.zadd(keys.FINISHED, {"finished": 1})
    redis.zadd(keys.RETRIES, {"x a": 1, "x b": 10**14})
    redis.hset(keys.METRICS, "executions COMPLETED", 7)
    redis.hset(keys.LEASES, "w1", 0)
    redis.xgroup_create("workflow:tasks", "workflow_group", mkstream=True)
    for _ in range(3):
        redis.xadd("workflow:tasks", {"execution_id": "x", "node_id": "a"})
    redis.xreadgroup("workflow_group", "w1", {"workflow:tasks": ">"}, count=1)
    redis.xadd(keys.EVENTS, {"execution.submitted": "x"})
    redis.xadd(keys.DEAD_LETTERS, {"a": "b"})

    async with api_server(settings) as api:
        status, media_type, body = await api.get("/metrics")
    assert (status, media_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = samples(body)
    assert found["flowd_executions", "RUNNING"] == 2
    assert found["flowd_executions", "PAUSED"] == 1
    assert found["flowd_executions", "PENDING"] == 1
    assert found["flowd_executions_kept",] == 1
    assert found["flowd_executions_ended_total", "COMPLETED"] == 7
    assert found["flowd_nodes_ended_total", "COMPLETED", "noop"] == 4
    assert found["flowd_nodes_ended_total", "FAILED", 'odd "name" of mine'] == 1
    assert found["flowd_node_waited_seconds_bucket", "0.001", "noop"] == 2
    assert found["flowd_node_waited_seconds_bucket", "0.002", "noop"] == 2
    assert found["flowd_node_waited_seconds_bucket", "0.004", "noop"] == 3
    assert found["flowd_node_waited_seconds_bucket", "1048.58", "noop"] == 3
    assert found["flowd_node_waited_seconds_bucket", "+Inf", "noop"] == 4
    assert found["flowd_node_waited_seconds_sum", "noop"] == (10**7 + 4) / 1000
    assert found["flowd_node_ran_seconds_count", "noop"] == 4
    assert found["flowd_node_ran_seconds_sum", "noop"] == 0.011
    assert (found["flowd_queue_entries",], found["flowd_queue_waiting",]) == (3, 2)
    assert found["flowd_in_flight",] == 1
    assert found["flowd_workers_live",] == 1
    assert (found["flowd_retries_waiting",], found["flowd_retries_due",]) == (2, 1)
    assert (found["flowd_dead_letters",], found["flowd_events_kept",]) == (1, 1)
    assert found["flowd_redis_memory_used_bytes",] > 0
    assert any(name == "flowd_build_info" and __version__ in rest for name, *rest in found)


async def test_an_empty_redis_is_measured_too(settings):
    async with api_server(settings) as api:
        status, _, body = await api.get("/metrics")
    assert status == 200
    assert samples(body)["flowd_queue_entries",] == 0


async def test_restarts_come_from_the_supervisor(settings, tmp_path):
    answer = {
        "processes": [
            {"role": "worker", "restarts": 2},
            {"role": "worker", "restarts": 1},
            {"role": "api", "restarts": 0},
        ]
    }
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()

        def supervise():
            connection, _ = listener.accept()
            assert json.loads(connection.makefile().readline()) == {"command": "status"}
            connection.sendall(json.dumps(answer).encode() + b"\n")
            connection.close()

        thread = threading.Thread(target=supervise, daemon=True)
        thread.start()
        async with api_server(settings) as api:
            shared_of(api.app).control_socket = tmp_path / "control.sock"
            found = samples((await api.get("/metrics"))[2])
        thread.join(PATIENCE_S)
    assert found["flowd_process_restarts_total", "worker"] == 3
    assert found["flowd_process_restarts_total", "api"] == 0


async def test_what_redis_did_not_take_goes_with_the_next_flush(store, redis):
    tally = Tally()
    tally.note("noop", "COMPLETED", 1, 2)
    redis.config_set("maxmemory", 1)
    try:
        await tally.flush(store.health.metrics)
    finally:
        redis.config_set("maxmemory", 0)
    assert redis.hgetall(keys.METRICS) == {}
    tally.note("noop", "COMPLETED", 1, 2)
    await tally.flush(store.health.metrics)
    await tally.flush(store.health.metrics)

    assert redis.hgetall(keys.METRICS) == {
        "ended COMPLETED noop": "2",
        "waited_ms noop": "2",
        "waited 0 noop": "2",
        "ran_ms noop": "4",
        "ran 1 noop": "2",
    }


async def test_a_worker_that_ends_leaves_its_counts(settings, redis):
    async with Engine(settings, workers=1) as engine:
        (worker,) = engine.workers
        worker._tally.note("of a test", "COMPLETED", 1, 1)
    assert redis.hget(keys.METRICS, "ended COMPLETED of a test") == "1"


async def test_counts_travel_with_each_renewal_and_never_cost_the_lease(store, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_EVERY_S", 0.02)
    monkeypatch.setattr(lease, "LET_GO_AFTER_S", 5.0)
    await store.tasks.enroll_worker("w1", b"{}")
    calls = []

    async def never_ends():
        calls.append(1)
        await asyncio.Event().wait()

    keeping = asyncio.create_task(lease.Lease(store.tasks, "w1", never_ends).keep())
    await until(lambda: len(calls) >= 3, "three renewals")
    assert not keeping.done()
    keeping.cancel()


@pytest.mark.parametrize("turns", range(5))
async def test_who_doubts_its_lease_and_is_told_to_end_at_once_ends(store, turns):
    """It did not: what the wait for a doubt was cancelled with came to nothing as one came."""
    await store.tasks.enroll_worker("w1", b"{}")
    kept = lease.Lease(store.tasks, "w1")
    keeping = asyncio.create_task(kept.keep())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    kept.doubt()
    for _ in range(turns):
        await asyncio.sleep(0)
    keeping.cancel()

    done, _ = await asyncio.wait([keeping], timeout=lease.RENEW_EVERY_S / 2)
    assert done
    assert keeping.cancelled()
