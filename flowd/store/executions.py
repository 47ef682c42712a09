"""Executions in Redis: started, read; the nodes that are too many for one script call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from flowd.config import Settings
from flowd.errors import CorruptExecution, StoreUnavailable, UnknownExecution, WrongType
from flowd.store.definitions import node_ids_of, reading_definition
from flowd.store.dependents import Arrives
from flowd.store.indexes import Indexes
from flowd.store.kin import Kin, parse_kin
from flowd.store.listing import Listing
from flowd.store.origins import NOWHERE, Origin, read_origin
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Argument, RedisClient, is_wrong_type
from flowd.store.redis.scripts import Script
from flowd.store.redis.text import readable
from flowd.workflow.states import ExecutionState, NodeState, parse_status

T = TypeVar("T")

# A thousand small writes hold the server for about a millisecond.
NODES_PER_CALL_MAX: Final = 1000


class Continuation(NamedTuple):
    """Work begun in one call and left for the next.

    `submit`, `discard`, `resume`, `cancel`, `delete`: an execution; `advance`, `look`, `fail`: a
    node; `follow`: the children of an execution, and in place of a node how.
    `member` is how it stands in its key.
    """

    verb: str
    execution_id: str
    node_id: str
    member: str


def parse_continuation(member: str) -> Continuation:
    """Whatever stands there; what is missing is empty."""
    verb, execution_id, node_id = [*member.split(" ", 2), "", ""][:3]
    return Continuation(verb, execution_id, node_id, member)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def age_ms(score: str) -> int:
    """How long ago a score's time was; also of one that flowd never wrote, such as `inf`."""
    return now_ms() - int(max(0, min(float(score), 2**53)))


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]


async def begin_execution(
    client: RedisClient, script: Script, names: Sequence[str], *arguments: Argument
) -> Any:
    """What begins an execution writes into keys that all share first, or not at all."""
    try:
        return await client.run(script, names, *arguments)
    except WrongType as error:
        raise StoreUnavailable(f"a key is damaged, and will be set aside: {error}") from error


def parse_states(execution_id: str, found: Mapping[str, str | None]) -> dict[str, NodeState]:
    """Raises CorruptExecution when a node's key is gone or holds no state."""
    try:
        return {node_id: NodeState(state or "") for node_id, state in found.items()}
    except ValueError as error:
        raise CorruptExecution(execution_id, str(error)) from None


