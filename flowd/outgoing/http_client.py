"""The one way handlers speak HTTP: a pooled client with a deadline and a bounded answer.

Every failure becomes a HandlerFailed that names the address without its query and password,
because error texts are stored and shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from flowd import __version__
from flowd.destinations import Destination
from flowd.errors import Fail, HandlerFailed, NotSent, Retry
from flowd.node_log import say
from flowd.outgoing.answer import EXCERPT_MAX_BYTES, Answer, excerpt
from flowd.outgoing.decompression import ACCEPTED, decode, decoders_for
from flowd.outgoing.guarded_transport import Gate, GuardedTransport, is_stale
from flowd.redaction import REDACTOR

CONNECT_TIMEOUT_S = 10.0
ANSWER_MAX_BYTES = 10 * 1024 * 1024
REDIRECTS_MAX = 5
KEPT_CONNECTIONS_MAX = 64
# A server that asks for more than a day has no idea, or means harm.
RETRY_AFTER_MAX_S = 86400.0
REFUSAL_MAX_BYTES = 500
PORT_MAX = 65535
PARTIAL_CONTENT = 206
SHOWN_URL_MAX_CHARS = 200

_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s"';,]+)""", re.IGNORECASE)
_AUTHORITY = re.compile(r"[^/?#]*//[^/?#]*")


def is_success(status_code: int) -> bool:
    return 200 <= status_code <= 299


@dataclass(frozen=True, slots=True)
class OutgoingCall:
    """One request and what is made of its answer.

    `deadline_s` is for all of it, however slowly the answer drips; `answer_max_bytes` counts after
    decompression; an answer whose status is not `is_expected` is a failure.
    """

    method: str
    url: httpx2.URL
    headers: Mapping[str, str]
    content: bytes | None
    deadline_s: float
    answer_max_bytes: int = ANSWER_MAX_BYTES
    is_expected: Callable[[int], bool] = field(default=is_success)
    follow_redirects: bool = False
    reads_body: bool = True
    # The hosts that may be sent what is in this call; None is any that the gate lets through.
    only: tuple[Destination, ...] | None = None


