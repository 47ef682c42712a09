"""Repeats: what is refused at submit, how long the pauses are, when there is no further call."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from flowd.errors import WAIT_S_MAX, Fail, InvalidWorkflow, Problem
from flowd.workflow.repeating import Repeat
from flowd.workflow.validator import validate_workflow

HANDLERS = {"noop": None, "delay": None, "signal": None}
DONE = "output.status == 'done'"


def repeat(**written: Any) -> Repeat:
    return Repeat({"until": DONE, **written})


def problems(*nodes: dict[str, Any]) -> list[Problem]:
    document = {"name": "w", "dag": {"nodes": list(nodes)}}
    try:
        validate_workflow(orjson.dumps(document), HANDLERS)
    except InvalidWorkflow as refused:
        return list(refused.problems)
    return []


def node(node_id: str = "A", **fields: Any) -> dict[str, Any]:
    return {"id": node_id, "handler": "noop", **fields}


def test_it_is_done_once_the_output_says_so() -> None:
    assert repeat().is_done(1, {"output": {"status": "done"}}, "")
    assert not repeat().is_done(99, {"output": {"status": "busy"}}, "")


@pytest.mark.parametrize(
    ("written", "pauses"),
    [
        ({}, [10, 10, 10]),
        ({"delay_s": 1, "backoff": 2}, [1, 2, 4]),
        ({"delay_s": 1, "backoff": 3, "max_delay_s": 5}, [1, 3, 5]),
        ({"delay_s": 0}, [0, 0, 0]),
    ],
)
def test_the_pause_grows_up_to_the_longest(written: dict[str, Any], pauses: list[float]) -> None:
    assert [repeat(**written).pause_s(call) for call in (1, 2, 3)] == pauses


def test_after_the_last_call_it_fails_and_shows_the_last_output() -> None:
    with pytest.raises(Fail) as failed:
        repeat(max_times=2).is_done(2, {"output": {"status": "busy"}}, '{"status":"busy"}')

    assert str(failed.value) == (
        "repeat: output.status == 'done' was not true after 2 calls; "
        'the last output: {"status":"busy"}'
    )


def test_a_long_output_is_shown_by_its_beginning() -> None:
    with pytest.raises(Fail) as failed:
        repeat(max_times=1).is_done(1, {"output": {"status": ""}}, "x" * 5_000)

    assert str(failed.value).endswith("after 1 call; the last output: " + "x" * 500 + "…")


@pytest.mark.parametrize("output", [{}, {"status": 1, "n": None}])
def test_what_cannot_be_decided_fails_and_says_what_was_missing(output: dict[str, Any]) -> None:
    with pytest.raises(Fail, match=r"^repeat: "):
        Repeat({"until": "output.left < 5"}).is_done(1, {"output": output}, "")


def test_a_repeat_may_read_its_output_what_is_upstream_and_the_input() -> None:
    until = "output.n >= A.n and input.go and state.A == 'COMPLETED' and execution.name == 'w'"

    assert problems(node(), node("B", dependencies=["A"], repeat={"until": until})) == []


@pytest.mark.parametrize(
    ("until", "code"),
    [
        ("output.n >", "malformed_condition"),
        ("B.n > 1", "not_upstream"),
        ("nobody.n > 1", "unknown_reference"),
        ("A.n > 1", "not_upstream"),
        ("execution.secret == 1", "unknown_reference"),
    ],
)
def test_what_else_it_reads_is_refused_with_its_path(until: str, code: str) -> None:
    (problem,) = problems(node(repeat={"until": until}), node("B"))

    assert (problem.path, problem.code) == ("dag.nodes[0].repeat.until", code)


def test_what_may_be_skipped_is_read_with_a_default() -> None:
    skipped = node("A", when="input.go")
    reader = node("B", dependencies=["A"], after="ended")

    (problem,) = problems(skipped, {**reader, "repeat": {"until": "A.x == output.x"}})
    assert (problem.path, problem.code) == ("dag.nodes[1].repeat.until", "may_be_missing")
    guarded = {"until": "(A.x | default(1)) == output.x"}
    assert problems(skipped, {**reader, "repeat": guarded}) == []


@pytest.mark.parametrize("handler", ["delay", "signal"])
def test_what_waits_by_itself_is_not_repeated(handler: str) -> None:
    (problem,) = problems(node(handler=handler, repeat={"until": DONE}))

    assert (problem.path, problem.code) == ("dag.nodes[0].repeat", "not_repeatable")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("until", 1),
        ("until", ""),
        ("delay_s", -1),
        ("delay_s", "1"),
        ("delay_s", WAIT_S_MAX + 1),
        ("backoff", 0.5),
        ("max_delay_s", -1),
        ("max_times", 0),
        ("max_times", 1.5),
        ("max_times", 100_001),
        ("times", 3),
    ],
)
def test_each_wrong_field_is_refused_with_its_path(field: str, value: object) -> None:
    (problem,) = problems(node(repeat={"until": DONE, field: value}))

    assert problem.path == f"dag.nodes[0].repeat.{field}"


def test_without_a_condition_it_is_no_repeat() -> None:
    assert [(one.path, one.code) for one in problems(node(repeat={}))] == [
        ("dag.nodes[0].repeat.until", "missing_field")
    ]
