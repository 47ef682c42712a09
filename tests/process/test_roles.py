"""`flowd api`, `flowd scheduler`, `flowd worker`: for those with their own process manager."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from tests.api_client import ApiClient
from tests.daemon import wait_until
from tests.private_server import PrivateServer, free_port
from tests.process.flowd_process import Flowd, definition, node

Run = Callable[..., Flowd]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateServer]:
    server = PrivateServer()
    server.start()
    (tmp_path / "flowd.toml").write_text(
        f"[api]\nport = 0\n[redis]\nurl = 'unix://{server.socket_path}'\ndata_dir = 'data'\n"
    )
    yield server
    server.stop()


def wait_for_line(flowd: Flowd, text: str) -> str:
    def find() -> str | None:
        assert flowd.process.poll() is None, f"it ended:\n{flowd.stderr}"
        return next((line for line in flowd.stdout.splitlines() if text in line), None)

    line: str = wait_until(find, text)  # type: ignore[assignment]
    return line


@pytest.mark.usefixtures("server")
def test_three_roles_by_hand_are_a_whole_flowd(run_flowd: Run) -> None:
    api = run_flowd("api")
    scheduler = run_flowd("scheduler")
    worker = run_flowd("worker", WORKER_NAME="worker-1")
    line = wait_for_line(api, "flowd api listens on ")
    wait_for_line(worker, "flowd worker worker-1 runs and uses the Redis at unix:")
    wait_for_line(scheduler, "flowd scheduler runs")
    url = re.search(r"http://\S+", line)
    assert url is not None
    client = ApiClient(url[0])

    execution_id = client.submit_workflow(definition(node("A"), node("B", "A")))
    client.trigger_workflow(execution_id)

    wait_until(lambda: client.execution_status(execution_id) == "COMPLETED", "the execution to end")
    assert psutil.Process(worker.process.pid).cmdline()[0] == "flowd: worker-1"
    for role, number in ((api, signal.SIGTERM), (scheduler, signal.SIGINT)):
        role.signal(number)
        assert role.wait_for_end() == 0
    worker.signal(signal.SIGTERM)
    assert worker.wait_for_end() == 0
    assert not any(role.survivors() for role in (api, scheduler, worker))


def test_a_worker_that_redis_refuses_says_so_and_waits(
    run_flowd: Run, server: PrivateServer
) -> None:
    client = redis.Redis(unix_socket_path=server.socket_path)
    client.config_set("maxmemory", 1)
    worker = run_flowd("worker")

    wait_until(lambda: worker.events("redis.lost"), "the reason")
    assert "memory limit" in worker.events("redis.lost")[0]["reason"]
    client.config_set("maxmemory", 0)
    wait_for_line(worker, "runs and uses the Redis")
    assert len(worker.events("redis.lost")) == len(worker.events("redis.reconnected")) == 1


def test_without_workers_ready_nodes_wait_in_the_stream_for_one(run_flowd: Run) -> None:
    flowd = run_flowd("start", FLOWD_WORKERS__COUNT="0")
    flowd.wait_until_running()
    assert flowd.stdout.endswith("; no worker runs\n")
    execution_id = flowd.submit_and_trigger(node("A"), node("B"), node("C", "A", "B"))

    waiting = [entry for _, entry in flowd.redis.xrange("workflow:tasks")]

    assert {entry["node_id"] for entry in waiting} == {"A", "B"}
    assert {entry["execution_id"] for entry in waiting} == {execution_id}
    # It joins the server that has no TCP port, on its socket.
    worker = run_flowd("worker", WORKER_NAME="worker-1")
    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    assert flowd.redis.xlen("workflow:tasks") == 0
    worker.signal(signal.SIGTERM)
    assert worker.wait_for_end() == 0


@pytest.mark.parametrize("role", ["api", "scheduler", "worker"])
def test_a_role_without_redis_says_so_and_starts_none(run_flowd: Run, role: str) -> None:
    port = str(free_port())
    flowd = run_flowd(role, FLOWD_REDIS__MODE="auto", REDIS_PORT=port)

    assert flowd.wait_for_end() == 69
    assert f"flowd: no Redis answers at localhost:{port}" in flowd.stderr
    assert flowd.survivors() == []


@pytest.mark.usefixtures("server")
def test_a_second_api_on_the_same_port_is_refused(run_flowd: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flowd = run_flowd("api", "--port", str(taken.getsockname()[1]))

        assert flowd.wait_for_end() == 75


def test_workers_of_one_name_do_not_share_what_they_hold(
    run_flowd: Run, server: PrivateServer
) -> None:
    workers = [run_flowd("worker", "--name", "twin") for _ in range(2)]
    client = redis.Redis(unix_socket_path=server.socket_path, decode_responses=True)

    # Both write to one file.
    def consumers() -> set[str]:
        return {line["consumer"] for line in workers[0].events("worker.enrolled")}

    wait_until(lambda: len(consumers()) == 2, "two consumers")
    assert {group["name"] for group in client.xinfo_groups("workflow:tasks")} == {"workflow_group"}
    for worker in workers:
        worker.signal(signal.SIGTERM)
        assert worker.wait_for_end() == 0
    # Neither leaves a consumer behind.
    assert client.xinfo_consumers("workflow:tasks", "workflow_group") == []
