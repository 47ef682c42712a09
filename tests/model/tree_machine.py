"""Trees of executions on a real server beside a reference, whatever is done to them and wherever.

Each execution has one node: `a`, or `call`, which runs a child. One worker does what the handler of
such nodes does, a call at a time, and may die behind each. Of an order that breaks off behind its
first call others carry on the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from flowd.orchestrator import executor
from flowd.orchestrator.recovery import ensure_groups, recover_worker
from flowd.store.entries import Entry
from flowd.store.redis import keys
from scripts.soaking.checker import find_violations, read_executions
from scripts.soaking.child_checks import check_children
from tests.model.machine import ELSEWHERE, EngineMachine
from tests.private_server import PrivateServer
from tests.store.engine import Execution, Graph, compiled, finish_continuations

GRAPHS: dict[str, Graph] = {
    "call": {"call": {"handler": "workflow", "config": {"name": "x"}}},
    "a": {"a": []},
}
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
RUNS_MAX = 12


@dataclass(eq=False)
class Run:
    """An execution, and its one node: OPEN until it ends, but for while it waits."""

    id: str
    node: str
    parent: Run | None
    child_node: str
    status: str = "RUNNING"
    state: str = "OPEN"
    child: Run | None = None

    @property
    def is_live(self) -> bool:
        return self.status not in ENDED

    def below(self) -> Iterator[Run]:
        """Itself, and all that it has."""
        yield self
        if self.child is not None:
            yield from self.child.below()

    def end(self, status: str) -> None:
        self.status = self.state = status
        if self.parent is not None and self.parent.state == "WAITING":
            self.parent.state = "OPEN"

    def cancel(self) -> None:
        for one in self.below():
            if one.is_live:
                one.end("CANCELLED")

    def hold(self, before: str, after: str) -> None:
        """What has ended has no child that lives, and what is held already follows nobody."""
        for one in self.below():
            if one.status == before:
                one.status = after


@dataclass
class Reference:
    runs: dict[str, Run] = field(default_factory=dict)

    def live(self, *statuses: str) -> list[Run]:
        return [one for one in self.runs.values() if one.status in statuses]


class TreeMachine(EngineMachine):
    def __init__(self, server: PrivateServer) -> None:
        super().__init__(server)
        self.reference = Reference()
        self.held: list[Entry] = []
        self.lives = 0
        self.run(ensure_groups(self.store, self.plans))
        self._employ()

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self._end_everything()
        super().teardown()

    def _employ(self) -> None:
        self.lives += 1
        self.worker = self.engine.worker(f"w-{self.lives}")
        self.run(self.store.tasks.enroll_worker(self.worker.name, ELSEWHERE))

    def _some_run(self, data: st.DataObject, *statuses: str) -> Run | None:
        runs = self.reference.live(*statuses)
        return data.draw(st.sampled_from(runs)) if runs else None

    @precondition(lambda self: len(self.reference.runs) < RUNS_MAX)
    @rule(node=st.sampled_from(("call", "call", "a")), child=st.sampled_from(("call", "a", "a")))
    def submit(self, node: str, child: str) -> None:
        made = self.run(self.engine.start(GRAPHS[node]))
        self.reference.runs[made.id] = Run(made.id, node, None, child)

    # What a worker does, a call at a time.

    @rule()
    def read(self) -> None:
        self.held += self.run(self.worker.take())

    @rule()
    def die(self) -> None:
        """Whatever it had begun, another one begins anew."""
        gone, self.held = self.worker.name, []
        self.run(recover_worker(self.store, self.plans, gone, "killed", is_blamed=False))
        self._employ()

    @precondition(lambda self: self.held)
    @rule(data=st.data(), fails=st.booleans(), stops=st.booleans())
    def work(self, data: st.DataObject, fails: bool, stops: bool) -> None:
        """The next call for a node; with `stops` the child it has made is not waited for yet."""
        self._advance(data.draw(st.sampled_from(self.held)), fails=fails, stops=stops)

    def _advance(self, entry: Entry, *, fails: bool, stops: bool) -> None:
        run = self.reference.runs.get(entry.execution_id)
        if run is None or not run.is_live:
            self.held.remove(entry)
            assert self.run(self.worker.complete(entry))[0] in ("stale", "ended")
        elif run.node == "call" and (run.child is None or run.child.is_live):
            self._start(run)
            if not stops:
                self._wait(entry, run)
        else:
            self._end(entry, run, fails=fails)

    def _end(self, entry: Entry, run: Run, *, fails: bool) -> None:
        self.held.remove(entry)
        is_well = not fails and (run.child is None or run.child.status == "COMPLETED")
        if is_well:
            assert self.run(self.worker.complete(entry)) == ["finished"]
        else:
            assert self.run(self.worker.fail(entry)) == "finished"
        run.end("COMPLETED" if is_well else "FAILED")

    def _start(self, run: Run) -> None:
        _, plan = compiled(GRAPHS[run.node])
        made = Execution(run.id, plan, self.redis)
        outcome, child = self.run(self.engine.start_child(made, "call", GRAPHS[run.child_node]))
        assert outcome == ("triggered" if run.child is None else "exists")
        if run.child is None:
            # A chain ends: what a child calls has one node that calls nobody.
            run.child = Run(child.id, run.child_node, run, "a", run.status)
            self.reference.runs[child.id] = run.child

    def _wait(self, entry: Entry, run: Run) -> None:
        assert run.child is not None
        self.held.remove(entry)
        outcome = self.run(self.worker.wait(entry, "child", text=run.child.id))
        assert outcome == "waiting"
        run.state = "WAITING"

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def wait_late(self, data: st.DataObject) -> None:
        """A wait that was on its way meanwhile."""
        entry = data.draw(st.sampled_from(self.held))
        run = self.reference.runs.get(entry.execution_id)
        if run is None or run.child is None:
            return
        self.held.remove(entry)
        outcome = self.run(self.worker.wait(entry, "child", text=run.child.id))
        if not run.is_live:
            assert outcome in ("stale", "ended")
        elif run.child.is_live:
            assert outcome == "waiting"
            run.state = "WAITING"
        else:
            assert outcome == "woken"

    # What is done to executions.

    @rule(data=st.data(), breaks_off=st.booleans(), force=st.booleans())
    def cancel(self, data: st.DataObject, breaks_off: bool, force: bool) -> None:
        run = self._some_run(data, "RUNNING", "PAUSED")
        if run is None:
            return
        if breaks_off:
            self.run(self.store.lifecycle.cancel_execution(run.id, force=force))
            self._carry_on()
        else:
            self.run(executor.cancel_execution(self.store, run.id, force=force))
        run.cancel()

    @rule(data=st.data(), breaks_off=st.booleans())
    def pause(self, data: st.DataObject, breaks_off: bool) -> None:
        if run := self._some_run(data, "RUNNING"):
            if breaks_off:
                self.run(self.store.lifecycle.pause_execution(run.id))
                self._carry_on()
            else:
                self.run(executor.pause_execution(self.store, run.id))
            run.hold("RUNNING", "PAUSED")

    @rule(data=st.data(), breaks_off=st.booleans())
    def resume(self, data: st.DataObject, breaks_off: bool) -> None:
        if run := self._some_run(data, "PAUSED"):
            if breaks_off:
                self.run(self.store.lifecycle.resume_execution(run.id))
                self._carry_on()
            else:
                self.run(executor.resume_execution(self.store, run.id))
            run.hold("PAUSED", "RUNNING")

    def _carry_on(self) -> None:
        self.run(finish_continuations(self.store, self.plans))

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if run := self._some_run(data, "RUNNING", "PAUSED", *ENDED):
            outcome = self.run(self.store.finished.delete_execution(run.id))
            if run.is_live:
                assert outcome == run.status
            elif run.parent is not None:
                assert outcome == "child"
            else:
                assert outcome == "deleted"
                for one in run.below():
                    del self.reference.runs[one.id]

    # What has to hold.

    @invariant()
    def agrees_with_the_reference(self) -> None:
        for run in self.reference.runs.values():
            status = self.redis.get(keys.status(run.id))
            state = self.redis.get(keys.node(run.id, run.node))
            assert status == run.status, run
            seen = state if state in ("WAITING", *ENDED) else "OPEN"
            assert seen == run.state, run
            listed = self.redis.hgetall(keys.children(run.id))
            assert listed == ({run.child.id: "call 1"} if run.child else {}), run
        assert self.redis.zcard(keys.EXECUTIONS) == len(self.reference.runs)

    @invariant()
    def the_checker_finds_nothing_of_trees(self) -> None:
        read = {one.id: one for one in read_executions(self.redis, self.reference.runs)}
        assert list(check_children(self.redis, read, ())) == []

    def _end_everything(self) -> None:
        """What is paused goes on, and every node is worked off: then nothing is left."""
        for run in list(self.reference.runs.values()):
            if run.status == "PAUSED":
                self.run(executor.resume_execution(self.store, run.id))
                run.hold("PAUSED", "RUNNING")
        self.die()
        while entries := self.run(self.worker.take()):
            for entry in entries:
                self.held.append(entry)
                self._advance(entry, fails=False, stops=False)
        self.agrees_with_the_reference()
        violations = find_violations(self.redis, list(self.reference.runs))
        assert violations == [], violations
