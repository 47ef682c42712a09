"""Executions that are paused, resumed, cancelled and run again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowd.diagnosis.observer import Observer
from flowd.errors import CorruptExecution, WrongState
from flowd.orchestrator.executor import (
    cancel_execution,
    pause_execution,
    resume_execution,
    trigger_workflow,
)
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import recover_worker
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.store.facts import Facts
from flowd.store.limits import Limit
from flowd.store.tasks import TaskSession
from tests.flow import handlers
from tests.flow.engine import Engine, calls, node, until, workflow
from tests.flow.test_faults import started


async def test_a_pause_lets_what_runs_end_and_nothing_start(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(
            workflow(node("A", handler="held"), node("B", ["A"], "echo_async"), node("C", ["B"]))
        )
        await started("A")
        await pause_execution(engine.store, execution_id)
        handlers.GATES["A"].set()

        async def is_held():
            return await engine.redis("HLEN", f"workflow:{execution_id}:parked") == 1

        await until(is_held, "the node that waits")
        other = await engine.run(workflow(node("D")))
        assert (calls(execution_id), calls(other)) == (["A"], ["D"])

        await resume_execution(engine.store, execution_id)
        assert str(await engine.end(execution_id)) == "COMPLETED"
        assert calls(execution_id) == ["A", "B", "C"]


async def test_nodes_that_were_queued_before_the_pause_wait_as_well(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(
            workflow(*(node(f"n{number}", handler="echo_async") for number in range(20)))
        )
        await pause_execution(engine.store, execution_id)
        await engine.add_worker()

        async def are_held():
            return await engine.redis("HLEN", f"workflow:{execution_id}:parked") == 20

        await until(are_held, "the nodes that wait")
        assert (calls(execution_id), await engine.redis("XLEN", "workflow:tasks")) == ([], 0)
        await resume_execution(engine.store, execution_id)
        await engine.end(execution_id)
        assert sorted(calls(execution_id)) == sorted(f"n{number}" for number in range(20))


async def test_a_cancellation_reaches_what_runs(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(
            workflow(node("A", handler="spin"), node("B", handler="held"), node("C", ["A"]))
        )
        await started("A")
        await started("B")
        await cancel_execution(engine.store, execution_id)

        assert str(await engine.end(execution_id)) == "CANCELLED"
        assert set((await engine.states(execution_id)).values()) == {"CANCELLED"}

        async def is_empty():
            return await engine.redis("XLEN", "workflow:tasks") == 0

        await until(is_empty, "the end of the entries")
        # A worker whose threads run on at its end takes the whole process along.
        await until(lambda: handlers.SPUN == ["A"], "the end of the thread")
        assert await engine.results(execution_id) == {}
        with pytest.raises(WrongState, match="it is CANCELLED"):
            await pause_execution(engine.store, execution_id)


async def test_nodes_of_a_cancelled_execution_do_not_start(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A", handler="echo_async")))
        await cancel_execution(engine.store, execution_id)
        await engine.add_worker()
        await engine.run(workflow(node("B")))

        async def is_empty():
            return await engine.redis("XLEN", "workflow:tasks") == 0

        await until(is_empty, "the end of the entry")
        assert calls(execution_id) == []


async def test_a_rerun_from_the_failed_reuses_what_was_completed(settings):
    nodes = [
        node("A"),
        node("B", handler="fail_first", times=1),
        node("C", ["A", "B"], text="{{ A.x | default('none') }}"),
        node("D", ["A"]),
    ]
    async with Engine(settings) as engine:
        first = await engine.run(workflow(*nodes))
        assert await engine.states(first) == {
            "A": "COMPLETED",
            "B": "FAILED",
            "C": "FAILED",
            "D": "COMPLETED",
        }
        planned = await plan_rerun(engine.store, first, "failed")
        assert (sorted(planned.reused), sorted(planned.runs)) == (["A", "D"], ["B", "C"])
        handlers.CALLS.append((first, "B", 0))
        second = await rerun_execution(engine.store, planned)
        # The handler counts by execution: one failure more, and then it ends well.
        handlers.CALLS.append((second, "B", 0))
        await trigger_workflow(engine.store, second)

        assert str(await engine.end(second)) == "COMPLETED"
        assert sorted(calls(second)) == ["B", "B", "C"]
        assert (await engine.results(second))["D"] == (await engine.results(first))["D"]
        assert await engine.redis("HGET", f"workflow:{second}:run", "rerun_of") == first


@pytest.mark.parametrize("lost", ["A", "M"])
async def test_what_was_to_be_reused_and_is_gone_is_no_rerun(settings, lost):
    """It would end COMPLETED without the output: one that failed, as it may, has one as well."""
    nodes = [node("A"), {**node("M", handler="fail"), "allow_failure": True}, node("B")]
    async with Engine(settings) as engine:
        first = await engine.run(workflow(*nodes))
        planned = await plan_rerun(engine.store, first, "B")
        assert sorted(planned.reused) == ["A", "M"]
        await engine.redis("DEL", f"workflow:{first}:node:{lost}:output")
        before = sorted(await engine.redis("KEYS", "*"))

        with pytest.raises(CorruptExecution, match=f"the output of node '{lost}' is gone"):
            await rerun_execution(engine.store, planned)

        assert sorted(await engine.redis("KEYS", "*")) == before


async def test_a_rerun_from_a_node_runs_it_and_all_that_depends_on_it(settings):
    nodes = [node("A"), node("B", ["A"]), node("C", ["B"]), node("D", ["A"]), node("E", ["C", "D"])]
    async with Engine(settings) as engine:
        first = await engine.run(workflow(*nodes, input={"x": 1}))
        second = await rerun_execution(engine.store, await plan_rerun(engine.store, first, "B"))
        await trigger_workflow(engine.store, second)

        assert str(await engine.end(second)) == "COMPLETED"
        assert calls(second) == ["B", "C", "E"]


async def test_a_rerun_from_a_node_runs_no_other_that_failed(settings):
    """It ran U as well, whose side effects nobody had asked for."""
    nodes = [
        node("A", handler="fail"),
        node("B", ["A"]),
        node("U", handler="fail", text="leave me"),
        node("V", ["U"]),
        node("J", ["B", "U"]),
        node("W"),
    ]
    async with Engine(settings) as engine:
        first = await engine.run(workflow(*nodes))
        planned = await plan_rerun(engine.store, first, "A")
        assert planned.runs == {"A": "asked for", "B": "downstream of 'A', which runs"}
        assert list(planned.reused) == ["W"]
        assert planned.left_out == {
            "U": "was FAILED, and is not asked for",
            "V": "needs the output of 'U', which is not asked for",
            "J": "needs the output of 'U', which is not asked for",
        }
        second = await rerun_execution(engine.store, planned)
        # What the handler does is the same, so this time too it fails; nothing else is called.
        await trigger_workflow(engine.store, second)

        assert str(await engine.end(second)) == "FAILED"
        assert calls(second) == ["A"]
        assert await engine.states(second) == {**dict.fromkeys("ABUVJ", "FAILED"), "W": "COMPLETED"}
        results = await engine.results(second)
        assert results["U"] == {"error": "RuntimeError: leave me"}
        assert results["V"] == {"error": "not run: it depends on 'U', which failed"}


async def test_a_rerun_from_a_node_runs_all_above_it_that_it_cannot_do_without(settings):
    nodes = [
        node("A", handler="fail"),
        node("B", ["A"]),
        node("C", ["B"]),
        node("D", ["C", "done"]),
        node("done"),
        node("beside", ["A"]),
    ]
    async with Engine(settings) as engine:
        first = await engine.run(workflow(*nodes))

        planned = await plan_rerun(engine.store, first, "D")

        needed = dict.fromkeys("ABC", f"was FAILED, and {'D'!r} needs its output")
        assert planned.runs == {
            **needed,
            "D": "asked for",
            "beside": "downstream of 'A', which runs",
        }
        assert list(planned.reused) == ["done"]
        assert planned.left_out == {}


async def test_what_is_left_out_makes_an_execution_fail_that_else_went_well(settings):
    nodes = [node("A", handler="held"), node("B", ["A"]), node("U", handler="fail"), node("V")]
    async with Engine(settings) as engine:
        first = await engine.start(workflow(*nodes))
        await started("A")
        await until(lambda: "V" in calls(first), "the other nodes")
        await cancel_execution(engine.store, first)
        handlers.GATES["A"].set()
        await until(lambda: settled_states(engine, first), "the cancellation")

        planned = await plan_rerun(engine.store, first, "B")
        assert planned.runs == {
            "A": "was CANCELLED, and 'B' needs its output",
            "B": "asked for",
        }
        second = await rerun_execution(engine.store, planned)
        await trigger_workflow(engine.store, second)

        assert str(await engine.end(second)) == "FAILED"
        assert calls(second) == ["A", "B"]
        assert (await engine.states(second))["U"] == "FAILED"


async def test_what_was_cancelled_and_is_left_out_is_explained_as_not_run(settings):
    """It was said to have failed: not run."""
    async with Engine(settings) as engine:
        first = await engine.start(workflow(node("A"), node("C", handler="held")))
        await started("C")
        await until(lambda: "A" in calls(first), "the other node")
        await cancel_execution(engine.store, first)
        handlers.GATES["C"].set()
        await until(lambda: settled_states(engine, first), "the cancellation")
        second = await rerun_execution(engine.store, await plan_rerun(engine.store, first, "A"))

        observer = Observer(engine.store, Plans(engine.store))
        (explained,) = (await observer.explain(second, "C")).nodes
        assert [reason.message for reason in explained.reasons] == [
            "not run: it was CANCELLED, and is not asked for"
        ]


async def settled_states(engine, execution_id):
    return not {"QUEUED", "RUNNING", "PENDING"} & set((await engine.states(execution_id)).values())


async def test_only_what_has_ended_can_be_run_again(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A")))
        with pytest.raises(WrongState, match="it is RUNNING"):
            await plan_rerun(engine.store, execution_id, "failed")


async def test_where_nothing_failed_nothing_is_run_again(settings):
    """It was made, and ran: no roots meant too many of them for one call, so all were opened."""
    async with Engine(settings) as engine:
        first = await engine.run(workflow(node("A"), node("B", ["A"])))
        planned = await plan_rerun(engine.store, first, "failed")
        assert (list(planned.reused), planned.runs) == (["A", "B"], {})
        with pytest.raises(WrongState, match="it is COMPLETED, and so is each of its nodes; name"):
            await rerun_execution(engine.store, planned)
        assert await engine.redis("ZCARD", "flowd:executions") == 1


async def test_a_rerun_of_very_many_roots_opens_them_slice_by_slice(settings):
    width = 1100
    failing = [node(f"n{number}", handler="fail") for number in range(width)]
    async with Engine(settings) as engine:
        first = await engine.run(workflow(node("A"), *failing))
        planned = await plan_rerun(engine.store, first, "failed")
        again = await rerun_execution(engine.store, planned)
        await trigger_workflow(engine.store, again)

        assert await engine.redis("HGET", f"workflow:{again}:run", "roots") == ""
        assert str(await engine.end(again)) == "FAILED"
        assert sorted(calls(again)) == sorted(one["id"] for one in failing)
        assert await engine.redis("ZCARD", "flowd:continuations") == 0


async def test_a_rerun_of_many_nodes_is_staged(settings):
    width = 1500
    nodes = [node("A"), *(node(f"n{number}", ["A"]) for number in range(width))]
    nodes.append(node("Z", [f"n{number}" for number in range(width)]))
    async with Engine(settings) as engine:
        first = await engine.run(workflow(*nodes))
        for start, count in (("Z", 1), ("A", width + 2)):
            again = await rerun_execution(
                engine.store, await plan_rerun(engine.store, first, start)
            )
            await trigger_workflow(engine.store, again)
            assert str(await engine.end(again)) == "COMPLETED"
            assert len(calls(again)) == count
            assert await engine.redis("ZCARD", "flowd:continuations") == 0


async def test_templates_read_the_input_of_the_execution(settings):
    definition = workflow(
        node("A", a="{{ input.a }}", b="{{ input.b }}", all="{{ input }}"), input={"a": 1, "b": 2}
    )
    async with Engine(settings) as engine:
        plain = await engine.run(definition)
        given = await engine.run(definition, b'{"b":3,"c":4}')

        assert (await engine.results(plain))["A"] == {"a": 1, "b": 2, "all": {"a": 1, "b": 2}}
        assert (await engine.results(given))["A"] == {
            "a": 1,
            "b": 3,
            "all": {"a": 1, "b": 3, "c": 4},
        }


async def test_what_a_handler_makes_of_an_input_is_not_seen_by_other_executions(settings):
    # The default input is part of the plan, which executions of one workflow share in a worker.
    definition = workflow(
        node("A", handler="spoil", items="{{ input.deep.items }}"), input={"deep": {"items": [1]}}
    )
    async with Engine(settings, workers=1) as engine:
        for _ in range(2):
            execution_id = await engine.run(definition)
            assert await engine.results(execution_id) == {"A": {"items": [1, "mine"]}}


async def test_a_node_called_input_is_read_as_ever(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(
            workflow(node("input", x=1), node("B", ["input"], x="{{ input.x }}"), input={"x": 2})
        )
        assert (await engine.results(execution_id))["B"] == {"x": 1}


async def test_a_missing_input_fails_the_node_that_reads_it(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(workflow(node("A", x="{{ input.x }}"), input={"y": 2}))
        error = (await engine.results(execution_id))["A"]["error"]
        assert error == "'input' has no key 'x'; its keys are 'y'"


@pytest.mark.parametrize("handler", ["echo", "echo_async"])
@pytest.mark.parametrize("halt", [pause_execution, cancel_execution])
async def test_nodes_that_were_queued_before_do_not_start_after_the_next_call(
    settings, monkeypatch, halt, handler
):
    """Whole batches of them ran on, as nobody asked about what takes no time: 900 of a fan."""
    width, after = 600, []
    exchange = TaskSession.complete_and_claim

    async def complete_and_claim(session, completions, *rest):
        if len(completions) > 8 and not after:
            await halt(engine.store, execution_id)
            after.append(len(calls(execution_id)))
        return await exchange(session, completions, *rest)

    monkeypatch.setattr(TaskSession, "complete_and_claim", complete_and_claim)
    async with Engine(settings, workers=0) as engine:
        nodes = [node(f"n{at}", handler=handler) for at in range(width)]
        execution_id = await engine.start(workflow(*nodes))
        other = await engine.start(workflow(node("A"), node("B", ["A"])))
        await engine.add_worker()
        await engine.end(other)

        async def is_empty():
            return await engine.redis("XLEN", "workflow:tasks") == 0

        await until(is_empty, "the end of the entries")
        assert 0 < after[0] == len(calls(execution_id)) < width
        assert calls(other) == ["A", "B"]


async def test_what_is_taken_with_an_end_is_known_to_run_and_not_asked_about(settings, monkeypatch):
    """The call that ends a node says what was halted up to then; to ask takes another."""
    asked = []
    find = Facts.find

    async def finding(facts, wanted, bytes_max):
        asked.extend(fact.execution_id for fact in wanted if fact.kind == "status")
        return await find(facts, wanted, bytes_max)

    monkeypatch.setattr(Facts, "find", finding)
    async with Engine(settings, workers=1) as engine:
        await engine.store.tasks.limits.put(Limit("api", max=1))
        above = {"A": [], "B": ["A"], "C": ["B"], "D": ["C"]}
        chain = workflow(*(node(one, named, "echo_async") for one, named in above.items()))
        execution_id = await engine.run(chain)
        assert (calls(execution_id), asked) == (list("ABCD"), [execution_id])

        asked.clear()
        limited = (node(one, handler="echo_async") | {"limit": "api"} for one in "ABC")
        execution_id = await engine.run(workflow(*limited))
        # Of each where it asks for a place, of none that is given one.
        assert (len(calls(execution_id)), asked) == (3, [execution_id] * 3)


@pytest.mark.parametrize("handler", ["echo", "echo_async"])
async def test_what_the_doorbell_brings_into_a_paused_execution_waits(
    settings, monkeypatch, handler
):
    """With no other slot nothing is asked behind it, and the call before knew of no pause."""
    ring, rung = TaskSession.wait_for_entry, []

    async def wait_for_entry(session):
        entries = await ring(session)
        if entries and rung:
            await pause_execution(engine.store, entries[0].execution_id)
        return entries

    monkeypatch.setattr(TaskSession, "wait_for_entry", wait_for_entry)
    one_slot = replace(settings, workers=replace(settings.workers, concurrency=1))
    async with Engine(one_slot, workers=1) as engine:
        await engine.run(workflow(node("A", handler=handler)))
        rung.append(True)
        execution_id = await engine.start(workflow(node("A", handler=handler)))

        async def is_over():
            return await engine.redis("XLEN", "workflow:tasks") == 0

        await until(is_over, "the end of the entry")
        assert calls(execution_id) == []
        assert await engine.states(execution_id) == {"A": "PENDING"}


async def test_a_worker_that_comes_after_the_pause_starts_none_of_its_inline_nodes(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(*(node(f"n{at}") for at in range(20))))
        await pause_execution(engine.store, execution_id)
        for _ in range(2):
            await engine.add_worker()

        async def are_held():
            return await engine.redis("HLEN", f"workflow:{execution_id}:parked") == 20

        await until(are_held, "the nodes that wait")
        assert calls(execution_id) == []
        await resume_execution(engine.store, execution_id)
        assert str(await engine.end(execution_id)) == "COMPLETED"
        assert len(calls(execution_id)) == 20


async def test_an_inline_node_that_comes_back_into_a_paused_execution_waits(settings):
    """Its entry is newer than the pause."""
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A")))
        await engine.store.tasks.enroll_worker("dead", b"{}")
        session = engine.store.tasks.open_session("dead")
        await session.complete_and_claim((), (), (), 1)
        await session.close()
        await engine.add_worker()
        await engine.run(workflow(node("B")))
        await pause_execution(engine.store, execution_id)
        await recover_worker(engine.store, Plans(engine.store), "dead", "killed", is_blamed=False)

        async def is_held():
            return await engine.redis("HLEN", f"workflow:{execution_id}:parked") == 1

        await until(is_held, "the node that waits")
        assert calls(execution_id) == []


async def test_an_inline_node_that_comes_back_is_no_newer_than_the_pause_to_a_busy_worker(settings):
    """It takes the entry with what it commits, and is told then how old what is halted may be."""
    one_slot = replace(settings, workers=replace(settings.workers, concurrency=1))
    async with Engine(one_slot, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A")))
        await engine.store.tasks.enroll_worker("dead", b"{}")
        session = engine.store.tasks.open_session("dead")
        await session.complete_and_claim((), (), (), 1)
        await session.close()
        await engine.add_worker()
        other = await engine.start(workflow(node("H", handler="held")))
        await started("H")
        await pause_execution(engine.store, execution_id)
        await recover_worker(engine.store, Plans(engine.store), "dead", "killed", is_blamed=False)
        handlers.GATES["H"].set()
        await engine.end(other)

        async def is_over():
            return await engine.redis("XLEN", "workflow:tasks") == 0

        await until(is_over, "the end of the entry")
        assert calls(execution_id) == []
        assert await engine.states(execution_id) == {"A": "PENDING"}


@pytest.mark.parametrize(
    ("hold", "state"), [(pause_execution, "PENDING"), (cancel_execution, "CANCELLED")]
)
async def test_a_busy_worker_starts_nothing_that_was_queued_last_before_a_halt(
    settings, hold, state
):
    """It is as old as what is halted may be, to the millisecond."""
    one_slot = replace(settings, workers=replace(settings.workers, concurrency=1))
    async with Engine(one_slot, workers=1) as engine:
        other = await engine.start(workflow(node("H", handler="held")))
        await started("H")
        execution_id = await engine.start(workflow(node("A")))
        await hold(engine.store, execution_id)
        handlers.GATES["H"].set()
        await engine.end(other)

        async def is_over():
            return await engine.redis("XLEN", "workflow:tasks") == 0

        await until(is_over, "the end of the entry")
        assert calls(execution_id) == []
        assert await engine.states(execution_id) == {"A": state}
