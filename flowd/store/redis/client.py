"""Connections to Redis: shared writes, explicit time-outs, no write repeated unasked.

Built on redis-py's connection (address, TLS, login, hiredis parser) without its client, whose
bookkeeping costs more than the call, and whose retries repeat a write when its reply was lost.
Driver errors end here: whatever leaves this file is a `StoreError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import ModuleType
from typing import Any, Final

import hiredis
from redis.asyncio import connection as connections
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from flowd.config import EMBEDDED_USER, RedisSettings, Settings
from flowd.errors import (
    MissingGroup,
    MissingScript,
    StoreAway,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    WrongType,
)
from flowd.store.redis.connecting import (
    REPLICA,
    Connector,
    Driver,
    Parser,
)
from flowd.store.redis.pipeline import Pipeline, SharedPipeline
from flowd.store.redis.scripts import Script
from flowd.store.redis.text import raw_bytes
from flowd.store.redis.tls import connection_by, tls_error

Argument = str | bytes | int
Command = Sequence[Argument]

REPLY_TIMEOUT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 5.0
_SESSIONS_IDLE_MAX: Final = 4
# What is sent at once over the connection that all share.
_SHARED_BYTES_MAX: Final = 64 * 1024

FULL: Final = "redis is at its memory limit; raise maxmemory or delete old executions"
# The first word of an error reply decides. What is not listed is our defect or a tampered key.
_UNAVAILABLE: Final = (
    "LOADING",
    "BUSY",
    "MasterDown",
    "ClusterDown",
    "TryAgain",
    "NOREPLICAS",
    "MISCONF",
    "UNBLOCKED",
)
# A script says of its commands in its own words what it may not run.
_FORBIDDEN: Final = ("NoPermission", "NOPERM", "ACL failure", "can't run this command")
_NO_GROUP: Final = ("NOGROUP", "requires the key to exist", "no such key", "key no longer exists")


def translate(error: Exception) -> StoreError:
    """The `StoreError` for a driver's error or an error reply."""
    # redis-py strips the first word of the replies it has a class for.
    words = f"{type(error).__name__} {error}"
    # What goes wrong while it connects, redis-py wraps.
    is_login = any(isinstance(one, AuthenticationError) for one in (error, error.__cause__))
    if is_login or "NOAUTH" in words or "WRONGPASS" in words:
        return StoreUnavailable(
            f"redis refused the login: {str(error).rstrip('.')}; name user and password in "
            "FLOWD_REDIS__URL, as in redis://user:password@host:6379"
        )
    if refused := tls_error(error):
        reason = getattr(refused, "verify_message", "") or refused.reason or str(refused)
        return StoreUnavailable(
            f"redis and flowd do not agree on TLS: {reason}; look at ssl_ca_certs, ssl_certfile, "
            "ssl_keyfile and ssl_server_name in FLOWD_REDIS__URL"
        )
    if not isinstance(error, ResponseError):
        return StoreAway(f"redis does not answer: {error or type(error).__name__}")
    if "NoScript" in words or "NOSCRIPT" in words:
        return MissingScript(str(error))
    if any(word in words for word in _NO_GROUP):
        return MissingGroup(str(error))
    if "OutOfMemory" in words or "OOM" in words:
        return StoreFull(FULL)
    if "ReadOnly" in words or "READONLY" in words or "WAIT cannot be used" in words:
        return StoreReadOnly(REPLICA)
    if "WRONGTYPE" in words:
        return WrongType(str(error))
    if any(word in words for word in _FORBIDDEN):
        return StoreUnavailable(f"redis refuses its user what flowd needs: {error}")
    if "DB index" in words or "SELECT is not allowed" in words:
        return StoreUnavailable(f"redis has no such database: {error}; check [redis] db")
    if any(word in words for word in _UNAVAILABLE) or isinstance(error, RedisConnectionError):
        return StoreAway(f"redis is not ready: {error}")
    return StoreError(f"redis refused a command: {error}")


