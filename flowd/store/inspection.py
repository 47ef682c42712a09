"""Everything there is in Redis, a slice at a time, for those who check whether it adds up.

Reads only. What is read in several calls may have moved in between.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from flowd.config import Settings
from flowd.errors import MissingGroup, WrongType
from flowd.store.entries import name_in
from flowd.store.executions import age_ms, parse_continuation
from flowd.store.queues import Queues
from flowd.store.redis import keys
from flowd.store.redis.client import Command, RedisClient, is_wrong_type, translate
from flowd.store.redis.text import count_of

# A thousand keys hold the server for well under a millisecond.
SLICE: Final = 1_000
_LOG = re.compile(r"workflow:([0-9a-f]{24}):log:([^:]+):([0-9]{1,9})$")
_OF_EXECUTION = re.compile(r"workflow:([0-9a-f]{24})(?::(?:node:([^:]+)$)?|$)")

NodeKey = tuple[str, str]
# The execution, the node, and which attempt of it.
LogKey = tuple[str, str, int]


class Mistyped(NamedTuple):
    key: str
    found: str
    expected: str


@dataclass(slots=True)
class KeySlice:
    """The executions some keys are about, and the states of nodes and the logs among them."""

    execution_ids: set[str] = field(default_factory=set)
    node_states: dict[NodeKey, str | None] = field(default_factory=dict)
    logs: set[LogKey] = field(default_factory=set)


class Consumer(NamedTuple):
    name: str
    pending: int


class Begun(NamedTuple):
    """Work that was left for a later call."""

    what: str
    execution_id: str
    age_ms: int


class Inspection:
    """Raises StoreUnavailable while Redis does not answer, WrongType where a key is of another
    type than flowd keeps there: `mistyped` says which."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._stream = settings.tasks.stream
        self._group = settings.tasks.group
        self._queues = Queues(client, self._stream, self._group)

    async def mistyped(self) -> list[Mistyped]:
        """The keys shared by all executions that are of another type than flowd keeps there."""
        types = {**keys.shared_types(self._stream), keys.SCHEDULER: "string"}
        with contextlib.suppress(WrongType):
            types |= dict.fromkeys(await self._queues.streams(), "stream")
        found = await self._client.converse([("TYPE", key) for key in types])
        return [
            Mistyped(key, one, types[key])
            for key, one in zip(types, found, strict=True)
            if one not in ("none", types[key])
        ]

    async def key_slice(self, cursor: str) -> tuple[str, KeySlice]:
        """Some of the keys of executions, and the cursor for more; `0` begins and ends."""
        next_cursor, names = await self._client.execute(
            "SCAN", cursor, "MATCH", "workflow:*", "COUNT", SLICE
        )
        found = KeySlice()
        nodes: list[NodeKey] = []
        for name in names:
            if about := _OF_EXECUTION.match(name):
                found.execution_ids.add(about[1])
                if about[2]:
                    nodes.append((about[1], about[2]))
            if log := _LOG.match(name):
                found.logs.add((log[1], log[2], int(log[3])))
        if nodes:
            states = await self._client.execute("MGET", *(keys.node(*one) for one in nodes))
            found.node_states = dict(zip(nodes, states, strict=True))
        return next_cursor, found

    async def definition_sizes(self, execution_ids: Sequence[str]) -> list[int]:
        """Bytes of each definition; 0 where it is gone or no string."""
        commands = [("STRLEN", keys.definition(one)) for one in execution_ids]
        replies = await self._client.converse_freely(commands) if commands else []
        return [0 if is_wrong_type(reply) else reply for reply in replies]

    async def node_counts(self, execution_ids: Sequence[str]) -> list[int]:
        """How many nodes each has; 0 where nothing says so any more."""
        commands = [("HGET", keys.run(one), "nodes") for one in execution_ids]
        replies = await self._client.converse_freely(commands) if commands else []
        texts = ("" if is_wrong_type(reply) else reply or "" for reply in replies)
        return [int(text[:9]) if text.isdecimal() else 0 for text in texts]

    async def known(self) -> set[str]:
        """The executions of the index."""
        return await self._members("ZSCAN", keys.EXECUTIONS)

    async def finished(self) -> set[str]:
        return await self._members("ZSCAN", keys.FINISHED)

    async def active(self) -> set[str]:
        return await self._members("SSCAN", keys.ACTIVE)

    async def _members(self, command: str, key: str) -> set[str]:
        found: set[str] = set()
        cursor = "0"
        while True:
            cursor, flat = await self._client.execute(command, key, cursor, "COUNT", SLICE)
            found.update(flat[::2] if command == "ZSCAN" else flat)
            if cursor == "0":
                return found

    async def label_lists(self) -> dict[str, set[str] | None]:
        """The executions that are listed under each label, `name=value`; None for no list."""
        found: dict[str, set[str] | None] = {}
        cursor = "0"
        while True:
            cursor, names = await self._client.execute(
                "SCAN", cursor, "MATCH", keys.label("*"), "COUNT", SLICE
            )
            for name in names:
                try:
                    members: set[str] | None = await self._members("ZSCAN", name)
                except WrongType:
                    members = None
                found[name.removeprefix(keys.label(""))] = members
            if cursor == "0":
                return found

    async def labels_of(self, execution_ids: Sequence[str]) -> list[list[str]]:
        """The labels of each execution, `name=value`."""
        commands: list[Command] = [("HGET", keys.run(one), "labels") for one in execution_ids]
        replies = await self._client.converse_freely(commands) if commands else []
        return [
            reply.split("\n") if reply and not is_wrong_type(reply) else [] for reply in replies
        ]

    async def existing(self, execution_ids: Sequence[str]) -> set[str]:
        """Of these executions those that have a status."""
        commands: list[Command] = [("EXISTS", keys.status(one)) for one in execution_ids]
        replies = await self._client.converse(commands) if commands else []
        return {one for one, is_there in zip(execution_ids, replies, strict=True) if is_there}

    async def listed_logs(self, execution_ids: Sequence[str]) -> set[LogKey]:
        """The logs that these executions list."""
        commands: list[Command] = [("ZRANGE", keys.logs(one), 0, -1) for one in execution_ids]
        replies = await self._client.converse_freely(commands) if commands else []
        return {
            (execution_id, *name)
            for execution_id, reply in zip(execution_ids, replies, strict=True)
            for name in ([] if is_wrong_type(reply) else map(_numbered, reply))
        }

    async def earlier_attempts(self, execution_ids: Sequence[str]) -> dict[NodeKey, list[int]]:
        """The numbers of the attempts before the newest that are kept, of each node with such."""
        commands: list[Command] = [("HKEYS", keys.history(one)) for one in execution_ids]
        replies = await self._client.converse_freely(commands) if commands else []
        found: dict[NodeKey, list[int]] = {}
        for execution_id, reply in zip(execution_ids, replies, strict=True):
            for node_id, attempt in [] if is_wrong_type(reply) else map(_numbered, reply):
                found.setdefault((execution_id, node_id), []).append(attempt)
        return found

    async def newest_attempts(self, nodes: Sequence[NodeKey]) -> dict[NodeKey, int]:
        """The numbers that their records say."""
        commands: list[Command] = [("HGET", keys.attempts(one), node_id) for one, node_id in nodes]
        replies = await self._client.converse_freely(commands) if commands else []
        texts = ("" if is_wrong_type(reply) else reply or "" for reply in replies)
        pairs = zip(nodes, (count_of(text.partition(" ")[0]) for text in texts), strict=True)
        return {node: number for node, number in pairs if number}

    async def begun(self) -> list[Begun]:
        """All that was left for a later call; `what` is its verb and its node."""
        flat = await self._client.execute("ZRANGE", keys.CONTINUATIONS, 0, -1, "WITHSCORES")
        found = []
        for member, began_ms in zip(flat[::2], flat[1::2], strict=True):
            verb, execution_id, node_id, _ = parse_continuation(member)
            found.append(Begun(f"{verb} {node_id}".rstrip(), execution_id, age_ms(began_ms)))
        return found

    async def consumers(self) -> list[Consumer]:
        """Who reads each queue, and how many of its entries it holds. A queue whose group is gone,
        which the next tick of a scheduler makes, is read by nobody."""
        commands: list[Command] = [
            ("XINFO", "CONSUMERS", stream, self._group) for stream in await self._queues.streams()
        ]
        found = []
        for reply in await self._client.converse_freely(commands):
            if not _is_group_missing(reply):
                found += [Consumer(row["name"], row["pending"]) for row in map(_named, reply)]
        return found

    async def holders(self) -> dict[str, str]:
        """Which consumer holds which entry, by the name of that."""
        found: dict[str, str] = {}
        for queue in await self._queues.known():
            start = "-"
            while True:
                command = ("XPENDING", self._queues.stream(queue), self._group, start, "+", SLICE)
                (rows,) = await self._client.converse_freely([command])
                if _is_group_missing(rows):
                    break
                found.update((name_in(queue, row[0]), row[1]) for row in rows)
                if len(rows) < SLICE:
                    break
                start = f"({rows[-1][0]}"
        return found

    async def leases(self) -> set[str]:
        """The consumers that have a lease."""
        return set(await self._client.execute("HKEYS", keys.LEASES))


def _numbered(member: str) -> tuple[str, int]:
    """`node attempt`, as logs and attempts are named."""
    node_id, _, attempt = member.rpartition(" ")
    return node_id, count_of(attempt)


def _is_group_missing(reply: Any) -> bool:
    """Raises any other error that was answered."""
    if not isinstance(reply, Exception):
        return False
    error = translate(reply)
    if not isinstance(error, MissingGroup):
        raise error from reply
    return True


def _named(row: Any) -> dict[str, Any]:
    return dict(zip(row[::2], row[1::2], strict=True))
