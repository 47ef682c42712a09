"""Recovery: the work of the dead goes to the living, and what kills every worker is given up."""

from __future__ import annotations

import os
from dataclasses import replace

import orjson
import pytest

from flowd.orchestrator.leases import LEASE_S
from flowd.orchestrator.owner import Owner
from flowd.orchestrator.recovery import recover_worker, release_dead_worker
from flowd.scheduler.lost_workers import RecoverExpired
from flowd.scheduler.scheduler import Scheduler
from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.redis import keys
from flowd.store.tasks import DEATHS_MAX
from tests.store.engine import (
    CHAIN,
    DIAMOND,
    GROUP,
    STREAM,
    State,
    everything,
    failed_by,
    fan,
    outputs_of,
)

# A process that had this one's pid and started at another time: it is gone.
DEAD_OWNER = replace(Owner.of_this_process(), started_ticks=1)


async def recover(engine, plans, consumer="w1", *, is_blamed=True):
    return await recover_worker(
        engine.store, plans, consumer, "killed by signal 9", is_blamed=is_blamed
    )


async def die_with(engine, plans, deaths):
    """Let workers die, one after another, with everything they have taken and started."""
    for number in range(deaths):
        worker = engine.worker(f"dying-{number}")
        entries = await worker.take()
        await worker.claim(*entries)
        await recover(engine, plans, worker.name)


async def test_everything_a_dead_worker_held_is_requeued_and_the_worker_forgotten(
    engine, redis, plans, lines
):
    worker, other = engine.worker("w1"), engine.worker("w2")
    await engine.store.tasks.enroll_worker("w1", b"{}")
    execution = await engine.start({"a": [], "b": [], "c": []})
    a, b = await worker.take(2)
    await other.take(1)
    await worker.claim(a)

    assert await recover(engine, plans) == 2

    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "QUEUED", "b": "QUEUED", "c": "QUEUED"},
        counters={"remaining": "3"},
        attempts={"a": "#2 queued", "b": "#2 queued"},
        queued=["a#2 after 1 deaths", "b#2 after 1 deaths"],
        held={"w2": ["c#1"]},
    )
    assert not redis.exists(keys.LEASES, keys.WORKERS)
    assert {row["name"] for row in redis.xinfo_consumers(STREAM, GROUP)} == {"w2"}
    assert not await engine.store.tasks.renew_lease("w1")
    assert await worker.complete(a, b) == ["stale", "stale"]
    ((level, said),) = lines.of("worker.recovered")
    assert (level, said["consumer"], said["nodes"]) == ("warning", "w1", 2)
    assert [said["node_id"] for _, said in lines.of("node.requeued")] == ["a", "b"]


async def test_a_worker_that_gives_its_work_back_blames_no_node(engine, plans):
    worker = engine.worker()
    execution, _ = await engine.start_and_take(CHAIN, worker)

    assert await recover(engine, plans, is_blamed=False) == 1

    assert execution.state().queued == ["a#2"]


async def test_the_lease_goes_before_the_first_of_the_entries(engine, redis, plans, monkeypatch):
    """Else a worker that is not as dead as it seemed renews it, and takes what was given away."""
    worker = engine.worker()
    await engine.store.tasks.enroll_worker("w1", b"{}")
    await engine.start_and_take(DIAMOND, worker)
    requeue, leases = engine.store.tasks.requeue_entry, []

    async def requeued(*arguments, **options):
        leases.append(redis.hget(keys.LEASES, "w1"))
        assert not await engine.store.tasks.renew_lease("w1")
        return await requeue(*arguments, **options)

    monkeypatch.setattr(engine.store.tasks, "requeue_entry", requeued)
    await recover_worker(engine.store, plans, "w1", "it was silent", is_blamed=True)

    assert leases == [None]


async def test_a_worker_is_recovered_once_even_by_two_at_a_time(engine, redis, plans):
    worker = engine.worker()
    execution, _ = await engine.start_and_take(CHAIN, worker)
    await recover(engine, plans)
    before = everything(redis)

    assert await recover(engine, plans) == 0

    assert everything(redis) == before
    assert execution.state().queued == ["a#2 after 1 deaths"]


async def test_more_entries_than_fit_a_page_are_requeued(engine, plans):
    execution, _ = await engine.start_and_take(
        {f"r{number}": [] for number in range(330)}, engine.worker()
    )

    assert await recover(engine, plans) == 330

    assert execution.state().queued == [f"r{number}#2 after 1 deaths" for number in range(330)]


