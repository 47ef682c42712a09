"""Whatever is sent, four times as much of it takes some four times as long: nothing is quadratic.

A few pieces that mean something to a parser are put together at random and repeated, as patterns
that take for ever are found: a beginning, a part that is pumped up, an end that does not fit.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from flowd.config import Settings
from flowd.errors import FlowdError
from flowd.handlers.completions import json_of
from flowd.handlers.config_checks import config_checks
from flowd.handlers.registry import built_in_registry
from flowd.redaction import Redactor
from flowd.workflow.strict_json import parse_json
from flowd.workflow.templating import MalformedTemplate, find_templates, parse_text
from flowd.workflow.validator import validate_workflow
from tests.fuzz.test_sockets import SEED

CASES: Final = 25
PIECES_SMALL: Final = 1_000
TIMES: Final = 4
# Sixteen would be quadratic.
RATIO_MAX: Final = 10
# Below this a ratio says nothing.
NOTHING_S: Final = 0.02

HANDLERS = config_checks(built_in_registry(), Settings())
SECRETS = Redactor()
for at in range(50):
    SECRETS.learn(f"aaaa bbbb {at} aaaa")

TEMPLATES = ["{{", "}}", "A", ".x", "[0]", '"', "'", "\\", " ", "|", "json", "default(", ")", "\n"]
DOCUMENTS = ["{", "}", "[", "]", '"a"', ":", ",", "1", '"\\u003a"', "9" * 20, " ", '"', "\\"]
ANSWERS = ["```", "json", "\n", " ", "{", "}", "[", "]", '"a"', "</think>", ":", "1", ","]
SECRET_PARTS = ["aaaa", " ", "bbbb", "a", "b", "1", "%20", "\\"]


def node_of(text: str) -> dict[str, Any]:
    return {"id": "A", "handler": "noop", "config": {"x": text}}


def validate(text: str) -> None:
    validate_workflow(
        json.dumps({"name": "t", "dag": {"nodes": [node_of(text)]}}).encode(), HANDLERS
    )


def validate_many(text: str) -> None:
    ids = text.split()
    nodes = [
        {"id": one, "handler": one, "dependencies": ids[at : at + 2], "config": {"x": "{{ b.c }}"}}
        for at, one in enumerate(ids)
    ]
    validate_workflow(json.dumps({"name": "t", "dag": {"nodes": nodes}}).encode(), HANDLERS)


PARSERS: dict[str, tuple[Callable[[str], Any], list[str]]] = {
    "templates": (parse_text, TEMPLATES),
    "flaws of templates": (lambda text: list(find_templates({"x": text}, "config")), TEMPLATES),
    "a workflow of one text": (validate, TEMPLATES),
    "a workflow of many nodes": (validate_many, ["a ", "b ", "ab ", "nooop ", "{{a}} ", "a1 "]),
    "JSON": (lambda text: parse_json(text.encode()), DOCUMENTS),
    "answers of models": (json_of, ANSWERS),
    "redaction": (SECRETS.text, SECRET_PARTS),
}


def cost_s(parse: Callable[[str], Any], text: str) -> float:
    """Of three tries the least: others use this machine too."""
    tries = []
    for _ in range(3):
        begun = time.thread_time()
        with contextlib.suppress(FlowdError, MalformedTemplate, RecursionError):
            parse(text)
        tries.append(time.thread_time() - begun)
        if tries[-1] < NOTHING_S:
            break
    return min(tries)


@pytest.mark.parametrize("name", PARSERS)
def test_four_times_as_much_takes_some_four_times_as_long(name: str) -> None:
    parse, pieces = PARSERS[name]
    chosen = random.Random(SEED)
    for _ in range(2 if parse is validate_many else CASES):
        begin, pumped, end = ("".join(chosen.choices(pieces, k=k)) for k in (2, 3, 2))
        much = cost_s(parse, begin + pumped * PIECES_SMALL * TIMES + end)
        if much > NOTHING_S:
            little = cost_s(parse, begin + pumped * PIECES_SMALL + end)
            assert much < RATIO_MAX * max(little, NOTHING_S / TIMES), (begin, pumped, end)
