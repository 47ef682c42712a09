"""Read `redis+sentinel://user:password@one,two:26379,three/master/0`, whose Sentinels name the
primary of a Redis that fails over."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

PORT: Final = 26379
SCHEMES: Final = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
EXAMPLE: Final = "redis+sentinel://:password@one:26379,two,three/mymaster/0"
# What of the query is about the Sentinels; all else is about the server.
OWN_QUERY: Final = ("sentinel_username", "sentinel_password")

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:,]+))(?::([1-9]\d{0,4}))?")
# A Sentinel takes no other names.
_MASTER = re.compile(r"[A-Za-z0-9._-]+")


class SentinelUrl(NamedTuple):
    """`scheme` and `query` are those of a URL of the server; `login` stands there as it is here,
    with its `@`."""

    scheme: str
    login: str
    hosts: tuple[tuple[str, int], ...]
    master: str
    db: str
    query: str
    username: str | None
    password: str | None

    def server_url(self, host: str, port: int) -> str:
        """That of the server there."""
        written = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{self.login}{written}:{port}/{self.db}?{self.query}"

    @property
    def address(self) -> str:
        """For people, without a password."""
        hosts = ", ".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{self.master} of the Sentinels {hosts}"


def parse_sentinel_url(text: str) -> SentinelUrl | None:
    """None for a URL of another kind; raises ValueError for what is none of this one."""
    scheme, _, rest = text.partition("://")
    if scheme not in SCHEMES:
        return None
    place, _, path = rest.partition("/")
    login, at, hosts = place.rpartition("@")
    # The hosts would be none to urlsplit.
    parts = urlsplit(f"//-/{path}")
    master, _, db = parts.path.strip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    username, password = (query.pop(name, [""])[-1] or None for name in OWN_QUERY)
    if not _MASTER.fullmatch(master):
        raise ValueError(f"a URL with the name of the master behind the Sentinels, as in {EXAMPLE}")
    return SentinelUrl(
        SCHEMES[scheme],
        login + at,
        tuple(_host(one) for one in hosts.split(",")),
        master,
        db,
        urlencode(query, doseq=True),
        username,
        password,
    )


def _host(written: str) -> tuple[str, int]:
    found = _HOST.fullmatch(written)
    if not found or int(found[3] or PORT) > 65535:
        raise ValueError(f"a URL with the hosts of the Sentinels, as in {EXAMPLE}")
    return found[1] or found[2], int(found[3] or PORT)