async def test_a_worker_that_reads_on_does_not_keep_its_recovery_going_for_ever(
    engine, plans, monkeypatch
):
    """A worker that only seemed dead took the entries its recovery made, and these again."""
    worker = engine.worker()
    execution, _ = await engine.start_and_take({"a": [], "b": []}, worker)
    requeue_entry = engine.store.tasks.requeue_entry

    async def requeue_and_be_taken(*arguments, **options):
        outcome = await requeue_entry(*arguments, **options)
        await worker.take()
        return outcome

    monkeypatch.setattr(engine.store.tasks, "requeue_entry", requeue_and_be_taken)

    assert await recover(engine, plans) == 2

    state = execution.state()
    assert state.held == {"w1": ["a#2 after 1 deaths", "b#2 after 1 deaths"]}


async def test_a_node_that_goes_on_killing_workers_is_given_up_with_all_downstream(
    engine, redis, plans
):
    execution = await engine.start({**CHAIN, "x": ["a"]})

    await die_with(engine, plans, DEATHS_MAX)

    reason = "given up: 10 workers died while they ran this node; the last: killed by signal 9"
    assert execution.state() == State(
        status="FAILED",
        nodes=dict.fromkeys("abcx", "FAILED"),
        counters={"remaining": "0", "failed": "1", "finished_ms": "set"},
        outputs={"a": {"error": reason}, **failed_by("a", "b", "c", "x")},
        attempts={"a": "#10 given up on dying-9"},
        dead_letters=["a"],
        is_active=False,
    )
    ((_, letter),) = redis.xrange(keys.DEAD_LETTERS)
    assert letter["reason"] == reason
    assert redis.xlen(STREAM) == 0
    assert redis.xinfo_consumers(STREAM, GROUP) == []


async def test_one_death_less_is_not_enough(engine, plans):
    execution = await engine.start(CHAIN)

    await die_with(engine, plans, DEATHS_MAX - 1)
    await engine.finish(engine.worker("survivor"))

    state = execution.state()
    assert (state.status, state.outputs) == ("COMPLETED", outputs_of(*"abc"))
    assert state.attempts["a"] == f"#{DEATHS_MAX} ended on survivor"


async def test_a_node_that_was_only_near_is_never_given_up(engine, plans):
    """Its worker dies again and again, but never after the node's own start was recorded."""
    execution = await engine.start(CHAIN)
    for _ in range(6):
        await engine.worker("unlucky").take()
        await recover(engine, plans, "unlucky")

    assert execution.state().queued == ["a#7 after 2 deaths"]


async def test_a_given_up_node_leaves_independent_branches_alone(engine, plans):
    execution = await engine.start({"bad": [], "below": ["bad"], "good": [], "next": ["good"]})
    worker = engine.worker("dying")
    for _ in range(DEATHS_MAX):
        bad, *_ = (one for one in await worker.take() if one.node_id == "bad")
        await worker.claim(bad)
        await recover(engine, plans, "dying")

    await engine.finish(engine.worker("survivor"))

    state = execution.state()
    assert state.nodes == {
        "bad": "FAILED",
        "below": "FAILED",
        "good": "COMPLETED",
        "next": "COMPLETED",
    }
    assert (state.status, state.dead_letters) == ("FAILED", ["bad"])


async def test_a_given_up_node_takes_any_number_of_nodes_along(engine, plans):
    width = DEPENDENTS_PER_CALL_MAX + 200
    execution = await engine.start(fan(width))

    await die_with(engine, plans, DEATHS_MAX)

    assert execution.states() == {"FAILED": width + 2}
    state = execution.state()
    assert (state.status, state.continuations, state.counters["remaining"]) == ("FAILED", [], "0")


async def test_who_is_too_late_to_give_a_node_up_harms_nothing(engine, plans, monkeypatch, lines):
    """Between the verdict and its execution somebody else had requeued the node. Its downstream
    was failed all the same, and the counters went wrong when it then completed."""
    execution = await engine.start(DIAMOND)
    await die_with(engine, plans, DEATHS_MAX - 1)
    worker = engine.worker("w1")
    (entry,) = await worker.take()
    await worker.claim(entry)
    end_attempt = engine.store.tasks.end_attempt

    async def end_attempt_late(failure):
        await engine.store.tasks.requeue_entry(entry.name, "w1")
        return await end_attempt(failure)

    with monkeypatch.context() as patch:
        patch.setattr(engine.store.tasks, "end_attempt", end_attempt_late)
        assert await recover(engine, plans) == 0

    state = execution.state()
    assert state.nodes == {"a": "QUEUED", "b": "PENDING", "c": "PENDING", "d": "PENDING"}
    assert state.dead_letters == lines.of("node.poisoned") == []
    await engine.finish(engine.worker("survivor"))
    assert execution.state().status == "COMPLETED"


