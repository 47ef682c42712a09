"""Connections by a URL, with TLS also to a server whose certificate has another name than the host
it is reached by: what Sentinels tell are addresses."""

from __future__ import annotations

import ssl
from types import ModuleType
from typing import Any, Final

from redis import connection as waiting
from redis.asyncio import connection as connections

# Of a URL's query, beside what redis-py knows.
SERVER_NAME: Final = "ssl_server_name"


class _Named(connections.SSLConnection):
    server_name = ""

    def _connection_arguments(self) -> Any:
        return {**super()._connection_arguments(), "server_hostname": self.server_name}


class _NamedWaiting(waiting.SSLConnection):
    server_name = ""

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        # It is the host that is asked for, and nothing else is done with it meanwhile.
        host, self.host = self.host, self.server_name
        try:
            return super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call]
        finally:
            self.host = host


def connection_by(url: str, kind: ModuleType, options: dict[str, Any], **stronger: Any) -> Any:
    """`kind` is redis-py's module of such connections; what the URL says stands over the options,
    and `stronger` over that."""
    described = {**options, **kind.parse_url(url), **stronger}
    server_name = described.pop(SERVER_NAME, None)
    connection_class = described.pop("connection_class", kind.Connection)
    if server_name and connection_class is kind.SSLConnection:
        connection_class = _Named if kind is connections else _NamedWaiting
    connection = connection_class(**described)
    if server_name:
        connection.server_name = server_name
    return connection


def tls_error(error: BaseException) -> ssl.SSLError | None:
    """Why there is no TLS, where that is what has gone wrong."""
    for one in (error, error.__cause__, error.__context__):
        if isinstance(one, ssl.SSLError):
            return one
    return None
