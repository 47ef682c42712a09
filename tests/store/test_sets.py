"""Sets: what was applied together, each member in the set it was last put into."""

from __future__ import annotations

import pytest

from flowd.orchestrator.schedules import put_schedule
from flowd.store.limits import Limit
from flowd.store.redis import keys
from flowd.store.sets import Member, parse_member
from flowd.workflow.schedule import ScheduleDefinition
from tests.store.schedules import save
from tests.store.test_put_definition import put

A, B = Member("definition", "a"), Member("definition", "b")


async def test_a_member_belongs_to_the_set_it_was_last_put_into(store, redis):
    sets = store.saved.sets
    assert await sets.members("one") == []

    await sets.put("one", [B, A])
    await sets.put("two", [B])

    assert await sets.members("one") == [A]
    assert await sets.members("two") == [B]
    await sets.put("one", [])
    await sets.put("one", [])
    assert redis.hgetall("flowd:sets") == {"definition b": "two"}


async def test_what_is_deleted_belongs_to_no_set(store, redis):
    """Somebody who makes another one of its name by hand would lose that to a prune."""
    await put(store, b"x", "a")
    await save(store, name="report")
    schedule = ScheduleDefinition(workflow="report", every_s=60)
    await put_schedule(store, "s", schedule)
    await store.tasks.limits.put(Limit("l", max=1))
    await store.saved.sets.put("one", [A, B, Member("schedule", "s"), Member("limit", "l")])

    await store.saved.delete("a")
    await store.schedules.delete("s")
    await store.tasks.limits.delete("l")

    assert redis.hgetall(keys.SETS) == {"definition b": "one"}


@pytest.mark.parametrize("text", ["", "a", "definition", "definition ", "workflow a", "limit a b"])
def test_what_names_no_member_is_none(text):
    assert parse_member(text) is None


async def test_what_a_hand_has_written_is_in_no_set(store, redis):
    redis.hset(keys.SETS, mapping={"workflow a": "one", str(A): "one"})
    assert await store.saved.sets.members("one") == [A]
