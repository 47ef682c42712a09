"""Turn a value of the file, or the text of a variable, into the type of a setting.

What they raise (ValueError) says what would be right; the caller says where and what was wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from flowd.config import sentinel_url
from flowd.destinations import Destination


def text(value: Any) -> str:
    if isinstance(value, str) and value and value.isprintable():
        return value
    raise ValueError("a text that is not empty")


def optional_text(value: Any) -> str | None:
    return None if value == "" else text(value)


def truth(value: Any) -> bool:
    word = str(value).strip().lower()
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise ValueError("true or false")


def whole(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, int | str) and re.fullmatch(r"\s*[+-]?\d{1,12}\s*", str(value)):
            number = int(value)
            if least <= number <= most:
                return number
        raise ValueError(f"a whole number from {least} to {most}")

    return read


def number(least: float, most: float, unit: str) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if not isinstance(value, bool) and re.fullmatch(r"\s*\d+(\.\d*)?\s*", str(value)):
            number = float(value)
            if least <= number <= most:
                return number
        raise ValueError(f"a number of {unit} from {least:g} to {most:g}")

    return read


def seconds(least: float, most: float) -> Callable[[Any], float]:
    return number(least, most, "seconds")


def seconds_or_never(least: float, most: float) -> Callable[[Any], float]:
    """Where 0 is never, what is next to 0 is no time for anything."""

    def read(value: Any) -> float:
        found = seconds(0, most)(value)
        if 0 < found < least:
            raise ValueError(f"0, or a number of seconds from {least:g} to {most:g}")
        return found

    return read


def one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value in words:
            return str(value)
        raise ValueError(" or ".join(f"'{word}'" for word in words))

    return read


# As the store spells its keys, which is no room of the settings'; a test compares the two.
_OWN_KEYS = re.compile(r"flowd:.*|workflows:active|workflow:[0-9a-f]{24}(:.*)?")


def stream(value: Any) -> str:
    name = text(value)
    if _OWN_KEYS.fullmatch(name):
        raise ValueError("a key that flowd does not keep for something else")
    return name


def texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise ValueError('a list of texts, such as ["service-a", "service-b"]')


# As workflows spell names, which are no room of the settings'; a test compares the two.
_QUEUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def queues(value: Any) -> tuple[str, ...]:
    names = texts(value)
    if names and len(set(names)) == len(names) and all(_QUEUE.fullmatch(name) for name in names):
        return names
    raise ValueError(
        'a list of queues, each once and the most urgent first, such as ["default", "low"], with'
        " names of letters, digits, '_', '.' and '-'"
    )


class WorkerGroup(NamedTuple):
    """So many workers, named `<name>-1` and so on, that read these queues."""

    name: str
    size: int
    queues: tuple[str, ...]


_GROUP = re.compile(r"[a-z0-9][a-z0-9_]{0,31}")
# What other processes are called.
_OTHER_PROCESSES = ("worker", "api", "scheduler", "redis")
_COUNT = whole(0, 512)


def groups(value: Any) -> tuple[WorkerGroup, ...]:
    if value in ((), [], ""):
        return ()
    expected = (
        "a section for each group, such as [workers.groups.gpu], named by up to 32 small letters,"
        f" digits and '_' and not {', '.join(_OTHER_PROCESSES)}, with `count` and `queues` in it"
    )
    if not isinstance(value, dict):
        raise ValueError(expected)
    found = []
    for name, said in value.items():
        is_named = _GROUP.fullmatch(name) and name not in _OTHER_PROCESSES
        if not is_named or not isinstance(said, dict) or said.keys() != {"count", "queues"}:
            raise ValueError(expected)
        found.append(WorkerGroup(name, _COUNT(said["count"]), queues(said["queues"])))
    return tuple(found)


def modules(value: Any) -> tuple[str, ...]:
    names = texts(value)
    if all(part.isidentifier() for name in names for part in name.split(".")):
        return names
    raise ValueError('a list of names of Python modules, such as ["my_handlers"], without .py')


def destinations(value: Any) -> tuple[str, ...]:
    entries = texts(value)
    for entry in entries:
        Destination.parse(entry)
    return entries


def bound_secrets(value: Any) -> tuple[str, ...]:
    entries = texts(value)
    for entry in entries:
        name, at, host = entry.partition("@")
        if not at or not name.isidentifier():
            raise ValueError('a list of secrets and hosts, such as ["API_KEY@api.example.com"]')
        Destination.parse(host)
    return entries


def path(value: Any) -> Path:
    try:
        return Path(text(value)).expanduser()
    except RuntimeError:
        raise ValueError("a path, and after ~ the name of a user of this machine") from None


def optional_path(value: Any) -> Path | None:
    return None if value == "" else path(value)


def url(*schemes: str) -> Callable[[Any], str | None]:
    def read(value: Any) -> str | None:
        if value == "":
            return None
        expected = "a URL that starts with " + " or ".join(f"{scheme}://" for scheme in schemes)
        try:
            parts = urlsplit(text(value))
            if parts.scheme in schemes:
                expected = "a URL with a host, and with a port from 1 to 65535 where it names one"
            if parts.scheme in schemes and (parts.hostname or parts.path) and parts.port != 0:
                return str(value)
        except ValueError:
            pass
        raise ValueError(expected)

    return read


# What of a query the client of Redis knows, and flowd does not decide itself.
_REDIS_QUERY = frozenset({
    "db", "username", "password", "client_name",
    "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile",
    "ssl_check_hostname", "ssl_server_name",
})  # fmt: skip
_TLS_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_DB = whole(0, 1023)


def redis_url(value: Any) -> str | None:
    """Refuses what the client would ignore, or stumble over when it connects."""
    if value == "":
        return None
    if sentinels := sentinel_url.parse_sentinel_url(text(value)):
        # What it says of the Sentinels is right; the rest is of their server.
        read: str | None = str(value)
        parts = urlsplit(sentinels.server_url("localhost", sentinel_url.PORT))
    else:
        read = url("redis", "rediss", "unix", *sentinel_url.SCHEMES)(value)
        parts = urlsplit(str(read))
    query = parse_qs(parts.query, keep_blank_values=True)
    if unknown := sorted(query.keys() - _REDIS_QUERY):
        raise ValueError(
            f"a URL whose query has only {', '.join(sorted(_REDIS_QUERY))}; "
            f"{unknown[0]!r} is none of them, and so"
        )
    _check_tls(parts.scheme, query)
    db = parts.path.strip("/") if parts.scheme != "unix" else ""
    try:
        for number in (db or "0", *query.get("db", ())):
            _DB(number)
    except ValueError:
        raise ValueError("a URL with the number of a db, as in redis://localhost/0") from None
    return read


def _check_tls(scheme: str, query: Mapping[str, Sequence[str]]) -> None:
    if scheme != "rediss" and (unused := [name for name in query if name.startswith("ssl_")]):
        raise ValueError(f"a URL that begins with rediss for what {unused[0]} says, and so")
    for name in _TLS_FILES:
        for path in query.get(name, ()):
            if not os.access(path, os.R_OK):
                raise ValueError(f"a URL whose {name} flowd can read; {path!r} it cannot, and so")