class HttpClient:
    """Keeps connections open between calls. One per worker process and gate: a connection that one
    gate let through must not serve calls that another would refuse.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        # The worker's slots bound the connections in use. A limit here would only turn a busy
        # worker into failed nodes.
        self._client = self._open(kept_max=KEPT_CONNECTIONS_MAX)
        self._fresh: httpx2.AsyncClient | None = None

    def _open(self, *, kept_max: int) -> httpx2.AsyncClient:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=kept_max)
        return httpx2.AsyncClient(
            # Executions share this client, so no cookie may pass from one to another.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            transport=GuardedTransport(self._gate, limits),
            timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S),
            headers={"user-agent": f"flowd/{__version__}", "accept-encoding": ACCEPTED},
            follow_redirects=False,
        )

    async def close(self) -> None:
        await self._client.aclose()
        if self._fresh is not None:
            await self._fresh.aclose()

    async def send(self, call: OutgoingCall) -> Answer:
        """Send one request and read its whole answer.

        Raises HandlerFailed when no expected answer came: as Retry where the server is overloaded
        or broken, with the pause it asked for, and as Fail where the call is not allowed. What
        became of it is in the log of the node.
        """
        begun_s = time.monotonic()
        ending = "was given up"
        try:
            answer = await self._send_whole(call)
            ending = f"{answer.status_code}, {len(answer.body):,} bytes"
            return answer
        except HandlerFailed as error:
            ending = str(error).removeprefix(_place(call)).removeprefix(": ")
            raise
        finally:
            ran_ms = 1000 * (time.monotonic() - begun_s)
            say("call", f"{_place(call)} in {ran_ms:,.0f} ms: {ending}")

    async def _send_whole(self, call: OutgoingCall) -> Answer:
        place = _place(call)
        try:
            async with asyncio.timeout(call.deadline_s):
                return await self._exchange(call, place)
        except TimeoutError:
            reason = f"no complete answer within {call.deadline_s:g} s"
            kinds = frozenset({"timeout"})
        except (httpx2.LocalProtocolError, UnicodeError):
            # Their texts quote the header, which may be a key.
            flaw = "a header holds a character HTTP does not allow"
            raise Fail(f"{place}: the request cannot be sent: {flaw}") from None
        except httpx2.UnsupportedProtocol:
            raise Fail(f"{place}: redirected to what is neither http nor https") from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            kinds = frozenset({"connection"})
            raise NotSent(f"{place}: {_reason(error)}", kinds=kinds) from None
        except httpx2.HTTPError as error:
            reason, kinds = _reason(error), frozenset({"connection"})
        except Retry as error:
            raise Retry(f"{place}: {error}", after_s=error.after_s, kinds=error.kinds) from None
        except Fail as error:
            raise Fail(f"{place}: {error}") from None
        except HandlerFailed as error:
            reason, kinds = str(error), error.kinds
        raise HandlerFailed(f"{place}: {reason}", kinds=kinds)

    async def _exchange(self, call: OutgoingCall, place: str) -> Answer:
        request = self._client.build_request(
            call.method, call.url, headers=call.headers, content=call.content
        )
        # What the servers of this one chain set, beside what the call brings.
        cookies, own_cookies = httpx2.Cookies(), call.headers.get("cookie", "")
        for _ in range(REDIRECTS_MAX + 1):
            _check_port(request.url)
            _check_bound(request.url, call.only)
            response = await self._send(request)
            try:
                following = response.next_request if call.follow_redirects else None
                if following is None or call.is_expected(response.status_code):
                    return await _answer(response, call, place)
            finally:
                await response.aclose()
            cookies.extract_cookies(response)
            if following.url.origin != request.url.origin:
                _drop_headers(following, call)
                own_cookies = ""
            _add_cookies(following, cookies, own_cookies)
            request = following
        raise HandlerFailed(f"redirected more than {REDIRECTS_MAX} times")

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """Once more where a kept connection was closed before anything of an answer came.

        The server may have heard the first one: the Idempotency-Key tells it that they are one.
        """
        # A header that was asked for stands over a user name in the url.
        auth = httpx2.Auth() if "authorization" in request.headers else httpx2.USE_CLIENT_DEFAULT
        try:
            return await self._client.send(request, auth=auth, stream=True)
        except httpx2.NetworkError as error:
            if not is_stale(error):
                raise
        # Another kept one may have been closed as well.
        if self._fresh is None:
            self._fresh = self._open(kept_max=0)
        return await self._fresh.send(request, auth=auth, stream=True)


def _place(call: OutgoingCall) -> str:
    return f"{call.method} {shown(call.url)}"


async def _answer(response: httpx2.Response, call: OutgoingCall, place: str) -> Answer:
    if not call.is_expected(response.status_code):
        raise await _refusal(response, call.follow_redirects)
    if response.status_code == PARTIAL_CONTENT and "range" not in call.headers:
        raise HandlerFailed("answered 206, a part of an answer of which nobody asked a part")
    body = bytearray()
    if call.reads_body:
        await _read(response, call.answer_max_bytes, body)
    else:
        # So that the connection can be kept; what it says is no matter.
        with contextlib.suppress(HandlerFailed, httpx2.HTTPError):
            await _read(response, EXCERPT_MAX_BYTES, body)
        body.clear()
    if len(body) > call.answer_max_bytes:
        raise HandlerFailed(f"the answer is larger than {_size(call.answer_max_bytes)}")
    # The last one stands where there are several (WHATWG, MIME Sniffing, 5).
    written = response.headers.get("content-type", "")
    charset = _CHARSET.search(written)
    return Answer(
        place=place,
        status_code=response.status_code,
        content_type=written.rpartition(",")[2].partition(";")[0].strip().lower(),
        charset=charset[1] if charset else "",
        body=bytes(body),
    )


def _check_bound(url: httpx2.URL, only: tuple[Destination, ...] | None) -> None:
    if only is None:
        return
    port = url.port or (443 if url.scheme == "https" else 80)
    if not any(one.covers(url.host, port) for one in only):
        raise Fail(f"a secret of this call is bound to other hosts than {url.host}")


def _check_port(url: httpx2.URL) -> None:
    if url.port is not None and url.port > PORT_MAX:
        raise Fail(f"{shown(url)} names the port {url.port}; ports end at {PORT_MAX}")


def _add_cookies(request: httpx2.Request, cookies: httpx2.Cookies, own: str) -> None:
    cookies.set_cookie_header(request)
    both = [one for one in (own, request.headers.get("cookie")) if one]
    if both:
        request.headers["cookie"] = "; ".join(both)


def _drop_headers(following: httpx2.Request, call: OutgoingCall) -> None:
    """Any header of a config may be a key; it was meant for the first host and no other."""
    for name in call.headers:
        if name.lower() != "content-type":
            following.headers.pop(name, None)


def parse_url(text: str, *, source: str) -> httpx2.URL:
    """The url to send, percent-encoded. Rendered text may hold anything; only the host must not.

    A space, a line break or a lone percent sign after the host travels encoded. What is already
    encoded stays as it is. Raises Fail naming `source`, where the url was written.
    """
    authority = _AUTHORITY.match(text)
    start = authority.end() if authority else 0
    rest = _STRAY_PERCENT.sub("%25", text[start:])
    rest = _CONTROL_CHARACTER.sub(lambda match: f"%{ord(match[0]):02X}", rest)
    try:
        url = httpx2.URL(text[:start] + rest)
    except (httpx2.InvalidURL, UnicodeError) as error:
        reason = _lower_first(str(error))
        raise Fail(f"{source} is not a url: {reason}: {_shown_text(text)!r}") from None
    if url.scheme not in ("http", "https") or not url.host:
        message = f"{source} must begin with http:// or https:// and name a host"
        raise Fail(f"{message}: {_shown_text(text)!r}")
    if url.port is not None and url.port > PORT_MAX:
        raise Fail(f"{source} names the port {url.port}; ports end at {PORT_MAX}")
    return url


def _shown_text(text: str) -> str:
    """What is no url, as far as it can be shown: without what may be a password or a query."""
    scheme, _, rest = re.split(r"[?#]", text, maxsplit=1)[0].partition("//")
    host = rest.rpartition("@")[2]
    return _cut(f"{scheme}//{host}" if scheme else host)


def place_of(url: httpx2.URL) -> str:
    """Host and port of a url, as an allow list has them."""
    port = url.port or (443 if url.scheme == "https" else 80)
    host = url.raw_host.decode("ascii")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def shown(url: httpx2.URL) -> str:
    """The url without user name, password, query and fragment."""
    bare = url.copy_with(userinfo=b"", query=None, fragment=None)
    return _cut(str(bare))


def _cut(text: str) -> str:
    text = REDACTOR.text(text)
    return text if len(text) <= SHOWN_URL_MAX_CHARS else text[:SHOWN_URL_MAX_CHARS] + "..."


async def _read(response: httpx2.Response, bytes_max: int, body: bytearray) -> None:
    """Add the body to `body`, or a little more than `bytes_max` of it when it is larger."""
    decoders = decoders_for(response.headers.get("content-encoding", ""))
    async for chunk in response.aiter_raw():
        for piece in decode(decoders, chunk):
            body += piece
            if len(body) > bytes_max:
                return
    for decoder in decoders:
        decoder.check_end()


async def _refusal(response: httpx2.Response, follow_redirects: bool) -> HandlerFailed:
    """What the answer says about itself, as the error it stands for."""
    status = response.status_code
    text = f"answered {status}"
    kinds = frozenset({"status", str(status), f"{status // 100}xx"})
    if response.has_redirect_location and not follow_redirects:
        text += f", a redirect{_target(response)}; redirects are not followed"
        return HandlerFailed(text, kinds=kinds)
    body = bytearray()
    # Its status counts, however its body is broken.
    with contextlib.suppress(HandlerFailed, httpx2.HTTPError):
        await _read(response, REFUSAL_MAX_BYTES, body)
    text = f"{text}: {excerpt(bytes(body))}"
    if status in (408, 425, 429) or status >= 500:
        after_s = _retry_after_s(response.headers.get("retry-after", ""))
        return Retry(text, after_s=after_s, kinds=kinds)
    return HandlerFailed(text, kinds=kinds)


def _retry_after_s(value: str) -> float | None:
    """RFC 9110: a number of seconds or a date; None when it is neither."""
    if re.fullmatch(r"\s*[0-9]{1,9}\s*", value):
        return min(float(value), RETRY_AFTER_MAX_S)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), RETRY_AFTER_MAX_S)


def _size(bytes_max: int) -> str:
    mebibytes = bytes_max / (1024 * 1024)
    return f"{mebibytes:g} MiB" if mebibytes >= 0.01 else f"{bytes_max} bytes"


def _target(response: httpx2.Response) -> str:
    try:
        return f" to {shown(response.url.join(response.headers['location']))}"
    except (httpx2.InvalidURL, UnicodeError):
        return ""


def _reason(error: httpx2.HTTPError) -> str:
    if isinstance(error, httpx2.ConnectTimeout):
        return f"no connection within {CONNECT_TIMEOUT_S:g} s"
    cause = _lower_first(_root_cause(error))
    if isinstance(error, httpx2.ConnectError):
        return f"cannot connect: {cause}"
    if isinstance(error, httpx2.DecodingError):
        return f"the answer cannot be decompressed: {cause}"
    return f"the connection broke: {cause}"


def _root_cause(error: BaseException) -> str:
    """The operating system's own words where there are any, else the error's."""
    current: BaseException | None = error
    for _ in range(10):
        if isinstance(current, ssl.SSLError | socket.gaierror):
            return current.strerror or str(current)
        if isinstance(current, OSError) and current.errno:
            # asyncio and uvloop put words of their own into strerror.
            return os.strerror(current.errno)
        if isinstance(current, BaseExceptionGroup):
            current = current.exceptions[0]
        elif current is not None:
            current = current.__cause__ or current.__context__
    return str(error) or type(error).__name__


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
