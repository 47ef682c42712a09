"""What a chat completion says: an answer that is whole, or the reason why there is none.

Servers differ: OpenRouter answers 200 with an error in the body or in the choice, Mistral gives
content in parts, vLLM and llama.cpp leave a model's thinking in the text, old servers leave out
what they have no value for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import orjson

from flowd.errors import Fail, HandlerFailed, Retry
from flowd.redaction import REDACTOR
from flowd.workflow import exact_json
from flowd.workflow.exact_json import InexactNumber
from flowd.workflow.retrying import TRANSIENT_STATUSES

# A model that has said all it had to say. A reason nobody knows may be a beginning only.
_WHOLE: Final = frozenset(
    {"", "stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed"}
)
_TOO_LONG: Final = frozenset({"length", "max_tokens", "model_length", "max_output_tokens"})
_THINKING_ENDS: Final = "</think>"
_BEGINNING: Final = re.compile(r"[{\[]")
_FENCED: Final = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
# Places in a text where JSON may begin that are tried: each may cost all of the text.
_BEGINNINGS_MAX: Final = 32
_SHOWN_CHARS_MAX: Final = 200


class Completion(NamedTuple):
    text: str
    finish_reason: str | None


def check_error(completion: Any, place: str) -> None:
    """Raise what a body says that came with a status of success: its error, whatever stands beside
    it, and where it holds no choice what else it says."""
    if not isinstance(completion, dict):
        return
    said = f"{place}: answered 200 with an error"
    if completion.get("error"):
        raise _error(completion["error"], said)
    if not completion.get("choices") and (completion.get("message") or completion.get("detail")):
        raise _error(completion, said)


def read_completion(completion: Any, place: str) -> Completion:
    """The text of the first choice. Raises HandlerFailed for one that is not whole."""
    choice = _first_choice(completion)
    if choice is None:
        shown = _shown(orjson.dumps(completion).decode())
        raise HandlerFailed(f"{place}: the answer holds no choices[0].message: {shown}")
    if choice.get("error"):
        raise _error(choice["error"], f"{place}: the model failed")
    message, reason = choice["message"], choice.get("finish_reason")
    text = _text_of(message.get("content"))
    _check_reason(reason, text or "", completion, place)
    refusal = message.get("refusal") or _refusal_of(message.get("content"))
    if refusal:
        raise HandlerFailed(f"{place}: the model refused: {_shown(str(refusal))}")
    if text is None:
        called = " and calls a tool" if message.get("tool_calls") else ""
        said = f" (finish_reason {reason!r})" if reason else ""
        raise HandlerFailed(f"{place}: the answer holds no text{called}{said}")
    return Completion(text, reason if isinstance(reason, str) else None)


def _first_choice(completion: Any) -> dict[str, Any] | None:
    """None unless it holds a message, or says why it does not."""
    try:
        choice = completion["choices"][0]
        return choice if choice.get("error") or isinstance(choice["message"], dict) else None
    except (KeyError, IndexError, TypeError, AttributeError):
        return None


def _check_reason(reason: Any, text: str, completion: dict[str, Any], place: str) -> None:
    written = str(reason or "").lower()
    if written in _WHOLE:
        return
    said = f"{place}: the model stopped before the end of its answer (finish_reason {reason!r})"
    if written in _TOO_LONG:
        # It would stop there again, and be paid again.
        usage = completion.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        at = f" after {tokens} tokens" if tokens else ""
        raise Fail(f"{said}{at}; allow it more with max_tokens: {_shown(text)}")
    raise HandlerFailed(f"{said}: {_shown(text)}" if text else said)


def _error(written: Any, said: str) -> HandlerFailed:
    """An error as servers write it: a text, or an object with a message and often a code."""
    known = written if isinstance(written, dict) else {}
    message = known.get("message") or known.get("detail") or written
    text = message if isinstance(message, str) else orjson.dumps(message).decode()
    status = str(known.get("code") or known.get("status") or "")
    if not re.fullmatch("[45][0-9][0-9]", status):
        return HandlerFailed(f"{said}: {_shown(text)}")
    kinds = frozenset({"status", status, f"{status[0]}xx"})
    kind = Retry if kinds & TRANSIENT_STATUSES else HandlerFailed
    return kind(f"{said} {status}: {_shown(text)}", kinds=kinds)


def _text_of(content: Any) -> str | None:
    """A text, or what is text of a list of parts; None where there is none at all."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = [one if isinstance(one, str) else _part_text(one) for one in content]
    parts = [one for one in texts if one is not None]
    return "".join(parts) if parts else None


def _part_text(part: Any) -> str | None:
    if not isinstance(part, dict) or part.get("type", "text") not in ("text", "output_text"):
        return None
    return part["text"] if isinstance(part.get("text"), str) else None


def _refusal_of(content: Any) -> str | None:
    parts = content if isinstance(content, list) else []
    refusals = [one.get("refusal") for one in parts if isinstance(one, dict)]
    return next((one for one in refusals if one), None)


def json_of(text: str) -> Any:
    """The JSON that was asked for: all of a text, or the one document somewhere in it.

    Models think aloud before it, put it into a code block, or say a word before and after.
    Raises HandlerFailed where there is none, or where it is not clear which one is meant.
    """
    try:
        return exact_json.loads(text.encode())
    except InexactNumber as error:
        raise HandlerFailed(f"the model's answer cannot be kept as it is: {error}") from None
    except ValueError as error:
        reason = str(error)
    # A template may have taken the tag that opens it.
    rest = text.rpartition(_THINKING_ENDS)[2]
    for candidates in ([rest], _FENCED.findall(rest), _documents(rest)):
        documents = list(_parsed(candidates))
        if documents:
            return _only_one(documents, text)
    raise HandlerFailed(f"the model's answer is not JSON ({reason}): {_shown(text)}")


def _parsed(candidates: Iterable[str]) -> Iterator[Any]:
    for candidate in candidates:
        try:
            yield exact_json.loads(candidate.strip().encode())
        except InexactNumber as error:
            message = f"the model's answer cannot be kept as it is: {error}"
            raise HandlerFailed(message) from None
        except ValueError:
            continue


def _only_one(documents: list[Any], text: str) -> Any:
    # A list is often a footnote.
    documents = [one for one in documents if isinstance(one, dict)] or documents
    if any(one != documents[0] for one in documents):
        message = f"the model's answer holds {len(documents)} JSON documents"
        raise HandlerFailed(f"{message}: {_shown(text)}")
    return documents[0]


def _documents(text: str) -> Iterator[str]:
    """Every object or list that stands in a text, and is in no other."""
    decoder, position = json.JSONDecoder(), 0
    for _ in range(_BEGINNINGS_MAX):
        begins = _BEGINNING.search(text, position)
        if begins is None:
            return
        position = begins.start()
        try:
            _, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            position += 1
            continue
        yield text[position:end]
        position = end


def _shown(text: str) -> str:
    # Redacted before it is cut: half a secret would not be found any more.
    return REDACTOR.text(" ".join(text.split()))[:_SHOWN_CHARS_MAX] or "(empty)"
