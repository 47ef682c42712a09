"""A flowd under load whose Redis fails over again and again, and what of it was lost.

Three Sentinels, a primary and its replicas on loopback. Clients submit and start workflows until
each is acknowledged, by sending it again under its Idempotency-Key; whatever was acknowledged has
to be there in the end, and COMPLETED.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import redis as redis_py

from flowd.cli.private_flowd import PrivateFlowd, leave_on_signals
from scripts.replica_set import ReplicaServer, ReplicaSet, wait_for
from scripts.soaking.checker import find_violations

CLIENTS = 4
ANSWER_S = 60
# One that comes back without what it had may be made the primary before it follows.
DURABLE = {"appendonly": "yes"}
# Of each round before its fault.
ACKNOWLEDGED_MIN = 20
# Longer than the Sentinels take to make a replica of a primary that was replaced.
PAUSE_MS = 20_000
WORKFLOW = {
    "name": "failover",
    "dag": {
        "nodes": [
            {"id": "A", "handler": "noop", "dependencies": []},
            {"id": "B", "handler": "noop", "dependencies": ["A"]},
            {"id": "C", "handler": "noop", "dependencies": ["B"]},
        ]
    },
}


@dataclass
class Report:
    """`recovered_s` are to the next node's start or end: from when the new primary says that it
    is that, or, where replicas have to confirm, from when so many follow it."""

    failovers: list[str] = field(default_factory=list)
    recovered_s: list[float] = field(default_factory=list)
    acknowledged: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{len(self.failovers)} failovers, {self.acknowledged} acknowledged, {len(self.lost)} "
            f"lost, {len(self.twice)} made twice, {self.refused} times told to come again; "
            f"{len(self.violations)} violations; the next node after {spread(self.recovered_s)}"
        )


def spread(seconds: list[float]) -> str:
    if not seconds:
        return "not measured"
    ordered = sorted(seconds)
    last = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return (
        f"{ordered[len(ordered) // 2]:.2f} s (p99 {last:.2f} s, the longest {ordered[-1]:.2f} s, "
        f"{len(ordered)} times)"
    )


class Clients:
    """Each sends a workflow until it is acknowledged, then the next."""

    def __init__(self, connect: Callable[[], HTTPConnection], report: Report) -> None:
        self._connect = connect
        self._report = report
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(CLIENTS)]
        self.acknowledged: dict[str, str] = {}

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self) -> None:
        enough = len(self.acknowledged) + ACKNOWLEDGED_MIN
        wait_for(lambda: len(self.acknowledged) >= enough, "some work")

    def _work(self) -> None:
        while not self._is_over.is_set():
            key, found = uuid.uuid4().hex, None
            while not self._is_over.is_set() and (found := self._ask(key)) is None:
                self._report.refused += 1
                time.sleep(0.02)
            if found:
                self.acknowledged[key] = found

    def _ask(self, key: str) -> str | None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        connection = self._connect()
        try:
            connection.request("POST", "/workflow?trigger=true", json.dumps(WORKFLOW), headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()
        if answer.status == 200:
            return str(said["execution_id"])
        assert answer.status == 503, (answer.status, said)
        return None


def kill(servers: ReplicaSet) -> None:
    servers.primary.kill()


def freeze(servers: ReplicaSet) -> None:
    servers.primary.process.send_signal(signal.SIGSTOP)


def plan(servers: ReplicaSet) -> None:
    """As the manual says: nothing new, then another primary."""
    servers.primary.ask("CLIENT", "PAUSE", PAUSE_MS, "WRITE")
    servers.wait_until_whole()
    servers.fail_over()


def kill_with_a_sentinel(servers: ReplicaSet) -> None:
    servers.sentinels[-1].kill()
    servers.primary.kill()


def mistake(servers: ReplicaSet) -> None:
    """Taken for gone while it lives and writes, with whom of its replicas is left to it."""
    servers.fail_over()


FAULTS: dict[str, Callable[[ReplicaSet], None]] = {
    "kill": kill,
    "freeze": freeze,
    "plan": plan,
    "sentinel": kill_with_a_sentinel,
    "mistake": mistake,
}


def fail_over(servers: ReplicaSet, kind: str, replicas: int, report: Report) -> None:
    """Until all Sentinels name the new primary and, unless every other server has to confirm, a
    node has started there."""
    old = servers.primary
    others = [one for one in servers.servers if one is not old]
    FAULTS[kind](servers)
    new: list[ReplicaServer] = []

    def is_there() -> bool:
        new[:] = [one for one in others if one.is_primary]
        return bool(new)

    wait_for(is_there, "a new primary")
    if replicas < len(others):
        report.recovered_s.append(recovery_s(new[0], replicas))
    wait_for(lambda: servers.named == new[0].port, "the Sentinels to name it")
    report.failovers.append(kind)
    if kind == "plan":
        # It follows nobody while it pauses.
        old.ask("CLIENT", "UNPAUSE")


def recovery_s(primary: ReplicaServer, replicas: int) -> float:
    events, since_s = Events(primary), time.monotonic()
    if replicas:
        wait_for(lambda: primary.facts().get("connected_slaves", 0) >= replicas, "replicas")
        since_s = time.monotonic()
    wait_for(events.tell_of_a_node, "the next node")
    return time.monotonic() - since_s


class Events:
    """What a server tells from now on."""

    def __init__(self, server: ReplicaServer) -> None:
        self._server = server
        newest = server.ask("XREVRANGE", "flowd:events", "+", "-", "COUNT", 1)
        self._read = str(newest[0][0]) if newest else "0"

    def tell_of_a_node(self) -> bool:
        """Whether what has come since the last call does. Clients alone fill many pages."""
        with suppress(redis_py.RedisError):
            while entries := self._server.ask(
                "XRANGE", "flowd:events", f"({self._read}", "+", "COUNT", 100
            ):
                self._read = str(entries[-1][0])
                if any("node." in str(entry) for entry in entries):
                    return True
        return False


def run(
    folder: Path,
    count: int,
    replicas: int,
    kinds: list[str],
    seed: int = 1,
    *,
    servers_more: int = 2,
    seconds: float = math.inf,
    tell: Callable[[str], None] = lambda _: None,
) -> Report:
    """`replicas` is what flowd waits for, `servers_more` how many there are; the last failover
    begins before `seconds` are over."""
    report = Report()
    chance = random.Random(seed)
    until_s = time.monotonic() + seconds
    with ReplicaSet(folder, servers_more, sentinels=3, **DURABLE) as servers:
        (folder / "flowd.toml").write_text(
            f"[api]\nport = 0\n[redis]\nurl = '{servers.url}'\nreplicas = {replicas}\n"
            "data_dir = 'data'\n[supervisor]\nhung_after_s = 60\n"
        )
        flowd = PrivateFlowd(folder)
        flowd.start()
        try:
            status = flowd.wait_until_ready()
            place = status["api"].removeprefix("http://")
            with Clients(lambda: HTTPConnection(place, timeout=ANSWER_S), report) as clients:
                while len(report.failovers) < count and time.monotonic() < until_s:
                    clients.wait_for_more()
                    number = len(report.failovers)
                    kind = kinds[number] if count == len(kinds) else chance.choice(kinds)
                    fail_over(servers, kind, replicas, report)
                    servers.mend()
                    lost = len(lost_of(servers, clients.acknowledged.values()))
                    after = f", {report.recovered_s[-1]:.2f} s" if report.recovered_s else ""
                    tell(f"{number + 1} {kind}: {lost} lost of {len(clients.acknowledged)}{after}")
                clients.wait_for_more()
            check(servers, clients.acknowledged, report)
        finally:
            flowd.stop()
    return report


def lost_of(servers: ReplicaSet, execution_ids: Iterable[str]) -> list[str]:
    """Those that the primary does not know."""
    known = list(execution_ids)
    with redis_py.Redis(unix_socket_path=servers.primary.socket_path) as redis:
        asked = redis.pipeline(transaction=False)
        for one in known:
            asked.exists(f"workflow:{one}:status")
        return [one for one, is_there in zip(known, asked.execute(), strict=True) if not is_there]


def check(servers: ReplicaSet, acknowledged: dict[str, str], report: Report) -> None:
    report.acknowledged = len(acknowledged)
    with redis_py.Redis(
        unix_socket_path=servers.primary.socket_path, decode_responses=True
    ) as redis:
        wait_for(lambda: redis.scard("workflows:active") == 0, "the end of all")
        states = {one: redis.get(f"workflow:{one}:status") for one in acknowledged.values()}
        report.lost = [one for one, state in states.items() if state != "COMPLETED"]
        report.twice = [one for one, keys in Counter(acknowledged.values()).items() if keys > 1]
        there = [one for one, state in states.items() if state is not None]
        report.violations = find_violations(redis, there)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10, help="failovers")
    parser.add_argument("--replicas", type=int, default=2, help="redis.replicas")
    parser.add_argument("--of", type=int, default=2, help="how many replicas there are")
    parser.add_argument("--kinds", default=",".join(FAULTS), help="of faults, with commas between")
    parser.add_argument("--seconds", type=float, default=math.inf, help="no failover after that")
    parser.add_argument("--seed", type=int, default=1)
    said: Any = parser.parse_args(arguments)
    leave_on_signals()
    folder = Path(tempfile.mkdtemp(prefix="flowd-failovers-"))
    report = run(
        folder,
        said.count,
        said.replicas,
        said.kinds.split(","),
        said.seed,
        servers_more=said.of,
        seconds=said.seconds,
        tell=print,
    )
    print(f"redis.replicas = {said.replicas} of {said.of}: {report}")
    for one in (*report.lost, *report.violations):
        print(" ", one)
    is_sound = not report.violations and (said.replicas < said.of or not report.lost)
    if is_sound:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"its logs are in {folder}")
    return 0 if is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
