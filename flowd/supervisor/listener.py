"""The API's listening socket: bound once, before any fork, and inherited by the API's processes.

A killed API process then refuses nobody: connections wait in the queue of the socket that lives on.
systemd may have bound it before us: then they also wait while flowd itself is restarted.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import MutableMapping
from pathlib import Path
from shlex import quote
from typing import Any

from flowd.api.http.limits import is_local
from flowd.config import ApiSettings
from flowd.errors import AlreadyRunning, InvalidSettings, Problem
from flowd.tokens import read_tokens

_BACKLOG = 2048


# The first descriptor systemd passes on, and what it says about them (sd_listen_fds(3)).
_FIRST_PASSED = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def take_passed_listener(
    environ: MutableMapping[str, str] = os.environ, first: int = _FIRST_PASSED
) -> socket.socket | None:
    """The socket systemd has bound for us, None when there is none. Empties its variables.

    Of several, the one named `flowd.socket` or `api`, else the first; the others are closed.
    """
    pid, count, names = (environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal():
        return None
    named = dict(enumerate(names.split(":")))
    passed = []
    for index in range(int(count)):
        os.set_inheritable(first + index, False)
        passed.append((named.get(index) in ("flowd.socket", "api"), first + index))
    passed.sort(key=lambda one: not one[0])
    for _, descriptor in passed[1:]:
        os.close(descriptor)
    if not passed:
        return None
    listener = socket.socket(fileno=passed[0][1])
    is_stream = listener.type == socket.SOCK_STREAM
    if not is_stream or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        message = "the socket unit must have ListenStream= and Accept=no"
        raise InvalidSettings([Problem("LISTEN_FDS", "bad_value", message)])
    return listener


def bind_listener(api: ApiSettings) -> socket.socket:
    """Raises AlreadyRunning when the address is taken, InvalidSettings when it cannot be ours."""
    return _bind_port(api) if api.socket is None else _bind_file(api.socket)


def _bind_file(path: Path) -> socket.socket:
    """A unix socket for its owner and group. One that a killed flowd left behind is replaced."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        if _is_stale(path):
            path.unlink()
        mask = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AlreadyRunning(
                f"{path} is already in use; end what uses it, or remove it"
            ) from error
        message = f"cannot listen on {str(path)!r}: {error.strerror or error}; choose another path"
        raise InvalidSettings([Problem("api.socket", "bad_value", message)]) from error
    return listener


def _is_stale(path: Path) -> bool:
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False


def address_to_bind(api: ApiSettings) -> str | None:
    """Where it would listen; None for a unix socket. Raises InvalidSettings."""
    return str(_resolve(api)[4][0]) if api.socket is None else None


def _resolve(api: ApiSettings) -> tuple[int, int, int, str, Any]:
    try:
        return socket.getaddrinfo(
            api.host, api.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name can be like this"
        message = (
            f"{api.host!r} is no address of this machine: {reason}; take 127.0.0.1, or 0.0.0.0 to "
            "listen on every interface"
        )
        raise InvalidSettings([Problem("api.host", "bad_value", message)]) from error


def _bind_port(api: ApiSettings) -> socket.socket:
    family, kind, protocol, _, address = _resolve(api)
    listener = socket.socket(family, kind, protocol)
    try:
        # A restart must not wait for connections of the last run to leave TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _explained(error, api) from error
    return listener


def require_tokens(address: str | None, data_dir: Path) -> None:
    """Raises InvalidSettings when anybody on the network could do anything.

    `address` is where the API listens, None for a unix socket.
    """
    tokens = read_tokens(data_dir) or ()
    now_ms = time.time_ns() // 1_000_000
    if is_local(address) or not all(one.has_expired(now_ms) for one in tokens):
        return
    # The folder is named: the settings that lead to it may be those of a --config.
    create = f"flowd token create --name NAME --scope admin --data-dir {quote(str(data_dir))}"
    message = (
        f"other machines can reach {address}, but there is no token; create one with `{create}`, "
        "or listen on 127.0.0.1"
    )
    raise InvalidSettings([Problem("api.host", "no_tokens", message)])


def url_of(listener: socket.socket) -> str:
    """Where a client on this machine reaches it, with the port the system chose for port 0."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _explained(error: OSError, api: ApiSettings) -> Exception:
    place = f"{api.host}:{api.port}"
    if error.errno == errno.EADDRINUSE:
        return AlreadyRunning(
            f"another program already listens on {place}; end it, or start flowd with "
            "--port and another number (0 lets the system choose)"
        )
    if error.errno == errno.EACCES:
        message = f"this user may not listen on {place}; choose a port of 1024 or above"
        return InvalidSettings([Problem("api.port", "bad_value", message)])
    message = f"cannot listen on {place}: {error.strerror}; set api.host to one of this machine"
    return InvalidSettings([Problem("api.host", "bad_value", message)])
