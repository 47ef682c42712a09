"""A whole flowd, fuzzed from its own OpenAPI document with every check schemathesis has."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.process.flowd_process import CONFIG, Flowd, clean_environ

TIMEOUT_S = 1_800
NOWHERE = "http://127.0.0.1:9"
# Streams without an end, each of which would be read until the time-out; test_events.py reads them.
ENDLESS = ("watch_all", "watch_for_changes")

# What takes the longest here waits for its turn on a loaded machine; a call that hangs is found.
SCHEMATHESIS = """
continue-on-failure = true
request-timeout = 120

[checks]
max_response_time = 110

[generation]
max-examples = 20
database = "none"

# What a schema cannot tell: cycles, handlers that do not exist, cursors of another list, nodes of
# another execution, keys that came before, numbers that would be changed.
[[operations]]
include-operation-id = [
  "submit_workflow", "check_workflow", "trigger_workflow", "rerun", "watch_execution", "signal",
  "list_workflows", "list_nodes", "list_items", "list_dead_letters",
  "put_definition", "run_definition", "list_definitions", "list_versions", "submit_batch",
  "save_schedule", "list_schedules",
]
[operations.checks]
positive_data_acceptance.expected-statuses = [
  "2xx", "400", "401", "403", "404", "409", "422", "429", "5xx",
]

# That of an execution nobody starts is read until the time-out.
[[operations]]
include-operation-id = "watch_execution"
request-timeout = 30

# Each workflow of a batch is accepted or refused on its own.
[[operations]]
include-operation-id = "submit_batch"
[operations.checks]
negative_data_rejection.expected-statuses = [
  "200", "400", "401", "403", "404", "405", "406", "409", "415", "422", "428", "429", "5xx",
]
"""


def test_every_answer_is_a_documented_one(run_flowd: Callable[..., Flowd], tmp_path: Path) -> None:
    (tmp_path / "flowd.toml").write_text(CONFIG)
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    arguments = ["token", "create", "--name", "fuzz", "--scope", "admin"]
    made = subprocess.run(
        [sys.executable, "-m", "flowd.cli.main", *arguments],
        cwd=tmp_path,
        env=clean_environ(),
        capture_output=True,
        check=True,
        text=True,
    )
    # Workflows out of nowhere name callbacks out of nowhere: none of them is to be reached.
    flowd = run_flowd("start", "--workers", "1", HTTP_PROXY=NOWHERE, HTTPS_PROXY=NOWHERE)
    flowd.wait_until_running()

    fuzzed = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "--config-file", "schemathesis.toml"),
            *("run", f"{flowd.url}/openapi.json", "--checks", "all", "--seed", "1", "--no-color"),
            *("-H", f"Authorization: Bearer {made.stdout.strip()}"),
            *(option for name in ENDLESS for option in ("--exclude-operation-id", name)),
        ],
        cwd=tmp_path,
        env=clean_environ(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert fuzzed.returncode == 0, fuzzed.stdout
    assert '"request.failed"' not in flowd.stderr
    assert '"request.authorized"' in flowd.stderr
