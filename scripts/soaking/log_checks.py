"""What has to hold of logs and attempts: each log is listed, and ends with its node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowd.store.attempt_records import parse_record
from flowd.store.logs import ATTEMPTS_KEPT
from flowd.store.redis import keys
from flowd.workflow.ids import WORKFLOW
from flowd.workflow.states import NodeState


def last_line(attempt: int) -> str:
    """What an attempt says before it returns, where its output has `said`."""
    return f"attempt {attempt} is done"


def check_logs(
    redis: Any, executions: Mapping[str, Any], *, may_lack_lines: bool = False
) -> Iterator[str]:
    """`may_lack_lines` where Redis was full meanwhile."""
    live = {one.id: one for one in executions.values() if one.status}
    kept = set()
    for key in redis.scan_iter(match="workflow:*:log:*", count=1_000):
        _, execution_id, _, node_id, attempt = key.split(":")
        if execution_id in live:
            kept.add((execution_id, f"{node_id} {attempt}"))
    listed = {
        (one, member)
        for one in live
        if redis.type(keys.logs(one)) == "zset"
        for member in redis.zrange(keys.logs(one), 0, -1)
    }
    for execution_id, name in sorted(kept - listed):
        yield f"{execution_id}: the log of {name} is listed nowhere"
    for execution_id, name in sorted(listed - kept):
        yield f"{execution_id}: the log of {name} is listed and gone"
    for execution in live.values():
        yield from _check_history(redis, execution)
        if not may_lack_lines:
            yield from _check_ends(redis, execution)


def _check_history(redis: Any, execution: Any) -> Iterator[str]:
    key = keys.history(execution.id)
    fields = redis.hkeys(key) if redis.type(key) == "hash" else ()
    numbers: dict[str, list[int]] = {}
    for name in fields:
        node_id, _, attempt = name.rpartition(" ")
        numbers.setdefault(node_id, []).append(int(attempt))
    for node_id, some in numbers.items():
        named = f"{execution.id} {node_id}"
        if len(some) > ATTEMPTS_KEPT:
            yield f"{named}: {len(some)} attempts before its newest are kept"
        record = parse_record(execution.attempts.get(node_id))
        is_done = execution.with_items.get(node_id) == NodeState.COMPLETED
        if is_done and record and record.attempt and max(some) >= record.attempt:
            yield f"{named}: attempt {max(some)} is kept as earlier than {record.attempt}"


def _check_ends(redis: Any, execution: Any) -> Iterator[str]:
    """What a node has said last is stored with its end, or not at all."""
    for node_id, state in execution.nodes.items():
        output = execution.outputs.get(node_id) or ""
        has_said = '"said":true' in output and not _hands_on(execution.written[node_id])
        if state != NodeState.COMPLETED or execution.is_rerun or not has_said:
            continue
        record = parse_record(execution.attempts.get(node_id))
        attempt = record.attempt if record and record.attempt else 1
        lines = [
            line
            for _, fields in redis.xrange(keys.log(execution.id, node_id, attempt))
            for line in fields.get("lines", "").split("\n")
        ]
        if not lines or not lines[-1].endswith(last_line(attempt)):
            yield f"{execution.id} {node_id}: it is COMPLETED, and its log lacks its last line"


def _hands_on(written: Mapping[str, Any]) -> bool:
    """Whether its output is that of others: of its items, or its child."""
    return "map" in written or written["handler"] == WORKFLOW