async def test_a_poisoned_node_that_may_fail_is_a_dead_letter_and_an_allowed_failure(engine, plans):
    execution = await engine.start({"a": {"allow_failure": True}, "b": ["a"]})
    await die_with(engine, plans, DEATHS_MAX - 1)
    await engine.worker("last").claim(*await engine.worker("last").take())
    await recover(engine, plans, "last")

    state = execution.state()
    assert state.nodes == {"a": "FAILED", "b": "QUEUED"}
    assert state.dead_letters == ["a"]
    assert state.counters["allowed:a"] == "1"
    await engine.finish(engine.worker("survivor"))
    assert execution.state().status == "COMPLETED"


@pytest.mark.parametrize(
    "damage",
    [
        lambda redis, key: redis.set(key, "not JSON"),
        lambda redis, key: (redis.delete(key), redis.lpush(key, "a list")),
        lambda redis, key: redis.delete(key),
    ],
    ids=["broken", "no string", "gone"],
)
async def test_a_poisoned_node_without_a_readable_definition_fails_its_execution(
    engine, redis, plans, damage
):
    execution = await engine.start(CHAIN)
    await die_with(engine, plans, DEATHS_MAX - 1)
    damage(redis, execution.key())

    worker = engine.worker("last")
    await worker.claim(*await worker.take())
    await recover(engine, plans, "last")
    await recover(engine, plans, "last")

    assert redis.get(execution.key(":status")) == "FAILED"
    assert redis.hget(execution.key(":run"), "error")
    assert not redis.exists(keys.ACTIVE)
    assert redis.xlen(STREAM) == 0


async def test_a_garbage_entry_a_dead_worker_held_is_buried(engine, redis, plans, lines):
    await engine.store.tasks.queues.ensure_groups()
    redis.xadd(STREAM, {"execution_id": "../../etc", "node_id": "passwd"})
    execution = await engine.start(CHAIN)
    await engine.worker("w1").exchange(read_max=5)

    assert await recover(engine, plans) == 1

    ((_, letter),) = redis.xrange(keys.DEAD_LETTERS)
    assert "execution_id" in letter["reason"]
    assert "../../etc" in letter["raw"]
    assert execution.state().queued == ["a#2 after 1 deaths"]
    assert redis.xlen(STREAM) == 1
    assert redis.xinfo_consumers(STREAM, GROUP) == []
    ((level, said),) = lines.of("entry.buried")
    assert (level, said["reason"]) == ("error", letter["reason"])


def test_the_work_of_a_dead_process_of_this_machine_is_released(engine, redis, runner, settings):
    async def take():
        for name, owner in (
            ("dead", DEAD_OWNER.to_json()),
            ("dead-again", DEAD_OWNER.to_json()),
            ("other-host", Owner("far", "boot", os.getpid(), 1).to_json()),
            ("nonsense", b"nonsense"),
        ):
            await engine.store.tasks.enroll_worker(name, owner)
        execution = await engine.start({f"r{number}": [] for number in range(4)})
        for name in ("dead", "dead-again", "other-host", "nonsense"):
            await engine.worker(name).take(1)
        return execution

    execution = runner.run(take())

    release_dead_worker(settings, os.getpid(), "killed by signal 9")
    release_dead_worker(settings, os.getpid(), "killed by signal 9")

    state = execution.state()
    assert state.held == {"other-host": ["r2#1"], "nonsense": ["r3#1"]}
    assert sorted(state.queued) == ["r0#2 after 1 deaths", "r1#2 after 1 deaths"]
    assert set(redis.hgetall(keys.WORKERS)) == {"other-host", "nonsense"}


def test_a_process_killed_while_draining_blames_no_node(engine, runner, settings):
    async def take():
        await engine.store.tasks.enroll_worker("dead", DEAD_OWNER.to_json())
        return (await engine.start_and_take(CHAIN, engine.worker("dead")))[0]

    execution = runner.run(take())

    release_dead_worker(settings, os.getpid(), "it did not drain in time", is_blamed=False)

    assert execution.state().queued == ["a#2"]


