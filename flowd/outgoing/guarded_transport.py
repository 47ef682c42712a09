"""Connect handlers to what they may call: every address is checked at the moment of connecting.

A name is resolved once, every address it has is checked, and the connection goes to one of these
very addresses. A redirect connects again, so it passes the same gate. Through a proxy it is the
proxy that resolves names and connects: only a host written as an address is checked here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2

from flowd.destinations import AllowList
from flowd.errors import Fail

_SocketOption = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)


class Gate:
    """An allow list, and the setting that holds it, for the text of a refusal."""

    def __init__(self, entries: Iterable[str], *, setting: str) -> None:
        self._allow_list = AllowList(entries)
        self._setting = setting

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of a host, all of them checked. Raises Fail, OSError when it has none."""
        loop = asyncio.get_running_loop()
        # The system's resolver also reads decimal, hex and octal forms: what it makes of them is
        # what counts, and what is checked.
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(one[4][0]) for one in infos))
        self.check(host, port, addresses)
        return addresses

    def check(self, host: str, port: int, addresses: list[str]) -> None:
        refused = self._allow_list.find_refused(host, port, addresses)
        if refused:
            raise Fail(
                f"the call is not allowed: {refused}; "
                f"an entry in {self._setting} allows it, such as {_entry(host, port)!r}"
            )


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Respects HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY as they are when it is made."""

    def __init__(self, gate: Gate, limits: httpx2.Limits) -> None:
        self._gate = gate
        self._limits = limits
        self._direct = _DirectTransport(gate, limits)
        self._proxies = getproxies()
        self._proxied: dict[str, _ProxiedTransport] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        proxy = self._proxy_for(request.url)
        if proxy is None:
            return await self._direct.handle_async_request(request)
        host, port = request.url.host, _port(request.url)
        addresses = _written_addresses(host)
        if addresses:
            self._gate.check(host, port, addresses)
        if proxy not in self._proxied:
            self._proxied[proxy] = _ProxiedTransport(proxy, self._limits)
        return await self._proxied[proxy].handle_async_request(request)

    async def aclose(self) -> None:
        for transport in (self._direct, *self._proxied.values()):
            await transport.aclose()

    def _proxy_for(self, url: httpx2.URL) -> str | None:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if not proxy or proxy_bypass(f"{url.host}:{_port(url)}", self._proxies):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"


class _DirectTransport(httpx2.AsyncHTTPTransport):
    def __init__(self, gate: Gate, limits: httpx2.Limits) -> None:
        ssl_context = httpx2.create_ssl_context()
        super().__init__(limits=limits, verify=ssl_context)
        # httpx2 takes no network backend, its pool does. Nothing is open yet, so none is lost.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_Backend(gate),
        )


class _ProxiedTransport(httpx2.AsyncHTTPTransport):
    def __init__(self, proxy: str, limits: httpx2.Limits) -> None:
        super().__init__(proxy=proxy, limits=limits)
        # Nothing is open yet, as above.
        self._pool._network_backend = _Backend()


class _StaleConnection(httpcore2.ReadError):
    """A connection that had served was closed before anything of the next answer came."""


def is_stale(error: httpx2.NetworkError) -> bool:
    """True when the call was made on a kept connection which the server had let go of."""
    return isinstance(error.__cause__, _StaleConnection)


class _Stream(httpcore2.AsyncNetworkStream):
    """A connection that knows whether it has served before, and whether an answer has begun."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._has_served = False
        self._is_answered = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            data = await self._stream.read(max_bytes, timeout)
        except httpcore2.ReadError as error:
            self._check_stale(error)
            raise
        if not data:
            self._check_stale(None)
        self._is_answered = True
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._is_answered:
            self._has_served, self._is_answered = True, False
        # httpcore reads on when a write fails: the server may have answered before it closed.
        await self._stream.write(buffer, timeout)

    def _check_stale(self, error: BaseException | None) -> None:
        if self._has_served and not self._is_answered:
            message = "the server closed the kept connection"
            raise _StaleConnection(message) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore2.AsyncNetworkBackend):
    """Connects to what the gate lets through, of the addresses a name has; without one, to all."""

    def __init__(self, gate: Gate | None = None) -> None:
        self._backend = httpcore2.AnyIOBackend()
        self._gate = gate

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[_SocketOption] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        deadline = None if timeout is None else time.monotonic() + timeout
        addresses = await self._resolve(self._gate, host, port, timeout) if self._gate else [host]
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            # Each address gets its share of what is left: one that swallows packets leaves time
            # for the next.
            share_s = None if deadline is None else max(0.01, (deadline - time.monotonic()) / left)
            try:
                return _Stream(
                    await self._backend.connect_tcp(
                        address, port, share_s, local_address, socket_options
                    )
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if left == 1:
                    raise
        raise httpcore2.ConnectError(f"{host} has no address")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @staticmethod
    async def _resolve(gate: Gate, host: str, port: int, timeout: float | None) -> list[str]:
        try:
            async with asyncio.timeout(timeout):
                return await gate.resolve(host, port)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(str(error)) from error


def _port(url: httpx2.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _written_addresses(host: str) -> list[str]:
    """The address a host is, in whatever form it is written; empty for a name."""
    if ":" in host:
        return [host]
    try:
        # Some proxies read an address with a dot behind it as an address.
        return [socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))]
    except (OSError, UnicodeError):
        return []


def _entry(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
