"""Ask a language model behind any OpenAI-compatible endpoint.

Until `[handlers.llm] base_url` is set nothing is asked: the node answers with a fixed sentence,
so that the sample workflows run without a network.
"""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from flowd.errors import HandlerFailed
from flowd.workers.node_config import NodeConfig, read_config
from flowd.workers.registry import HandlerContext, handler


def _to_text(value: Any) -> Any:
    # A prompt that is exactly one template keeps its JSON type. A model reads text, so anything
    # else goes in the way a template inside text would: as compact JSON.
    return orjson.dumps(value).decode() if isinstance(value, dict | list | int | float) else value


PromptText = Annotated[str, BeforeValidator(_to_text)]
Message = dict[str, Any]


class LlmConfig(NodeConfig):
    prompt: PromptText | None = None
    messages: list[Message] | None = Field(default=None, min_length=1)
    system: PromptText | None = None
    model: str | None = None
    temperature: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    max_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _asks_one_thing(self) -> LlmConfig:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("prompt", "give either prompt, a text, or messages, a list")
        return self


@handler("llm")
async def llm(config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    wanted = read_config(LlmConfig, config)
    if context.settings.handlers.llm.base_url:
        return await _ask(wanted, context)
    return {"answer": f"Simulated response for: {_question(wanted)}"}


def _question(wanted: LlmConfig) -> str:
    if wanted.messages is None:
        return wanted.prompt or ""
    return str(wanted.messages[-1].get("content") or "")


async def _ask(wanted: LlmConfig, context: HandlerContext) -> dict[str, Any]:
    from flowd.workers.http_client import parse_body, parse_url, shown

    provider = context.settings.handlers.llm
    base_url = str(provider.base_url).rstrip("/")
    url = parse_url(f"{base_url}/chat/completions", source="[handlers.llm] base_url")
    request = _request(wanted, wanted.model or provider.model)
    answer = await context.resources.http.send(
        "POST",
        url,
        headers=_headers(provider.api_key, context.idempotency_key),
        content=orjson.dumps(request),
        deadline_s=provider.timeout_s,
    )
    completion = parse_body(answer)
    text = _answer_text(completion)
    if text is None:
        raise HandlerFailed(f"POST {shown(url)}: the answer holds no choices[0].message.content")
    return {
        "answer": text,
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
    }
    return {key: value for key, value in request.items() if value is not None}


def _headers(api_key: str | None, idempotency_key: str) -> dict[str, str]:
    headers = {"content-type": "application/json", "idempotency-key": idempotency_key}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    return headers


def _answer_text(completion: Any) -> str | None:
    try:
        text = completion["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) else None