async def test_what_a_gone_process_held_is_left_to_its_supervisor_for_one_tick(
    engine, store, redis
):
    """It alone knows how the process died, and which of its nodes had no part in that."""
    await store.tasks.enroll_worker("gone", DEAD_OWNER.to_json())
    execution, _ = await engine.start_and_take({"a": [], "b": []}, engine.worker("gone"))
    scheduler = Scheduler(store)

    assert await scheduler.tick(0.0)
    assert execution.state().held == {"gone": ["a#1", "b#1"]}
    assert await scheduler.tick(1.0)

    assert execution.state().queued == ["a#2 after 1 deaths", "b#2 after 1 deaths"]
    assert redis.hgetall(keys.WORKERS) == {}


async def test_the_scheduler_requeues_what_a_silent_worker_holds(engine, redis):
    silent, alive = engine.worker("silent"), engine.worker("alive")
    for worker in (silent, alive):
        await engine.store.tasks.enroll_worker(worker.name, b"{}")
    execution = await engine.start({"a": [], "b": [], "c": []})
    await silent.take(1)
    await alive.take(1)
    await engine.worker("stranger").take(1)
    scheduler = Scheduler(engine.store)

    assert await scheduler.tick(0.0)
    await engine.store.tasks.renew_lease("alive")
    assert await scheduler.tick(LEASE_S - 1)
    assert execution.state().queued == []
    assert await scheduler.tick(LEASE_S)

    state = execution.state()
    assert state.held == {"alive": ["b#1"]}
    assert state.queued == ["a#2 after 1 deaths", "c#2 after 1 deaths"]
    assert redis.hgetall(keys.LEASES) == {"alive": "1"}


async def test_the_scheduler_waits_for_a_server_that_refuses_writes(engine, redis):
    worker = engine.worker()
    await engine.store.tasks.enroll_worker("w1", b"{}")
    execution, _ = await engine.start_and_take(CHAIN, worker)
    scheduler = Scheduler(engine.store)
    assert await scheduler.tick(0.0)

    redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        assert not await scheduler.tick(LEASE_S)
    finally:
        redis.execute_command("REPLICAOF", "NO", "ONE")

    # Nobody could renew meanwhile: the time does not count.
    assert await scheduler.tick(LEASE_S + 1)
    assert execution.state().held == {"w1": ["a#1"]}
    assert await scheduler.tick(2 * LEASE_S + 1)
    assert execution.state().queued == ["a#2 after 1 deaths"]


async def test_the_scheduler_makes_the_group_after_flushall(engine, redis):
    scheduler = Scheduler(engine.store)
    assert await scheduler.tick(0.0)
    redis.flushall()

    assert await scheduler.tick(1.0)

    assert [group["name"] for group in redis.xinfo_groups(STREAM)] == [GROUP]


async def test_an_outage_of_redis_is_no_silence_of_a_worker(engine, store, plans):
    """While it lasted nobody could renew a lease."""
    execution, _ = await engine.start_and_take({"a": []}, engine.worker())
    await store.tasks.enroll_worker("w1", b"{}")
    duty = RecoverExpired(store, plans, 0)

    await duty.run(0.0)
    duty.pause()
    await duty.run(LEASE_S + 1)
    assert execution.state().held == {"w1": ["a#1"]}

    await duty.run(2 * LEASE_S + 1)
    assert execution.state().queued == ["a#2 after 1 deaths"]


async def test_only_a_group_that_was_there_is_said_to_have_been_lost(store, redis, plans, lines):
    duty = RecoverExpired(store, plans, 0)
    await duty.run(0.0)
    await duty.run(1.0)
    assert lines.of("group.recreated") == []

    redis.flushall()
    await duty.run(2.0)

    assert lines.of("group.recreated") == [("error", {"queue": "default"})]


@pytest.mark.parametrize("is_blamed", [True, False])
async def test_a_worker_that_held_nothing_is_told_of_where_it_died(engine, plans, lines, is_blamed):
    await engine.store.tasks.queues.ensure_groups()
    await engine.store.tasks.enroll_worker("w1", b"{}")
    cause = "w1 died"

    await recover_worker(engine.store, plans, "w1", cause, is_blamed=is_blamed)

    said = [("warning", {"consumer": "w1", "cause": cause, "nodes": 0})]
    assert lines.of("worker.recovered") == said * is_blamed


async def test_what_is_damaged_of_a_node_that_held_up_its_worker_stops_no_recovery(
    engine, store, plans, redis
):
    worker = engine.worker()
    execution, (a, b) = await engine.start_and_take({"a": [], "b": []}, worker)
    await worker.claim(a, b)
    redis.set(execution.key(), "{")

    facts = {"is_blamed": True, "suspects": [a.name], "hung_s": 1e9}
    await recover_worker(store, plans, "w1", "w1 was hung", **facts)

    assert sorted(execution.state().queued) == ["a#2 after 1 deaths", "b#2"]


