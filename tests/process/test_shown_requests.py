"""The manual's examples of limits, the cache, logs, graphs and actions on many, as they stand."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flowd.client import Client
from flowd.config.loading import load_settings
from tests.daemon import PATIENCE_S, wait_until
from tests.manual import blocks
from tests.process.flowd_process import CONFIG, Flowd, clean_environ, node
from tests.process.metered import Metered

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="it is sent with curl")


@pytest.fixture
def flowd(run_flowd: Callable[..., Flowd], tmp_path: Path) -> Flowd:
    (tmp_path / "flowd.toml").write_text(CONFIG + "[handlers.shell]\nenabled = true\n")
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    return flowd


def told(flowd: Flowd, line: str, folder: Path, code: int = 0) -> str:
    """What a command line of flowd prints, without its prompt and its remark."""
    words = shlex.split(line.removeprefix("$ "), comments=True)
    assert words[0] == "flowd"
    ended = subprocess.run(
        [sys.executable, "-m", "flowd.cli.main", *words[1:]],
        cwd=folder,
        env={**clean_environ(), "FLOWD_URL": flowd.url},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout


def answered(flowd: Flowd, command: str, **variables: str) -> str:
    ended = subprocess.run(
        ["bash", "-c", command.replace("http://localhost:8000", flowd.url)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return ended.stdout


def test_limits_are_put_and_lifted_as_it_is_told(flowd: Flowd, tmp_path: Path) -> None:
    (curl,) = blocks("Limits and rates", "bash")
    put, got = (json.loads(answered(flowd, line)) for line in curl.splitlines())
    assert put["name"] == "api"
    assert (got["max"], got["per_s"]) == (3, 10)

    (session,) = blocks("Limits and rates", "console")
    _, listed, api, _ = (told(flowd, line, tmp_path) for line in session.splitlines())
    assert "storage" in listed and "api" in api
    with Client(flowd.url) as client:
        assert [one["name"] for one in client.limits()] == ["api"]


def test_limits_queues_and_concurrency_go_together_as_they_are_told(
    run_flowd: Callable[..., Flowd], tmp_path: Path
) -> None:
    title = "All of it together"
    (tmp_path / "flowd.toml").write_text(CONFIG + blocks(title, "toml")[0])
    customers = [f"customer-{number}" for number in range(4)]
    with Metered(holds_s=0.05) as service:
        written = blocks(title, "yaml")[0].replace("http://service-a", service.url)
        (tmp_path / "orders.yaml").write_text(written)
        flowd = run_flowd("start")
        flowd.wait_until_running()
        (session,) = blocks(title, "console")
        for line in session.splitlines():
            told(flowd, line, tmp_path)
        with Client(flowd.url) as client:
            # All come while nobody may start, those that are urgent last.
            client.put_limit("api", max=0)
            ids: dict[str, list[str]] = {}
            for number, name in enumerate(("report", "order")):
                # The second of a customer waits for the first.
                ids[name] = [
                    client.run_definition(name, {"customer": one})
                    for one in customers
                    for _ in range(2)
                ]
                count = len(customers) * (number + 1)
                wait_until(partial(has_waiting, client, count), f"{count} to wait for a place")
            waiting = [one["execution_id"] for one in client.limit("api")["waiters"]]
            firsts = {name: found[::2] for name, found in ids.items()}
            assert set(waiting[: len(customers)]) == set(firsts["order"])
            assert set(waiting[len(customers) :]) == set(firsts["report"])

            told(flowd, "flowd apply orders.yaml", tmp_path)
            everything = [*ids["report"], *ids["order"]]
            assert {client.wait(one, PATIENCE_S) for one in everything} == {"COMPLETED"}
            rows = {
                name: [{row["node_id"]: row for row in client.nodes(one)} for one in found]
                for name, found in ids.items()
            }

    called = {name: [row["ask"]["queued_ms"] for row in found] for name, found in rows.items()}
    # A node that waited has an entry since its turn came.
    assert max(called["order"][::2]) <= min(called["report"][::2])
    assert service.most["/"] <= 3
    first_ms = min(called["order"] + called["report"])
    last_ms = max(row["ask"]["started_ms"] for found in rows.values() for row in found)
    assert last_ms - first_ms >= 100 * (4 * len(customers) - 1) - 1
    for found in rows.values():
        for first, second in zip(found[::2], found[1::2], strict=True):
            ended_ms = max(row["finished_ms"] for row in first.values())
            assert second["ask"]["started_ms"] >= ended_ms
    drawn = {row["draw"]["worker"].rpartition("-")[0] for row in rows["report"]}
    assert drawn == {"big-1"}


def has_waiting(client: Client, count: int) -> bool:
    return bool(client.limit("api")["waiting"] == count)


def test_the_cache_is_seen_and_cleared_as_it_is_told(flowd: Flowd, tmp_path: Path) -> None:
    (trip,) = (json.loads(one) for one in blocks("Cache", "json"))
    with Client(flowd.url) as client:
        for cached in (False, True):
            execution_id = client.submit(trip, trigger=True)
            assert client.wait(execution_id, PATIENCE_S) == "COMPLETED"
            rows = {one["node_id"]: one["cached"] for one in client.nodes(execution_id)}
            assert rows == {"weather": cached, "advice": cached}
            wait_until(lambda: client.cache()["entries"] == 2, "what both put out is kept")

    (session,) = blocks("Clearing it", "console")
    listed, *cleared = (told(flowd, line, tmp_path) for line in session.splitlines())
    assert "call_external_service" in listed
    assert [line.strip() for line in cleared] == ["", "", ""]
    (curl,) = blocks("Clearing it", "bash")
    shown, removed = (json.loads(answered(flowd, line)) for line in curl.splitlines())
    assert (shown["entries"], removed["removed"]) == (0, 0)


def test_the_morning_after_goes_as_it_is_told(flowd: Flowd, tmp_path: Path) -> None:
    def run(client: Client, *nodes: dict[str, Any]) -> str:
        return client.submit({"name": "night", "dag": {"nodes": nodes}}, trigger=True)

    with Client(flowd.url) as client:
        good = run(client, node("A", handler="unreliable_handler", failure_rate=0.0))
        assert client.wait(good, PATIENCE_S) == "COMPLETED"
        failed = run(client, node("A", handler="unreliable_handler", failure_rate=1.0))
        assert client.wait(failed, PATIENCE_S) == "FAILED"
        asked = run(client, node("ok", handler="signal", prompt="go?"))
        wait_until(
            lambda: [one["state"] for one in client.nodes(asked)] == ["WAITING"], "the question"
        )

    (session,) = blocks("The morning after", "console")
    lines = session.replace("ID NODE", f"{asked} ok").replace("ID", failed).splitlines()
    # `diff` ends with 1 where something differs.
    now, why, shown, _, different, *_ = (
        told(flowd, line, tmp_path, code=int("diff" in line)) for line in lines
    )

    assert failed in now and asked in now
    assert "A" in why and failed in shown
    assert "failure_rate" in different
    with Client(flowd.url) as client:
        assert client.wait(asked, PATIENCE_S) == "COMPLETED"


def test_what_a_node_says_is_read_as_it_is_told(flowd: Flowd, tmp_path: Path) -> None:
    build = node("build", handler="shell", command=["echo", "made it"])
    with Client(flowd.url) as client:
        execution_id = client.submit({"name": "made", "dag": {"nodes": [build]}}, trigger=True)
        assert client.wait(execution_id, PATIENCE_S) == "COMPLETED"

    (shown,) = blocks("Logs of nodes", "bash")
    for line in shown.replace("01a2", execution_id).splitlines():
        assert "made it" in told(flowd, line, tmp_path), line
    (curl,) = blocks("Reading them", "bash")
    assert "made it" in answered(flowd, curl, ID=execution_id)


def test_a_graph_and_an_action_on_many_are_as_they_are_shown(flowd: Flowd) -> None:
    each = node("each", "load", handler="shell", command=["true"])
    nodes = [
        node("load"),
        each | {"map": {"over": "{{ input.files }}"}},
        node("report", "each", handler="shell", command=["false"]),
    ]
    workflow: dict[str, Any] = {
        "name": "graph",
        "input": {"files": [1, 2]},
        "dag": {"nodes": nodes, "finally": [node("tidy")]},
    }
    with Client(flowd.url) as client:
        execution_id = client.submit(workflow, trigger=True)
        assert client.wait(execution_id, PATIENCE_S) == "FAILED"
        (graph,) = blocks("Graph and states", "json")
        assert json.loads(graph).items() <= client.graph(execution_id).items()

        (action,) = blocks("Acting on many", "json")
        answer = answered(flowd, f"curl -s http://localhost:8000/workflows/actions -d '{action}'")
        assert [one["execution_id"] for one in json.loads(answer)["sample"]] == [execution_id]


def test_settings_of_queues_are_taken_as_they_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "flowd.toml"
    path.write_text(blocks("Who reads them", "toml")[0])
    assert tuple(load_settings(path, {}, {}).workers.queues) == ("urgent", "default", "low")
    path.write_text(blocks("Groups of workers", "toml")[0])
    (group,) = load_settings(path, {}, {}).workers.groups
    assert (group.name, group.size, tuple(group.queues)) == ("gpu", 1, ("gpu",))
