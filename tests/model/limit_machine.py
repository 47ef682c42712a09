"""Limits and queues on a real server beside a reference that knows neither scripts nor counters."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from flowd.orchestrator.executor import cancel_execution
from flowd.orchestrator.recovery import ensure_groups
from flowd.store.attempt_records import lost_record
from flowd.store.endings import ItemPause, ItemRetry, RetryLater, Wait
from flowd.store.entries import Entry
from flowd.store.limits import Asking, Limit
from flowd.store.redis import keys
from scripts.soaking.checker import find_violations
from tests.model.limit_reference import PLACES, LimitReference, Ticket, Written
from tests.model.machine import ELSEWHERE, EngineMachine
from tests.private_server import PrivateServer
from tests.store import maps
from tests.store.engine import STREAM, Worker, finish_continuations

# Who reads which queues, in this order.
READERS: Final = {"w1": ("default", "gpu"), "w2": ("gpu",)}
QUEUES: Final = ("default", "gpu")
# A rate of one start in this time, which never passes by itself.
UNIT_MS: Final = 1_000_000
# Some steps of the machine take less, some more: who is in a later queue is overtaken, or not.
QUEUE_STEP_MS: Final = 25


class LimitMachine(EngineMachine):
    """`delivered` is all that a worker was given, also what was taken away since."""

    def __init__(self, server: PrivateServer) -> None:
        super().__init__(server)
        self.reference = LimitReference(READERS, QUEUE_STEP_MS)
        self.delivered: list[tuple[Entry, Ticket]] = []
        self.run(ensure_groups(self.store, self.plans))
        self.run(self.store.tasks.queues.ensure_groups(QUEUES))
        self.workers: dict[str, Worker] = {}
        for name, queues in READERS.items():
            self.workers[name] = self.engine.worker(name, queues)
            self.run(self.store.tasks.enroll_worker(name, ELSEWHERE))

    @rule(
        name=st.sampled_from(("api", "lane")),
        most=st.sampled_from((None, None, 0, 1, 1, 2, 3)),
        burst=st.sampled_from((None, None, 1, 2)),
    )
    def limit(self, name: str, most: int | None, burst: int | None) -> None:
        self.reference.limit(name, most, burst)
        limits = self.store.tasks.limits
        if most is None and burst is None:
            self.run(limits.delete(name))
            return
        per_s = None if burst is None else 1000 / UNIT_MS
        self.run(limits.put(Limit(name, max=most, per_s=per_s, burst=burst)))

    @rule(
        nodes=st.lists(
            st.tuples(
                st.sampled_from((*PLACES, "api", None)),
                st.sampled_from(QUEUES),
                st.sampled_from((0, 0, 0, 2, 3)),
            ),
            min_size=1,
            max_size=6,
        )
    )
    def start(self, nodes: list[tuple[str | None, str, int]]) -> None:
        """The items of a map are opened at once, before its node waits for them."""
        written = {f"n{at}": Written(*said) for at, said in enumerate(nodes)}
        graph = {node_id: said.said for node_id, said in written.items()}
        execution = self.run(self.engine.start(graph))
        self.reference.start(execution.id, written)
        of_nodes = self.store.nodes.maps
        for node_id, said in written.items():
            if said.items:
                bounds = {"window": 50, "max_failed": 50, "fail_fast": False, "bytes_max": 0}
                assert self.run(of_nodes.stage(execution.id, node_id, list(range(said.items))))
                assert self.run(of_nodes.expand(execution.id, node_id, n=said.items, **bounds))

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
        """Mostly such that are held; no maps, which go on by themselves."""
        known = [one for one in self.delivered if not self._is_map(one[1])]
        held = [one for one in known if one[1].is_open]
        chosen = st.sampled_from((held * 4 + known)[-30:])
        return data.draw(st.lists(chosen, min_size=1, max_size=size, unique_by=id))

    def _is_map(self, ticket: Ticket) -> bool:
        execution_id, node_id = ticket.member
        execution = self.reference.executions.get(execution_id)
        is_item = "." in node_id
        return execution is not None and execution.written(node_id).items > 0 and not is_item

    def _has_some(self) -> bool:
        return not all(self._is_map(ticket) for _, ticket in self.delivered)

    def _place(self, ticket: Ticket) -> str | None:
        execution_id, node_id = ticket.member
        execution = self.reference.executions.get(execution_id)
        return execution.place_of(node_id) if execution else "api"

    def _holding(self, entry: Entry, ticket: Ticket) -> Entry:
        """As a worker says it of a node that names a limit."""
        return entry._replace(holds=self._place(ticket) is not None)

    def _asking(self, entry: Entry, ticket: Ticket, place: str) -> Asking:
        rank = READERS[ticket.holder or ""].index(entry.queue)
        return Asking(entry, place, lost_record(entry, "-"), rank)

    @precondition(lambda self: self._has_some())
    @rule(data=st.data(), is_reply_lost=st.booleans())
    def ask(self, data: st.DataObject, is_reply_lost: bool) -> None:
        asking = [
            (entry, ticket, place)
            for entry, ticket in self._some(data, size=6)
            if (place := self._place(ticket))
        ]
        if not asking:
            return
        for _ in range(1 + is_reply_lost):
            said = [self._asking(*one) for one in asking]
            expected = self.reference.ask(asking)
            assert self.run(self.store.tasks.limits.admit(said)) == expected

    @precondition(lambda self: self._has_some())
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

    @precondition(lambda self: self._has_some())
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

    async def _say(self, entry: Entry, state: str) -> str:
        worker, is_item = self.workers["w1"], "." in entry.node_id
        if state == "FAILED":
            if not is_item:
                return await worker.fail(entry)
            (outcome,) = await maps.fail(worker, entry)
            return outcome
        record = worker.completion(entry).record
        later: RetryLater | Wait
        if state == "WAITING":
            kind = ItemPause if is_item else Wait
            later = kind(entry, record, "date", entry.waits + 1, 0)
        else:
            kind_of_retry = ItemRetry if is_item else RetryLater
            later = kind_of_retry(entry, record, 0, entry.failures + 1, "boom")
        (outcome,) = (await worker.exchange(failures=[later])).failed
        return outcome

    def _maps(self) -> list[tuple[Entry, Ticket]]:
        return [one for one in self.delivered if one[1].is_open and self._is_map(one[1])]

    @precondition(lambda self: self._maps())
    @rule(data=st.data(), is_reply_lost=st.booleans())
    def go_on(self, data: st.DataObject, is_reply_lost: bool) -> None:
        """What the node of a map does whenever it is claimed: gather, or wait for its items."""
        entry, ticket = data.draw(st.sampled_from(self._maps()))
        for _ in range(1 + is_reply_lost):
            self._go_on(entry, ticket)

    def _go_on(self, entry: Entry, ticket: Ticket) -> None:
        member = ticket.member
        if self.reference.executions[member.execution_id].is_over(member.node_id):
            self._complete([(entry, ticket)])
            return
        expected = self.reference.close(ticket)
        if not expected:
            self.reference.wait_for_items(member)
            expected = "waiting"
        assert self.run(maps.wait(self.workers["w1"], entry)) == expected

    @precondition(lambda self: self._has_some())
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

    @precondition(lambda self: self._has_some())
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

    @precondition(lambda self: self._has_some())
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

    @rule(units=st.integers(0, 2))
    def pass_time(self, units: int) -> None:
        """What has a date comes back, and who waits for a rate has its turn."""
        self.reference.pass_time(units)
        self.redis.hincrby(keys.CLOCK, "ahead_ms", units * UNIT_MS)
        self.run(self.store.retries.dispatch())

    @rule()
    def check(self) -> None:
        """The net of the scheduler finds nothing: every way out has given back by itself."""
        assert self.run(self.store.tasks.limits.check_slice("")) == ("", 0)

    # What has to hold.

    @invariant()
    def who_holds_and_who_waits_is_as_the_reference_says(self) -> None:
        in_use, dated = set(), set()
        for place in PLACES:
            holders, waiters = self.reference.holders[place], self.reference.waiters[place]
            found = set(self.redis.zrange(keys.holders(place), 0, -1))
            assert found == {" ".join(one) for one in holders}
            assert self.redis.zrange(keys.waiters(place), 0, -1) == [
                " ".join(one) for _, one in waiters
            ]
            is_full = len(holders) >= self.reference.max_of(place)
            assert not waiters or is_full or not self.reference.is_due(place)
            dated |= {place} if waiters and not is_full else set()
            in_use |= {place} if holders or waiters else set()
        assert set(self.redis.zrange(keys.PLACES, 0, -1)) == in_use
        # Whoever waits for its time alone has one by which it is looked at.
        assert set(self.redis.zrange(keys.LIMITS_DUE, 0, -1)) == dated

    @invariant()
    def no_more_start_in_any_time_than_a_rate_lets(self) -> None:
        for place in PLACES:
            burst = self.reference.bursts.get(place.partition("/")[0])
            assert burst is None or self.reference.most_in_a_window(place) <= burst

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
            self.limit(name, 1, 1)
        for execution_id in self._of("PAUSED"):
            self.reference.resume(execution_id)
            self.run(self.store.lifecycle.resume_execution(execution_id))
        for _ in range(400):
            if not self._of("RUNNING") and not self.reference.tickets:
                break
            self.pass_time(1)
            self.read("w1", 5, has_room=True)
            for entry, ticket in self.delivered:
                if ticket.is_open and self._is_map(ticket):
                    self._go_on(entry, ticket)
                elif ticket.is_open:
                    self._ask_and_complete(entry, ticket)
        assert not self._of("RUNNING"), "it did not end"
        self.who_holds_and_who_waits_is_as_the_reference_says()
        assert self.redis.zcard(keys.PLACES) == 0
        # What was begun by those who were killed.
        self.run(finish_continuations(self.store, self.plans))
        assert find_violations(self.redis, list(self.reference.executions)) == []

    def _ask_and_complete(self, entry: Entry, ticket: Ticket) -> None:
        place = self._place(ticket)
        if place is not None and not ticket.is_admitted:
            expected = self.reference.ask([(entry, ticket, place)])
            asking = [self._asking(entry, ticket, place)]
            assert self.run(self.store.tasks.limits.admit(asking)) == expected
        if ticket.is_open:
            self._complete([(entry, ticket)])
