"""Reading several queues: in order, never more than there is room for, and none of them starves."""

from __future__ import annotations

from flowd.store.redis import keys
from tests.store.engine import CHAIN, GROUP, STREAM

GPU, LOW = (keys.task_stream(STREAM, queue) for queue in ("gpu", "low"))


async def filling(engine, redis):
    """What puts entries of nodes into queues that exist."""
    await engine.store.tasks.queues.ensure_groups(("gpu", "low"))
    execution = await engine.submit(CHAIN)

    def put(count: int, *streams: str) -> None:
        fields = {"execution_id": execution.id, "node_id": "a", "attempt": "1", "plan": ""}
        for stream in streams:
            for _ in range(count):
                redis.xadd(stream, fields)

    return put


def queues_of(entries) -> list[str]:
    return [entry.queue for entry in entries]


async def test_the_first_queue_is_read_first_and_the_others_share_what_is_left(engine, redis):
    fill = await filling(engine, redis)
    fill(2, STREAM, GPU, LOW)
    worker = engine.worker(queues=("gpu", "default", "low"))

    assert queues_of(await worker.take(5)) == ["gpu", "gpu", "default", "default", "low"]
    assert queues_of(await worker.take(5)) == ["low"]
    assert await worker.take(5) == []


async def test_one_read_in_eight_begins_with_the_others_and_so_all_of_them_move(engine, redis):
    """Endless work in the first queue, and in the second: the last one moves at its share, too."""
    fill = await filling(engine, redis)
    fill(40, STREAM, GPU, LOW)
    worker = engine.worker(queues=("gpu", "default", "low"))

    read = [queues_of(await worker.take(1))[0] for _ in range(32)]

    assert read == 2 * [*7 * ["gpu"], "default", *7 * ["gpu"], "low"]


async def test_a_worker_of_other_queues_never_takes_it_by_no_short_cut(engine, redis):
    fill = await filling(engine, redis)
    fill(3, GPU)
    worker = engine.worker(queues=("default", "low"))

    assert [await worker.take(10) for _ in range(20)] == 20 * [[]]
    assert await worker.session.own_entries() == []


async def test_an_entry_that_comes_to_any_queue_rings_the_doorbell(engine, redis):
    fill = await filling(engine, redis)
    worker = engine.worker(queues=("gpu", "default", "low"))
    for stream, queue in ((LOW, "low"), (STREAM, "default"), (GPU, "gpu")):
        fill(1, stream)
        assert queues_of(await worker.session.wait_for_entry()) == [queue]


async def test_what_was_taken_is_kept_where_another_queue_has_lost_its_group(engine, redis):
    fill = await filling(engine, redis)
    fill(1, GPU)
    redis.xgroup_destroy(STREAM, GROUP)
    worker = engine.worker(queues=("gpu", "default"))

    exchange = await worker.exchange(read_max=5)

    assert queues_of(exchange.entries) == ["gpu"]
    assert exchange.is_group_missing


async def test_what_a_consumer_holds_is_found_in_every_queue(engine, redis):
    fill = await filling(engine, redis)
    fill(130, GPU, LOW)
    worker = engine.worker(queues=("gpu", "low"))
    taken = await worker.take(260)

    assert await worker.session.own_entries() == taken


def script_calls(redis) -> int:
    return redis.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)


async def test_where_there_is_room_for_all_of_them_each_queue_is_asked_by_one_command(
    engine, redis
):
    """A hop is not to cost more because a worker reads several queues."""
    fill = await filling(engine, redis)
    fill(3, STREAM, GPU, LOW)
    worker = engine.worker(queues=("gpu", "default", "low"))
    before = script_calls(redis)

    taken = [
        queues_of((await worker.session.complete_and_claim([], [], [], *asked)).entries)
        for asked in ((1, 64), (2, 6), (2, 5))
    ]

    assert taken[0] == ["gpu", "default", "low"]
    assert taken[1] == 2 * ["gpu"] + 2 * ["default"] + 2 * ["low"]
    # There was no room for two of each: the order counts.
    assert (taken[2], script_calls(redis) - before) == ([], 1)


async def test_as_long_as_the_first_queue_gives_enough_it_alone_is_asked(engine, redis):
    fill = await filling(engine, redis)
    fill(34, GPU)
    fill(9, LOW)
    worker = engine.worker(queues=("gpu", "default", "low"))
    before = script_calls(redis)

    read = [queues_of(await worker.take(5)) for _ in range(9)]

    assert read[:6] == 6 * [5 * ["gpu"]]
    # It had four, and nobody had looked at the others: they are asked by the next.
    assert read[6:] == [4 * ["gpu"], 5 * ["low"], 4 * ["low"]]
    # The first, the eighth, which is the turn of the others, and the one behind it.
    assert script_calls(redis) - before == 3