def is_wrong_type(reply: Any) -> bool:
    """Whether this reply says that a key is of another type. Any other error is raised."""
    if not isinstance(reply, Exception):
        return False
    error = translate(reply)
    if not isinstance(error, WrongType):
        raise error from reply
    return True


def script_call(script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Command:
    return ("EVALSHA", script.sha, len(keys), *keys, *arguments)


class Session:
    """One connection, for one conversation at a time. Connects itself when it has to.

    After any error but an error reply, and after a cancellation, the connection is dropped: a reply
    still under way must not answer the next question. So it is after the reply of a server that has
    become a replica: asked again, it may be another.
    """

    def __init__(self, connect: Callable[[], Awaitable[Pipeline]]) -> None:
        self._connect = connect
        self._line: Pipeline | None = None

    @property
    def is_usable(self) -> bool:
        """False also when the server has closed the connection while nobody used it."""
        return self._line is not None and self._line.is_usable

    async def execute(self, *command: Argument, timeout_s: float = REPLY_TIMEOUT_S) -> Any:
        """The reply to one command; error replies are raised."""
        (reply,) = await self.converse([command], timeout_s=timeout_s)
        if isinstance(reply, Exception):
            raise translate(reply) from reply
        return reply

    async def converse(
        self, commands: Sequence[Command], *, timeout_s: float = REPLY_TIMEOUT_S
    ) -> list[Any]:
        """The replies to several commands sent in one write; error replies stand in the list."""
        packed = b"".join([_pack(command) for command in commands])
        deadline = asyncio.get_running_loop().time() + timeout_s
        line = self._line
        try:
            if line is None or not line.is_usable:
                async with asyncio.timeout_at(deadline):
                    line = self._line = await self._connect()
            return await line.ask(packed, len(commands), deadline)
        except (RedisError, OSError, TimeoutError) as error:
            await self.close()
            raise translate(error) from error
        except BaseException:
            await self.close()
            raise

    async def transaction(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to several commands that run with nothing in between (MULTI … EXEC)."""
        replies = await self.converse([("MULTI",), *commands, ("EXEC",)])
        if isinstance(replies[-1], Exception):
            # A command refused while it was queued: its own error says more than EXECABORT.
            queued = next((reply for reply in replies if isinstance(reply, Exception)), replies[-1])
            raise translate(queued) from queued
        executed: list[Any] = replies[-1]
        return executed

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """The reply of one script, loaded first where the server does not have it."""
        call = script_call(script, keys, arguments)
        try:
            return await self.execute(*call)
        except MissingScript:
            await self.load_scripts([script])
            return await self.execute(*call)

    async def load_scripts(self, scripts: Sequence[Script]) -> None:
        for reply in await self.converse([("SCRIPT", "LOAD", script.text) for script in scripts]):
            if isinstance(reply, Exception):
                raise translate(reply) from reply

    async def close(self) -> None:
        if self._line is not None:
            self._line.close()


def _pack(command: Command) -> bytes:
    packed: bytes
    try:
        packed = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]
    except UnicodeEncodeError:
        # A name that came from Redis and is no UTF-8: the same bytes go back.
        raw = (raw_bytes(one) if isinstance(one, str) else one for one in command)
        packed = hiredis.pack_command(tuple(raw))  # type: ignore[arg-type]
    return packed


def new_connection(redis: RedisSettings, kind: ModuleType, **options: Any) -> Any:
    """A connection that connects when it is used; `kind` is redis-py's module of such ones."""
    # surrogateescape keeps any bytes somebody else may have put into the stream.
    options = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "decode_responses": True,
        "encoding_errors": "surrogateescape",
        "protocol": 2,
        "db": redis.db,
        "driver_info": None,
        **options,
    }
    if redis.socket_path is not None:
        if redis.socket_password:
            options |= {"username": EMBEDDED_USER, "password": redis.socket_password}
        return kind.UnixDomainSocketConnection(path=str(redis.socket_path), **options)
    if redis.url is not None:
        # Where Sentinels name the server it has no address before it connects.
        url = redis.sentinels.server_url("", 0) if redis.sentinels else redis.url
        return connection_by(url, kind, options)
    return kind.Connection(host=redis.host, port=redis.port, **options)


class Calls:
    """What can be asked of a server, by way of one method."""

    async def converse_freely(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to several commands sent in one write; error replies stand in the list."""
        raise NotImplementedError

    async def execute(self, *command: Argument) -> Any:
        (reply,) = await self.converse_freely([command])
        if isinstance(reply, Exception):
            raise translate(reply) from reply
        return reply

    async def converse(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to several commands sent in one write; an error reply is raised."""
        replies = await self.converse_freely(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise translate(reply) from reply
        return replies

    async def run(self, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        """The reply of one script, loaded first where the server does not have it."""
        call = script_call(script, keys, arguments)
        try:
            return await self.execute(*call)
        except MissingScript:
            await self.execute("SCRIPT", "LOAD", script.text)
            return await self.execute(*call)


class RedisClient(Calls):
    """Calls share a connection, any number at once; a large one and each session have their own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.redis
        self._pipeline: Pipeline | None = None
        self._connecting: asyncio.Task[Pipeline] | None = None
        self._idle: list[Session] = []
        self._connector = Connector(settings.redis, self._new_driver)
        self.lineage = self._connector.lineage
        # For what nobody is promised to find after a failover.
        self.unconfirmed: Calls = self

    @property
    def primary(self) -> str | None:
        """The server that takes the calls, as `host:port` or `unix:/path`; None while none does."""
        return self._pipeline.peer if self._pipeline else None

    def new_session(self) -> Session:
        """A session of the caller's own, for blocking reads or a conversation that lasts."""
        return Session(self.connect)

    async def connect(self) -> Pipeline:
        """A connection that is nobody else's, logged in."""
        return Pipeline(await self._connector.connect())

    def _new_driver(self) -> Driver:
        options = {"socket_timeout": None, "parser_class": Parser}
        driver: Driver = new_connection(self._settings, connections, **options)
        return driver

    async def converse_freely(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        packed = b"".join([_pack(command) for command in commands])
        if len(packed) > _SHARED_BYTES_MAX:
            return await self._converse_alone(commands)
        return await self._converse_together(commands, packed)

    async def close(self) -> None:
        await self._connector.close()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._pipeline is not None:
            self._pipeline.retire()
        while self._idle:
            await self._idle.pop().close()

    async def _converse_together(self, commands: Sequence[Command], packed: bytes) -> list[Any]:
        deadline = asyncio.get_running_loop().time() + REPLY_TIMEOUT_S
        pipeline = self._pipeline
        try:
            if pipeline is None or not pipeline.is_usable:
                pipeline = await self._connected(deadline)
            return await pipeline.ask(packed, len(commands), deadline)
        except (RedisError, OSError, TimeoutError) as error:
            raise translate(error) from error

    async def _connected(self, deadline: float) -> Pipeline:
        """One connection for all who ask meanwhile; who is cancelled takes it from nobody."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect_for_all())
            self._connecting.add_done_callback(self._end_connecting)
        async with asyncio.timeout_at(deadline):
            return await asyncio.shield(self._connecting)

    async def _connect_for_all(self) -> Pipeline:
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            return SharedPipeline(await self._connector.connect())

    def _end_connecting(self, connecting: asyncio.Task[Pipeline]) -> None:
        self._connecting = None
        if not connecting.cancelled() and connecting.exception() is None:
            self._pipeline = connecting.result()

    async def _converse_alone(self, commands: Sequence[Command]) -> list[Any]:
        """The small ones do not wait until a large one has gone through."""
        session = await self._take()
        try:
            return await session.converse(commands)
        finally:
            await self._give_back(session)

    async def _take(self) -> Session:
        while self._idle:
            session = self._idle.pop()
            if session.is_usable:
                return session
        return self.new_session()

    async def _give_back(self, session: Session) -> None:
        if len(self._idle) < _SESSIONS_IDLE_MAX:
            self._idle.append(session)
        else:
            await session.close()
