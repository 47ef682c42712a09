"""What can be measured of the store, what the workers have counted, and who has shown life."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flowd.config import Settings
from flowd.errors import CorruptStore, MissingGroup, WrongType
from flowd.replicas import Replica
from flowd.store.executions import now_ms
from flowd.store.fitness import Fitness, judge, questions, shortages
from flowd.store.queues import Queues
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Command, RedisClient, translate
from flowd.store.redis.connecting import parse_info, parse_replicas
from flowd.store.redis.text import count_of
from flowd.workflow.states import ExecutionState

PROBE_EXPIRES_MS: Final = 10_000
# A scheduler that has not ticked for five intervals is none; it may be late by this much always.
BEAT_EXPIRES_S_MIN: Final = 2.0
BEAT_INTERVALS: Final = 5
# Of a latency: bucket n holds what took at most 2^n ms (17 minutes in the last but one).
BUCKETS: Final = 22
# Of the commands of a snapshot.
_INFO_PLACE: Final = 11


@dataclass(frozen=True, slots=True)
class Queue:
    """The task stream. `waiting` was given to no worker yet, `in_flight` to one."""

    entries: int
    in_flight: int
    waiting: int
    oldest_age_ms: int


def _together(queues: Iterable[Queue]) -> Queue:
    each = tuple(queues)
    return Queue(
        sum(one.entries for one in each),
        sum(one.in_flight for one in each),
        sum(one.waiting for one in each),
        max(one.oldest_age_ms for one in each),
    )


@dataclass(frozen=True, slots=True)
class Snapshot:
    executions: Mapping[ExecutionState, int]
    finished: int
    queues: Mapping[str, Queue]
    workers: int
    retries: int
    retries_due: int
    dead_letters: int
    events: int
    callbacks: int
    # Executions that wait for a place of their workflow's `concurrency`.
    places_awaited: int
    # None where the user of this Redis may not ask (INFO).
    memory_used: int | None
    memory_max: int | None
    replicas: tuple[Replica, ...] | None
    counts: Mapping[str, int]

    @property
    def queue(self) -> Queue:
        """What stands in all of them together."""
        return _together(self.queues.values())


def parse_tick(text: Any, server_time: Sequence[str]) -> int | None:
    """When a scheduler ticked, ms; None for what is no such time, or one that is still to come: the
    clock was put back, so that the key expires too late, and nobody has ticked since."""
    if not (isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) <= 18):
        return None
    return int(text) if int(text) // 1000 <= int(server_time[0]) else None


class Metrics:
    """Raises StoreUnavailable while Redis does not answer."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._questions = questions(settings)
        self._replicas = settings.redis.replicas
        self._group = settings.tasks.group
        self._queues = Queues(client, settings.tasks.stream, self._group)
        self._beat_ms = int(
            1000 * max(BEAT_EXPIRES_S_MIN, BEAT_INTERVALS * settings.scheduler.interval_s)
        )

    async def beat(self) -> None:
        """A scheduler ticked."""
        await self._client.unconfirmed.run(scripts.NOTE_TICK, (keys.SCHEDULER,), self._beat_ms)

    async def add(self, increments: Mapping[str, int]) -> None:
        """Add to the counts all processes share, in one write."""
        commands: list[Command] = [
            ("HINCRBY", keys.METRICS, field, by) for field, by in increments.items()
        ]
        if commands:
            await self._client.unconfirmed.converse(commands)

    async def write_probe(self) -> None:
        """Raises StoreError unless Redis takes a write."""
        await self._client.execute("SET", keys.READY_PROBE, now_ms(), "PX", PROBE_EXPIRES_MS)

    async def fitness(self) -> Fitness:
        """What is wrong with this Redis, and what it may lose."""
        return judge(await self._client.converse_freely(self._questions), self._replicas)

    async def shortages(self) -> tuple[str, ...]:
        """Those of `fitness` alone."""
        (info,) = await self._client.converse_freely([("INFO", "memory")])
        return () if isinstance(info, Exception) else shortages(parse_info(info))

    @property
    def primary(self) -> str | None:
        """The server that takes writes, as `host:port` or `unix:/path`; None while none does."""
        return self._client.primary

    async def ticked_ms(self) -> int | None:
        """When a scheduler ticked last; None when none has shown life for a while."""
        return parse_tick(*await self._client.converse([("GET", keys.SCHEDULER), ("TIME",)]))

    async def workers(self) -> int:
        count: int = await self._client.execute("HLEN", keys.LEASES)
        return count

    async def queue(self) -> Queue:
        """What stands in all queues together."""
        return _together((await self.queues()).values())

    async def queues(self) -> dict[str, Queue]:
        """Each queue by its name, the default one first."""
        known = await self._queues.known()
        replies = await self._client.converse_freely(self._queue_commands(known))
        return self._by_queue(known, replies)

    async def snapshot(self) -> Snapshot:
        """All numbers there are, in a handful of calls however much Redis holds."""
        ahead_ms = await self._client.execute("HGET", keys.CLOCK, "ahead_ms")
        queues = await self._queues.known()
        now = now_ms() + count_of(ahead_ms)
        asked: list[Command] = [
            ("ZCARD", keys.EXECUTIONS),
            ("ZCARD", keys.FINISHED),
            ("SCARD", keys.ACTIVE),
            ("HLEN", keys.LEASES),
            ("ZCARD", keys.RETRIES),
            ("ZCOUNT", keys.RETRIES, "-inf", now),
            ("XLEN", keys.DEAD_LETTERS),
            ("XLEN", keys.EVENTS),
            ("ZCARD", keys.CALLBACKS),
            ("ZCARD", keys.PLACE_WAITERS),
            ("ZCARD", keys.by_status(ExecutionState.PAUSED)),
            ("INFO", "memory", "replication"),
            ("HGETALL", keys.METRICS),
            *self._queue_commands(queues),
        ]
        replies = await self._client.converse_freely(asked)
        for place, (command, reply) in enumerate(zip(asked, replies, strict=True)):
            if place != _INFO_PLACE:
                _expect_sound(command, reply)
        known, finished, active, workers, retries, due, dead, events, callbacks = replies[:9]
        waiters, paused = replies[9:11]
        info, flat = replies[_INFO_PLACE], replies[12]
        memory = None if isinstance(info, Exception) else parse_info(info)
        executions = {
            ExecutionState.RUNNING: max(0, active - paused),
            ExecutionState.PAUSED: paused,
            ExecutionState.PENDING: max(0, known - finished - active),
        }
        return Snapshot(
            executions=executions,
            finished=finished,
            queues=self._by_queue(queues, replies[13:]),
            workers=workers,
            retries=retries,
            retries_due=due,
            dead_letters=dead,
            events=events,
            callbacks=callbacks,
            places_awaited=waiters,
            memory_used=None if memory is None else int(memory.get("used_memory", 0)),
            memory_max=None if memory is None else int(memory.get("maxmemory", 0)),
            replicas=None if memory is None else parse_replicas(memory),
            counts={name: int(count) for name, count in zip(flat[::2], flat[1::2], strict=True)},
        )

    def _queue_commands(self, known: Sequence[str]) -> list[Command]:
        commands: list[Command] = [("TIME",)]
        for stream in map(self._queues.stream, known):
            commands.append(("XLEN", stream))
            commands.append(("XPENDING", stream, self._group))
            commands.append(("XRANGE", stream, "-", "+", "COUNT", 1))
        return commands

    def _by_queue(self, known: Sequence[str], replies: list[Any]) -> dict[str, Queue]:
        for command, reply in zip(self._queue_commands(known), replies, strict=True):
            _expect_sound(command, reply)
        server_time, *rest = replies
        return {
            queue: self._queue([*rest[3 * at : 3 * at + 3], server_time])
            for at, queue in enumerate(known)
        }

    def _queue(self, replies: list[Any]) -> Queue:
        """A group that is gone holds nothing: the scheduler makes it again."""
        entries, pending, oldest, (seconds, micros) = replies
        in_flight = 0 if isinstance(pending, Exception) else pending[0]
        age_ms = 0
        if oldest:
            redis_ms = int(seconds) * 1000 + int(micros) // 1000
            age_ms = max(0, redis_ms - int(oldest[0][0].partition("-")[0]))
        return Queue(entries, in_flight, max(0, entries - in_flight), age_ms)


def _expect_sound(command: Command, reply: Any) -> None:
    """Raises CorruptStore for a key of another type, and other errors but that of a lost group."""
    error = translate(reply) if isinstance(reply, Exception) else None
    if isinstance(error, WrongType):
        raise CorruptStore(str(command[1])) from error
    if error is not None and not isinstance(error, MissingGroup):
        raise error
