"""The faults of a soak: what each kind does, and a hand that deals them out at random.

Every kind is a function that returns once the fault is over, or at once when it could not happen
just now; then it is tried again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import redis as redis_py

from scripts.soaking.applies import Applies
from scripts.soaking.clients import Clients, NoHost
from scripts.soaking.gates import gates_of
from scripts.soaking.hosts import HUNG_AFTER_S, WORKERS, Host, Server, WatchedServer
from scripts.soaking.limit_checks import TIDES
from scripts.soaking.shapes import corrected

Victim = int | str | None
# A host that is gone for longer than its leases; kinds for a soak that has the time.
HOST_DOWN_S = 45.0
LONG = ("kill_host", "freeze_host")
# With it nothing is submitted that an older version does not know.
UPGRADES = "change_version"
# With it Redis is a primary with a replica and Sentinels, and each fault of it may be a failover.
FAILOVERS = "fail_over"
# It changes a limit that an older version does not know.
TIDE = "tide"
# Its definitions are such that an older version takes them, its sets are not.
APPLY = "apply"
PAUSE_MAX_S = 2.0
# Around a kill that is to be measured by itself.
CALM_S = 2.5
_AT_ONCE_MAX = 8
_AGAIN_AFTER_S = 0.2


@dataclass(slots=True)
class Fault:
    """One that happened. Times are monotonic seconds, `ended_at` None while it lasts."""

    kind: str
    began_at: float
    victim: Victim = None
    pids: tuple[int, ...] = ()
    ended_at: float | None = None


def missing(kinds: Sequence[str], faults: Sequence[Fault]) -> list[str]:
    """Kinds none of the faults is of."""
    seen = {fault.kind for fault in faults}
    return [kind for kind in kinds if kind not in seen]


class Hand:
    """Deals the kinds asked for, each as often as the others, until it is told to stop."""

    def __init__(
        self,
        kinds: Sequence[str],
        seed: int,
        hosts: Sequence[Host],
        server: Server,
        clients: Clients,
        applies: Applies,
        *,
        seconds: float,
    ) -> None:
        self.applies = applies
        self.faults: list[Fault] = []
        self.hosts = hosts
        self.server = server
        self.clients = clients
        self.chance = random.Random(f"faults {seed}")
        # One at a time does something to Redis.
        self.server_lock = threading.Lock()
        self.errors: list[BaseException] = []
        self._kinds = kinds
        # Short soaks are denser: each kind wants to be dealt three times.
        self._pause_max_s = min(PAUSE_MAX_S, 2 * seconds / (3 * len(kinds)))
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        # Its threads are the parents of what is started again, and outlive `stop`.
        self._pool = ThreadPoolExecutor(_AT_ONCE_MAX)
        self._busy: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._deal)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the last fault is over."""
        self._is_over.set()
        self._thread.join()
        deadline = time.monotonic() + HOST_DOWN_S + 60
        while sum(self._busy.values()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"faults that never end: {dict(self._busy)}")
            time.sleep(0.02)

    def close(self) -> None:
        self._pool.shutdown()

    def counts(self) -> Counter[str]:
        return Counter(fault.kind for fault in self.faults)

    def missing(self) -> list[str]:
        return missing(self._kinds, self.faults)

    def sleep(self, seconds: float) -> None:
        """Shorter when it is over."""
        self._is_over.wait(seconds)

    def _deal(self) -> None:
        deck: list[str] = []
        while not self._is_over.is_set():
            if not deck:
                deck = list(self._kinds)
                self.chance.shuffle(deck)
            self._begin(deck.pop())
            self.sleep(self.chance.uniform(0.05, self._pause_max_s))

    def _begin(self, kind: str) -> None:
        """Let it happen beside the others, or where it is to be measured, now and then, alone."""
        is_relaxed = self._pause_max_s == PAUSE_MAX_S
        is_alone = kind == "kill_host" or (
            kind == "kill_worker" and is_relaxed and self.chance.random() < 0.5
        )
        if is_alone:
            while sum(self._busy.values()) and not self._is_over.is_set():
                self.sleep(_AGAIN_AFTER_S)
            self.sleep(CALM_S)
        if not self._busy[kind]:
            self._busy[kind] += 1
            self._pool.submit(self._inject, kind)
        while is_alone and self._busy[kind]:
            time.sleep(0.02)
        if is_alone:
            self.sleep(CALM_S)

    def _inject(self, kind: str) -> None:
        before = self.counts()[kind]
        try:
            while self.counts()[kind] == before and not self._is_over.is_set():
                with suppress(NoHost):
                    KINDS[kind](self)
                self.sleep(_AGAIN_AFTER_S)
        except BaseException as error:  # noqa: BLE001 - told at the end, whatever it is
            self.errors.append(error)
        finally:
            self._busy[kind] -= 1

    @contextmanager
    def noted(self, kind: str, victim: Victim, *pids: int) -> Iterator[None]:
        fault = Fault(kind, time.monotonic(), victim, pids)
        with self._lock:
            self.faults.append(fault)
        yield
        fault.ended_at = time.monotonic()

    def some_host(self) -> Host:
        return self.chance.choice(list(self.hosts))


