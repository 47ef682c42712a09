"""A secret is found in whatever form it travels."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus, urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowd.redaction import MASK, Redactor

SECRETS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=6, max_size=40)
AROUND = st.text("ab", max_size=5)


@given(SECRETS, AROUND, AROUND)
def test_no_encoding_of_a_secret_gets_through(secret: str, before: str, behind: str) -> None:
    redactor = Redactor()
    redactor.learn(secret)
    for encoded in (
        secret,
        json.dumps(secret)[1:-1],
        orjson.dumps(secret).decode()[1:-1],
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        quote_plus(secret).lower() if secret.islower() else quote_plus(secret),
        urlencode({"x": secret})[2:],
        repr(secret)[1:-1],
    ):
        text = f"{before}{encoded}{behind}"
        assert encoded not in redactor.text(text) or encoded in MASK
        written = orjson.loads(redactor.data(orjson.dumps({"x": text})))["x"]
        assert encoded not in written or encoded in MASK


@given(SECRETS, st.binary(max_size=5), st.binary(max_size=5))
def test_base64_gives_nothing_of_a_secret_away(secret: str, before: bytes, behind: bytes) -> None:
    redactor = Redactor()
    redactor.learn(secret)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(before + secret.encode() + behind).decode()
        assert MASK in redactor.text(text)


def test_what_is_hidden_for_a_while_is_forgotten_unless_it_was_learned() -> None:
    redactor = Redactor()
    redactor.learn("known for good")
    text = "known for good, hidden a while"
    with redactor.hiding("hidden a while"), redactor.hiding("known for good"):
        with redactor.hiding("hidden a while"):
            assert redactor.text(text) == f"{MASK}, {MASK}"
        assert redactor.text(text) == f"{MASK}, {MASK}"
    assert redactor.text(text) == f"{MASK}, hidden a while"
    assert redactor.secrets == ["known for good"]


def test_basic_auth_is_redacted() -> None:
    redactor = Redactor()
    redactor.learn("correct horse")
    header = "Basic " + base64.b64encode(b"user:correct horse").decode()
    assert redactor.text(header).startswith("Basic dXNlc")
    assert MASK in redactor.text(header)


@pytest.mark.parametrize("text", ["", "nothing", '{"a":1}'])
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    redactor = Redactor()
    assert redactor.text(text) == text
    redactor.learn("a long secret")
    assert (redactor.text(text), redactor.data(text.encode())) == (text, text.encode())


@pytest.mark.parametrize(
    ("secret", "output", "shown"),
    [
        ("20260101", {"n": 20260101, "x": [1202601012, 5]}, {"n": MASK, "x": [MASK, 5]}),
        ("0.25", {"n": 10.25}, {"n": MASK}),
        ("true", {"n": True, "x": "so true"}, {"n": True, "x": f"so {MASK}"}),
        ('a":"b', {"a": "b"}, {"a": "b"}),
        ("nsecret", {"x": "\nsecret", "nsecret": 1}, {"x": "\nsecret", MASK: 1}),
    ],
)
def test_what_is_left_of_an_output_is_json(secret: str, output: object, shown: object) -> None:
    redactor = Redactor()
    redactor.learn(secret)
    assert orjson.loads(redactor.data(orjson.dumps(output))) == shown


@pytest.mark.parametrize("echo", ["json", "php", "html", "json in json"])
def test_a_service_that_says_a_secret_back_as_text_gives_nothing_away(echo: str) -> None:
    secret = "p/4\"s<s>&w\u00f6rd'"
    said = {
        "json": json.dumps({"key": secret}),
        "php": json.dumps({"key": secret}).replace("/", "\\/"),
        "html": f"<p>{html.escape(secret)}</p>",
        "json in json": json.dumps({"key": json.dumps({"key": secret})}),
    }[echo]
    redactor = Redactor()
    redactor.learn(secret)
    written = orjson.loads(redactor.data(orjson.dumps({"data": said})))["data"]
    for piece in (written, redactor.text(said)):
        assert MASK in piece
        assert "rd" not in piece
        assert "p/4" not in piece.replace("\\", "")


def test_every_line_of_a_secret_is_one() -> None:
    redactor = Redactor()
    redactor.learn("-----BEGIN-----\nMIIEvQIBADANBg\n-----END-----")
    assert redactor.text("x MIIEvQIBADANBg y") == f"x {MASK} y"


def test_what_was_learned_before_and_between_texts_is_found_in_all() -> None:
    redactor = Redactor()
    redactor.learn("a-first-secret")
    redactor.learn("a-first-secret-that-goes-on")
    assert redactor.text("x a-first-secret-that-goes-on x") == f"x {MASK} x"
    redactor.learn("another-one")
    assert redactor.data(b'{"a":"another-one a-first-secret"}') == b'{"a":"%b %b"}' % (
        (MASK.encode(),) * 2
    )


def test_a_number_that_is_a_secret_is_masked_among_a_hundred_thousand_texts() -> None:
    redactor = Redactor()
    for secret in ("123456789", *(f"secret number {at}" for at in range(200))):
        redactor.learn(secret)
    value = {"pin": 123456789, "words": ["word"] * 100_000}

    assert orjson.loads(redactor.data(orjson.dumps(value))) == {**value, "pin": MASK}
