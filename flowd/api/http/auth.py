"""Who may do what: stands before the routes, and lets a request through or answers it.

The scope a request needs is that of its endpoint in the route table; a route that says none, and a
path that is none, need a token all the same.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from flowd.api.contract.problems import TEXT_CHARS_SHOWN_MAX, problem_response
from flowd.api.contract.route import Endpoint
from flowd.api.http.event_stream import ASK_AGAIN
from flowd.api.http.limits import Hosts, RateLimit, is_cross_site, is_local
from flowd.api.http.responses import CALLER
from flowd.config import ApiSettings
from flowd.errors import InvalidSettings
from flowd.log import get_logger
from flowd.tokens import TOKENS_FILE, Token, find_token, read_tokens

log = get_logger(__name__)

# A token that was made or revoked counts after this long.
LOOK_EVERY_S: Final = 1.0
# Anybody can have requests refused: the log keeps so many a second and says how many it left out.
REFUSALS_LOGGED_MAX: Final = 20
_SAFE_METHODS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Guard:
    """What the gate goes by. `address` is where the API listens, None for a unix socket."""

    api: ApiSettings
    data_dir: Path
    address: str | None

    @property
    def is_local(self) -> bool:
        return is_local(self.address)


class _Tokens:
    """The tokens as they are in their file now, within LOOK_EVERY_S."""

    def __init__(self, data_dir: Path, *, is_required: bool) -> None:
        self._data_dir = data_dir
        self._path = data_dir / TOKENS_FILE
        self._is_required = is_required
        self._seen: object = None
        self._look_at_s = 0.0
        self._tokens: tuple[Token, ...] | None = None
        self.current()

    def current(self) -> tuple[Token, ...] | None:
        """None when no request needs one."""
        now_s = time.monotonic()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_EVERY_S
            self._look()
        return self._tokens

    def _look(self) -> None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - a Path costs as much again
            seen: object = (status.st_mtime_ns, status.st_ino, status.st_size)
        except FileNotFoundError:
            seen = "missing"
        except OSError as error:
            seen = error.errno
        if seen == self._seen:
            return
        is_first, self._seen = self._seen is None, seen
        try:
            tokens = read_tokens(self._data_dir)
        except InvalidSettings as error:
            log.error("tokens.unreadable", reason=str(error))
            self._tokens = ()
            return
        self._tokens = () if tokens is None and self._is_required else tokens
        if not is_first:
            log.info("tokens.changed", tokens=len(tokens or ()))


class _Refusals:
    """Writes down what was refused, within bounds."""

    def __init__(self) -> None:
        self._second = 0
        self._logged = 0
        self._unlogged = 0

    def add(self, **facts: Any) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._logged = second, 0
        if self._logged >= REFUSALS_LOGGED_MAX:
            self._unlogged += 1
            return
        self._logged += 1
        log.warning("request.refused", **facts, unlogged=self._unlogged or None)
        self._unlogged = 0


class AuthMiddleware:
    """Wraps the routes. Without tokens and limits it costs a request a look at its `Host`."""

    def __init__(self, app: ASGIApp, guard: Guard, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        own = [guard.api.host] if guard.address is None else [guard.api.host, guard.address]
        # A browser reaches no unix socket, and at a public address nobody goes without a token.
        is_open = guard.address is None or not guard.is_local
        self._hosts = Hosts(guard.api.allowed_hosts, own, is_open=is_open)
        self._tokens = _Tokens(guard.data_dir, is_required=not guard.is_local)
        self._rate = RateLimit(guard.api.rate_limit)
        self._needs = [_need(route) for route in routes if isinstance(route, Route)]
        self._refusals = _Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refuse(scope) if scope["type"] == "http" else None
        if refusal is None:
            scope[ASK_AGAIN] = self._may_go_on
            await self._app(scope, receive, send)
        else:
            await refusal(scope, receive, send)

    def _refuse(self, scope: Scope) -> Response | None:
        host, authorization = _headers(scope)
        tokens = self._tokens.current()
        if not self._hosts.accept(host, has_tokens=tokens is not None):
            return _bad_host(host)
        # With tokens a page would have to know one.
        is_change = tokens is None and scope["method"] not in _SAFE_METHODS
        if is_change and is_cross_site(scope["headers"], host):
            return self._refuse_page(scope)
        if tokens is None and not self._rate.is_on:
            return None
        needed = self._needed_scope(scope)
        if needed == "public":
            return None
        token = None
        if tokens is not None:
            token = find_token(tokens, _bearer(authorization), time.time_ns() // 1_000_000)
        if self._rate.is_on and (wait_s := self._rate.take(_caller(scope, token))):
            return _too_many(wait_s, self._rate)
        if tokens is None:
            return None
        return self._authorize(scope, token, needed, has_tried=bool(authorization))

    def _may_go_on(self, scope: Scope) -> bool:
        """Whether an answer that does not end may: its token may have been taken back since."""
        tokens = self._tokens.current()
        if tokens is None:
            return True
        token = find_token(tokens, _bearer(_headers(scope)[1]), time.time_ns() // 1_000_000)
        return token is not None and token.allows(self._needed_scope(scope))

    def _refuse_page(self, scope: Scope) -> Response:
        code = "cross_site"
        self._refusals.add(code=code, **_facts(scope))
        detail = (
            "a page of another site has sent this; without tokens flowd lets no page change "
            "anything, and `flowd token create` makes one"
        )
        return problem_response(code, detail)

    def _authorize(
        self, scope: Scope, token: Token | None, needed: str, *, has_tried: bool
    ) -> Response | None:
        facts = _facts(scope)
        client = scope.get("client")
        if token is None:
            code = "unauthenticated"
            self._refusals.add(code=code, **facts, client=client and client[0])
            return _unauthenticated(has_tried=has_tried)
        facts |= {"token_id": token.id, "token": token.name}
        if not token.allows(needed):
            self._refusals.add(code="forbidden", **facts, needed=needed)
            return _forbidden(token, needed)
        scope[CALLER] = token
        if scope["method"] not in _SAFE_METHODS and needed != "read":
            log.info("request.authorized", **facts)
        return None

    def _needed_scope(self, scope: Scope) -> str:
        path, method = scope["path"], scope["method"]
        for pattern, methods, needed in self._needs:
            if method in methods and pattern.match(path):
                return needed
        # What is answered with a 404 or a 405.
        return "read"


def _need(route: Route) -> tuple[re.Pattern[str], frozenset[str], str]:
    needed = route.description.scope if isinstance(route, Endpoint) else "admin"
    return route.path_regex, frozenset(route.methods or ()), needed


def _facts(scope: Scope) -> dict[str, Any]:
    return {"method": scope["method"], "path": scope["path"][:TEXT_CHARS_SHOWN_MAX]}


def _headers(scope: Scope) -> tuple[bytes, bytes]:
    host = authorization = b""
    for name, value in scope["headers"]:
        if name == b"host":
            host = value
        elif name == b"authorization":
            # Two of them are none: who knows which one was checked before us.
            authorization = b"" if authorization else value
    return host, authorization


def _bearer(authorization: bytes) -> str:
    kind, _, text = authorization.partition(b" ")
    return text.strip().decode("latin-1") if kind.lower() == b"bearer" else ""


def _caller(scope: Scope, token: Token | None) -> str:
    if token is not None:
        return token.id
    client = scope.get("client")
    return f"address {client[0]}" if client else "address"


def _bad_host(host: bytes) -> Response:
    shown = host.decode("latin-1")[:TEXT_CHARS_SHOWN_MAX]
    detail = (
        f"flowd does not answer for the host {shown!r}; the setting api.allowed_hosts names "
        "those it answers for"
    )
    return problem_response("bad_host", detail)


def _too_many(wait_s: int, rate: RateLimit) -> Response:
    detail = f"more than {rate.per_second:g} requests a second; the setting is api.rate_limit"
    return problem_response("rate_limited", detail, headers={"retry-after": str(wait_s)})


def _unauthenticated(*, has_tried: bool) -> Response:
    challenge = 'Bearer realm="flowd"'
    if has_tried:
        challenge += ', error="invalid_token"'
        detail = "this token is unknown, revoked or expired; `flowd token create` makes one"
    else:
        detail = (
            "this takes a token: `Authorization: Bearer <token>`; `flowd token create` makes one"
        )
    return problem_response("unauthenticated", detail, headers={"www-authenticate": challenge})


def refuse_scope(token: Token | None, needed: str) -> Response | None:
    """The refusal of what takes more than its endpoint; None where it is allowed."""
    return None if token is None or token.allows(needed) else _forbidden(token, needed)


def _forbidden(token: Token, needed: str) -> Response:
    challenge = f'Bearer realm="flowd", error="insufficient_scope", scope="{needed}"'
    detail = f"this takes the scope {needed!r}; the token {token.name!r} has {token.scope!r}"
    return problem_response("forbidden", detail, headers={"www-authenticate": challenge})
