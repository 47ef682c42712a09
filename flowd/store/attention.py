"""What somebody should look at: what has failed lately, waits for an answer, or is tried again.

A look around for people, within bounds: of each kind a few, and how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from flowd.store.redis import keys
from flowd.store.redis.client import Command, RedisClient, is_wrong_type
from flowd.store.redis.text import count_of, readable
from flowd.store.waits import parse_wait
from flowd.workflow.signals import SIGNAL
from flowd.workflow.states import ExecutionState, NodeState

# Executions looked at for nodes that wait, and nodes of one of them.
_ACTIVE_LOOKED_AT: Final = 200
_WAITS_LOOKED_AT: Final = 100
_FAILED_LOOKED_AT: Final = 1_000
_DATES_LOOKED_AT: Final = 500
# What a rerun may have come to that leaves nothing to do about what it reruns.
_SETTLES: Final = frozenset({ExecutionState.COMPLETED, ExecutionState.FAILED})


class Notice(NamedTuple):
    """One thing to look at. None is what it has not, or nobody knows."""

    execution_id: str | None
    node_id: str | None
    text: str | None
    at_ms: int | None
    letter_id: str | None = None


class Notices(NamedTuple):
    """A few of one kind, and how many there are; None where that is more than was counted."""

    total: int | None
    sample: Sequence[Notice]


class Missed(NamedTuple):
    """A schedule, how many times of it were missed, and the first of them, None where nobody knows
    it (Unix ms)."""

    schedule: str
    times: int
    first_ms: int | None


class Attention:
    """Raises StoreUnavailable while Redis does not answer."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def failed(self, since_ms: int, sample_max: int) -> Notices:
        """Executions that ended FAILED since then, those first that did last. Left out are
        children, for which their parents stand, and those that were rerun since, once that has
        completed, or has failed and stands here itself."""
        key = keys.by_status(ExecutionState.FAILED)
        (listed,) = await self._client.converse_freely(
            [("ZRANGE", key, "+", "-", "BYLEX", "REV", "LIMIT", 0, _FAILED_LOOKED_AT)]
        )
        ids = [] if is_wrong_type(listed) else listed
        asked: list[Command] = [("ZMSCORE", keys.FINISHED, *ids)] if ids else []
        (scores,) = await self._client.converse_freely(asked) if ids else ([],)
        scores = [None] * len(ids) if is_wrong_type(scores) else scores
        ended = {
            one: _ms(score) or 0
            for one, score in zip(ids, scores, strict=True)
            if score is not None
        }
        failed = [one for one in ended if ended[one] >= since_ms]
        is_whole = len(ids) < _FAILED_LOOKED_AT or len(failed) < len(ids)
        failed.sort(key=ended.__getitem__, reverse=True)
        failed = await self._unmended(failed)
        shown = failed[:sample_max]
        asked = [("HMGET", keys.run(one), "failure", "error") for one in shown]
        replies = await self._client.converse_freely(asked) if asked else []
        sample = [
            Notice(one, None, _first(reply), ended[one])
            for one, reply in zip(shown, replies, strict=True)
        ]
        return Notices(len(failed) if is_whole else None, sample)

    async def _unmended(self, failed: Sequence[str]) -> list[str]:
        """Those that are nobody's children, and whose newest rerun, if any, is not over."""
        asked: list[Command] = [("HMGET", keys.run(one), "parent", "rerun_as") for one in failed]
        replies = await self._client.converse_freely(asked) if asked else []
        reruns = {
            one: (None if is_wrong_type(reply) else reply[1])
            for one, reply in zip(failed, replies, strict=True)
            if is_wrong_type(reply) or reply[0] is None
        }
        named = [keys.status(rerun or one) for one, rerun in reruns.items()]
        states = await self._client.execute("MGET", *named) if named else []
        return [
            one
            for (one, rerun), state in zip(reruns.items(), states, strict=True)
            if rerun is None or state not in _SETTLES
        ]

    async def signals(self, sample_max: int) -> Notices:
        """Nodes that wait for a signal, of a part of what runs, those first that wait longest."""
        size, listed, ahead = await self._client.converse_freely(
            [
                ("SCARD", keys.ACTIVE),
                ("SSCAN", keys.ACTIVE, 0, "COUNT", _ACTIVE_LOOKED_AT),
                ("HGET", keys.CLOCK, "ahead_ms"),
            ]
        )
        if is_wrong_type(listed) or is_wrong_type(size):
            return Notices(0, [])
        ids = listed[1][:_ACTIVE_LOOKED_AT]
        ahead_ms = 0 if is_wrong_type(ahead) else count_of(ahead)
        asked: list[Command] = [
            ("HSCAN", keys.waits(one), 0, "COUNT", _WAITS_LOOKED_AT) for one in ids
        ]
        found: list[Notice] = []
        is_whole = len(ids) >= size
        for one, reply in zip(
            ids, await self._client.converse_freely(asked) if asked else (), strict=True
        ):
            if is_wrong_type(reply):
                continue
            cursor, flat = reply
            is_whole = is_whole and cursor == "0"
            for node_id, text in zip(flat[::2], flat[1::2], strict=True):
                wait = parse_wait(text)
                if wait is not None and wait.waker == SIGNAL:
                    since_ms = wait.since_ms - ahead_ms
                    found.append(Notice(one, node_id, readable(wait.text) or None, since_ms))
        found.sort(key=lambda notice: notice.at_ms or 0)
        return Notices(len(found) if is_whole else None, found[:sample_max])

    async def missed(self, since_ms: int, sample_max: int) -> tuple[int, list[Missed]]:
        """Schedules of which times were noted as missed since then, the newest first: how many, and
        some of them."""
        key = keys.SCHEDULES_MISSED
        count, names = await self._client.converse_freely(
            [
                ("ZCOUNT", key, since_ms, "+inf"),
                ("ZRANGE", key, "+inf", since_ms, "BYSCORE", "REV", "LIMIT", 0, sample_max),
            ]
        )
        if is_wrong_type(count) or is_wrong_type(names):
            return 0, []
        asked: list[Command] = [("HMGET", keys.schedule(one), "unmet", "unmet_ms") for one in names]
        replies = await self._client.converse_freely(asked) if asked else []
        return count, [
            Missed(one, count_of(reply[0]), count_of(reply[1]) or None)
            for one, reply in zip(names, replies, strict=True)
            if not is_wrong_type(reply)
        ]

    async def retrying(self, sample_max: int) -> Notices:
        """Nodes that have failed and are to run again, those first that are due first; `at_ms` is
        when. What waits by itself for so many seconds stands among them, and is left out."""
        count, listed, ahead = await self._client.converse_freely(
            [
                ("ZCARD", keys.RETRIES),
                ("ZRANGE", keys.RETRIES, 0, _DATES_LOOKED_AT - 1, "WITHSCORES"),
                ("HGET", keys.CLOCK, "ahead_ms"),
            ]
        )
        if is_wrong_type(count) or is_wrong_type(listed):
            return Notices(0, [])
        ahead_ms = 0 if is_wrong_type(ahead) else count_of(ahead)
        dated = [(*one.partition(" ")[::2], _ms(at)) for one, at in _pairs(listed)]
        nodes = [keys.node(one, node_id) for one, node_id, _ in dated]
        states = await self._client.execute("MGET", *nodes) if nodes else []
        retrying = [
            one for one, state in zip(dated, states, strict=True) if state == NodeState.RETRYING
        ]
        waiting = retrying[:sample_max]
        asked: list[Command] = [
            ("HGET", keys.run(one), f"error:{node_id}") for one, node_id, _ in waiting
        ]
        errors = await self._client.converse_freely(asked) if asked else []
        sample = [
            Notice(one, node_id, None if is_wrong_type(error) else error and readable(error), at_ms)
            for (one, node_id, due_ms), error in zip(waiting, errors, strict=True)
            for at_ms in [None if due_ms is None else due_ms - ahead_ms]
        ]
        return Notices(len(retrying) if count <= _DATES_LOOKED_AT else None, sample)

    async def names(self, execution_ids: Sequence[str]) -> dict[str, str | None]:
        """The names of these executions; None where nobody knows it."""
        found = await self.raw_names(execution_ids)
        return {one: None if name is None else readable(name) for one, name in found.items()}

    async def raw_names(self, execution_ids: Sequence[str]) -> dict[str, str | None]:
        """As `names`, as they stand in Redis."""
        asked: list[Command] = [("HGET", keys.run(one), "name") for one in execution_ids]
        replies = await self._client.converse_freely(asked) if asked else []
        return {
            one: None if is_wrong_type(reply) else reply
            for one, reply in zip(execution_ids, replies, strict=True)
        }


def _pairs(flat: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _ms(score: str) -> int | None:
    number = float(score)
    return int(number) if abs(number) < 2**53 else None


def _first(reply: object) -> str | None:
    """The first of these fields that says anything."""
    if not isinstance(reply, list):
        return None
    return next((readable(one) for one in reply if one), None)
