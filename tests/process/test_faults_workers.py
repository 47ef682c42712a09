"""Faults of workers and of what they run: rows P1, P2, P6 and P8 to P11 of tests/README.md."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.daemon import is_gone, wait_until
from tests.process.faulty import FaultyFlowd, breed
from tests.process.flowd_process import node

Run = Callable[..., FaultyFlowd]
Figure = Callable[[str], None]


def held(node_id: str, *dependencies: str) -> dict[str, Any]:
    return node(node_id, *dependencies, handler="held")


def test_p01_every_node_of_a_killed_worker_starts_again_within_a_second(
    run_faulty: Run, figure: Figure
) -> None:
    # Its scheduler looks for what is gone too, once in ten minutes here: the supervisor tells.
    flowd = run_faulty("start", FLOWD_SCHEDULER__INTERVAL_S="600")
    flowd.wait_until_running()
    execution_ids = [flowd.submit_and_trigger(held("A"), node("B", "A")) for _ in range(20)]
    before = flowd.wait_for_calls(20)
    victim = before[0]["pid"]
    lost = {call["execution"] for call in before if call["pid"] == victim}

    killed_at = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    again = flowd.wait_for_calls(20 + len(lost))[20:]

    took_s = max(call["at"] for call in again) - killed_at
    figure(f"{len(again)} nodes start again, the last after {1000 * took_s:.0f} ms")
    # Those and no others, as the next attempt of each.
    assert {call["execution"] for call in again} == lost
    assert {call["attempt"] for call in again} == {2}
    flowd.open()
    assert [flowd.wait_for_execution(one) for one in execution_ids] == ["COMPLETED"] * 20
    assert len(flowd.calls()) == 20 + len(lost)
    flowd.check_and_stop()


def lines_of(flowd: FaultyFlowd, execution_id: str, attempt: int) -> list[tuple[int, float]]:
    """What a node of `talk` has said in an attempt: number and time of each line."""
    with flowd.redis as redis:
        entries = redis.xrange(f"workflow:{execution_id}:log:A:{attempt}")
    texts = [line for _, fields in entries for line in fields["lines"].splitlines()]
    return [(int(text.split()[2]), float(text.split()[3])) for text in texts]


def test_p01_a_killed_worker_takes_the_last_lines_of_its_nodes_along_and_no_more(
    run_faulty: Run, figure: Figure
) -> None:
    flowd = run_faulty("start", FLOWD_LOGS__NODE_MAX_KB="1024")
    flowd.wait_until_running()
    execution_id = flowd.submit_and_trigger(node("A", handler="talk"))
    (first,) = flowd.wait_for_calls(1)
    wait_until(lambda: len(lines_of(flowd, execution_id, 1)) > 50, "lines of the first attempt")
    seen = len(lines_of(flowd, execution_id, 1))

    killed_at = time.monotonic()
    os.kill(first["pid"], signal.SIGKILL)
    flowd.wait_for_calls(2)
    wait_until(lambda: len(lines_of(flowd, execution_id, 2)) > 5, "lines of the second attempt")
    flowd.open()
    assert flowd.wait_for_execution(execution_id) == "COMPLETED"

    lines = lines_of(flowd, execution_id, 1)
    # However long the last were under way on a busy machine: what could be read is there.
    assert len(lines) >= seen
    assert [number for number, _ in lines] == list(range(len(lines)))
    said = flowd.results(execution_id)["A"]["said"]
    again = lines_of(flowd, execution_id, 2)
    assert [number for number, _ in again] == list(range(said))
    figure(f"the last {1000 * (killed_at - lines[-1][1]):.0f} ms of its lines are lost")
    flowd.check_and_stop()


def test_p06_a_stopped_worker_is_killed_and_its_work_done_again(
    run_faulty: Run, figure: Figure
) -> None:
    flowd = run_faulty("start", FLOWD_SUPERVISOR__HUNG_AFTER_S="3")
    flowd.wait_until_running()
    execution_id = flowd.submit_and_trigger(held("A"))
    (first,) = flowd.wait_for_calls(1)
    victim = flowd.worker_of(first)

    stopped_at = time.monotonic()
    os.kill(first["pid"], signal.SIGSTOP)
    second = flowd.wait_for_calls(2)[1]
    figure(f"runs again {second['at'] - stopped_at:.2f} s after the stop; it may hang for 3 s")

    assert second["attempt"] == 2
    assert is_gone(first["pid"])
    assert flowd.post(victim)["last_exit"].startswith("was hung for ")
    assert [line["child"] for line in flowd.events("child.hung")] == [victim]
    flowd.open()
    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    assert flowd.results(execution_id) == {"A": {"attempt": 2}}
    flowd.check_and_stop()


def test_p06_what_a_worker_commits_after_its_lease_was_given_away_is_refused(
    run_faulty: Run,
) -> None:
    lease = {"FLOWD_TEST_LEASE_S": "4"}
    flowd = run_faulty("start", "--workers", "0", **lease)
    flowd.wait_until_running()
    # One nobody watches, as on another machine.
    alone = run_faulty("worker", "--name", "alone", **lease)
    execution_id = flowd.submit_and_trigger(held("A"))
    flowd.wait_for_calls(1)

    alone.signal(signal.SIGSTOP)
    other = run_faulty("worker", "--name", "other", **lease)
    flowd.wait_for_calls(2)
    flowd.open()
    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    alone.signal(signal.SIGCONT)

    wait_until(lambda: refused(flowd) or flowd.events("lease.lost"), "the late one to hear of it")
    assert flowd.results(execution_id) == {"A": {"attempt": 2}}
    # It goes on as a stranger.
    another = flowd.submit_and_trigger(held("A"))
    assert flowd.wait_for_execution(another) == "COMPLETED"
    for worker in (alone, other):
        worker.signal(signal.SIGTERM)
        assert worker.wait_for_end() == 0
    flowd.check_and_stop()


def refused(flowd: FaultyFlowd) -> list[dict[str, Any]]:
    return [line for line in flowd.events("node.commit_rejected") if line["outcome"] == "stale"]


@pytest.mark.parametrize(
    ("way", "exit_text"),
    [
        ("os._exit", "ended with the exit code 0"),
        ("segfault", "was killed by SIGSEGV"),
        ("kill", "was killed by SIGKILL"),
    ],
)
def test_p08_a_handler_that_ends_its_worker_is_named_with_the_cause(
    run_faulty: Run, figure: Figure, way: str, exit_text: str
) -> None:
    flowd = run_faulty("start")
    flowd.wait_until_running()

    execution_id = flowd.submit_and_trigger(node("A", handler="die", way=way, attempts=9))

    assert flowd.wait_for_execution(execution_id) == "FAILED"
    calls = flowd.calls()
    assert [call["attempt"] for call in calls] == [1, 2, 3]
    assert len({call["pid"] for call in calls}) == 3
    pauses = [next_["at"] - call["at"] for call, next_ in itertools.pairwise(calls)]
    figure(f"3 starts in 3 processes, each {1000 * max(pauses):.0f} ms behind the last at most")
    error = flowd.results(execution_id)["A"]["error"]
    assert error == (
        "given up: 2 workers died while they ran this node, "
        f"and then the process of the handler {exit_text}"
    )
    flowd.check_and_stop()


def test_p08_a_handler_that_exits_or_runs_out_of_memory_fails_alone(run_faulty: Run) -> None:
    flowd = run_faulty("start", "--workers", "1")
    before = flowd.wait_until_running()["processes"]
    execution_id = flowd.submit_and_trigger(
        node("exits", handler="exit"), node("devours", handler="devour"), node("good")
    )

    assert flowd.wait_for_execution(execution_id) == "FAILED"
    results = flowd.results(execution_id)
    assert results["exits"] == {"error": "the handler called sys.exit(3)"}
    assert results["devours"] == {"error": "MemoryError"}
    assert results["good"] == {"status": "ok"}
    after = flowd.wait_until_running()["processes"]
    assert [one["pid"] for one in after] == [one["pid"] for one in before]
    flowd.check_and_stop()


def test_p09_a_node_that_kills_its_workers_takes_no_other_along(
    run_faulty: Run, figure: Figure
) -> None:
    """The innocent ran one after the other, and nothing else was taken before their end."""
    flowd = run_faulty("start", "--workers", "1")
    flowd.wait_until_running()
    good = [node(f"good{number}", handler="held") for number in range(7)]

    execution_id = flowd.submit_and_trigger(
        node("poison", handler="die", way="segfault", attempts=99), *good
    )
    begun = flowd.wait_for_calls(3 * 8)
    # All are there at once for the third time, each in a process, and others go past them.
    assert len({call["pid"] for call in begun[-8:]}) == 8
    another = flowd.submit_and_trigger(node("A"))
    assert flowd.wait_for_execution(another) == "COMPLETED"
    flowd.open()

    assert flowd.wait_for_execution(execution_id) == "FAILED"
    assert flowd.node_states(execution_id) == {
        "poison": "FAILED",
        **{each["id"]: "COMPLETED" for each in good},
    }
    assert len(flowd.calls("poison")) == 3
    assert flowd.post("worker-1")["restarts"] == 2
    figure("3 deaths, the last of a process of its own; the 7 good ones COMPLETED")
    (letter,) = flowd.redis.xrange("flowd:dead_letters")
    assert "poison" in json.dumps(letter)
    flowd.check_and_stop()


@pytest.mark.parametrize("handler", ["block_loop", "hold_gil"])
def test_p10_a_node_past_its_time_out_fails_by_it_also_where_nothing_else_can_run(
    run_faulty: Run, handler: str
) -> None:
    """Its worker cannot see that the time is over; its neighbours ran again, each with a death."""
    flowd = run_faulty("start", "--workers", "1", FLOWD_SUPERVISOR__HUNG_AFTER_S="3")
    flowd.wait_until_running()
    bad = {**node("bad", handler=handler, attempts=9, company=4), "timeout_s": 2}
    good = [node(f"good{number}", handler="held") for number in range(4)]
    execution_id = flowd.submit_and_trigger(bad, *good)

    again = flowd.wait_for_calls(9)[5:]
    with flowd.redis as redis:
        entries = [entry for _, entry in redis.xrange("workflow:tasks")]

    assert {(call["node"], call["attempt"]) for call in again} == {(one["id"], 2) for one in good}
    # Nobody died of them.
    assert [entry.get("deaths", "0") for entry in entries] == ["0"] * 4
    flowd.open()
    assert flowd.wait_for_execution(execution_id) == "FAILED"
    error = flowd.results(execution_id)["bad"]["error"]
    assert error.startswith("timed out: it took longer than 2 s and let nothing else run; worker")
    assert len(flowd.calls("bad")) == 1
    assert len(flowd.events("child.hung")) == 1
    flowd.check_and_stop()


@pytest.mark.parametrize("handler", ["block_loop", "hold_gil"])
def test_p10_a_handler_that_blocks_its_worker_is_ended_and_the_others_are_innocent(
    run_faulty: Run, handler: str
) -> None:
    flowd = run_faulty("start", "--workers", "1", FLOWD_SUPERVISOR__HUNG_AFTER_S="3")
    flowd.wait_until_running()
    good = [node(f"good{number}", handler="sleep", seconds=0.3) for number in range(4)]

    bad = {**node("bad", handler=handler, attempts=9), "timeout_s": 8}
    execution_id = flowd.submit_and_trigger(bad, *good)

    assert flowd.wait_for_execution(execution_id) == "FAILED"
    assert flowd.node_states(execution_id) == {
        "bad": "FAILED",
        **{each["id"]: "COMPLETED" for each in good},
    }
    assert len(flowd.calls("bad")) == 3
    # The third time it hangs in a process of its own, where that is nobody's trouble but its own.
    error = flowd.results(execution_id)["bad"]["error"]
    assert error == "timed out: it took longer than 8 s"
    # Where it hangs is on record, each time that others had to wait.
    assert flowd.stderr.count(f"in {handler}") == 2
    assert len(flowd.events("child.hung")) == 2
    flowd.check_and_stop()


@pytest.mark.parametrize("handler", ["block_thread", "ignore_cancel"])
def test_p10_a_thread_past_its_time_out_costs_its_worker_and_nobody_else(
    run_faulty: Run, handler: str, figure: Figure
) -> None:
    flowd = run_faulty("start", "--workers", "1", FLOWD_SHUTDOWN__GRACE_S="2")
    flowd.wait_until_running()
    first = flowd.post("worker-1")["pid"]
    stuck = {**node("stuck", handler=handler), "timeout_s": 2.0}
    good = [node(f"good{number}", handler="sleep", seconds=0.5) for number in range(4)]

    execution_id = flowd.submit_and_trigger(stuck, *good)

    assert flowd.wait_for_execution(execution_id) == "FAILED"
    assert flowd.node_states(execution_id) == {
        "stuck": "FAILED",
        **{each["id"]: "COMPLETED" for each in good},
    }
    error = flowd.results(execution_id)["stuck"]["error"]
    assert error == "timed out: it took longer than 2 s"
    flowd.wait_for_status(
        lambda status: first not in [each["pid"] for each in status["processes"]],
        "another worker in the place of the first",
    )
    assert [call["attempt"] for call in flowd.calls()] == [1] * 5
    figure(f"{flowd.post('worker-1')['restarts']} deaths, {len(flowd.calls())} starts of 5 nodes")
    flowd.check_and_stop()


def test_p10_a_handler_that_ignores_term_is_killed_when_its_time_is_over(run_faulty: Run) -> None:
    flowd = run_faulty("start", FLOWD_SHUTDOWN__GRACE_S="1")
    flowd.wait_until_running()
    execution_id = flowd.submit_and_trigger(node("A", handler="ignore_term"))
    flowd.wait_for_calls(1)

    flowd.signal(signal.SIGTERM)

    assert flowd.wait_for_end() == 0
    assert flowd.survivors() == []
    assert len(flowd.events("child.killed")) == 1
    # Its node was given back, and nobody is to blame.
    flowd = run_faulty("start")
    flowd.wait_until_running()
    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    assert [call["attempt"] for call in flowd.calls()] == [1, 2]
    flowd.check_and_stop()


def test_p11_what_a_handler_started_does_not_outlive_its_worker(
    run_faulty: Run, figure: Figure
) -> None:
    flowd = run_faulty("start")
    flowd.wait_until_running()
    execution_id, worker, grandchildren = breed(flowd)

    os.kill(worker, signal.SIGKILL)

    killed_at = time.monotonic()
    # The second lives in a session of its own.
    wait_until(lambda: all(is_gone(pid) for pid in grandchildren), "both to be gone")
    figure(f"both gone {1000 * (time.monotonic() - killed_at):.0f} ms after their worker")
    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    flowd.check_and_stop()
