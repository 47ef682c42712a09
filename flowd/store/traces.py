"""What a trace is made of: executions that have ended, one after the other, with their nodes.

The list of those that have ended is the queue, and a position in it all that is kept: nothing is
added to what ends an execution, and a scheduler that dies takes nothing along.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from flowd.store.attempt_records import AttemptRecord, parse_record
from flowd.store.executions import slices
from flowd.store.kin import Kin, parse_kin
from flowd.store.logs import ATTEMPTS_KEPT
from flowd.store.nodes import Nodes
from flowd.store.origins import Origin, read_origin
from flowd.store.redis import keys
from flowd.store.redis.client import RedisClient, is_wrong_type
from flowd.store.redis.text import count_of, readable
from flowd.workflow.states import NodeState

NODES_PER_SLICE: Final = 500
_RUN_FIELDS: Final = ("name", "submitted_ms", "triggered_ms", "finished_ms", "parent")
_MORE_FIELDS: Final = ("traceparent", "rerun_of", "plan", "error", "failure", "nodes")


class TracePosition(NamedTuple):
    """Behind this execution, in the order in which they have ended."""

    finished_ms: int
    execution_id: str


@dataclass(frozen=True, slots=True)
class EndedExecution:
    execution_id: str
    name: str
    status: str
    started_ms: int
    finished_ms: int
    nodes: int
    plan: str
    kin: Kin | None
    traceparent: str
    rerun_of: str
    error: str
    origin: Origin


class EndedAttempt(NamedTuple):
    record: AttemptRecord
    error: str


class EndedNode(NamedTuple):
    """`attempts` are the last 20, the oldest first."""

    node_id: str
    state: NodeState | None
    attempts: Sequence[EndedAttempt]


class Traces:
    """Raises StoreUnavailable while Redis does not answer; every call may be repeated."""

    def __init__(self, client: RedisClient, nodes: Nodes) -> None:
        self._client = client
        self._nodes = nodes

    async def claim(self, owner: str, lease_ms: int) -> bool:
        """Be the one who exports for so long; False while another is."""
        if await self._client.execute("SET", keys.TRACER, owner, "NX", "PX", lease_ms):
            return True
        if await self._client.execute("GET", keys.TRACER) != owner:
            return False
        await self._client.execute("SET", keys.TRACER, owner, "XX", "PX", lease_ms)
        return True

    async def release(self, owner: str) -> None:
        """Let another one export at once."""
        if await self._client.execute("GET", keys.TRACER) == owner:
            await self._client.execute("DEL", keys.TRACER)

    async def position(self, at_ms: int) -> TracePosition:
        """How far it has come. At first what has ended by `at_ms` counts as exported; so does
        nothing that is said to have ended later, when the clock was put back."""
        await self._client.execute("SET", keys.TRACED, f"{at_ms} ", "NX")
        ms, _, execution_id = (await self._client.execute("GET", keys.TRACED) or "").partition(" ")
        if count_of(ms) > at_ms:
            return TracePosition(at_ms, "")
        return TracePosition(count_of(ms), execution_id)

    async def note(self, position: TracePosition) -> None:
        await self._client.execute("SET", keys.TRACED, f"{position[0]} {position[1]}")

    async def count(self, what: str, count: int) -> None:
        """`exported` or `dropped` spans, or `failed` calls."""
        await self._client.execute("HINCRBY", keys.METRICS, f"traces {what}", count)

    async def ended(
        self, after: TracePosition, until_ms: int, count_max: int
    ) -> list[TracePosition]:
        """Those behind this position that have ended by then, in their order; none is the end."""
        offset = 0
        while True:
            asked = ("ZRANGEBYSCORE", keys.FINISHED, after.finished_ms, until_ms, "WITHSCORES")
            (flat,) = await self._client.converse_freely([(*asked, "LIMIT", offset, count_max)])
            flat = [] if is_wrong_type(flat) else flat
            listed = [
                TracePosition(int(float(score)), one)
                for one, score in zip(flat[::2], flat[1::2], strict=True)
            ]
            found = [one for one in listed if one > after]
            if found or len(listed) < count_max:
                return found
            # As many have ended in this very millisecond.
            offset += count_max

    async def execution(self, execution_id: str) -> EndedExecution | None:
        """None for one that is gone, or damaged."""
        fields = (*_RUN_FIELDS, *_MORE_FIELDS, *Origin._fields)
        status, run = await self._client.converse_freely(
            [("GET", keys.status(execution_id)), ("HMGET", keys.run(execution_id), *fields)]
        )
        if is_wrong_type(status) or is_wrong_type(run) or status is None:
            return None
        told: Mapping[str, str | None] = dict(zip(fields, run, strict=True))
        finished_ms = count_of(told["finished_ms"])
        return EndedExecution(
            execution_id,
            readable(told["name"] or ""),
            status,
            count_of(told["triggered_ms"] or told["submitted_ms"]) or finished_ms,
            finished_ms,
            count_of(told["nodes"]),
            told["plan"] or "",
            parse_kin(told["parent"]),
            told["traceparent"] or "",
            told["rerun_of"] or "",
            readable(told["error"] or told["failure"] or ""),
            read_origin([told[one] for one in Origin._fields]),
        )

    async def nodes(self, execution_id: str) -> AsyncIterator[list[EndedNode]]:
        """All nodes and items that have had an attempt, slice by slice; now and then one twice."""
        cursor = "0"
        while True:
            (reply,) = await self._client.converse_freely(
                [("HSCAN", keys.attempts(execution_id), cursor, "COUNT", NODES_PER_SLICE)]
            )
            if is_wrong_type(reply):
                return
            cursor, flat = reply
            for some in slices(list(zip(flat[::2], flat[1::2], strict=True)), NODES_PER_SLICE):
                yield await self._read(execution_id, dict(some))
            if cursor == "0":
                return

    async def _read(self, execution_id: str, texts: Mapping[str, str]) -> list[EndedNode]:
        newest = {
            one: record
            for one, text in texts.items()
            if (record := parse_record(text)) is not None and record.attempt is not None
        }
        states = await self._nodes.states(execution_id, list(newest))
        failed = [one for one, state in states.items() if state is NodeState.FAILED]
        errors = await self._nodes.errors(execution_id, failed)
        earlier = await self._earlier(execution_id, newest)
        return [
            EndedNode(
                one,
                states[one],
                [*earlier.get(one, ()), EndedAttempt(record, errors.get(one) or "")],
            )
            for one, record in newest.items()
        ]

    async def _earlier(
        self, execution_id: str, newest: Mapping[str, AttemptRecord]
    ) -> dict[str, list[EndedAttempt]]:
        """The attempts before the newest, of those nodes that had any."""
        names = [
            (node_id, number)
            for node_id, record in newest.items()
            for number in _numbers_before(record.attempt or 1)
        ]
        found: dict[str, list[EndedAttempt]] = {}
        for some in slices(names, 2 * NODES_PER_SLICE):
            fields = [f"{node_id} {number}" for node_id, number in some]
            asked = ("HMGET", keys.history(execution_id), *fields)
            (reply,) = await self._client.converse_freely([asked])
            for (node_id, _), text in zip(
                some, [] if is_wrong_type(reply) else reply, strict=False
            ):
                line, _, error = (text or "").partition("\n")
                record = parse_record(line)
                if record is not None:
                    found.setdefault(node_id, []).append(EndedAttempt(record, readable(error)))
        return found


def _numbers_before(attempt: int) -> range:
    return range(max(1, attempt - ATTEMPTS_KEPT + 1), attempt)
