"""llm against a real OpenAI-compatible server, and simulated without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from flowd.config import Settings
from flowd.errors import HandlerFailed, Retry
from tests.handler_calls import run_handler
from tests.local_services import Reply, Request, Service, completion, json_reply, running_service


def settings_for(base_url: str | None, **provider: Any) -> Settings:
    settings = Settings()
    section = replace(settings.handlers.llm, base_url=base_url, **provider)
    return replace(settings, handlers=replace(settings.handlers, llm=section))


def ask(config: dict[str, Any], settings: Settings) -> dict[str, Any]:
    return run_handler("llm", config, settings=settings)


def failure_of(config: dict[str, Any], settings: Settings) -> str:
    with pytest.raises(HandlerFailed) as failure:
        ask(config, settings)
    return str(failure.value)


def answering(reply: Reply) -> Callable[[Request], Reply]:
    return lambda _request: reply


@pytest.fixture
def server() -> Iterator[Service]:
    with running_service(answering(completion("Four.", model="tiny-1"))) as running:
        yield running


def test_answer_model_and_usage_are_returned(server: Service) -> None:
    output = ask({"prompt": "2 + 2?"}, settings_for(f"{server.url}/v1"))

    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert output == {"answer": "Four.", "model": "tiny-1", "usage": usage}


def test_a_prompt_is_one_user_message_and_nothing_unasked_is_sent(server: Service) -> None:
    ask({"prompt": "2 + 2?"}, settings_for(f"{server.url}/v1"))

    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    assert request.json == {"messages": [{"role": "user", "content": "2 + 2?"}]}
    assert request.headers["idempotency-key"] == "e1:A"
    assert "authorization" not in request.headers


def test_everything_asked_for_is_sent(server: Service) -> None:
    settings = settings_for(f"{server.url}/v1/", api_key="key", model="of-settings")
    config = {"prompt": "hi", "system": "be brief", "model": "m", "temperature": 0, "max_tokens": 5}

    ask(config, settings)

    (request,) = server.requests
    assert request.target == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer key"
    assert request.json == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi"},
        ],
        "temperature": 0,
        "max_tokens": 5,
    }


def test_the_model_of_the_settings_is_used_when_the_node_names_none() -> None:
    with running_service(answering(completion("x"))) as server:
        output = ask({"prompt": "hi"}, settings_for(server.url, model="of-settings"))

        assert server.requests[0].json["model"] == "of-settings"
        assert output["model"] == "of-settings"


def test_messages_are_sent_as_they_are(server: Service) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]

    ask({"messages": messages}, settings_for(server.url))

    assert server.requests[0].json == {"messages": messages}


def test_a_prompt_that_is_a_whole_value_is_sent_as_compact_json(server: Service) -> None:
    ask({"prompt": {"a": [1, "ä"]}}, settings_for(server.url))

    assert server.requests[0].json["messages"][0]["content"] == '{"a":[1,"ä"]}'


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "note": {"default": None}},
    "required": ["n"],
}


def with_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}}


WITH_SCHEMA = with_schema(SCHEMA)


@pytest.mark.parametrize(
    ("response_format", "text", "answer"),
    [
        ({"type": "text"}, '{"n": 4}', '{"n": 4}'),
        ({"type": "json_object"}, ' {"n": 4} ', {"n": 4}),
        ({"type": "json_object"}, '```json\n{"n": 4}\n```\n', {"n": 4}),
        (WITH_SCHEMA, '{"n": 4}', {"n": 4}),
    ],
)
def test_a_response_format_is_sent_and_the_answer_parsed(
    response_format: dict[str, Any], text: str, answer: Any
) -> None:
    with running_service(answering(completion(text))) as server:
        config = {"prompt": "2 + 2?", "response_format": response_format}
        output = ask(config, settings_for(server.url))

        assert output["answer"] == answer
        assert server.requests[0].json["response_format"] == response_format


@pytest.mark.parametrize(
    ("response_format", "text", "error"),
    [
        ({"type": "json_object"}, "Four.", "the model's answer is not JSON"),
        ({"type": "json_object"}, "[4]", "the model's answer is not a JSON object: [4]"),
        (WITH_SCHEMA, '{"n": "x"}', "does not fit the schema: answer.n: 'x' is not of type"),
        (WITH_SCHEMA, "{}", "does not fit the schema: answer: 'n' is a required property"),
        (with_schema({"$ref": "#"}), "{}", "the schema cannot be applied: RecursionError"),
    ],
)
def test_an_answer_of_another_format_fails_the_node(
    response_format: dict[str, Any], text: str, error: str
) -> None:
    with running_service(answering(completion(text))) as server:
        config = {"prompt": "2 + 2?", "response_format": response_format}
        assert error in failure_of(config, settings_for(server.url))


def test_a_schema_is_never_fetched_from_anywhere() -> None:
    with running_service(answering(completion("{}"))) as server:
        schema = {"$ref": f"{server.url}/schema.json"}
        wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
        config = {"prompt": "x", "response_format": wanted}

        text = failure_of(config, settings_for(server.url))

        assert "the schema refers to what is not in it" in text
        assert [request.method for request in server.requests] == ["POST"]


def test_an_overloaded_model_is_retried_when_its_server_says() -> None:
    with running_service(answering(Reply(429, b"slow down", {"Retry-After": "3"}))) as server:
        with pytest.raises(Retry, match="answered 429: slow down") as failure:
            ask({"prompt": "hi"}, settings_for(server.url))

        assert failure.value.after_s == 3.0


def test_the_server_of_the_settings_may_be_anywhere_but_only_it(server: Service) -> None:
    settings = settings_for(server.url)
    assert ask({"prompt": "hi"}, settings)["answer"] == "Four."

    with pytest.raises(HandlerFailed, match="the call is not allowed"):
        run_handler("call_external_service", {"url": server.url}, settings=settings)


@pytest.mark.parametrize(
    ("config", "answer"),
    [
        ({"prompt": "Summarize x"}, "Simulated response for: Summarize x"),
        ({"prompt": "x", "model": "m", "system": "s"}, "Simulated response for: x"),
        ({"prompt": {"a": 1}}, 'Simulated response for: {"a":1}'),
        ({"messages": [{"role": "user", "content": "hi"}]}, "Simulated response for: hi"),
    ],
)
def test_without_a_base_url_the_answer_is_simulated(config: dict[str, Any], answer: str) -> None:
    assert ask(config, settings_for(None)) == {"answer": answer}


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (json_reply({"error": {"message": "no such model"}}, 404), 'answered 404: {"error"'),
        (json_reply({}), "the answer holds no choices[0].message.content"),
        (completion(None), "the answer holds no choices[0].message.content"),
        (json_reply([]), "the answer holds no choices[0].message.content"),
        (Reply(body=b"hello"), "the answer holds no choices[0].message.content"),
        (
            Reply(body=b"<html>", headers={"Content-Type": "application/json"}),
            "answered 200 with application/json that is not JSON",
        ),
    ],
)
def test_a_useless_answer_fails_the_node(reply: Reply, text: str) -> None:
    with running_service(answering(reply)) as server:
        assert text in failure_of({"prompt": "hi"}, settings_for(server.url))


@pytest.mark.parametrize("api_key", ["secret\u20ac", "secret\r\n"])
def test_a_key_that_cannot_be_sent_is_not_shown(server: Service, api_key: str) -> None:
    text = failure_of({"prompt": "hi"}, settings_for(server.url, api_key=api_key))

    assert "a header holds a character HTTP does not allow" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "config: give either prompt, a text, or messages, a list"),
        ({"prompt": None}, "config: give either prompt, a text, or messages, a list"),
        ({"prompt": "x", "messages": [{"role": "user"}]}, "config: give either prompt"),
        ({"messages": []}, "config.messages: list should have at least 1 item"),
        ({"prompt": "x", "max_tokens": 0}, "config.max_tokens: input should be greater than"),
        ({"prompt": "x", "temperature": -1}, "config.temperature: input should be greater than"),
        (
            {"prompt": "x", "response_format": {"type": "json_schema"}},
            "config.response_format: json_schema belongs to the type 'json_schema'",
        ),
        (
            {
                "prompt": "x",
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"type": "strin"}},
                },
            },
            "config.response_format.json_schema.schema: this is no JSON Schema: schema.type",
        ),
        ({"promt": "x"}, "config.promt is not known to this handler; did you mean 'prompt'?"),
    ],
)
def test_a_wrong_config_fails_the_node_and_says_what_is_right(
    config: dict[str, Any], text: str
) -> None:
    assert text in failure_of(config, settings_for(None))


def test_a_bad_base_url_is_named_by_its_setting() -> None:
    text = failure_of({"prompt": "x"}, settings_for("http://h:port"))

    assert text.startswith("[handlers.llm] base_url is not a url: invalid port: 'port'")
