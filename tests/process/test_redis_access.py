"""Who may use the embedded Redis: as many as the API, and none more."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_py
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as RedisConnectionError

from flowd.supervisor.access import PASSWORD_FILE, keep_password
from tests.daemon import wait_until
from tests.manual import blocks
from tests.private_server import free_port
from tests.process.flowd_process import CONFIG, Flowd, clean_environ, definition, node
from tests.process.test_tokens import call, flowd_token

Run = Callable[..., Flowd]


@pytest.fixture
def port(tmp_path: Path) -> int:
    port = free_port()
    config = CONFIG.replace('mode = "embedded"\nport = 0', f'mode = "embedded"\nport = {port}')
    (tmp_path / "flowd.toml").write_text(config)
    return port


@pytest.fixture
def stranger(port: int) -> Iterator[redis_py.Redis]:
    """Anybody on this machine: no login, by the port."""
    with redis_py.Redis(port=port, decode_responses=True) as client:
        yield client


def is_refused(client: redis_py.Redis) -> bool:
    try:
        client.ping()
    except (AuthenticationError, RedisConnectionError):
        return True
    return False


def test_without_tokens_the_port_shows_what_the_manual_says_and_changes_no_server(
    run_flowd: Run, stranger: redis_py.Redis
) -> None:
    flowd = run_flowd("start", "--workers", "0")
    flowd.wait_until_running()
    execution_id = flowd.submit_and_trigger(node("A"))

    ((_, entry),) = stranger.xrange("workflow:tasks")
    assert (entry["execution_id"], entry["node_id"]) == (execution_id, "A")
    assert stranger.get(f"workflow:{execution_id}:status") == "RUNNING"
    assert stranger.keys("workflow:*:status") == [f"workflow:{execution_id}:status"]
    for command in (
        ["CONFIG", "SET", "dir", "/tmp"],
        ["CONFIG", "GET", "dir"],
        ["ACL", "SETUSER", "me", "on", "nopass", "+@all", "~*"],
        ["ACL", "LIST"],
        ["MODULE", "LIST"],
        ["DEBUG", "SLEEP", "0"],
        ["SHUTDOWN", "NOSAVE"],
        ["REPLICAOF", "127.0.0.1", "1"],
        ["MONITOR"],
        ["FLUSHALL"],
        ["FLUSHDB"],
        ["CLIENT", "KILL", "TYPE", "normal"],
        ["SCRIPT", "FLUSH"],
        ["FUNCTION", "LIST"],
        ["MIGRATE", "127.0.0.1", "1", "x", "0", "1"],
        ["SAVE"],
        ["EVAL", "return redis.call('CONFIG', 'GET', 'dir')", "0"],
    ):
        with pytest.raises(redis_py.ResponseError, match=r"permission|not allowed"):
            stranger.execute_command(*command)


def test_a_flowd_that_joins_by_the_port_does_all_its_work(
    run_flowd: Run, port: int, tmp_path: Path
) -> None:
    flowd = run_flowd("start", "--workers", "0")
    flowd.wait_until_running()
    other = tmp_path / "other"
    other.mkdir()
    (other / "flowd.toml").write_text(f"[redis]\nport = {port}\ndata_dir = 'data'\n")
    worker = [sys.executable, "-m", "flowd.cli.main", "worker"]
    with subprocess.Popen(worker, cwd=other, env=clean_environ()) as process:
        try:
            execution_id = flowd.submit_and_trigger(node("A"), node("B", "A"))
            assert flowd.wait_for_execution(execution_id) == "COMPLETED"
        finally:
            process.terminate()


def pids_of(flowd: Flowd) -> dict[str, int]:
    status = flowd.status()
    assert status is not None
    return {one["name"]: one["pid"] for one in status["processes"]}


def test_from_the_first_token_on_the_port_asks_for_the_password(
    run_flowd: Run, stranger: redis_py.Redis, port: int, tmp_path: Path
) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    stranger.ping()
    pids = pids_of(flowd)

    token = flowd_token(tmp_path, "create", "--name", "ops", "--scope", "admin")

    # Also the connection that was there before.
    wait_until(lambda: is_refused(stranger), "the port to close")
    kept = flowd.data_dir / PASSWORD_FILE
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    password = kept.read_text().strip()
    assert password not in (flowd.data_dir / "redis.conf").read_text()
    with redis_py.Redis(port=port, password=password, decode_responses=True) as known:
        assert known.ping()
        with pytest.raises(NoPermissionError):
            known.config_set("dir", "/tmp")
    with redis_py.Redis(port=port, username="flowd", password=password) as own:
        assert own.config_get("port")
    # flowd itself has not noticed.
    path = "/workflow?trigger=true&wait=30"
    _, ended = call(flowd, "POST", path, definition(node("A")), Authorization=f"Bearer {token}")
    assert ended["status"] == "COMPLETED"
    assert pids_of(flowd) == pids

    (flowd.data_dir / "tokens.json").unlink()
    wait_until(lambda: not is_refused(stranger), "the port to open with the API")


def test_the_password_is_asked_for_from_the_start_where_tokens_are(
    run_flowd: Run, stranger: redis_py.Redis, tmp_path: Path
) -> None:
    flowd_token(tmp_path, "create", "--name", "ops", "--scope", "admin")
    run_flowd("start", "--workers", "1").wait_until_running()

    assert is_refused(stranger)


@pytest.mark.parametrize("setting", ["ENVIRONMENT=production", "FLOWD_API__SOCKET=api.sock"])
def test_production_and_an_api_for_some_ask_for_it_without_tokens_too(
    run_flowd: Run, stranger: redis_py.Redis, port: int, setting: str
) -> None:
    name, _, value = setting.partition("=")
    flowd = run_flowd("start", "--workers", "1", **{name: value})
    flowd.wait_until_running()

    assert is_refused(stranger)
    wait_until(lambda: f"port {port} with a password" in flowd.stdout, "the announcement")


def test_a_server_that_is_restarted_asks_as_the_one_before(
    run_flowd: Run, stranger: redis_py.Redis, tmp_path: Path
) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    flowd_token(tmp_path, "create", "--name", "ops", "--scope", "admin")
    wait_until(lambda: is_refused(stranger), "the port to close")

    killed = flowd.kill("redis")
    flowd.wait_for_post("redis", lambda one: one["state"] == "RUNNING" and one["pid"] != killed)

    wait_until(lambda: _is_up(stranger), "the port to answer")
    assert is_refused(stranger)


def _is_up(client: redis_py.Redis) -> bool:
    try:
        client.ping()
    except AuthenticationError:
        return True
    except RedisConnectionError:
        return False
    return True


def test_a_role_of_the_same_folder_goes_by_the_socket(
    run_flowd: Run, stranger: redis_py.Redis, tmp_path: Path
) -> None:
    flowd_token(tmp_path, "create", "--name", "ops", "--scope", "admin")
    flowd = run_flowd("start", "--workers", "0")
    flowd.wait_until_running()
    worker = run_flowd("worker")

    wait_until(lambda: "uses the Redis at unix:" in worker.stdout, "the worker to run")
    assert is_refused(stranger)


REDIS_CLI = """\
#!/bin/sh
echo "$REDISCLI_AUTH" "$@"
"""


def write_redis_cli(folder: Path) -> str:
    """A PATH with one that says what it was given."""
    folder.mkdir()
    (folder / "redis-cli").write_text(REDIS_CLI)
    (folder / "redis-cli").chmod(0o755)
    return str(folder)


def test_the_ways_in_are_those_of_the_manual(tmp_path: Path) -> None:
    password = keep_password(tmp_path / ".flowd")
    path = os.pathsep.join((write_redis_cli(tmp_path / "bin"), str(Path(sys.executable).parent)))

    def run_block(text: str) -> list[str]:
        done = subprocess.run(
            ["sh", "-ec", text.replace("<execution_id>", "x")],
            cwd=tmp_path,
            env=clean_environ() | {"PATH": os.pathsep.join((path, os.environ["PATH"]))},
            capture_output=True,
            check=True,
            text=True,
        )
        return done.stdout.splitlines()

    by_port, by_flowd = blocks("Who may use flowd's own Redis", "bash")

    assert run_block(by_port + 'echo "$FLOWD_REDIS__URL"') == [
        f"{password} GET workflow:x:status",
        f"redis://:{password}@localhost:6379/0",
    ]
    assert run_block(by_flowd) == [" -h localhost -p 6379 CONFIG GET save"]


def test_redis_cli_is_run_where_flowd_is_and_logged_in_as_it(
    run_flowd: Run, tmp_path: Path, port: int
) -> None:
    programs = write_redis_cli(tmp_path / "bin")
    flowd = run_flowd("start", "--workers", "0")
    flowd.wait_until_running()
    password = (flowd.data_dir / PASSWORD_FILE).read_text().strip()

    def ask(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flowd.cli.main", "redis-cli", *arguments],
            cwd=tmp_path,
            env=clean_environ() | {"PATH": programs} | environ,
            capture_output=True,
            check=False,
            text=True,
        )

    own = f"-s {flowd.data_dir}/redis.sock --user flowd"
    assert ask("-n", "3", "GET", "x").stdout == f"{password} {own} -n 3 GET x\n"
    elsewhere = {"FLOWD_REDIS__MODE": "external"}
    assert ask("PING", **elsewhere).stdout == f" -h localhost -p {port} PING\n"
    url = "rediss://ada:s%40cret@redis.example:6380/2"
    told = ask("PING", FLOWD_REDIS__URL=url, **elsewhere).stdout
    assert told == "s@cret -h redis.example -p 6380 --tls -n 2 --user ada PING\n"
    (tmp_path / "ca").touch()
    url = f"rediss://h:1?ssl_ca_certs={tmp_path}/ca&ssl_server_name=n&ssl_cert_reqs=none"
    told = ask("PING", FLOWD_REDIS__URL=url, **elsewhere).stdout
    assert told == f" -h h -p 1 --tls --cacert {tmp_path}/ca --sni n --insecure PING\n"
    missing = ask("PING", PATH=str(tmp_path))
    assert (missing.returncode, "apt install redis-tools" in missing.stderr) == (1, True)
