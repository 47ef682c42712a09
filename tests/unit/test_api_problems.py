"""Problem documents: one for every error there is, and nothing a client should not see."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import orjson
import pytest

import flowd
from flowd.api.contract.problems import KINDS, problem_document, problem_response, summarize
from flowd.errors import FlowdError, Problem


def error_tree(root: type[FlowdError] = FlowdError) -> Iterator[type[FlowdError]]:
    yield root
    for child in root.__subclasses__():
        yield from error_tree(child)


def test_every_error_of_the_tree_has_a_kind() -> None:
    for module in pkgutil.walk_packages(flowd.__path__, "flowd."):
        importlib.import_module(module.name)
    ours = {error for error in error_tree() if error.__module__.startswith("flowd.")}
    unmapped = {error.__name__ for error in ours if error.code not in KINDS}
    assert unmapped == set()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("invalid_workflow", 400),
        ("unknown_execution", 404),
        ("body_too_large", 413),
        ("store_unavailable", 503),
        ("store_full", 503),
        ("store_read_only", 503),
        ("corrupt_execution", 500),
        ("internal", 500),
    ],
)
def test_the_status_of_what_clients_meet(code: str, status: int) -> None:
    response = problem_response(code, "why")
    assert response.status_code == status
    assert response.media_type == "application/problem+json"
    assert ("retry-after" in response.headers) == (status == 503)


def test_a_document_has_the_members_of_rfc_9457_and_every_problem() -> None:
    given = [Problem("dag.nodes[0].id", "bad_id", "bad node id"), Problem("", "cycle", "cycle A")]
    assert orjson.loads(problem_document("invalid_workflow", "two", given)) == {
        "type": "urn:flowd:problem:invalid_workflow",
        "title": "Invalid workflow",
        "status": 400,
        "detail": "two",
        "code": "invalid_workflow",
        "errors": [
            {"path": "dag.nodes[0].id", "code": "bad_id", "message": "bad node id"},
            {"path": "", "code": "cycle", "message": "cycle A"},
        ],
    }


def test_without_problems_the_detail_is_the_only_one() -> None:
    document = orjson.loads(problem_document("not_found", "nothing here"))
    assert document["errors"] == [{"path": "", "code": "not_found", "message": "nothing here"}]


def test_the_sentence_names_a_few_problems_and_any_cycle_among_them() -> None:
    many = [Problem(f"p{number}", "bad_id", "bad") for number in range(50)]
    cycle = Problem("q", "cycle", "cycle A -> A")
    assert summarize([cycle]) == "q: cycle A -> A"
    assert summarize(many[:2]) == "2 problems: p0: bad; p1: bad"
    text = summarize([*many, cycle])
    assert text == "51 problems, among them: q: cycle A -> A; p0: bad; p1: bad"
