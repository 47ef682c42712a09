"""What a scheduler cannot do is written down for those who look, and not for ever."""

from __future__ import annotations

from flowd.store import troubles
from flowd.store.redis import keys
from flowd.store.troubles import Trouble


async def test_a_report_is_read_by_what_it_is_about_and_expires(store, redis, outcomes):
    await store.health.troubles.report_duty("retention", "an old reason")
    await store.health.troubles.report_duty("retention", "a reason")
    await store.health.troubles.report_continuation("advance 1 A", "no\tsense")

    assert outcomes["report_trouble"] == ["reported"] * 3
    assert await store.health.troubles.duties() == [Trouble("retention", "a reason")]
    (one,) = await store.health.troubles.continuations()
    assert one == Trouble("advance 1 A", "no\tsense")
    assert (one.is_about("1"), one.is_about("A")) == (True, False)
    assert 0 < redis.ttl(keys.TROUBLES) <= troubles.REPORT_EXPIRES_S

    await store.health.troubles.clear_continuation("advance 1 A")
    await store.health.troubles.clear_duty("retention")
    assert redis.exists(keys.TROUBLES) == 0


async def test_of_a_storm_the_first_are_kept(store, outcomes, monkeypatch):
    monkeypatch.setattr(troubles, "REPORTS_MAX", 2)
    for member in ("a", "b", "c", "a"):
        await store.health.troubles.report_continuation(member, "why")
    assert outcomes["report_trouble"] == ["reported", "reported", "full", "reported"]
