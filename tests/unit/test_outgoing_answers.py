"""Answers as services really send them: whole and exact in the output, or a failure."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from flowd.errors import Fail, HandlerFailed
from flowd.outgoing.answer import Answer, parse_body
from flowd.outgoing.decompression import decode, decoders_for
from tests.handler_calls import run_handler
from tests.local_services import Reply, running_service

ROWS = b"".join(b"row %d\n" % number for number in range(20_000))


def deflated(data: bytes, *, is_raw: bool) -> bytes:
    packer = zlib.compressobj(wbits=-15 if is_raw else 15)
    return packer.compress(data) + packer.flush()


def undo(encoding: str, data: bytes, piece_bytes: int) -> bytes:
    decoders = decoders_for(encoding)
    pieces = (data[start : start + piece_bytes] for start in range(0, len(data), piece_bytes))
    whole = b"".join(part for piece in pieces for part in decode(decoders, piece))
    for decoder in decoders:
        decoder.check_end()
    return whole


PACKED = [
    ("gzip", gzip.compress(ROWS)),
    ("GZIP", gzip.compress(ROWS)),
    ("x-gzip", gzip.compress(ROWS)),
    ("gzip", gzip.compress(ROWS[:7]) + gzip.compress(b"") + gzip.compress(ROWS[7:])),
    ("gzip", gzip.compress(ROWS) + bytes(600)),
    ("deflate", deflated(ROWS, is_raw=False)),
    ("deflate", deflated(ROWS, is_raw=True)),
    ("gzip, gzip", gzip.compress(gzip.compress(ROWS))),
    ("deflate, gzip", gzip.compress(deflated(ROWS, is_raw=True))),
    ("identity", ROWS),
    ("utf-8", ROWS),
]


@pytest.mark.parametrize("piece_bytes", [1, 1000, 1 << 20])
@pytest.mark.parametrize(("encoding", "data"), PACKED)
def test_every_encoding_gives_the_whole_answer_however_it_arrives(
    encoding: str, data: bytes, piece_bytes: int
) -> None:
    assert undo(encoding, data, piece_bytes) == ROWS


@pytest.mark.parametrize("piece_bytes", [1, 1000, 1 << 20])
@pytest.mark.parametrize(("encoding", "data"), [one for one in PACKED if len(one[1]) < len(ROWS)])
def test_an_answer_that_was_cut_anywhere_is_no_answer(
    encoding: str, data: bytes, piece_bytes: int
) -> None:
    end = len(data.rstrip(b"\0"))
    # The end of a member is an end: nobody can tell that another one should have come.
    for cut in {1, 2, 9, end // 2, end - 9, end - 8, end - 4, end - 1}:
        with pytest.raises(HandlerFailed, match=r"not complete|cannot be decompressed"):
            undo(encoding, data[:cut], piece_bytes)


@pytest.mark.parametrize(
    ("encoding", "data", "error"),
    [
        ("gzip", gzip.compress(ROWS) + b"more", "more follows the gzip stream"),
        ("deflate", deflated(ROWS, is_raw=False) + b"more", "more follows the deflate stream"),
        ("gzip", gzip.compress(ROWS)[:-8] + bytes(8), "incorrect data check"),
        ("br", b"x", "encoded as 'br', and flowd takes gzip, deflate"),
        ("gzip, zstd", b"x", "encoded as 'zstd'"),
        (", ".join(["gzip"] * 6), b"x", "more than 5 encodings"),
    ],
)
def test_what_cannot_be_undone_is_a_failure(encoding: str, data: bytes, error: str) -> None:
    with pytest.raises(HandlerFailed, match=error):
        undo(encoding, data, 1000)


def answered(body: bytes, content_type: str, **headers: str) -> Any:
    """What a node's output holds of such an answer, or the error it fails with."""
    reply = Reply(200, body, {"Content-Type": content_type, **headers})
    with running_service(lambda _request: reply) as service:
        try:
            return run_handler("call_external_service", {"url": f"{service.url}/x"})["data"]
        except HandlerFailed as error:
            assert str(error).startswith(f"GET {service.url}/x: ")
            return error


GZIP = {"Content-Encoding": "gzip"}


def test_a_node_gets_all_members_of_a_compressed_answer() -> None:
    two = gzip.compress(b"one\n") + gzip.compress(b"two\n")

    assert answered(two, "text/plain", **GZIP) == "one\ntwo\n"


def test_a_node_whose_compressed_answer_was_cut_fails() -> None:
    error = answered(gzip.compress(ROWS)[:-40], "text/plain", **GZIP)

    assert str(error).endswith("the answer is not complete: its gzip stream has no end")


def test_an_answer_compressed_once_more_than_it_says_is_not_taken_for_text() -> None:
    error = answered(gzip.compress(gzip.compress(ROWS)), "text/plain", **GZIP)

    assert "which is neither JSON nor text" in str(error)


def test_a_refusal_keeps_its_status_though_its_body_is_broken() -> None:
    reply = Reply(503, gzip.compress(ROWS)[:-40], GZIP)
    with running_service(lambda _request: reply) as service:
        with pytest.raises(HandlerFailed) as failure:
            run_handler("call_external_service", {"url": service.url})
        assert failure.value.kinds == {"status", "503", "5xx"}
        assert "answered 503: row 0 row 1" in str(failure.value)


