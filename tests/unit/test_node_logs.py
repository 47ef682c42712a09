"""What nodes say is late only while it waits to be stored.

Workers asked again and again, without a pause, for what was late by then and stored all the same:
those with a free slot read Redis without end, and those without one sent nothing, never came back
to their event loop and were killed as hung.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import flowd
from flowd.workers.node_logs import FLUSH_S, NodeLogs
from tests.daemon import PATIENCE_S


async def until_late(logs):
    is_late = asyncio.Event()
    logs.on_due = is_late.set
    async with asyncio.timeout(PATIENCE_S):
        await is_late.wait()


@pytest.mark.parametrize("has_ended", [False, True])
async def test_what_becomes_late_on_its_way_to_the_store_is_not_late_once_it_is_there(has_ended):
    logs = NodeLogs(1024)
    node_log = logs.open("execution", "A", 1)
    node_log.write("stdout", "hello")
    # Something else is sent before its time is over, and takes it along.
    pieces = logs.take()
    await until_late(logs)
    assert logs.is_due
    if has_ended:
        logs.close(node_log)

    logs.settle(pieces, ["stored"])

    assert not logs.is_pending
    assert not logs.is_due


async def test_what_is_said_while_a_line_is_on_its_way_becomes_late_in_its_turn():
    logs = NodeLogs(1024)
    node_log = logs.open("execution", "A", 1)
    node_log.write("stdout", "hello")
    pieces = logs.take()
    node_log.write("stdout", "and again")
    logs.settle(pieces, ["stored"])

    await until_late(logs)

    assert logs.is_due
    logs.settle(logs.take(), ["stored"])
    assert not logs.is_due


def test_no_more_is_late_than_the_manual_says_a_killed_worker_loses():
    page = (Path(flowd.__file__).parent / "docs" / "logs.md").read_text()
    assert f"loses less than the last {2_000 * FLUSH_S:.0f} ms" in page


def test_lines_redis_does_not_take_for_now_are_sent_again_and_others_told_to_be_lost(
    lines,
):
    async def scenario():
        logs = NodeLogs(1024)
        node_log = logs.open("execution", "A", 1)
        node_log.write("stdout", "hello")
        pieces = logs.take()
        logs.settle(pieces, ["kept"])
        assert (logs.is_pending, lines) == (True, [])

        again = logs.take()
        assert [one.entries for one in again] == [one.entries for one in pieces]
        logs.settle(again, ["redis refused a command"])
        assert not logs.is_pending

    asyncio.run(scenario())
    about = {"execution_id": "execution", "node_id": "A", "attempt": 1}
    reason = "redis refused a command"
    assert lines.of("node.log_dropped") == [("warning", {**about, "lines": 1, "reason": reason})]
