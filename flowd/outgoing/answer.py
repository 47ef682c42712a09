"""Decode what a service answered, as JSON or text: exactly, or raise HandlerFailed."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from flowd.errors import Fail, HandlerFailed
from flowd.redaction import REDACTOR
from flowd.workflow import exact_json
from flowd.workflow.exact_json import InexactNumber

# Of a refusal an error text shows less, but a secret in it may be long.
EXCERPT_MAX_BYTES: Final = 64 * 1024
_EXCERPT_MAX_CHARS: Final = 200

# Where XML and HTML say how they are written: near their beginning.
_HEAD_BYTES: Final = 1024
_XML_ENCODING: Final = re.compile(rb"""^\s*<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z0-9._-]+)""")
_HTML_CHARSET: Final = re.compile(rb"""<meta[^>]*?charset\s*=\s*["']?\s*([A-Za-z0-9._-]+)""", re.I)
_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Python's own inventions, which no service means; two of them take a square of the time.
_NO_CHARSETS: Final = frozenset(
    {"punycode", "idna", "unicode-escape", "raw-unicode-escape", "undefined"}
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An expected answer, decompressed. `place` is the call it belongs to, for error texts;
    `content_type` is lower case and without parameters, `charset` empty where it has none.
    """

    place: str
    status_code: int
    content_type: str
    charset: str
    body: bytes

    @property
    def is_json(self) -> bool:
        return self.content_type == "application/json" or self.content_type.endswith("+json")

    @property
    def is_text(self) -> bool:
        return self.content_type.startswith("text/")

    @property
    def is_xml(self) -> bool:
        return self.content_type.endswith(("/xml", "+xml"))


def parse_body(answer: Answer) -> Any:
    """Parsed JSON when the answer says it is JSON, else text. Raises HandlerFailed for neither."""
    if not answer.body:
        return ""
    if answer.is_json:
        return parse_json(answer)
    if not answer.content_type:
        try:
            return _load(answer)
        except InexactNumber as error:
            raise _inexact(answer, error) from None
        except ValueError:
            return _parse_text(answer)
    return _parse_text(answer)


def parse_json(answer: Answer) -> Any:
    """Whatever type the answer says it has. Raises HandlerFailed; Fail where a number is lost."""
    try:
        return _load(answer)
    except InexactNumber as error:
        raise _inexact(answer, error) from None
    except ValueError as error:
        kind = answer.content_type or "an unnamed type"
        raise HandlerFailed(
            f"{answer.place}: answered {answer.status_code} with {kind} that is not JSON "
            f"({error}): {excerpt(answer.body)}"
        ) from None


def excerpt(body: bytes) -> str:
    """The first bytes of an answer on one line, for an error text."""
    text = " ".join(body[:EXCERPT_MAX_BYTES].decode("utf-8", "replace").split())
    # Before it is cut: half a secret would not be found any more.
    return REDACTOR.text(text)[:_EXCERPT_MAX_CHARS] or "(empty)"


def _inexact(answer: Answer, error: InexactNumber) -> Fail:
    text = f"answered {answer.status_code} with what flowd cannot keep as it is: {error}"
    return Fail(f"{answer.place}: {text}")


def _load(answer: Answer) -> Any:
    """RFC 8259 wants UTF-8, so that is tried first, whatever its charset is. Raises ValueError."""
    body, encoding = answer.body, json.detect_encoding(answer.body)
    try:
        if encoding == "utf-8":
            return exact_json.loads(body)
        return exact_json.loads(body.decode(encoding).encode())
    except InexactNumber:
        raise
    except ValueError:
        if not _is_charset(answer.charset):
            raise
        try:
            return exact_json.loads(body.decode(answer.charset).encode())
        except UnicodeError:
            pass
        raise


def _parse_text(answer: Answer) -> str:
    # Old pages often lie about their charset, so text is taken as well as can be. Anything else
    # that does not decode is not text at all, and a mangled copy of it would help nobody.
    mark, written = next(_encodings_of(answer), (b"", "utf-8"))
    body = answer.body.removeprefix(mark)
    try:
        return body.decode(written)
    except UnicodeError:
        # No text holds a zero byte; what was compressed twice does.
        if answer.is_text and b"\0" not in body:
            return body.decode(written, "replace")
    kind = answer.content_type or "an unnamed type"
    raise HandlerFailed(
        f"{answer.place}: answered {answer.status_code} with {len(answer.body)} bytes of {kind}, "
        "which is neither JSON nor text"
    )


def _encodings_of(answer: Answer) -> Iterator[tuple[bytes, str]]:
    """What the answer says of its encoding, the surest first: each with the mark it begins with."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if answer.body.startswith(mark):
            yield mark, encoding
    declared = [answer.charset]
    head = answer.body[:_HEAD_BYTES]
    if answer.is_xml or answer.is_text:
        declared += [name.decode() for name in _XML_ENCODING.findall(head)]
    if answer.content_type == "text/html":
        declared += [name.decode() for name in _HTML_CHARSET.findall(head)]
    yield from ((b"", name) for name in declared if _is_charset(name))


def _is_charset(name: str) -> bool:
    """False for what is unknown, and for codecs that are none, such as hex."""
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        return False
    is_text = getattr(codec, "_is_text_encoding", True)
    return is_text and codec.name.replace("_", "-") not in _NO_CHARSETS
