"""Reach a server that takes writes, and notice when it is another than before.

HELLO names the role and needs no right, where ROLE, which says the same, is for administrators.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final

from redis._parsers import _AsyncHiredisParser
from redis.asyncio.connection import Connection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from flowd.config import RedisSettings
from flowd.errors import StoreReadOnly
from flowd.replicas import Replica
from flowd.store.redis.lineage import Lineage
from flowd.store.redis.sentinels import Address, Sentinels

# How a reply begins of a server that is no primary now, or has put its clients out of a wait
# because it is none any more. The address may lead to another already.
_ELSEWHERE: Final = (
    "READONLY",
    "MASTERDOWN",
    "UNBLOCKED",
    "LOADING",
    "ERR WAIT cannot be used",
)
# As people write commands: neither has an argument that needs more.
_GREETING: Final = b"HELLO\r\nINFO server replication\r\n"
_REPLICA_NAME: Final = re.compile(r"slave\d+")
Driver = Connection | UnixDomainSocketConnection
# What tells a server: a connection to it, or its address where Sentinels have named it.
Place = Driver | Address
REPLICA: Final = "this redis is a read-only replica; point [redis] at the primary"


class Parser(_AsyncHiredisParser):
    """Reads replies, and knows of each error whether to connect anew from then on."""

    # From the greeting on, until there is a reason for that.
    is_settled = False

    def parse_error(self, response: Any) -> Any:  # type: ignore[override]
        error = super().parse_error(response)  # type: ignore[no-untyped-call]
        # The latter is what redis-py takes for one of the connection: it wants a login, it loads.
        if str(response).startswith(_ELSEWHERE) or isinstance(error, RedisConnectionError):
            self.is_settled = False
        return error


class Connector:
    """Connects the sessions of one client. Where one meets another primary, or the Sentinels name
    it, nobody goes on with one that was it before."""

    def __init__(self, redis: RedisSettings, new_driver: Callable[[], Driver]) -> None:
        self.lineage = Lineage()
        self._new_driver = new_driver
        self._drivers: weakref.WeakSet[Driver] = weakref.WeakSet()
        self._attempts: dict[Driver, asyncio.Timeout] = {}
        self._sentinels = Sentinels(redis.sentinels, self._is_primary) if redis.sentinels else None

    async def connect(self) -> Driver:
        """Raises StoreReadOnly for a replica, and the driver's errors."""
        driver = self._new_driver()
        self._drivers.add(driver)
        try:
            while not await self._try_to_connect(driver):
                await driver.disconnect(nowait=True)
        except BaseException:
            await driver.disconnect(nowait=True)
            raise
        return driver

    async def close(self) -> None:
        if self._sentinels is not None:
            await self._sentinels.close()

    async def _try_to_connect(self, driver: Driver) -> bool:
        """False where another server has become the primary meanwhile: an address that nobody
        answers at is not waited for."""
        try:
            async with asyncio.timeout(None) as attempt:
                self._attempts[driver] = attempt
                await self._connect(driver)
                return driver in self._attempts
        except TimeoutError:
            if not attempt.expired():
                raise
            return False
        finally:
            self._attempts.pop(driver, None)

    async def _connect(self, driver: Driver) -> None:
        parser: Parser = driver._parser  # type: ignore[assignment]
        if self._sentinels is not None:
            self._sentinels.watch(self._leave_others)
            driver.host, driver.port = await self._sentinels.find_primary()  # type: ignore[union-attr]
        await driver.connect()  # type: ignore[no-untyped-call]
        await driver.send_packed_command(_GREETING, check_health=False)
        hello = await parser.read_response()
        info = await parser.read_response()
        if role_in(hello) == "replica":
            raise StoreReadOnly(REPLICA)
        if isinstance(info, str) and self.lineage.note_server(parse_info(info)):
            self._leave_others(driver)
        parser.is_settled = True

    async def _is_primary(self, address: Address) -> bool:
        """As the server there says itself."""
        driver = self._new_driver()
        parser: Parser = driver._parser  # type: ignore[assignment]
        driver.host, driver.port = address  # type: ignore[union-attr]
        try:
            await driver.connect()  # type: ignore[no-untyped-call]
            await driver.send_packed_command(b"HELLO\r\n", check_health=False)
            return role_in(await parser.read_response()) == "master"
        except (RedisError, OSError):
            return False
        finally:
            await driver.disconnect(nowait=True)

    def _leave_others(self, fresh: Place) -> None:
        """The primary is there, or at the end of this connection."""
        for driver in self._drivers:
            if is_at(driver, fresh):
                continue
            if attempt := self._attempts.pop(driver, None):
                attempt.reschedule(-1)
            else:
                hang_up(driver)


def is_at(connection: Driver, place: Place) -> bool:
    if isinstance(place, tuple):
        return isinstance(connection, Connection) and (connection.host, connection.port) == place
    return connection is place


def hang_up(connection: Driver) -> None:
    """Whoever waits for a reply there hears that there is no answer."""
    connection._parser.is_settled = False  # type: ignore[attr-defined]
    if connection._writer is not None:
        connection._writer.transport.abort()


def role_in(hello: Any) -> str:
    """Empty where the server does not say."""
    return pairs_in(hello).get("role", "")


def pairs_in(reply: Any) -> dict[str, str]:
    """Names and values of a reply that has them in turn; none of an error."""
    if isinstance(reply, Exception):
        return {}
    return {str(name): str(value) for name, value in zip(reply[::2], reply[1::2], strict=False)}


def parse_info(text: str) -> dict[str, str]:
    """The fields of an INFO reply."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value for name, colon, value in pairs if colon}


def parse_replicas(facts: Mapping[str, str]) -> tuple[Replica, ...]:
    """The replicas of a primary, from the fields of its INFO."""
    offset = int(facts.get("master_repl_offset", 0))
    found = []
    for name, text in facts.items():
        if _REPLICA_NAME.fullmatch(name):
            said = dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)
            behind = max(0, offset - int(said.get("offset", 0)))
            address = f"{said.get('ip')}:{said.get('port')}"
            is_online = said.get("state") == "online"
            found.append(Replica(address, is_online, behind, int(said.get("lag", 0))))
    return tuple(found)
