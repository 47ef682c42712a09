"""The image and the compose file without an engine: what they say is run by the kernel's own means.

Each service is the first process of its own PID namespace, with a read-only root, on a network
where its neighbours have the names of the compose file.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowd.supervisor.embedded_server import find_binary
from tests.daemon import PATIENCE_S, wait_until

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "scripts" / "container"
COMPOSE = yaml.safe_load((CONTAINER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
CONTAINERFILE = (CONTAINER / "Containerfile").read_text()
CONFIG = """
[handlers]
modules = ["ours"]
[workers]
count = 1
"""
HANDLERS = """
import os, subprocess, time
from flowd.handlers import handler

@handler("leaves")
def leaves(config: dict, context) -> dict:
    for _ in range(5):
        subprocess.run(["sh", "-c", "setsid sh -c 'exit 0' &"], check=True)
    return {"is": "done"}

@handler("waits")
def waits(config: dict, context) -> dict:
    while context.attempt == 1 and not os.path.exists(config["for"]):
        time.sleep(0.01)
    return {"attempt": context.attempt}
"""
# Brings up the loopback of its new network (SIOCSIFFLAGS with IFF_UP), and then calls the API from
# inside it: a line with method, path and body is answered by one with status and body, or with null
# where nobody listens.
CALLER = """
import fcntl, http.client, json, socket, struct, sys
fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 1))
print(flush=True)
for line in sys.stdin:
    method, path, body = json.loads(line)
    connection = http.client.HTTPConnection("localhost", 8000)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = [answer.status, answer.read().decode()]
    except (OSError, http.client.HTTPException):
        said = None
    connection.close()
    print(json.dumps(said), flush=True)
"""
# As with `docker stop --time 2`: its ten seconds are those of `scripts/try_containers`.
GRACE_S = 2.0

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may make the namespaces of a container"
)


def instruction(name: str) -> Any:
    return json.loads(re.findall(rf"^{name} (.+)$", CONTAINERFILE, re.MULTILINE)[-1])


class Machine:
    """A network of its own, in which the compose file's names mean this machine."""

    def __init__(self, folder: Path) -> None:
        self.volume = folder / "volume"
        self.volume.mkdir()
        (self.volume / "flowd.toml").write_text(CONFIG)
        (self.volume / "ours.py").write_text(HANDLERS)
        programs = folder / "bin"
        programs.mkdir()
        (programs / "redis-server").symlink_to(find_binary())
        (programs / "flowd").symlink_to(Path(sys.executable).with_name("flowd"))
        (programs / "python").symlink_to(sys.executable)
        self.redis_data = folder / "redis"
        self.redis_data.mkdir()
        self.path = f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost " + " ".join(SERVICES) + "\n")
        call = shlex.join([sys.executable, "-c", CALLER])
        script = f"mount --bind {hosts} /etc/hosts && exec {call}"
        self._process = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "what calls the API has ended"
        return line

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", "--target", str(self._process.pid), "--net", "--mount", *command]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer; None where there is none yet."""
        assert self._process.stdin is not None
        text = None if body is None else json.dumps(body)
        print(json.dumps([method, path, text]), file=self._process.stdin, flush=True)
        said = json.loads(self._answer())
        return json.loads(said[1]) if said is not None and said[0] == 200 else None

    def start(self, workflow: Mapping[str, Any]) -> str:
        """The id of its execution."""
        execution_id = str(self.call("POST", "/workflow", workflow)["execution_id"])
        assert self.call("POST", f"/workflow/trigger/{execution_id}")
        return execution_id

    def has_completed(self, execution_id: str) -> bool:
        answer = self.call("GET", f"/workflows/{execution_id}") or {}
        assert answer.get("status") != "FAILED"
        return answer.get("status") == "COMPLETED"

    def results(self, execution_id: str) -> dict[str, Any]:
        answer = self.call("GET", f"/workflows/{execution_id}/results")
        return dict(answer["results"])

    def all_run(self, execution_id: str) -> bool:
        nodes = (self.call("GET", f"/workflows/{execution_id}/nodes") or {}).get("nodes", [])
        return {node["state"] for node in nodes} == {"RUNNING"}


