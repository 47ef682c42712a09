"""The manual's recipes, its backup and its restore, done as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import PATIENCE_S, wait_until
from tests.manual import blocks
from tests.process.flowd_process import CONFIG, Flowd, clean_environ, node

Run = Callable[..., Flowd]

# What `flowd redis-cli` runs: the little of redis-cli that the manual needs.
REDIS_CLI = """\
import os, sys
import redis
socket, user, command = sys.argv[2], sys.argv[4], sys.argv[5:]
client = redis.Redis(unix_socket_path=socket, username=user, password=os.environ["REDISCLI_AUTH"])
print(client.execute_command(*command))
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH with flowd and redis-cli."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "redis_cli.py").write_text(REDIS_CLI)
    for name, call in (
        ("flowd", "-m flowd.cli.main"),
        ("redis-cli", str(folder / "redis_cli.py")),
    ):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {call} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def shell(command: str, folder: Path, programs: Path, **environ: str) -> str:
    """What a command line prints that succeeds."""
    path = os.pathsep.join((str(programs), os.environ["PATH"]))
    ended = subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env=clean_environ() | {"PATH": path} | environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_backup_is_restored_with_all_that_was_acknowledged_before_it(
    run_flowd: Run, tmp_path: Path, programs: Path
) -> None:
    (tmp_path / "flowd.toml").write_text(CONFIG.replace('data_dir = "data"', 'data_dir = ".flowd"'))
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    kept = flowd.submit_and_trigger(node("A"), node("B", "A"))
    assert flowd.wait_for_execution(kept) == "COMPLETED"
    waits = flowd.api.submit_workflow(json.dumps(workflow()).encode())

    (backup,) = blocks("Backup", "bash")
    shell(backup, tmp_path, programs)
    later = flowd.submit_and_trigger(node("A"))
    (restore,) = blocks("Restore", "bash")
    *steps, start = restore.strip().splitlines()
    assert start == "flowd start"
    shell("\n".join(steps), tmp_path, programs)

    again = run_flowd("start", "--workers", "1")
    again.wait_until_running()
    assert again.api.execution_status(kept) == "COMPLETED"
    again.api.trigger_workflow(waits)
    assert again.wait_for_execution(waits) == "COMPLETED"
    with again.redis as redis:
        assert not redis.exists(f"workflow:{later}:status")
    assert shell("flowd doctor", tmp_path, programs)


def workflow() -> dict[str, object]:
    return {"name": "waits", "dag": {"nodes": [node("A"), node("B", "A")]}}


def test_a_nightly_run_is_submitted_once_a_night_however_often_cron_tries(
    run_flowd: Run, tmp_path: Path, programs: Path
) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    (tmp_path / "report.yaml").write_text(blocks("A nightly run", "yaml")[0])
    (line,) = blocks("A nightly run", "crontab")
    command = re.sub(r"^(\S+\s+){5}", "", line).replace("\\%", "%").replace("/srv/reports/", "")

    printed = [shell(command, tmp_path, programs, FLOWD_URL=flowd.url) for _ in range(2)]

    (execution_id,) = set(re.findall(r"[0-9a-f]{24}", "".join(printed)))
    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    with flowd.redis as redis:
        given = json.loads(redis.get(f"workflow:{execution_id}:input"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", given["day"])


def test_a_failure_is_told_by_the_exit_code_and_by_the_events(
    run_flowd: Run, tmp_path: Path, programs: Path
) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    bad = node("A", handler="unreliable_handler") | {"config": {"failure_rate": 1}}
    (tmp_path / "report.yaml").write_text(json.dumps({"name": "r", "dag": {"nodes": [bad]}}))
    run, follow = blocks("Told when it fails", "bash")
    heard: list[str] = []
    listening = subprocess.Popen(
        ["bash", "-c", "exec " + follow.replace("http://localhost:8000", flowd.url)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert listening.stdout is not None
    reader = threading.Thread(target=heard.extend, args=(iter(listening.stdout.readline, ""),))
    reader.start()
    try:
        told = shell(run, tmp_path, programs, FLOWD_URL=flowd.url)
        assert (told, (tmp_path / "alert.txt").read_text()) == ("the report failed\n",) * 2

        # Whether it listens already nobody says: one of these is the first it hears.
        def is_heard() -> bool:
            flowd.wait_for_execution(flowd.submit_and_trigger(bad))
            return "event: execution.failed\n" in heard

        wait_until(is_heard, "a failure to be heard of")
    finally:
        listening.kill()
        listening.wait()
        reader.join()
    assert "event: execution.completed\n" not in heard
