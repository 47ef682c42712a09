"""The store's scripts on a real server beside the reference, step by step, whatever the order."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import redis as redis_py
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flowd.errors import StoreFull, UnknownExecution, WrongState
from flowd.orchestrator.executor import cancel_execution
from flowd.orchestrator.leases import LEASE_S, LeaseWatch
from flowd.orchestrator.owner import Owner
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import ensure_groups, recover_entry, recover_worker
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.scheduler.retention import DAY_MS, forget_finished
from flowd.store import open_store
from flowd.store.endings import Advance, RetryLater
from flowd.store.entries import Entry, entry_order
from flowd.store.executions import now_ms
from flowd.store.indexes import LISTED_STATES
from flowd.store.redis import keys
from flowd.workflow.ids import new_execution_id
from scripts.soaking.checker import find_violations
from tests.model.reference import (
    DATED,
    ENDED,
    FAILED,
    Graph,
    Reference,
    Ticket,
    above,
    written,
)
from tests.private_server import PrivateServer
from tests.store.engine import STREAM, ScriptedEngine, Worker, compiled

# What the store calls the wakers of the reference.
WAKERS = {"timed": "signal"}
WORKERS = ("w1", "w2", "w3")
# Who they are: processes of this version, of which nobody here can tell whether they live.
ELSEWHERE = replace(Owner.of_this_process(), host="elsewhere").to_json()
# What is done to an execution, as often as it says more.
ORDERS = (
    *("trigger", "pause", "pause", "resume", "cancel", "trigger", "pause", "resume", "cancel"),
    *("delete", "rerun", "resubmit", "expire", "force_cancel"),
)
NODES_MAX = 40
# What is written of a node that chooses.
CHOICES: tuple[dict[str, Any], ...] = (
    *({}, {}, {}, {"when": "true"}, {"when": "false"}, {"allow_failure": True}),
    *({"after": after} for after in ("completed", "failed", "ended")),
    {"after": "failed", "allow_failure": True},
)

T = TypeVar("T")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Mostly small; each node depends on some before it."""
    count = draw(st.one_of(st.integers(1, 6), st.integers(2, 6), st.integers(1, NODES_MAX)))
    chooses = draw(st.booleans())
    graph: dict[str, Any] = {}
    for number in range(count):
        least = draw(st.integers(0, 1)) if number else 0
        choice = st.sets(st.integers(0, number - 1), min_size=least, max_size=3)
        chosen = draw(choice) if number else set()
        above = [f"n{one}" for one in sorted(chosen)]
        said = draw(st.sampled_from(CHOICES)) if chooses else {}
        graph[f"n{number}"] = {"dependencies": above, **said} if said else above
    for number in range(draw(st.integers(-3, 3))):
        below = [f"z{number - 1}"] if number and draw(st.booleans()) else []
        said = draw(st.sampled_from(CHOICES)) if chooses else {}
        graph[f"z{number}"] = {"finally": True, "dependencies": below, **said}
    return graph


class EngineMachine(RuleBasedStateMachine):
    """Drives the store on an empty server, one step after the other."""

    def __init__(self, server: PrivateServer) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis = redis_py.Redis(unix_socket_path=server.socket_path, decode_responses=True)
        self.redis.flushall()
        self.store = open_store(server.settings())
        self.plans = Plans(self.store)
        self.engine = ScriptedEngine(self.store, self.redis)

    def teardown(self) -> None:
        self.run(self.engine.close())
        self.run(self.store.close())
        self.redis.close()
        self.runner.close()

    def run(self, step: Awaitable[T]) -> T:
        async def bounded() -> T:
            return await asyncio.wait_for(step, 180)

        return self.runner.run(bounded())


