"""Sets: what was applied together, each member in the set it was last put into."""

from __future__ import annotations


async def test_a_member_belongs_to_the_set_it_was_last_put_into(store, redis):
    sets = store.saved.sets
    assert await sets.members("one") == []

    await sets.put("one", ["definition b", "definition a"])
    await sets.put("two", ["definition b"])

    assert await sets.members("one") == ["definition a"]
    assert await sets.members("two") == ["definition b"]
    await sets.put("one", [])
    await sets.put("one", [])
    assert redis.hgetall("flowd:sets") == {"definition b": "two"}
