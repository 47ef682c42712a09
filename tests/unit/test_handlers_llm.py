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


def test_answer_model_usage_and_reason_of_the_end_are_returned(server: Service) -> None:
    output = ask({"prompt": "2 + 2?"}, settings_for(f"{server.url}/v1"))

    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert output == {
        "answer": "Four.",
        "model": "tiny-1",
        "usage": usage,
        "finish_reason": "stop",
    }


def test_a_prompt_is_one_user_message_and_nothing_unasked_is_sent(server: Service) -> None:
    ask({"prompt": "2 + 2?"}, settings_for(f"{server.url}/v1"))

    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    assert request.json == {"messages": [{"role": "user", "content": "2 + 2?"}]}
    assert request.headers["idempotency-key"] == "e1:A"
    assert "authorization" not in request.headers


def test_everything_asked_for_is_sent(server: Service) -> None:
    settings = settings_for(f"{server.url}/v1/", api_key="key", model="of-settings")
    passed = {
        "model": "m",
        "temperature": 0,
        "max_tokens": 5,
        "top_p": 0.5,
        "reasoning_effort": "low",
        "seed": 7,
        "stop": ["END"],
    }
    extra = {"top_k": 3, "chat_template_kwargs": {"enable_thinking": False}}

    ask({"prompt": "hi", "system": "be brief", **passed, "extra": extra}, settings)

    (request,) = server.requests
    assert request.target == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer key"
    assert request.json == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi"},
        ],
        **passed,
        **extra,
    }


@pytest.mark.parametrize(
    ("base", "target"),
    [
        ("/v1/", "/v1/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/d/gpt?api-version=2024-10-21", "/d/gpt/chat/completions?api-version=2024-10-21"),
        ("?key=1#part", "/chat/completions?key=1"),
    ],
)
def test_the_path_is_added_before_the_query_of_the_base_url(
    server: Service, base: str, target: str
) -> None:
    ask({"prompt": "hi"}, settings_for(server.url + base))

    assert server.requests[0].target == target


def test_a_key_stands_over_a_user_name_in_the_base_url(server: Service) -> None:
    ask({"prompt": "hi"}, settings_for(server.url.replace("//", "//u:p@"), api_key="key"))

    assert server.requests[0].headers["authorization"] == "Bearer key"


def newer_model(request: Request) -> Reply:
    """As the models of OpenAI since o1."""
    if "max_tokens" not in request.json:
        return completion("Four.")
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead."
    )
    return json_reply({"error": {"message": message, "param": "max_tokens"}}, 400)


def test_a_model_that_wants_the_newer_word_for_the_limit_gets_it_from_then_on() -> None:
    with running_service(newer_model) as server:
        settings = settings_for(server.url, model="gpt-5-mini")
        for _ in range(2):
            assert ask({"prompt": "2 + 2?", "max_tokens": 50}, settings)["answer"] == "Four."

        first, *others = [request.json for request in server.requests]
        keys = [request.headers["idempotency-key"] for request in server.requests]
    assert first["max_tokens"] == 50
    # Of three requests: the second of the first call, and the only one of the second.
    assert len(others) == 2
    assert all(one["max_completion_tokens"] == 50 for one in others)
    assert all("max_tokens" not in one for one in others)
    assert keys[0] != keys[1]


def test_a_refusal_for_another_reason_is_not_sent_again() -> None:
    reply = json_reply({"error": {"message": "max_completion_tokens is too large"}}, 400)
    with running_service(answering(reply)) as server:
        failure_of({"prompt": "x", "max_completion_tokens": 10**9}, settings_for(server.url))

        assert len(server.requests) == 1


def test_an_answer_sent_as_text_is_read_all_the_same() -> None:
    body = completion("Hi").body
    with running_service(
        answering(Reply(200, body, {"Content-Type": "text/plain; charset=utf-8"}))
    ) as server:
        assert ask({"prompt": "hi"}, settings_for(server.url))["answer"] == "Hi"


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
        (json_reply({}), "the answer holds no choices[0].message: {}"),
        (completion(None), "the answer holds no text (finish_reason 'stop')"),
        (json_reply([]), "the answer holds no choices[0].message: []"),
        (Reply(body=b"hello"), "answered 200 with an unnamed type that is not JSON"),
        (json_reply({"error": {"message": "slow down", "code": 429}}), "error 429: slow down"),
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
            "config.response_format.json_schema.schema: this is not a valid JSON Schema: ",
        ),
        ({"prompt": "x", "top_p": 1.5}, "config.top_p: input should be less than"),
        (
            {"prompt": "x", "max_tokens": 1, "max_completion_tokens": 1},
            "max_tokens and max_completion_tokens exclude each other",
        ),
        (
            {"prompt": "x", "extra": {"max_tokens": 5}},
            "config.extra: 'max_tokens' cannot be in extra; make it a key of config",
        ),
        ({"prompt": "x", "extra": {"stream": True}}, "config.extra: 'stream' cannot be passed"),
        ({"prompt": "x", "extra": {"n": 100}}, "config.extra: 'n' cannot be passed"),
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
