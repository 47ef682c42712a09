"""`flowd demo` as a user runs it: a real stack, the three samples, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.daemon import PATIENCE_S

FLOWD = (
    "import sys; from flowd.cli.main import main; main(['demo', *sys.argv[1:]], prog_name='flowd')"
)
# Settings of the user that would break the private stack if they reached it.
FOREIGN_SETTINGS = {"REDIS_PORT": "1", "FLOWD_WORKERS__COUNT": "0", "FLOWD_REDIS__MODE": "external"}


@contextmanager
def running_demo(folder: Path, prelude: str = "", *options: str) -> Iterator[subprocess.Popen[str]]:
    """The demo with `folder` as its place for temporary files, after `prelude` in its process."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{prelude}\n{FLOWD}", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | FOREIGN_SETTINGS | {"TMPDIR": str(folder)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run_demo(folder: Path, prelude: str = "", *options: str) -> tuple[int, str, str]:
    with running_demo(folder, prelude, *options) as process:
        output, errors = process.communicate(timeout=PATIENCE_S)
        return process.returncode, output, errors


def only_sample(handler: str, config: dict[str, Any]) -> str:
    """Code that gives the demo one sample with one node instead of the three."""
    node = {"id": "A", "handler": handler, "config": config}
    definition = json.dumps({"name": "only", "dag": {"nodes": [node]}}).encode()
    return (
        "import flowd.cli.commands.demo as demo; "
        f"demo.load_samples = lambda: {{'only': {definition!r}}}"
    )


def assert_nothing_is_left(folder: Path) -> None:
    assert list(folder.iterdir()) == []
    assert [one.pid for one in psutil.process_iter() if _began_in(one, folder)] == []


def _began_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.environ().get("TMPDIR") == str(folder)
    except psutil.Error:
        return False


def test_the_three_samples_complete_with_their_results(tmp_path: Path) -> None:
    code, output, errors = run_demo(tmp_path)

    assert code == 0, errors
    lines = output.splitlines()
    for sample, nodes in {"linear": "ABC", "fanout": "ABCD", "race": "BCD"}.items():
        for node_id in nodes:
            assert lines.index(f"{sample} {node_id} PENDING") < lines.index(
                f"{sample} {node_id} COMPLETED"
            )
        assert f"{sample} COMPLETED" in lines
    assert '  A {"data": "Simulated call to http://service-a"}' in lines
    # No line of a log is among what it says.
    first, second = errors.splitlines()
    assert first == "starting a private flowd ..."
    assert second.startswith("its API listens on http://127.0.0.1:")
    assert_nothing_is_left(tmp_path)


def test_with_all_the_samples_that_choose_and_wait_run_too(tmp_path: Path) -> None:
    code, output, errors = run_demo(tmp_path, "", "--all")

    assert code == 0, errors
    lines = output.splitlines()
    assert {"linear COMPLETED", "choose COMPLETED", "choose discount SKIPPED"} <= set(lines)
    assert {"cleanup COMPLETED", "cleanup alarm SKIPPED"} <= set(lines)
    # What lasts for a moment may come and go between two looks.
    assert {"choose advert FAILED", "wait pause COMPLETED", "wait COMPLETED"} <= set(lines)
    assert {"call headquarters COMPLETED", "call regions COMPLETED", "call COMPLETED"} <= set(lines)
    assert {"approve ok WAITING", "approve ship SKIPPED", "approve COMPLETED"} <= set(lines)
    assert_nothing_is_left(tmp_path)


def test_a_node_that_fails_is_named_with_its_reason(tmp_path: Path) -> None:
    prelude = only_sample("unreliable_handler", {"failure_rate": 1})

    code, output, errors = run_demo(tmp_path, prelude)

    assert code == 1
    assert "only FAILED" in output.splitlines()
    assert "demo failed: node A of only ended FAILED: attempt 1 failed on purpose" in errors
    assert "the last lines of its log:" in errors
    assert_nothing_is_left(tmp_path)


def test_a_sample_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    prelude = f"{only_sample('delay', {'seconds': 60})}; demo.DEADLINE_S = 6"

    code, output, errors = run_demo(tmp_path, prelude)

    assert code == 1
    assert "only A WAITING" in output.splitlines()
    assert "demo failed: not all executions had ended after 6 s" in errors
    assert_nothing_is_left(tmp_path)


def test_a_stack_that_does_not_start_is_explained_by_its_log(tmp_path: Path) -> None:
    prelude = (
        "import flowd.cli.commands.demo as demo;"
        "demo._CONFIG = demo._CONFIG.replace('[redis]', '[redis]\\nserver = \"/bin/false\"')"
    )

    code, _, errors = run_demo(tmp_path, prelude)

    assert code == 1
    assert "demo failed: flowd ended with exit code 69 before it was ready" in errors
    assert "the embedded Redis server did not start" in errors
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_stack_too(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with running_demo(tmp_path) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "starting a private flowd ...\n"
        process.send_signal(number)

        assert process.wait(timeout=PATIENCE_S) == code

    assert_nothing_is_left(tmp_path)
