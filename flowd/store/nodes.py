"""Nodes of one execution as they stand: state, newest attempt, error, output.

What is damaged is None: a node that cannot be read must not hide the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from flowd.config import Settings
from flowd.errors import WrongType
from flowd.store.attempt_records import NO_RECORD, AttemptRecord, parse_record
from flowd.store.executions import NODES_PER_CALL_MAX, slices
from flowd.store.logs import ATTEMPTS_KEPT, Logs
from flowd.store.maps import Maps
from flowd.store.redis import keys
from flowd.store.redis.client import RedisClient, is_wrong_type
from flowd.store.redis.text import count_of, raw_bytes, readable
from flowd.store.waits import WaitRecord, parse_wait
from flowd.workflow.limiting import SLOT
from flowd.workflow.retrying import RetryPolicy
from flowd.workflow.states import NodeState

ERROR_CHARS_MAX: Final = 4_000
# Of an output that is read together with others.
_SMALL: Final = 16 * 1024
# A range of bytes that holds any error a node of flowd's can have.
_ERROR_BYTES_MAX: Final = 16_384
# Parsing more than this takes milliseconds in which nothing else runs.
_LOOKED_INTO_BYTES_MAX: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class NodeRow:
    """`state` is None where its key is gone or holds none; `error` is set on FAILED nodes only, and
    `reason`, why it does not run, on SKIPPED ones, `wait` on WAITING ones. `items` is how many
    items of its map are in each state, where somebody has counted. `began_ms` is when the first of
    its attempts started, Unix ms.
    """

    node_id: str
    state: NodeState | None
    record: AttemptRecord
    error: str | None = None
    reason: str | None = None
    wait: WaitStanding | None = None
    items: Mapping[str, int] | None = None
    began_ms: int | None = None

    @property
    def took_ms(self) -> int | None:
        """From its first start to its end; None before that."""
        return took_ms(self.state, self.began_ms, self.record)


def took_ms(state: NodeState | None, began_ms: int | None, newest: AttemptRecord) -> int | None:
    """From the first start of a node to its end; None before that."""
    if state is None or not state.is_terminal or began_ms is None or newest.finished_ms is None:
        return None
    return max(0, newest.finished_ms - began_ms)


class WaitStanding(NamedTuple):
    """What wakes a node, since when it waits and until when at most (Unix ms); `text` is for
    whoever looks. Of one that waits for a place of a limit how many are `before` it."""

    waker: str
    since_ms: int
    until_ms: int | None
    text: str
    before: int | None = None


class Report(NamedTuple):
    """What a failed attempt left beside its error: where it came from, or what a program wrote."""

    traceback: str | None = None
    output: Any = None


NO_REPORT: Final = Report()


class RetryStanding(NamedTuple):
    """Attempts that have failed so far, why the newest did, and when the next is due."""

    failures: int
    error: str | None
    due_ms: int | None


class Nodes:
    """Raises StoreUnavailable while Redis does not answer. At most a thousand keys to a command."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self.maps = Maps(client, settings)
        self.logs = Logs(client)
        one = settings.defaults
        self.default_timeout_s = one.timeout_s
        self.default_policy = RetryPolicy(
            one.max_attempts, one.delay_s, one.backoff, one.max_delay_s, one.jitter
        )

    async def states(
        self, execution_id: str, node_ids: Sequence[str]
    ) -> dict[str, NodeState | None]:
        """By node id, in the order asked for."""
        found: dict[str, NodeState | None] = {}
        for some in slices(node_ids, NODES_PER_CALL_MAX):
            texts = await self._client.execute(
                "MGET", *(keys.node(execution_id, one) for one in some)
            )
            found.update((one, _state(text)) for one, text in zip(some, texts, strict=True))
        return found

    async def records(
        self, execution_id: str, node_ids: Sequence[str]
    ) -> dict[str, AttemptRecord | None]:
        found: dict[str, AttemptRecord | None] = {}
        for some in slices(node_ids, NODES_PER_CALL_MAX):
            texts = await self._fields(keys.attempts(execution_id), some)
            found.update(zip(some, map(parse_record, texts), strict=True))
        return found

    async def began_ms(
        self, execution_id: str, records: Mapping[str, AttemptRecord | None]
    ) -> dict[str, int]:
        """When the first attempt of each node started, Unix ms, by its newest record; without those
        that have not begun. Of more than 20 the first one and the last are known."""
        found = {
            one: record.started_ms
            for one, record in records.items()
            if record is not None and record.started_ms is not None
        }
        several = {
            one: record.attempt
            for one, record in records.items()
            if record is not None and record.attempt is not None and record.attempt > 1
        }
        firsts = await self._starts(execution_id, [(one, 1) for one in several])
        # The first never started where its worker took it along, or it waited for a place.
        others = [
            (one, number)
            for one, newest in several.items()
            if one not in firsts
            for number in range(newest - 1, max(1, newest - ATTEMPTS_KEPT), -1)
        ]
        return found | await self._starts(execution_id, others) | firsts

    async def _starts(
        self, execution_id: str, attempts: Sequence[tuple[str, int]]
    ) -> dict[str, int]:
        """Of each node that of the last of these attempts before its newest that has started."""
        found: dict[str, int] = {}
        for some in slices(attempts, NODES_PER_CALL_MAX):
            fields = [f"{one} {number}" for one, number in some]
            texts = await self._fields(keys.history(execution_id), fields)
            for (one, _), text in zip(some, texts, strict=True):
                record = parse_record((text or "").partition("\n")[0])
                if record is not None and record.started_ms is not None:
                    found[one] = record.started_ms
        return found

    async def errors(self, execution_id: str, node_ids: Sequence[str]) -> dict[str, str | None]:
        """What FAILED nodes failed of."""
        found: dict[str, str | None] = {}
        for some in slices(node_ids, NODES_PER_CALL_MAX):
            replies = await self._client.converse_freely(
                [("GETRANGE", keys.output(execution_id, one), 0, _ERROR_BYTES_MAX) for one in some]
            )
            found.update((one, _error(reply)) for one, reply in zip(some, replies, strict=True))
        return found

    async def rows(self, execution_id: str, states: dict[str, NodeState | None]) -> list[NodeRow]:
        """All there is to say of these nodes, whose states were just read."""
        records = await self.records(execution_id, list(states))
        failed = [one for one, state in states.items() if state is NodeState.FAILED]
        errors = await self.errors(execution_id, failed)
        skipped = [one for one, state in states.items() if state is NodeState.SKIPPED]
        reasons = await self.skip_reasons(execution_id, skipped)
        waiting = [one for one, state in states.items() if state is NodeState.WAITING]
        waits = await self.waits(execution_id, waiting)
        began_ms = await self.began_ms(execution_id, records)
        return [
            NodeRow(
                one,
                state,
                records[one] or NO_RECORD,
                errors.get(one),
                reasons.get(one),
                waits.get(one),
                began_ms=began_ms.get(one),
            )
            for one, state in states.items()
        ]

    async def waits(self, execution_id: str, node_ids: Sequence[str]) -> dict[str, WaitStanding]:
        """Of those nodes that wait for something outside of any worker."""
        found: dict[str, WaitStanding] = {}
        for some in slices(node_ids, NODES_PER_CALL_MAX):
            ahead_ms = await self._ahead_ms()
            texts = await self._fields(keys.waits(execution_id), some)
            for one, wait in zip(some, map(parse_wait, texts), strict=True):
                if wait is not None:
                    found[one] = _standing_of(wait, ahead_ms)
        return await self._with_turns(execution_id, found)

    async def _with_turns(
        self, execution_id: str, found: dict[str, WaitStanding]
    ) -> dict[str, WaitStanding]:
        """The same, those that wait for a place of a limit with how many are before them."""
        asked = {
            one: ("ZRANK", keys.waiters(wait.text), f"{execution_id} {one}")
            for one, wait in found.items()
            if wait.waker == SLOT
        }
        if not asked:
            return found
        ranks = await self._client.converse_freely(list(asked.values()))
        return found | {
            one: found[one]._replace(before=rank)
            for one, rank in zip(asked, ranks, strict=True)
            if isinstance(rank, int)
        }

    async def _ahead_ms(self) -> int:
        """By how much the clock that never goes back is ahead of the server's."""
        (ahead,) = await self._client.converse_freely([("HGET", keys.CLOCK, "ahead_ms")])
        return 0 if is_wrong_type(ahead) else count_of(ahead)

    async def skip_reasons(self, execution_id: str, node_ids: Sequence[str]) -> dict[str, str]:
        """Why SKIPPED nodes do not run, by node id."""
        found: dict[str, str] = {}
        for some in slices(node_ids, NODES_PER_CALL_MAX):
            texts = await self._fields(keys.run(execution_id), [f"skipped:{one}" for one in some])
            found.update(
                (one, readable(text)) for one, text in zip(some, texts, strict=True) if text
            )
        return found

    async def allowed_failures(self, execution_id: str, node_ids: Sequence[str]) -> set[str]:
        """Of FAILED nodes those that failed by themselves, and may."""
        found: set[str] = set()
        for some in slices(node_ids, NODES_PER_CALL_MAX):
            marks = await self._fields(keys.run(execution_id), [f"allowed:{one}" for one in some])
            found.update(one for one, mark in zip(some, marks, strict=True) if mark)
        return found

    async def output_sizes(self, execution_id: str, node_ids: Sequence[str]) -> list[int]:
        """Bytes of each output; 0 where there is none."""
        replies: list[Any] = []
        for some in slices(node_ids, NODES_PER_CALL_MAX):
            commands = [("STRLEN", keys.output(execution_id, one)) for one in some]
            replies += await self._client.converse_freely(commands)
        return [0 if is_wrong_type(reply) else reply for reply in replies]

    async def outputs(self, execution_id: str, node_ids: Sequence[str]) -> dict[str, Any]:
        """The outputs there are, by node id."""
        found: dict[str, Any] = {}
        for some in slices(node_ids, NODES_PER_CALL_MAX):
            texts = await self._client.execute(
                "MGET", *(keys.output(execution_id, one) for one in some)
            )
            for one, text in zip(some, texts, strict=True):
                output = _json(text)
                if output is not None:
                    found[one] = output
        return found

    async def small_outputs(self, execution_id: str, node_ids: Sequence[str]) -> bytes | None:
        """The outputs there are as one JSON object; None where one of them is large, or no JSON."""
        commands = [("GETRANGE", keys.output(execution_id, one), 0, _SMALL) for one in node_ids]
        parts = []
        for one, reply in zip(node_ids, await self._client.converse_freely(commands), strict=True):
            if is_wrong_type(reply):
                return None
            data = raw_bytes(reply)
            if len(data) > _SMALL or (data and _json(reply) is None):
                return None
            if data:
                parts.append(orjson.dumps(one) + b":" + data)
        return b"{" + b",".join(parts) + b"}"

    async def output_text(self, execution_id: str, node_id: str) -> bytes | None:
        """An output as JSON; None where there is none. A large one is not looked into."""
        (text,) = await self._client.execute("MGET", keys.output(execution_id, node_id))
        data = raw_bytes(text or "")
        is_readable = len(data) > _LOOKED_INTO_BYTES_MAX or _json(text) is not None
        return data if is_readable else None

    async def retries(self, execution_id: str, node_ids: Sequence[str]) -> dict[str, RetryStanding]:
        """Of those nodes that have failed and are to run again."""
        found: dict[str, RetryStanding] = {}
        for some in slices(node_ids, NODES_PER_CALL_MAX // 2):
            fields = [f"{what}:{one}" for one in some for what in ("failures", "error")]
            values = await self._fields(keys.run(execution_id), fields)
            due, ahead = await self._client.converse_freely(
                [
                    ("ZMSCORE", keys.RETRIES, *(f"{execution_id} {one}" for one in some)),
                    ("HGET", keys.CLOCK, "ahead_ms"),
                ]
            )
            ahead_ms = 0 if is_wrong_type(ahead) else count_of(ahead)
            due = [None] * len(some) if is_wrong_type(due) else due
            for at, one in enumerate(some):
                failures, error = values[2 * at], values[2 * at + 1]
                if failures is not None and failures.isascii() and failures.isdecimal():
                    due_ms = _score_ms(due[at], ahead_ms)
                    found[one] = RetryStanding(int(failures[:9]), error and readable(error), due_ms)
        return found

    async def reports(self, execution_id: str, node_ids: Sequence[str]) -> dict[str, Report]:
        """Of the newest attempts of nodes that have failed, or are to run again."""
        found: dict[str, Report] = {}
        for some in slices(node_ids, NODES_PER_CALL_MAX):
            texts = await self._fields(keys.run(execution_id), [f"report:{one}" for one in some])
            found.update((one, _report(text)) for one, text in zip(some, texts, strict=True))
        return found

    async def _fields(self, key: str, fields: Sequence[str]) -> list[str | None]:
        """Of a hash; all None where the key is none."""
        try:
            values: list[str | None] = await self._client.execute("HMGET", key, *fields)
        except WrongType:
            return [None] * len(fields)
        return values


def _standing_of(wait: WaitRecord, ahead_ms: int) -> WaitStanding:
    until_ms = wait.due_ms
    if until_ms is not None and wait.waker != "moment":
        until_ms -= ahead_ms
    return WaitStanding(wait.waker, wait.since_ms - ahead_ms, until_ms, readable(wait.text))


def _state(text: str | None) -> NodeState | None:
    return NodeState(text) if text and text in NodeState.__members__ else None


def _score_ms(text: str | None, ahead_ms: int) -> int | None:
    """A score of the clock that never goes back as Unix ms; None where it is none flowd wrote."""
    score = float(text or "nan")
    return int(score) - ahead_ms if abs(score) < 2**53 else None


def _error(reply: Any) -> str | None:
    if is_wrong_type(reply):
        return None
    output = _json(reply)
    error = output.get("error") if isinstance(output, dict) else None
    return error[:ERROR_CHARS_MAX] if isinstance(error, str) else None


def _report(text: str | None) -> Report:
    told = _json(text)
    if not isinstance(told, dict):
        return NO_REPORT
    trace = told.get("traceback")
    return Report(trace if isinstance(trace, str) else None, told.get("output"))


def _json(text: str | None) -> Any:
    """None for what is no JSON."""
    try:
        return orjson.loads(raw_bytes(text or ""))
    except ValueError:
        return None