def parsed(body: bytes, content_type: str, charset: str = "") -> Any:
    return parse_body(Answer("GET http://h/", 200, content_type, charset, body))


JSON = "application/json"
LATIN = '{"a":"é"}'.encode("latin-1")


@pytest.mark.parametrize(
    ("body", "charset", "value"),
    [
        (b'\xef\xbb\xbf{"a":1}', "", {"a": 1}),
        ('{"a":"é"}'.encode("utf-16"), "", {"a": "é"}),
        ('{"a":"é"}'.encode("utf-16-le"), "utf-16", {"a": "é"}),
        ('{"a":"é"}'.encode("utf-32-be"), "", {"a": "é"}),
        (LATIN, "ISO-8859-15", {"a": "é"}),
        ('{"a":"日"}'.encode("iso-2022-jp"), "iso-2022-jp", {"a": "日"}),
        # JSON is UTF-8, whatever a careless server writes beside it.
        ('{"a":"é"}'.encode(), "ISO-8859-1", {"a": "é"}),
        (b'{"a":"cut \\ud83d"}', "", {"a": "cut \ufffd"}),
        (b'{"\\udc00":"\\ud83d\\ude00 \\\\ud83d"}', "", {"\ufffd": "😀 \\ud83d"}),
    ],
)
def test_json_is_read_in_whatever_encoding_it_comes(body: bytes, charset: str, value: Any) -> None:
    assert parsed(body, JSON, charset) == value


@pytest.mark.parametrize("charset", ["", "no-such", "utf-8", "hex"])
def test_json_that_no_named_charset_decodes_is_a_failure(charset: str) -> None:
    with pytest.raises(HandlerFailed, match="that is not JSON"):
        parsed(LATIN, JSON, charset)


PAGE = '<html><head><meta charset="{0}"></head>é</html>'
XML = '<?xml version="1.0" encoding="{0}"?><a>é</a>'


@pytest.mark.parametrize(
    ("body", "content_type", "charset", "text"),
    [
        (
            XML.format("ISO-8859-1").encode("latin-1"),
            "application/xml",
            "",
            XML.format("ISO-8859-1"),
        ),
        (XML.format("ISO-8859-1").encode("latin-1"), "text/xml", "", XML.format("ISO-8859-1")),
        (XML.format("utf-8").encode("latin-1"), "image/svg+xml", "latin-1", XML.format("utf-8")),
        (PAGE.format("cp1252").encode("cp1252"), "text/html", "", PAGE.format("cp1252")),
        (b"\xef\xbb\xbfa,\xc3\xa9", "text/csv", "latin-1", "a,é"),
        ("a,é".encode("utf-16"), "text/csv", "", "a,é"),
        (b"a\xe4", "text/plain", "punycode", "a\ufffd"),
    ],
)
def test_text_is_read_in_the_encoding_it_names(
    body: bytes, content_type: str, charset: str, text: str
) -> None:
    assert parsed(body, content_type, charset) == text


@pytest.mark.parametrize("charset", ["punycode", "idna", "unicode_escape", "raw_unicode_escape"])
def test_codecs_that_are_no_charsets_are_not_used(charset: str) -> None:
    # Two of them take a square of the time: an answer of megabytes would stop the worker.
    assert parsed(b"a-\\u0041-", "text/plain", charset) == "a-\\u0041-"


@pytest.mark.parametrize(
    "number",
    [
        "123456789012345678901234567890",
        "18446744073709551616",
        "-9223372036854775809",
        "12345678901234.567",
        "1.23456789012345678901",
        "1e400",
        "1e-400",
    ],
)
@pytest.mark.parametrize("content_type", [JSON, "application/hal+json", ""])
def test_a_number_that_would_be_changed_fails_the_node(number: str, content_type: str) -> None:
    body = b'{"id": %s, "name": "x"}' % number.encode()
    if number == "1e400" and not content_type:
        # No parser takes this for JSON, and as a text it is exact.
        assert parsed(body, content_type) == body.decode()
        return
    with pytest.raises(HandlerFailed):
        parsed(body, content_type)


def test_the_number_is_named_and_not_asked_for_again() -> None:
    with pytest.raises(Fail) as failure:
        parsed(b'{"id": 123456789012345678901234567890}', JSON)

    assert str(failure.value) == (
        "GET http://h/: answered 200 with what flowd cannot keep as it is: "
        "the integer 123456789012345678901234567890 does not fit into 64 bits"
    )


def numbers() -> Iterator[str]:
    yield from ("18446744073709551615", "-9223372036854775808", "0.30000000000000004", "1E5")
    # Doubles, printed with more digits than they need.
    yield from ("0.1000000000000000055511151231257827", "0.10000000000000000000", "1e22", "5e-324")
    yield from (repr(1 / number) for number in range(3, 300, 7))


@pytest.mark.parametrize("number", list(numbers()))
def test_a_number_that_is_kept_passes(number: str) -> None:
    assert parsed(b"[%s]" % number.encode(), JSON) == [json.loads(number)]


def test_digits_in_texts_are_no_numbers() -> None:
    text = '{"card": "12345678901234567890123", "id": "1e-400", "k\\u0031": "123456789012345678"}'

    assert parsed(text.encode(), JSON) == json.loads(text)
