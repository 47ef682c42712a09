"""Find the primary without an event loop: before the first fork there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from redis import connection as connections
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError
from redis.retry import Retry

from flowd.config import RedisSettings
from flowd.errors import StoreReadOnly
from flowd.replicas import Replica
from flowd.store.redis.client import CONNECT_TIMEOUT_S, new_connection, translate
from flowd.store.redis.connecting import REPLICA, parse_info, parse_replicas, role_in
from flowd.store.redis.sentinels import (
    ANSWER_S,
    address_in,
    no_primary,
    question,
    sentinel_connection,
)


def locate_primary(redis: RedisSettings) -> RedisSettings:
    """The settings with the URL of that server; as they are where they name no Sentinels.

    Raises StoreUnavailable where none of them knows.
    """
    url = redis.sentinels
    if url is None:
        return redis
    refused: list[Exception | None] = []
    for host in url.hosts:
        connection = sentinel_connection(url, host, connections)
        try:
            connection.connect()
            connection.send_packed_command([question(url)])
            address = address_in(connection.read_response())
        except (RedisError, OSError) as error:
            refused.append(error)
            continue
        finally:
            connection.disconnect()
        if address is not None:
            return replace(redis, url=url.server_url(*address))
        refused.append(None)
    raise no_primary(url, refused)


def connection_now(redis: RedisSettings) -> Any:
    """A connection to the server of these settings, or to that which the Sentinels name; for reads
    and writes that wait."""
    options = {"socket_timeout": CONNECT_TIMEOUT_S, "retry": Retry(NoBackoff(), 0)}
    return new_connection(locate_primary(redis), connections, **options)


def replicas_now(redis: RedisSettings) -> tuple[str, tuple[Replica, ...]]:
    """The address of the primary, and its replicas as it says itself; none where the user may not
    ask. Raises StoreUnavailable."""
    located = locate_primary(redis)
    options = {"socket_timeout": ANSWER_S, "socket_connect_timeout": ANSWER_S}
    connection = new_connection(located, connections, retry=Retry(NoBackoff(), 0), **options)
    try:
        connection.connect()
        connection.send_command("INFO", "replication")
        return located.address, parse_replicas(parse_info(connection.read_response()))
    except NoPermissionError:
        return located.address, ()
    except (RedisError, OSError) as error:
        raise translate(error) from error
    finally:
        connection.disconnect()


def reach_primary(redis: RedisSettings) -> None:
    """Connect, ask for the role and disconnect. Raises StoreUnavailable unless it is a primary."""
    connection = connection_now(redis)
    try:
        connection.connect()
        connection.send_command("HELLO")
        hello = connection.read_response()
    except (RedisError, OSError) as error:
        raise translate(error) from error
    finally:
        connection.disconnect()
    if role_in(hello) == "replica":
        raise StoreReadOnly(REPLICA)
