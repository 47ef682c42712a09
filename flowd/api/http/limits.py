"""What is refused whoever asks: requests for other hosts, of other sites, and too many requests.

A page in a browser may lead a name of its own to 127.0.0.1 and then speak to a flowd without tokens
as if it were its own server (DNS rebinding). Its requests still carry that name in `Host`. And any
page may send a form to localhost, without seeing the answer (cross-site request forgery); browsers
say so in `Sec-Fetch-Site` or `Origin`.
"""

from __future__ import annotations

import ipaddress
import math
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

# So many callers have a bucket; with one more, those whose buckets are full are forgotten.
BUCKETS_MAX: Final = 10_000
_HOSTS_REMEMBERED_MAX = 256


def address_of(listener: socket.socket) -> str | None:
    """Where it listens; None for a unix socket."""
    return None if listener.family == socket.AF_UNIX else str(listener.getsockname()[0])


def is_local(address: str | None) -> bool:
    """Whether only this machine can reach this address; None is a unix socket."""
    if address is None:
        return True
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


class Hosts:
    """The hosts a request may be for. Without `allowed`: any, or those of this machine."""

    def __init__(self, allowed: Sequence[str], own: Sequence[str], *, is_open: bool) -> None:
        """`own` are the names flowd listens on, `is_open` tells that no name needs to be feared."""
        self._names = {_plain(name) for name in allowed or (*own, "localhost", "127.0.0.1", "::1")}
        self._suffixes = tuple(name[1:] for name in self._names if name.startswith("*."))
        self._is_closed = bool(allowed)
        self._is_open = is_open
        # Clients send the same bytes each time.
        self._accepted: set[bytes] = set()

    def accept(self, host: bytes, *, has_tokens: bool) -> bool:
        if host in self._accepted or self._accepts_any(has_tokens=has_tokens):
            return True
        if not host:
            # HTTP/1.0, as some health checks speak it; a browser always says for whom it asks.
            return not self._is_closed
        name = _plain(host.decode("latin-1"))
        is_known = name in self._names or "*" in self._names or name.endswith(self._suffixes)
        if is_known and len(self._accepted) < _HOSTS_REMEMBERED_MAX:
            self._accepted.add(host)
        return is_known

    def _accepts_any(self, *, has_tokens: bool) -> bool:
        # No page knows a token, and none can send one along.
        return not self._is_closed and (self._is_open or has_tokens)


def _plain(host: str) -> str:
    """Without port, brackets and the dot at the end, in small letters."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    if host.count(":") == 1:
        host = host.partition(":")[0]
    return host.removesuffix(".")


def is_cross_site(headers: Iterable[tuple[bytes, bytes]], host: bytes) -> bool:
    """Whether a page of another origin has sent this; whoever is no browser says nothing of it.

    As Go's http.CrossOriginProtection decides.
    """
    values = dict(headers)
    if site := values.get(b"sec-fetch-site"):
        return site not in (b"same-origin", b"none")
    origin = values.get(b"origin")
    return origin is not None and origin.partition(b"://")[2] != host


class RateLimit:
    """A bucket per caller: it holds the requests of one second, and fills at the same rate."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        """0 is no limit."""
        self.is_on = per_second > 0
        self.per_second = per_second
        # Of less than one request a second, one at a time.
        self._size = max(per_second, 1.0)
        self._clock = clock
        # What was left, and when.
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, caller: str) -> int:
        """0 when this request may go on, else after how many seconds the next one may come."""
        now = self._clock()
        left, then = self._buckets.get(caller, (self._size, now))
        left = min(self._size, left + (now - then) * self.per_second)
        if left < 1.0:
            self._buckets[caller] = (left, now)
            return max(1, math.ceil((1.0 - left) / self.per_second))
        if len(self._buckets) >= BUCKETS_MAX and caller not in self._buckets:
            self._forget(now)
        self._buckets[caller] = (left - 1.0, now)
        return 0

    def _forget(self, now: float) -> None:
        """Whoever has not asked for long has a full bucket again. With none such, forget all."""
        self._buckets = {
            caller: (left, then)
            for caller, (left, then) in self._buckets.items()
            if left + (now - then) * self.per_second < self._size
        }
        if len(self._buckets) >= BUCKETS_MAX:
            self._buckets.clear()
