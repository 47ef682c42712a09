"""A whole flowd whose Redis fails over: row R11."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import pytest
import redis as redis_py
from click.testing import CliRunner

from flowd.cli.main import main
from flowd.cli.private_flowd import PrivateFlowd
from scripts import failing_over
from scripts.replica_set import MovingAddress, Place, ReplicaServer, ReplicaSet
from scripts.soaking.checker import find_violations
from tests.api_client import ApiError
from tests.daemon import wait_until
from tests.manual import blocks
from tests.process.faulty import ROOT, FaultyFlowd
from tests.process.flowd_process import node
from tests.process.means import Network
from tests.process.test_faults_redis import Clients, configure, held, restarts, still_works

Run = Callable[..., FaultyFlowd]
Figure = Callable[[str], None]


def client_of(server: ReplicaServer) -> redis_py.Redis:
    return redis_py.Redis(unix_socket_path=server.socket_path, decode_responses=True)


def test_an_address_that_moves_with_its_connections_left_open(
    run_faulty: Run, tmp_path: Path, figure: Figure
) -> None:
    """Each of them was told READONLY, and stayed where it was."""
    with ReplicaSet(tmp_path, save="") as pair, MovingAddress(pair.servers[0].address) as address:
        old, new = pair.servers
        configure(tmp_path, address.url)
        flowd = run_faulty("start")
        before = restarts(flowd)
        caught = flowd.submit_and_trigger(held("A"), node("B", "A"))
        flowd.wait_for_calls(1)
        with Clients(flowd) as clients:
            wait_until(lambda: len(clients.acknowledged) > 20, "some work")
            # Nothing new, and what there is has arrived: so it is planned.
            old.ask("CLIENT", "PAUSE", 10_000, "WRITE")
            pair.wait_until_whole()
            new.ask("REPLICAOF", "NO", "ONE")
            promoted_at = time.monotonic()
            old.ask("REPLICAOF", *new.address)
            old.ask("CLIENT", "UNPAUSE")
            address.target = new.address
            wait_until(
                lambda: any(call["at"] > promoted_at for call in flowd.calls()[-8:]),
                "work to go on",
            )
            took_s = time.monotonic() - promoted_at
        flowd.open()
        acknowledged = [*clients.acknowledged, caught]
        with client_of(new) as redis:
            wait_until(lambda: redis.scard("workflows:active") == 0, "the end of all")
            assert find_violations(redis, acknowledged) == []
        assert flowd.wait_for_execution(caught) == "COMPLETED"
        wait_until(lambda: flowd.events("redis.failed_over"), "it to be told")
        assert flowd.events("redis.emptied") == []
        assert restarts(flowd) == before
        figure(f"the next node {took_s:.2f} s after the promotion; {len(acknowledged)} kept")
        flowd.check_and_stop()


@pytest.mark.parametrize("replicas", [2, 0])
def test_failovers_lose_nothing_that_was_acknowledged_where_replicas_are_asked_for(
    tmp_path: Path, figure: Figure, replicas: int
) -> None:
    """And what is there is sound either way. With one of two replicas a primary that was replaced
    while it lived acknowledged, with the other replica, what the new one never had."""
    kinds = list(failing_over.FAULTS) if replicas else ["kill"]

    report = failing_over.run(tmp_path, len(kinds), replicas, kinds)

    figure(f"redis.replicas = {replicas}: {report}")
    assert report.failovers == kinds
    assert report.violations == []
    assert report.lost == [] or not replicas
    assert report.twice == []


def test_a_node_is_noticed_behind_any_number_of_other_events(tmp_path: Path) -> None:
    """Only the first hundred were looked at, which were those of clients: for half a minute, until
    they were forgotten."""
    with ReplicaSet(tmp_path, replicas=0) as servers:
        server = servers.primary
        events = failing_over.Events(server)
        for number in range(250):
            server.ask("XADD", "flowd:events", "*", "event", f"execution.submitted {number}")
        assert not events.tell_of_a_node()

        server.ask("XADD", "flowd:events", "*", "event", "node.started")

        assert events.tell_of_a_node()
        assert not events.tell_of_a_node()


def test_a_user_with_no_more_rights_than_the_manual_says_runs_all_of_it(
    run_faulty: Run, tmp_path: Path
) -> None:
    """On the servers and on their Sentinels, through a failover."""
    on_servers, on_sentinels = (
        text.removeprefix("user ").split() for text in blocks("Users with few rights", "text")
    )
    with ReplicaSet(tmp_path, replicas=2, sentinels=3) as servers:
        for one, rule in (
            *((one, on_servers) for one in servers.servers),
            *((one, on_sentinels) for one in servers.sentinels),
        ):
            one.ask("ACL", "SETUSER", *rule)
        url = servers.url.replace("://", "://flowd:secret@")
        url += "?sentinel_username=flowd&sentinel_password=secret"
        configure(tmp_path, url, "replicas = 2\n")
        flowd = run_faulty("start")
        flowd.wait_until_running()
        still_works(flowd)
        old = servers.primary
        servers.fail_over()
        wait_until(lambda: servers.named != old.port, "another primary to be named")
        servers.mend()

        still_works(flowd)

        found = CliRunner().invoke(main, ["status", "--config", str(tmp_path / "flowd.toml")])
        address = f"127.0.0.1:{servers.primary.port}"
        assert f"The primary of this Redis is {address}, replicas: 2 online" in found.output
        # What of the server it may not see, and does without.
        refused = {one["object"] for server in servers.servers for one in refusals(server)}
        assert refused <= {"config|get"}
        flowd.check_and_stop()


def test_a_flowd_that_is_started_while_a_replica_is_away_waits_for_it(
    run_faulty: Run, tmp_path: Path
) -> None:
    """Its workers took their leases only where a replica confirmed it: they were never ready, and
    after the third try flowd ended."""
    with ReplicaSet(tmp_path) as pair:
        replica = pair.servers[1].process
        replica.send_signal(signal.SIGSTOP)
        configure(tmp_path, f"redis://127.0.0.1:{pair.servers[0].port}", "replicas = 1\n")
        flowd = run_faulty("start")
        flowd.wait_until_running()
        with pytest.raises(ApiError, match="503"):
            flowd.submit_and_trigger(node("A"))

        replica.send_signal(signal.SIGCONT)

        still_works(flowd)
        assert {count for _, count in restarts(flowd).values()} == {0}
        flowd.check_and_stop()


def refusals(server: ReplicaServer) -> list[dict[str, str]]:
    with client_of(server) as redis:
        return list(redis.acl_log())


class SocketConnection(HTTPConnection):
    """To the API of a flowd in another network."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def flowd_on(network: Network, host: str, folder: Path, url: str) -> PrivateFlowd:
    folder.mkdir()
    (folder / "flowd.toml").write_text(
        f"[api]\nsocket = 'api.sock'\n[redis]\nurl = '{url}'\nreplicas = 1\n"
        "data_dir = 'data'\n[supervisor]\nhung_after_s = 60\n"
    )
    command = network.on(host, [sys.executable, "-m", "flowd.cli.main", "start"])
    flowd = PrivateFlowd(folder, tuple(command))
    flowd.environ["PYTHONPATH"] = str(ROOT)
    return flowd