class Executions:
    """Every method raises StoreUnavailable while Redis does not answer; each may be repeated."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._stream = settings.tasks.stream
        self._group = settings.tasks.group
        self.indexes = Indexes(client)
        self.listing = Listing(client, self.indexes)

    async def trigger_workflow(
        self,
        execution_id: str,
        given_input: bytes = b"",
        traceparent: str = "",
        *,
        is_checked: bool = True,
        place: str = "",
    ) -> str:
        """Start a PENDING execution and open its roots; `given_input` is a JSON object, or empty.

        Returns `unchecked` for one with an `input_schema`, unless it `is_checked`, and for one with
        a `concurrency`, unless `place` says what it asks for; `triggered`, `continue` when the
        roots are left to `advance_node`; `waiting`, `replaced …` or `refused` where all places are
        taken; or the state the execution was in already. Raises UnknownExecution, or
        CorruptExecution.
        """
        outcome: str = await begin_execution(
            self._client,
            scripts.TRIGGER_WORKFLOW,
            (
                keys.status(execution_id),
                keys.run(execution_id),
                keys.ACTIVE,
                self._stream,
                keys.CONTINUATIONS,
                keys.given_input(execution_id),
            ),
            execution_id,
            self._group,
            now_ms(),
            given_input,
            traceparent,
            "1" if is_checked else "0",
            place,
        )
        if outcome == "unknown":
            raise UnknownExecution(execution_id)
        if outcome == "corrupt":
            raise CorruptExecution(execution_id, "its status or run key was damaged")
        return outcome

    async def traceparent(self, execution_id: str) -> str:
        """The trace this execution was triggered in; empty when nobody said."""
        return await self._client.execute("HGET", keys.run(execution_id), "traceparent") or ""

    async def advance_node(
        self,
        execution_id: str,
        node_id: str,
        plan_digest: str,
        *,
        offset: int,
        total: int,
        dependents: Sequence[tuple[str, int]],
        arrives: Arrives = "completed",
    ) -> int:
        """Open a slice of the dependents (id, number of its dependencies) of a node that has ended.

        An empty node id stands for the execution itself, whose dependents are the roots. Returns
        the offset the next slice begins at, `total` when none is left. Raises CorruptExecution.
        """
        try:
            next_offset: int = await self._client.run(
                scripts.ADVANCE_NODE,
                (
                    keys.run(execution_id),
                    keys.status(execution_id),
                    self._stream,
                    keys.CONTINUATIONS,
                ),
                execution_id,
                node_id,
                plan_digest,
                offset,
                total,
                arrives,
                *(part for dependent in dependents for part in dependent),
            )
        except WrongType as error:
            raise CorruptExecution(execution_id, str(error)) from error
        return next_offset

    async def rerun_roots(self, execution_id: str) -> list[str]:
        """Where a rerun begins that has too many roots for one call; empty for anything else."""
        roots = await self._read(execution_id, "HGET", keys.run(execution_id), "rerun_roots")
        return str(roots).split(",") if roots else []

    async def fail_downstream(
        self,
        execution_id: str,
        node_id: str,
        plan_digest: str,
        output: bytes,
        node_ids: Sequence[str],
    ) -> str:
        """Fail every node downstream of a failed one, in slices; the last outcome.

        Each is given as `downstream_arguments` has it.
        """
        outcome = "failed"
        for at in range(0, len(node_ids), NODES_PER_CALL_MAX):
            outcome = await self._client.run(
                scripts.FAIL_DOWNSTREAM,
                (keys.ACTIVE, keys.CONTINUATIONS, self._stream),
                execution_id,
                node_id,
                now_ms(),
                "1" if at + NODES_PER_CALL_MAX >= len(node_ids) else "0",
                output,
                plan_digest,
                *node_ids[at : at + NODES_PER_CALL_MAX],
            )
        return outcome

    async def fail_execution(self, execution_id: str, reason: str) -> bool:
        """End an execution whose keys make no sense any more as FAILED; False if it had ended."""
        outcome = await self._client.run(
            scripts.FAIL_EXECUTION,
            (keys.status(execution_id), keys.run(execution_id), keys.ACTIVE, self._stream),
            execution_id,
            reason,
            now_ms(),
        )
        return bool(outcome == "failed")

    async def failure(self, execution_id: str) -> str | None:
        """The node of it that failed first, and why; None where none did by itself."""
        text = await self._read(execution_id, "HGET", keys.run(execution_id), "failure")
        return readable(str(text)) if text else None

    async def continuations(self, count_max: int) -> list[Continuation]:
        """What was left for a later call and is still to do, the oldest first."""
        members = await self._client.execute("ZRANGE", keys.CONTINUATIONS, 0, count_max - 1)
        return [parse_continuation(member) for member in members]

    async def drop_continuation(self, member: str) -> None:
        await self._client.execute("ZREM", keys.CONTINUATIONS, member)

    async def postpone_continuation(self, member: str) -> None:
        """Have all the others come before it."""
        await self._client.execute("ZADD", keys.CONTINUATIONS, "XX", now_ms(), member)

    async def definition(self, execution_id: str) -> bytes:
        """The stored definition (JSON). Raises UnknownExecution or CorruptExecution."""
        text = await self._read(execution_id, "GET", keys.definition(execution_id))
        if text is None:
            raise UnknownExecution(execution_id)
        return bytes(text, "utf-8", "surrogateescape")

    async def execution_status(self, execution_id: str) -> ExecutionState:
        """Raises UnknownExecution, or CorruptExecution when the key holds no state."""
        state = await self._read(execution_id, "GET", keys.status(execution_id))
        return self._state(execution_id, state)

    async def status_and_origin(
        self, execution_id: str
    ) -> tuple[ExecutionState, Kin | None, Origin]:
        """As `execution_status`, with what a child is to its parent, and where it comes from: read
        in one write."""
        asked = ("HMGET", keys.run(execution_id), "parent", *Origin._fields)
        state, run = await self._client.converse_freely([("GET", keys.status(execution_id)), asked])
        if is_wrong_type(state):
            raise CorruptExecution(execution_id, "its status is of another type")
        if is_wrong_type(run):
            return self._state(execution_id, state), None, NOWHERE
        return self._state(execution_id, state), parse_kin(run[0]), read_origin(run[1:])

    def _state(self, execution_id: str, state: str | None) -> ExecutionState:
        if state is None:
            raise UnknownExecution(execution_id)
        try:
            return parse_status(state)
        except ValueError:
            raise CorruptExecution(execution_id, f"its status is {state!r}") from None

    async def expect_known(self, execution_id: str) -> None:
        """Raises UnknownExecution for one that is not there, or is being deleted."""
        if not await self._client.execute("EXISTS", keys.status(execution_id)):
            raise UnknownExecution(execution_id)

    async def node_states(self, execution_id: str) -> dict[str, NodeState]:
        """The state of every node, by node id. Raises UnknownExecution or CorruptExecution."""
        found = await self._of_every_node(execution_id, keys.node)
        # Behind them: what was deleted meanwhile is unknown, and not damaged.
        await self.execution_status(execution_id)
        return parse_states(execution_id, found)

    async def statuses_and_definitions(
        self, execution_ids: Sequence[str]
    ) -> list[tuple[str | None, bytes | None]]:
        """What stands under these keys of each execution; None where it is gone or no string."""
        pairs = [(keys.status(one), keys.definition(one)) for one in execution_ids]
        if not pairs:
            return []
        found = await self._client.execute("MGET", *(key for pair in pairs for key in pair))
        return [
            (status, None if text is None else bytes(text, "utf-8", "surrogateescape"))
            for status, text in zip(found[::2], found[1::2], strict=True)
        ]

    async def states_of_nodes(
        self, node_ids: Mapping[str, Sequence[str]]
    ) -> dict[str, dict[str, str | None]]:
        """What stands under the state key of these nodes, by execution id and node id."""
        pairs = [(execution_id, one) for execution_id, some in node_ids.items() for one in some]
        found: dict[str, dict[str, str | None]] = {execution_id: {} for execution_id in node_ids}
        for some in slices(pairs, NODES_PER_CALL_MAX):
            values = await self._client.execute("MGET", *(keys.node(*pair) for pair in some))
            for (execution_id, node_id), value in zip(some, values, strict=True):
                found[execution_id][node_id] = value
        return found

    async def active_slice(self, cursor: str, count: int) -> tuple[str, list[str]]:
        """Some of the executions that run, and the cursor for more; `0` begins and ends."""
        next_cursor, execution_ids = await self._client.execute(
            "SSCAN", keys.ACTIVE, cursor, "COUNT", count
        )
        return next_cursor, execution_ids

    async def readmit_slice(
        self, cursor: str, count: int, *, names: bool = False
    ) -> tuple[str, list[str]]:
        """Of some of all executions those that run and were not among the active; they are now, and
        all of them are in the lists of their states, with `names` also in that of names.

        And the cursor for more; `0` begins and ends.
        """
        next_cursor, flat = await self._client.execute(
            "ZSCAN", keys.EXECUTIONS, cursor, "COUNT", count
        )
        found: list[str] = []
        if flat:
            found = await self._client.run(
                scripts.READMIT_EXECUTIONS,
                (keys.ACTIVE, keys.FINISHED, keys.NAMES),
                now_ms(),
                "1" if names else "0",
                *flat[::2],
            )
        return next_cursor, found

    async def attempts(self, execution_id: str, node_ids: Sequence[str]) -> list[str | None]:
        """The newest attempt record of each node, None before its first was recorded.

        Raises CorruptExecution.
        """
        records: list[str | None] = await self._read(
            execution_id, "HMGET", keys.attempts(execution_id), *node_ids
        )
        return records

    async def restore_node(
        self, execution_id: str, node_id: str, *, state: NodeState, record: str | None
    ) -> bool:
        """Give a node that has lost its entry a new one, unless it has moved on since.

        Raises CorruptExecution when the record is none.
        """
        if record and not record.split(" ", 1)[0].isdecimal():
            raise CorruptExecution(execution_id, f"the attempt of {node_id!r} is {record!r}")
        outcome: str = await self._client.run(
            scripts.RESTORE_NODE,
            (
                self._stream,
                keys.status(execution_id),
                keys.node(execution_id, node_id),
                keys.attempts(execution_id),
                keys.RETRIES,
                keys.ALARMS,
                keys.waits(execution_id),
            ),
            execution_id,
            node_id,
            state,
            record or "",
        )
        return outcome == "restored"

    async def _read(self, execution_id: str, *command: Argument) -> Any:
        """The reply to a read of one execution. A key of another type is its trouble alone."""
        try:
            return await self._client.execute(*command)
        except WrongType as error:
            reason = f"{command[1]!r} is of another type than flowd keeps there"
            raise CorruptExecution(execution_id, reason) from error

    async def _of_every_node(self, execution_id: str, key: Any) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for some in slices(await self.node_ids(execution_id), NODES_PER_CALL_MAX):
            values = await self._client.execute("MGET", *(key(execution_id, one) for one in some))
            found.update(zip(some, values, strict=True))
        return found

    async def node_ids(self, execution_id: str) -> list[str]:
        """In the order of the definition. Raises UnknownExecution or CorruptExecution."""
        definition = await self.definition(execution_id)
        with reading_definition(execution_id):
            return node_ids_of(definition)
