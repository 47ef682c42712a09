"""What flowd promises, as plainly as it can be said: states in dicts, readiness looked up anew.

No counters, no scripts, no Redis. An entry is a set member; who holds it is a name. The machine
does to this what it does to the store, and the two have to agree after every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# Begins a rerun with whatever has no output.
FAILED = "failed"
DEATHS_MAX = 10
DEATHS_BEFORE_APART = 2
ENDED = ("COMPLETED", "FAILED", "CANCELLED")

Graph = Mapping[str, Sequence[str]]


@dataclass(slots=True, eq=False)
class Ticket:
    """An entry of the stream. `holder` is None until it is delivered."""

    execution_id: str
    node_id: str
    attempt: int
    deaths: int = 0
    failures: int = 0
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

    @property
    def is_live(self) -> bool:
        return self.status in ("RUNNING", "PAUSED")

    def is_ready(self, node_id: str) -> bool:
        return self.nodes[node_id] == "PENDING" and all(
            self.nodes[one] == "COMPLETED" for one in self.graph[node_id]
        )

    def upstream(self, node_id: str) -> set[str]:
        return {one for one in self.graph if node_id in self.downstream(one)}

    def downstream(self, node_id: str) -> set[str]:
        found: set[str] = set()
        while True:
            more = {
                one
                for one, dependencies in self.graph.items()
                if one not in found and (found | {node_id}) & set(dependencies)
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
            return execution.status
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
        self.tickets.append(Ticket(execution.id, node_id, attempt, deaths, failures))

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
        return "" if self._counts(ticket) else "ended"

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
        execution = self._commit(ticket, "COMPLETED")
        for node_id, dependencies in execution.graph.items():
            if ticket.node_id in dependencies and execution.is_ready(node_id):
                self._open(execution, node_id)
        if not self._finish(execution):
            return "completed"
        return "failed" if execution.status == "FAILED" else "finished"

    def fail(self, ticket: Ticket) -> str:
        if refused := self._close(ticket):
            return refused
        execution = self._commit(ticket, "FAILED")
        for node_id in execution.downstream(ticket.node_id):
            if execution.nodes[node_id] == "PENDING":
                execution.nodes[node_id] = "FAILED"
        return self._finish(execution) or "failed"

    def _commit(self, ticket: Ticket, state: str) -> ReferenceExecution:
        execution = self.executions[ticket.execution_id]
        execution.nodes[ticket.node_id] = state
        execution.attempts[ticket.node_id] = ticket.attempt
        execution.commits[ticket.node_id] = execution.commits.get(ticket.node_id, 0) + 1
        return execution

    def _finish(self, execution: ReferenceExecution) -> str:
        states = set(execution.nodes.values())
        if not states <= set(ENDED):
            return ""
        execution.status = "FAILED" if "FAILED" in states else "COMPLETED"
        return "finished"

    def retry(self, ticket: Ticket) -> str:
        if refused := self._close(ticket):
            return refused
        execution = self.executions[ticket.execution_id]
        execution.nodes[ticket.node_id] = "RETRYING"
        execution.attempts[ticket.node_id] = ticket.attempt
        execution.failures[ticket.node_id] = ticket.failures + 1
        return "retrying"

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

    def cancel(self, execution_id: str) -> str:
        execution = self.executions[execution_id]
        if execution.status in ("COMPLETED", "FAILED"):
            return execution.status
        execution.status = "CANCELLED"
        execution.parked.clear()
        for node_id, state in execution.nodes.items():
            if state not in ENDED:
                execution.nodes[node_id] = "CANCELLED"
        return "cancelled"

    def delete(self, execution_id: str) -> str:
        """Its tickets stay until somebody meets them, as those of a cancelled one do."""
        execution = self.executions[execution_id]
        if execution.is_live:
            return execution.status
        del self.executions[execution_id]
        return "deleted"

    def expire(self) -> None:
        """The days of all that have ended are over."""
        for execution in list(self.executions.values()):
            if execution.status in ENDED:
                del self.executions[execution.id]

    def rerun(self, execution_id: str, start: str, new_id: str) -> str:
        """`made`, or why not. A node runs that is asked for, that a running one needs, or whose
        dependencies all run or have an output, one of them running; nothing else does."""
        source = self.executions[execution_id]
        if source.status not in ENDED:
            return source.status
        done = {one for one, state in source.nodes.items() if state == "COMPLETED"}
        runs = set(source.graph) - done
        if start != FAILED:
            runs = {start} | self._missing_above(source, start, done)
            while more := {
                one
                for one, above in source.graph.items()
                if one not in runs and set(above) & runs and set(above) <= runs | done
            }:
                runs |= more
        if not runs:
            return "nothing"
        self.submit(new_id, source.graph)
        self.executions[new_id].nodes = {
            one: "PENDING" if one in runs else "COMPLETED" if one in done else "FAILED"
            for one in source.graph
        }
        return "made"

    def _missing_above(self, source: ReferenceExecution, start: str, done: set[str]) -> set[str]:
        """What it needs and has no output; what those need that have one does not matter."""
        missing: set[str] = set()
        waiting = [start]
        while waiting:
            for one in source.graph[waiting.pop()]:
                if one not in done | missing:
                    missing.add(one)
                    waiting.append(one)
        return missing

    def forget_everything(self) -> None:
        """Redis was emptied: what was is unknown, and every ticket is closed."""
        self.keys.clear()
        for ticket in self.tickets:
            ticket.is_open = False
        self.tickets.clear()
        self.executions.clear()
