"""HTTP for the client that blocks, with what Python brings: a command of `flowd` needs no more.

Connections are kept and used again; a call takes one for itself, so that threads may share them.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

from flowd.client import calls
from flowd.client.calls import Call

CHUNK_BYTES_MAX: Final = 64 * 1024

# What goes wrong on the way. A name that no resolver takes is a UnicodeError.
FAILURES: Final = (OSError, http.client.HTTPException, UnicodeError)


class Connections:
    """To one `url`, with these headers on every call. Raises what FAILURES has."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._socket_path = calls.socket_of(url)
        self._parts = urlsplit(url if self._socket_path is None else "http://localhost")
        self._proxy = None
        if self._socket_path is None and not calls.is_nearby(url):
            self._proxy = _proxy_for(self._parts)
        self._headers = {**_login("authorization", self._parts), **headers}
        self._idle: list[http.client.HTTPConnection] = []

    def send(self, call: Call) -> tuple[int, bytes]:
        """The status and the body of the answer. A connection that was kept may have been closed
        the moment it is used again: what changes nothing is then asked on a new one."""
        if kept := self._take_idle():
            try:
                return self._send_on(kept, call)
            except ConnectionError:
                if call.method != "GET":
                    raise
        return self._send_on(self._open(), call)

    def _send_on(self, connection: http.client.HTTPConnection, call: Call) -> tuple[int, bytes]:
        _set_timeout(connection, call.timeout_s)
        try:
            answer = self._ask(connection, call)
            body = answer.read()
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:
            self._idle.append(connection)
        return answer.status, body

    @contextlib.contextmanager
    def stream(self, call: Call) -> Iterator[http.client.HTTPResponse]:
        """The answer with its body still to read, by `chunks`."""
        connection = self._take_idle() or self._open()
        _set_timeout(connection, call.timeout_s)
        with contextlib.closing(connection), self._ask(connection, call) as answer:
            yield answer

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _ask(self, connection: http.client.HTTPConnection, call: Call) -> http.client.HTTPResponse:
        target = self._parts.path + call.path
        if call.query:
            target += "?" + urlencode(call.query)
        headers = {**self._headers, **call.headers}
        if self._proxy and self._parts.scheme == "http":
            target = f"http://{self._parts.netloc.rpartition('@')[2]}{target}"
            headers |= _login("proxy-authorization", self._proxy)
        try:
            connection.request(call.method, target, call.content, headers)
        except (BrokenPipeError, ConnectionResetError):
            # Who refuses a body need not read it; why is said in the answer, if there is one.
            if connection.sock is None:
                raise
        return connection.getresponse()

    def _take_idle(self) -> http.client.HTTPConnection | None:
        """One that nobody else uses meanwhile."""
        while self._idle:
            connection = self._idle.pop()
            # What can be read before anything was asked is its end.
            if connection.sock is not None and not select.select([connection.sock], [], [], 0)[0]:
                return connection
            connection.close()
        return None

    def _open(self) -> http.client.HTTPConnection:
        if self._socket_path is not None:
            return _UnixConnection(self._socket_path)
        proxy, parts = self._proxy, self._parts
        if proxy is not None and parts.scheme == "https":
            tunnel = http.client.HTTPSConnection(proxy.hostname or "", _port_of(proxy))
            login = _login("proxy-authorization", proxy)
            tunnel.set_tunnel(parts.hostname or "", _port_of(parts), login)
            return tunnel
        there = proxy or parts
        is_tls = there.scheme == "https"
        kind = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
        return kind(there.hostname or "", _port_of(there))


def chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as it comes."""
    while chunk := answer.read1(CHUNK_BYTES_MAX):
        yield chunk


def _set_timeout(connection: http.client.HTTPConnection, timeout_s: float) -> None:
    connection.timeout = timeout_s
    if connection.sock is not None:
        connection.sock.settimeout(timeout_s)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _port_of(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _login(header: str, parts: SplitResult) -> dict[str, str]:
    """What stands before the `@` of an address."""
    if parts.username is None:
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {header: f"Basic {b64encode(login.encode()).decode()}"}


def _proxy_for(parts: SplitResult) -> SplitResult | None:
    """The proxy the environment names for this address. Raises ValueError for one of another kind
    than HTTP."""
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    named = proxies.get(parts.scheme) or proxies.get("all")
    if not named or proxy_bypass(parts.hostname or ""):
        return None
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    if proxy.scheme not in ("http", "https"):
        raise ValueError(f"the proxy of the environment is no HTTP proxy: {proxy.scheme}://")
    return proxy
