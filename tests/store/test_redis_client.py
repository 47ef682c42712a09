"""Connections: every driver error becomes one of flowd's own, and no reply answers another call."""

from __future__ import annotations

import asyncio
import threading

import pytest
import redis as redis_py

from flowd.config.loading import load_settings
from flowd.errors import MissingGroup, MissingScript, StoreError, StoreUnavailable, WrongType
from flowd.store import open_store
from flowd.store.redis import scripts
from flowd.store.redis.client import RedisClient
from tests.daemon import PATIENCE_S
from tests.store.engine import CHAIN, STREAM, configured, until, until_blocked

AN_ID = "0123456789ab0123456789ab"


@pytest.fixture
def client(settings, runner):
    client = RedisClient(settings)
    yield client
    runner.run(client.close())


@pytest.fixture
def session(client, runner):
    session = client.new_session()
    yield session
    runner.run(session.close())


async def test_error_replies_have_names(client, redis):
    redis.set("text", "x")
    for command, error in (
        (("EVALSHA", "0" * 40, 0), MissingScript),
        (("XREADGROUP", "GROUP", "g", "c", "STREAMS", "none", ">"), MissingGroup),
        (("XREADGROUP", "GROUP", "g", "c", "STREAMS", "none", "0"), MissingGroup),
        (("XGROUP", "CREATE", "none", "g", "0"), MissingGroup),
        (("XINFO", "GROUPS", "none"), MissingGroup),
        (("XPENDING", "none", "g", "-", "+", 1), MissingGroup),
        (("LPUSH", "text", "x"), WrongType),
        (("EVAL", "return redis.call('LPUSH', KEYS[1], 'x')", 1, "text"), WrongType),
    ):
        with pytest.raises(error) as raised:
            await client.execute(*command)
        assert type(raised.value) is error


async def test_what_nobody_foresaw_is_a_store_error_that_quotes_redis(client):
    with pytest.raises(StoreError, match=r"refused a command.*unknown command") as raised:
        await client.execute("NO_SUCH_COMMAND")
    assert raised.value.code == "store_failed"
    with pytest.raises(StoreError, match="refused a command"):
        await client.execute("EVAL", "return nonsense.field", 0)


async def test_a_server_that_is_not_there_is_unavailable(server):
    settings = server.settings().with_redis_socket(str(server.folder / "nothing.sock"))
    store = open_store(settings)

    with pytest.raises(StoreUnavailable, match="does not answer"):
        await store.ping()


async def test_a_port_nobody_listens_on_is_unavailable(server):
    config = server.folder / "flowd.toml"
    store = open_store(load_settings(config, {}, {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "1"}))

    with pytest.raises(StoreUnavailable, match="does not answer"):
        await store.ping()


async def test_a_refused_login_says_where_to_look(store, redis, server):
    with configured(redis, requirepass="hush-hush"):
        with pytest.raises(StoreUnavailable, match="refused the login"):
            await store.ping()

        config = server.folder / "flowd.toml"
        for password, is_right in (("hush-hush", True), ("wrong", False)):
            url = f"unix://:{password}@{server.socket_path}"
            other = open_store(load_settings(config, {}, {"FLOWD_REDIS__URL": url}))
            if is_right:
                await other.ping()
                await other.close()
            else:
                with pytest.raises(StoreUnavailable, match="refused the login") as raised:
                    await other.ping()
                assert password not in str(raised.value)


async def test_a_replica_without_its_primary_is_unavailable(client, redis):
    await client.execute("PING")
    with configured(redis, replica_serve_stale_data="no"):
        redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            with pytest.raises(StoreUnavailable, match="not ready"):
                await client.execute("GET", "x")
        finally:
            redis.execute_command("REPLICAOF", "NO", "ONE")


