"""What limits and queues promise, as plainly as it can be said: sets of holders, rows of waiters.

No scripts and no Redis; the machine does to this what it does to the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, NamedTuple

from flowd.store.entries import Entry

PLACES: Final = ("api", "lane/x", "lane/y")
LIVE: Final = ("RUNNING", "PAUSED")
HELD: Final = ("QUEUED", "RUNNING")
ENDED: Final = ("COMPLETED", "FAILED", "CANCELLED")


class Written(NamedTuple):
    """A node: the place it needs, or none, and its queue."""

    place: str | None
    queue: str

    @property
    def said(self) -> dict[str, Any]:
        name, _, key = (self.place or "").partition("/")
        limit = {"name": name, "key": key} if key else name
        return {"queue": self.queue} | ({"limit": limit} if name else {})


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


class LimitReference:
    """`waiters` of a place are the next first; `places` says who holds one, or waits for it."""

    def __init__(self) -> None:
        self.most: dict[str, int] = {}
        self.executions: dict[str, LimitedExecution] = {}
        self.tickets: list[Ticket] = []
        self.places: dict[Member, str] = {}
        self.holders: dict[str, set[Member]] = {one: set() for one in PLACES}
        self.waiters: dict[str, list[tuple[int, Member]]] = {one: [] for one in PLACES}

    def start(self, execution_id: str, nodes: dict[str, Written]) -> None:
        states = dict.fromkeys(nodes, "PENDING")
        self.executions[execution_id] = LimitedExecution(nodes, states)
        for node_id in nodes:
            self.put(Member(execution_id, node_id))

    def put(self, member: Member, *, is_admitted: bool = False) -> None:
        execution, node_id = self.executions[member.execution_id], member.node_id
        attempt = execution.attempts[node_id] = execution.attempts.get(node_id, 0) + 1
        execution.states[node_id] = "QUEUED"
        queue = execution.nodes[node_id].queue
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
            return "admitted"
        self.places[ticket.member] = place
        if not waiters and len(holders) < self.max_of(place):
            holders.add(ticket.member)
            return "admitted"
        self.close(ticket)
        self.executions[ticket.member.execution_id].states[ticket.member.node_id] = "WAITING"
        waiters.append((entry.queued_ms, ticket.member))
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
        holders, waiters = self.holders[place], self.waiters[place]
        while waiters and len(holders) < self.max_of(place):
            _, member = waiters.pop(0)
            execution = self.executions[member.execution_id]
            if execution.status == "RUNNING":
                self.put(member, is_admitted=True)
                holders.add(member)
                continue
            del self.places[member]
            execution.states[member.node_id] = "PENDING"
            execution.parked.add(member.node_id)

    def limit(self, name: str, most: int | None) -> None:
        if most is None:
            self.most.pop(name, None)
        else:
            self.most[name] = most
        for place in PLACES:
            if place.partition("/")[0] == name:
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
        states = set(execution.states.values())
        if states <= set(ENDED):
            execution.status = "FAILED" if "FAILED" in states else "COMPLETED"

    def come_due(self) -> None:
        for execution_id, execution in self.executions.items():
            dated, execution.dated = execution.dated, set()
            for node_id in sorted(dated):
                if execution.status == "RUNNING":
                    self.put(Member(execution_id, node_id))
                    continue
                execution.parked.add(node_id)
                if execution.states[node_id] == "WAITING":
                    execution.states[node_id] = "PENDING"

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
