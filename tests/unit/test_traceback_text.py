"""A traceback for the author of a handler: their own frames first, bounded, whatever was raised."""

from __future__ import annotations

import json
from pathlib import Path

from flowd.errors import Fail
from flowd.handlers.outcome import as_failure
from flowd.handlers.registry import Registry
from flowd.handlers.traceback_text import TRACEBACK_CHARS_MAX, traceback_text
from flowd.redaction import MASK, Redactor


def raised_by(function, *arguments) -> Exception:
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001 - it is what the test is about
        return error
    raise AssertionError("nothing was raised")


def inner(text):
    raise ValueError(text)


def outer(text):
    try:
        inner(text)
    except ValueError as error:
        raise KeyError("outer") from error


def dive(depth):
    return json.dumps(1 / 0) if depth == 0 else dive(depth - 1)


def through_flowd():
    return Registry({"x": "tests.unit.no_such_module"}).load("x")


def test_it_begins_with_the_frames_of_the_author() -> None:
    lines = traceback_text(raised_by(inner, "why")).splitlines()

    assert lines[0] == "Traceback (most recent call last):"
    assert f'File "{Path(__file__)}"' in lines[1]
    assert lines[-1] == "ValueError: why"


def test_where_no_frame_is_the_authors_all_are_kept() -> None:
    error = raised_by(through_flowd)
    error.__traceback__ = error.__traceback__.tb_next.tb_next
    whole = traceback_text(error)

    assert "registry.py" in whole
    assert whole.endswith("No module named 'tests.unit.no_such_module'")


def test_a_cause_comes_with_it() -> None:
    text = traceback_text(raised_by(outer, "first"))

    assert text.index("ValueError: first") < text.index("direct cause") < text.index("KeyError:")


def test_of_a_deep_stack_both_ends_are_kept() -> None:
    text = traceback_text(raised_by(dive, 400))

    assert len(text) <= TRACEBACK_CHARS_MAX
    assert text.count("in dive") <= 17
    assert "raised_by" in text
    assert text.endswith("ZeroDivisionError: division by zero")


def test_a_long_text_is_cut_in_its_middle() -> None:
    text = traceback_text(raised_by(inner, "x" * 100_000))

    assert len(text) <= TRACEBACK_CHARS_MAX + 3
    assert text.startswith("Traceback (most recent call last):")


def test_causes_in_a_circle_end() -> None:
    one, two = raised_by(inner, "one"), raised_by(inner, "two")
    one.__cause__, two.__cause__ = two, one

    assert traceback_text(one).endswith("ValueError: one")


def test_who_fails_on_purpose_has_said_why_unless_there_was_a_cause() -> None:
    def on_purpose(cause):
        raise Fail("no") from cause

    assert as_failure(raised_by(on_purpose, None)).report == b""
    report = json.loads(as_failure(raised_by(on_purpose, raised_by(inner, "deep"))).report)
    assert "ValueError: deep" in report["traceback"]


def test_it_holds_no_secret(monkeypatch) -> None:
    redactor = Redactor()
    redactor.learn("hush-hush-hush")
    monkeypatch.setattr("flowd.handlers.outcome.REDACTOR", redactor)
    failure = as_failure(raised_by(inner, "the key is hush-hush-hush \ud800"))

    report = json.loads(failure.report)
    assert report["traceback"].endswith(rf"ValueError: the key is {MASK} \ud800")
    assert as_failure(failure).report == failure.report
