"""A schedule whose execution cannot be made is put off, and says why."""

from __future__ import annotations

from flowd.store.redis import keys
from tests.store.schedules import NAME, schedule


async def test_it_is_looked_at_again_after_the_pause(store, redis, outcomes):
    nightly = await schedule(store, redis)
    row = await nightly.row()

    for _ in range(2):
        await store.schedules.postpone(NAME, row.revision, 5_000, "it is gone")

    assert outcomes["postpone_schedule"] == ["postponed", "postponed"]
    row = await nightly.row()
    assert (row.error, row.failures) == ("it is gone", 2)
    assert row.now_ms < nightly.look_ms() <= row.now_ms + 5_000
    await nightly.attend(nightly.first_ms)
    row = await nightly.row()
    assert (row.error, row.failures) == (None, 0)


async def test_one_that_was_changed_or_deleted_is_not_put_off(store, redis, outcomes):
    nightly = await schedule(store, redis)

    await store.schedules.postpone(NAME, "1", 5_000, "it is gone")
    await store.schedules.postpone("other", "1", 5_000, "it is gone")

    assert outcomes["postpone_schedule"] == ["changed", "changed"]
    assert (nightly.look_ms(), nightly.field("error")) == (nightly.first_ms, None)
    assert redis.zscore(keys.SCHEDULES_DUE, "other") is None
