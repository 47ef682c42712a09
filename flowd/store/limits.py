"""Limits: how many nodes may run at once, and how often one may start; who holds, and who waits.

Holders and waiters are sets of nodes, never counters: whoever gives back twice gives back once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from flowd.config import Settings
from flowd.store.entries import Entry, entry_order
from flowd.store.executions import slices
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Argument, Command, RedisClient, is_wrong_type
from flowd.store.redis.text import count_of, readable
from flowd.store.waits import WaitRecord, parse_wait
from flowd.workflow.limiting import SLOT

PLACES_PER_CALL: Final = 500
# Who is shown of those that hold a place, or wait for one.
NODES_SHOWN_MAX: Final = 100
_CHECKED_PER_CALL: Final = 20
_RELEASED_PER_CALL: Final = 500
_UNLIMITED: Final = "-"
# Who waits for a place counts as having come so much later for each queue its worker takes from
# before its own. Longer than most rows of waiters take to pass: behind a row that is longer what is
# urgent would stand again. And short enough that what is low goes on the same day.
QUEUE_STEP_MS: Final = 3_600_000
# Of those that were queued in one millisecond so many keep their order; a float holds such
# fractions of a Unix time in ms exactly.
_ORDERED_PER_MS: Final = 2048


class Limit(NamedTuple):
    """What a limit says: `max` at once, `per_s` starts a second, `burst` of them together; None
    where it says nothing."""

    name: str
    max: int | None = None
    per_s: float | None = None
    burst: int | None = None


class Asking(NamedTuple):
    """A node that is to start, the place it needs, and the record of its attempt; `rank` is how
    many queues its worker takes from before that of the node."""

    entry: Entry
    place: str
    record: str
    rank: int = 0

    @property
    def turn_ms(self) -> float:
        """By when it counts as having come, among those who wait; the fraction is its place in the
        stream among those of its millisecond."""
        ms, sequence = entry_order(self.entry.name)
        after = min(sequence, _ORDERED_PER_MS - 1) / _ORDERED_PER_MS
        return ms + after + self.rank * QUEUE_STEP_MS


class Place(NamedTuple):
    """How many hold this place and wait for it."""

    place: str
    holders: int
    waiters: int


class Turn(NamedTuple):
    """A node that has held a place since `at_ms`, or that waits for one as if it had come then."""

    execution_id: str
    node_id: str
    at_ms: int


class Whose(NamedTuple):
    """Of an execution: the name of its workflow, and the digest of its plan where that has nodes in
    other queues than the default one; None where nobody knows it."""

    name: str | None
    plan: str | None


class Limits:
    """Every method raises StoreUnavailable while Redis does not answer; each may be repeated."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._stream = settings.tasks.stream
        self._group = settings.tasks.group

    async def put(self, limit: Limit) -> str:
        """`made`, `changed` or `unchanged`; whom it holds back no more starts at once."""
        said = [_UNLIMITED if one is None else f"{one:g}" for one in limit[1:]]
        outcome: str = await self._client.run(
            scripts.PUT_LIMIT, (keys.LIMITS, self._stream), limit.name, *said
        )
        return outcome

    async def delete(self, name: str) -> bool:
        """Lift a limit, and let everybody who waits run; False where there is none."""
        outcome = await self._client.run(scripts.PUT_LIMIT, (keys.LIMITS, self._stream), name)
        return bool(outcome == "lifted")

    async def find(self, name: str) -> Limit | None:
        text = await self._client.execute("HGET", keys.LIMITS, name)
        return None if text is None else _parse(name, text)

    async def all(self) -> list[Limit]:
        """By name."""
        flat = await self._client.execute("HGETALL", keys.LIMITS)
        return sorted(map(_parse, flat[::2], flat[1::2]))

    async def admit(self, asking: Sequence[Asking]) -> list[str]:
        """Ask for places; the outcome words of admit_nodes.lua."""
        arguments: list[Argument] = [self._group]
        for one in asking:
            entry = one.entry
            ids = (entry.name, entry.execution_id, entry.node_id)
            arguments += (one.place, *ids, one.record, entry.waits, str(one.turn_ms))
        outcomes: list[str] = await self._client.run(
            scripts.ADMIT_NODES, (self._stream,), *arguments
        )
        return outcomes

    async def release_all(self, execution_id: str) -> None:
        """Give back all places of an execution that runs no more, and strike off who waits."""
        nodes = await self._client.execute("HKEYS", keys.places(execution_id))
        for some in slices(nodes, _RELEASED_PER_CALL):
            arguments = [text for node_id in some for text in (execution_id, node_id)]
            await self._client.run(scripts.SETTLE_LIMITS, (self._stream,), *arguments)

    async def check_slice(self, after: str) -> tuple[str, int]:
        """Strike off who holds a place in vain, and give on what is free, of some places behind
        this one; the last of them, empty behind all, and how many were struck off."""
        reached, struck = await self._client.run(
            scripts.CHECK_LIMITS, (self._stream,), after, _CHECKED_PER_CALL
        )
        return reached, struck

    async def pages(self, name: str = "") -> AsyncIterator[list[Place]]:
        """The places that are held or waited for, of one limit or of all, by key; some at a
        time."""
        after = "-" if not name else f"[{name}/"
        until = "+" if not name else f"({name}0"
        if name:
            yield [one for one in await self.sizes([name]) if one.holders or one.waiters]
        while True:
            found = await self._client.execute(
                "ZRANGEBYLEX", keys.PLACES, after, until, "LIMIT", 0, PLACES_PER_CALL
            )
            if not found:
                return
            yield await self.sizes(found)
            after = f"({found[-1]}"

    async def totals(self, places_max: int) -> dict[str, tuple[int, int]]:
        """How many hold places of each limit, and wait for them; of those with very many keys that
        are in use, of the first."""
        found = {}
        for limit in await self.all():
            held = waiting = counted = 0
            async for page in self.pages(limit.name):
                held += sum(one.holders for one in page)
                waiting += sum(one.waiters for one in page)
                counted += len(page)
                if counted >= places_max:
                    break
            found[limit.name] = held, waiting
        return found

    async def sizes(self, places: Sequence[str]) -> list[Place]:
        commands: list[Command] = [
            ("ZCARD", key(place)) for place in places for key in (keys.holders, keys.waiters)
        ]
        counts = await self._client.converse(commands)
        return list(map(Place, places, counts[::2], counts[1::2]))

    async def holders(self, place: str, count_max: int = NODES_SHOWN_MAX) -> list[Turn]:
        """Who has held it longest."""
        return await self._turns(keys.holders(place), count_max)

    async def waiters(self, place: str, count_max: int = NODES_SHOWN_MAX) -> list[Turn]:
        """Who is next."""
        return await self._turns(keys.waiters(place), count_max)

    async def waiting_since(self, waiters: Sequence[Turn]) -> list[int | None]:
        """Since when each of these waits, in Unix ms; None where it waits no more."""
        asked: list[Command] = [
            ("HGET", keys.waits(one.execution_id), one.node_id) for one in waiters
        ]
        if not asked:
            return []
        ahead, *texts = await self._client.converse_freely(
            [("HGET", keys.CLOCK, "ahead_ms"), *asked]
        )
        ahead_ms = 0 if is_wrong_type(ahead) else count_of(ahead)
        waits = (None if is_wrong_type(text) else parse_wait(text) for text in texts)
        return [None if wait is None else wait.since_ms - ahead_ms for wait in waits]

    async def whose(self, execution_ids: Iterable[str]) -> dict[str, Whose]:
        """By execution."""
        ids = sorted(set(execution_ids))
        asked: list[Command] = [("HMGET", keys.run(one), "name", "queues", "plan") for one in ids]
        replies = await self._client.converse_freely(asked) if asked else []
        found = {}
        for one, reply in zip(ids, replies, strict=True):
            name, queues, plan = (None,) * 3 if is_wrong_type(reply) else reply
            found[one] = Whose(name and readable(name), plan if queues else None)
        return found

    async def ahead(self, place: str, execution_id: str, node_id: str) -> int | None:
        """How many are to be admitted before it; None where it does not wait for this place."""
        member = f"{execution_id} {node_id}"
        rank: int | None = await self._client.execute("ZRANK", keys.waiters(place), member)
        return rank

    async def queued(self, execution_id: str, waits: Mapping[str, WaitRecord | None]) -> set[str]:
        """The nodes of an execution, by what they wait for, that stand among those who wait for
        their place."""
        asked = {
            node_id: ("ZSCORE", keys.waiters(wait.text), f"{execution_id} {node_id}")
            for node_id, wait in waits.items()
            if wait is not None and wait.waker == SLOT
        }
        scores = await self._client.converse(list(asked.values())) if asked else []
        return {one for one, score in zip(asked, scores, strict=True) if score is not None}

    async def members(self, place: str) -> tuple[list[Turn], list[Turn]]:
        """All who hold it, and all who wait for it."""
        return await self._turns(keys.holders(place), 0), await self._turns(keys.waiters(place), 0)

    async def _turns(self, key: str, count_max: int) -> list[Turn]:
        flat = await self._client.execute("ZRANGE", key, 0, count_max - 1, "WITHSCORES")
        members = (member.partition(" ") for member in flat[::2])
        return [
            Turn(execution_id, node_id, int(float(at_ms)))
            for (execution_id, _, node_id), at_ms in zip(members, flat[1::2], strict=True)
        ]


def settle_arguments(entries: Sequence[Entry]) -> list[Argument]:
    """Of those whose attempts have ended, for settle_limits.lua."""
    return [text for one in entries for text in (one.execution_id, one.node_id)]


def _parse(name: str, text: str) -> Limit:
    """What is no number holds nobody back."""
    numbers: list[Any] = []
    for one in (text.split(" ") + [_UNLIMITED] * 3)[:3]:
        try:
            numbers.append(float(one))
        except ValueError:
            numbers.append(None)
    most, per_s, burst = numbers
    return Limit(
        name,
        None if most is None else int(most),
        per_s,
        None if burst is None else int(burst),
    )
