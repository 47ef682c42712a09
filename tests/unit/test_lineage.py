"""A restart, an emptied server and a failover are told apart by what servers say of themselves."""

from __future__ import annotations

import pytest

from flowd.store.redis import lineage
from flowd.store.redis.lineage import Lineage


@pytest.fixture
def clock(monkeypatch):
    """Monotonic seconds, to be set: `clock.now_s = 7`."""

    class Clock:
        now_s = 1_000.0

        def monotonic(self):
            return self.now_s

    clock = Clock()
    monkeypatch.setattr(lineage, "time", clock)
    return clock


def said(run_id, replid, up_s):
    return {"run_id": run_id, "master_replid": replid, "uptime_in_seconds": str(up_s)}


@pytest.fixture
def known(clock):
    """A server that runs for a minute, and was heard of ten seconds later."""
    known = Lineage()
    assert not known.note_server(said("a", "x", 60))
    clock.now_s += 10
    known.note_heard()
    return known


def test_the_same_server_is_none_other(known, clock):
    clock.now_s += 5
    assert not known.note_server(said("a", "x", 75))
    assert known.failovers == 0


def test_one_that_began_since_the_last_was_heard_of_is_that_started_again(known, clock):
    clock.now_s += 5
    assert not known.note_server(said("b", "y", 3))
    assert known.failovers == 0


def test_one_that_ran_beside_the_last_was_its_replica(known, clock):
    clock.now_s += 5
    assert known.note_server(said("b", "y", 30))
    assert known.failovers == 1


def test_one_that_began_after_the_first_was_met_may_have_been_its_replica(known, clock):
    clock.now_s += 5
    assert known.note_server(said("b", "y", 10))


def test_where_a_second_decides_a_replica_names_the_past_it_has_taken_over(known, clock):
    """Both are small in the first second of their lives."""
    clock.now_s += 0.4

    assert not known.note_server(said("b", "y", 0))
    assert known.note_server(said("c", "z", 0) | {"master_replid2": "y"})


def test_one_that_counts_a_second_since_it_began_may_have_begun_just_now(known, clock):
    """A server counts by whole seconds of its clock: at 11.1 it has run for 1 since 10.9."""
    clock.now_s += 0.4

    assert not known.note_server(said("b", "y", 1))
    assert known.failovers == 0


def test_one_that_was_a_replica_in_between_may_lack_what_it_had(known):
    assert known.note_server(said("a", "y", 70))


def test_whose_user_may_not_ask_is_told_of_nothing(known):
    assert not known.note_server({})
    assert not known.note_server({"role": "master"})
    assert known.note_server(said("b", "y", 100))
