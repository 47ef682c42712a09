"""A thousand nodes that fail and come again, while workers and the scheduler are killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tests.daemon import wait_until
from tests.process.faulty import FaultyFlowd
from tests.process.flowd_process import node

NODES = 1_000
ATTEMPTS = 3
SLOTS = 64
ENDS = ("node.retrying", "node.failed")


def test_no_attempt_is_lost_or_counted_twice(run_faulty: Callable[..., FaultyFlowd]) -> None:
    flowd = run_faulty("start")
    flowd.wait_until_running()
    retry = {"max_attempts": ATTEMPTS, "delay_s": 0.5, "backoff": 1}
    nodes = [{**node(f"n{number}", handler="refuse"), "retry": retry} for number in range(NODES)]

    execution_id = flowd.submit_and_trigger(*nodes)
    for round_, name in enumerate(["worker-1", "scheduler", "worker-2", "scheduler", "worker-1"]):
        wait_until(lambda round_=round_: len(flowd.calls()) > 500 * round_, "the next kill")
        pid = flowd.kill(name)
        flowd.wait_for_post(
            name,
            lambda post, pid=pid: post["pid"] not in (None, pid) and post["state"] == "RUNNING",
        )

    assert flowd.wait_for_execution(execution_id) == "FAILED"
    results = flowd.results(execution_id)
    assert {one["error"] for one in results.values()} == {
        f"attempt {ATTEMPTS} of {ATTEMPTS}: refused"
    }
    # A reply that gives fields with the same name as a dict would lose some.
    read_all = "return redis.call('XRANGE', KEYS[1], '-', '+')"
    with flowd.redis as redis:
        entries = redis.eval(read_all, 1, "flowd:events")
    happened = [pair for _, flat in entries for pair in zip(flat[::2], flat[1::2], strict=True)]
    ends = Counter((text.split(" ")[1], kind) for kind, text in happened if kind in ENDS)
    assert ends == Counter(
        {
            (f"n{number}", kind): count
            for number in range(NODES)
            for kind, count in (("node.retrying", ATTEMPTS - 1), ("node.failed", 1))
        }
    )
    starts = Counter((call["node"], call["attempt"]) for call in flowd.calls())
    assert max(starts.values()) == 1, "an attempt started twice"
    # A death costs what ran in its worker at that moment, and no more.
    assert NODES * ATTEMPTS <= len(flowd.calls()) <= NODES * ATTEMPTS + 3 * SLOTS
    flowd.check_and_stop()
