"""What limits and queues promise, as plainly as it can be said: sets of holders, rows of waiters.

No scripts and no Redis; the machine does to this what it does to the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, NamedTuple

from flowd.store.entries import Entry

PLACES: Final = ("api", "lane/x", "lane/y")
LIVE: Final = ("RUNNING", "PAUSED")
HELD: Final = ("QUEUED", "RUNNING")
ENDED: Final = ("COMPLETED", "FAILED", "CANCELLED")


class Written(NamedTuple):
    """A node: the place it needs, or none, its queue, and of how many items it is a map."""

    place: str | None
    queue: str
    items: int = 0

    @property
    def said(self) -> dict[str, Any]:
        name, _, key = (self.place or "").partition("/")
        limit = {"name": name, "key": key} if key else name
        mapped = {"map": {"over": "{{ input.rows }}"}} if self.items else {}
        return {"queue": self.queue} | ({"limit": limit} if name else {}) | mapped

    def place_of(self, node_id: str) -> str | None:
        """Of a map each item needs a place of its own, and the node none."""
        _, _, index = node_id.partition(".")
        if self.items and not index:
            return None
        if self.place and index and "/" in self.place:
            return PLACES[1 + int(index) % 2]
        return self.place


class Member(NamedTuple):
    execution_id: str
    node_id: str


@dataclass(slots=True, eq=False)
class Ticket:
    """An entry of a stream; `is_admitted` where its node was given a place with it."""

    member: Member
    queue: str
    attempt: int
    is_admitted: bool = False
    holder: str | None = None
    is_open: bool = True


@dataclass(slots=True)
class LimitedExecution:
    nodes: dict[str, Written]
    states: dict[str, str]
    status: str = "RUNNING"
    parked: set[str] = field(default_factory=set)
    # Those that wait for a date.
    dated: set[str] = field(default_factory=set)
    attempts: dict[str, int] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        return self.status in LIVE

    def written(self, node_id: str) -> Written:
        return self.nodes[node_id.partition(".")[0]]

    def place_of(self, node_id: str) -> str | None:
        return self.written(node_id).place_of(node_id)

    def is_over(self, map_id: str) -> bool:
        """Whether every item of this map has ended."""
        items = range(self.nodes[map_id].items)
        return all(self.states[f"{map_id}.{one}"] in ENDED for one in items)


class LimitReference:
    """`waiters` of a place are the next first; `places` says who holds one, or waits for it.

    By its place in the list that its worker reads, by `readers`, an entry counts as having come
    `step_ms` later for each queue before its own.

    `bursts` are those of limits that have a rate, of one start in a unit of `clock`; `due` is when
    the next start of a place would be, and `started` when those were that its rate let go.
    """

    def __init__(self, readers: Mapping[str, Sequence[str]], step_ms: int) -> None:
        self.readers = readers
        self.step_ms = step_ms
        self.most: dict[str, int] = {}
        self.bursts: dict[str, int] = {}
        self.clock = 0
        self.due: dict[str, int] = {}
        self.started: dict[str, list[int]] = {one: [] for one in PLACES}
        self.executions: dict[str, LimitedExecution] = {}
        self.tickets: list[Ticket] = []
        self.places: dict[Member, str] = {}
        self.holders: dict[str, set[Member]] = {one: set() for one in PLACES}
        self.waiters: dict[str, list[tuple[tuple[int, int], Member]]] = {one: [] for one in PLACES}

    def start(self, execution_id: str, nodes: dict[str, Written]) -> None:
        states = dict.fromkeys(nodes, "PENDING")
        self.executions[execution_id] = LimitedExecution(nodes, states)
        items = [f"{one}.{at}" for one, said in nodes.items() for at in range(said.items)]
        for node_id in (*nodes, *items):
            self.put(Member(execution_id, node_id))

    def put(self, member: Member, *, is_admitted: bool = False) -> None:
        execution, node_id = self.executions[member.execution_id], member.node_id
        attempt = execution.attempts[node_id] = execution.attempts.get(node_id, 0) + 1
        execution.states[node_id] = "QUEUED"
        queue = execution.written(node_id).queue
        self.tickets.append(Ticket(member, queue, attempt, is_admitted))

    def state(self, member: Member) -> str | None:
        execution = self.executions.get(member.execution_id)
        return execution and execution.states[member.node_id]

    def is_live(self, member: Member) -> bool:
        execution = self.executions.get(member.execution_id)
        return execution is not None and execution.is_live

    def counts(self, member: Member) -> bool:
        return self.is_live(member) and self.state(member) in HELD

    def close(self, ticket: Ticket) -> str:
        """`stale`, `ended`, or empty when the attempt counts."""
        if not ticket.is_open:
            return "stale"
        ticket.is_open = False
        self.tickets.remove(ticket)
        return "" if self.counts(ticket.member) else "ended"

    # Places.

    def max_of(self, place: str) -> float:
        return self.most.get(place.partition("/")[0], inf)

    def is_due(self, place: str) -> bool:
        """Whether the rate, if there is one, lets somebody start."""
        burst = self.bursts.get(place.partition("/")[0])
        return burst is None or self.due.get(place, self.clock) - (burst - 1) <= self.clock

    def _has_room(self, place: str) -> bool:
        return len(self.holders[place]) < self.max_of(place) and self.is_due(place)

    def _count(self, place: str) -> None:
        """A start, also one that is made again, moves the next one."""
        if place.partition("/")[0] in self.bursts:
            self.due[place] = max(self.due.get(place, self.clock), self.clock) + 1

    def _let_in(self, member: Member, place: str) -> None:
        self.holders[place].add(member)
        self._count(place)
        self.started[place].append(self.clock)

    def most_in_a_window(self, place: str) -> int:
        """By how many starts more than its length a window of time had at most, up to now."""
        started = self.started[place]
        return max(
            (len(started) - at - (self.clock - one) for at, one in enumerate(started)), default=0
        )

    def ask(self, asking: Sequence[tuple[Entry, Ticket, str]]) -> list[str]:
        """Place by place, as the scripts do; who comes later in one call comes later."""
        outcomes: dict[int, str] = {}
        going_on = []
        for at, (_, ticket, _) in enumerate(asking):
            if not ticket.is_open or not self.counts(ticket.member):
                outcomes[at] = self.close(ticket)
            else:
                going_on.append(at)
        for place in PLACES:
            for at in going_on:
                entry, ticket, wanted = asking[at]
                if wanted == place:
                    outcomes[at] = self._ask_one(entry, ticket, place)
        return [outcomes[at] for at in range(len(asking))]

    def _ask_one(self, entry: Entry, ticket: Ticket, place: str) -> str:
        holders, waiters = self.holders[place], self.waiters[place]
        if ticket.member in holders:
            self._count(place)
            return "admitted"
        self.places[ticket.member] = place
        if not waiters and self._has_room(place):
            self._let_in(ticket.member, place)
            return "admitted"
        self.close(ticket)
        self.executions[ticket.member.execution_id].states[ticket.member.node_id] = "WAITING"
        assert ticket.holder is not None
        rank = self.readers[ticket.holder].index(ticket.queue)
        _, _, sequence = entry.name.rpartition("-")
        turn = (entry.queued_ms + rank * self.step_ms, int(sequence))
        waiters.append((turn, ticket.member))
        waiters.sort()
        return "waiting"

    def _waits_for_one(self, member: Member) -> bool:
        place = self.places.get(member)
        return place is not None and any(one == member for _, one in self.waiters[place])

    def release(self, members: Iterable[Member]) -> None:
        """These give back what they hold, or wait for no more; whoever is next gets it."""
        freed = []
        for member in members:
            place = self.places.pop(member, None)
            if place is not None:
                self.holders[place].discard(member)
                self.waiters[place] = [one for one in self.waiters[place] if one[1] != member]
                freed.append(place)
        for place in freed:
            self.settle(place)

    def settle(self, place: str) -> None:
        waiters = self.waiters[place]
        while waiters and self._has_room(place):
            _, member = waiters.pop(0)
            execution = self.executions[member.execution_id]
            if execution.status == "RUNNING":
                self.put(member, is_admitted=True)
                self._let_in(member, place)
                continue
            del self.places[member]
            execution.states[member.node_id] = "PENDING"
            execution.parked.add(member.node_id)

    def limit(self, name: str, most: int | None, burst: int | None) -> None:
        """None where it says nothing."""
        has_changed = self.bursts.get(name) != burst
        for said, by_name in ((most, self.most), (burst, self.bursts)):
            if said is None:
                by_name.pop(name, None)
            else:
                by_name[name] = said
        for place in PLACES:
            if place.partition("/")[0] == name:
                if has_changed:
                    self.started[place].clear()
                self.settle(place)

    # What becomes of nodes.

    def end(self, tickets: Sequence[Ticket], become: Callable[[Member], None]) -> list[str]:
        """All of a call first, then the places of all of them."""
        outcomes = []
        for ticket in tickets:
            outcomes.append(self.close(ticket))
            if not outcomes[-1]:
                become(ticket.member)
        self.release(
            one.member
            for one in tickets
            if not self.counts(one.member)
            and not (self.is_live(one.member) and self._waits_for_one(one.member))
        )
        return outcomes

    def become(self, member: Member, state: str) -> None:
        execution = self.executions[member.execution_id]
        execution.states[member.node_id] = state
        if state in ("RETRYING", "WAITING"):
            execution.dated.add(member.node_id)
        map_id, _, is_item = member.node_id.partition(".")
        if is_item and execution.states[map_id] == "WAITING" and execution.is_over(map_id):
            self._wake(Member(member.execution_id, map_id))
        states = {execution.states[one] for one in execution.nodes}
        if states <= set(ENDED):
            execution.status = "FAILED" if "FAILED" in states else "COMPLETED"

    def wait_for_items(self, member: Member) -> None:
        """Of a map whose items may have ended already: then it comes back at once."""
        execution = self.executions[member.execution_id]
        execution.states[member.node_id] = "WAITING"
        if execution.is_over(member.node_id):
            self._wake(member)

    def _wake(self, member: Member) -> None:
        execution = self.executions[member.execution_id]
        if execution.status == "RUNNING":
            self.put(member)
        else:
            execution.parked.add(member.node_id)
            execution.states[member.node_id] = "PENDING"

    def pass_time(self, units: int) -> None:
        """What has a date comes back, and who waits for a rate starts when it is due."""
        self.clock += units
        for execution_id, execution in self.executions.items():
            dated, execution.dated = execution.dated, set()
            for node_id in sorted(dated):
                if execution.status == "RUNNING":
                    self.put(Member(execution_id, node_id))
                    continue
                execution.parked.add(node_id)
                if execution.states[node_id] == "WAITING" or "." in node_id:
                    execution.states[node_id] = "PENDING"
        for place in PLACES:
            self.settle(place)

    def resume(self, execution_id: str) -> None:
        execution = self.executions[execution_id]
        execution.status = "RUNNING"
        parked, execution.parked = execution.parked, set()
        for node_id in parked:
            self.put(Member(execution_id, node_id))

    def cancel(self, execution_id: str) -> None:
        execution = self.executions[execution_id]
        execution.status = "CANCELLED"
        execution.parked.clear()
        execution.dated.clear()
        for node_id, state in execution.states.items():
            if state not in ENDED:
                execution.states[node_id] = "CANCELLED"
        self._release_all(execution_id)

    def delete(self, execution_id: str) -> None:
        execution = self.executions[execution_id]
        execution.status = "CANCELLED"
        self._release_all(execution_id)
        del self.executions[execution_id]

    def _release_all(self, execution_id: str) -> None:
        own = [one for one in self.places if one.execution_id == execution_id]
        # Nobody of an execution that runs no more gets what another of it gives back.
        for place in PLACES:
            self.waiters[place] = [one for one in self.waiters[place] if one[1] not in own]
        self.release(own)
