"""Chat completions as servers really write them, and what they may have cost at most."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from flowd.errors import Fail, HandlerFailed, Retry
from flowd.handlers.completions import check_error, json_of, read_completion
from flowd.handlers.token_budget import Cost, bound_tokens
from flowd.store.budgets import TokenUsage

PLACE = "POST http://h/chat/completions"


def completion(content: Any, finish_reason: Any = "stop", **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": content, **message}
    return {"choices": [{"message": said, "finish_reason": finish_reason}]}


def refused(written: Any) -> HandlerFailed:
    with pytest.raises(HandlerFailed) as failure:
        check_error(written, PLACE)
        read_completion(written, PLACE)
    assert str(failure.value).startswith(f"{PLACE}: ")
    return failure.value


@pytest.mark.parametrize("reason", ["stop", "STOP", "eos_token", "stop_sequence", "", None])
def test_an_answer_that_is_whole_is_an_answer(reason: str | None) -> None:
    assert read_completion(completion("Hi", reason), PLACE) == ("Hi", reason)


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
def test_an_answer_that_met_its_limit_is_none_and_is_not_paid_again(reason: str) -> None:
    written = completion("The first half of", reason) | {"usage": {"completion_tokens": 300}}
    error = refused(written)

    assert isinstance(error, Fail)
    assert f"(finish_reason '{reason}') after 300 tokens; allow it more" in str(error)
    assert str(error).endswith("The first half of")


@pytest.mark.parametrize("reason", ["content_filter", "error", "abort", "safety", "repetition", 7])
def test_an_answer_that_ended_otherwise_is_none(reason: Any) -> None:
    assert f"(finish_reason {reason!r}): Half" in str(refused(completion("Half", reason)))
    assert f"(finish_reason {reason!r})" in str(refused(completion("", reason)))


@pytest.mark.parametrize(
    "written",
    [
        completion(None, refusal="I cannot help with that."),
        completion("", refusal="I cannot help with that."),
        completion([{"type": "refusal", "refusal": "I cannot help with that."}]),
    ],
)
def test_a_refusal_is_no_answer(written: Any) -> None:
    assert str(refused(written)).endswith("the model refused: I cannot help with that.")


@pytest.mark.parametrize(
    ("written", "text", "kinds"),
    [
        (
            {"error": {"message": "upstream rate limit", "code": 429}},
            "answered 200 with an error 429: upstream rate limit",
            {"status", "429", "4xx"},
        ),
        (
            {"error": {"message": "no provider", "code": "503"}},
            "answered 200 with an error 503: no provider",
            {"status", "503", "5xx"},
        ),
        (
            {"object": "error", "message": "no such model", "code": 404},
            "answered 200 with an error 404: no such model",
            {"status", "404", "4xx"},
        ),
        ({"error": "model not found"}, "with an error: model not found", {"error"}),
        ({"detail": [{"msg": "bad"}]}, 'with an error: [{"msg":"bad"}]', {"error"}),
        ({"error": {"code": "odd"}}, 'with an error: {"code":"odd"}', {"error"}),
        (
            {
                "choices": [
                    {
                        "message": {"content": ""},
                        "finish_reason": "error",
                        "error": {"code": 502, "message": "upstream idle time-out"},
                    }
                ]
            },
            "the model failed 502: upstream idle time-out",
            {"status", "502", "5xx"},
        ),
        ({"choices": [{"error": {"message": "gone"}}]}, "the model failed: gone", {"error"}),
        # What it had said until then stands beside it.
        (
            {
                "choices": [{"message": {"content": "The first"}, "finish_reason": None}],
                "error": {"code": 503, "message": "upstream gone"},
            },
            "answered 200 with an error 503: upstream gone",
            {"status", "503", "5xx"},
        ),
    ],
)
def test_an_error_under_200_keeps_the_words_of_the_server(
    written: Any, text: str, kinds: set[str]
) -> None:
    error = refused(written)

    assert str(error).endswith(text)
    assert error.kinds == kinds
    assert isinstance(error, Retry) == bool(kinds & {"429", "5xx"})


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ({"choices": []}, 'holds no choices[0].message: {"choices":[]}'),
        ({"choices": None}, "holds no choices[0].message"),
        ([], "holds no choices[0].message: []"),
        ("hello", 'holds no choices[0].message: "hello"'),
        (completion(None), "the answer holds no text (finish_reason 'stop')"),
        (completion([{"type": "thinking", "thinking": "hm"}]), "the answer holds no text"),
        (completion(None, None, tool_calls=[{}]), "the answer holds no text and calls a tool"),
    ],
)
def test_a_body_without_an_answer_is_quoted(written: Any, text: str) -> None:
    assert text in str(refused(written))


def test_content_in_parts_is_the_text_in_them() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "Hi "},
        {"type": "reference", "reference_ids": [1]},
        {"type": "output_text", "text": "there"},
    ]

    assert read_completion(completion(parts), PLACE).text == "Hi there"


TITLE = '{"title": "x", "code": "```"}'


@pytest.mark.parametrize(
    "text",
    [
        TITLE,
        f"\n {TITLE}\n",
        f"<think>\nhm, {{}} or [1]?\n</think>\n{TITLE}",
        f"hm\n</think>{TITLE}",
        f"```\n{TITLE}\n```",
        f"```JSON\n{TITLE}\n```",
        f"Here it is:\n  ```json title=x\n{TITLE}\n  ```\nBye {{you}}",
        f"Here it is: {TITLE} Bye.",
        f"As in [1] and {{so on}}: {TITLE}",
        f"{TITLE}\nAgain:\n{TITLE}",
        f"<think>\nnever ended {TITLE}",
    ],
)
def test_json_is_found_in_what_a_model_puts_around_it(text: str) -> None:
    assert json_of(text) == {"title": "x", "code": "```"}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Four.", "is not JSON (unexpected character"),
        ('{"title": "x"', "is not JSON"),
        ('Either {"a": 1} or {"a": 2}', "holds 2 JSON documents"),
        ('```\n{"a": 1}\n```\n```\n{"a": 2}\n```', "holds 2 JSON documents"),
        ('{"id": 12345678901234567890123}', "the integer 12345678901234567890123 does not fit"),
        ('It is {"id": 12345678901234567890123}', "the integer 12345678901234567890123"),
        ('{"mean": NaN}', "is not JSON"),
        ("{" * 100_000, "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_json_that_is_none_or_not_one_is_a_failure(text: str, error: str) -> None:
    with pytest.raises(HandlerFailed) as failure:
        json_of(text)

    assert error in str(failure.value)


@pytest.mark.parametrize(
    ("written", "usage"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}, (1, 9, 3, 12)),
        ({"prompt_tokens": 9, "completion_tokens": 3}, (1, 9, 3, 12)),
        ({"input_tokens": 9, "output_tokens": 3}, (1, 9, 3, 12)),
        ({"total_tokens": 12}, (1, 0, 0, 12)),
        # Thinking may be in the sum alone, and a sum may be wrong.
        ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 90}, (1, 9, 3, 90)),
        ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 1}, (1, 9, 3, 12)),
        ({"prompt_tokens": 9}, None),
        ({"prompt_tokens": "9", "completion_tokens": 3.0}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
        ({"total_tokens": -5}, None),
        ({"total_tokens": True}, None),
        ({"inputTokens": 9}, None),
        ({}, None),
        (None, None),
        ([1], None),
    ],
)
def test_what_a_call_has_cost_is_known_or_not_but_never_nothing(written: Any, usage: Any) -> None:
    cost = Cost()
    cost.note(written)

    assert cost.usage == (None if usage is None else TokenUsage(*usage))


def bound(content: Any, **more: Any) -> int:
    request = {"model": "m", "messages": [{"role": "user", "content": content}], "max_tokens": 100}
    return bound_tokens(request | more, 10_000)


def test_a_prompt_is_bounded_by_the_bytes_of_its_content_alone() -> None:
    empty = bound("")
    assert bound("abc\n\"'ä") - empty == len("abc\n\"'ä".encode())
    assert bound("the cat sat") - empty == len("thecatsat")
    assert bound([{"type": "text", "text": "the cat"}]) - empty == len("thecat")
    # What has a structure is read by the model as well.
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert bound("", tools=tools) - empty == len(orjson.dumps(tools))
    image = {"type": "image_url", "image_url": {"url": "data:" + "x" * 1000}}
    assert bound([image]) - empty == len(orjson.dumps(image))


def test_the_limit_of_the_answer_counts_under_either_name() -> None:
    newer = {"messages": [{"role": "user", "content": ""}], "max_completion_tokens": 100}

    assert bound_tokens(newer, 10_000) == bound("")
    assert "max_tokens" not in newer