@contextmanager
def held(lock: threading.Lock) -> Iterator[bool]:
    """Whether it was free; then nobody else has it until the end."""
    is_mine = lock.acquire(blocking=False)
    try:
        yield is_mine
    finally:
        if is_mine:
            lock.release()


def _kill(role: str) -> Callable[[Hand], None]:
    def kill(hand: Hand) -> None:
        pids = hand.some_host().pids(role)
        if pids:
            pid = hand.chance.choice(pids)
            with hand.noted(f"kill_{role}", pid, pid), contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    return kill


def _take_down(kind: str, least_s: float, most_s: float) -> Callable[[Hand], None]:
    """The supervisor is killed, and takes everybody along; it comes back after a while."""

    def take_down(hand: Hand) -> None:
        host = hand.some_host()
        with held(host.lock) as is_mine:
            if not is_mine or not (pids := host.pids("worker")):
                return
            with hand.noted(kind, host.name, *pids):
                host.kill_supervisor()
                # Not cut short: what is measured is how the others do without it.
                time.sleep(hand.chance.uniform(least_s, most_s))
                host.start()
            host.wait_until_ready()

    return take_down


def _freeze_worker(hand: Hand) -> None:
    pids = hand.some_host().pids("worker")
    if pids:
        pid = hand.chance.choice(pids)
        with hand.noted("freeze_worker", pid, pid), contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            # Some are found to hang and killed, some thaw before.
            time.sleep(hand.chance.uniform(0.2, 2 * HUNG_AFTER_S))
            os.kill(pid, signal.SIGCONT)


def _freeze_supervisor(hand: Hand) -> None:
    host = hand.some_host()
    with held(host.lock) as is_mine:
        if is_mine and not host.has_ended:
            with hand.noted("freeze_supervisor", host.name):
                host.signal(signal.SIGSTOP)
                time.sleep(hand.chance.uniform(0.2, 3))
                host.signal(signal.SIGCONT)


def _freeze_host(hand: Hand) -> None:
    host = hand.some_host()
    with held(host.lock) as is_mine:
        if is_mine and not host.has_ended:
            with hand.noted("freeze_host", host.name, *host.pids("worker")):
                host.signal_all(signal.SIGSTOP)
                time.sleep(hand.chance.uniform(HOST_DOWN_S - 10, HOST_DOWN_S))
                host.signal_all(signal.SIGCONT)


def _reload(hand: Hand) -> None:
    host = hand.some_host()
    with held(host.lock) as is_mine:
        if is_mine and not host.has_ended:
            with hand.noted("reload", host.name):
                for _ in range(hand.chance.randint(1, 3)):
                    host.signal(signal.SIGHUP)
                    hand.sleep(hand.chance.uniform(0, 1))


def _scale(hand: Hand) -> None:
    host = hand.some_host()
    with held(host.lock) as is_mine:
        if is_mine and host.order("scale", workers=WORKERS + 1):
            with hand.noted("scale", host.name):
                for _ in range(hand.chance.randint(1, 4)):
                    host.order("scale", workers=hand.chance.randint(1, WORKERS + 2))
                    hand.sleep(hand.chance.uniform(0, 1))
                while not host.order("scale", workers=WORKERS) and not host.has_ended:
                    time.sleep(0.1)


