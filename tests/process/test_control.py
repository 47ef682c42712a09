"""`flowd stop`, `reload`, `restart`, `scale`, `top`, `logs`: orders to a flowd that runs."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import PATIENCE_S, is_all_running, wait_until
from tests.process.flowd_process import CONFIG, Flowd, node

Run = Callable[..., Flowd]


def tell(flowd: Flowd, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flowd.cli.main", *arguments],
        cwd=flowd.folder,
        env=flowd.environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def pids(status: dict[str, Any]) -> dict[str, int]:
    return {one["name"]: one["pid"] for one in status["processes"]}


def test_stop_returns_when_flowd_has_ended(run_flowd: Run) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()

    answer = tell(flowd, "stop")

    assert (answer.returncode, answer.stdout) == (0, "flowd has stopped\n")
    assert flowd.wait_for_end() == 0
    assert flowd.survivors() == []
    assert tell(flowd, "stop").returncode == 3


def test_reload_takes_up_the_file_as_it_is_now(run_flowd: Run, tmp_path: Path) -> None:
    flowd = run_flowd("start")
    before = pids(flowd.wait_until_running())
    (tmp_path / "flowd.toml").write_text(
        CONFIG.replace("[api]\nport = 0", "[api]\nport = 1\nprocesses = 2").replace(
            '"data"', '"data"\ndurability = "everysec"'
        )
        + "[workers]\ncount = 3\n[log]\nlevel = 'debug'\n"
    )

    answer = tell(flowd, "reload")

    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    assert answer.stdout == (
        "flowd runs with the new settings, but for what takes a stop and a start: "
        "api.port, redis.durability\n"
    )
    status = flowd.wait_until_running()
    assert list(pids(status)) == [
        "redis", "api-1", "api-2", "scheduler", "worker-1", "worker-2", "worker-3"
    ]  # fmt: skip
    assert pids(status)["redis"] == before["redis"]
    assert not set(list(before.values())[1:]) & set(pids(status).values())
    (kept,) = flowd.events("settings.kept")
    assert kept["settings"] == "api.port, redis.durability"
    assert status["api"] == flowd.url
    assert flowd.events("child.started") != []
    assert flowd.wait_for_execution(flowd.submit_and_trigger(node("A"))) == "COMPLETED"


def test_a_file_with_mistakes_is_refused_and_nothing_changes(
    run_flowd: Run, tmp_path: Path
) -> None:
    flowd = run_flowd("start")
    before = pids(flowd.wait_until_running())
    (tmp_path / "flowd.toml").write_text(CONFIG + "[workers]\ncuont = 3\n")

    answer = tell(flowd, "reload", "--data-dir", str(flowd.data_dir))
    flowd.signal(signal.SIGHUP)
    status = tell(flowd, "status")

    assert status.returncode == 0
    assert "is RUNNING" in status.stdout
    assert "it could not start again with its current settings:\n  flowd" in status.stderr

    assert answer.returncode == 78
    assert "unknown key 'cuont' in [workers]; did you mean 'count'?" in answer.stderr
    assert tell(flowd, "reload").returncode == 78
    wait_until(lambda: len(flowd.events("settings.refused")) == 3, "all to be refused")
    assert pids(flowd.wait_until_running()) == before


def test_restart_and_scale(run_flowd: Run) -> None:
    flowd = run_flowd("start")
    before = pids(flowd.wait_until_running())

    answer = tell(flowd, "restart", "worker-2")
    assert (answer.returncode, answer.stdout) == (0, "worker-2 was replaced\n")
    after = pids(flowd.wait_until_running())
    assert [name for name in before if before[name] != after[name]] == ["worker-2"]

    answer = tell(flowd, "scale", "3")
    assert (answer.returncode, answer.stdout) == (0, "3 workers are asked for\n")
    flowd.wait_for_status(lambda status: is_all_running(status) and len(pids(status)) == 6, "three")
    assert tell(flowd, "scale", "1").returncode == 0
    flowd.wait_for_status(lambda status: is_all_running(status) and len(pids(status)) == 4, "one")

    answer = tell(flowd, "restart", "redis")
    assert answer.returncode == 1
    assert answer.stderr.startswith(
        "flowd: there is no process 'redis' to restart; there are api-1"
    )
    assert tell(flowd, "scale", "many").returncode == 2


@pytest.mark.parametrize("verb", ["reload", "restart", "top"])
def test_where_nothing_runs_an_order_exits_3(run_flowd: Run, verb: str) -> None:
    flowd = run_flowd("status")
    flowd.wait_for_end()

    answer = tell(flowd, verb)

    assert answer.returncode == 3
    assert "flowd does not run in" in answer.stderr


def test_top_in_a_pipe_shows_the_page_once(run_flowd: Run) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()

    answer = tell(flowd, "top")

    assert answer.returncode == 0
    assert [line.split()[0] for line in answer.stdout.splitlines()[3:]] == [
        "NAME", "redis", "api-1", "scheduler", "worker-1", "worker-2"
    ]  # fmt: skip


def test_top_on_a_terminal_goes_on_until_q(run_flowd: Run) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flowd.cli.main", "top", "--interval", "0.1"],
        cwd=flowd.folder,
        env={**flowd.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "40"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        shown = read_until(ours, b"worker-2", times=3)
        os.write(ours, b"q")
        assert b"LAST EXIT" in shown
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        os.close(ours)


def read_until(descriptor: int, text: bytes, times: int) -> bytes:
    shown = b""
    deadline = time.monotonic() + PATIENCE_S
    while shown.count(text) < times:
        assert time.monotonic() < deadline, shown
        shown += os.read(descriptor, 65536)
    return shown


def test_logs_without_a_file_says_where_they_are(run_flowd: Run) -> None:
    flowd = run_flowd("status")
    flowd.wait_for_end()

    answer = tell(flowd, "logs")

    assert answer.returncode == 1
    assert "journalctl -u flowd" in answer.stderr


def test_logs_shows_one_process_or_all_and_follows(run_flowd: Run, tmp_path: Path) -> None:
    log = tmp_path / "flowd.log"
    (tmp_path / "flowd.toml").write_text(CONFIG + "[log]\nfile = 'flowd.log'\n")
    lines = [
        json.dumps({"event": f"e{number}", "process": f"worker-{number % 2}"})
        for number in range(300)
    ]
    log.write_text("".join(line + "\n" for line in lines))
    flowd = run_flowd("status")
    flowd.wait_for_end()

    assert tell(flowd, "logs").stdout.splitlines() == lines[-100:]
    assert tell(flowd, "logs", "worker-1", "-n", "2").stdout.splitlines() == [
        lines[297],
        lines[299],
    ]

    typo = tell(flowd, "logs", "wroker-1")
    assert (typo.returncode, typo.stdout) == (1, "")
    assert "there is no process 'wroker-1'" in typo.stderr
    assert typo.stderr.endswith("there are: worker-0, worker-1\n")

    follower = run_flowd("logs", "-f", "-n", "1", "worker-1")
    wait_until(lambda: '"e299"' in follower.stdout, "the last line")
    # What it shows from then on is new: the file, and the file that takes its name.
    with log.open("a") as file:
        file.write(json.dumps({"event": "new", "process": "worker-1"}) + "\n")
    wait_until(lambda: '"new"' in follower.stdout, "the new line")
    log.rename(tmp_path / "flowd.log.1")
    log.write_text(json.dumps({"event": "newer", "process": "worker-1"}) + "\n")
    wait_until(lambda: '"newer"' in follower.stdout, "the line of the new file")
    follower.signal(signal.SIGINT)
    assert follower.wait_for_end() == 0


def test_sigusr1_takes_up_the_log_file_anew_in_every_process(
    run_flowd: Run, tmp_path: Path
) -> None:
    log = tmp_path / "flowd.log"
    (tmp_path / "flowd.toml").write_text(CONFIG + "[log]\nfile = 'flowd.log'\n")
    flowd = run_flowd("start")
    own = set(pids(flowd.wait_until_running()).values()) | {flowd.process.pid}
    own.discard(flowd.post("redis")["pid"])
    log.rename(tmp_path / "old.log")

    flowd.signal(signal.SIGUSR1)

    def have_it_open() -> set[int]:
        return {
            pid
            for pid in own
            for link in Path(f"/proc/{pid}/fd").iterdir()
            if os.path.realpath(link) == str(log)
        }

    wait_until(lambda: have_it_open() == own, "every process to have the new file")


def test_the_api_on_a_unix_socket(run_flowd: Run, tmp_path: Path) -> None:
    (tmp_path / "flowd.toml").write_text(CONFIG.replace("[api]", "[api]\nsocket = 'api.sock'"))
    flowd = run_flowd("start")
    status = flowd.wait_until_running()
    path = tmp_path / "api.sock"

    answer = subprocess.run(
        ["curl", "-s", "--unix-socket", str(path), "http://flowd/health"],
        capture_output=True,
        text=True,
    )

    assert status["api"] == f"unix:{path}"
    assert answer.stdout == '{"status":"ok"}'
    flowd.signal(signal.SIGTERM)
    assert flowd.wait_for_end() == 0
    assert not path.exists()
