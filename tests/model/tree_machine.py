"""Trees of executions on a real server beside a reference, whatever is done to them and wherever.

An execution has one node, `a`, or `call`, which runs a child, or two, `a` and behind it `b`. One
worker does what the handler of such nodes does, a call at a time, and may die behind each. A node
that failed may be tried again, with a fresh child; what has ended may be run again, and what failed
of it then runs the children that failed there from their failures. Of an order that breaks off
behind its first call others carry on the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from flowd.errors import WrongState
from flowd.handlers.context import WantedChild
from flowd.orchestrator import executor
from flowd.orchestrator.children import Children
from flowd.orchestrator.recovery import ensure_groups, recover_worker
from flowd.orchestrator.rerun import FAILED, plan_rerun, rerun_execution
from flowd.store.endings import RetryLater
from flowd.store.entries import Entry
from flowd.store.redis import keys
from flowd.store.saved import About
from flowd.workflow.children import Parent
from flowd.workflow.ids import child_id, new_execution_id
from scripts.soaking.checker import find_violations, read_executions
from scripts.soaking.child_checks import check_children
from tests.model.machine import ELSEWHERE, EngineMachine
from tests.private_server import PrivateServer
from tests.store.engine import STREAM, Graph, finish_continuations


def _calls(name: str) -> Graph:
    return {"call": {"handler": "workflow", "config": {"name": name, "version": 1}}}


# By name: each is saved under it, and what calls names what it runs. A chain ends with `a`.
GRAPHS: dict[str, Graph] = {
    "a": {"a": []},
    "pair": {"a": [], "b": ["a"]},
    "calls a": _calls("a"),
    "calls pair": _calls("pair"),
    "calls one that calls pair": _calls("calls-pair"),
}
CALLED = {"calls a": "a", "calls pair": "pair", "calls one that calls pair": "calls pair"}
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
# What an attempt of a node comes to, as often as it says.
ENDS = ("well", "well", "well", "failed", "again")
RUNS_MAX = 14
# What each order is given to.
ORDERED = {
    "cancel": ("RUNNING", "PAUSED"),
    "pause": ("RUNNING",),
    "resume": ("PAUSED",),
    "delete": ("RUNNING", *ENDED),
}
RETRIES_MAX = 2


@dataclass(eq=False)
class Run:
    """An execution: its nodes are OPEN until they end, but for while they wait. `children` has the
    child of each attempt of its node `call`. `source` is what it runs again, `of_failed` says that
    it does of that what failed.
    """

    id: str
    graph: str
    parent: Run | None = None
    source: Run | None = None
    of_failed: bool = False
    status: str = "RUNNING"
    states: dict[str, str] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    children: list[Run] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.states = dict.fromkeys(GRAPHS[self.graph], "OPEN") | self.states
        self.failures = dict.fromkeys(self.states, 0)

    @property
    def is_live(self) -> bool:
        return self.status not in ENDED

    @property
    def child(self) -> Run | None:
        """That of the attempt which runs or waits."""
        made, failed = self.children, self.failures.get("call", 0)
        return made[failed] if len(made) > failed else None

    def below(self) -> Iterator[Run]:
        """Itself, and all that it has."""
        yield self
        for child in self.children:
            yield from child.below()

    def end_node(self, node: str, state: str) -> None:
        self.states[node] = state
        if state == "FAILED":
            # What is below it could not run.
            self.states = {
                one: "FAILED" if was == "OPEN" else was for one, was in self.states.items()
            }
        if set(self.states.values()) <= set(ENDED):
            self.end("FAILED" if "FAILED" in self.states.values() else "COMPLETED")

    def end(self, status: str) -> None:
        self.status = status
        if self.parent is not None and self is self.parent.child:
            self.parent.wake()

    def wake(self) -> None:
        if self.states.get("call") == "WAITING":
            self.states["call"] = "OPEN"

    def cancel(self) -> None:
        for one in self.below():
            if one.is_live:
                one.states = {
                    node: state if state in ENDED else "CANCELLED"
                    for node, state in one.states.items()
                }
                one.end("CANCELLED")

    def hold(self, before: str, after: str) -> None:
        """What has ended has no child that lives, and what is held already follows nobody."""
        for one in self.below():
            if one.status == before:
                one.status = after

    def rerun(self, new: Run) -> bool:
        """Whether a run of what failed of this has something to run; then what it takes over is
        there already."""
        new.source, new.of_failed = self, True
        new.states |= {node: one for node, one in self.states.items() if one == "COMPLETED"}
        return "OPEN" in new.states.values()


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
        self.children = Children(self.store, self.plans)
        self.run(ensure_groups(self.store, self.plans))
        for name, graph in GRAPHS.items():
            definition, plan = self.engine.know(graph)
            about = About(0, len(plan.nodes), "")
            self.run(self.store.saved.put(_saved(name), definition, plan.digest, about))
        self._employ()

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self._end_everything()
        super().teardown()

    def _employ(self) -> None:
        self.lives += 1
        self.worker = self.engine.worker(f"w-{self.lives}")
        self.run(self.store.tasks.enroll_worker(self.worker.name, ELSEWHERE))

    def _has_room(self) -> bool:
        return len(self.reference.runs) < RUNS_MAX

    def _some_run(self, data: st.DataObject, *statuses: str) -> Run | None:
        runs = self.reference.live(*statuses)
        return data.draw(st.sampled_from(runs)) if runs else None

    @precondition(lambda self: self._has_room())
    @rule(graph=st.sampled_from(("a", *CALLED, *CALLED)))
    def submit(self, graph: str) -> None:
        made = self.run(self.engine.start(GRAPHS[graph]))
        self.reference.runs[made.id] = Run(made.id, graph)

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
    @rule(
        data=st.data(),
        ends=st.sampled_from(ENDS),
        stops=st.booleans(),
    )
    def work(self, data: st.DataObject, ends: str, stops: bool) -> None:
        """The next call for a node; with `stops` the child it has made is not waited for yet."""
        self._advance(data.draw(st.sampled_from(self.held)), ends=ends, stops=stops)

    @rule(data=st.data(), ends=st.lists(st.sampled_from(ENDS), min_size=4, max_size=12))
    def go_on(self, data: st.DataObject, ends: list[str]) -> None:
        """With what it is given, and what comes of that."""
        self.work_on(data, ends)

    def work_on(self, data: st.DataObject, ends: list[str]) -> None:
        for one in ends:
            self._dispatch()
            self.read()
            if self.held:
                self._advance(data.draw(st.sampled_from(self.held)), ends=one, stops=False)

    def _advance(self, entry: Entry, *, ends: str, stops: bool) -> None:
        run = self.reference.runs.get(entry.execution_id)
        if run is None or not run.is_live:
            self.held.remove(entry)
            assert self.run(self.worker.complete(entry))[0] in ("stale", "ended")
        elif entry.node_id == "call" and (run.child is None or run.child.is_live):
            self._start(run)
            if not stops:
                self._wait(entry, run)
        else:
            self._end(entry, run, ends)

    def _end(self, entry: Entry, run: Run, ends: str) -> None:
        self.held.remove(entry)
        node, child = entry.node_id, run.child
        is_well = ends == "well" and (child is None or child.status == "COMPLETED")
        if is_well:
            is_last = node == list(run.states)[-1]
            expected = "finished" if is_last else "completed"
            assert self.run(self.worker.complete(entry)) == [expected]
            run.end_node(node, "COMPLETED")
        elif ends == "again" and run.failures[node] < RETRIES_MAX:
            self._retry(entry, run)
        else:
            assert self.run(self.worker.fail(entry)) == "finished"
            run.end_node(node, "FAILED")

    def _retry(self, entry: Entry, run: Run) -> None:
        """Its next attempt has a fresh child, and comes when it is due."""
        run.failures[entry.node_id] += 1
        record = f"{entry.attempt} {entry.queued_ms} 0 0 {self.worker.name}"
        said = RetryLater(entry, record, 0, run.failures[entry.node_id], "boom")
        (outcome,) = self.run(self.worker.exchange(failures=[said])).failed
        assert outcome in ("retrying", "parked")

    def _dispatch(self) -> None:
        """What is to be tried again is due at once."""
        self.run(self.store.retries.dispatch())

    def _start(self, run: Run) -> None:
        parent = Parent(run.id, "call", run.failures["call"] + 1)
        called = CALLED[run.graph]
        wanted = WantedChild(_saved(called), 1, None, _anything_fits)
        assert self.run(self.children.start(parent, wanted, None)) == (run.child is None)
        if run.child is None:
            child = Run(child_id(*parent), called, run, status=run.status)
            if (source := self._reran(run)) is not None and not source.rerun(child):
                child = Run(child.id, called, run, status=run.status)
            run.children.append(child)
            self.reference.runs[child.id] = child

    def _reran(self, run: Run) -> Run | None:
        """Of what this runs what failed, the child that failed there; a second attempt begins with
        nothing."""
        source = run.source
        if not run.of_failed or run.failures["call"] or source is None or not source.children:
            return None
        child = source.children[-1]
        return child if child.id in self.reference.runs and not child.is_live else None

    def _wait(self, entry: Entry, run: Run) -> None:
        self.held.remove(entry)
        assert self._say_that_it_waits(entry, run) == "waiting"
        run.states["call"] = "WAITING"

    def _say_that_it_waits(self, entry: Entry, run: Run) -> str:
        assert run.child is not None
        number = run.failures["call"] + 1
        return self.run(self.worker.wait(entry, "child", text=run.child.id, number=number))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def wait_late(self, data: st.DataObject) -> None:
        """A wait that was on its way meanwhile."""
        entry = data.draw(st.sampled_from(self.held))
        run = self.reference.runs.get(entry.execution_id)
        if run is None or run.child is None:
            return
        self.held.remove(entry)
        outcome = self._say_that_it_waits(entry, run)
        if not run.is_live:
            assert outcome in ("stale", "ended")
        elif run.child.is_live:
            assert outcome == "waiting"
            run.states["call"] = "WAITING"
        else:
            assert outcome == "woken"

    # What is done to executions.

    @precondition(lambda self: self.reference.runs)
    @rule(
        data=st.data(),
        order=st.sampled_from(("cancel", "pause", "resume", "resume", "delete")),
        breaks_off=st.booleans(),
    )
    def order(self, data: st.DataObject, order: str, breaks_off: bool) -> None:
        """Where it breaks off, others carry on."""
        run = self._some_run(data, *ORDERED[order])
        if run is None:
            return
        if order == "delete":
            self._delete(run)
            return
        force = order == "cancel" and data.draw(st.booleans())
        said = {"force": force} if order == "cancel" else {}
        if breaks_off:
            self.run(getattr(self.store.lifecycle, f"{order}_execution")(run.id, **said))
            self._carry_on()
        else:
            self.run(getattr(executor, f"{order}_execution")(self.store, run.id, **said))
        if order == "cancel":
            run.cancel()
        else:
            run.hold(*(("RUNNING", "PAUSED") if order == "pause" else ("PAUSED", "RUNNING")))

    def _delete(self, run: Run) -> None:
        outcome = self.run(self.store.finished.delete_execution(run.id))
        if run.is_live:
            assert outcome == run.status
        elif run.parent is not None:
            assert outcome == "child"
        else:
            assert outcome == "deleted"
            for one in run.below():
                del self.reference.runs[one.id]

    @precondition(lambda self: self._has_room() and self.reference.live(*ENDED))
    @rule(data=st.data(), is_of_failed=st.sampled_from((True, True, False)))
    def rerun(self, data: st.DataObject, is_of_failed: bool) -> None:
        """It is nobody's child, also where that which it runs again is."""
        run = self._some_run(data, *ENDED)
        assert run is not None
        self._rerun(data, run, is_of_failed=is_of_failed)

    @precondition(lambda self: self._has_room() and self._parents("FAILED", "CANCELLED"))
    @rule(data=st.data(), ends=st.lists(st.sampled_from(ENDS), min_size=2, max_size=6))
    def rerun_a_parent(self, data: st.DataObject, ends: list[str]) -> None:
        """Of which a child may have failed, and go on with it."""
        run = data.draw(st.sampled_from(self._parents("FAILED", "CANCELLED")))
        self._rerun(data, run, is_of_failed=True)
        self.work_on(data, ends)

    def _parents(self, *statuses: str) -> list[Run]:
        return [one for one in self.reference.live(*statuses) if one.children]

    def _rerun(self, data: st.DataObject, run: Run, *, is_of_failed: bool) -> None:
        start = FAILED if is_of_failed else data.draw(st.sampled_from(sorted(run.states)))
        new = Run(new_execution_id(self.run(self.store.schedules.now_ms())), run.graph)
        is_to_run = run.rerun(new) if is_of_failed else True
        if not is_of_failed:
            new.source = run
            if start == "b" and run.states["a"] == "COMPLETED":
                new.states["a"] = "COMPLETED"
        planned = self.run(plan_rerun(self.store, run.id, start))
        try:
            self.run(rerun_execution(self.store, planned, new.id))
        except WrongState:
            assert not is_to_run
            return
        assert is_to_run
        self.run(self.store.executions.trigger_workflow(new.id))
        self.reference.runs[new.id] = new

    def _carry_on(self) -> None:
        self.run(finish_continuations(self.store, self.plans))

    # What has to hold.

    @invariant()
    def agrees_with_the_reference(self) -> None:
        for run in self.reference.runs.values():
            status = self.redis.get(keys.status(run.id))
            assert status == run.status, run
            for node, expected in run.states.items():
                state = self.redis.get(keys.node(run.id, node))
                assert (state if state in ("WAITING", *ENDED) else "OPEN") == expected, (run, node)
            listed = self.redis.hgetall(keys.children(run.id))
            made = {child.id: f"call {nth}" for nth, child in enumerate(run.children, 1)}
            assert listed == made, run
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
        while self._is_something_left():
            for entry in self.run(self.worker.take()):
                self.held.append(entry)
                self._advance(entry, ends="well", stops=False)
        assert not self.reference.live("RUNNING", "PAUSED")
        self.agrees_with_the_reference()
        violations = find_violations(self.redis, list(self.reference.runs))
        assert violations == [], violations

    def _is_something_left(self) -> bool:
        self._dispatch()
        return bool(self.redis.xlen(STREAM) or self.redis.zcard(keys.RETRIES))


def _saved(name: str) -> str:
    return name.replace(" ", "-")


async def _anything_fits(_schema: dict[str, Any], _given: dict[str, Any]) -> None:
    return None
