"""The executions that nodes of another one wait for, as their parent lists them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from flowd.errors import CorruptExecution, WrongType
from flowd.store.executions import NODES_PER_CALL_MAX, slices
from flowd.store.kin import Kin, parse_kin
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Command, RedisClient, is_wrong_type
from flowd.store.redis.text import count_of, raw_bytes
from flowd.workflow.children import Parent
from flowd.workflow.ids import child_id
from flowd.workflow.states import CANCELLING, ExecutionState, NodeState

_LIVE: Final = frozenset(
    {ExecutionState.PENDING, ExecutionState.RUNNING, ExecutionState.PAUSED, CANCELLING}
)


class Child(NamedTuple):
    """`status` is None for one that is gone; `node_state` and `failures` are of the node it is for,
    which waits for it in its wait of this number.
    """

    execution_id: str
    node_id: str
    number: int
    status: str | None
    node_state: str | None
    failures: int

    @property
    def is_live(self) -> bool:
        """It runs, or waits for a place: what was made is triggered, too."""
        return self.status in _LIVE

    @property
    def is_orphan(self) -> bool:
        """Nobody waits for it any more, nor will."""
        state = self.node_state
        is_state = state is not None and state in NodeState.__members__
        has_ended = not is_state or NodeState(state or "").is_terminal
        return has_ended or self.number <= self.failures


class Children:
    """Every method raises StoreUnavailable while Redis does not answer; each may be repeated."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def status(self, execution_id: str) -> str:
        """As it stands in Redis; empty where there is none."""
        return await self._client.execute("GET", keys.status(execution_id)) or ""

    async def kin(self, execution_id: str) -> Kin | None:
        """None for an execution that is no child."""
        (parent,) = await self._client.converse_freely([("HGET", keys.run(execution_id), "parent")])
        return None if is_wrong_type(parent) else parse_kin(parent)

    async def kins(self, execution_ids: Sequence[str]) -> dict[str, Kin]:
        """What those that are children, and not being cancelled, are to their parents."""
        found: dict[str, Kin] = {}
        for some in slices(execution_ids, NODES_PER_CALL_MAX):
            replies = await self._client.converse_freely(
                [("HMGET", keys.run(one), "parent", "ends_as") for one in some]
            )
            for one, reply in zip(some, replies, strict=True):
                if is_wrong_type(reply):
                    continue
                kin = parse_kin(reply[0])
                if kin is not None and reply[1] != ExecutionState.CANCELLED:
                    found[one] = kin
        return found

    async def newest(self, execution_id: str, node_ids: Sequence[str]) -> dict[str, str]:
        """By node id the last child each of these had, of those that had any."""
        found: dict[str, str] = {}
        for some in slices(node_ids, NODES_PER_CALL_MAX // 2):
            fields = [f"failures:{one}" for one in some]
            (failures,) = await self._client.converse_freely(
                [("HMGET", keys.run(execution_id), *fields)]
            )
            failed = [0] * len(some) if is_wrong_type(failures) else map(count_of, failures)
            # One whose attempt has failed may not have a further one yet.
            made = [
                (one, child_id(execution_id, one, number))
                for one, count in zip(some, failed, strict=True)
                for number in (count, count + 1)
            ]
            (listed,) = await self._client.converse_freely(
                [("HMGET", keys.children(execution_id), *(child for _, child in made))]
            )
            if not is_wrong_type(listed):
                found.update(pair for pair, is_there in zip(made, listed, strict=True) if is_there)
        return found

    async def reran(self, parent: Parent) -> str:
        """The last child this node had in the execution of which its own reruns what failed; empty
        where it reruns none, or the node had none."""
        (reply,) = await self._client.converse_freely(
            [("HMGET", keys.run(parent.execution_id), "rerun_failed", "rerun_of")]
        )
        if is_wrong_type(reply) or reply[0] is None or reply[1] is None:
            return ""
        return (await self.newest(reply[1], [parent.node_id])).get(parent.node_id, "")

    async def made_of(self, execution_id: str) -> tuple[bytes, bytes]:
        """The definition and the input of an execution; empty where there is none."""
        texts = await self._client.execute(
            "MGET", keys.definition(execution_id), keys.given_input(execution_id)
        )
        return raw_bytes(texts[0] or ""), raw_bytes(texts[1] or "")

    async def is_made(self, execution_id: str, parent: Parent) -> bool:
        """Whether this is the execution that was made for this wait."""
        kin = await self.kin(execution_id)
        return kin is not None and kin[:3] == parent and bool(await self.status(execution_id))

    async def pages(self, execution_id: str) -> AsyncIterator[list[Child]]:
        """All that it has, also those that have ended. Raises CorruptExecution."""
        cursor = "0"
        while True:
            try:
                cursor, flat = await self._client.execute(
                    "HSCAN", keys.children(execution_id), cursor, "COUNT", NODES_PER_CALL_MAX
                )
            except WrongType as error:
                raise CorruptExecution(execution_id, "its children are no hash") from error
            for some in slices(list(zip(flat[::2], flat[1::2], strict=True)), NODES_PER_CALL_MAX):
                yield await self._read(execution_id, some)
            if cursor == "0":
                return

    async def _read(self, parent_id: str, listed: Sequence[tuple[str, str]]) -> list[Child]:
        places = [place.rpartition(" ") for _, place in listed]
        states: Command = (
            "MGET",
            *(keys.status(execution_id) for execution_id, _ in listed),
            *(keys.node(parent_id, node_id) for node_id, _, _ in places),
        )
        fields = (f"failures:{node_id}" for node_id, _, _ in places)
        found, failures = await self._client.converse(
            [states, ("HMGET", keys.run(parent_id), *fields)]
        )
        count = len(listed)
        rows = zip(listed, places, found[:count], found[count:], failures, strict=True)
        return [
            Child(one, node_id, count_of(number), status, state, count_of(failed))
            for (one, _), (node_id, _, number), status, state, failed in rows
        ]

    async def settle_follow(self, execution_id: str, how: str, status: str) -> bool:
        """End the continuation `follow`; False when the state has changed meanwhile."""
        outcome = await self._client.run(
            scripts.SETTLE_FOLLOW,
            (keys.status(execution_id), keys.CONTINUATIONS),
            execution_id,
            how,
            status,
        )
        return bool(outcome == "settled")
