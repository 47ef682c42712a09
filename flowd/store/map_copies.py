"""What a rerun takes over of nodes with `map`: their lists, and what their items have left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

from flowd.errors import CorruptExecution
from flowd.store.executions import NODES_PER_CALL_MAX, slices
from flowd.store.maps import Maps, MapStanding
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Argument, Command, RedisClient
from flowd.workflow.ids import item_id
from flowd.workflow.states import NodeState

# Which items of a list run again; those that do not keep what they have left.
Again = Literal["none", "failed", "all"]
# Stores some nodes in this state; `staged`, or what is said against it.
Stage = Callable[[str, Sequence[str], NodeState], Awaitable[str]]

_KEPT: Final[dict[Again, tuple[NodeState, ...]]] = {
    "none": (NodeState.COMPLETED, NodeState.FAILED),
    "failed": (NodeState.COMPLETED,),
    "all": (),
}


class MapCopies:
    """Raises StoreUnavailable while Redis does not answer; may be begun anew."""

    def __init__(self, client: RedisClient, maps: Maps) -> None:
        self._client = client
        self._maps = maps

    async def copy(
        self, source: str, execution_id: str, node_id: str, again: Again, stage: Stage
    ) -> str:
        """`staged`, or what is said against it. A list that was never stored is read anew.

        Raises CorruptExecution when an output of the source is gone.
        """
        standing = await self._maps.standing(source, node_id)
        if standing is None:
            return "staged"
        # First, as it says how much there is to remove if this breaks off.
        outcome = await self._stage_map(source, execution_id, node_id, "")
        if outcome != "staged":
            return outcome
        states = await self._maps.states(source, node_id, range(standing.n))
        for kept in _KEPT[again]:
            items = [item_id(node_id, one) for one, state in enumerate(states) if state is kept]
            for some in slices(items, NODES_PER_CALL_MAX):
                outcome = await stage(execution_id, some, kept)
                if outcome != "staged":
                    return outcome
                await self._copy_outputs(source, execution_id, some)
        if again != "none":
            done = [one for one, state in enumerate(states) if state in _KEPT[again]]
            return await self._begin(source, execution_id, node_id, standing, done)
        return "staged"

    async def _stage_map(
        self, source: str, execution_id: str, node_id: str, *how_far: Argument
    ) -> str:
        outcome: str = await self._client.run(
            scripts.STAGE_MAP,
            (
                *(keys.status(execution_id), keys.CONTINUATIONS),
                *(keys.map_of(source, node_id), keys.map_items(source, node_id)),
                *(keys.map_of(execution_id, node_id), keys.map_items(execution_id, node_id)),
                keys.map_todo(execution_id, node_id),
            ),
            execution_id,
            *how_far,
        )
        return outcome

    async def _copy_outputs(self, source: str, execution_id: str, items: Sequence[str]) -> None:
        commands: list[Command] = [
            ("COPY", keys.output(source, one), keys.output(execution_id, one), "REPLACE")
            for one in items
        ]
        for one, count in zip(items, await self._client.converse(commands), strict=True):
            if not count:
                raise CorruptExecution(source, f"the output of node {one!r} is gone")

    async def _begin(
        self,
        source: str,
        execution_id: str,
        node_id: str,
        standing: MapStanding,
        done: Sequence[int],
    ) -> str:
        """Count what is done, and have the others wait for a place."""
        size = 0
        for some in slices(done, NODES_PER_CALL_MAX):
            outputs = (keys.output(source, item_id(node_id, one)) for one in some)
            size += sum(await self._client.converse([("STRLEN", one) for one in outputs]))
        left = sorted(set(range(standing.n)).difference(done))
        return await self._stage_map(source, execution_id, node_id, len(done), size, *left)
