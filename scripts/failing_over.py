"""A flowd under load whose Redis fails over again and again, and what of it was lost.

Three Sentinels, a primary and two replicas on loopback. Clients submit and start workflows until
each is acknowledged, by sending it again under its Idempotency-Key; whatever was acknowledged has
to be there in the end, and COMPLETED.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import redis as redis_py

from flowd.cli.private_flowd import PrivateFlowd, leave_on_signals
from scripts.replica_set import MASTER_NAME, ReplicaServer, ReplicaSet, wait_for
from scripts.soaking.checker import find_violations

CLIENTS = 4
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
    """`took_s` is from when a Sentinel names the new primary to the end of the next node."""

    failovers: list[str] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    acknowledged: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        took = sorted(self.took_s)
        p99 = took[min(len(took) - 1, int(0.99 * len(took)))] if took else 0.0
        return (
            f"{len(self.failovers)} failovers, {self.acknowledged} acknowledged, {len(self.lost)} "
            f"lost, {len(self.twice)} made twice, {self.refused} times told to come again; the "
            f"next node after {took[len(took) // 2] if took else 0:.2f} s, p99 {p99:.2f} s; "
            f"{len(self.violations)} violations"
        )


class Clients:
    """Each sends a workflow until it is acknowledged, then the next."""

    def __init__(self, port: int, report: Report) -> None:
        self._port = port
        self._report = report
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(CLIENTS)]
        self.acknowledged: dict[str, str] = {}

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while not self._is_over.is_set():
            key = uuid.uuid4().hex
            while not self._is_over.is_set() and (found := self._ask(key)) is None:
                self._report.refused += 1
                time.sleep(0.02)
            if found:
                self.acknowledged[key] = found

    def _ask(self, key: str) -> str | None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
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
    servers.sentinels[0].ask("SENTINEL", "FAILOVER", MASTER_NAME)


def kill_with_a_sentinel(servers: ReplicaSet) -> None:
    servers.sentinels[-1].kill()
    servers.primary.kill()


FAULTS: dict[str, Callable[[ReplicaSet], None]] = {
    "kill": kill,
    "freeze": freeze,
    "plan": plan,
    "sentinel": kill_with_a_sentinel,
}


def fail_over(servers: ReplicaSet, kind: str) -> float:
    """Seconds to the end of a node at the new primary, from when a Sentinel names it."""
    old = servers.primary
    others = [one for one in servers.servers if one is not old]
    FAULTS[kind](servers)
    new: list[ReplicaServer] = []

    def is_there() -> bool:
        new[:] = [one for one in others if one.is_primary]
        return bool(new)

    wait_for(is_there, "a new primary")
    wait_for(lambda: servers.is_named(new[0].port), "a Sentinel to name it")
    answered_s = time.monotonic()
    known = newest_event(new[0])
    wait_for(lambda: newest_event(new[0]) != known, "the next node")
    took_s = time.monotonic() - answered_s
    wait_for(lambda: servers.named == new[0].port, "the Sentinels to name it")
    if kind == "plan":
        # It follows nobody while it pauses.
        old.ask("CLIENT", "UNPAUSE")
    return took_s


def newest_event(server: ReplicaServer) -> str:
    with suppress(redis_py.RedisError):
        found = server.ask("XREVRANGE", "flowd:events", "+", "-", "COUNT", 1)
        return str(found[0][0]) if found else ""
    return ""


def run(
    folder: Path,
    count: int,
    replicas: int,
    kinds: list[str],
    seed: int = 1,
    tell: Callable[[str], None] = lambda _: None,
) -> Report:
    report = Report()
    chance = random.Random(seed)
    with ReplicaSet(folder, replicas=2, sentinels=3) as servers:
        (folder / "flowd.toml").write_text(
            f"[api]\nport = 0\n[redis]\nurl = '{servers.url}'\nreplicas = {replicas}\n"
            "data_dir = 'data'\n[supervisor]\nhung_after_s = 60\n"
        )
        flowd = PrivateFlowd(folder)
        flowd.start()
        try:
            status = flowd.wait_until_ready()
            with Clients(int(status["api"].rpartition(":")[2]), report) as clients:
                for number in range(count):
                    enough = len(clients.acknowledged) + ACKNOWLEDGED_MIN
                    wait_for(lambda to=enough: len(clients.acknowledged) >= to, "some work")
                    kind = (
                        kinds[number % len(kinds)] if count <= len(kinds) else chance.choice(kinds)
                    )
                    report.took_s.append(fail_over(servers, kind))
                    report.failovers.append(kind)
                    tell(f"{number + 1} {kind} {report.took_s[-1]:.2f} s")
                    servers.mend()
                enough = len(clients.acknowledged) + ACKNOWLEDGED_MIN
                wait_for(lambda: len(clients.acknowledged) >= enough, "some work")
            check(servers, clients.acknowledged, report)
        finally:
            flowd.stop()
    return report


def check(servers: ReplicaSet, acknowledged: dict[str, str], report: Report) -> None:
    report.acknowledged = len(acknowledged)
    with redis_py.Redis(
        unix_socket_path=servers.primary.socket_path, decode_responses=True
    ) as redis:
        wait_for(lambda: redis.scard("workflows:active") == 0, "the end of all")
        states = {one: redis.get(f"workflow:{one}:status") for one in acknowledged.values()}
        report.lost = [one for one, state in states.items() if state != "COMPLETED"]
        report.twice = [one for one in set(acknowledged.values()) if counted(acknowledged, one) > 1]
        there = [one for one, state in states.items() if state is not None]
        report.violations = find_violations(redis, there)


def counted(acknowledged: dict[str, str], execution_id: str) -> int:
    return list(acknowledged.values()).count(execution_id)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10, help="failovers")
    parser.add_argument("--replicas", type=int, default=1, help="redis.replicas")
    parser.add_argument("--kinds", default=",".join(FAULTS), help="of faults, with commas between")
    parser.add_argument("--seed", type=int, default=1)
    said: Any = parser.parse_args(arguments)
    leave_on_signals()
    with tempfile.TemporaryDirectory(prefix="flowd-failovers-") as folder:
        report = run(
            Path(folder), said.count, said.replicas, said.kinds.split(","), said.seed, print
        )
    print(report)
    for one in (*report.lost, *report.violations):
        print(" ", one)
    is_sound = not report.violations and (not report.lost or said.replicas == 0)
    return 0 if is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
