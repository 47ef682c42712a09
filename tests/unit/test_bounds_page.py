"""The page of bounds says what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

import flowd
from flowd.api import shared_check, workflow_check
from flowd.api.routers import batch, definitions, nodes
from flowd.handlers import bounded_jmespath, forked_calls, json_schema, outcome
from flowd.handlers.builtin import transform
from flowd.orchestrator import portions, rendering
from flowd.store import results
from flowd.supervisor import control
from flowd.workers import large_inputs
from flowd.workflow import definition, report, strict_json, templating, validator

KIB, MIB = 1024, 1024 * 1024
ROWS = dict(
    line.strip("| ").split(" | ", 1)
    for line in (Path(flowd.__file__).parent / "docs/bounds.md").read_text().splitlines()
    if line.startswith("| ")
)

CHECK_KIB = workflow_check.SMALL_BYTES_MAX // KIB
CHECK_ROW = f"checking a workflow of more than {CHECK_KIB} KiB, or with a JSON Schema"
HELD_KIB = large_inputs.SMALL_BYTES_MAX // KIB
HELD_ROW = f"large inputs (over {HELD_KIB} KiB) that a worker holds at once"


@pytest.mark.parametrize(
    ("row", "bounds"),
    [
        ("values in a body", [f"{strict_json.VALUES_MAX:,}"]),
        ("nodes of a workflow", [f"{validator.NODES_MAX:,}"]),
        ("levels of a node's `config`", [f"{validator.CONFIG_LEVELS_MAX}"]),
        (
            CHECK_ROW,
            [
                f"{forked_calls.CPU_S_MAX} s of",
                f"{forked_calls.WALL_S_MAX} s in total",
                f"{forked_calls.MEMORY_BYTES_MAX // MIB:,} MiB",
                f"{forked_calls.CALLS_AT_ONCE_MAX} at a time",
            ],
        ),
        (
            "executions made by one request, their nodes, and the bytes of their definitions",
            [
                f"{definitions.INPUTS_MAX:,}",
                f"{definitions.NODES_MAX:,}",
                f"{definitions.BYTES_MAX // MIB} MiB",
            ],
        ),
        (
            "holding inputs against an `input_schema`",
            [f"{json_schema.MISFITS_MAX} problems", f"{report.PROBLEMS_MAX} of all"],
        ),
        ("workflows of a batch", [f"{batch.WORKFLOWS_MAX:,}"]),
        ("labels of a workflow", [f"{definition.LABELS_MAX}"]),
        ("checks for `GET /readyz`", [f"{shared_check.CHECKS_PER_S_MAX} per second"]),
        ("page of a list", [f"{nodes.LIMIT_MAX:,} rows"]),
        (
            "results in one answer",
            [f"{results.RESULTS_BYTES_MAX // MIB} MiB", f"{results.PIECE_BYTES_MAX // KIB} KiB"],
        ),
        (
            "rendered config in the answer for one node",
            [f"{rendering.RENDERED_BYTES_MAX // MIB} MiB"],
        ),
        ("output of a node", [f"{outcome.OUTPUT_BYTES_MAX // MIB} MiB"]),
        ("what templates insert into one config", [f"{templating.RENDERED_BYTES_MAX // MIB} MiB"]),
        (
            HELD_ROW,
            [f"{large_inputs.BYTES_HELD_MAX // MIB} MiB"],
        ),
        (
            "`expression` of `transform`",
            [
                f"{transform.EXPRESSION_CHARS_MAX:,} characters",
                f"{bounded_jmespath.STEPS_MAX:,} steps",
            ],
        ),
        ("error of a node", [f"{outcome.ERROR_CHARS_MAX:,} characters"]),
        ("line on the control socket", [f"{control._LINE_BYTES_MAX:,} bytes"]),
        (
            "definitions that a check of everything reads together",
            [f"{portions.DEFINITION_BYTES_MAX // MIB} MiB"],
        ),
    ],
)
def test_a_bound_is_what_the_page_says(row: str, bounds: list[str]) -> None:
    for bound in bounds:
        assert bound in ROWS[row]
