"""Speak to a Redis over a bare socket: the supervisor asks before any client exists."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from enum import StrEnum
from typing import BinaryIO

# A TCP host and port, or the path of a unix socket.
Address = tuple[str, int] | str

_PROBE_S = 1.0


class ProbeResult(StrEnum):
    """What is found at an address."""

    READY = "ready"
    LOADING = "loading"
    NOTHING = "nothing"
    # Something listens and is no Redis, or one that does not get round to answering.
    STRANGER = "stranger"


def probe(
    address: Address,
    timeout_s: float = _PROBE_S,
    *,
    speaks_tls: bool = False,
    login: Sequence[str] = (),
) -> ProbeResult:
    """Connect and PING. A Redis that wants a password counts; with TLS, connecting is enough."""
    if speaks_tls:
        try:
            connect(address, timeout_s).close()
        except OSError as error:
            return ProbeResult.STRANGER if isinstance(error, TimeoutError) else ProbeResult.NOTHING
        return ProbeResult.READY
    try:
        *_, reply = converse(address, [("PING",)], timeout_s=timeout_s, login=login)
    except (TimeoutError, ValueError, ConnectionResetError, BrokenPipeError):
        return ProbeResult.STRANGER
    except OSError:
        return ProbeResult.NOTHING
    if reply.startswith(b"-LOADING"):
        return ProbeResult.LOADING
    # Any error in Redis's own form (-NOAUTH, -DENIED, -BUSY ...) is a Redis answering.
    is_redis = reply.startswith(b"+PONG") or (reply[:1] == b"-" and reply[1:3].isupper())
    return ProbeResult.READY if is_redis else ProbeResult.STRANGER


def converse(
    address: Address,
    commands: Sequence[Sequence[str]],
    *,
    timeout_s: float = _PROBE_S,
    login: Sequence[str] = (),
) -> list[bytes]:
    """The replies to these commands: of each a line, or the bytes of a bulk string.

    Raises OSError, and ValueError for what is no reply.
    """
    with connect(address, timeout_s) as connection, connection.makefile("rb") as replies:
        if login:
            _ask(connection, replies, "AUTH", *login)
        return [_ask(connection, replies, *command) for command in commands]


def connect(address: Address, timeout_s: float = _PROBE_S) -> socket.socket:
    """Raises OSError."""
    if not isinstance(address, str):
        return socket.create_connection(address, timeout=timeout_s)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout_s)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def _ask(connection: socket.socket, replies: BinaryIO, *words: str) -> bytes:
    """The reply to one command: a line, or the bytes of a bulk string."""
    encoded = [word.encode() for word in words]
    bulks = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
    connection.sendall(b"*%d\r\n%s" % (len(words), bulks))
    line = replies.readline(65536)
    return replies.read(int(line[1:]) + 2) if line[:1] == b"$" else line
