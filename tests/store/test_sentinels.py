"""The primary is where the Sentinels say: three of them, a primary and two replicas."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowd.config import Settings
from flowd.config.loading import load_settings
from flowd.errors import StoreUnavailable
from flowd.store.primary import locate_primary, reach_primary
from flowd.store.redis.client import RedisClient, Session
from flowd.supervisor.embedded_server import choose_server, wait_for_external
from scripts.replica_set import MASTER_NAME, ReplicaSet, hold_port, port_of
from tests.daemon import PATIENCE_S
from tests.store.engine import until


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    with ReplicaSet(tmp_path_factory.mktemp("watched"), replicas=2, sentinels=3) as servers:
        yield servers


@pytest.fixture
def whole(watched: ReplicaSet) -> ReplicaSet:
    """Whatever the test before has done to them."""
    watched.mend()
    return watched


def at(url: str, tmp_path: Path) -> Settings:
    config = tmp_path / "flowd.toml"
    config.touch()
    return load_settings(config, {}, {"FLOWD_REDIS__URL": url})


@pytest.fixture
def dead_port() -> Iterator[int]:
    with hold_port() as held:
        yield port_of(held)


@contextlib.asynccontextmanager
async def client_at(url: str, tmp_path: Path):
    client = RedisClient(at(url, tmp_path))
    try:
        yield client
    finally:
        await client.close()


async def until_answered(client: RedisClient | Session, *command: str) -> object:
    """The first reply, however often it has to be asked."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(StoreUnavailable):
                return await client.execute(*command)
            await asyncio.sleep(0.01)


async def test_the_first_that_answers_is_asked_and_those_that_are_dead_are_passed_over(
    whole, dead_port, tmp_path
):
    url = whole.url.replace("//", f"//127.0.0.1:{dead_port},")

    async with client_at(url, tmp_path) as client:
        assert await client.execute("SET", "x", "1") == "OK"
        assert whole.primary.ask("GET", "x") == "1"

    settings = at(url, tmp_path)
    assert choose_server(settings) is None
    primary = whole.primary.port
    assert locate_primary(settings.redis).address == f"127.0.0.1:{primary}"


async def test_a_db_is_that_of_the_server(whole, tmp_path):
    async with client_at(whole.url.removesuffix("/0") + "/3", tmp_path) as client:
        await client.execute("SET", "in-three", "1")

    assert "db3" in whole.primary.ask("INFO", "keyspace")


@pytest.mark.parametrize(
    ("master", "is_there", "told"),
    [
        ("nobody", True, "the Sentinels know no master 'nobody'"),
        (MASTER_NAME, False, "no Sentinel answers: 127.0.0.1:"),
    ],
)
async def test_what_no_sentinel_knows_is_said(whole, dead_port, tmp_path, master, is_there, told):
    url = whole.url if is_there else f"redis+sentinel://127.0.0.1:{dead_port}/p0"
    url = url.replace(f"/{MASTER_NAME}", f"/{master}")

    async with client_at(url, tmp_path) as client:
        with pytest.raises(StoreUnavailable, match=told):
            await client.execute("PING")
    with pytest.raises(StoreUnavailable, match=told):
        reach_primary(at(url, tmp_path).redis)


async def test_the_login_of_the_sentinels_is_asked_for_refused_or_taken(whole, tmp_path):
    for sentinel in whole.sentinels:
        sentinel.ask("ACL", "SETUSER", "default", "resetpass", ">s3cret")
    try:
        for query, told in (
            ("", "a Sentinel refused the login"),
            ("?sentinel_password=wrong", "a Sentinel refused the login"),
            ("?sentinel_password=s3cret", None),
        ):
            async with client_at(whole.url + query, tmp_path) as client:
                if told is None:
                    assert await client.execute("PING") == "PONG"
                    assert choose_server(at(whole.url + query, tmp_path)) is None
                    continue
                with pytest.raises(StoreUnavailable, match=told) as refused:
                    await client.execute("PING")
                assert "wrong" not in str(refused.value)
    finally:
        for sentinel in whole.sentinels:
            sentinel.ask("ACL", "SETUSER", "default", "nopass", password="s3cret")


async def test_a_killed_primary_is_followed_by_the_one_they_choose(whole, tmp_path):
    async with client_at(whole.url, tmp_path) as client:
        await client.execute("SET", "x", "1")
        whole.wait_until_whole()
        old = whole.primary
        old.kill()

        assert await until_answered(client, "GET", "x") == "1"

        assert whole.primary is not old
        # Whoever is slow may be replaced again.
        assert client.lineage.failovers >= 1


def test_a_start_amid_a_failover_waits_for_the_primary_they_choose(whole, tmp_path):
    """Longer than for a server that nobody names, which is given up soon."""
    redis = at(whole.url, tmp_path).redis
    whole.wait_until_whole()
    old = whole.primary
    old.process.send_signal(signal.SIGSTOP)

    wait_for_external(redis, wait_s=0.0)

    assert f":{old.port}" not in locate_primary(redis).url


async def test_who_waits_at_a_frozen_primary_is_sent_away_when_there_is_another(whole, tmp_path):
    """Its connections stay open, and its reply would be waited for."""
    async with client_at(whole.url, tmp_path) as client:
        session = client.new_session()
        await session.execute("PING")
        old = whole.primary
        bell = asyncio.create_task(session.execute("BLPOP", "list", 0, timeout_s=3_600))
        await until(lambda: old.ask("INFO", "clients")["blocked_clients"] == 1)
        old.process.send_signal(signal.SIGSTOP)

        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StoreUnavailable):
                await bell

        # The next Sentinel it asks may be the last to hear of it.
        assert await until_answered(session, "SET", "x", "2") == "OK"
        await session.close()


async def test_a_sentinel_that_is_lost_takes_nobody_along(whole, tmp_path):
    async with client_at(whole.url, tmp_path) as client:
        await client.execute("PING")
        lost = whole.sentinels[0]
        lost.kill()
        old = whole.primary
        old.kill()

        assert await until_answered(client, "SET", "x", "3") == "OK"
