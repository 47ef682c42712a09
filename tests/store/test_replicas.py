"""`redis.replicas`: what is acknowledged is on so many of them. Real servers; one is frozen."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result

from flowd.cli.main import main
from flowd.config import Settings
from flowd.config.loading import load_settings
from flowd.diagnosis.doctor import examine
from flowd.diagnosis.readiness import check
from flowd.orchestrator.executor import submit_workflow, trigger_workflow
from flowd.store import open_store
from flowd.store.redis import replicated
from flowd.store.redis.replicated import NotReplicated, ReplicatedClient, new_client
from flowd.workflow.definition import WorkflowDefinition
from scripts.replica_set import ReplicaSet
from tests.daemon import wait_until
from tests.store.engine import until

# Less than a client waits for a reply.
SLOW_MS = 9_000
WORKFLOW = WorkflowDefinition.model_validate(
    {"name": "x", "dag": {"nodes": [{"id": "A", "handler": "noop", "dependencies": []}]}}
)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    with ReplicaSet(tmp_path_factory.mktemp("pair")) as servers:
        yield servers


@pytest.fixture
def pair(servers: ReplicaSet, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReplicaSet]:
    """A replica that is slow is waited for: one that is frozen only is given up soon."""
    monkeypatch.setattr(replicated, "CONFIRM_MS", SLOW_MS)
    servers.servers[0].ask("FLUSHALL")
    yield servers
    servers.servers[1].process.send_signal(signal.SIGCONT)
    servers.wait_until_whole()


@pytest.fixture
def asking(pair: ReplicaSet, tmp_path: Path) -> Settings:
    config = tmp_path / "flowd.toml"
    config.touch()
    port = pair.servers[0].port
    given = {"FLOWD_REDIS__URL": f"redis://127.0.0.1:{port}", "FLOWD_REDIS__REPLICAS": "1"}
    return load_settings(config, {}, given)


@pytest.fixture
def client(asking: Settings, runner: asyncio.Runner) -> Iterator[ReplicatedClient]:
    client = new_client(asking)
    assert isinstance(client, ReplicatedClient)
    yield client
    runner.run(client.close())


def careless(asking: Settings) -> Settings:
    return replace(asking, redis=replace(asking.redis, replicas=0))


def freeze(pair: ReplicaSet, confirm_ms: int = 100) -> None:
    process = pair.servers[1].process
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "it to stop")
    setattr(replicated, "CONFIRM_MS", confirm_ms)  # noqa: B010


def thaw(pair: ReplicaSet) -> None:
    pair.servers[1].process.send_signal(signal.SIGCONT)
    setattr(replicated, "CONFIRM_MS", SLOW_MS)  # noqa: B010


async def test_a_write_is_answered_when_a_replica_has_it(pair, client):
    assert await client.execute("SET", "x", "1") == "OK"

    assert pair.servers[1].ask("GET", "x") == "1"


async def test_a_write_that_no_replica_has_is_an_error_although_it_was_done(pair, client):
    await client.execute("PING")
    freeze(pair)

    with pytest.raises(NotReplicated, match="0 of the 1 replicas"):
        await client.execute("SET", "x", "2")

    assert pair.servers[0].ask("GET", "x") == "2"


async def test_who_finds_the_work_of_another_done_rests_on_it_too(pair, asking):
    """What it has written itself is on the replica: that alone is what WAIT speaks of."""
    first, second = open_store(careless(asking)), open_store(asking)
    await second.health.metrics.write_probe()
    freeze(pair)
    await submit_workflow(first, WORKFLOW, execution_id="0" * 24)
    await trigger_workflow(first, "0" * 24)

    for again in (
        lambda: submit_workflow(second, WORKFLOW, execution_id="0" * 24),
        lambda: trigger_workflow(second, "0" * 24),
    ):
        with pytest.raises(NotReplicated):
            await again()

    thaw(pair)
    await trigger_workflow(second, "0" * 24)
    assert pair.servers[1].ask("GET", f"workflow:{'0' * 24}:status") == "RUNNING"
    for store in (first, second):
        await store.close()


async def test_reads_are_answered_meanwhile(pair, client):
    await client.execute("SET", "x", "1")
    freeze(pair)

    assert await client.execute("GET", "x") == "1"
    assert await client.converse([("GET", "x"), ("EXISTS", "x")]) == ["1", 1]


async def test_a_lease_is_taken_and_renewed_meanwhile(pair, asking):
    """Nobody is promised anything by it. A worker that lost it would let go of its nodes, and one
    that was started would never be ready, and end flowd with it."""
    store = open_store(asking)
    freeze(pair)

    await store.tasks.enroll_worker("w1", b"{}")

    assert await store.tasks.renew_lease("w1")

    await store.close()


@pytest.mark.parametrize("way", ["the doorbell", "the call"])
async def test_an_entry_is_given_to_nobody_before_a_replica_has_it(pair, asking, way):
    store, other = open_store(asking), open_store(careless(asking))
    await store.tasks.queues.ensure_groups()
    session = store.tasks.open_session("w1")
    await session.own_entries()
    freeze(pair)
    await submit_workflow(other, WORKFLOW, execution_id="1" * 24)
    await trigger_workflow(other, "1" * 24)

    async def take() -> list[object]:
        if way == "the doorbell":
            return list(await session.wait_for_entry())
        return list((await session.complete_and_claim((), (), (), 4)).entries)

    with pytest.raises(NotReplicated):
        await take()
    with pytest.raises(NotReplicated):
        await session.own_entries()

    thaw(pair)
    (entry,) = await session.own_entries()
    assert entry.node_id == "A"
    await session.close()
    for one in (store, other):
        await one.close()


async def test_calls_that_come_at_once_are_confirmed_together(pair, client):
    await client.execute("PING")

    def confirmed() -> int:
        stats = pair.servers[0].ask("INFO", "commandstats")
        return int(stats.get("cmdstat_wait", {}).get("calls", 0))

    before = confirmed()
    answers = await asyncio.gather(*(client.execute("SET", f"k{at}", "x") for at in range(100)))

    assert answers == ["OK"] * 100
    assert 1 <= confirmed() - before <= 4


async def test_who_is_cancelled_takes_nobody_along(client):
    await client.execute("SET", "x", "0")
    calls = [asyncio.create_task(client.execute("INCR", "x")) for _ in range(10)]
    await asyncio.sleep(0)
    calls[3].cancel()

    found = await asyncio.gather(*calls, return_exceptions=True)

    assert isinstance(found[3], asyncio.CancelledError)
    rest = [one for one in found if not isinstance(one, BaseException)]
    assert sorted(rest) == rest
    assert len(rest) == 9


async def test_an_error_reply_is_that_of_who_asked(client):
    await client.execute("SET", "text", "x")

    found = await asyncio.gather(
        client.execute("SET", "a", "1"),
        client.execute("LPUSH", "text", "x"),
        client.execute("SET", "b", "1"),
        return_exceptions=True,
    )

    assert (found[0], found[2]) == ("OK", "OK")
    assert isinstance(found[1], Exception)
    assert not isinstance(found[1], NotReplicated)


async def test_a_client_that_is_closed_leaves_nobody_waiting(pair, client):
    freeze(pair, SLOW_MS)
    calls = [asyncio.create_task(client.execute("SET", "x", "1")) for _ in range(3)]
    await until(lambda: pair.servers[0].ask("INFO", "clients")["blocked_clients"] == 1)

    await client.close()

    found = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, Exception) for one in found)


async def test_without_it_nothing_is_asked_of_the_server(pair, asking):
    plain = new_client(careless(asking))
    before = pair.servers[0].ask("INFO", "commandstats").get("cmdstat_publish")
    await plain.execute("SET", "x", "1")
    freeze(pair)
    assert await plain.execute("SET", "x", "2") == "OK"

    assert type(plain) is not ReplicatedClient
    assert pair.servers[0].ask("INFO", "commandstats").get("cmdstat_publish") == before
    await plain.close()


def checked(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, ["config", "check", "--connect", *arguments], env=environ)


def test_a_check_says_what_it_has_found_and_what_could_lose_work(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = f"redis://127.0.0.1:{pair.servers[0].port}"

    found = checked(FLOWD_REDIS__URL=url)
    careful = checked(FLOWD_REDIS__URL=url, FLOWD_REDIS__REPLICAS="1")
    greedy = checked(FLOWD_REDIS__URL=url, FLOWD_REDIS__REPLICAS="2")
    replica = checked(FLOWD_REDIS__URL=f"redis://127.0.0.1:{pair.servers[1].port}")

    assert found.exit_code == careful.exit_code == greedy.exit_code == 0, found.output
    assert f"at {url.removeprefix('redis://')}, replicas: 1 online" in found.output
    assert "a failover loses what has not reached the replica" in found.output
    assert "it writes no append-only file" in found.output
    assert "failover" not in careful.output
    assert "redis.replicas is 2, and of its replicas are 1 online" in greedy.output
    assert replica.exit_code == 69
    assert "it is a replica; use its primary" in replica.output


async def test_replicas_are_seen_by_whoever_looks(pair, asking):
    store = open_store(asking)

    checks, problems = await check(store)
    examination = await examine(store)
    metrics = await store.health.metrics.snapshot()

    (shown,) = checks["redis"]["replicas"]
    assert shown["address"].endswith(f":{pair.servers[1].port}")
    assert shown["is_online"]
    assert [one.is_online for one in examination.replicas] == [True]
    assert [one.is_online for one in metrics.replicas] == [True]

    freeze(pair)
    _, problems = await check(store)
    assert [one.code for one in problems] == ["not_replicated"]
    await store.close()
