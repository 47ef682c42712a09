"""Ask the Sentinels who the primary is, and hear from them when it is another.

Two commands over connections as all others here: redis-py's client of Sentinels asks for more
(SENTINEL MASTERS, for which a user may lack the right), repeats on its own, and does not subscribe.

A Sentinel that leads a failover says at once that it has told a replica to be the primary. It names
that one only when it sees in its next INFO, up to a second later, that it is, and the others name
it when they have heard from that Sentinel. So each is listened to, and whom one of them announces
is gone to as soon as that server itself says that it is the primary.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import ModuleType
from typing import Any, Final

from redis.asyncio import connection as connections
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from flowd.config.sentinel_url import SentinelUrl
from flowd.errors import StoreUnavailable
from flowd.store.redis.tls import connection_by

Address = tuple[str, int]

# The next one is asked then.
ANSWER_S: Final = 1.0
# What was missed is noticed then, and that a failover was given up whose server had been gone to.
LOOK_EVERY_S: Final = 5.0
# One that listens to nobody tries again then.
AGAIN_S: Final = 0.5
# A Sentinel that is gone without a word is noticed then.
SILENCE_S: Final = 10.0
# So soon one that was told to be the primary is it, or will not be.
PROMOTION_S: Final = 3.0
ROLE_EVERY_S: Final = 0.01
# Each is subscribed to by itself: a user may lack the right for one of them.
CHANNELS: Final = ("+switch-master", "+promoted-slave", "+failover-state-wait-promotion")


class Sentinels:
    """That which has answered last is asked first. `is_primary` asks a server itself."""

    def __init__(self, url: SentinelUrl, is_primary: Callable[[Address], Awaitable[bool]]) -> None:
        self._url = url
        self._is_primary = is_primary
        self._hosts = list(url.hosts)
        self._question = question(url)
        self._watches: list[asyncio.Task[None]] = []
        self._move: asyncio.Task[None] | None = None
        self._announced: Address | None = None
        self._announced_until_s = -math.inf

    async def find_primary(self) -> Address:
        """Raises StoreUnavailable where none of them knows."""
        if self._announced is not None and time.monotonic() < self._announced_until_s:
            # Those that have not heard of it yet would name the one before.
            return self._announced
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
        if not self._watches:
            listening = (self._listen(host, on_address) for host in self._url.hosts)
            tasks = (*listening, self._look(on_address))
            self._watches = [asyncio.create_task(one) for one in tasks]

    async def close(self) -> None:
        tasks = [*self._watches, *([self._move] if self._move else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._watches.clear()

    async def _look(self, on_address: Callable[[Address], None]) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            # Sessions that need the answer say what is wrong.
            with contextlib.suppress(StoreUnavailable):
                on_address(await self.find_primary())

    async def _listen(self, host: Address, on_address: Callable[[Address], None]) -> None:
        while True:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with self._connected(host) as connection:
                    async for address in self._announcements(connection):
                        if self._move is not None:
                            self._move.cancel()
                        self._move = asyncio.create_task(self._go_to(address, on_address))
            await asyncio.sleep(AGAIN_S)

    async def _announcements(self, connection: Any) -> AsyncIterator[Address]:
        """Raises TimeoutError where that Sentinel answers no more."""
        commands = "".join(f"SUBSCRIBE {channel}\r\n" for channel in CHANNELS)
        await connection.send_packed_command(commands.encode(), check_health=False)
        is_asked = False
        while True:
            try:
                reply = await connection.read_response(timeout=SILENCE_S)
            except NoPermissionError:
                continue
            if reply is None:
                if is_asked:
                    raise TimeoutError
                await connection.send_packed_command(b"PING\r\n", check_health=False)
            is_asked = reply is None
            match reply:
                case ["message", channel, text] if address := announced(
                    channel, text, self._url.master
                ):
                    yield address

    async def _go_to(self, address: Address, on_address: Callable[[Address], None]) -> None:
        """Once it says itself that it is the primary; one that does not in time was announced in
        vain. Where the Sentinels do not name it afterwards, all go back."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROMOTION_S):
                while not await self._is_primary(address):  # noqa: ASYNC110
                    await asyncio.sleep(ROLE_EVERY_S)
            self._announced, self._announced_until_s = address, time.monotonic() + LOOK_EVERY_S
            on_address(address)

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
        async with asyncio.timeout(ANSWER_S):
            await connection.send_packed_command(self._question, check_health=False)
            return address_in(await connection.read_response())

    def _prefer(self, host: Address) -> None:
        self._hosts.remove(host)
        self._hosts.insert(0, host)


def question(url: SentinelUrl) -> bytes:
    # The name has no character that would need more than this.
    return f"SENTINEL GET-MASTER-ADDR-BY-NAME {url.master}\r\n".encode()


def announced(channel: str, text: str, master: str) -> Address | None:
    """Who is, or is to be, the new primary of this master; None for what is about another."""
    match channel, text.split():
        case "+switch-master", [name, _, _, host, port] if name == master:
            return host, int(port)
        case _, ["slave", _, host, port, "@", name, *_] if channel in CHANNELS and name == master:
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
