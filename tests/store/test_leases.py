"""When a worker counts as dead: its heartbeat has stood still, by the clock of who looks."""

from __future__ import annotations

import pytest

from flowd.orchestrator.leases import LEASE_S, LET_GO_AFTER_S, RENEW_EVERY_S, LeaseWatch


def test_a_heartbeat_that_stands_still_expires_after_the_lease():
    watch = LeaseWatch()

    assert watch.expired({"w1": 5}, 100.0) == []
    assert watch.expired({"w1": 5}, 100.0 + LEASE_S - 0.1) == []
    assert watch.expired({"w1": 5}, 100.0 + LEASE_S) == ["w1"]
    assert watch.expired({"w1": 5}, 100.0 + 2 * LEASE_S) == ["w1"]


def test_any_other_number_is_a_sign_of_life():
    watch = LeaseWatch()
    watch.expired({"w1": 5}, 0.0)

    # A server restored from a backup may even count back.
    assert watch.expired({"w1": 4}, LEASE_S) == []
    assert watch.expired({"w1": 4}, 2 * LEASE_S - 0.1) == []
    assert watch.expired({"w1": 4}, 2 * LEASE_S) == ["w1"]


def test_each_worker_is_judged_alone():
    watch = LeaseWatch()
    watch.expired({"w1": 1, "w2": 1}, 0.0)
    watch.expired({"w1": 1, "w2": 2, "w3": 0}, 20.0)

    assert watch.expired({"w1": 1, "w2": 2, "w3": 0}, LEASE_S) == ["w1"]
    assert watch.expired({"w2": 2, "w3": 0}, 20.0 + LEASE_S) == ["w2", "w3"]


def test_a_consumer_without_a_lease_expires_like_any_other():
    watch = LeaseWatch()
    watch.expired({"stranger": None}, 0.0)

    assert watch.expired({"stranger": None}, LEASE_S) == ["stranger"]
    assert watch.expired({"stranger": 0}, LEASE_S + 1) == []


def test_a_worker_that_comes_back_begins_with_a_whole_lease():
    watch = LeaseWatch()
    watch.expired({"w1": 1}, 0.0)
    watch.expired({}, 10.0)

    assert watch.expired({"w1": 1}, LEASE_S) == []
    assert watch.expired({"w1": 1}, 2 * LEASE_S) == ["w1"]


def test_nobody_is_to_blame_for_the_time_redis_was_away():
    watch = LeaseWatch()
    watch.expired({"w1": 1}, 0.0)
    watch.pause()

    assert watch.expired({"w1": 1}, 10 * LEASE_S) == []
    assert watch.expired({"w1": 1}, 11 * LEASE_S) == ["w1"]


@pytest.mark.parametrize("renewals_lost", [0, 1, 2])
def test_a_worker_lets_go_before_anybody_may_take_its_work(renewals_lost):
    assert RENEW_EVERY_S * (renewals_lost + 1) < LET_GO_AFTER_S < LEASE_S