def test_a_primary_that_is_cut_off_with_its_clients_acknowledges_nothing(
    tmp_path: Path, figure: Figure
) -> None:
    """On the other side are its replicas and most of the Sentinels, and clients that go on."""
    with ExitStack() as open_things:
        network = open_things.enter_context(Network())
        places = (
            Place(network.address, tuple(network.on(network.home, ()))),
            Place(network.far_address, tuple(network.on(network.far, ()))),
        )
        servers = open_things.enter_context(ReplicaSet(tmp_path, 2, 3, places=places))
        sides = []
        for host in (network.home, network.far):
            flowd = flowd_on(network, host, tmp_path / host, servers.url)
            flowd.start()
            open_things.callback(flowd.stop)
            flowd.wait_until_ready()
            sides.append(str(flowd.folder / "api.sock"))
        reports = [failing_over.Report() for _ in sides]
        clients = [
            open_things.enter_context(
                failing_over.Clients(partial(SocketConnection, one, timeout=60), report)
            )
            for one, report in zip(sides, reports, strict=True)
        ]
        for one in clients:
            one.wait_for_more()

        network.plug(is_in=False)

        refused = reports[0].refused
        wait_until(lambda: reports[0].refused > refused + 8, "the side of the primary to refuse")
        acknowledged = len(clients[0].acknowledged)
        clients[1].wait_for_more()
        assert len(clients[0].acknowledged) == acknowledged
        network.plug(is_in=True)
        for one in clients:
            one.wait_for_more()
            one.stop()
        report = reports[0]
        known = {key: one for side in clients for key, one in side.acknowledged.items()}
        failing_over.check(servers, known, report)
        figure(str(report))
        assert (report.lost, report.twice, report.violations) == ([], [], [])
