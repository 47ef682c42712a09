"""One map on a real server beside a reference that knows neither scripts nor counters."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
)

from flowd.orchestrator.executor import cancel_nodes
from flowd.store.entries import Entry
from flowd.store.redis import keys
from scripts.soaking.checker import find_violations
from tests.model.machine import ELSEWHERE, EngineMachine
from tests.private_server import PrivateServer
from tests.store.engine import STREAM, Execution, Worker
from tests.store.maps import expand, fail, map_state, mapping, retry

FAN = "fan"
LIVE = ("RUNNING", "PAUSED")
HELD = ("QUEUED", "RUNNING")
ENDED = ("COMPLETED", "FAILED")

T = TypeVar("T")


@dataclass
class MapReference:
    """What becomes of each item, as plainly as it can be said.

    `queue` are the entries of the stream, in order, that nobody holds; `waiting` the indexes that
    wait for a place; `dated` those in a pause; `left` those that were stopped, and have an entry.
    """

    n: int
    window: int
    max_failed: int
    fail_fast: bool
    bytes_max: int
    status: str = "RUNNING"
    fan: str = "QUEUED"
    states: dict[int, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=lambda: {FAN: 1})
    queue: list[tuple[str, int]] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    dated: list[int] = field(default_factory=list)
    parked: set[str] = field(default_factory=set)
    left: set[int] = field(default_factory=set)
    bytes: int = 0
    stopped: str = ""
    is_decided: bool = False

    @property
    def open(self) -> set[int]:
        if self.stopped:
            return self.left
        placed = (*HELD, "PENDING")
        return {
            one
            for one, state in self.states.items()
            if state in placed and one not in self.waiting and one not in self.dated
        }

    @property
    def ended(self) -> int:
        return sum(state in ENDED for state in self.states.values())

    @property
    def failed(self) -> int:
        return sum(state == "FAILED" for state in self.states.values())

    @property
    def is_over(self) -> bool:
        return not self.left if self.stopped else self.ended == self.n

    def fill(self) -> None:
        """Open what there is room for, or wake the node."""
        if self.is_over:
            self.wake()
        if self.stopped:
            return
        while self.waiting and len(self.open) < self.window:
            index = self.waiting.pop(0)
            if self.status == "PAUSED":
                self.states[index] = "PENDING"
                self.parked.add(f"{FAN}.{index}")
            else:
                self.put(f"{FAN}.{index}")

    def put(self, node_id: str) -> None:
        self.attempts[node_id] = self.attempts.get(node_id, 0) + 1
        self.queue.append((node_id, self.attempts[node_id]))
        self._set(node_id, "QUEUED")

    def wake(self) -> None:
        self.is_decided = True
        if self.fan == "WAITING":
            if self.status == "PAUSED":
                self.fan = "PENDING"
                self.parked.add(FAN)
            else:
                self.put(FAN)

    def _set(self, node_id: str, state: str) -> None:
        if node_id == FAN:
            self.fan = state
        else:
            self.states[int(node_id.partition(".")[2])] = state

    def state(self, node_id: str) -> str | None:
        if node_id == FAN:
            return self.fan
        return self.states.get(int(node_id.partition(".")[2]))

    def counts(self, node_id: str) -> bool:
        return self.status in LIVE and self.state(node_id) in HELD

    def end(self, index: int, state: str, size: int) -> None:
        self.states[index] = state
        self.bytes += size

    def settle(self) -> None:
        """Behind a batch of ends."""
        if self.stopped:
            return
        if self.fail_fast and self.failed > self.max_failed:
            self._stop("failed")
        elif 0 < self.bytes_max < self.bytes:
            self._stop("bytes")
        else:
            self.fill()

    def _stop(self, reason: str) -> None:
        self.left = {index for index in self.open if self.states[index] in HELD}
        for index in self.open:
            self.states[index] = "CANCELLED"
            self.parked.discard(f"{FAN}.{index}")
        self.waiting.clear()
        self.stopped = reason
        self.fill()

    def let_go(self, node_id: str) -> None:
        """Its entry has gone, and it was not to run any more."""
        if self.status in LIVE and node_id != FAN:
            self.left.discard(int(node_id.partition(".")[2]))
            self.fill()

    def pause_item(self, index: int) -> None:
        self.states[index] = "RETRYING"
        self.dated.append(index)
        self.fill()

    def come_due(self) -> None:
        dated, self.dated = self.dated, []
        for index in dated:
            if self.stopped:
                self.states[index] = "CANCELLED"
                continue
            self.states[index] = "PENDING"
            self.waiting.append(index)
            self.fill()

    def resume(self) -> None:
        self.status = "RUNNING"
        parked, self.parked = self.parked, set()
        for node_id in parked:
            self.put(node_id)

    def cancel(self) -> None:
        self.status = "CANCELLED"
        self.parked.clear()
        self.dated.clear()
        if self.fan not in ENDED:
            self.fan = "CANCELLED"
        for index, state in self.states.items():
            if state not in ENDED:
                self.states[index] = "CANCELLED"


class MapMachine(EngineMachine):
    """`taken` are entries a worker was given, also those that were taken away since."""

    def __init__(self, server: PrivateServer) -> None:
        super().__init__(server)
        self.worker: Worker = self.engine.worker("w1")
        self.taken: list[Entry] = []
        self.held: set[str] = set()
        self.reference: MapReference
        self.execution: Execution

    @initialize(
        n=st.integers(1, 9),
        window=st.integers(1, 4),
        max_failed=st.integers(0, 2),
        fail_fast=st.booleans(),
        bytes_max=st.sampled_from((0, 0, 40)),
        is_early=st.booleans(),
    )
    def begin(self, is_early: bool, **said: Any) -> None:
        """Before the node waits, its first items may have been opened for long."""
        self.reference = MapReference(**said)
        self.run(self.store.tasks.enroll_worker("w1", ELSEWHERE))
        self.execution, (fan,) = self.run(self.engine.start_and_take(mapping(), self.worker))
        self.taken, self.held = [fan], {fan.name}
        maps = self.store.nodes.maps
        assert self.run(maps.stage(self.execution.id, FAN, list(range(said["n"]))))
        assert self.run(self._expand())
        self.reference.waiting = list(range(said["n"]))
        self.reference.fill()
        if not is_early:
            self.wait(fan)

    def _expand(self) -> Awaitable[bool]:
        said = self.reference
        facts = {"max_failed": said.max_failed, "fail_fast": said.fail_fast}
        facts |= {"window": said.window, "bytes_max": said.bytes_max}
        return expand(self.store, self.execution, said.n, **facts)

    # What a worker does with what it was given, and with what is not its own any more.

    def _close(self, entry: Entry) -> str:
        """`stale`, `ended`, or empty when the attempt counts."""
        if entry.name not in self.held:
            return "stale"
        self.held.discard(entry.name)
        if self.reference.counts(entry.node_id):
            return ""
        self.reference.let_go(entry.node_id)
        return "ended"

    def wait(self, fan: Entry) -> None:
        expected = self._close(fan)
        if not expected:
            expected = "woken" if self.reference.is_decided else "waiting"
            self.reference.fan = "WAITING"
            if expected == "woken":
                self.reference.wake()
        assert self.run(self.worker.wait(fan, "items")) == expected

    @precondition(lambda self: self.reference.queue)
    @rule(count=st.integers(1, 6))
    def read(self, count: int) -> None:
        entries = self.run(self.worker.take(count))
        expected, self.reference.queue = (
            self.reference.queue[:count],
            self.reference.queue[count:],
        )
        assert [(one.node_id, one.attempt) for one in entries] == expected
        self.taken += entries
        self.held |= {one.name for one in entries}

    def _some(self, data: st.DataObject, size: int = 1) -> list[Entry]:
        """Items, mostly those that are held."""
        items = [one for one in self.taken if one.node_id != FAN]
        held = [one for one in items if one.name in self.held]
        chosen = st.sampled_from((held * 3 + items)[-20:])
        return data.draw(st.lists(chosen, min_size=1, max_size=size, unique_by=id))

    def _has_items(self) -> bool:
        return any(one.node_id != FAN for one in self.taken)

    @precondition(lambda self: self._has_items())
    @rule(data=st.data(), is_failure=st.booleans(), is_reply_lost=st.booleans())
    def end(self, data: st.DataObject, is_failure: bool, is_reply_lost: bool) -> None:
        chosen = self._some(data, size=4)
        for _ in range(1 + is_reply_lost):
            self._end(chosen, is_failure=is_failure)

    def _end(self, chosen: Sequence[Entry], *, is_failure: bool) -> None:
        expected, has_ended = [], False
        for entry in chosen:
            outcome = self._close(entry)
            if not outcome:
                index = entry.node_id.partition(".")[2]
                size = len(index) + 5 if is_failure else len(entry.node_id) + 11
                self.reference.end(int(index), ENDED[is_failure], size)
                has_ended = True
            expected.append(outcome or "completed")
        if has_ended:
            self.reference.settle()
        said = fail(self.worker, *chosen) if is_failure else self.worker.complete(*chosen)
        assert self.run(said) == expected

    @precondition(lambda self: self._has_items())
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        (entry,) = self._some(data)
        if entry.name not in self.held:
            expected = "stale"
        elif self.reference.counts(entry.node_id):
            self.reference._set(entry.node_id, "RUNNING")
            expected = "claimed"
        else:
            expected = self._close(entry)
        assert self.run(self.worker.claim(entry)) == [expected]

    @precondition(lambda self: self._has_items())
    @rule(data=st.data(), is_reply_lost=st.booleans())
    def retry(self, data: st.DataObject, is_reply_lost: bool) -> None:
        (entry,) = self._some(data)
        for _ in range(1 + is_reply_lost):
            expected = self._close(entry)
            if not expected:
                self.reference.pause_item(int(entry.node_id.partition(".")[2]))
                expected = "retrying"
            assert self.run(retry(self.worker, entry)) == expected

    @precondition(lambda self: self._has_items())
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """Its worker died: the others are given it."""
        (entry,) = self._some(data)
        outcome = self._close(entry)
        if not outcome:
            self.reference.put(entry.node_id)
        said, _ = self.run(self.store.tasks.requeue_entry(entry.name, "w1"))
        assert said == {"stale": "gone", "ended": "ended", "": "requeued"}[outcome]

    @precondition(lambda self: self.reference.dated)
    @rule()
    def come_due(self) -> None:
        order = {
            f"{self.execution.id} {FAN}.{one}": at for at, one in enumerate(self.reference.dated)
        }
        self.redis.zadd(keys.RETRIES, order)
        self.reference.come_due()
        self.run(self.store.retries.dispatch())

    @precondition(lambda self: any(self._is_fan(one) for one in self.taken))
    @rule(is_reply_lost=st.booleans())
    def go_on(self, is_reply_lost: bool) -> None:
        """What the node does whenever it is claimed: gather, or wait."""
        fan = next(one for one in self.taken if self._is_fan(one))
        if self.reference.is_over:
            for _ in range(1 + is_reply_lost):
                self._gather(fan)
            return
        is_running = self.reference.counts(FAN)
        assert self.run(self._expand()) == is_running
        if is_running:
            self.reference.fill()
        self.wait(fan)

    def _gather(self, fan: Entry) -> None:
        outcome, reference = self._close(fan), self.reference
        is_stopped = bool(reference.stopped)
        if not outcome:
            if is_stopped:
                maps = self.store.nodes.maps
                self.run(maps.cancel_items(self.execution.id, FAN, reference.n))
                # Those in a pause, and those that came out of one and had no place yet.
                for index, state in reference.states.items():
                    if state not in ENDED:
                        reference.states[index] = "CANCELLED"
                reference.dated.clear()
            reference.fan = reference.status = ENDED[is_stopped]
            outcome = "finished"
        if is_stopped:
            assert self.run(self.worker.fail(fan)) == outcome
        else:
            assert self.run(self.worker.complete(fan)) == [outcome]

    def _is_fan(self, entry: Entry) -> bool:
        return entry.node_id == FAN and entry.name in self.held

    # What users do.

    @precondition(lambda self: self.reference.status in LIVE)
    @rule(verb=st.sampled_from(("pause", "resume", "resume", "pause", "resume", "cancel")))
    def order(self, verb: str) -> None:
        lifecycle, reference = self.store.lifecycle, self.reference
        if verb == "pause":
            reference.status = "PAUSED"
            self.run(lifecycle.pause_execution(self.execution.id))
        elif verb == "resume":
            kept = self.redis.hkeys(keys.parked(self.execution.id))
            assert set(kept) == reference.parked
            self.run(lifecycle.resume_execution(self.execution.id))
            self._follow(reference.resume)
        else:
            self.run(lifecycle.cancel_execution(self.execution.id))
            self.run(cancel_nodes(self.store, self.execution.plan, self.execution.id))
            reference.cancel()

    def _follow(self, resume: Any) -> None:
        """What is kept has no order; the stream says which it got."""
        before = len(self.reference.queue)
        resume()
        said = [
            (fields["node_id"], int(fields["attempt"]))
            for entry_id, fields in self.redis.xrange(STREAM)
            if entry_id not in self.held
        ][before:]
        assert sorted(said) == sorted(self.reference.queue[before:])
        self.reference.queue[before:] = said

    # What has to hold.

    @invariant()
    def every_item_has_one_place(self) -> None:
        reference = self.reference
        state = map_state(self.redis, self.execution, reference.n)
        assert state.items == reference.states, (state, reference)
        if reference.status in LIVE:
            assert self.redis.get(keys.node(self.execution.id, FAN)) == reference.fan
            assert {int(one) for one in state.open} == reference.open
            assert [int(one.rstrip("+")) for one in state.todo] == reference.waiting
            assert len(state.open) <= reference.window
            dated = {f"{self.execution.id} {FAN}.{one}" for one in reference.dated}
            assert set(self.redis.zrange(keys.RETRIES, 0, -1)) == dated
            if not reference.stopped:
                places = len(state.open) + len(state.todo) + len(dated)
                assert reference.ended + places == reference.n
        said = {"ended": reference.ended, "failed": reference.failed, "bytes": reference.bytes}
        assert {one: int(state.counters.get(one, 0)) for one in said} == said
        assert state.counters.get("stopped", "") == reference.stopped

    @invariant()
    def every_entry_is_one_attempt(self) -> None:
        entries = {
            entry_id: (fields["node_id"], int(fields["attempt"]))
            for entry_id, fields in (self.redis.xrange(STREAM) if self.redis.exists(STREAM) else ())
        }
        unread = [said for entry_id, said in entries.items() if entry_id not in self.held]
        assert unread == self.reference.queue
        assert self.held <= entries.keys()

    @invariant()
    def nobody_waits_without_a_waker(self) -> None:
        reference = self.reference
        if reference.status == "RUNNING" and reference.fan == "WAITING":
            assert reference.open or reference.waiting or reference.dated

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self._end_everything()
        super().teardown()

    def _end_everything(self) -> None:
        reference = self.reference
        for _ in range(200):
            if reference.status == "PAUSED":
                self.order("resume")
            if reference.dated:
                self.come_due()
            if reference.queue:
                self.read(6)
            items = [one for one in self.taken if one.name in self.held and one.node_id != FAN]
            if items:
                self._end(items[:4], is_failure=False)
            if any(self._is_fan(one) for one in self.taken):
                self.go_on(is_reply_lost=False)
        assert reference.status in (*ENDED, "CANCELLED")
        assert not self.held
        violations = find_violations(self.redis, [self.execution.id])
        assert violations == []
