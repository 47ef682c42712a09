"""Executions that have ended: which they are, and how they are forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from flowd.config import Settings
from flowd.errors import CorruptExecution, StoreUnavailable, UnknownExecution, WrongType
from flowd.store.definitions import map_ids_of, node_ids_of
from flowd.store.executions import NODES_PER_CALL_MAX, now_ms, slices
from flowd.store.limits import Limits
from flowd.store.nodes import Nodes
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Command, RedisClient, is_wrong_type
from flowd.store.traces import Traces
from flowd.workflow.ids import WORKFLOW

# What stands in a definition as it is kept where one of its nodes may have children.
_MAY_HAVE_CHILDREN: Final = f'"handler":"{WORKFLOW}"'
# Deleted together: each may have thousands of nodes.
CHILDREN_PER_STEP: Final = 50


class FinishedExecutions:
    """Every method raises StoreUnavailable while Redis does not answer, and may be repeated."""

    def __init__(self, client: RedisClient, settings: Settings, nodes: Nodes) -> None:
        self._client = client
        self._stream = settings.tasks.stream
        self._maps = nodes.maps
        self._limits = Limits(client, settings)
        self._logs = nodes.logs
        self.traces = Traces(client, nodes)

    async def ended_before(self, ended_ms: int, count_max: int) -> list[str]:
        """Ids of executions that ended before this wall time, the oldest first."""
        execution_ids: list[str] = await self._client.execute(
            "ZRANGEBYSCORE", keys.FINISHED, "-inf", f"({ended_ms}", "LIMIT", 0, count_max
        )
        return execution_ids

    async def delete_execution(self, execution_id: str) -> str:
        """`deleted`, or the state that forbids it; one that waits to be triggered is cancelled.
        `child` goes with its parent, and of a `parent` some children have not ended.

        From the first call on it is unknown to everybody; whatever of it is left when this breaks
        off is removed by `remove`. Raises UnknownExecution, or CorruptExecution.
        """
        (outcome,) = await self._begin(execution_id, how="0")
        if outcome == "unknown":
            raise UnknownExecution(execution_id)
        if outcome == "corrupt":
            raise CorruptExecution(execution_id, "its status is damaged")
        if outcome == "deleted":
            await self.remove([execution_id])
        return outcome

    async def delete(self, execution_ids: Sequence[str]) -> None:
        """Delete executions that are among the finished; one that runs after all is only struck
        off that list, one that goes with its parent is put behind the others."""
        await self._delete(execution_ids, how="1")

    async def _delete(self, execution_ids: Sequence[str], how: str) -> None:
        if not execution_ids:
            return
        outcomes = await self._begin(*execution_ids, how=how)
        begun = zip(execution_ids, outcomes, strict=True)
        await self.remove([one for one, outcome in begun if outcome == "deleted"])

    async def _begin(self, *execution_ids: str, how: str) -> list[str]:
        try:
            outcomes: list[str] = await self._client.run(
                scripts.DELETE_EXECUTIONS,
                (keys.CONTINUATIONS, keys.ACTIVE, keys.FINISHED, self._stream),
                now_ms(),
                how,
                *execution_ids,
            )
        except WrongType as error:
            raise StoreUnavailable(f"a key is damaged, and will be set aside: {error}") from error
        return outcomes

    async def remove(self, execution_ids: Sequence[str]) -> None:
        """Remove all keys of executions whose deletion has begun, in small steps; may be begun
        anew by anyone.

        The definition, which says what there is to remove, and the continuation go last.
        """
        if not execution_ids:
            return
        definitions = await self._client.execute(
            "MGET", *(keys.definition(one) for one in execution_ids)
        )
        nodes = [
            (execution_id, node_id)
            for execution_id, definition in zip(execution_ids, definitions, strict=True)
            for node_id in _ids(node_ids_of, definition)
        ]
        for execution_id, definition in zip(execution_ids, definitions, strict=True):
            await self._remove_below(execution_id, definition or "")
            # It may have been deleted before its cancellation had come this far.
            await self._limits.release_all(execution_id)
        await self._strike_labels(execution_ids)
        await self._logs.remove(execution_ids)
        for some_nodes in slices(nodes, NODES_PER_CALL_MAX):
            waiting = [f"{execution_id} {node_id}" for execution_id, node_id in some_nodes]
            dates: list[Command] = [("ZREM", key, *waiting) for key in (keys.RETRIES, keys.ALARMS)]
            await self._client.converse(dates)
        gone = [key for node in nodes for key in (keys.node(*node), keys.output(*node))]
        for execution_id in execution_ids:
            gone += (
                keys.run(execution_id),
                keys.attempts(execution_id),
                keys.given_input(execution_id),
                keys.parked(execution_id),
                keys.waits(execution_id),
                keys.decisions(execution_id),
                keys.places(execution_id),
                keys.children(execution_id),
                keys.callback(execution_id),
            )
        for some in slices(gone, NODES_PER_CALL_MAX):
            await self._client.execute("DEL", *some)
        last: list[Command] = [
            ("DEL", *(keys.definition(one) for one in execution_ids)),
            ("ZREM", keys.EXECUTIONS, *execution_ids),
            ("ZREM", keys.CALLBACKS, *execution_ids),
            ("ZREM", keys.FINISHED, *execution_ids),
            ("ZREM", keys.CONTINUATIONS, *(f"delete {one}" for one in execution_ids)),
        ]
        await self._client.converse(last)

    async def _strike_labels(self, execution_ids: Sequence[str]) -> None:
        """Take them out of the lists of their labels, which their runs name."""
        asked: list[Command] = [("HGET", keys.run(one), "labels") for one in execution_ids]
        struck: list[Command] = [
            ("ZREM", keys.label(line), execution_id)
            for execution_id, labels in zip(
                execution_ids, await self._client.converse_freely(asked), strict=True
            )
            if labels and not is_wrong_type(labels)
            for line in labels.split("\n")
        ]
        for reply in await self._client.converse_freely(struck) if struck else ():
            is_wrong_type(reply)

    async def _remove_below(self, execution_id: str, definition: str) -> None:
        """The items of its maps, and its children. Most definitions have none."""
        if '"map"' in definition:
            for node_id in _ids(map_ids_of, definition):
                await self._maps.remove(execution_id, node_id)
        if _MAY_HAVE_CHILDREN in definition:
            await self._delete_children(execution_id)

    async def _delete_children(self, execution_id: str) -> None:
        """With theirs; those that are gone are not looked at again when this breaks off."""
        key = keys.children(execution_id)
        listed = await self._client.execute("HKEYS", key)
        for some in slices(listed, CHILDREN_PER_STEP):
            await self._delete(some, how="2")
            await self._client.execute("HDEL", key, *some)


def _ids(read: Callable[[str], list[str]], definition: str | None) -> list[str]:
    """Empty for a definition that is gone or damaged: what it named cannot be found any more."""
    try:
        return read(definition or "")
    except (ValueError, TypeError, KeyError):
        return []
