"""Call a service over HTTP and return what it answered.

Hosts listed in `[handlers.call_external_service] simulated_hosts` are never called: they answer
with a fixed sentence, so that the sample workflows run without a network.
"""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

import orjson
from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from flowd.errors import HandlerFailed
from flowd.workers.node_config import NodeConfig, read_config
from flowd.workers.registry import HandlerContext, handler

# RFC 9110: a header's name is a token, its value visible ASCII with spaces and tabs between.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
# The client writes these from the body it sends; a second opinion would break the message.
_FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding"})


def _number_to_text(value: Any) -> Any:
    # A header that is exactly one template keeps its JSON type, and ids are often numbers.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


HeaderValue = Annotated[str, BeforeValidator(_number_to_text)]
Method = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]+$", to_upper=True)]


class CallExternalServiceConfig(NodeConfig):
    url: str = Field(description="give the address to call, such as http://service-a/path")
    method: Method = "GET"
    headers: dict[str, HeaderValue] = Field(default_factory=dict)
    json_value: Any = Field(default=None, alias="json")
    body: str | None = None

    @field_validator("url")
    @classmethod
    def _is_absolute(cls, url: str) -> str:
        if not re.match(r"https?://[^/?#]", url, re.IGNORECASE):
            raise PydanticCustomError("url", "a url begins with http:// or https:// and a host")
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
        if self.body is not None and self.has_json:
            raise PydanticCustomError("body", "json and body exclude each other; give one of them")
        return self

    @property
    def has_json(self) -> bool:
        return "json_value" in self.model_fields_set


@handler("call_external_service")
async def call_external_service(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    wanted = read_config(CallExternalServiceConfig, config)
    simulated_hosts = context.settings.handlers.call_external_service.simulated_hosts
    if _is_simulated(wanted.url, simulated_hosts):
        return {"data": f"Simulated call to {wanted.url}"}
    return await _call(wanted, context)


def _is_simulated(url: str, simulated_hosts: tuple[str, ...]) -> bool:
    if not simulated_hosts:
        return False
    try:
        host = urlsplit(url).hostname
    except ValueError as error:
        raise HandlerFailed(f"config.url is not a url: {error}") from None
    return host is not None and host in {name.lower() for name in simulated_hosts}


async def _call(wanted: CallExternalServiceConfig, context: HandlerContext) -> dict[str, Any]:
    from flowd.workers.http_client import parse_body, parse_url

    answer = await context.resources.http.send(
        wanted.method,
        parse_url(wanted.url, source="config.url"),
        headers=_headers(wanted, context.idempotency_key),
        content=_content(wanted),
        deadline_s=context.settings.handlers.call_external_service.timeout_s,
    )
    return {"data": parse_body(answer), "status_code": answer.status_code}


def _headers(wanted: CallExternalServiceConfig, idempotency_key: str) -> dict[str, str]:
    """What the config says stands over what flowd adds, whatever the case of the names."""
    headers = {"idempotency-key": idempotency_key}
    if wanted.has_json:
        headers["content-type"] = "application/json"
    headers.update((name.lower(), value) for name, value in wanted.headers.items())
    return headers


def _content(wanted: CallExternalServiceConfig) -> bytes | None:
    if wanted.has_json:
        return orjson.dumps(wanted.json_value)
    return None if wanted.body is None else wanted.body.encode()
