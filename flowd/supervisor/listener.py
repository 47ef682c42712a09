"""The API's listening socket: bound once, before any fork, and inherited by the API's processes.

A killed API process then refuses nobody: connections wait in the queue of the socket that lives on.
"""

from __future__ import annotations

import errno
import socket

from flowd.config import ApiSettings
from flowd.errors import AlreadyRunning, InvalidSettings, Problem

_BACKLOG = 2048


def bind_listener(api: ApiSettings) -> socket.socket:
    """Raises AlreadyRunning when the port is taken, InvalidSettings when it cannot be ours."""
    try:
        found = socket.getaddrinfo(
            api.host, api.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        message = f"{api.host!r} is no address of this machine: {error.strerror}"
        raise InvalidSettings([Problem("api.host", "bad_value", message)]) from error
    family, kind, protocol, _, address = found[0]
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


def url_of(listener: socket.socket) -> str:
    """Where a client on this machine reaches it, with the port the system chose for port 0."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _explained(error: OSError, api: ApiSettings) -> Exception:
    place = f"{api.host}:{api.port}"
    if error.errno == errno.EADDRINUSE:
        return AlreadyRunning(
            f"another program listens on {place} already; end it, or start flowd with "
            "--port and another number (0 lets the system choose)"
        )
    if error.errno == errno.EACCES:
        message = f"this user may not listen on {place}; choose a port of 1024 or above"
        return InvalidSettings([Problem("api.port", "bad_value", message)])
    message = f"cannot listen on {place}: {error.strerror}; set api.host to one of this machine"
    return InvalidSettings([Problem("api.host", "bad_value", message)])
