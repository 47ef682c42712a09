"""Ask the Sentinels who the primary is, and hear from them when it is another.

Two commands over connections as all others here: redis-py's client of Sentinels asks for more
(SENTINEL MASTERS, for which a user may lack the right), repeats on its own, and does not subscribe.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from types import ModuleType
from typing import Any, Final

from redis.asyncio import connection as connections
from redis.exceptions import AuthenticationError, RedisError

from flowd.backoff import growing_pauses
from flowd.config.sentinel_url import SentinelUrl
from flowd.errors import StoreUnavailable
from flowd.store.redis.tls import connection_by

Address = tuple[str, int]

# The next one is asked then.
ANSWER_S: Final = 1.0
# What was missed, and a Sentinel that is gone without a word, is noticed then.
LOOK_EVERY_S: Final = 10.0
# The Sentinel that leads a failover publishes the first of them only a second or two after it has
# told the others of the new primary.
CHANNELS: Final = "+switch-master +promoted-slave"


class Sentinels:
    """That which has answered last is asked first."""

    def __init__(self, url: SentinelUrl) -> None:
        self._url = url
        self._hosts = list(url.hosts)
        self._question = question(url)
        self._watch: asyncio.Task[None] | None = None

    async def find_primary(self) -> Address:
        """Raises StoreUnavailable where none of them knows."""
        refused: list[Exception | None] = []
        for host in tuple(self._hosts):
            try:
                async with self._connected(host) as connection:
                    address = await self._ask(connection)
            except (RedisError, OSError, TimeoutError) as error:
                refused.append(error)
                continue
            if address is not None:
                self._prefer(host)
                return address
            refused.append(None)
        raise no_primary(self._url, refused)

    def watch(self, on_address: Callable[[Address], None]) -> None:
        """From now on, call this with the address of the primary, whenever it may be another."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._follow(on_address))

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None

    async def _follow(self, on_address: Callable[[Address], None]) -> None:
        pauses = growing_pauses()
        while True:
            host = self._hosts[0]
            try:
                async with self._connected(host) as connection:
                    await self._send(connection, f"SUBSCRIBE {CHANNELS}\r\n".encode())
                    on_address(await self.find_primary())
                    pauses = growing_pauses()
                    async for address in self._announced(connection):
                        # The others may still have to hear of it.
                        self._prefer(host)
                        on_address(address)
            except (RedisError, OSError, TimeoutError, StoreUnavailable):
                # Another one is asked next; sessions that need the answer say what is wrong.
                self._hosts.append(self._hosts.pop(0))
                await asyncio.sleep(next(pauses))

    async def _announced(self, connection: Any) -> AsyncIterator[Address]:
        """Each new primary, until nothing came for a while."""
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(LOOK_EVERY_S):
                    kind, channel, text = await connection.read_response()
                if kind == "message" and (found := announced(channel, text, self._url.master)):
                    yield found

    @contextlib.asynccontextmanager
    async def _connected(self, host: Address) -> AsyncIterator[Any]:
        connection = sentinel_connection(self._url, host, connections)
        try:
            async with asyncio.timeout(ANSWER_S):
                await connection.connect()
            yield connection
        finally:
            await connection.disconnect(nowait=True)

    async def _ask(self, connection: Any) -> Address | None:
        return address_in(await self._send(connection, self._question))

    async def _send(self, connection: Any, command: bytes) -> Any:
        async with asyncio.timeout(ANSWER_S):
            await connection.send_packed_command(command, check_health=False)
            return await connection.read_response()

    def _prefer(self, host: Address) -> None:
        self._hosts.remove(host)
        self._hosts.insert(0, host)


def question(url: SentinelUrl) -> bytes:
    # The name has no character that would need more than this.
    return f"SENTINEL GET-MASTER-ADDR-BY-NAME {url.master}\r\n".encode()


def announced(channel: str, text: str, master: str) -> Address | None:
    """The new primary of this master; None for what is about another."""
    match channel, text.split():
        case "+switch-master", [name, _, _, host, port] if name == master:
            return host, int(port)
        case "+promoted-slave", ["slave", _, host, port, "@", name, *_] if name == master:
            return host, int(port)
    return None


def address_in(reply: Any) -> Address | None:
    """None where that Sentinel does not know the master."""
    return (str(reply[0]), int(reply[1])) if reply else None


def sentinel_connection(url: SentinelUrl, host: Address, kind: ModuleType) -> Any:
    """A connection to one of them; `kind` is redis-py's module of such ones."""
    options = {
        "socket_timeout": None if kind is connections else ANSWER_S,
        "socket_connect_timeout": ANSWER_S,
        "decode_responses": True,
        "protocol": 2,
        "driver_info": None,
    }
    # The login and the database of the URL are those of the server.
    login = {"username": url.username, "password": url.password, "db": 0}
    return connection_by(url.server_url(*host), kind, options, **login)


def no_primary(url: SentinelUrl, refused: Sequence[Exception | None]) -> StoreUnavailable:
    """What none of them has said; None in place of an error is one that answers, and does not know
    the master."""
    if any(isinstance(one, AuthenticationError) or "NOAUTH" in str(one) for one in refused):
        return StoreUnavailable(
            "a Sentinel refused the login; give it in FLOWD_REDIS__URL as "
            "?sentinel_password=, with &sentinel_username= where it has users"
        )
    if None in refused:
        return StoreUnavailable(
            f"the Sentinels know no master {url.master!r}; `SENTINEL MASTERS` at one of them lists "
            "those they watch"
        )
    tried = ", ".join(
        f"{host}:{port} ({error or type(error).__name__})"
        for (host, port), error in zip(url.hosts, refused, strict=False)
    )
    return StoreUnavailable(f"no Sentinel answers: {tried}")
