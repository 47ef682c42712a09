"""Faults of Redis and of the way there, under a whole flowd: rows R1 to R4, R6 and R8.

And those of rows P8, P11 and P17 that take the same means.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from flowd.cli.status_page import status_page
from flowd.supervisor.asking import ask
from flowd.supervisor.bare_redis import ProbeResult, probe
from flowd.supervisor.embedded_server import find_binary
from scripts.soaking.checker import check_processes, find_violations
from scripts.soaking.handlers import LEDGER
from scripts.soaking.ledger import CANCELLED, START, Ledger
from tests.api_client import ApiError
from tests.daemon import PATIENCE_S, Daemon, wait_until
from tests.private_server import PrivateServer
from tests.process.faulty import ROOT, FaultyFlowd
from tests.process.flowd_process import CONFIG, clean_environ, definition, node
from tests.process.means import Clock, MemoryLimit, Network, fill, small_disk

Run = Callable[..., FaultyFlowd]
Figure = Callable[[str], None]

CHAIN = (node("A"), node("B", "A"), node("C", "B"))


def held(node_id: str, *dependencies: str) -> dict[str, Any]:
    return node(node_id, *dependencies, handler="held")


def configure(folder: Path, url: str, more: str = "") -> None:
    (folder / "flowd.toml").write_text(
        f"[api]\nport = 0\n[redis]\nurl = '{url}'\ndata_dir = 'data'\n{more}"
    )


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PrivateServer]:
    """A Redis that flowd is told of, and that the test may do anything to."""
    server = PrivateServer()
    server.start()
    configure(tmp_path, f"unix://{server.socket_path}")
    yield server
    server.stop()


def client_of(server: PrivateServer) -> redis_py.Redis:
    return redis_py.Redis(unix_socket_path=server.socket_path, decode_responses=True)


def patient_client_of(server: PrivateServer) -> redis_py.Redis:
    """One that waits for its answer: others ask again, and what takes long would begin again."""
    return redis_py.Redis(unix_socket_path=server.socket_path, socket_timeout=None)


def restarts(flowd: FaultyFlowd) -> dict[str, tuple[int, int]]:
    """Every process but the server, which somebody may have killed."""
    status = flowd.wait_until_running()
    return {
        one["name"]: (one["pid"], one["restarts"])
        for one in status["processes"]
        if one["role"] != "server"
    }


def answers_to(flowd: FaultyFlowd, method: str, path: str, body: bytes = b"") -> Any:
    connection = HTTPConnection(flowd.url.removeprefix("http://"), timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.body = answer.read()
        return answer
    finally:
        connection.close()


def still_works(flowd: FaultyFlowd) -> None:
    """A new execution is taken and run, as soon as the API finds Redis again."""

    def start() -> str | None:
        try:
            return flowd.submit_and_trigger(*CHAIN)
        except ApiError as error:
            assert "answered 503" in str(error)
            return None

    assert flowd.wait_for_execution(wait_until(start, "a trigger to be taken")) == "COMPLETED"


class Clients:
    """Submit and trigger without pause, and know what was acknowledged."""

    def __init__(self, flowd: FaultyFlowd, count: int = 4) -> None:
        self._api = flowd.api
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(count)]
        self.acknowledged: list[str] = []
        self.refused = 0

    def _work(self) -> None:
        # With something to do, or the server is killed at rest.
        wanted = definition(node("A", handler="sleep", seconds=0.01), node("B", "A"))
        while not self._is_over.is_set():
            try:
                execution_id = self._api.submit_workflow(wanted)
                self._api.trigger_workflow(execution_id)
                self.acknowledged.append(execution_id)
            except ApiError:
                self.refused += 1
                time.sleep(0.02)

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def test_r01_every_acknowledged_trigger_survives_the_death_of_the_server(
    run_faulty: Run, figure: Figure
) -> None:
    flowd = run_faulty("start")
    before = restarts(flowd)
    took_s = []
    with Clients(flowd) as clients:
        for death in range(1, 4):
            known = len(clients.acknowledged)
            wait_until(lambda known=known: len(clients.acknowledged) > known + 20, "some work")
            flowd.kill("redis")
            socket_path = str(flowd.data_dir / "redis.sock")
            wait_until(
                lambda path=socket_path: probe(path) is ProbeResult.READY, "the server to answer"
            )
            answered_at = time.monotonic()
            wait_until(
                lambda at=answered_at: any(call["at"] > at for call in flowd.calls()[-8:]),
                "work to go on",
            )
            took_s.append(time.monotonic() - answered_at)
            flowd.wait_for_post("redis", lambda one, n=death: one["restarts"] == n)

    acknowledged = clients.acknowledged
    with flowd.redis as redis:
        wait_until(lambda: redis.scard("workflows:active") == 0, "the end of all")
        assert find_violations(redis, acknowledged) == []
        states = {redis.get(f"workflow:{one}:status") for one in acknowledged}
    assert states == {"COMPLETED"}
    figure(
        f"0 of {len(acknowledged)} lost in 3 kills, work goes on {max(took_s):.2f} s after it "
        f"answers, {clients.refused} requests refused"
    )
    assert restarts(flowd) == before
    flowd.check_and_stop()


def test_r02_what_redis_forgets_is_made_anew_and_nobody_dies_of_it(
    run_faulty: Run, own_server: PrivateServer, figure: Figure
) -> None:
    flowd = run_faulty("start", FLOWD_SCHEDULER__INTERVAL_S="0.1")
    before = restarts(flowd)

    def restart_empty(_: redis_py.Redis) -> None:
        own_server.process.kill()
        own_server.process.wait()
        own_server.start()

    losses: dict[str, tuple[Callable[[redis_py.Redis], Any], bool]] = {
        "scripts": (lambda redis: redis.script_flush(), False),
        "group": (lambda redis: redis.xgroup_destroy("workflow:tasks", "workflow_group"), False),
        "everything": (lambda redis: redis.flushall(), True),
        "everything, and itself": (restart_empty, True),
    }
    emptied = 0
    for lose, is_all_lost in losses.values():
        (flowd.folder / "open").unlink(missing_ok=True)
        known = len(flowd.calls())
        caught = flowd.submit_and_trigger(held("A"), node("B", "A"))
        flowd.wait_for_calls(known + 1)
        still_works(flowd)
        wait_for_ticks(client_of(own_server))

        lose(client_of(own_server))

        still_works(flowd)
        if is_all_lost:
            emptied += 1
            wait_until(
                lambda told=emptied: len(flowd.events("redis.emptied")) == told, "it to be told"
            )
        flowd.open()
        if is_all_lost:
            assert answers_to(flowd, "GET", f"/workflows/{caught}").status == 404
        else:
            assert flowd.wait_for_execution(caught) == "COMPLETED"
    with client_of(own_server) as redis:
        wait_until(lambda: redis.scard("workflows:active") == 0, "the end of all")
        assert find_violations(redis, []) == []
        # A late commit has written nothing.
        assert not list(redis.scan_iter(f"workflow:{caught}*"))
    assert restarts(flowd) == before
    figure(f"{len(losses)} losses, {emptied} told as such, 0 restarts, 0 late writes")
    # Whoever reads the log knows what happened.
    assert flowd.events("group.recreated")
    flowd.check_and_stop()


def wait_for_ticks(redis: redis_py.Redis) -> None:
    """Two of the scheduler: the second has seen all there was when this was called."""
    for _ in range(2):
        last = redis.get("flowd:scheduler")
        wait_until(lambda last=last: redis.get("flowd:scheduler") != last, "a tick")


def test_r03_a_full_server_takes_nothing_new_and_ends_what_runs(
    run_faulty: Run, own_server: PrivateServer, figure: Figure
) -> None:
    flowd = run_faulty("start", "--workers", "1", FLOWD_TEST_LEASE_S="3")
    before = restarts(flowd)
    slow = [node(f"N{at}", f"N{at - 1}", handler="sleep", seconds=0.1) for at in range(1, 30)]
    running = flowd.submit_and_trigger(held("N0"), *slow)
    flowd.wait_for_calls(1)
    waiting = flowd.api.submit_workflow(definition(*CHAIN))
    redis = client_of(own_server)

    redis.config_set("maxmemory", 1)

    flowd.open()
    wait_until(lambda: flowd.events("reads.paused"), "the worker to pause its reads")

    def counts() -> Counter[str]:
        return Counter(flowd.node_states(running).values())

    # What ran is committed, and nothing is left in a worker's hands.
    wait_until(lambda: counts()["COMPLETED"] and not counts()["RUNNING"], "the commits")
    wait_until(lambda: redis.xpending("workflow:tasks", "workflow_group")["pending"] == 0, "rest")
    at_rest = counts()
    assert at_rest["QUEUED"] == 1

    for path, body in (("/workflow", definition(*CHAIN)), (f"/workflow/trigger/{waiting}", b"")):
        answer = answers_to(flowd, "POST", path, body)
        assert answer.status == 503, answer.body
        assert int(answer.getheader("Retry-After")) >= 1
        assert json.loads(answer.body)["status"] == 503
    assert answers_to(flowd, "GET", f"/workflows/{waiting}").status == 200
    assert counts() == at_rest
    figure(f"{at_rest['COMPLETED']} nodes committed while full, 0 started once reads had paused")

    redis.config_set("maxmemory", 0)
    assert flowd.wait_for_execution(running) == "COMPLETED"
    flowd.api.trigger_workflow(waiting)
    assert flowd.wait_for_execution(waiting) == "COMPLETED"
    assert len(flowd.events("reads.resumed")) == 1
    assert find_violations(redis, [running, waiting]) == []
    assert restarts(flowd) == before
    flowd.check_and_stop()


def as_replica(server: PrivateServer) -> Iterator[None]:
    redis = client_of(server)
    redis.replicaof("127.0.0.1", "1")
    yield
    redis.replicaof("NO", "ONE")


def as_frozen(server: PrivateServer) -> Iterator[None]:
    server.process.send_signal(signal.SIGSTOP)
    yield
    server.process.send_signal(signal.SIGCONT)


def as_paused(server: PrivateServer) -> Iterator[None]:
    # A paused server takes no order to end it, so it ends by itself.
    client_of(server).client_pause(int(2 * HUNG_AFTER_S * 1000))
    yield


def as_asleep(server: PrivateServer) -> Iterator[None]:
    redis = patient_client_of(server)
    asleep = threading.Thread(target=redis.execute_command, args=("DEBUG", "SLEEP", "10"))
    asleep.start()
    yield
    asleep.join()


def as_loading(server: PrivateServer) -> Iterator[None]:
    redis = patient_client_of(server)
    with redis.pipeline(transaction=False) as pipe:
        for number in range(2_500):
            pipe.set(f"ballast:{number}", os.urandom(32).hex())
        pipe.execute()
    redis.config_set("loading-process-events-interval-bytes", 1024)
    redis.config_set("key-load-delay", 2000)
    loading = threading.Thread(target=redis.execute_command, args=("DEBUG", "RELOAD"))
    loading.start()
    wait_until(lambda: probe(server.socket_path) is ProbeResult.LOADING, "the server to load")
    yield
    loading.join()
    redis.config_set("key-load-delay", 0)


# What a loop may stand still for, and is not taken for where it waits for a processor.
HUNG_AFTER_S = 3.0
OUTAGES = {
    "replica": as_replica,
    "frozen": as_frozen,
    "paused": as_paused,
    "asleep": as_asleep,
    "loading": as_loading,
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_r04_whatever_redis_does_not_do_is_waited_for(
    run_faulty: Run, own_server: PrivateServer, figure: Figure, outage: str
) -> None:
    flowd = run_faulty(
        "start", FLOWD_SUPERVISOR__HUNG_AFTER_S=str(HUNG_AFTER_S), FLOWD_SCHEDULER__INTERVAL_S="0.1"
    )
    before = restarts(flowd)
    assert not says_that_redis_is_away(flowd)
    nodes = node("A", handler="sleep", seconds=0.2), node("B", "A"), held("C")
    caught = flowd.submit_and_trigger(*nodes)
    flowd.wait_for_calls(2)
    began_at = time.monotonic()
    with contextmanager(OUTAGES[outage])(own_server):
        flowd.open()
        wait_until(lambda: says_that_redis_is_away(flowd), "the status to say so")
        told_s = time.monotonic() - began_at
        # Longer than a loop may stand still, and the control socket answers.
        wait_until(
            lambda: time.monotonic() > began_at + 1.2 * HUNG_AFTER_S and flowd.status(),
            "more than a loop may stand still",
        )
    assert flowd.wait_for_execution(caught) == "COMPLETED"
    still_works(flowd)
    wait_until(lambda: not says_that_redis_is_away(flowd), "the status to take it back")
    assert find_violations(client_of(own_server), [caught]) == []
    # No attempt was lost over it, and nobody restarted.
    assert flowd.events("child.hung") == flowd.events("node.requeued") == []
    assert {call["attempt"] for call in flowd.calls()} == {1}
    figure(f"told after {told_s:.1f} s; 0 restarts, 0 attempts lost")
    assert restarts(flowd) == before
    flowd.check_and_stop()


def says_that_redis_is_away(flowd: FaultyFlowd) -> bool:
    status = flowd.status()
    assert status is not None
    return "Redis does not answer" in status_page(status)


@contextmanager
def server_across(network: Network, folder: Path) -> Iterator[tuple[str, str]]:
    """A Redis on the home side; its address there, and its unix socket."""
    socket_path = str(folder / "redis.sock")
    command = [
        find_binary(os.environ.get("FLOWD_TEST_REDIS_SERVER")),
        *("--port", "6379", "--bind", network.address, "--protected-mode", "no"),
        *("--unixsocket", socket_path, "--dir", str(folder), "--save", ""),
    ]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(network.on(network.home, command), stdout=log, stderr=log)
    try:
        wait_until(lambda: probe(socket_path) is ProbeResult.READY, "the server to answer")
        yield f"redis://{network.address}:6379", socket_path
    finally:
        process.kill()
        process.wait()


# What a busy machine does not keep anybody from for so long, and what is soon over.
LEASE_S = 3.0


def test_r06_a_worker_behind_a_partition_stops_before_its_work_is_given_away(
    tmp_path: Path, figure: Figure
) -> None:
    modules = "[handlers]\nmodules = ['scripts.soaking.handlers']\n"
    environ = {"FLOWD_TEST_LEASE_S": str(LEASE_S), LEDGER: str(tmp_path / "ledger.sock")}
    for name in ("home", "far"):
        (tmp_path / name).mkdir()
    with (
        Network() as network,
        server_across(network, tmp_path) as (url, socket_path),
        Ledger(tmp_path / "ledger.sock") as ledger,
    ):
        configure(tmp_path / "home", f"unix://{socket_path}", modules)
        configure(tmp_path / "far", url, modules)
        home = FaultyFlowd(tmp_path / "home", ("start", "--workers", "0"), **environ)
        command = [sys.executable, "-m", FaultyFlowd.module, "worker", "--name", "far"]
        far = Daemon(
            network.on(network.far, command),
            tmp_path / "far",
            tmp_path / "far" / "data",
            clean_environ() | environ | {"PYTHONPATH": str(ROOT)},
        )
        with home, far:
            home.wait_until_running()
            sleepy = node("A", handler="ledger_sleepy", seconds=1.5 * LEASE_S)
            execution_id = home.submit_and_trigger(sleepy, node("B", "A"))
            wait_until(lambda: ledger.notes(START), "the start of A")
            ask(home.data_dir, "scale", workers=1)

            network.plug(is_in=False)

            wait_until(lambda: len(ledger.notes(START)) == 2, "the second start of A")
            first, second = ledger.notes(START)
            (cancelled,) = ledger.notes(CANCELLED)
            assert (first.pid, first.attempt) == (cancelled.pid, cancelled.attempt)
            assert cancelled.at_s < second.at_s
            figure(
                f"let go {second.at_s - cancelled.at_s:.2f} s before it was given away, "
                f"with a lease of {LEASE_S:g} s"
            )
            assert second.pid != first.pid
            network.plug(is_in=True)

            assert home.wait_for_execution(execution_id) == "COMPLETED"
            assert [one["reason"] for one in far.events("lease.lost")]
            with redis_py.Redis(unix_socket_path=socket_path, decode_responses=True) as redis:
                # It has come back as a stranger.
                wait_until(lambda: redis.hlen("flowd:leases") == 2, "the far one to be back")
                found = find_violations(redis, [execution_id])
            assert found == []
            far.signal(signal.SIGTERM)
            assert far.wait_for_end() == 0
            home.signal(signal.SIGTERM)
            assert home.wait_for_end() == 0


@pytest.mark.parametrize("who", ["everybody", "the server"])
def test_r08_a_clock_that_jumps_takes_nothing_away_and_stops_nothing(
    run_faulty: Run, own_server: PrivateServer, tmp_path: Path, figure: Figure, who: str
) -> None:
    clock = Clock(tmp_path)
    own_server.stop()
    own_server.folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name, text in clock.environ.items():
            patch.setenv(name, text)
        own_server.start()
    redis = client_of(own_server)
    true_hour = redis.time()[0] // 3600
    lease_s = 2.0
    preloaded = clock.environ if who == "everybody" else {}
    flowd = run_faulty("start", FLOWD_TEST_LEASE_S=str(lease_s), **preloaded)
    before = restarts(flowd)
    execution_ids = [flowd.submit_and_trigger(held("A"), node("B", "A")) for _ in range(20)]
    flowd.wait_for_calls(20)

    for hours in (5, -5, 0):
        clock.jump_to(hours)
        wait_until(
            lambda hours=hours: redis.time()[0] // 3600 - true_hour in (hours, hours + 1),
            "the jump, which the server notes at its next look",
        )
        still_works(flowd)
        until = time.monotonic() + 1.5 * lease_s
        wait_until(lambda at=until: time.monotonic() > at, "a lease and a half")
        assert len(flowd.calls()) == 20
        flaky = {**node("F", handler="fail_once"), "retry": {"max_attempts": 2, "delay_s": 0.1}}
        assert flowd.wait_for_execution(flowd.submit_and_trigger(flaky)) == "COMPLETED"
        (flowd.folder / "calls").write_text(
            "".join(json.dumps(call) + "\n" for call in flowd.calls("A"))
        )

    flowd.open()
    assert [flowd.wait_for_execution(one) for one in execution_ids] == ["COMPLETED"] * 20
    assert [call["attempt"] for call in flowd.calls("A")] == [1] * 20
    taken = sum(call["attempt"] > 1 for call in flowd.calls("A"))
    figure(f"+5 h, -5 h and back: {taken} of {len(execution_ids)} running nodes taken away")
    assert find_violations(redis, execution_ids) == []
    assert restarts(flowd) == before
    flowd.check_and_stop()


def test_r08_a_node_that_waits_for_its_retry_does_not_wait_for_the_clock(
    run_faulty: Run, tmp_path: Path
) -> None:
    clock = Clock(tmp_path)
    flowd = run_faulty("start", **clock.environ)
    flowd.wait_until_running()
    retry = {"max_attempts": 2, "delay_s": 1.0}
    execution_id = flowd.submit_and_trigger({**node("F", handler="fail_once"), "retry": retry})
    wait_until(lambda: flowd.node_states(execution_id)["F"] == "RETRYING", "the first failure")

    clock.jump_to(-5)

    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    flowd.check_and_stop()


@contextmanager
def with_ledger(folder: Path) -> Iterator[tuple[Ledger, dict[str, str]]]:
    """A ledger, and the environment of a flowd whose handlers write into it."""
    (folder / "flowd.toml").write_text(
        CONFIG + "[handlers]\nmodules = ['scripts.soaking.handlers']\n"
    )
    with Ledger(folder / "ledger.sock") as ledger:
        yield ledger, {LEDGER: str(ledger.path)}


def test_p08_a_worker_the_kernel_kills_for_its_memory_costs_an_attempt(
    run_faulty: Run, tmp_path: Path
) -> None:
    with with_ledger(tmp_path) as (ledger, environ), MemoryLimit(mib=160) as limit:
        flowd = run_faulty("start", "--workers", "1", **environ)
        flowd.wait_until_running()
        victim = flowd.post("worker-1")["pid"]
        limit.take(victim)

        execution_id = flowd.submit_and_trigger(
            node("hungry", handler="ledger_hungry", calls=1, mib=400),
            node("beside", handler="ledger_sleepy", seconds=0.5),
        )

        assert flowd.wait_for_execution(execution_id) == "COMPLETED"
        assert limit.kills == 1
        assert [note.attempt for note in ledger.notes(START, "hungry")] == [1, 2]
        assert flowd.post("worker-1")["pid"] != victim
        assert find_violations(flowd.redis, [execution_id], ledger.notes(), faults=1) == []
        flowd.check_and_stop()


def test_p11_a_child_that_a_handler_left_behind_is_gone_with_its_worker(
    run_faulty: Run, tmp_path: Path
) -> None:
    with with_ledger(tmp_path) as (ledger, environ):
        flowd = run_faulty("start", **environ)
        flowd.wait_until_running()
        execution_id = flowd.submit_and_trigger(
            node("A", handler="ledger_breeder"),
            node("B", handler="ledger_breeder", own_session=True),
        )
        assert flowd.wait_for_execution(execution_id) == "COMPLETED"
        children = [output["child"] for output in flowd.results(execution_id).values()]
        for pid in {note.pid for note in ledger.notes(START)}:
            os.kill(pid, signal.SIGKILL)

        wait_until(lambda: not any(map(is_running, children)), "both children to be gone")
        assert check_processes(flowd.wait_until_running(), {"worker": 2, "api": 1}) == []
        flowd.check_and_stop()


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


def test_p17_a_full_disk_refuses_what_is_new_and_loses_nothing(
    run_faulty: Run, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "data", mib=12) as disk:
        (tmp_path / "flowd.toml").write_text(CONFIG + "[log]\nfile = 'data/flowd.log'\n")
        flowd = run_faulty("start")
        before = restarts(flowd)
        waiting = flowd.api.submit_workflow(definition(*CHAIN))
        done = flowd.submit_and_trigger(*CHAIN)
        assert flowd.wait_for_execution(done) == "COMPLETED"

        stuffing = fill(disk)

        def is_refused() -> bool:
            return bool(answers_to(flowd, "POST", "/workflow", definition(*CHAIN)).status == 503)

        wait_until(is_refused, "a submission to be refused")

        def said() -> list[str]:
            return [one["reason"] for one in flowd.events("child.died") if one["child"] == "redis"]

        # In the last words of the server, or where these had no room either.
        wait_until(lambda: any("No space left" in one for one in said()), "the reason in the log")
        assert "No space left" in flowd.post("redis")["last_exit"]
        stuffing.unlink()

        wait_until(
            lambda: answers_to(flowd, "GET", f"/workflows/{done}").status == 200,
            "the server to be back",
        )
        flowd.api.trigger_workflow(waiting)
        assert flowd.wait_for_execution(waiting) == "COMPLETED"
        assert find_violations(flowd.redis, [waiting, done]) == []
        assert restarts(flowd) == before
        flowd.check_and_stop()