def _change_version(hand: Hand) -> None:
    """An upgrade in order, or the way back, while the other host stays as it is."""
    host = hand.some_host()
    with held(host.lock) as is_mine:
        if is_mine and not host.has_ended:
            with hand.noted(UPGRADES, host.name):
                host.stop()
                host.change_version()
                host.start()
            host.wait_until_ready()


def _kill_redis(hand: Hand) -> None:
    with held(hand.server_lock) as is_mine:
        if is_mine:
            with hand.noted("kill_redis", "redis"):
                hand.server.kill()
                hand.sleep(hand.chance.uniform(0, 1))
                hand.server.start()


def _freeze_redis(hand: Hand) -> None:
    with held(hand.server_lock) as is_mine:
        if is_mine:
            with hand.noted("freeze_redis", "redis"):
                hand.server.signal(signal.SIGSTOP)
                time.sleep(hand.chance.uniform(0.1, 2))
                hand.server.signal(signal.SIGCONT)


def _fail_over(hand: Hand) -> None:
    assert isinstance(hand.server, WatchedServer)
    with held(hand.server_lock) as is_mine:
        if is_mine:
            with hand.noted(FAILOVERS, "redis"):
                hand.server.fail_over()


def _tell_redis(kind: str, tell: Callable[[redis_py.Redis, Hand], Any]) -> Callable[[Hand], None]:
    def tell_redis(hand: Hand) -> None:
        with held(hand.server_lock) as is_mine, hand.server.client() as client:
            if is_mine:
                with hand.noted(kind, "redis"):
                    tell(client, hand)

    return tell_redis


def _pause_clients(client: redis_py.Redis, hand: Hand) -> None:
    for_ms = hand.chance.randint(100, 2_000)
    client.client_pause(for_ms, all=hand.chance.random() < 0.5)
    time.sleep(for_ms / 1000)


def _fill(client: redis_py.Redis, hand: Hand) -> None:
    client.config_set("maxmemory", 1)
    hand.sleep(hand.chance.uniform(0.2, 1.5))
    client.config_set("maxmemory", 0)


def _cut_clients(client: redis_py.Redis, _hand: Hand) -> None:
    client.client_kill_filter(_type="normal", skipme=True)


def _hold(hand: Hand) -> None:
    execution_id = hand.clients.pick(hand.chance)
    if execution_id and _was_done(hand, execution_id, "pause"):
        with hand.noted("hold", execution_id):
            hand.sleep(hand.chance.uniform(0, 2))
            hand.clients.insist("POST", f"/workflows/{execution_id}/resume")


def _cancel(hand: Hand) -> None:
    execution_id = hand.clients.pick(hand.chance)
    if execution_id:
        # Before it is asked: an answer that is lost may have been yes.
        hand.clients.cancelled.add(execution_id)
        if _was_done(hand, execution_id, "cancel"):
            with hand.noted("cancel", execution_id):
                pass


def _delete(hand: Hand) -> None:
    execution_id = hand.clients.pick(hand.chance)
    if not execution_id:
        return
    # Before it is asked, as with a cancellation; one that runs is refused, and stays.
    is_first = execution_id not in hand.clients.doomed
    hand.clients.doomed.add(execution_id)
    path = f"/workflows/{execution_id}"
    lost: list[str] = []
    try:
        status, _ = hand.clients.insist(
            "DELETE", path, of_this_version=True, on_lost=lambda: lost.append(path)
        )
    except NoHost:
        status = 409
    if status in (200, 404):
        hand.clients.deleted.add(execution_id)
        with hand.noted("delete", execution_id):
            pass
    elif is_first and not lost:
        hand.clients.doomed.discard(execution_id)


