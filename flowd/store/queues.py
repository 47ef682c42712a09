"""The queues: a stream for each, how a worker reads several in order, and which there are.

A queue is known once an execution or a worker has named it, so that nobody has to look for its
stream among all keys.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import cycle
from typing import Any, Final

from redis.exceptions import ResponseError

from flowd.errors import MissingGroup
from flowd.store.entries import Entry, Garbage, name_in, parse_entry
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Argument, Command, RedisClient, script_call, translate
from flowd.workflow.ids import DEFAULT_QUEUE

# One read in so many begins with the other queues, so that those move at their share, too.
OTHERS_FIRST_EVERY: Final = 8
# Up to so many are taken of each queue at once, where there is room for all of them.
_OF_EACH_MAX: Final = 2
# Executions that are asked which queues they name, in one call.
_ASKED_MAX: Final = 2_000


class Queues:
    """All there are, and the group of each stream. Raises StoreUnavailable while Redis does not
    answer."""

    def __init__(self, client: RedisClient, stream: str, group: str) -> None:
        self._client = client
        self._base = stream
        self._group = group

    def stream(self, queue: str) -> str:
        return keys.task_stream(self._base, queue)

    async def known(self) -> list[str]:
        """The default queue first."""
        others: list[str] = await self._client.execute("SMEMBERS", keys.QUEUES)
        return [DEFAULT_QUEUE, *sorted(others)]

    async def streams(self) -> list[str]:
        return [self.stream(queue) for queue in await self.known()]

    async def ensure_groups(self, queues: Sequence[str] = ()) -> list[str]:
        """Make streams and groups where they are missing, of these queues too; those it made.

        A group that was destroyed begins anew behind what is in the stream: those entries were
        delivered once and may be running; recovery gives their nodes entries of their own.
        """
        known = await self.known()
        new = [one for one in queues if one not in known]
        made = [queue for queue in [*known, *new] if await self._ensure_group(self.stream(queue))]
        # Last: a queue that is known has a group, or has lost it.
        if new:
            await self._client.execute("SADD", keys.QUEUES, *new)
        return made

    async def unread(self) -> list[str]:
        """Those that no worker has read since the last of theirs was retired."""
        known = await self.known()
        asked = [("XINFO", "CONSUMERS", self.stream(queue), self._group) for queue in known]
        replies = await self._client.converse_freely(asked)
        return [queue for queue, consumers in zip(known, replies, strict=True) if consumers == []]

    async def prune(self) -> list[str]:
        """Forget the queues that are empty, that nobody reads, and that nothing that runs names."""
        names = (keys.QUEUES, keys.ACTIVE, self._base)
        pruned: list[str] = await self._client.run(
            scripts.PRUNE_QUEUES, names, self._group, _ASKED_MAX
        )
        return pruned

    async def _ensure_group(self, stream: str) -> bool:
        # A full server refuses to make a group, also one that is there.
        with contextlib.suppress(MissingGroup):
            await self.last_delivered_id(stream)
            return False
        start = "$" if await self._client.execute("EXISTS", stream) else "0"
        command = ("XGROUP", "CREATE", stream, self._group, start, "MKSTREAM")
        (reply,) = await self._client.converse_freely([command])
        if isinstance(reply, Exception):
            if "BUSYGROUP" in str(reply):
                return False
            raise translate(reply) from reply
        return True

    async def last_delivered_id(self, stream: str) -> str:
        """Entries up to this id were delivered to somebody. Raises MissingGroup."""
        for row in await self._client.execute("XINFO", "GROUPS", stream):
            described = dict(zip(row[::2], row[1::2], strict=True))
            if described["name"] == self._group:
                return str(described["last-delivered-id"])
        raise MissingGroup(f"NOGROUP no group {self._group!r}")


class Reader:
    """What one consumer asks its queues, in this order, and what the answers hold."""

    def __init__(self, stream: str, group: str, consumer: str, queues: Sequence[str]) -> None:
        self._group = group
        self._consumer = consumer
        # What the names of its entries begin with.
        self._prefix_of = {keys.task_stream(stream, one): name_in(one, "") for one in queues}
        self.queues = tuple(queues)
        self._streams = tuple(self._prefix_of)
        self._orders = cycle(_orders(self._streams))
        self._is_call = False
        self._is_enough = False
        self._asked = 0

    def take(self, count: int, room: int = 0) -> Command:
        """Up to so many that nobody has, or of each queue, where there is `room` for all of them.

        The command alone costs the server a quarter of what the script does: so it is the first
        queue that is asked, as long as that gives as many as there is room for.
        """
        if len(self._streams) == 1:
            return self._read(count, self._streams, ">")
        order = next(self._orders)
        is_turn_of_others = order[0] != self._streams[0]
        self._is_call = False
        self._asked = 0 if is_turn_of_others else count
        if not is_turn_of_others:
            if count <= _OF_EACH_MAX and count * len(order) <= room:
                return self._read(count, order, ">")
            if self._is_enough:
                return self._read(count, order[:1], ">")
        self._is_call = True
        return script_call(scripts.TAKE_ENTRIES, order, [self._group, self._consumer, count])

    def wait(self, block_ms: int) -> Command:
        """The next one, and one of each queue where several have one at once."""
        return self._read(1, self._streams, ">", "BLOCK", block_ms)

    def own(self, stream: str, count: int, after: str) -> Command:
        """Those that the consumer holds already."""
        return self._read(count, (stream,), after)

    @property
    def streams(self) -> Sequence[str]:
        return self._streams

    def _read(self, count: int, streams: Sequence[str], after: str, *options: Argument) -> Command:
        head = ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", count, *options)
        return (*head, "STREAMS", *streams, *[after] * len(streams))

    def taken(self, reply: Any) -> tuple[list[Entry | Garbage], Exception | None]:
        """What was taken, and what one of the queues has said instead."""
        if isinstance(reply, Exception):
            self._is_enough = False
            return [], reply
        found, trouble = reply if self._is_call else (reply, "")
        if self._asked:
            # It has given all of them, and the others nothing.
            given = [(stream, len(rows)) for stream, rows in found or ()]
            self._is_enough = given == [(self._streams[0], self._asked)]
        return self.entries(found), ResponseError(trouble) if trouble else None

    def entries(self, reply: Any) -> list[Entry | Garbage]:
        """Those of an XREADGROUP that were not deleted meanwhile."""
        found: list[Entry | Garbage | None] = []
        for stream, rows in reply or ():
            prefix = self._prefix_of[stream]
            found += [parse_entry(prefix + entry_id, fields) for entry_id, fields in rows]
        return [entry for entry in found if entry is not None]


def _orders(streams: tuple[str, ...]) -> list[tuple[str, ...]]:
    """In which order one read after the other goes by the streams: in theirs, but for those that
    begin with the others, each time with another."""
    first, others = streams[0], streams[1:]
    orders = []
    for at in range(max(1, len(others))):
        orders += [streams] * (OTHERS_FIRST_EVERY - 1)
        orders.append((*others[at:], *others[:at], first))
    return orders