async def test_only_the_culprit_is_blamed_where_it_is_known(engine, store, plans):
    worker = engine.worker()
    execution, entries = await engine.start_and_take({"a": [], "b": [], "c": []}, worker)
    await worker.claim(*entries)

    suspects = [entries[1].name]
    await recover_worker(store, plans, "w1", "hung", is_blamed=True, suspects=suspects)

    assert sorted(execution.state().queued) == ["a#2", "b#2 after 1 deaths", "c#2"]


@pytest.mark.parametrize(
    "garble",
    [
        lambda redis: redis.xgroup_createconsumer(STREAM, GROUP, b"no text \xff"),
        lambda redis: redis.zadd(keys.CONTINUATIONS, {b"no text \xff": 1}),
        lambda redis: redis.zadd(keys.CONTINUATIONS, {f"fail {'0' * 24} a": "-inf", "x y": "inf"}),
        lambda redis: redis.zadd(keys.RETRIES, {b"no text \xff": 1, "endless": "inf"}),
        lambda redis: redis.hset(keys.LEASES, b"no text \xff", "no number"),
        lambda redis: redis.hset(keys.WORKERS, b"no text \xff", owner_with(pid=10**18)),
        lambda redis: redis.hset(keys.WORKERS, "w9", owner_with(pid="x")),
    ],
    ids=["consumer", "continuation", "age", "retry", "lease", "owner", "pid"],
)
async def test_nothing_a_hand_has_put_there_ends_the_scheduler(engine, store, redis, garble):
    """Bytes that are no text came from Redis as surrogates, which could not be sent back."""
    worker = engine.worker("dead")
    execution, _ = await engine.start_and_take({"a": []}, worker)
    garble(redis)
    scheduler = Scheduler(store)

    for now_s in (0.0, 1.0, 2 * LEASE_S, 2 * LEASE_S + 1):
        assert await scheduler.tick(now_s)

    assert execution.state().queued == ["a#2 after 1 deaths"]


def owner_with(**fields):
    return orjson.dumps({**orjson.loads(Owner.of_this_process().to_json()), **fields})


async def hold_up(engine, store, plans, hung_s):
    """`a` made its worker stand still, beside an innocent `b`; `c` waits for `a`."""
    worker = engine.worker()
    execution, entries = await engine.start_and_take({"a": [], "b": [], "c": ["a"]}, worker)
    await worker.claim(*entries)
    suspects = [one.name for one in entries if one.node_id == "a"]
    await recover_worker(
        store, plans, "w1", "w1 was hung", is_blamed=True, suspects=suspects, hung_s=hung_s
    )
    return execution.state()


async def test_a_node_that_held_up_its_worker_within_its_time_counts_a_death(engine, store, plans):
    state = await hold_up(engine, store, plans, store.nodes.default_timeout_s - 1)

    assert sorted(state.queued) == ["a#2 after 1 deaths", "b#2"]


async def test_a_node_that_held_up_its_worker_beyond_its_time_has_timed_out(engine, store, plans):
    """The worker's own clock stood still, so it ran three times and killed three workers."""
    state = await hold_up(engine, store, plans, store.nodes.default_timeout_s + 1)

    assert state.queued == ["b#2"]
    assert (state.nodes["a"], state.nodes["c"]) == ("FAILED", "FAILED")
    assert state.outputs["a"]["error"] == (
        "timed out: it took longer than 300 s and let nothing else run; w1 was hung"
    )
    assert state.dead_letters == []


async def test_where_nobody_knows_what_held_a_worker_up_no_node_has_timed_out(engine, store, plans):
    worker = engine.worker()
    execution, entries = await engine.start_and_take({"a": [], "b": []}, worker)
    await worker.claim(*entries)

    hung_s = store.nodes.default_timeout_s + 1
    await recover_worker(store, plans, "w1", "w1 was hung", is_blamed=True, hung_s=hung_s)

    assert sorted(execution.state().queued) == ["a#2 after 1 deaths", "b#2 after 1 deaths"]


async def test_what_timed_out_so_is_tried_again_where_its_retries_say_so(engine, store, plans):
    policy = replace(store.nodes.default_policy, max_attempts=2, delay_s=60)
    store.nodes.default_policy = replace(policy, on=frozenset({"timeout"}))

    state = await hold_up(engine, store, plans, store.nodes.default_timeout_s + 1)

    assert (state.queued, state.waiting) == (["b#2"], ["a"])
    assert state.nodes["a"] == "RETRYING"