def _rerun(kind: str) -> Callable[[Hand], None]:
    def rerun(hand: Hand) -> None:
        execution_id = hand.clients.pick(hand.chance)
        if not execution_id:
            return
        definition = hand.clients.acknowledged[execution_id]
        node_ids = [one["id"] for one in definition["dag"]["nodes"]]
        asked: dict[str, Any] = {"from": hand.chance.choice(["failed", *node_ids])}
        if kind == "correct":
            asked["definition"] = definition = corrected(definition, hand.chance)
        path, body = f"/workflows/{execution_id}/rerun", json.dumps(asked).encode()
        status, answer = hand.clients.insist("POST", path, body, of_this_version=True)
        if status == 200:
            settled = {one["node_id"]: _had_ended(one["why"]) for one in answer["reused"]}
            settled |= {one["node_id"]: "FAILED" for one in answer["left_out"]}
            hand.clients.acknowledge(answer["execution_id"], definition, **settled)
            gates = [one for one in gates_of(definition, hand.chance) if one not in settled]
            hand.clients.answer(answer["execution_id"], gates, is_alone=False)
            with hand.noted(kind, execution_id):
                pass

    return rerun


def _had_ended(why: str) -> str:
    """What is reused says first how it had ended, where it was not changed either."""
    return why.removeprefix("unchanged, ").partition(",")[0].upper()


def _apply(hand: Hand) -> None:
    """Every other one is broken off."""
    host = hand.some_host()
    if not host.is_of_this_version or (url := host.api_url()) is None:
        return
    hand.applies.change()
    is_killed = hand.chance.random() < 0.5
    after_s = hand.chance.uniform(0.2, 2.0) if is_killed else None
    code, _ = hand.applies.apply(url, killed_after_s=after_s)
    if is_killed or code == 0:
        with hand.noted(APPLY, url):
            pass


def _resubmit(hand: Hand) -> None:
    """Under its key it is the same execution, also when that was deleted."""
    execution_id = hand.clients.pick(hand.chance)
    if execution_id not in hand.clients.requests:
        return
    key, body = hand.clients.requests[execution_id]
    status, answer = hand.clients.insist(
        "POST", "/workflow", body, of_this_version=True, Idempotency_Key=key
    )
    if (status, answer.get("execution_id")) != (200, execution_id):
        raise RuntimeError(f"{execution_id}: submitted again it was answered {status}: {answer}")
    with hand.noted("resubmit", execution_id):
        pass


def _was_done(hand: Hand, execution_id: str, verb: str) -> bool:
    status, _ = hand.clients.insist("POST", f"/workflows/{execution_id}/{verb}")
    return status == 200


def _change_tide(hand: Hand) -> None:
    """Raise, lower and lift a limit while nodes hold its places and wait for them."""
    with hand.noted(TIDE, None):
        for most in hand.chance.choices(TIDES, k=3):
            hand.clients.set_tide(most)
            hand.sleep(hand.chance.uniform(0, 1))


def _poison(hand: Hand) -> None:
    with hand.noted("poison", None):
        hand.clients.poison()


KINDS: dict[str, Callable[[Hand], None]] = {
    "kill_worker": _kill("worker"),
    "kill_scheduler": _kill("scheduler"),
    "kill_api": _kill("api"),
    "kill_supervisor": _take_down("kill_supervisor", 0.0, 1.0),
    "kill_host": _take_down("kill_host", HOST_DOWN_S, HOST_DOWN_S),
    "freeze_worker": _freeze_worker,
    "freeze_supervisor": _freeze_supervisor,
    "freeze_host": _freeze_host,
    "reload": _reload,
    "scale": _scale,
    UPGRADES: _change_version,
    "kill_redis": _kill_redis,
    "freeze_redis": _freeze_redis,
    FAILOVERS: _fail_over,
    "pause_clients": _tell_redis("pause_clients", _pause_clients),
    "cut_clients": _tell_redis("cut_clients", _cut_clients),
    "flush_scripts": _tell_redis("flush_scripts", lambda client, _: client.script_flush()),
    "fill_redis": _tell_redis("fill_redis", _fill),
    "hold": _hold,
    "cancel": _cancel,
    "delete": _delete,
    "rerun": _rerun("rerun"),
    "correct": _rerun("correct"),
    APPLY: _apply,
    "resubmit": _resubmit,
    TIDE: _change_tide,
    "poison": _poison,
}
