"""The API's socket: what it says when it cannot be had."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowd.config import ApiSettings
from flowd.errors import AlreadyRunning, InvalidSettings
from flowd.supervisor.listener import (
    address_to_bind,
    bind_listener,
    require_tokens,
    take_passed_listener,
    url_of,
)
from flowd.tokens import change_tokens, new_token


def test_port_zero_gets_a_port_and_the_url_says_which() -> None:
    with bind_listener(ApiSettings(port=0)) as listener:
        port = listener.getsockname()[1]

        assert port > 0
        assert url_of(listener) == f"http://127.0.0.1:{port}"


def test_a_listener_on_every_interface_is_shown_as_localhost() -> None:
    with bind_listener(ApiSettings(host="0.0.0.0", port=0)) as listener:
        assert url_of(listener) == f"http://localhost:{listener.getsockname()[1]}"


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with bind_listener(ApiSettings(port=0)) as first:
        port = first.getsockname()[1]

        with pytest.raises(
            AlreadyRunning, match=rf"already listens on 127\.0\.0\.1:{port};.*--port"
        ):
            bind_listener(ApiSettings(port=port))


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a..b", "x" * 300])
def test_an_address_of_another_machine_is_a_setting_to_change(host: str) -> None:
    with pytest.raises(InvalidSettings, match=r"api\.host"):
        bind_listener(ApiSettings(host=host, port=0))


def test_a_restart_does_not_wait_for_old_connections() -> None:
    with bind_listener(ApiSettings(port=0)) as first:
        address = first.getsockname()
        with socket.create_connection(address):
            accepted, _ = first.accept()
            # The side that closes first keeps the address in TIME_WAIT.
            accepted.close()
    bind_listener(ApiSettings(port=address[1])).close()


def test_a_unix_socket_is_for_its_user_and_group(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with bind_listener(ApiSettings(socket=path)) as listener:
        assert url_of(listener) == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o660
        with pytest.raises(AlreadyRunning, match=r"api\.sock is already in use"):
            bind_listener(ApiSettings(socket=path))
    # Its owner is gone, its file is not.
    bind_listener(ApiSettings(socket=path)).close()


def test_a_file_in_place_of_the_unix_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("precious")

    with pytest.raises(AlreadyRunning):
        bind_listener(ApiSettings(socket=path))
    assert path.read_text() == "precious"
    with pytest.raises(InvalidSettings, match=r"api\.socket"):
        bind_listener(ApiSettings(socket=tmp_path / "absent" / "api.sock"))


@pytest.fixture
def passed(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Two listening sockets on numbers in a row, as systemd passes them."""
    sockets = [bind_listener(ApiSettings(socket=tmp_path / name)) for name in ("0", "1")]
    first = 200 + os.getpid() % 100
    for index, one in enumerate(sockets):
        os.dup2(one.fileno(), first + index)
    yield first, first + 1
    for one in sockets:
        one.close()


def test_the_socket_systemd_names_for_us_is_taken(passed: tuple[int, int], tmp_path: Path) -> None:
    environ = {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "other:flowd.socket",
        "PATH": "kept",
    }

    listener = take_passed_listener(environ, passed[0])

    assert listener is not None
    with listener:
        assert url_of(listener) == f"unix:{tmp_path}/1"
        assert not listener.get_inheritable()
    assert environ == {"PATH": "kept"}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(passed[0])


def test_sockets_for_somebody_else_are_not_taken(passed: tuple[int, int]) -> None:
    assert take_passed_listener({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, passed[0]) is None
    assert take_passed_listener({}, passed[0]) is None
    for descriptor in passed:
        os.close(descriptor)


def test_a_passed_socket_that_does_not_listen_is_refused() -> None:
    with socket.socket() as idle:
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}

        with pytest.raises(InvalidSettings, match="ListenStream"):
            take_passed_listener(environ, os.dup(idle.fileno()))


def test_only_an_address_of_this_machine_goes_without_a_token(tmp_path: Path) -> None:
    for local in ("127.0.0.1", "::1", None):
        require_tokens(local, tmp_path)
    for address in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(InvalidSettings, match="flowd token create"):
            require_tokens(address, tmp_path)
    expired, _ = new_token("old", "admin", lifetime_ms=-1)
    change_tokens(tmp_path, lambda tokens: (*tokens, expired))
    # As it stands it is found, whatever --config the start has.
    with pytest.raises(InvalidSettings, match=f"--data-dir {tmp_path}`"):
        require_tokens("0.0.0.0", tmp_path)

    good, _ = new_token("new", "read")
    change_tokens(tmp_path, lambda tokens: (*tokens, good))
    require_tokens("0.0.0.0", tmp_path)


def test_damaged_tokens_stop_any_start(tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text("{")

    with pytest.raises(InvalidSettings, match="tokens cannot be read"):
        require_tokens(None, tmp_path)


def test_the_address_is_known_before_it_is_bound(tmp_path: Path) -> None:
    assert address_to_bind(ApiSettings(host="localhost")) in ("127.0.0.1", "::1")
    assert address_to_bind(ApiSettings(socket=tmp_path / "api.sock")) is None
