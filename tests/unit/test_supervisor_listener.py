"""The API's socket: what it says when it cannot be had."""

from __future__ import annotations

import socket

import pytest

from flowd.config import ApiSettings
from flowd.errors import AlreadyRunning, InvalidSettings
from flowd.supervisor.listener import bind_listener, url_of


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

        with pytest.raises(AlreadyRunning, match=rf"127\.0\.0\.1:{port} already.*--port"):
            bind_listener(ApiSettings(port=port))


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
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
