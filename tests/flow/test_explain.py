"""Why does it not run? Every answer there is, from the situation it is about."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from flowd.cli.remote import as_commands
from flowd.diagnosis import observer
from flowd.diagnosis.observer import Observer
from flowd.errors import CorruptExecution, UnknownExecution, UnknownNode
from flowd.handlers.registry import built_in_registry
from flowd.orchestrator import leases
from flowd.orchestrator.executor import (
    cancel_execution,
    pause_execution,
    submit_workflow,
)
from flowd.orchestrator.owner import Owner
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import recover_worker
from flowd.store import standing
from flowd.store.executions import now_ms
from flowd.workflow.caching import Keep
from flowd.workflow.ids import new_execution_id
from tests.flow import handlers
from tests.flow.engine import Engine, node, until, workflow
from tests.flow.test_faults import started
from tests.flow.test_reads import serving

CHAIN = (node("A"), node("B", ["A"]), node("C", ["A", "B"]))
LATER = {"max_attempts": 3, "delay_s": 3600, "max_delay_s": 3600, "jitter": 0}


def observing(engine: Engine) -> Observer:
    return Observer(engine.store, Plans(engine.store))


async def codes(engine: Engine, execution_id: str, node_id: str | None = None):
    """The codes by node id."""
    found = await observing(engine).explain(execution_id, node_id)
    return {one.node_id: [reason.code for reason in one.reasons] for one in found.nodes}


async def message(engine: Engine, execution_id: str, node_id: str, code: str) -> str:
    (found,) = (await observing(engine).explain(execution_id, node_id)).nodes
    (text,) = (reason.message for reason in found.reasons if reason.code == code)
    return text


async def take_one(engine: Engine, consumer: str) -> None:
    """Read an entry, and say nothing more."""
    session = engine.store.tasks.open_session(consumer)
    assert (await session.complete_and_claim([], [], [], 1)).entries
    await session.close()


async def becomes(engine: Engine, execution_id: str, node_id: str, state: str) -> None:
    async def is_there():
        return (await engine.states(execution_id))[node_id] == state

    await until(is_there, f"{node_id} {state}")


async def test_an_execution_that_was_not_triggered(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await submit_workflow(engine.store, workflow(*CHAIN))

        found = await observing(engine).explain(execution_id)
        assert (found.status, found.summary, found.more) == ("PENDING", "Not triggered yet.", 0)
        assert await codes(engine, execution_id) == {one: ["not_triggered"] for one in "ABC"}
        text = await message(engine, execution_id, "B", "not_triggered")
        assert text.endswith(f"POST /workflow/trigger/{execution_id}")


async def test_a_full_redis_is_why_nothing_can_be_triggered(settings, redis):
    async with Engine(settings, workers=0) as engine:
        execution_id = await submit_workflow(engine.store, workflow(*CHAIN))
        redis.config_set("maxmemory", 1)
        try:
            assert await codes(engine, execution_id, "A") == {"A": ["not_triggered", "store_full"]}
        finally:
            redis.config_set("maxmemory", 0)


async def test_what_waits_and_what_is_queued_while_no_worker_is_alive(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(*CHAIN))

        found = await observing(engine).explain(execution_id)
        assert [one.node_id for one in found.nodes] == ["A", "B", "C"]
        assert await codes(engine, execution_id) == {
            "A": ["queued", "no_worker"],
            "B": ["waiting_for"],
            "C": ["waiting_for"],
        }
        assert found.summary == (
            "RUNNING: of 3 nodes 2 PENDING and 1 QUEUED. "
            "No worker is alive: `flowd start` runs some, `flowd scale 2` where flowd runs. "
            "No scheduler is alive: `flowd start` runs one, `flowd status` shows it."
        )
        text = await message(engine, execution_id, "C", "waiting_for")
        assert text == "waits for A (QUEUED) and B (PENDING)"


async def test_a_queued_node_knows_how_many_are_ahead_of_it(settings, monkeypatch):
    async with Engine(settings, workers=0) as engine:
        await engine.start(workflow(*(node(f"n{number}") for number in range(30))))
        execution_id = await engine.start(workflow(node("A"), node("B")))
        a, b = [await message(engine, execution_id, one, "queued") for one in "AB"]
        assert a.startswith("30 entries are ahead of it; it has waited 0.")
        assert b.startswith("31 entries are ahead of it; it has waited 0.")

        await take_one(engine, "w1")
        a = await message(engine, execution_id, "A", "queued")
        assert a.startswith("29 entries are ahead of it")

        monkeypatch.setattr(standing, "ENTRIES_MAX", 10)
        monkeypatch.setattr(standing, "_PAGE", 5)
        a = await message(engine, execution_id, "A", "queued")
        assert a == "more than 9 entries are ahead of it"


async def test_a_node_that_came_back_says_who_died_with_it(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A")))
        for deaths, text in ((1, "; 1 worker died with it"), (2, "; 2 workers died with it")):
            await take_one(engine, "w1")
            await recover_worker(engine.store, Plans(engine.store), "w1", "killed", is_blamed=True)
            assert (await message(engine, execution_id, "A", "queued")).endswith(text), deaths


async def test_what_runs_says_where_and_since_when(settings):
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.start(workflow(node("A", handler="held"), node("B", ["A"])))
        await started("A")
        await becomes(engine, execution_id, "A", "RUNNING")
        assert await codes(engine, execution_id) == {"A": ["running"], "B": ["waiting_for"]}
        text = await message(engine, execution_id, "A", "running")
        consumer = (await engine.redis("HKEYS", "flowd:leases"))[0]
        assert text.startswith(f"attempt 1 has run on {consumer} for 0.")


async def test_an_entry_that_was_taken_and_not_begun(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A")))
        await engine.store.tasks.enroll_worker("w1", Owner.of_this_process().to_json())
        await take_one(engine, "w1")
        assert await codes(engine, execution_id) == {"A": ["taken"]}


async def test_a_worker_without_a_lease_is_lost(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A")))
        await take_one(engine, "w1")
        assert await codes(engine, execution_id) == {"A": ["worker_lost", "no_worker"]}
        text = await message(engine, execution_id, "A", "worker_lost")
        assert text == "w1 holds it, but it has no lease; another worker is given it soon"


async def test_a_worker_whose_process_has_ended_is_lost(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A")))
        gone = replace(Owner.of_this_process(), started_ticks=1)
        await engine.store.tasks.enroll_worker("w1", gone.to_json())
        await engine.store.tasks.enroll_worker("w2", b"not JSON")
        await take_one(engine, "w1")
        assert await codes(engine, execution_id) == {"A": ["worker_lost"]}
        text = await message(engine, execution_id, "A", "worker_lost")
        assert f"its process {gone.pid} has ended" in text


async def test_a_worker_whose_heart_stands_still_is_lost(settings, monkeypatch):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A")))
        await engine.store.tasks.enroll_worker("w1", b"{}")
        await take_one(engine, "w1")
        seen = observing(engine)
        assert (await seen.explain(execution_id)).nodes[0].reasons[0].code == "taken"

        monkeypatch.setattr(leases, "LEASE_S", 0.0)
        reasons = (await seen.explain(execution_id)).nodes[0].reasons
        assert [reason.code for reason in reasons] == ["worker_lost", "no_worker"]


async def test_a_node_that_failed_says_when_it_comes_again(settings):
    flaky = {**node("A", handler="fail_first", times=1), "retry": LATER}
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.start(workflow(flaky))
        await becomes(engine, execution_id, "A", "RETRYING")
        assert await codes(engine, execution_id) == {"A": ["retrying"]}
        text = await message(engine, execution_id, "A", "retrying")
        told = r"attempt 1 of 3 failed: RuntimeError: not yet; the next is due in (.*)"
        due = re.fullmatch(told, text)
        assert due is not None
        assert re.fullmatch(r"1 h 0 min|5\d min \d+ s", due[1])
        member = f"{execution_id} A"
        await engine.redis("ZADD", "flowd:retries", 1, member)
        assert await codes(engine, execution_id) == {"A": ["retrying", "no_scheduler"]}
        await engine.redis("ZREM", "flowd:retries", member)
        assert "nothing says when" in await message(engine, execution_id, "A", "retrying")


async def test_a_paused_execution(settings):
    nodes = [node("A", handler="held"), node("B", ["A"]), node("C", handler="echo_async")]
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.start(workflow(*nodes))
        await started("A")
        await becomes(engine, execution_id, "A", "RUNNING")
        await becomes(engine, execution_id, "C", "COMPLETED")
        await pause_execution(engine.store, execution_id)
        assert await codes(engine, execution_id) == {
            "A": ["running"],
            "B": ["waiting_for", "paused"],
        }
        handlers.GATES["A"].set()
        await becomes(engine, execution_id, "A", "COMPLETED")
        assert await codes(engine, execution_id) == {"B": ["paused"]}
        text = await message(engine, execution_id, "B", "paused")
        assert text.endswith(f"POST /workflows/{execution_id}/resume")
        summary = (await observing(engine).explain(execution_id)).summary
        assert "No node starts until it is resumed." in summary


async def test_a_queued_node_of_a_paused_execution(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A")))
        await pause_execution(engine.store, execution_id)
        assert await codes(engine, execution_id) == {"A": ["paused", "queued", "no_worker"]}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("DEL", "workflow:tasks"), "stream_missing"),
        (("XGROUP", "DESTROY", "workflow:tasks", "workflow_group"), "group_missing"),
        (("SET", "workflow:tasks", "x"), "stream_corrupt"),
        (("XTRIM", "workflow:tasks", "MAXLEN", 0), "entry_missing"),
    ],
)
async def test_a_stream_that_was_tampered_with(settings, command, code):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A")))
        await engine.redis(*command)
        assert await codes(engine, execution_id) == {"A": [code, "no_worker"]}


async def test_an_entry_that_a_destroyed_group_had_given_out(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A")))
        await take_one(engine, "w1")
        await engine.redis("XGROUP", "DESTROY", "workflow:tasks", "workflow_group")
        await engine.store.tasks.queues.ensure_groups()
        assert await codes(engine, execution_id) == {"A": ["group_missing", "no_worker"]}


async def test_a_node_that_runs_and_has_lost_its_entry(settings):
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.start(workflow(node("A", handler="held")))
        await started("A")
        await becomes(engine, execution_id, "A", "RUNNING")
        await engine.redis("XTRIM", "workflow:tasks", "MAXLEN", 0)
        assert await codes(engine, execution_id) == {"A": ["entry_missing", "running"]}
        await cancel_execution(engine.store, execution_id)


async def test_roots_that_are_still_to_be_opened(settings):
    nodes = [node(f"n{number}") for number in range(1001)]
    async with Engine(settings, workers=0) as engine:
        execution_id = await submit_workflow(engine.store, workflow(*nodes))
        assert await engine.store.executions.trigger_workflow(execution_id) == "continue"
        found = await observing(engine).explain(execution_id)
        assert (len(found.nodes), found.more) == (100, 901)
        assert {one.reasons[0].code for one in found.nodes} == {"opening"}


async def test_how_nodes_have_ended(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(
            workflow(node("A"), node("B", ["A"], handler="fail"), node("C", ["B"]))
        )
        found = await observing(engine).explain(execution_id)
        assert (found.nodes, found.more) == ((), 0)
        assert found.summary == (
            "FAILED: 'B' failed: RuntimeError: no luck. Of 3 nodes 1 COMPLETED and 2 FAILED."
        )
        ends = [await codes(engine, execution_id, one) for one in "ABC"]
        assert ends == [{"A": ["completed"]}, {"B": ["failed"]}, {"C": ["dependency_failed"]}]
        assert (await message(engine, execution_id, "B", "failed")).endswith("no luck")
        text = await message(engine, execution_id, "C", "dependency_failed")
        assert text == "not run: it depends on 'B', which failed"

        await engine.redis("SET", f"workflow:{execution_id}:node:C", "PENDING")
        assert await codes(engine, execution_id) == {"C": ["execution_ended"]}


async def test_a_node_about_to_fail_with_its_dependency(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(*CHAIN))
        await engine.redis("SET", f"workflow:{execution_id}:node:A", "FAILED")
        found = await codes(engine, execution_id)
        assert found == {"B": ["dependency_failed"], "C": ["dependency_failed"]}


async def test_a_failure_that_is_allowed_holds_nobody_back(settings):
    async with Engine(settings) as engine:
        may = node("may", handler="fail") | {"allow_failure": True}
        execution_id = await engine.start(
            workflow(may, node("held", handler="held"), node("J", ["may", "held"]))
        )
        await becomes(engine, execution_id, "may", "FAILED")
        assert await codes(engine, execution_id, "J") == {"J": ["waiting_for"]}


async def test_what_failed_an_execution_is_no_failure_that_is_allowed(settings):
    async with Engine(settings) as engine:
        may = node("may", handler="fail") | {"allow_failure": True}
        execution_id = await engine.run(workflow(may, node("bad", ["may"], handler="fail")))
        summary = (await observing(engine).explain(execution_id)).summary
        assert summary.startswith("FAILED: 'bad' failed: ")


async def test_the_failure_an_execution_is_explained_with_is_the_first_and_it_says_where_others_are(
    settings,
):
    """It was the first of the definition, the log and `now` said another one, the summary none."""
    late = node("A", ["Z"], handler="fail") | {"after": "ended"}
    async with serving(settings) as api:
        execution_id = await api.engine.run(workflow(late, node("Z", handler="fail")))
        summary = (await observing(api.engine).explain(execution_id)).summary
        error = (await api.request(f"/workflows/{execution_id}/summary"))["error"]

    assert error.startswith("Z: ")
    assert summary.startswith(f"FAILED: 'Z' failed: {error.removeprefix('Z: ')}. Of 2 nodes ")
    assert summary.endswith(f" GET /workflows/{execution_id}/nodes lists all that did.")


async def test_a_failed_map_says_how_its_items_are_listed(settings):
    mapped = node("fan", handler="fail") | {"map": {"over": "{{ input.rows }}"}}
    async with serving(settings) as api:
        execution_id = await api.engine.run(workflow(mapped, input={"rows": [1, 2]}))
        summary = (await observing(api.engine).explain(execution_id)).summary

    listing = f"/workflows/{execution_id}/nodes/fan/items?state=FAILED"
    assert summary.endswith(f" GET {listing} lists its items that did.")
    assert as_commands(summary).endswith(
        f" `flowd items {execution_id} fan --state failed` lists its items that did."
    )


async def test_what_runs_on_says_which_nodes_have_failed(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(
            workflow(node("bad", handler="fail"), node("ask", handler="held"))
        )
        await becomes(engine, execution_id, "bad", "FAILED")
        await becomes(engine, execution_id, "ask", "RUNNING")
        summary = (await observing(engine).explain(execution_id)).summary
        handlers.GATES["ask"].set()

    assert " Failed: bad." in summary


async def test_a_cancelled_execution(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(*CHAIN))
        await cancel_execution(engine.store, execution_id)
        assert await codes(engine, execution_id, "B") == {"B": ["cancelled"]}
        summary = (await observing(engine).explain(execution_id)).summary
        assert summary == "CANCELLED: of 3 nodes 3 CANCELLED."


async def test_damaged_keys_are_named_and_hide_nothing(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(*CHAIN))
        prefix = f"workflow:{execution_id}"
        await engine.redis("SET", f"{prefix}:node:B", "SLEEPING")
        for name in ("run", "attempts", "parked"):
            await engine.redis("DEL", f"{prefix}:{name}")
            await engine.redis("SET", f"{prefix}:{name}", "x")
        await engine.redis("SET", "flowd:leases", "x")
        assert await codes(engine, execution_id) == {
            "B": ["corrupt"],
            "A": ["queued", "no_worker"],
            "C": ["waiting_for"],
        }
        assert f"'{prefix}:node:B'" in await message(engine, execution_id, "B", "corrupt")
        text = await message(engine, execution_id, "C", "waiting_for")
        assert text == "waits for A (QUEUED) and B (damaged)"

        await engine.redis("SET", f"{prefix}:status", "?")
        found = await observing(engine).explain(execution_id)
        assert (found.status, "damaged" in found.summary) == (None, True)
        assert {reason.code for one in found.nodes for reason in one.reasons} == {"corrupt"}

        await engine.redis("SET", prefix, "{")
        with pytest.raises(CorruptExecution):
            await observing(engine).explain(execution_id)


async def test_a_node_that_moves_while_it_is_looked_at(settings, monkeypatch):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A")))
        key = f"workflow:{execution_id}:node:A"
        cluster_state = engine.store.health.standing.cluster_state
        moves = iter(("RUNNING", "QUEUED"))

        async def moving():
            await engine.redis("SET", key, next(moves, "QUEUED"))
            return await cluster_state()

        monkeypatch.setattr(engine.store.health.standing, "cluster_state", moving)
        assert await codes(engine, execution_id) == {"A": ["moving"]}
        # Standing still again, it is looked at once more.
        moves = iter(("RUNNING", "RUNNING"))
        assert await codes(engine, execution_id) == {"A": ["running"]}


async def test_many_nodes_are_counted_not_listed(settings, monkeypatch):
    monkeypatch.setattr(observer, "SHOWN_MAX", 4)
    nodes = [node("A"), *(node(f"n{number}", ["A"]) for number in range(30))]
    nodes.append(node("Z", [f"n{number}" for number in range(30)]))
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(*nodes))
        found = await observing(engine).explain(execution_id)
        assert [one.node_id for one in found.nodes] == ["A", "n0", "n1", "n2"]
        assert found.more == 28
        text = await message(engine, execution_id, "Z", "waiting_for")
        assert text.endswith(", n8 (PENDING), n9 (PENDING) and 20 more")


async def test_what_is_unknown(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(*CHAIN))
        with pytest.raises(UnknownNode):
            await observing(engine).explain(execution_id, "nobody")
        with pytest.raises(UnknownExecution):
            await observing(engine).explain(new_execution_id(now_ms()))


async def test_answers_that_are_simulated_are_said_to_be(settings):
    call = node("A", handler="call_external_service", url="http://service-a")
    ask = node("B", ["A"], handler="llm", prompt="x")
    echo = node("C", ["B"], handler="noop")
    async with Engine(settings, registry=built_in_registry()) as engine:
        execution_id = await engine.run(workflow(call, ask, echo))

        found = await observing(engine).explain(execution_id)
        assert found.summary == (
            "COMPLETED: of 3 nodes 3 COMPLETED. Simulated, not called: A and B."
        )
        assert await codes(engine, execution_id, "A") == {"A": ["completed", "simulated"]}
        assert await codes(engine, execution_id, "C") == {"C": ["completed"]}
        text = await message(engine, execution_id, "A", "simulated")
        assert text == "its answer is simulated: call_external_service has called nobody"


async def test_a_kept_answer_is_said_to_be_one_and_simulated_only_where_it_is(settings):
    """Whatever lacked a status code was said to be simulated."""
    call = node("A", handler="call_external_service", url="http://service-a")
    definition = workflow({**call, "cache": {"ttl_s": 60, "key": "{{ input.key }}"}})
    async with Engine(settings, registry=built_in_registry()) as engine:
        cache = engine.store.tasks.cache
        await cache.keep([(Keep("call_external_service/=own", 60_000), b'{"data": "rain"}')])
        own = await engine.run(definition, b'{"key": "own"}')
        first = await engine.run(definition, b'{"key": "simulated"}')

        async def is_kept():
            return (await cache.size()).entries == 2

        await until(is_kept, "what was simulated to be kept")
        again = await engine.run(definition, b'{"key": "simulated"}')

        found = await observing(engine).explain(own)
        assert found.summary == "COMPLETED: of 1 node 1 COMPLETED."
        assert await codes(engine, own, "A") == {"A": ["completed"]}
        text = await message(engine, own, "A", "completed")
        assert text == "it is completed by what an equal call put out, and was kept"
        for one in (first, again):
            assert await codes(engine, one, "A") == {"A": ["completed", "simulated"]}
        text = await message(engine, first, "A", "completed")
        assert text == "it is completed, by attempt 1"


async def test_a_node_is_explained_with_its_attempts(settings):
    async with serving(settings) as api:
        again = {**node("A", handler="fail"), "retry": {"max_attempts": 2, "delay_s": 0}}
        async with api.engine.ticking():
            one = await api.engine.run(workflow(again, node("B", ["A"])))

        (explained,) = (await api.request(f"/workflows/{one}/explain/A"))["nodes"]

        listed = (await api.request(f"/workflows/{one}/nodes/A/attempts"))["attempts"]
        assert explained["attempts"] == listed
        assert [(row["attempt"], row["error"]) for row in listed] == [
            (1, "attempt 1 of 2: RuntimeError: no luck"),
            (2, "attempt 2 of 2: RuntimeError: no luck"),
        ]
        (never,) = (await api.request(f"/workflows/{one}/explain/B"))["nodes"]
        assert never["attempts"] == []