async def test_a_server_that_becomes_a_replica_sends_the_waiting_away(engine, redis):
    await engine.store.tasks.queues.ensure_groups()
    bell = asyncio.create_task(engine.worker().session.wait_for_entry())
    await until_blocked(redis)
    redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(StoreUnavailable):
            await bell
    finally:
        redis.execute_command("REPLICAOF", "NO", "ONE")


async def test_a_primary_that_lacks_its_replicas_is_unavailable(client, redis):
    with configured(redis, min_replicas_to_write=1):
        with pytest.raises(StoreUnavailable, match="not ready"):
            await client.execute("SET", "x", "y")
        with pytest.raises(StoreUnavailable):
            await client.run(scripts.RENEW_LEASE, ["leases"], "w1")


async def test_a_server_that_cannot_save_is_unavailable(client, redis, server):
    """A full disk: the server takes no write before it could save again."""
    gone = server.folder / "gone"
    gone.mkdir()
    with configured(redis, dir=str(gone), save="3600 1000000"):
        gone.rmdir()
        redis.bgsave()
        await until(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err")
        with pytest.raises(StoreUnavailable, match="not ready"):
            await client.execute("SET", "x", "y")
    redis.bgsave()
    await until(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "ok")
    await client.execute("SET", "x", "y")


async def test_a_server_that_is_busy_is_unavailable(client, redis, server):
    with configured(redis, busy_reply_threshold=10):
        endless = threading.Thread(target=run_endless_script, args=(server.socket_path,))
        endless.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(StoreUnavailable, match=r"not ready.*BUSY"):
                    while True:
                        await client.execute("GET", "x")
        finally:
            redis.script_kill()
            endless.join()
    await client.execute("GET", "x")


def run_endless_script(socket_path: str) -> None:
    with (
        redis_py.Redis(unix_socket_path=socket_path) as other,
        pytest.raises(redis_py.ResponseError),
    ):
        other.eval("while true do end", 0)


async def test_a_server_that_is_loading_is_unavailable(client, redis, server):
    for number in range(100):
        redis.set(f"key{number}", "x" * 1000)
    with configured(redis, key_load_delay=3_000, loading_process_events_interval_bytes=1024):
        reload = threading.Thread(target=run_reload, args=(server.socket_path,))
        reload.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(StoreUnavailable):
                    while True:
                        await client.execute("GET", "key1")
        finally:
            reload.join()
    assert await client.execute("GET", "key1") == "x" * 1000


def run_reload(socket_path: str) -> None:
    with redis_py.Redis(unix_socket_path=socket_path) as other:
        other.execute_command("DEBUG", "RELOAD")


async def test_too_many_clients_are_unavailable(settings, redis):
    # Whoever of the test before has yet to go makes no room.
    with configured(redis, maxclients=1):
        store = open_store(settings)
        with pytest.raises(StoreUnavailable):
            await store.ping()
    await store.ping()
    await store.close()


async def test_a_reply_that_comes_too_late_does_not_answer_the_next_call(session):
    with pytest.raises(StoreUnavailable):
        await session.execute("DEBUG", "SLEEP", "0.15", timeout_s=0.02)

    assert await session.execute("ECHO", "fresh") == "fresh"


async def test_a_cancelled_call_does_not_answer_the_next_one(session, redis):
    call = asyncio.create_task(session.execute("BLPOP", "list", 5))
    await until_blocked(redis)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    redis.rpush("list", "late")

    assert await session.execute("ECHO", "fresh") == "fresh"


async def test_a_server_that_stops_in_the_middle_of_the_login_is_not_waited_for(server):
    """A number or password is sent once connected; that answer was once waited for without end."""
    path = str(server.folder / "silent.sock")
    silent = await asyncio.start_unix_server(lambda *_: None, path)
    settings = server.settings(**{"redis.db": 3}).with_redis_socket(path)
    session = RedisClient(settings).new_session()

    async with silent:
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await session.execute("PING", timeout_s=0.01)
    await session.close()


async def test_an_error_reply_keeps_the_connection(session):
    first = await session.execute("CLIENT", "ID")
    with pytest.raises(StoreError):
        await session.execute("NO_SUCH_COMMAND")

    assert await session.execute("CLIENT", "ID") == first


async def test_a_connection_the_server_has_closed_is_opened_anew(session, redis):
    first = await session.execute("CLIENT", "ID")
    redis.client_kill_filter(_id=str(first))
    with pytest.raises(StoreUnavailable):
        await session.execute("PING")

    assert int(await session.execute("CLIENT", "ID")) > int(first)


async def test_connections_that_were_cut_while_nobody_used_them_cost_no_call(client, redis):
    await asyncio.gather(*(client.execute("PING") for _ in range(8)))
    redis.client_kill_filter(_type="normal", skipme=True)

    assert await asyncio.gather(*(client.execute("PING") for _ in range(8))) == ["PONG"] * 8


async def test_replies_of_one_write_come_in_order_with_errors_in_place(session):
    replies = await session.converse([("ECHO", "a"), ("NO_SUCH_COMMAND",), ("ECHO", "b")])

    assert (replies[0], replies[2]) == ("a", "b")
    assert isinstance(replies[1], Exception)


async def test_a_transaction_with_a_refused_command_does_nothing(session, redis):
    with pytest.raises(StoreError, match="wrong number of arguments"):
        await session.transaction([("SET", "x", "1"), ("SET", "y")])

    assert not redis.exists("x", "y")
    assert await session.execute("ECHO", "fresh") == "fresh"


async def test_a_transaction_keeps_the_error_of_a_command_that_failed_when_it_ran(session, redis):
    redis.set("text", "x")

    done, failed = await session.transaction([("SET", "x", "1"), ("LPUSH", "text", "x")])

    assert done == "OK"
    assert "WRONGTYPE" in str(failed)


async def test_any_bytes_survive_the_way_back(client, redis):
    redis.set("bytes", b"\xff\x00\xc3\x28")

    text = await client.execute("GET", "bytes")

    assert text.encode("utf-8", "surrogateescape") == b"\xff\x00\xc3\x28"


async def test_many_calls_at_once_get_their_own_replies(client):
    asked = [f"text {number}" for number in range(200)]

    assert await asyncio.gather(*(client.execute("ECHO", text) for text in asked)) == asked


class LossyLine:
    """A line to the server that can be cut: before a request arrives, or before its reply does."""

    def __init__(self, server) -> None:
        self.path = str(server.folder / "line.sock")
        self.cut_at = "nowhere"
        self._server_path = server.socket_path

    async def __aenter__(self):
        self._listener = await asyncio.start_unix_server(self._carry, self.path)
        return self

    async def __aexit__(self, *_error):
        self._listener.close()

    async def _carry(self, client_reader, client_writer):
        server_reader, server_writer = await asyncio.open_unix_connection(self._server_path)
        while request := await client_reader.read(1 << 20):
            if self.cut_at == "request":
                break
            server_writer.write(request)
            reply = await server_reader.read(1 << 20)
            if self.cut_at == "reply":
                break
            client_writer.write(reply)
        client_writer.close()
        server_writer.close()


@pytest.mark.parametrize(("cut_at", "then"), [("request", "triggered"), ("reply", "RUNNING")])
async def test_a_write_is_never_repeated_unasked_and_may_be_asked_for_again(
    engine, redis, server, settings, cut_at, then
):
    await engine.start(CHAIN)
    execution = await engine.submit(CHAIN)
    async with LossyLine(server) as line:
        store = open_store(settings.with_redis_socket(line.path))
        await store.ping()
        line.cut_at = cut_at
        with pytest.raises(StoreUnavailable):
            await store.executions.trigger_workflow(execution.id)
        assert redis.xlen(STREAM) == (1 if cut_at == "request" else 2)

        line.cut_at = "nowhere"
        assert await store.executions.trigger_workflow(execution.id) == then
        await store.close()

    assert redis.xlen(STREAM) == 2
    assert execution.state().queued == ["a#1"]
