"""Can flowd work with this Redis, and can this Redis lose what flowd gives it?

Asked at the start, by `flowd doctor` and by /readyz. What the user of this Redis may not ask (INFO,
CONFIG) is not known, and no finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from flowd.config import Settings
from flowd.config.sentinel_url import EXAMPLE as SENTINEL_EXAMPLE
from flowd.replicas import Replica, describe
from flowd.store.primary import connection_now
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import FULL, Command, translate
from flowd.store.redis.connecting import pairs_in, parse_info, parse_replicas
from flowd.store.redis.text import count_of
from flowd.store.redis.tls import tls_error

VERSION_MIN: Final = 7
# Every command flowd sends or a script runs, by what stands behind its name.
_RIGHTS: Final = {
    "{key}": "GET EXISTS DEL TYPE STRLEN MGET HGETALL HKEYS HLEN LLEN LPOP SMEMBERS SCARD ZCARD"
    " ZPOPMIN",
    "{key} x": "SET MSET HGET HMGET HDEL HEXISTS HSTRLEN SADD SREM SISMEMBER LPUSH RPUSH"
    " ZREM ZSCORE ZMSCORE ZRANK",
    "{key} x 1": "HSET HSETNX HINCRBY",
    "{key} 0": "BLPOP EXPIRE HSCAN SSCAN ZSCAN",
    "{key} 0 1": "GETRANGE ZADD ZCOUNT ZRANGE ZRANGEBYSCORE ZLEXCOUNT",
    "{key} - +": "ZRANGEBYLEX",
    "{key} {key}": "RENAME COPY",
    "{stream} * x y": "XADD",
    "{stream}": "XLEN XDEL XTRIM",
    "{stream} - +": "XRANGE XREVRANGE",
    "{stream} {group}": "XACK XPENDING",
    "CREATE {stream} {group} 0": "XGROUP",
    "STREAM {stream}": "XINFO",
    "STREAMS {stream} 0": "XREAD",
    "GROUP {group} x STREAMS {stream} >": "XREADGROUP",
    "x 0": "EVALSHA",
    "LOAD x": "SCRIPT",
    "": "EXEC MULTI PING SCAN TIME",
}
# And these with redis.replicas.
_REPLICATED_RIGHTS: Final = {"flowd:fence x": "PUBLISH", "1 0": "WAIT"}
# What a user is kept from by the names of keys.
_KEYS: Final = (keys.definition("0"), keys.RETRIES, keys.ACTIVE)
_NAMES_SHOWN_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Fitness:
    """`defects` are what flowd cannot work with, `risks` what can lose accepted work, `shortages`
    what keeps it from new work until somebody makes room: sentences."""

    server: str = "Redis"
    defects: tuple[str, ...] = ()
    risks: tuple[str, ...] = ()
    replicas: tuple[Replica, ...] = ()
    shortages: tuple[str, ...] = ()


def questions(settings: Settings) -> list[Command]:
    """What to ask, in one conversation; `judge` takes the replies."""
    tasks = settings.tasks
    asked_for = _RIGHTS | (_REPLICATED_RIGHTS if settings.redis.replicas else {})
    calls = {
        f"{name} {form}".format(key=key, stream=tasks.stream, group=tasks.group)
        for form, names in asked_for.items()
        for name in names.split()
        for key in _KEYS
    }
    rights = scripts.CHECK_RIGHTS.text
    return [
        # Says in the fewest words that it asks for a login.
        ("PING",),
        ("HELLO",),
        ("INFO",),
        ("CONFIG", "GET", "save"),
        ("EVAL", rights, 0, *sorted(calls)),
    ]


def judge(replies: Sequence[Any], replicas: int = 0) -> Fitness:
    """What follows from the replies, an error reply among them standing for what is not known;
    `replicas` is how many the settings ask for.

    Raises StoreUnavailable for a login that was refused.
    """
    for reply in replies:
        if isinstance(reply, AuthenticationError):
            raise translate(reply) from reply
    _, hello, info, config, rights = replies
    greeting = pairs_in(hello)
    facts = {} if isinstance(info, Exception) else parse_info(info)
    save = pairs_in(config).get("save")
    number = facts.get("valkey_version") or facts.get("redis_version") or greeting.get("version")
    name = "Valkey" if "valkey_version" in facts else "Redis"
    server = f"{name} {number}" if number else name
    found = parse_replicas(facts)
    risks = [*_risks(facts, save)]
    online = sum(one.is_online for one in found)
    if facts and online < replicas:
        risks.append(
            f"redis.replicas is {replicas}, and of its replicas are {describe(found)}: nothing is "
            "acknowledged until there are more"
        )
    elif 0 < replicas < online:
        risks.append(
            f"redis.replicas is {replicas}, and it has {online} replicas: one that has not "
            f"confirmed a change may become the primary; set redis.replicas to {online}"
        )
    defects = tuple(_defects(greeting | facts, rights))
    return Fitness(server, defects, tuple(risks), found, shortages(facts))


def shortages(facts: Mapping[str, str]) -> tuple[str, ...]:
    """Of a server by its INFO, counted as it does (Redis, evict.c: without some buffers)."""
    limit, used, uncounted = (
        count_of(facts.get(name))
        for name in ("maxmemory", "used_memory", "mem_not_counted_for_evict")
    )
    return (FULL,) if 0 < limit < used - uncounted else ()


def _defects(facts: Mapping[str, str], rights: Any) -> Iterator[str]:
    number = facts.get("redis_version") or facts.get("version", "")
    if (major := re.match(r"\d+", number)) and int(major[0]) < VERSION_MIN:
        yield f"it is version {number}; flowd needs {VERSION_MIN} or newer, or Valkey"
    elif "cluster" in (facts.get("mode"), facts.get("redis_mode"), facts.get("server_mode")):
        yield (
            "it is a cluster, which spreads the keys of one execution over its servers; use a "
            "single server, with replicas if you like"
        )
    elif "sentinel" in (facts.get("mode"), facts.get("redis_mode"), facts.get("server_mode")):
        yield (
            "it is a Sentinel; name all of them, and the master, in redis.url, as in "
            f"{SENTINEL_EXAMPLE}"
        )
    elif facts.get("role") in ("replica", "slave"):
        yield "it is a replica; use its primary"
    elif unknown := _unknown_commands(rights):
        yield (
            f"it has no command {unknown} under this name; take its rename-command out of the "
            "configuration of this Redis"
        )
    elif missing := _missing_rights(rights):
        yield f"its user may not run {missing}; give it `~* &* +@all -@admin -@dangerous`"


def _unknown_commands(rights: Any) -> str:
    if isinstance(rights, Exception):
        return "EVAL" if "unknown command" in str(rights).lower() else ""
    return _listed(list(dict.fromkeys(rights[1])))


def _missing_rights(rights: Any) -> str:
    """What its user lacks, for people; empty where nobody can say."""
    if isinstance(rights, Exception):
        return "EVAL" if isinstance(rights, NoPermissionError) else ""
    # Once for each command, with the key it was refused for.
    return _listed(list({one.split()[0]: " ".join(one.split()[:2]) for one in rights[0]}.values()))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN_MAX])
    hidden = len(names) - _NAMES_SHOWN_MAX
    return f"{shown} and {hidden} more" if hidden > 0 else shown


def _risks(facts: Mapping[str, str], save: str | None) -> Iterator[str]:
    """`save` is None where its user may not see it."""
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and facts.get("maxmemory", "0") != "0":
        yield (
            f"its maxmemory-policy is {policy}: once its memory is full it evicts executions "
            "without a word; set it to noeviction"
        )
    if facts.get("aof_enabled") == "0":
        lost = "everything" if save == "" else "what came after its last snapshot"
        yield (f"it writes no append-only file: {lost} is lost when it ends; set appendonly to yes")
    if facts.get("aof_last_write_status", "ok") != "ok":
        yield "it could not write its append-only file; look at its disk and its log"


def examine_now(settings: Settings) -> Fitness:
    """Connect, ask and disconnect, without an event loop: before the first fork there is none.

    Raises StoreUnavailable for what no waiting mends: a login or a database that is refused. Where
    nobody answers in time nothing is found.
    """
    connection = connection_now(settings.redis)
    try:
        replies = [_ask(connection, command) for command in questions(settings)]
        return judge(replies, settings.redis.replicas)
    except RedisError as error:
        # redis-py wraps what goes wrong while it connects.
        causes = (error, error.__cause__, error.__context__)
        is_refused = any(isinstance(one, ResponseError | AuthenticationError) for one in causes)
        if is_refused or tls_error(error):
            raise translate(error) from error
        return Fitness()
    except OSError as error:
        if tls_error(error):
            raise translate(error) from error
        return Fitness()
    finally:
        connection.disconnect()


def _ask(connection: Any, command: Command) -> Any:
    try:
        connection.send_command(*command)
        return connection.read_response(disconnect_on_error=False)
    except (ResponseError, AuthenticationError) as error:
        if not connection.is_connected:
            raise
        return error
