"""`flowd status`: the table, the JSON, and what its exit code says."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.daemon import PATIENCE_S, wait_until
from tests.process.flowd_process import Flowd, node

Run = Callable[..., Flowd]


def ask_status(flowd: Flowd, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flowd.cli.main", "status", *arguments],
        cwd=flowd.folder,
        env=flowd.environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_the_table_shows_every_process(run_flowd: Run) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()
    flowd.kill("worker-2")
    flowd.wait_for_post("worker-2", lambda one: one["restarts"] == 1 and one["state"] == "RUNNING")
    # Who gives its work to others is gone again, too, and the new one has been measured.
    status = flowd.wait_until_running()
    flowd.wait_for_post("worker-2", lambda one: one["memory_mb"] is not None)

    answer = ask_status(flowd)

    assert answer.returncode == 0
    head, places, empty, titles, *rows = answer.stdout.splitlines()
    assert head.startswith(f"flowd (pid {flowd.process.pid}) is RUNNING for ")
    assert places.startswith(f"API {status['api']}, Redis embedded at {flowd.data_dir}/redis.sock")
    assert empty == ""
    assert re.split("  +", titles) == [
        "NAME", "ROLE", "PID", "STATE", "UPTIME", "RESTARTS", "MEMORY", "CPU", "IN FLIGHT", "DONE",
        "LAST EXIT",
    ]  # fmt: skip
    assert [row.split()[0] for row in rows] == [one["name"] for one in status["processes"]]
    name, role, pid, state, _, restarts, memory, cpu, in_flight, done, last_exit = re.split(
        "  +", rows[-1]
    )
    assert (name, role, state, restarts) == ("worker-2", "worker", "RUNNING", "1")
    assert pid == str(flowd.post("worker-2")["pid"])
    assert re.fullmatch(r"\d+ MB", memory)
    assert re.fullmatch(r"\d+%", cpu)
    assert (in_flight, done, last_exit) == ("0", "0", "was killed by SIGKILL")


def test_json_holds_the_same(run_flowd: Run) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()

    answer = json.loads(ask_status(flowd, "-o", "json").stdout)

    assert (answer["pid"], answer["state"]) == (flowd.process.pid, "RUNNING")
    assert answer["data_dir"] == str(flowd.data_dir)
    assert set(answer["processes"][0]) == {
        "name",
        "role",
        "pid",
        "state",
        "uptime_s",
        "restarts",
        "memory_mb",
        "own_memory_mb",
        "cpu_percent",
        "in_flight",
        "done",
        "queues",
        "redis_overdue_s",
        "stalled_s",
        "last_exit",
    }


def test_workers_that_others_have_started_are_shown_by_host(run_flowd: Run) -> None:
    """Those of other machines, of the same Redis, were not there for whoever looked at this one."""
    flowd = run_flowd("start", FLOWD_WORKERS__COUNT="1")
    flowd.wait_until_running()
    assert json.loads(ask_status(flowd, "-o", "json").stdout)["elsewhere"] == []
    run_flowd("worker", "--queues", "gpu,default", WORKER_NAME="other")

    def elsewhere() -> list[dict[str, Any]]:
        return list(json.loads(ask_status(flowd, "-o", "json").stdout)["elsewhere"])

    wait_until(elsewhere, "the other worker")
    host = socket.gethostname()
    assert elsewhere() == [{"host": host, "workers": 1, "queues": ["default", "gpu"]}]
    line = f"not of this flowd: on {host} 1 worker, which takes from default, gpu"
    assert line in ask_status(flowd).stdout.splitlines()


def test_it_answers_while_the_server_is_frozen(run_flowd: Run) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()
    pid = flowd.kill("redis", signal.SIGSTOP)

    assert ask_status(flowd).returncode == 0

    flowd.kill("redis", signal.SIGCONT)
    assert flowd.post("redis")["pid"] == pid


def test_where_nothing_runs_it_exits_3(run_flowd: Run) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()
    flowd.signal(signal.SIGTERM)
    flowd.wait_for_end()

    answer = ask_status(flowd)

    assert answer.returncode == 3
    assert answer.stdout == ""
    assert f"flowd does not run in {flowd.data_dir}" in answer.stderr


def test_after_a_kill_it_is_not_taken_in_by_what_is_left(run_flowd: Run) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()
    flowd.process.kill()
    flowd.wait_for_end()

    assert ask_status(flowd).returncode == 3


def test_a_flowd_that_does_not_answer_is_in_an_unknown_state(run_flowd: Run) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()
    flowd.signal(signal.SIGSTOP)

    answer = ask_status(flowd)

    assert answer.returncode == 4
    assert "does not answer" in answer.stderr


def test_it_counts_the_nodes_that_run_and_those_that_are_done(run_flowd: Run) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    nodes = [node(f"N{number}") for number in range(150)]
    bad = node("bad", handler="unreliable_handler", failure_rate=1)

    flowd.wait_for_execution(flowd.submit_and_trigger(*nodes, bad))

    worker = flowd.wait_for_post("worker-1", lambda one: one["done"] == 151)
    assert worker["in_flight"] == 0
    assert re.findall(r"0 +(\d+) +-$", ask_status(flowd).stdout, re.MULTILINE) == ["151"]
