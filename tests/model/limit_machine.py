"""Limits and queues on a real server beside a reference that knows neither scripts nor counters."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Sequence
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from flowd.orchestrator.executor import cancel_execution
from flowd.orchestrator.recovery import ensure_groups
from flowd.store.attempt_records import lost_record
from flowd.store.endings import RetryLater
from flowd.store.entries import Entry
from flowd.store.limits import Asking, Limit
from flowd.store.redis import keys
from scripts.soaking.checker import find_violations
from tests.model.limit_reference import PLACES, LimitReference, Ticket, Written
from tests.model.machine import ELSEWHERE, EngineMachine
from tests.private_server import PrivateServer
from tests.store.engine import STREAM, Worker, finish_continuations

# Who reads which queues, in this order.
READERS: Final = {"w1": ("default", "gpu"), "w2": ("gpu",)}
QUEUES: Final = ("default", "gpu")


class LimitMachine(EngineMachine):
    """`delivered` is all that a worker was given, also what was taken away since."""

    def __init__(self, server: PrivateServer) -> None:
        super().__init__(server)
        self.reference = LimitReference()
        self.delivered: list[tuple[Entry, Ticket]] = []
        self.run(ensure_groups(self.store, self.plans))
        self.run(self.store.tasks.queues.ensure_groups(QUEUES))
        self.workers: dict[str, Worker] = {}
        for name, queues in READERS.items():
            self.workers[name] = self.engine.worker(name, queues)
            self.run(self.store.tasks.enroll_worker(name, ELSEWHERE))

    @rule(name=st.sampled_from(("api", "lane")), most=st.sampled_from((None, 0, 1, 1, 2, 3)))
    def limit(self, name: str, most: int | None) -> None:
        self.reference.limit(name, most)
        limits = self.store.tasks.limits
        self.run(limits.delete(name) if most is None else limits.put(Limit(name, max=most)))

    @rule(
        nodes=st.lists(
            st.tuples(st.sampled_from((*PLACES, "api", None)), st.sampled_from(QUEUES)),
            min_size=1,
            max_size=6,
        )
    )
    def start(self, nodes: list[tuple[str | None, str]]) -> None:
        written = {f"n{at}": Written(*said) for at, said in enumerate(nodes)}
        graph = {node_id: said.said for node_id, said in written.items()}
        execution = self.run(self.engine.start(graph))
        self.reference.start(execution.id, written)

    @rule(name=st.sampled_from(tuple(READERS)), count=st.integers(1, 5), has_room=st.booleans())
    def read(self, name: str, count: int, has_room: bool) -> None:
        session = self.workers[name].session
        room = 64 if has_room else 0
        entries = self.run(session.complete_and_claim([], [], [], count, room)).entries
        assert len(entries) <= (max(count, room) if has_room else count)
        waiting = {
            (*one.member, one.attempt): one for one in self.reference.tickets if not one.holder
        }
        for entry in entries:
            assert isinstance(entry, Entry)
            ticket = waiting.pop((entry.execution_id, entry.node_id, entry.attempt))
            assert (entry.queue, entry.holds) == (ticket.queue, ticket.is_admitted)
            assert entry.queue in READERS[name], "it was taken by who does not read its queue"
            ticket.holder = name
            self.delivered.append((entry, ticket))

    def _some(self, data: st.DataObject, size: int = 1) -> list[tuple[Entry, Ticket]]:
        """Mostly such that are held."""
        held = [one for one in self.delivered if one[1].is_open]
        chosen = st.sampled_from((held * 4 + self.delivered)[-30:])
        return data.draw(st.lists(chosen, min_size=1, max_size=size, unique_by=id))

    def _written(self, ticket: Ticket) -> Written:
        execution_id, node_id = ticket.member
        execution = self.reference.executions.get(execution_id)
        return execution.nodes[node_id] if execution else Written("api", ticket.queue)

    def _holding(self, entry: Entry, ticket: Ticket) -> Entry:
        """As a worker says it of a node that names a limit."""
        return entry._replace(holds=self._written(ticket).place is not None)

    @precondition(lambda self: self.delivered)
    @rule(data=st.data(), is_reply_lost=st.booleans())
    def ask(self, data: st.DataObject, is_reply_lost: bool) -> None:
        asking = [
            (entry, ticket, place)
            for entry, ticket in self._some(data, size=6)
            if (place := self._written(ticket).place)
        ]
        if not asking:
            return
        for _ in range(1 + is_reply_lost):
            said = [Asking(entry, place, lost_record(entry, "-")) for entry, _, place in asking]
            expected = self.reference.ask(asking)
            assert self.run(self.store.tasks.limits.admit(said)) == expected

    @precondition(lambda self: self.delivered)
    @rule(data=st.data(), is_reply_lost=st.booleans())
    def complete(self, data: st.DataObject, is_reply_lost: bool) -> None:
        chosen = self._some(data, size=4)
        for _ in range(1 + is_reply_lost):
            self._complete(chosen)

    def _complete(self, chosen: Sequence[tuple[Entry, Ticket]]) -> None:
        tickets = [ticket for _, ticket in chosen]
        entries = [self._holding(*one) for one in chosen]
        expected = self.reference.end(tickets, lambda one: self.reference.become(one, "COMPLETED"))
        words = self.run(self.workers["w1"].complete(*entries))
        assert [one if one in ("stale", "ended") else "" for one in words] == expected

    @precondition(lambda self: self.delivered)
    @rule(
        data=st.data(),
        state=st.sampled_from(("FAILED", "RETRYING", "WAITING")),
        is_reply_lost=st.booleans(),
    )
    def end_otherwise(self, data: st.DataObject, state: str, is_reply_lost: bool) -> None:
        ((entry, ticket),) = self._some(data)
        for _ in range(1 + is_reply_lost):
            (expected,) = self.reference.end(
                [ticket], lambda one: self.reference.become(one, state)
            )
            word = self.run(self._say(self._holding(entry, ticket), state))
            assert (word if word in ("stale", "ended") else "") == expected

    def _say(self, entry: Entry, state: str) -> Awaitable[str]:
        worker = self.workers["w1"]
        if state == "FAILED":
            return worker.fail(entry)
        if state == "WAITING":
            return worker.wait(entry, "date", number=entry.waits + 1, due_ms=0)
        return self._retry(entry)

    async def _retry(self, entry: Entry) -> str:
        worker = self.workers["w1"]
        later = RetryLater(entry, worker.completion(entry).record, 0, entry.failures + 1, "boom")
        (outcome,) = (await worker.exchange(failures=[later])).failed
        return outcome

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        ((entry, ticket),) = self._some(data)
        if not ticket.is_open or self.reference.counts(ticket.member):
            expected = "claimed" if ticket.is_open else "stale"
        else:
            expected = self.reference.close(ticket)
        if expected == "claimed":
            execution_id, node_id = ticket.member
            self.reference.executions[execution_id].states[node_id] = "RUNNING"
        worker = self.workers[ticket.holder or "w1"]
        assert self.run(worker.claim(entry)) == [expected]

    @precondition(lambda self: self.delivered)
    @rule(data=st.data(), is_death=st.booleans())
    def lose(self, data: st.DataObject, is_death: bool) -> None:
        """Its worker died, or gave it back: the node keeps its place until others run it."""
        ((entry, ticket),) = self._some(data)
        expected = self.reference.close(ticket)
        if not expected:
            self.reference.put(ticket.member)
        requeue = self.store.tasks.requeue_entry(
            entry.name, ticket.holder or "w1", is_death=is_death and entry.deaths < 8
        )
        outcome, _ = self.run(requeue)
        assert outcome == {"stale": "gone", "ended": "ended", "": "requeued"}[expected]

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def park(self, data: st.DataObject) -> None:
        ((entry, ticket),) = self._some(data)
        execution = self.reference.executions.get(ticket.member.execution_id)
        if execution is None:
            return
        node_id = ticket.member.node_id
        expected = "parked" if ticket.is_open else "stale"
        if execution.status != "PAUSED" or execution.states[node_id] != "QUEUED":
            expected = "moved"
        if expected == "parked":
            self.reference.close(ticket)
            execution.states[node_id] = "PENDING"
            execution.parked.add(node_id)
            self.reference.release([ticket.member])
        assert self.run(self.store.lifecycle.park_node(entry)) == expected

    @precondition(lambda self: self._of("RUNNING", "PAUSED"))
    @rule(
        data=st.data(),
        verb=st.sampled_from(("pause", "pause", "resume", "resume", "cancel", "delete")),
    )
    def order(self, data: st.DataObject, verb: str) -> None:
        execution_id = data.draw(st.sampled_from(self._of("RUNNING", "PAUSED")))
        lifecycle = self.store.lifecycle
        if verb == "pause":
            self.reference.executions[execution_id].status = "PAUSED"
            self.run(lifecycle.pause_execution(execution_id))
        elif verb == "resume":
            self.reference.resume(execution_id)
            self.run(lifecycle.resume_execution(execution_id))
        elif verb == "cancel":
            self.reference.cancel(execution_id)
            self.run(cancel_execution(self.store, execution_id))
        else:
            # As by a process that is killed before the nodes are marked.
            self.reference.delete(execution_id)
            self.run(lifecycle.cancel_execution(execution_id))
            assert self.run(self.store.finished.delete_execution(execution_id)) == "deleted"

    def _of(self, *statuses: str) -> list[str]:
        found = self.reference.executions.items()
        return [one for one, execution in found if execution.status in statuses]

    @precondition(lambda self: any(one.dated for one in self.reference.executions.values()))
    @rule()
    def come_due(self) -> None:
        self.reference.come_due()
        self.run(self.store.retries.dispatch())

    @rule()
    def check(self) -> None:
        """The net of the scheduler finds nothing: every way out has given back by itself."""
        assert self.run(self.store.tasks.limits.check_slice("")) == ("", 0)

    # What has to hold.

    @invariant()
    def who_holds_and_who_waits_is_as_the_reference_says(self) -> None:
        in_use = set()
        for place in PLACES:
            holders, waiters = self.reference.holders[place], self.reference.waiters[place]
            found = set(self.redis.zrange(keys.holders(place), 0, -1))
            assert found == {" ".join(one) for one in holders}
            assert self.redis.zrange(keys.waiters(place), 0, -1) == [
                " ".join(one) for _, one in waiters
            ]
            assert not waiters or len(holders) >= self.reference.max_of(place)
            in_use |= {place} if holders or waiters else set()
        assert set(self.redis.zrange(keys.PLACES, 0, -1)) == in_use

    @invariant()
    def every_node_is_as_the_reference_says(self) -> None:
        for execution_id, execution in self.reference.executions.items():
            assert self.redis.get(keys.status(execution_id)) == execution.status
            found = {one: self.redis.get(keys.node(execution_id, one)) for one in execution.states}
            assert found == execution.states
            assert set(self.redis.hkeys(keys.parked(execution_id))) == execution.parked
            assert self.redis.hgetall(keys.places(execution_id)) == {
                one.node_id: place
                for one, place in self.reference.places.items()
                if one.execution_id == execution_id
            }

    @invariant()
    def every_entry_is_in_its_own_queue(self) -> None:
        found = [
            (queue, fields["execution_id"], fields["node_id"], int(fields["attempt"]))
            for queue in QUEUES
            for _, fields in self.redis.xrange(keys.task_stream(STREAM, queue))
        ]
        expected = [(one.queue, *one.member, one.attempt) for one in self.reference.tickets]
        assert sorted(found) == sorted(expected)

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self._end_everything()
        super().teardown()

    def _end_everything(self) -> None:
        """Limits are lifted, what is paused goes on: then everything ends, and no key is left."""
        for name in ("api", "lane"):
            self.limit(name, 1)
        for execution_id in self._of("PAUSED"):
            self.reference.resume(execution_id)
            self.run(self.store.lifecycle.resume_execution(execution_id))
        for _ in range(400):
            if not self._of("RUNNING") and not self.reference.tickets:
                break
            if any(one.dated for one in self.reference.executions.values()):
                self.come_due()
            self.read("w1", 5, has_room=True)
            for entry, ticket in self.delivered:
                if ticket.is_open:
                    self._ask_and_complete(entry, ticket)
        assert not self._of("RUNNING"), "it did not end"
        self.who_holds_and_who_waits_is_as_the_reference_says()
        assert self.redis.zcard(keys.PLACES) == 0
        # What was begun by those who were killed.
        self.run(finish_continuations(self.store, self.plans))
        assert find_violations(self.redis, list(self.reference.executions)) == []

    def _ask_and_complete(self, entry: Entry, ticket: Ticket) -> None:
        place = self._written(ticket).place
        if place is not None and not ticket.is_admitted:
            asking = [Asking(entry, place, lost_record(entry, "-"))]
            expected = self.reference.ask([(entry, ticket, place)])
            assert self.run(self.store.tasks.limits.admit(asking)) == expected
        if ticket.is_open:
            self._complete([(entry, ticket)])
