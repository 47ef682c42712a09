"""Call a service over HTTP and return what it answered.

Hosts listed in `[handlers.call_external_service] simulated_hosts` are never called: they answer
with a fixed sentence, so that the sample workflows run without a network. So does, in development,
a name without a dot that does not resolve: made-up services of other workflows.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import quote, urlencode, urlsplit

import orjson
from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from flowd.errors import Fail
from flowd.handlers.config import NodeConfig
from flowd.handlers.context import HandlerContext
from flowd.handlers.registry import handler
from flowd.handlers.simulation import simulated
from flowd.log import get_logger

log = get_logger(__name__)

# RFC 9110: a header's name is a token, its value visible ASCII with spaces and tabs between.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
_PORT = re.compile(r"[^/?#]*//[^/?#]*:0*([0-9]+)(?:[/?#]|$)")
_USER_IN_URL = re.compile(r"[^/?#]*//[^/?#]*@")
_PORT_MAX = 65535
_BARE_NAME = re.compile(r"[^.:\s]+")
# Resolvers read these as addresses, or try to.
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
# Without a network a resolver cannot say that there is no such name, only that it cannot ask.
_UNKNOWN_NAME = frozenset(
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_AGAIN", "EAI_FAIL")
    if hasattr(socket, name)
)
# The hosts this process has warned of. Their names may come from anywhere.
_WARNED_OF: set[str] = set()
_WARNED_OF_MAX = 1000
# The client writes these from the body it sends; a second opinion would break the message.
_FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding"})


def _number_to_text(value: Any) -> Any:
    # A header that is exactly one template keeps its JSON type, and ids are often numbers.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _to_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


HeaderValue = Annotated[str, BeforeValidator(_number_to_text)]
Method = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]+$", to_upper=True)]
Scalar = str | int | float | bool
Fields = dict[str, Scalar | list[Scalar]]
StatusClass = Annotated[str, StringConstraints(pattern=r"^[1-5]xx$")]
Status = Annotated[int, Field(ge=100, le=599)]


class BasicAuth(NodeConfig):
    username: str
    password: str

    @field_validator("username")
    @classmethod
    def _has_no_colon(cls, username: str) -> str:
        if ":" in username:
            raise PydanticCustomError("username", "a username of basic auth holds no colon")
        return username


class Auth(NodeConfig):
    """Who calls: one of the two."""

    basic: BasicAuth | None = None
    bearer: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _is_one_kind(self) -> Auth:
        if (self.basic is None) == (self.bearer is None):
            raise PydanticCustomError("auth", "give either basic or bearer")
        if self.bearer is not None and not _HEADER_VALUE.fullmatch(self.bearer):
            # The text names no value: it is a key.
            message = "the token holds a character that headers cannot carry"
            raise PydanticCustomError("auth", message)
        return self

    @property
    def header(self) -> str:
        if self.basic is None:
            return f"Bearer {self.bearer}"
        pair = f"{self.basic.username}:{self.basic.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


class CallExternalServiceConfig(NodeConfig):
    url: str = Field(description="give the address to call, such as http://service-a/path")
    method: Method = "GET"
    headers: dict[str, HeaderValue] = Field(default_factory=dict)
    params: Fields = Field(default_factory=dict)
    json_value: Any = Field(default=None, alias="json")
    body: str | None = None
    form: Fields | None = None
    auth: Auth | None = None
    expected_status: Annotated[list[Status | StatusClass], BeforeValidator(_to_list)] = Field(
        default=["2xx"], min_length=1
    )
    follow_redirects: bool = False
    timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    answer_max_bytes: int | None = Field(default=None, ge=1)

    @field_validator("url")
    @classmethod
    def _is_absolute(cls, url: str) -> str:
        if not re.match(r"https?://[^/?#]", url, re.IGNORECASE):
            raise PydanticCustomError("url", "a url begins with http:// or https:// and a host")
        port = _PORT.match(url)
        if port and int(port[1][:6]) > _PORT_MAX:
            message = "there is no port {port}; ports end at 65535"
            raise PydanticCustomError("url", message, {"port": port[1][:20]})
        return url

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                message = "header {name} holds a character that headers cannot carry"
                raise PydanticCustomError("header", message, {"name": repr(name)})
            if name.lower() in _FRAMING_HEADERS:
                message = "header {name} is set by flowd from the body; leave it out"
                raise PydanticCustomError("header", message, {"name": repr(name)})
        return headers

    @model_validator(mode="after")
    def _has_one_body(self) -> CallExternalServiceConfig:
        if self.has_json + (self.body is not None) + (self.form is not None) > 1:
            message = "json, body and form exclude each other; give one of them"
            raise PydanticCustomError("body", message)
        return self

    @model_validator(mode="after")
    def _says_once_who_calls(self) -> CallExternalServiceConfig:
        if self.auth and any(name.lower() == "authorization" for name in self.headers):
            message = "auth and an authorization header exclude each other; give one of them"
            raise PydanticCustomError("auth", message)
        named = self.auth or any(name.lower() == "authorization" for name in self.headers)
        if named and _USER_IN_URL.match(self.url):
            message = "auth and a user name in the url exclude each other; give one of them"
            raise PydanticCustomError("auth", message)
        return self

    @property
    def has_json(self) -> bool:
        return "json_value" in self.model_fields_set

    def is_expected(self, status_code: int) -> bool:
        status_class = f"{status_code // 100}xx"
        return any(one in (status_code, status_class) for one in self.expected_status)


@handler("call_external_service")
async def call_external_service(
    config: CallExternalServiceConfig, context: HandlerContext
) -> dict[str, Any]:
    """Calls a URL and returns what it answered."""
    if await _is_simulated(config.url, context):
        return simulated("call_external_service", config.url)
    return await _call(config, context)


async def _is_simulated(url: str, context: HandlerContext) -> bool:
    simulated_hosts = context.settings.handlers.call_external_service.simulated_hosts
    if not simulated_hosts:
        return False
    try:
        host = urlsplit(url).hostname or ""
    except ValueError as error:
        raise Fail(f"config.url is not a url: {error}") from None
    if host in {name.lower() for name in simulated_hosts}:
        return True
    if context.settings.environment != "development":
        return False
    from flowd.outgoing.http_client import parse_url

    host = parse_url(url, source="config.url").host
    if not await _is_made_up(host):
        return False
    _warn_once(host, context)
    return True


def _warn_once(host: str, context: HandlerContext) -> None:
    if host in _WARNED_OF:
        return
    if len(_WARNED_OF) >= _WARNED_OF_MAX:
        _WARNED_OF.clear()
    _WARNED_OF.add(host)
    log.warning(
        "call.simulated",
        host=host,
        execution_id=context.execution_id,
        node_id=context.node_id,
        reason="the name does not resolve; simulated_hosts = [] turns this off",
    )


async def _is_made_up(host: str) -> bool:
    """True for a name without a dot, which no address is, that this machine knows nothing of."""
    if not _BARE_NAME.fullmatch(host) or _NUMBER.fullmatch(host):
        return False
    try:
        await asyncio.get_running_loop().getaddrinfo(host, None)
    except socket.gaierror as error:
        return error.errno in _UNKNOWN_NAME
    except (OSError, UnicodeError):
        return False
    return False


async def _call(config: CallExternalServiceConfig, context: HandlerContext) -> dict[str, Any]:
    from flowd.outgoing.answer import parse_body
    from flowd.outgoing.http_client import OutgoingCall, parse_url

    settings = context.settings.handlers.call_external_service
    answer_max_bytes = int(settings.answer_max_mb * 1024 * 1024)
    call = OutgoingCall(
        config.method,
        parse_url(_with_params(config), source="config.url"),
        headers=_headers(config, await _added_headers(context)),
        content=_content(config),
        deadline_s=config.timeout_s or settings.timeout_s,
        answer_max_bytes=min(config.answer_max_bytes or answer_max_bytes, answer_max_bytes),
        is_expected=config.is_expected,
        follow_redirects=config.follow_redirects,
        only=context.only,
    )
    client = context.resources.http("[handlers.call_external_service] allow", settings.allow)
    answer = await client.send(call)
    return {"data": parse_body(answer), "status_code": answer.status_code}


def _with_params(config: CallExternalServiceConfig) -> str:
    """The url with `params` behind the query it has."""
    if not config.params:
        return config.url
    bare, mark, fragment = config.url.partition("#")
    query = urlencode(list(_pairs(config.params)), quote_via=quote)
    joint = "&" if "?" in bare else "?"
    return f"{bare}{joint}{query}{mark}{fragment}"


def _pairs(fields: Fields) -> Iterator[tuple[str, str]]:
    """A list stands for a name given several times; true and false are written as in JSON."""
    for name, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            yield name, str(item).lower() if isinstance(item, bool) else str(item)


async def _added_headers(context: HandlerContext) -> dict[str, str]:
    trace = await context.resources.trace_headers(context.execution_id)
    return {"idempotency-key": context.idempotency_key, **trace}


def _headers(config: CallExternalServiceConfig, added: dict[str, str]) -> dict[str, str]:
    """What the config says stands over what flowd adds, whatever the case of the names."""
    headers = dict(added)
    if config.has_json:
        headers["content-type"] = "application/json"
    if config.form is not None:
        headers["content-type"] = "application/x-www-form-urlencoded"
    if config.auth is not None:
        headers["authorization"] = config.auth.header
    headers.update((name.lower(), value) for name, value in config.headers.items())
    return headers


def _content(config: CallExternalServiceConfig) -> bytes | None:
    if config.has_json:
        return orjson.dumps(config.json_value)
    if config.form is not None:
        return urlencode(list(_pairs(config.form))).encode()
    return None if config.body is None else config.body.encode()
