"""Ask a language model behind any OpenAI-compatible endpoint.

Until `[handlers.llm] base_url` is set nothing is asked: the node answers with a fixed sentence,
so that the sample workflows run without a network.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

import orjson
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from flowd.errors import Fail, HandlerFailed
from flowd.handlers.completions import check_error, json_of, read_completion
from flowd.handlers.config import NodeConfig, PromptText, SchemaObject
from flowd.handlers.context import HandlerContext
from flowd.handlers.registry import handler
from flowd.handlers.schema_check import judge
from flowd.handlers.simulation import simulated
from flowd.handlers.token_budget import within_budget
from flowd.redaction import REDACTOR

if TYPE_CHECKING:
    from httpx2 import URL

    from flowd.outgoing.answer import Answer
    from flowd.outgoing.http_client import HttpClient, OutgoingCall

_PATH = "/chat/completions"
# The servers and models that want the limit as `max_completion_tokens`.
_NEWER_WORD: set[tuple[str, str | None]] = set()


Message = dict[str, Any]


class JsonSchema(NodeConfig):
    name: str = Field(default="answer", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = None
    json_schema: SchemaObject = Field(alias="schema", description="give a JSON Schema")
    strict: bool | None = None


class ResponseFormat(NodeConfig):
    """As the API takes it."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            message = "json_schema belongs to the type 'json_schema', and only to it"
            raise PydanticCustomError("response_format", message)
        return self


# What a node says by itself, and passes on under the same name.
_PASSED = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "reasoning_effort",
    "seed",
    "stop",
)
_OWN_PARAMETERS = frozenset({*_PASSED, "model", "messages", "response_format"})
# Several answers at once, or one in pieces; `n_predict` is llama.cpp's other word for a limit.
_NO_PARAMETERS = frozenset({"stream", "stream_options", "n", "best_of", "n_predict"})