class Container:
    """A command of the image, as an engine would run it: `name` is the host's."""

    def __init__(self, machine: Machine, command: Sequence[str], name: str, **environ: str) -> None:
        # The volumes are in /tmp, like whatever a tmpfs there would hold.
        folder = machine.redis_data if command[0] == "redis-server" else machine.volume
        steps = f"hostname {name}; mount --bind /tmp /tmp; mount -o remount,bind,ro /; cd {folder}"
        self.log = machine.volume.parent / f"{name}.log"
        with self.log.open("ab") as log:
            self._unshare = subprocess.Popen(
                machine.inside(
                    *("unshare", "--uts", "--mount", "--pid", "--fork", "--mount-proc"),
                    *("--kill-child", "sh", "-ec", f"{steps}; exec {shlex.join(command)}"),
                ),
                stdout=log,
                stderr=log,
                env={"PATH": machine.path, "PYTHONDONTWRITEBYTECODE": "1", **environ},
            )

    @property
    def first_process(self) -> int:
        pid = self._unshare.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.first_process, number)

    def stop(self, grace_s: float, after_term: Callable[[], None] = lambda: None) -> int:
        """As an engine does: TERM, and KILL for what still lives `grace_s` later."""
        self.signal(signal.SIGTERM)
        after_term()
        try:
            return self._unshare.wait(grace_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        self.signal(signal.SIGKILL)
        return self._unshare.wait(PATIENCE_S)

    def says(self, text: str) -> bool:
        assert self._unshare.poll() is None, self.log.read_text()
        return text in self.log.read_text()

    def end(self) -> None:
        # With its first process all others of its namespace are killed.
        self._unshare.kill()
        self._unshare.wait()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.end()


def service(machine: Machine, kind: str, number: int = 1) -> Container:
    said = SERVICES[kind]
    entry = instruction("ENTRYPOINT") if said["image"] == "flowd" else []
    environ = said.get("environment", {})
    return Container(machine, [*entry, *said["command"]], f"{kind}-{number}", **environ)


@contextmanager
def composed(machine: Machine, workers: int) -> Iterator[dict[str, Container]]:
    """Every service of the compose file, first what the others depend on."""
    running: dict[str, Container] = {}
    with ExitStack() as stack:

        def start(kind: str, number: int, said: str) -> None:
            running[f"{kind}-{number}"] = one = service(machine, kind, number)
            stack.callback(one.end)
            expected.append((one, said))

        expected: list[tuple[Container, str]] = []
        start("redis", 1, "eady to accept")
        wait_until(lambda: running["redis-1"].says("eady to accept"), "Redis")
        start("api", 1, "flowd api listens on http://127.0.0.1:8000")
        start("scheduler", 1, "flowd scheduler runs")
        for number in range(1, workers + 1):
            # Their name is their host's, which no two have.
            start("worker", number, f"flowd worker worker-worker-{number} runs")
        for one, said in expected:
            wait_until(partial(one.says, said), said)
        yield running


def waiting_workflow(file: Path) -> dict[str, Any]:
    """Six nodes that wait for a file, each at its first attempt."""
    node = {"handler": "waits", "config": {"for": str(file)}}
    return {"name": "waits", "dag": {"nodes": [{"id": f"n{at}", **node} for at in range(6)]}}


def attempts(machine: Machine, execution_id: str) -> set[int]:
    return {one["attempt"] for one in machine.results(execution_id).values()}


def test_the_services_run_the_samples_and_lose_nothing_when_workers_are_stopped(
    machine: Machine,
) -> None:
    sample = json.loads((ROOT / "flowd" / "samples" / "linear.json").read_text())
    with composed(machine, workers=3) as running:
        execution_id = machine.start(sample)
        wait_until(lambda: machine.has_completed(execution_id), "the sample to end")
        assert machine.results(execution_id)["A"] == {"data": "Simulated call to http://service-a"}

        over = machine.volume / "over"
        drained = machine.start(waiting_workflow(over))
        wait_until(lambda: machine.all_run(drained), "all nodes to run")
        assert running["worker-1"].stop(PATIENCE_S, over.touch) == 0
        wait_until(lambda: machine.has_completed(drained), "what was drained")
        assert attempts(machine, drained) == {1}

        # Of nodes that do not end in time, or whose worker is killed at once, another begins anew.
        killed = machine.start(waiting_workflow(machine.volume / "never"))
        wait_until(lambda: machine.all_run(killed), "all nodes to run")
        assert running["worker-2"].stop(GRACE_S) != 0
        assert running["worker-3"].kill() != 0
        other = service(machine, "worker", 4)
        try:
            wait_until(lambda: machine.has_completed(killed), "what was killed")
        finally:
            other.end()
        assert attempts(machine, killed) == {2}


def test_the_image_alone_is_a_first_process_that_reaps_and_drains_on_a_read_only_root(
    machine: Machine,
) -> None:
    command = [*instruction("ENTRYPOINT"), *instruction("CMD")]
    alone = Container(machine, command, "alone")
    try:
        wait_until(partial(alone.says, "flowd listens on"), "flowd")
        left = machine.start({"name": "x", "dag": {"nodes": [{"id": "a", "handler": "leaves"}]}})
        wait_until(lambda: machine.has_completed(left), "a node that leaves processes behind")
        wait_until(lambda: "Z" not in states_below(alone.first_process), "the dead to be reaped")
        over = machine.volume / "over"
        short = machine.start(waiting_workflow(over))
        wait_until(lambda: machine.all_run(short), "all nodes to run")
        assert alone.stop(PATIENCE_S, over.touch) == 0

        alone = Container(machine, command, "alone")
        wait_until(lambda: machine.has_completed(short), "what was drained")
        assert attempts(machine, short) == {1}
        long = machine.start(waiting_workflow(machine.volume / "never"))
        wait_until(lambda: machine.all_run(long), "all nodes to run")
        assert alone.stop(GRACE_S) != 0

        alone = Container(machine, command, "alone")
        wait_until(lambda: machine.has_completed(long), "what was stopped and killed")
        assert attempts(machine, long) == {2}
    finally:
        alone.end()


def states_below(first: int) -> set[str]:
    """Of all processes of its container."""
    found = {Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[0]}
    for child in Path(f"/proc/{first}/task/{first}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):
            found |= states_below(int(child))
    return found


def test_the_compose_file_of_the_checkout_is_this_one() -> None:
    included = yaml.safe_load((ROOT / "compose.yaml").read_text())["include"]

    assert [ROOT / one for one in included] == [CONTAINER / "compose.yaml"]
    build = SERVICES["api"]["build"]
    assert (CONTAINER / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == CONTAINER / "Containerfile"


def test_the_image_runs_as_nobody_with_one_volume_and_a_check() -> None:
    assert re.search(r"^USER 10001:10001$", CONTAINERFILE, re.MULTILINE)
    assert re.findall(r"^VOLUME (.+)$", CONTAINERFILE, re.MULTILINE) == ["/var/lib/flowd"]
    assert re.search(r"^HEALTHCHECK .* CMD \[\"flowd\", \"status\"\]$", CONTAINERFILE, re.MULTILINE)
    assert instruction("CMD") == ["start"]
    for name, service in SERVICES.items():
        if service["image"] == "flowd":
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
