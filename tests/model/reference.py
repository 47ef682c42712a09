"""What flowd promises, as plainly as it can be said: states in dicts, readiness looked up anew.

No counters, no scripts, no Redis. An entry is a set member; who holds it is a name. The machine
does to this what it does to the store, and the two have to agree after every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Begins a rerun with whatever has no output.
FAILED = "failed"
DEATHS_MAX = 10
DEATHS_BEFORE_APART = 2
# Wakers with a date; the second is a signal with a time-out.
DATED = {"date", "timed"}
ENDED = ("COMPLETED", "SKIPPED", "FAILED", "CANCELLED")

# Node id -> ids of its dependencies, or what is written of it.
Graph = Mapping[str, Sequence[str] | Mapping[str, Any]]


def above(graph: Graph, node_id: str) -> Sequence[str]:
    said = graph[node_id]
    return said.get("dependencies", ()) if isinstance(said, Mapping) else said


def written(graph: Graph, node_id: str) -> Mapping[str, Any]:
    said = graph[node_id]
    return said if isinstance(said, Mapping) else {}


@dataclass(slots=True, eq=False)
class Ticket:
    """An entry of the stream. `holder` is None until it is delivered."""

    execution_id: str
    node_id: str
    attempt: int
    deaths: int = 0
    failures: int = 0
    waits: int = 0
    holder: str | None = None
    is_open: bool = True

    @property
    def key(self) -> tuple[str, str, int]:
        return self.execution_id, self.node_id, self.attempt


@dataclass(slots=True)
class ReferenceExecution:
    id: str
    graph: Graph
    status: str = "PENDING"
    nodes: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    parked: dict[str, int] = field(default_factory=dict)
    commits: dict[str, int] = field(default_factory=dict)
    # FAILED by themselves, as they may.
    allowed: set[str] = field(default_factory=set)
    # What all but its `finally` came to; None before that begins.
    ends_as: str | None = None
    # Of a rerun what does not run again; nothing arrives there.
    settled: set[str] = field(default_factory=set)
    # Node -> the number of its newest wait; what wakes it, while it is WAITING; the newest wait of
    # it that was decided.
    waits: dict[str, int] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)
    decided: dict[str, int] = field(default_factory=dict)
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        return self.status in ("RUNNING", "PAUSED")

    @property
    def is_active(self) -> bool:
        return self.is_live or self.status == "CANCELLING"

    def is_last(self, node_id: str) -> bool:
        return bool(written(self.graph, node_id).get("finally"))

    def counted(self) -> list[str]:
        """The nodes of the phase it is in."""
        return [one for one in self.graph if self.is_last(one) == (self.ends_as is not None)]

    def came_to(self) -> str:
        arrived = {self.arrives(one) for one in self.nodes}
        return "FAILED" if "FAILED" in arrived else "COMPLETED"

    def is_ready(self, node_id: str) -> bool:
        """Every dependency has ended, and a failure lets it run."""
        if self.is_last(node_id) and self.ends_as is None:
            return False
        arrived = [self.arrives(one) for one in above(self.graph, node_id)]
        looks = "after" in written(self.graph, node_id)
        return (
            self.nodes[node_id] == "PENDING"
            and set(arrived) <= {"COMPLETED", "SKIPPED", "FAILED"}
            and (looks or "FAILED" not in arrived)
        )

    def arrives(self, node_id: str) -> str:
        return "COMPLETED" if node_id in self.allowed else self.nodes[node_id]

    def arrivals(self, node_id: str) -> int:
        """One number for all that have arrived."""
        worth = {"COMPLETED": 1, "SKIPPED": 1 + 2**17, "FAILED": 1 + 2**34}
        return sum(worth.get(self.arrives(one), 0) for one in above(self.graph, node_id))

    def downstream(self, node_id: str) -> set[str]:
        """What fails along: it ends at nodes that say after what they run."""
        found: set[str] = set()
        while True:
            more = {
                one
                for one in self.graph
                if one not in found
                and "after" not in written(self.graph, one)
                and (found | {node_id}) & set(above(self.graph, one))
            }
            if not more:
                return found
            found |= more


class Reference:
    """Every method answers with the word the store has to answer with."""

    def __init__(self) -> None:
        self.executions: dict[str, ReferenceExecution] = {}
        self.tickets: list[Ticket] = []
        # Idempotency-Key -> the execution it stands for, also when that is gone.
        self.keys: dict[str, str] = {}

    def submit(self, execution_id: str, graph: Graph) -> None:
        self.executions[execution_id] = ReferenceExecution(
            execution_id, graph, nodes=dict.fromkeys(graph, "PENDING")
        )

    def trigger(self, execution_id: str) -> str:
        execution = self.executions.get(execution_id)
        if execution is None:
            return "unknown"
        if execution.status != "PENDING":
            return "RUNNING" if execution.status == "CANCELLING" else execution.status
        execution.status = "RUNNING"
        for node_id in execution.graph:
            if execution.is_ready(node_id):
                self._open(execution, node_id)
        return "triggered"

    def _open(self, execution: ReferenceExecution, node_id: str) -> None:
        if execution.status == "PAUSED":
            execution.parked[node_id] = 0
        else:
            self._queue(execution, node_id, 1)

    def _queue(
        self, execution: ReferenceExecution, node_id: str, attempt: int, deaths: int = 0
    ) -> None:
        execution.nodes[node_id] = "QUEUED"
        failures = execution.failures.get(node_id, 0)
        waits = execution.waits.get(node_id, 0)
        self.tickets.append(Ticket(execution.id, node_id, attempt, deaths, failures, waits))

    def waiting(self) -> list[Ticket]:
        return [one for one in self.tickets if one.is_open and one.holder is None]

    def retrying(self) -> list[str]:
        """Executions of which a node waits for its next attempt."""
        return [
            one.id
            for one in self.executions.values()
            if any(
                state == "RETRYING" and node_id not in one.parked
                for node_id, state in one.nodes.items()
            )
        ]

    def held_by(self, holder: str) -> list[Ticket]:
        return [one for one in self.tickets if one.is_open and one.holder == holder]

    def _close(self, ticket: Ticket) -> str:
        """`stale`, `ended`, or empty when the attempt counts."""
        if not ticket.is_open:
            return "stale"
        ticket.is_open = False
        self.tickets.remove(ticket)
        if self._counts(ticket):
            return ""
        execution = self.executions.get(ticket.execution_id)
        if execution is not None and execution.status == "CANCELLING":
            if execution.nodes[ticket.node_id] in ("QUEUED", "RUNNING"):
                execution.nodes[ticket.node_id] = "CANCELLED"
            self._end_cancelling(execution)
        return "ended"

    def _end_cancelling(self, execution: ReferenceExecution) -> None:
        if {execution.nodes[one] for one in execution.counted()} <= set(ENDED):
            execution.status = "RUNNING"
            self._begin_finally(execution, "CANCELLED")

    def _begin_finally(self, execution: ReferenceExecution, ends_as: str) -> None:
        execution.ends_as = ends_as
        for node_id in execution.counted():
            if execution.is_ready(node_id):
                self._open(execution, node_id)

    def _counts(self, ticket: Ticket) -> bool:
        execution = self.executions.get(ticket.execution_id)
        if execution is None or not execution.is_live:
            return False
        return execution.nodes[ticket.node_id] in ("QUEUED", "RUNNING")

    def claim(self, ticket: Ticket, worker: str) -> str:
        if not ticket.is_open or ticket.holder != worker:
            return "stale"
        if not self._counts(ticket):
            return self._close(ticket)
        execution = self.executions[ticket.execution_id]
        execution.nodes[ticket.node_id] = "RUNNING"
        execution.attempts[ticket.node_id] = ticket.attempt
        return "claimed"

    def complete(self, ticket: Ticket) -> str:
        if refused := self._close(ticket):
            return refused
        return self._advance(self._commit(ticket, "COMPLETED"), ticket.node_id)

    def skip(self, ticket: Ticket) -> str:
        if refused := self._close(ticket):
            return refused
        return self._advance(self._commit(ticket, "SKIPPED"), ticket.node_id)

    def _advance(self, execution: ReferenceExecution, *ended: str) -> str:
        for node_id in execution.graph:
            if set(ended) & set(above(execution.graph, node_id)) and execution.is_ready(node_id):
                self._open(execution, node_id)
        if not self._finish(execution):
            return "completed"
        return {"FAILED": "failed", "CANCELLED": "cancelled"}.get(execution.status, "finished")

    def fail(self, ticket: Ticket) -> str:
        if refused := self._close(ticket):
            return refused
        execution = self._commit(ticket, "FAILED")
        if written(execution.graph, ticket.node_id).get("allow_failure"):
            execution.allowed.add(ticket.node_id)
            return self._advance(execution, ticket.node_id)
        failed = [ticket.node_id]
        for node_id in execution.downstream(ticket.node_id):
            if execution.nodes[node_id] == "PENDING":
                execution.nodes[node_id] = "FAILED"
                failed.append(node_id)
        outcome = self._advance(execution, *failed)
        return {"completed": "failed", "cancelled": "cancelled"}.get(outcome, "finished")

    def _commit(self, ticket: Ticket, state: str) -> ReferenceExecution:
        execution = self.executions[ticket.execution_id]
        execution.nodes[ticket.node_id] = state
        execution.attempts[ticket.node_id] = ticket.attempt
        execution.commits[ticket.node_id] = execution.commits.get(ticket.node_id, 0) + 1
        return execution

    def _finish(self, execution: ReferenceExecution) -> str:
        if not {execution.nodes[one] for one in execution.counted()} <= set(ENDED):
            return ""
        if execution.ends_as is None and any(map(execution.is_last, execution.graph)):
            self._begin_finally(execution, execution.came_to())
            return ""
        is_cancelled = execution.ends_as == "CANCELLED"
        execution.status = "CANCELLED" if is_cancelled else execution.came_to()
        return "finished"

    def retry(self, ticket: Ticket) -> str:
        if refused := self._close(ticket):
            return refused
        execution = self.executions[ticket.execution_id]
        execution.nodes[ticket.node_id] = "RETRYING"
        execution.attempts[ticket.node_id] = ticket.attempt
        execution.failures[ticket.node_id] = ticket.failures + 1
        return "retrying"

    def wait(self, ticket: Ticket, waker: str, number: int) -> str:
        if refused := self._close(ticket):
            return refused
        execution, node_id = self.executions[ticket.execution_id], ticket.node_id
        execution.attempts[node_id] = ticket.attempt
        execution.failures.pop(node_id, None)
        execution.waits[node_id] = number
        if execution.decided.get(node_id, 0) >= number:
            self._end_wait(execution, node_id)
            return "woken"
        execution.nodes[node_id] = "WAITING"
        execution.records[node_id] = waker
        return "waiting"

    def wake(self, execution_id: str, node_id: str, *said: str) -> str:
        """`said` is by what: its kind, and what goes with it."""
        execution = self.executions[execution_id]
        state = execution.nodes[node_id]
        if state in ENDED or execution.status in (*ENDED, "CANCELLING"):
            return "decided" if node_id in execution.decided else "ended"
        number = execution.waits.get(node_id, 1)
        if execution.decided.get(node_id, 0) >= number:
            return "decided"
        execution.decided[node_id] = number
        execution.words[node_id] = said
        if state != "WAITING":
            return "kept"
        self._end_wait(execution, node_id)
        return "woken"

    def _end_wait(self, execution: ReferenceExecution, node_id: str) -> None:
        execution.records.pop(node_id, None)
        if execution.status == "PAUSED":
            execution.nodes[node_id] = "PENDING"
            execution.parked[node_id] = 0
        else:
            execution.attempts[node_id] += 1
            self._queue(execution, node_id, execution.attempts[node_id])

    def dated(self) -> list[str]:
        """Executions of which a node waits for a date, or for a signal no longer than until one."""
        return [one.id for one in self.executions.values() if DATED & {*one.records.values()}]

    def dispatch_dates(self) -> None:
        for execution in self.executions.values():
            for node_id, waker in list(execution.records.items()):
                if waker in DATED:
                    self.wake(execution.id, node_id, "date", "")

    def dispatch_retries(self) -> None:
        for execution in self.executions.values():
            for node_id, state in execution.nodes.items():
                if state == "RETRYING" and node_id not in execution.parked:
                    if execution.status == "PAUSED":
                        execution.parked[node_id] = 0
                    else:
                        self._queue(execution, node_id, execution.attempts[node_id] + 1)
                        execution.attempts[node_id] += 1

    def take_away(self, worker: str, *, is_blamed: bool) -> None:
        """Its worker died, or was let go: its nodes are the others', as their next attempts."""
        for ticket in self.held_by(worker):
            self.take_one_away(ticket, is_blamed=is_blamed)

    def take_one_away(self, ticket: Ticket, *, is_blamed: bool) -> None:
        if not self._counts(ticket):
            self._close(ticket)
            return
        execution = self.executions[ticket.execution_id]
        deaths = ticket.deaths
        is_running = execution.nodes[ticket.node_id] == "RUNNING"
        if is_blamed and (deaths < DEATHS_BEFORE_APART or is_running):
            deaths += 1
        if deaths >= DEATHS_MAX:
            self.fail(ticket)
        elif not self._close(ticket):
            execution.attempts[ticket.node_id] = ticket.attempt + 1
            self._queue(execution, ticket.node_id, ticket.attempt + 1, deaths)

    def pause(self, execution_id: str) -> str:
        execution = self.executions[execution_id]
        if not execution.is_live:
            return execution.status
        if execution.ends_as == "CANCELLED":
            return "CANCELLING"
        execution.status = "PAUSED"
        return "paused"

    def park(self, ticket: Ticket) -> str:
        execution = self.executions.get(ticket.execution_id)
        if execution is None or execution.status != "PAUSED":
            return "moved"
        if execution.nodes[ticket.node_id] != "QUEUED":
            return "moved"
        if not ticket.is_open:
            return "stale"
        ticket.is_open = False
        self.tickets.remove(ticket)
        execution.nodes[ticket.node_id] = "PENDING"
        execution.attempts[ticket.node_id] = ticket.attempt
        execution.parked[ticket.node_id] = ticket.deaths
        return "parked"

    def resume(self, execution_id: str) -> str:
        execution = self.executions[execution_id]
        if not execution.is_live:
            return execution.status
        execution.status = "RUNNING"
        for node_id, deaths in execution.parked.items():
            attempt = execution.attempts.get(node_id, 0) + 1
            self._queue(execution, node_id, attempt, deaths)
            execution.attempts[node_id] = attempt
        execution.parked.clear()
        return "resumed"

    def cancel(self, execution_id: str, *, force: bool = False) -> str:
        execution = self.executions[execution_id]
        if execution.status in ("COMPLETED", "FAILED"):
            return execution.status
        if execution.is_active and any(map(execution.is_last, execution.graph)) and not force:
            return self._cancel_before_finally(execution)
        execution.status = "CANCELLED"
        execution.parked.clear()
        execution.records.clear()
        for node_id, state in execution.nodes.items():
            if state not in ENDED:
                execution.nodes[node_id] = "CANCELLED"
        return "cancelled"

    def _cancel_before_finally(self, execution: ReferenceExecution) -> str:
        if execution.ends_as is not None:
            execution.ends_as = "CANCELLED"
            if execution.status == "PAUSED":
                self.resume(execution.id)
        elif execution.status != "CANCELLING":
            execution.status = "CANCELLING"
            execution.parked.clear()
            for node_id in execution.counted():
                if execution.nodes[node_id] in ("PENDING", "RETRYING", "WAITING"):
                    execution.nodes[node_id] = "CANCELLED"
                    execution.records.pop(node_id, None)
            self._end_cancelling(execution)
        return "cancelling"

    def delete(self, execution_id: str) -> str:
        """Its tickets stay until somebody meets them, as those of a cancelled one do."""
        execution = self.executions[execution_id]
        if execution.is_active:
            return "RUNNING" if execution.status == "CANCELLING" else execution.status
        del self.executions[execution_id]
        return "deleted"

    def expire(self) -> None:
        """The days of all that have ended are over."""
        for execution in list(self.executions.values()):
            if execution.status in ENDED:
                del self.executions[execution.id]

    def rerun(self, execution_id: str, start: str, new_id: str) -> str:
        """`made`, or why not. A node runs that is asked for, that a running one needs, or whose
        dependencies all run or have ended so that it can, one of them running; nothing else does.
        What failed takes with it whatever is downstream."""
        source = self.executions[execution_id]
        if source.status not in ENDED:
            return source.status
        if start == FAILED:
            runs = {one for one in source.graph if not self._is_settled(source, one)}
            while more := {
                one
                for one in source.graph
                if one not in runs and set(above(source.graph, one)) & runs
            }:
                runs |= more
        else:
            runs = {start} | self._missing_above(source, start)
            while more := {
                one
                for one in source.graph
                if one not in runs
                and set(above(source.graph, one)) & runs
                and not self._lacks(source, one) - runs
            }:
                runs |= more
        if not runs:
            return "nothing"
        runs |= {one for one in source.graph if source.is_last(one)}
        self.submit(new_id, source.graph)
        made = self.executions[new_id]
        for one in source.graph:
            if one not in runs:
                is_settled = self._is_settled(source, one)
                made.nodes[one] = source.nodes[one] if is_settled else "FAILED"
        made.settled = set(source.graph) - runs
        made.allowed = source.allowed - runs
        if all(map(made.is_last, runs)):
            made.ends_as = made.came_to()
        return "made"

    def _is_settled(self, source: ReferenceExecution, node_id: str) -> bool:
        return source.arrives(node_id) in ("COMPLETED", "SKIPPED")

    def _lacks(self, source: ReferenceExecution, node_id: str) -> set[str]:
        """The dependencies with which it could not run."""
        follows = written(source.graph, node_id).get("after") in ("failed", "ended")
        return {
            one
            for one in above(source.graph, node_id)
            if not self._is_settled(source, one) and not (follows and source.nodes[one] == "FAILED")
        }

    def _missing_above(self, source: ReferenceExecution, start: str) -> set[str]:
        """What it needs and has no output; what those need that have one does not matter."""
        missing: set[str] = set()
        waiting = [start]
        while waiting:
            new = self._lacks(source, waiting.pop()) - missing
            missing |= new
            waiting += new
        return missing

    def forget_everything(self) -> None:
        """Redis was emptied: what was is unknown, and every ticket is closed."""
        self.keys.clear()
        for ticket in self.tickets:
            ticket.is_open = False
        self.tickets.clear()
        self.executions.clear()