class Machine(EngineMachine):
    """Workers keep what they were given, also when it was taken away: they are late, not gone."""

    def __init__(self, server: PrivateServer) -> None:
        super().__init__(server)
        self.reference = Reference()
        self.workers: dict[str, Worker] = {}
        self.frozen: set[str] = set()
        # Names whose lease nobody has taken away.
        self.leased: set[str] = set()
        # Everything ever delivered, by whom, also when it is not theirs any more.
        self.delivered: list[tuple[str, Entry, Ticket]] = []
        self.lives = 0
        # What was submitted under which key, and the ids those keys stand for.
        self.graphs: dict[str, Graph] = {}
        self.submitted_ids: set[str] = set()
        self.is_full = False
        self.attempts: dict[tuple[str, str], int] = {}
        self.run(ensure_groups(self.store, self.plans))
        for name in WORKERS:
            self._employ(name)

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self._end_everything()
        self._fill(is_full=False)
        super().teardown()

    def _employ(self, slot: str) -> None:
        self.lives += 1
        name = f"{slot}-{self.lives}"
        self.workers[slot] = self.engine.worker(name)
        self.frozen.discard(slot)
        self.leased.add(name)
        self.run(self.store.tasks.enroll_worker(name, ELSEWHERE))

    def _awake(self) -> list[str]:
        return [slot for slot in WORKERS if slot not in self.frozen]

    def _busy(self) -> list[str]:
        """Who is awake and holds something: there a fault means most."""
        return [one for one in self._awake() if self.reference.held_by(self.workers[one].name)]

    # What users do.

    @precondition(lambda self: sum(self._is_open(one) for one in self.reference.executions) < 3)
    @rule(graph=graphs(), is_triggered=st.booleans(), has_key=st.booleans())
    def submit(self, graph: Graph, is_triggered: bool, has_key: bool) -> None:
        if self.is_full:
            with pytest.raises(StoreFull):
                self.run(self.engine.submit(graph))
            return
        if has_key:
            execution_id = self._submit_once(graph, f"key {self.lives} {len(self.graphs)}")
        else:
            execution_id = self.run(self.engine.submit(graph)).id
            self.reference.submit(execution_id, graph)
        if is_triggered:
            self.trigger(execution_id)

    def _submit_once(self, graph: Graph, key: str) -> str:
        """As a client that was not answered, and asks until it is; its execution may be gone."""
        definition, plan = compiled(graph)
        self.engine._plans[plan.digest] = plan
        self.graphs[key] = graph
        claim = self.store.submissions.idempotency.claim(
            key, definition, new_execution_id(now_ms())
        )
        claimed = self.run(claim)
        known_id = self.reference.keys.setdefault(key, claimed.execution_id)
        assert claimed.execution_id == known_id, "a key stands for two executions"
        named = {"execution_id": known_id, "key_digest": claimed.key_digest}
        submission = self.store.submissions.submit_workflow(definition, plan, **named)
        if known_id in self.submitted_ids:
            assert claimed.is_deleted == (known_id not in self.reference.executions)
            if claimed.is_deleted:
                with pytest.raises(UnknownExecution):
                    self.run(submission)
            else:
                self.run(submission)
        else:
            self.run(submission)
            self.submitted_ids.add(known_id)
            self.reference.submit(known_id, graph)
        return known_id

    def resubmit(self, _execution_id: str) -> None:
        for key in list(self.reference.keys)[-3:] if not self.is_full else ():
            self._submit_once(self.graphs[key], key)

    def _is_open(self, execution_id: str) -> bool:
        return self.reference.executions[execution_id].status not in ENDED

    def _some_execution(self, data: st.DataObject) -> str:
        """Mostly one that has not ended: there are ever more of the others."""
        known = sorted(self.reference.executions)
        still_open = [one for one in known if self._is_open(one)]
        return data.draw(st.sampled_from((still_open * 4 or known) + known))

    # One rule for all of them: the more rules there are, the less each example gets done.
    @precondition(lambda self: self.reference.executions)
    @rule(data=st.data(), verb=st.sampled_from(ORDERS))
    def order(self, data: st.DataObject, verb: str) -> None:
        if verb == "rerun":
            self.rerun(self._some_execution(data), data)
        else:
            getattr(self, verb)(self._some_execution(data))

    def trigger(self, execution_id: str) -> None:
        execution = self.reference.executions.get(execution_id)
        if self.is_full and execution:
            with pytest.raises(StoreFull):
                self.run(self.store.executions.trigger_workflow(execution_id))
            return
        expected = self.reference.trigger(execution_id)
        if expected == "unknown":
            with pytest.raises(UnknownExecution):
                self.run(self.store.executions.trigger_workflow(execution_id))
            return
        assert self.run(self.store.executions.trigger_workflow(execution_id)) == expected

    def pause(self, execution_id: str) -> None:
        expected = self.reference.pause(execution_id)
        assert self.run(self.store.lifecycle.pause_execution(execution_id)) == expected

    def resume(self, execution_id: str) -> None:
        expected = self.reference.resume(execution_id)
        assert self.run(self.store.lifecycle.resume_execution(execution_id)) == expected

    def force_cancel(self, execution_id: str) -> None:
        self.cancel(execution_id, force=True)

    def cancel(self, execution_id: str, *, force: bool = False) -> None:
        expected = self.reference.cancel(execution_id, force=force)
        try:
            self.run(cancel_execution(self.store, execution_id, force=force))
        except WrongState as refused:
            assert refused.status == expected
        else:
            assert expected in ("cancelled", "cancelling")

    def delete(self, execution_id: str) -> None:
        expected = self.reference.delete(execution_id)
        assert self.run(self.store.finished.delete_execution(execution_id)) == expected

    def expire(self, _execution_id: str) -> None:
        self.run(forget_finished(self.store, 1, now_ms() + 2 * DAY_MS))
        self.reference.expire()

    def rerun(self, execution_id: str, data: st.DataObject) -> None:
        graph = self.reference.executions[execution_id].graph
        start = data.draw(st.sampled_from([FAILED, *graph]))
        if self.is_full:
            return
        new_id = new_execution_id(now_ms())
        expected = self.reference.rerun(execution_id, start, new_id)
        try:
            planned = self.run(plan_rerun(self.store, execution_id, start))
            self.run(rerun_execution(self.store, planned, new_id))
        except WrongState:
            assert expected != "made"
            return
        assert expected == "made"
        states = self.reference.executions[new_id].nodes
        assert set(planned.runs) == {one for one, state in states.items() if state == "PENDING"}
        self.trigger(new_id)

    # What workers do.

    @precondition(lambda self: self._awake() and self.reference.waiting())
    @rule(data=st.data(), count=st.integers(1, 5))
    def read(self, data: st.DataObject, count: int) -> None:
        """Some of it is completed at once, or an example would come to no end."""
        slot = data.draw(st.sampled_from(self._awake()))
        already = len(self.delivered)
        self._read(slot, count)
        read = self.delivered[already:]
        self._complete(slot, read[: data.draw(st.integers(0, len(read)))])

    def _read(self, slot: str, count: int) -> None:
        worker = self.workers[slot]
        waiting = {ticket.key: ticket for ticket in self.reference.waiting()}
        entries = self.run(worker.take(count))
        assert len(entries) == min(count, len(waiting))
        for entry in entries:
            key = entry.execution_id, entry.node_id, entry.attempt
            assert key in waiting, "an attempt that waits nowhere was delivered"
            ticket = waiting[key]
            assert (entry.deaths, entry.failures) == (ticket.deaths, ticket.failures)
            assert entry.waits == ticket.waits
            assert entry.attempt > self.attempts.get(ticket.key[:2], 0), "attempts do not rise"
            self.attempts[ticket.key[:2]] = entry.attempt
            ticket.holder = worker.name
            self.delivered.append((slot, entry, ticket))

    def _some_delivered(
        self, data: st.DataObject, size: int = 1
    ) -> list[tuple[str, Entry, Ticket]]:
        """Mostly what is open, or was taken away and runs elsewhere; now and then what is over."""
        recent = self._in_reach()[-12:]
        still_open = [one for one in self._in_reach() if one[2].is_open]
        outstanding = {ticket.key[:2] for ticket in self.reference.tickets}
        taken_away = [
            one for one in self._in_reach() if not one[2].is_open and one[2].key[:2] in outstanding
        ]
        chosen = st.sampled_from(still_open[-12:] * 2 + taken_away[-12:] * 2 + recent)
        return data.draw(st.lists(chosen, min_size=1, max_size=size, unique_by=id))

    def _in_reach(self) -> list[tuple[str, Entry, Ticket]]:
        """Who is frozen says nothing."""
        return [one for one in self.delivered if one[0] not in self.frozen]

    @precondition(lambda self: self._in_reach())
    @rule(data=st.data(), is_reply_lost=st.booleans())
    def claim(self, data: st.DataObject, is_reply_lost: bool) -> None:
        ((slot, entry, ticket),) = self._some_delivered(data)
        worker = self.workers[slot]
        for _ in range(1 + is_reply_lost):
            expected = self.reference.claim(ticket, worker.name)
            assert self.run(worker.claim(entry)) == [expected]

    @precondition(lambda self: self._in_reach())
    @rule(data=st.data(), is_reply_lost=st.booleans())
    def complete(self, data: st.DataObject, is_reply_lost: bool) -> None:
        """A batch; when the reply is lost all of it is said again, and changes nothing."""
        chosen = self._some_delivered(data, size=6)
        chosen = [one for one in chosen if one[0] == chosen[0][0]]
        for _ in range(1 + is_reply_lost):
            self._complete(chosen[0][0], chosen)

    def _complete(self, slot: str, chosen: Sequence[tuple[str, Entry, Ticket]]) -> None:
        worker = self.workers[slot]
        said: list[Advance] = [worker.completion(entry) for _, entry, _ in chosen]
        expected = [self.reference.complete(ticket) for _, _, ticket in chosen]
        assert self.run(worker.exchange(said)).completed == expected

    @precondition(lambda self: any(map(self._may_be_skipped, self._in_reach())))
    @rule(data=st.data(), is_reply_lost=st.booleans())
    def skip(self, data: st.DataObject, is_reply_lost: bool) -> None:
        """One that is skipped, and one that is completed in the same call."""
        reach = [one for one in self._in_reach() if self._may_be_skipped(one)][-12:]
        slot, entry, ticket = data.draw(st.sampled_from(reach))
        others = [
            one
            for one in self._in_reach()
            if one[0] == slot and one[2] is not ticket and one[2].is_open
        ]
        worker = self.workers[slot]
        for _ in range(1 + is_reply_lost):
            said: list[Advance] = [worker.skipping(entry)]
            expected = [self.reference.skip(ticket)]
            for _, other, its_ticket in others[:1]:
                said.append(worker.completion(other))
                expected.append(self.reference.complete(its_ticket))
            assert self.run(worker.exchange(said)).completed == expected

    def _may_be_skipped(self, one: tuple[str, Entry, Ticket]) -> bool:
        plan = self.engine._plans[one[1].plan_digest]
        return plan.nodes[one[1].node_id].choice is not None

    def _fail(self, slot: str, entry: Entry) -> str:
        if not self.engine._plans[entry.plan_digest].nodes[entry.node_id].allow_failure:
            return self.run(self.workers[slot].fail(entry))
        (outcome,) = self.run(self.workers[slot].allow(entry))
        return outcome

    @precondition(lambda self: self._in_reach())
    @rule(data=st.data(), is_reply_lost=st.booleans())
    def fail(self, data: st.DataObject, is_reply_lost: bool) -> None:
        ((slot, entry, ticket),) = self._some_delivered(data)
        expected = self.reference.fail(ticket)
        assert self._fail(slot, entry) == expected
        if is_reply_lost:
            assert self._fail(slot, entry) == "stale"

    @precondition(lambda self: self._in_reach())
    @rule(data=st.data(), is_reply_lost=st.booleans())
    def retry(self, data: st.DataObject, is_reply_lost: bool) -> None:
        ((slot, entry, ticket),) = self._some_delivered(data)
        record = f"{entry.attempt} {entry.queued_ms} 0 0 {slot}"
        said = RetryLater(entry, record, 0, entry.failures + 1, "boom")
        expected = self.reference.retry(ticket)
        assert self.run(self.workers[slot].exchange(failures=[said])).failed == [expected]
        if is_reply_lost:
            assert self.run(self.workers[slot].exchange(failures=[said])).failed == ["stale"]

    @precondition(lambda self: self._in_reach())
    @rule(
        data=st.data(),
        waker=st.sampled_from(("date", "signal", "timed")),
        is_begun_anew=st.booleans(),
        is_reply_lost=st.booleans(),
    )
    def wait(
        self, data: st.DataObject, waker: str, is_begun_anew: bool, is_reply_lost: bool
    ) -> None:
        ((slot, entry, ticket),) = self._some_delivered(data)
        number = max(1, entry.waits) if is_begun_anew else entry.waits + 1
        expected = self.reference.wait(ticket, waker, number)
        said = {"number": number, "due_ms": 0 if waker in DATED else None}
        kind = WAKERS.get(waker, waker)
        assert self.run(self.workers[slot].wait(entry, kind, **said)) == expected
        if is_reply_lost:
            assert self.run(self.workers[slot].wait(entry, kind, **said)) == "stale"

    @precondition(lambda self: self.reference.executions)
    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        """Mostly one that waits; also one that does not yet, or any more."""
        execution_id = self._some_execution(data)
        execution = self.reference.executions[execution_id]
        waiting = [one for one, state in execution.nodes.items() if state == "WAITING"]
        begun = [one for one, state in execution.nodes.items() if state in ("QUEUED", "RUNNING")]
        node_id = data.draw(st.sampled_from(waiting * 4 + begun * 4 + list(execution.nodes)))
        if self.is_full:
            return
        # The words differ, so that it can be told which of them stand.
        said = "signal", f"{len(self.delivered)} or {len(execution.words)}"
        expected = self.reference.wake(execution_id, node_id, *said)
        wake = self.run(self.store.tasks.waits.wake(execution_id, node_id, *said))
        assert wake.outcome == expected
        stands = wake.decision and (wake.decision.kind, wake.decision.payload)
        assert stands == execution.words.get(node_id)

    @precondition(lambda self: self._in_reach())
    @rule(data=st.data())
    def park(self, data: st.DataObject) -> None:
        ((_, entry, ticket),) = self._some_delivered(data)
        if entry.execution_id in self.reference.executions:
            expected = self.reference.park(ticket)
            assert self.run(self.store.lifecycle.park_node(entry)) == expected

    @precondition(lambda self: self._awake())
    @rule(data=st.data(), verb=st.sampled_from(("renew", "read_back")))
    def look_after_itself(self, data: st.DataObject, verb: str) -> None:
        getattr(self, verb)(data.draw(st.sampled_from(self._awake())))

    def renew(self, slot: str) -> None:
        """Who hears that its lease is gone lets go of everything, and begins anew."""
        name = self.workers[slot].name
        is_renewed = self.run(self.store.tasks.renew_lease(name))
        assert is_renewed == (name in self.leased), "a lease came back to life, or was lost"
        if not is_renewed:
            self.release(slot)

    def _take_away(self, name: str, cause: str, *, is_blamed: bool) -> None:
        self.run(recover_worker(self.store, self.plans, name, cause, is_blamed=is_blamed))
        self.reference.take_away(name, is_blamed=is_blamed)
        self.leased.discard(name)

    def read_back(self, slot: str) -> None:
        """What it holds, also what came in a reply that was lost."""
        worker = self.workers[slot]
        own = self.run(worker.session.own_entries())
        held = {ticket.key for ticket in self.reference.held_by(worker.name)}
        assert {(one.execution_id, one.node_id, one.attempt) for one in own} == held

    # What goes wrong.

    @rule(
        data=st.data(),
        fault=st.sampled_from(
            (
                *("die", "die", "die", "freeze", "thaw", "reclaim_leases", "release"),
                *("flush_scripts", "fill", "die_half_recovered"),
            )
        ),
    )
    def suffer(self, data: st.DataObject, fault: str) -> None:
        if fault == "reclaim_leases":
            self.reclaim_leases()
        elif fault == "flush_scripts":
            self.redis.script_flush()
        elif fault == "fill":
            self._fill(is_full=not self.is_full)
        elif slots := sorted(self.frozen) if fault == "thaw" else self._busy() or self._awake():
            getattr(self, fault)(data.draw(st.sampled_from(slots)))

    def die(self, slot: str) -> None:
        """What it had on the way may still arrive, under a new name."""
        gone = self.workers[slot].name
        self._take_away(gone, "killed", is_blamed=True)
        assert not self.run(self.store.tasks.renew_lease(gone)), "a lease came back to life"
        self._employ(slot)

    def _fill(self, *, is_full: bool) -> None:
        """From here on nothing new is taken, and all that runs goes on and can be held up."""
        self.is_full = is_full
        self.redis.config_set("maxmemory", 1 if is_full else 0)

    def die_half_recovered(self, slot: str) -> None:
        """Who gives its work to the others dies in between; somebody begins anew, later."""
        gone = self.workers[slot].name
        held = sorted(
            (one for one in self.delivered if one[2].holder == gone and one[2].is_open),
            key=lambda one: entry_order(one[1].name),
        )
        self.run(self.store.tasks.revoke_lease(gone))
        self.leased.discard(gone)
        for _, entry, ticket in held[: len(held) // 2]:
            requeue = recover_entry(
                self.store, self.plans, entry.name, gone, "killed", is_blamed=True
            )
            self.run(requeue)
            self.reference.take_one_away(ticket, is_blamed=True)
        self._employ(slot)

    def release(self, slot: str) -> None:
        """It ends in order, and gives back what it holds."""
        self._take_away(self.workers[slot].name, "it gave them back", is_blamed=False)
        self._employ(slot)

    def freeze(self, slot: str) -> None:
        self.frozen.add(slot)

    def thaw(self, slot: str) -> None:
        """It goes on where it was, and does not know that time has passed."""
        self.frozen.remove(slot)

    def reclaim_leases(self) -> None:
        """The time of a lease passes, in which those renew theirs that can."""
        watch = LeaseWatch()
        watch.expired(self.run(self.store.tasks.leases()), 0.0)
        for slot in self._awake():
            self.run(self.store.tasks.renew_lease(self.workers[slot].name))
        expired = set(watch.expired(self.run(self.store.tasks.leases()), LEASE_S))
        awake = {self.workers[slot].name for slot in self._awake()} & self.leased
        frozen = {self.workers[slot].name for slot in self.frozen} & self.leased
        assert not expired & awake, "a lease that was renewed was given away"
        assert expired >= frozen, "a lease that was not renewed was kept"
        for name in sorted(expired):
            self._take_away(name, "silent", is_blamed=True)

    @precondition(lambda self: self.reference.retrying() or self.reference.dated())
    @rule()
    def dispatch_retries(self) -> None:
        self.run(self.store.retries.dispatch())
        self.reference.dispatch_retries()
        self.reference.dispatch_dates()

    @precondition(lambda self: len(self.reference.executions) > 3)
    @rule()
    def flush_everything(self) -> None:
        self._fill(is_full=False)
        self.redis.flushall()
        self.run(ensure_groups(self.store, self.plans))
        lost = list(self.reference.executions)
        self.reference.forget_everything()
        self.delivered.clear()
        self.leased.clear()
        for slot in WORKERS:
            self._employ(slot)
        for execution_id in lost[:1]:
            try:
                self.run(self.store.executions.trigger_workflow(execution_id))
            except UnknownExecution:
                continue
            raise AssertionError("an execution outlived its keys")

    # How it ends.

    def _end_everything(self) -> None:
        """All wake, what is paused goes on, and every node is completed: then nothing is left."""
        self._fill(is_full=False)
        for slot in WORKERS:
            self.release(slot)
        self.reclaim_leases()
        for execution in list(self.reference.executions.values()):
            if execution.status == "PAUSED":
                self.reference.resume(execution.id)
                self.run(self.store.lifecycle.resume_execution(execution.id))
        while self._wake_all() or self.reference.waiting() or self.reference.retrying():
            self.dispatch_retries()
            already = len(self.delivered)
            self._read("w1", 100)
            self._complete("w1", self.delivered[already:])
        self.agrees_with_the_reference()
        self.every_outstanding_node_has_exactly_one_entry()
        self.active_are_those_that_have_not_ended()
        triggered = [one for one in self.reference.executions.values() if one.status != "PENDING"]
        assert find_violations(self.redis, [one.id for one in triggered]) == []

    def _wake_all(self) -> bool:
        """Everything that waits, whoever wakes it; True when something did."""
        waiting = [
            (execution.id, node_id)
            for execution in self.reference.executions.values()
            for node_id in list(execution.records)
        ]
        for execution_id, node_id in waiting:
            expected = self.reference.wake(execution_id, node_id, "signal", "")
            wake = self.run(self.store.tasks.waits.wake(execution_id, node_id, "signal"))
            assert wake.outcome == expected
        return bool(waiting)

    # What has to hold.

    @invariant()
    def agrees_with_the_reference(self) -> None:
        for execution in self.reference.executions.values():
            prefix = f"workflow:{execution.id}"
            assert self.redis.get(f"{prefix}:status") == execution.status
            found = self.redis.mget([keys.node(execution.id, one) for one in execution.nodes])
            assert dict(zip(execution.nodes, found, strict=True)) == execution.nodes
            parked = self.redis.hgetall(f"{prefix}:parked")
            assert {one: int(deaths) for one, deaths in parked.items()} == execution.parked
            assert max(execution.commits.values(), default=1) == 1, "a node committed twice"
            assert self.redis.hget(f"{prefix}:run", "ends_as") == execution.ends_as
            if execution.is_active:
                left = sum(execution.nodes[one] not in ENDED for one in execution.counted())
                assert int(self.redis.hget(f"{prefix}:run", "remaining")) == left

    @invariant()
    def every_outstanding_node_has_exactly_one_entry(self) -> None:
        entries = [
            (fields["execution_id"], fields["node_id"], int(fields["attempt"]))
            for _, fields in (self.redis.xrange(STREAM) if self.redis.exists(STREAM) else ())
        ]
        assert sorted(entries) == sorted(ticket.key for ticket in self.reference.tickets)
        outstanding = [
            (execution.id, node_id)
            for execution in self.reference.executions.values()
            if execution.is_active
            for node_id, state in execution.nodes.items()
            if state in ("QUEUED", "RUNNING")
        ]
        live = [one[:2] for one in entries if self._is_live(one[0])]
        assert sorted(live) == sorted(outstanding)

    @invariant()
    def who_waits_is_named_with_what_wakes_it(self) -> None:
        for execution in self.reference.executions.values():
            waits = self.redis.hgetall(keys.waits(execution.id))
            named = {one: tuple(text.split(" ")[:2]) for one, text in waits.items()}
            assert named == {
                one: (str(execution.waits[one]), WAKERS.get(waker, waker))
                for one, waker in execution.records.items()
            }
            decisions = self.redis.hgetall(keys.decisions(execution.id))
            texts = {one: text.split(" ", 3) for one, text in decisions.items()}
            assert {one: int(text[0]) for one, text in texts.items()} == execution.decided
            assert {one: (text[1], text[3]) for one, text in texts.items()} == execution.words
        dates = {tuple(one.split(" ")) for one in self.redis.zrange(keys.RETRIES, 0, -1)}
        expected = {
            (execution.id, node_id)
            for execution in self.reference.executions.values()
            for node_id, waker in execution.records.items()
            if waker in DATED
        }
        assert expected <= dates

    @invariant()
    def what_has_arrived_adds_up(self) -> None:
        for execution in self.reference.executions.values():
            if not execution.is_live:
                continue
            run = self.redis.hgetall(f"workflow:{execution.id}:run")
            for one in execution.graph.keys() - execution.settled:
                arrived = {execution.arrives(other) for other in above(execution.graph, one)}
                looks = "after" in written(execution.graph, one)
                counted = run.get(f"arrived:{one}")
                if looks or "FAILED" not in arrived:
                    number = execution.arrivals(one)
                    is_told = len(above(execution.graph, one)) > 1 or number > 1
                    assert counted == str(number) or (not counted and not (is_told and number))

    def _is_live(self, execution_id: str) -> bool:
        execution = self.reference.executions.get(execution_id)
        return execution is not None and execution.is_active

    @invariant()
    def nothing_is_left_of_what_is_unknown(self) -> None:
        known = set(self.reference.executions)
        assert {one.split(":")[1] for one in self.redis.keys("workflow:0*")} == known
        assert set(self.redis.zrange(keys.EXECUTIONS, 0, -1)) == known

    @invariant()
    def active_are_those_that_have_not_ended(self) -> None:
        live = {one.id for one in self.reference.executions.values() if one.is_active}
        assert self.redis.smembers(keys.ACTIVE) == live
        ended = {one.id for one in self.reference.executions.values() if one.status in ENDED}
        assert set(self.redis.zrange(keys.FINISHED, 0, -1)) == ended
        assert self.redis.zcard(keys.CONTINUATIONS) == 0

    @invariant()
    def each_is_listed_by_its_name_and_in_the_list_of_its_state(self) -> None:
        for state in LISTED_STATES:
            listed = set(self.redis.zrange(keys.by_status(state), 0, -1))
            executions = self.reference.executions.values()
            assert listed == {one.id for one in executions if one.status == state}
        named = [one.rpartition("\0")[2] for one in self.redis.zrange(keys.NAMES, 0, -1)]
        assert sorted(named) == sorted(self.reference.executions)
