"""Ask a language model behind any OpenAI-compatible endpoint.

Until `[handlers.llm] base_url` is set nothing is asked: the node answers with a fixed sentence,
so that the sample workflows run without a network.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from flowd.errors import HandlerFailed
from flowd.handlers.config import NodeConfig
from flowd.handlers.context import HandlerContext
from flowd.handlers.registry import handler
from flowd.handlers.token_budget import within_budget
from flowd.redaction import REDACTOR


def _to_text(value: Any) -> Any:
    # A prompt that is exactly one template keeps its JSON type. A model reads text, so anything
    # else goes in the way a template inside text would: as compact JSON.
    return orjson.dumps(value).decode() if isinstance(value, dict | list | int | float) else value


_CODE_BLOCK = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n\s*```\s*", re.DOTALL)
PromptText = Annotated[str, BeforeValidator(_to_text)]
Message = dict[str, Any]


class JsonSchema(NodeConfig):
    name: str = Field(default="answer", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = None
    json_schema: dict[str, Any] = Field(alias="schema", description="give a JSON Schema")
    strict: bool | None = None

    @field_validator("json_schema")
    @classmethod
    def _is_a_schema(cls, schema: dict[str, Any]) -> dict[str, Any]:
        from flowd.handlers.json_schema import find_schema_flaw

        flaw = find_schema_flaw(schema)
        if flaw:
            raise PydanticCustomError("schema", "this is no JSON Schema: {flaw}", {"flaw": flaw})
        return schema


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


class LlmConfig(NodeConfig):
    prompt: PromptText | None = None
    messages: list[Message] | None = Field(default=None, min_length=1)
    system: PromptText | None = None
    model: str | None = None
    temperature: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    max_tokens: int | None = Field(default=None, ge=1)
    response_format: ResponseFormat | None = None
    timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _asks_one_thing(self) -> LlmConfig:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("prompt", "give either prompt, a text, or messages, a list")
        return self


@handler("llm")
async def llm(wanted: LlmConfig, context: HandlerContext) -> dict[str, Any]:
    """Asks a language model behind an OpenAI-compatible server."""
    if context.settings.handlers.llm.base_url:
        return await _ask(wanted, context)
    return {"answer": f"Simulated response for: {_question(wanted)}"}


def _question(wanted: LlmConfig) -> str:
    if wanted.messages is None:
        return wanted.prompt or ""
    return str(wanted.messages[-1].get("content") or "")


async def _ask(wanted: LlmConfig, context: HandlerContext) -> dict[str, Any]:
    from flowd.outgoing.answer import parse_body
    from flowd.outgoing.http_client import Call, parse_url, place_of, shown

    provider = context.settings.handlers.llm
    base_url = str(provider.base_url).rstrip("/")
    url = parse_url(f"{base_url}/chat/completions", source="[handlers.llm] base_url")
    request = _request(wanted, wanted.model or provider.model)
    # The operator named this server, so it may be anywhere.
    client = context.resources.http("[handlers.llm] base_url", (place_of(url),))
    trace = await context.resources.trace_headers(context.execution_id)
    async with within_budget(context, request) as cost:
        call = Call(
            "POST",
            url,
            headers=_headers(provider.api_key, context.idempotency_key) | trace,
            content=orjson.dumps(request),
            deadline_s=wanted.timeout_s or provider.timeout_s,
            only=context.only,
        )
        completion = parse_body(await client.send(call))
        cost.note(completion.get("usage") if isinstance(completion, dict) else None)
    text = _answer_text(completion)
    if text is None:
        raise HandlerFailed(f"POST {shown(url)}: the answer holds no choices[0].message.content")
    return {
        "answer": _parse_answer(text, wanted),
        "model": completion.get("model") or request.get("model"),
        "usage": completion.get("usage") or {},
    }


def _request(wanted: LlmConfig, model: str | None) -> dict[str, Any]:
    """Only what was asked for: servers differ in what they make of a null."""
    messages = wanted.messages or [{"role": "user", "content": wanted.prompt}]
    if wanted.system is not None:
        messages = [{"role": "system", "content": wanted.system}, *messages]
    request = {
        "model": model or None,
        "messages": messages,
        "temperature": wanted.temperature,
        "max_tokens": wanted.max_tokens,
        "response_format": _response_format(wanted.response_format),
    }
    return {key: value for key, value in request.items() if value is not None}


def _response_format(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    return None if wanted is None else wanted.model_dump(by_alias=True, exclude_unset=True)


def _parse_answer(text: str, wanted: LlmConfig) -> Any:
    """The text itself, or the JSON that was asked for. Raises HandlerFailed when it is not that."""
    response_format = wanted.response_format
    if response_format is None or response_format.type == "text":
        return text
    # Some models put the JSON into a code block, although they were told not to.
    fenced = _CODE_BLOCK.fullmatch(text)
    try:
        answer = orjson.loads(fenced[1] if fenced else text)
    except orjson.JSONDecodeError as error:
        raise HandlerFailed(f"the model's answer is not JSON ({error}): {_excerpt(text)}") from None
    if response_format.json_schema is not None:
        from flowd.handlers.json_schema import find_misfit

        misfit = find_misfit(response_format.json_schema.json_schema, answer)
        if misfit:
            raise HandlerFailed(f"the model's answer does not fit the schema: {misfit}")
    elif not isinstance(answer, dict):
        raise HandlerFailed(f"the model's answer is not a JSON object: {_excerpt(text)}")
    return answer


def _excerpt(text: str) -> str:
    # Redacted before it is cut: half a secret would not be found any more.
    return REDACTOR.text(text)[:200]


def _headers(api_key: str | None, idempotency_key: str) -> dict[str, str]:
    headers = {"content-type": "application/json", "idempotency-key": idempotency_key}
    if api_key:
        REDACTOR.learn(api_key)
        headers["authorization"] = f"Bearer {api_key}"
    return headers


def _answer_text(completion: Any) -> str | None:
    try:
        text = completion["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) else None
