"""Clients that submit and trigger without pause, and ask again when they were not answered."""

from __future__ import annotations

import http.client
import json
import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scripts.soaking.gates import answer_to, gates_of, late_codes
from scripts.soaking.hosts import Host
from scripts.soaking.limit_checks import LIMITS, PACE, PACED, TIDE, Change, changes_of, paced
from scripts.soaking.shapes import random_workflow

_UNANSWERED = (OSError, http.client.HTTPException)
_PAUSE_S = 0.05
_GATE_S = 0.4
_LOOK_S = 0.3
# What is run as a saved workflow, and the names for it: few, so that versions change meanwhile.
_SAVED_SHARE = 0.3
_NAMES = 3


class NoHost(Exception):
    """Every host is of the other version, which does not know what was to be asked."""


class Clients:
    """From `start` to `stop` they keep about `active_max` executions going.

    `acknowledged` are the executions whose trigger was answered, with their definitions; `settled`
    are the nodes that reruns among them did not run, each with the state it had from the beginning;
    `answers` what nodes that wait for a signal were sent, and was recorded.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        seed: int,
        *,
        count: int,
        active_max: int,
        may_choose: bool = True,
    ) -> None:
        self.acknowledged: dict[str, dict[str, Any]] = {}
        self.settled: dict[str, dict[str, str]] = {}
        self.cancelled: set[str] = set()
        self.deleted: set[str] = set()
        # These were asked to be deleted, and may be gone.
        self.doomed: set[str] = set()
        self.answers: dict[tuple[str, str], dict[str, Any]] = {}
        self.requests: dict[str, tuple[str, bytes]] = {}
        self._tides: list[tuple[float, float, float, bool]] = []
        self.poisoned = 0
        self.refused = 0
        self.unanswered = 0
        self._hosts = hosts
        self._may_choose = may_choose
        self._active_max = active_max
        self._active = 0
        self._poison = 0
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(random.Random(f"{seed} {number}"),))
            for number in range(count)
        ]
        if may_choose:
            self._threads.append(threading.Thread(target=self._keep_pace))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when every submission that was begun has been acknowledged."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def note_active(self, active: int) -> None:
        self._active = active

    def poison(self) -> None:
        """Let one of the next workflows have a node that kills its workers."""
        with self._lock:
            self._poison += 1

    def save(self, definitions: Mapping[str, Mapping[str, Any]]) -> None:
        """What workflows run as their children."""
        for name, definition in definitions.items():
            self._expect("PUT", f"/definitions/{name}", json.dumps(definition).encode())

    def put_limits(self) -> None:
        """All there are; one will be changed."""
        for name, most in LIMITS.items():
            self._expect("PUT", f"/limits/{name}", json.dumps({"max": most}).encode())
        self._expect("PUT", f"/limits/{PACED}", json.dumps(dict(PACE)).encode())
        self.set_tide(1)

    def set_tide(self, most: int | None) -> None:
        """Put the limit that changes, or lift it."""
        path, asked_s, lost = f"/limits/{TIDE}", time.monotonic(), []
        said = {"on_lost": lambda: lost.append(path), "of_this_version": True}
        if most is None:
            self.insist("DELETE", path, **said)
        else:
            self.insist("PUT", path, json.dumps({"max": most}).encode(), **said)
        value = math.inf if most is None else most
        self._tides.append((value, asked_s, time.monotonic(), bool(lost)))

    def lift_tide(self) -> None:
        if self._may_choose:
            self.set_tide(None)

    @property
    def tides(self) -> list[Change]:
        return changes_of(self._tides)

    def pick(self, chance: random.Random) -> str | None:
        """One of the newest executions."""
        with self._lock:
            newest = list(self.acknowledged)[-20:]
        return chance.choice(newest) if newest else None

    def acknowledge(self, execution_id: str, definition: dict[str, Any], **settled: str) -> None:
        with self._lock:
            self.acknowledged[execution_id] = definition
            self.settled[execution_id] = settled

    def insist(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        of_this_version: bool = False,
        on_lost: Callable[[], None] = lambda: None,
        **headers: str,
    ) -> tuple[int, Any]:
        """The answer, after asking as often as it takes, now here and now there. `on_lost` hears of
        each time there was none: what was asked then may still be done, by a host that thaws.

        Raises NoHost where nobody is of this version, which the last fault may leave so, and nobody
        was asked yet. Afterwards another version will do: an answer that is lost may have been yes.
        """
        was_asked = False
        while True:
            hosts = [one for one in self._hosts if one.is_of_this_version or not of_this_version]
            if not hosts and not was_asked:
                raise NoHost
            host = random.choice(hosts or self._hosts)
            was_asked = True
            try:
                status, answer = host.request(method, path, body, **headers)
            except _UNANSWERED:
                self.unanswered += 1
                on_lost()
            else:
                if status < 500 and status != 429:
                    return status, answer
                self.refused += 1
            time.sleep(_PAUSE_S)

    def _work(self, chance: random.Random) -> None:
        while not self._is_over.is_set():
            if self._active >= self._active_max:
                time.sleep(_PAUSE_S)
                continue
            is_poisoned = self._take_poison()
            body = random_workflow(chance, is_poisoned=is_poisoned, may_choose=self._may_choose)
            if self._may_choose and not is_poisoned and chance.random() < _SAVED_SHARE:
                self._run_saved(chance, body)
                continue
            key = f"{chance.getrandbits(64):x}"
            status, answer = self.insist("POST", "/workflow", body, Idempotency_Key=key)
            if status != 200:
                raise RuntimeError(f"a workflow was answered {status}: {answer}")
            execution_id = answer["execution_id"]
            definition = json.loads(body)
            gates = gates_of(definition, chance)
            early = chance.randint(0, len(gates))
            self.answer(execution_id, gates[:early])
            status, answer = self.insist("POST", f"/workflow/trigger/{execution_id}")
            if status != 200:
                raise RuntimeError(f"a trigger was answered {status}: {answer}")
            if gates:
                # Some wait by then, and some do not yet.
                time.sleep(chance.uniform(0, _GATE_S))
                self.answer(execution_id, gates[early:])
            self.acknowledge(execution_id, definition)
            self.requests[execution_id] = (key, body)
            self._active += 1

    def _keep_pace(self) -> None:
        """One execution after the other of what has more nodes than its rate lets start."""
        number = 0
        self._expect("PUT", f"/definitions/{PACED}", json.dumps(paced()).encode())
        while not self._is_over.is_set():
            number += 1
            run = f"/definitions/{PACED}/run"
            key = f"{PACED} {number}"
            execution_id = self._expect("POST", run, b"{}", Idempotency_Key=key)["execution_id"]
            self.acknowledge(execution_id, paced())
            while not self._is_over.is_set():
                status, told = self.insist("GET", f"/workflows/{execution_id}")
                if status != 200 or told["status"] not in ("PENDING", "RUNNING", "PAUSED"):
                    break
                time.sleep(_LOOK_S)

    def _run_saved(self, chance: random.Random, body: bytes) -> None:
        """Save a workflow under a name that others save theirs under too, and run what is the
        latest then."""
        name = f"saved-{chance.randrange(_NAMES)}"
        self._expect("PUT", f"/definitions/{name}", body)
        key, run = f"{chance.getrandbits(64):x}", json.dumps({"labels": {"saved": name}}).encode()
        path = f"/definitions/{name}/run"
        execution_id = self._expect("POST", path, run, Idempotency_Key=key)["execution_id"]
        _, _, version = self._expect("GET", f"/workflows/{execution_id}")["definition"].partition(
            "@"
        )
        saved = self._expect("GET", f"/definitions/{name}?version={version}")
        self.answer(execution_id, gates_of(saved["definition"], chance))
        self.acknowledge(execution_id, saved["definition"])
        self._active += 1

    def _expect(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> dict[str, Any]:
        """The answer, which is no refusal."""
        status, answer = self.insist(method, path, body, **headers)
        if status not in (200, 201):
            raise RuntimeError(f"{method} {path} was answered {status}: {answer}")
        told: dict[str, Any] = answer
        return told

    def answer(self, execution_id: str, gates: Sequence[str], *, is_alone: bool = True) -> None:
        """Send each of these nodes what it waits for; others may end them first, where it is not
        `is_alone` that knows of the execution."""
        for gate in gates:
            path = f"/workflows/{execution_id}/nodes/{gate}/signal"
            body = json.dumps(answer_to(execution_id, gate)).encode()
            key = f"{execution_id} {gate}"
            status, told = self.insist("POST", path, body, Idempotency_Key=key)
            if status == 200:
                with self._lock:
                    self.answers[execution_id, gate] = told["decision"]
            elif is_alone and told.get("code") not in late_codes(gate):
                raise RuntimeError(f"a signal for {gate} was answered {status}: {told}")

    def _take_poison(self) -> bool:
        with self._lock:
            if not self._poison:
                return False
            self._poison -= 1
            self.poisoned += 1
            return True