class LlmConfig(NodeConfig):
    prompt: PromptText | None = None
    messages: list[Message] | None = Field(default=None, min_length=1)
    system: PromptText | None = None
    model: str | None = None
    temperature: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    top_p: float | None = Field(default=None, ge=0.0, le=1.0)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    reasoning_effort: str | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    extra: dict[str, Any] = Field(default_factory=dict)
    response_format: ResponseFormat | None = None
    timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _asks_one_thing(self) -> LlmConfig:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("prompt", "give either prompt, a text, or messages, a list")
        return self

    @model_validator(mode="after")
    def _has_one_limit(self) -> LlmConfig:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            message = "max_tokens and max_completion_tokens exclude each other; give one of them"
            raise PydanticCustomError("max_tokens", message)
        return self

    @field_validator("extra")
    @classmethod
    def _is_further(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for name in extra:
            if name in _OWN_PARAMETERS:
                raise PydanticCustomError(
                    "extra",
                    "{name} cannot be in extra; make it a key of config",
                    {"name": repr(name)},
                )
            if name in _NO_PARAMETERS:
                message = "{name} cannot be passed: a node reads one whole answer"
                raise PydanticCustomError("extra", message, {"name": repr(name)})
        return extra


@handler("llm")
async def llm(config: LlmConfig, context: HandlerContext) -> dict[str, Any]:
    """Asks a language model behind an OpenAI-compatible server."""
    if schema := _schema(config):
        await _check(schema, context)
    if context.settings.handlers.llm.base_url:
        return await _ask(config, context)
    return simulated("llm", _question(config))


def _question(config: LlmConfig) -> str:
    if config.messages is None:
        return config.prompt or ""
    return str(config.messages[-1].get("content") or "")


async def _ask(config: LlmConfig, context: HandlerContext) -> dict[str, Any]:
    from flowd.outgoing.answer import parse_json
    from flowd.outgoing.http_client import OutgoingCall, parse_url, place_of

    provider = context.settings.handlers.llm
    url = parse_url(_endpoint(str(provider.base_url)), source="[handlers.llm] base_url")
    request = _request(config, config.model or provider.model)
    # The operator named this server, so it may be anywhere.
    client = context.resources.http("[handlers.llm] base_url", (place_of(url),))
    headers = _headers(url, provider.api_key, context.idempotency_key)
    headers |= await context.resources.trace_headers(context.execution_id)
    async with within_budget(context, request) as cost:
        deadline_s = config.timeout_s or provider.timeout_s
        call = OutgoingCall("POST", url, headers, None, deadline_s, only=context.only)
        answer = await _send(client, call, request)
        cost.is_answered = True
        completion = parse_json(answer)
        cost.note(completion.get("usage") if isinstance(completion, dict) else None)
        check_error(completion, answer.place)
    text, finish_reason = read_completion(completion, answer.place)
    parsed = _parse_answer(text, config)
    if schema := _schema(config):
        await _check(schema, context, value=parsed)
    return {
        "answer": parsed,
        "model": completion.get("model") or request.get("model"),
        "usage": completion.get("usage") or {},
        "finish_reason": finish_reason,
    }


def _endpoint(base_url: str) -> str:
    """Some servers take a version in the query: that stays behind the path."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/").removesuffix(_PATH) + _PATH
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


async def _send(client: HttpClient, call: OutgoingCall, request: dict[str, Any]) -> Answer:
    """Say the limit in the word that the server wants: newer models of OpenAI refuse `max_tokens`,
    and many other servers pass over `max_completion_tokens`. A refusal costs nothing.
    """
    server = (str(call.url), request.get("model"))
    if server in _NEWER_WORD:
        _rename_limit(request)
    try:
        return await client.send(replace(call, content=orjson.dumps(request)))
    except HandlerFailed as error:
        if error.kinds & {"401", "403"}:
            text = f"{error}; the key is the setting handlers.llm.api_key"
            raise HandlerFailed(text, kinds=error.kinds) from None
        is_refused = "400" in error.kinds and "max_completion_tokens" in str(error)
        if not (is_refused and "max_tokens" in request):
            raise
    _NEWER_WORD.add(server)
    _rename_limit(request)
    # Another request, so another key: under the first one a gateway may keep the refusal.
    key = f"{call.headers['idempotency-key']}:max_completion_tokens"
    headers = {**call.headers, "idempotency-key": key}
    return await client.send(replace(call, headers=headers, content=orjson.dumps(request)))


def _rename_limit(request: dict[str, Any]) -> None:
    if "max_tokens" in request:
        request["max_completion_tokens"] = request.pop("max_tokens")


def _request(config: LlmConfig, model: str | None) -> dict[str, Any]:
    """Only what was asked for: servers differ in what they make of a null."""
    messages = config.messages or [{"role": "user", "content": config.prompt}]
    if config.system is not None:
        messages = [{"role": "system", "content": config.system}, *messages]
    request = {
        "model": model or None,
        "messages": messages,
        **{name: getattr(config, name) for name in _PASSED},
        "response_format": _response_format(config.response_format),
    }
    return {key: value for key, value in request.items() if value is not None} | config.extra


def _response_format(response_format: ResponseFormat | None) -> dict[str, Any] | None:
    return (
        None
        if response_format is None
        else response_format.model_dump(by_alias=True, exclude_unset=True)
    )


def _parse_answer(text: str, config: LlmConfig) -> Any:
    """The text itself, or the JSON that was asked for. Raises HandlerFailed when it is not that."""
    response_format = config.response_format
    if response_format is None or response_format.type == "text":
        return text
    answer = json_of(text)
    if response_format.json_schema is None and not isinstance(answer, dict):
        shown = REDACTOR.text(text)[:200]
        raise HandlerFailed(f"the model's answer is not a JSON object: {shown}")
    return answer


def _schema(config: LlmConfig) -> dict[str, Any] | None:
    response_format = config.response_format
    if response_format is None or response_format.json_schema is None:
        return None
    return response_format.json_schema.json_schema


async def _check(schema: dict[str, Any], context: HandlerContext, **value: Any) -> None:
    """Check the schema before it costs anything, and the answer after. Raises HandlerFailed."""
    verdict = await judge(schema, context, **value)
    if verdict["flaw"]:
        place = "config.response_format.json_schema.schema"
        raise Fail(f"{place}: this is not a valid JSON Schema: {verdict['flaw']}")
    if verdict["misfit"]:
        raise HandlerFailed(f"the model's answer does not fit the schema: {verdict['misfit']}")


def _headers(url: URL, api_key: str | None, idempotency_key: str) -> dict[str, str]:
    headers = {"content-type": "application/json", "idempotency-key": idempotency_key}
    if api_key:
        REDACTOR.learn(api_key)
        # Azure takes its keys there where a deployment is in the path; a bearer is a JWT to it.
        is_azure = url.host.endswith(".openai.azure.com") and not api_key.startswith("eyJ")
        if is_azure:
            headers["api-key"] = api_key
        else:
            headers["authorization"] = f"Bearer {api_key}"
    return headers
