"""The log file of a `flowd start`: every process writes to it, wherever it was moved."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

from tests.daemon import wait_until, whole_lines
from tests.process.flowd_process import CONFIG, Flowd, node

Run = Callable[..., Flowd]


def processes_in(path: Path) -> set[str]:
    return {json.loads(line)["process"] for line in whole_lines(path)}


def test_all_processes_write_to_the_file_and_follow_it(run_flowd: Run, tmp_path: Path) -> None:
    (tmp_path / "flowd.toml").write_text(
        CONFIG + "[log]\nlevel = 'debug'\nfile = 'log/flowd.log'\n"
    )
    path = tmp_path / "log" / "flowd.log"
    flowd = run_flowd("start")
    flowd.wait_until_running()
    assert processes_in(path) >= {"supervisor", "worker-1", "worker-2"}
    assert flowd.stderr == ""

    path.rename(path.with_suffix(".old"))
    flowd.signal(signal.SIGUSR1)
    wait_until(path.exists, "the file to be there again")
    flowd.submit_and_trigger(node("A"))
    wait_until(lambda: "node.completed" in path.read_text(), "a worker to write")
    flowd.signal(signal.SIGTERM)
    assert flowd.wait_for_end() == 0
    assert '"supervisor.stopped"' in path.read_text()


def test_a_small_limit_rotates_under_all_of_them(run_flowd: Run, tmp_path: Path) -> None:
    log = "[log]\nlevel = 'debug'\nfile = 'flowd.log'\nmax_mb = 0.002\nkeep = 100\n"
    (tmp_path / "flowd.toml").write_text(CONFIG + log)
    flowd = run_flowd("start")
    flowd.wait_until_running()
    for _ in range(5):
        flowd.wait_for_execution(flowd.submit_and_trigger(*(node(f"N{n}") for n in range(10))))
    flowd.signal(signal.SIGTERM)
    assert flowd.wait_for_end() == 0

    files = list(tmp_path.glob("flowd.log*"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    completed = [line for line in lines if line["event"] == "node.completed"]
    assert len(files) > 5
    assert len({(line["execution_id"], line["node_id"]) for line in completed}) == 50
    assert {"supervisor.started", "supervisor.stopped"} <= {line["event"] for line in lines}
