"""Executions held up by hand: paused, resumed, cancelled."""

from __future__ import annotations

from collections.abc import Sequence

from flowd.config import Settings
from flowd.errors import CorruptExecution, UnknownExecution, WrongType
from flowd.store.attempt_records import lost_record
from flowd.store.entries import Entry
from flowd.store.executions import NODES_PER_CALL_MAX, now_ms, slices
from flowd.store.places import Places
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import RedisClient
from flowd.workflow.states import CANCELLING, ExecutionState


class Lifecycle:
    """Methods return the outcome word of their script: the state, where it forbids what was asked.

    All raise UnknownExecution, and StoreUnavailable while Redis does not answer. Each may be
    repeated.
    """

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._stream = settings.tasks.stream
        self._group = settings.tasks.group
        self.places = Places(client, settings)

    async def pause_execution(self, execution_id: str, *, parent_id: str = "") -> str:
        """`paused`: no further node of it starts. With `parent_id` only while that is paused, too;
        else `moved`."""
        outcome = await self._client.run(
            scripts.PAUSE_EXECUTION,
            (
                keys.status(execution_id),
                self._stream,
                keys.HALTED,
                keys.run(execution_id),
                *_followed(parent_id),
            ),
            execution_id,
            now_ms(),
        )
        return _known(execution_id, outcome)

    async def park_node(self, entry: Entry) -> str:
        """Take a node of a paused execution that has not started out of the stream.

        `parked`, `stale`, or `moved` when the entry is still the caller's to deal with.
        """
        outcome: str = await self._client.run(
            scripts.PARK_NODE,
            (
                self._stream,
                keys.status(entry.execution_id),
                keys.node(entry.execution_id, entry.node_id),
                keys.attempts(entry.execution_id),
            ),
            self._group,
            entry.name,
            entry.execution_id,
            entry.node_id,
            lost_record(entry, "-"),
            entry.deaths,
        )
        return outcome

    async def resume_execution(
        self, execution_id: str, *, is_begun: bool = False, parent_id: str = ""
    ) -> str:
        """`resumed`, with all that was kept back in front of the workers again.

        `is_begun` carries on with one that broke off; a new pause ends it. With `parent_id` only
        while that runs, too; else `moved`. Raises CorruptExecution.
        """
        cursor = "0"
        while True:
            try:
                outcome, cursor = await self._client.run(
                    scripts.RESUME_EXECUTION,
                    (
                        keys.status(execution_id),
                        keys.parked(execution_id),
                        self._stream,
                        keys.CONTINUATIONS,
                        keys.run(execution_id),
                        *_followed(parent_id),
                    ),
                    execution_id,
                    now_ms(),
                    NODES_PER_CALL_MAX,
                    "1" if is_begun else "0",
                    cursor,
                )
            except WrongType as error:
                raise CorruptExecution(execution_id, str(error)) from error
            if outcome != "continue":
                return _known(execution_id, outcome)
            is_begun = True

    async def cancel_execution(self, execution_id: str, *, force: bool = False) -> str:
        """`cancelled`: it has ended; or `cancelling`, until its `finally` has, which `force` leaves
        out. Its nodes are marked by `cancel_nodes`."""
        outcome = await self._client.run(
            scripts.CANCEL_EXECUTION,
            (keys.ACTIVE, self._stream),
            execution_id,
            now_ms(),
            "1" if force else "0",
        )
        return _known(execution_id, outcome)

    async def is_cancelling(self, execution_id: str) -> bool:
        """Whether its nodes are being cancelled before its `finally` runs."""
        status = await self._client.execute("GET", keys.status(execution_id))
        return bool(status == CANCELLING)

    async def cancel_nodes(
        self, execution_id: str, node_ids: Sequence[str], *, before_finally: bool = False
    ) -> None:
        """Mark the nodes of a cancelled execution that had not ended, slice by slice.

        `before_finally` it is being cancelled: `node_ids` are the others, of which those that have
        an entry are marked when that goes.
        """
        parts = list(slices(node_ids, NODES_PER_CALL_MAX))
        for at, some in enumerate(parts, 1):
            await self._client.run(
                scripts.CANCEL_NODES,
                (keys.RETRIES, keys.CONTINUATIONS, keys.ALARMS, self._stream),
                execution_id,
                "1" if at == len(parts) else "0",
                CANCELLING if before_finally else ExecutionState.CANCELLED,
                *some,
            )


def _followed(parent_id: str) -> tuple[str, ...]:
    return (keys.status(parent_id),) if parent_id else ()


def _known(execution_id: str, outcome: str) -> str:
    if outcome == "unknown":
        raise UnknownExecution(execution_id)
    return outcome
