"""Executions that have ended: which they are, and how they are forgotten."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from flowd.store.executions import NODES_PER_CALL_MAX, slices
from flowd.store.redis import keys
from flowd.store.redis.client import Command, RedisClient


class FinishedExecutions:
    """Every method raises StoreUnavailable while Redis does not answer, and may be repeated."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def ended_before(self, ended_ms: int, count_max: int) -> list[str]:
        """Ids of executions that ended before this wall time, the oldest first."""
        execution_ids: list[str] = await self._client.execute(
            "ZRANGEBYSCORE", keys.FINISHED, "-inf", f"({ended_ms}", "LIMIT", 0, count_max
        )
        return execution_ids

    async def delete(self, execution_ids: Sequence[str]) -> None:
        """Delete executions with all their keys, in small steps.

        From the first step on they are unknown to everybody. The definition, which says what
        there is to delete, and the note that they ended go last: a deletion that breaks off is
        found again and carried on.
        """
        if not execution_ids:
            return
        await self._client.execute("DEL", *(keys.status(one) for one in execution_ids))
        definitions = await self._client.execute(
            "MGET", *(keys.definition(one) for one in execution_ids)
        )
        gone = [
            key
            for execution_id, definition in zip(execution_ids, definitions, strict=True)
            for node_id in _node_ids(definition)
            for key in (keys.node(execution_id, node_id), keys.output(execution_id, node_id))
        ]
        for execution_id in execution_ids:
            gone += (
                keys.run(execution_id),
                keys.attempts(execution_id),
                keys.given_input(execution_id),
                keys.parked(execution_id),
                keys.callback(execution_id),
            )
        for some in slices(gone, NODES_PER_CALL_MAX):
            await self._client.execute("DEL", *some)
        last: list[Command] = [
            ("DEL", *(keys.definition(one) for one in execution_ids)),
            ("ZREM", keys.EXECUTIONS, *execution_ids),
            ("ZREM", keys.CALLBACKS, *execution_ids),
            ("ZREM", keys.FINISHED, *execution_ids),
        ]
        await self._client.converse(last)


def _node_ids(definition: str | None) -> list[str]:
    """Empty for a definition that is gone or damaged: what it named cannot be found any more."""
    try:
        return [node["id"] for node in orjson.loads(definition or "")["dag"]["nodes"]]
    except (ValueError, TypeError, KeyError):
        return []
