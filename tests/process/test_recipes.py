"""The manual's recipes, its backup and its restore, done as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from tests.daemon import PATIENCE_S, wait_until
from tests.manual import blocks
from tests.process.flowd_process import CONFIG, Flowd, clean_environ, node

Run = Callable[..., Flowd]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH with flowd."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "flowd").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m flowd.cli.main "$@"\n')
    (folder / "flowd").chmod(0o755)
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
    (backup,) = blocks("Backup", "bash")
    shell(backup, tmp_path, programs)
    kept = flowd.submit_and_trigger(node("A"), node("B", "A"))
    assert flowd.wait_for_execution(kept) == "COMPLETED"

    with under_load(flowd) as acknowledged:
        for count in (5, 10):
            wait_until(partial(has_more_than, count, acknowledged), "work")
            before = list(acknowledged)
            made = shell(backup, tmp_path, programs).strip()
    later = flowd.submit_and_trigger(node("A"))
    (restore,) = blocks("Restore", "bash")
    *steps, start = restore.strip().splitlines()
    assert start == "flowd start"
    shell(re.sub(r"backups/flowd-\S+", made, "\n".join(steps)), tmp_path, programs)

    again = run_flowd("start", "--workers", "1")
    again.wait_until_running()
    assert again.api.execution_status(kept) == "COMPLETED"
    again.api.trigger_workflow(before[-1])
    assert again.wait_for_execution(before[-1]) == "COMPLETED"
    with again.redis as redis:
        assert all(redis.exists(f"workflow:{one}:status") for one in before)
        assert not redis.exists(f"workflow:{later}:status")
    assert shell("flowd doctor", tmp_path, programs)


def has_more_than(count: int, ids: list[str]) -> bool:
    return len(ids) > count


@contextmanager
def under_load(flowd: Flowd) -> Iterator[list[str]]:
    """Workflows are submitted, and the server rewrites its files again and again; the ids."""
    acknowledged: list[str] = []
    is_over = threading.Event()

    def load() -> None:
        with flowd.redis as redis:
            while not is_over.is_set():
                acknowledged.append(flowd.api.submit_workflow(json.dumps(workflow()).encode()))
                with suppress(ResponseError):
                    # One at a time.
                    redis.bgrewriteaof()

    loading = threading.Thread(target=load)
    loading.start()
    try:
        yield acknowledged
    finally:
        is_over.set()
        loading.join()


def workflow() -> dict[str, object]:
    return {"name": "waits", "dag": {"nodes": [node("A"), node("B", "A")]}}


def test_a_nightly_job_goes_as_it_is_told_from_its_first_line_to_the_alert(
    run_flowd: Run, tmp_path: Path, programs: Path
) -> None:
    title = "A nightly job"
    (tmp_path / "dates.py").write_text(blocks(title, "python")[0])
    (tmp_path / "nightly.yaml").write_text(blocks(title, "yaml")[0])
    (tmp_path / "flowd.toml").write_text(CONFIG + blocks(title, "toml")[0])
    try_it, use_it, change_it = (
        [line.removeprefix("$ ") for line in session.splitlines()]
        for session in blocks(title, "console")
    )

    before = datetime.now()
    printed = [shell(line, tmp_path, programs) for line in try_it]
    yesterdays = {(at - timedelta(days=1)).date().isoformat() for at in (before, datetime.now())}
    assert json.loads(printed[-1])["day"]["date"] in yesterdays

    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    printed = [shell(line, tmp_path, programs, FLOWD_URL=flowd.url) for line in use_it]
    assert "schedule nightly created" in printed[0]
    assert all(re.search(r"T06:30:00\+0[12]:00", line) for line in printed[1].splitlines())
    results = json.loads(printed[-1])
    assert set(results) == {"day", "fetch", "sum_up"}
    assert results["fetch"]["data"].endswith(f"day={results['day']['date']}")

    printed = [shell(line, tmp_path, programs, FLOWD_URL=flowd.url) for line in change_it]
    assert "Sum up in one sentence" in printed[1]
    assert printed[2].splitlines() == ["definition report changed (version 2)"]
    assert re.search(r"sum_up +runs +its config changed", printed[3])
    assert re.search(r"fetch +is reused +unchanged", printed[3])
    assert "one sentence" in json.loads(printed[4])["sum_up"]["answer"]

    text = (tmp_path / "nightly.yaml").read_text()
    failing = text.replace("handler: llm", "handler: unreliable_handler").replace(
        'prompt: "Sum up in one sentence: {{ fetch.data }}"', "failure_rate: 1"
    )
    (tmp_path / "nightly.yaml").write_text(failing)
    shell(use_it[0], tmp_path, programs, FLOWD_URL=flowd.url)
    started = shell(f"{use_it[2]} -o json", tmp_path, programs, FLOWD_URL=flowd.url)
    execution_id = json.loads(started)["execution_id"]
    assert flowd.wait_for_execution(execution_id) == "FAILED"
    assert "service-b/alerts" in flowd.api.execution_results(execution_id)["alert"]["data"]

    metrics = urllib.request.urlopen(f"{flowd.url}/metrics", timeout=PATIENCE_S).read().decode()
    for name in re.findall(r"flowd_\w+", blocks(title, "promql")[0]):
        assert re.search(rf"^{name} ", metrics, re.MULTILINE), name


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
