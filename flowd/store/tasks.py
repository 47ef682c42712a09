"""The task streams, one a queue: what is outstanding, who holds it, and how it changes hands.

An entry is one attempt of one node. It is delivered to one worker once; when that attempt is
taken away, the entry is closed and the next attempt gets an entry of its own. So the name of an
entry is the fence, and the list of pending entries of the group, of which each stream has one, is
the table of who runs what.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, NamedTuple

from flowd.config import Settings
from flowd.errors import MissingGroup, MissingScript, StoreFull, WrongType
from flowd.store.cache import Cache
from flowd.store.endings import COMMIT_MAX, Advance, Commits, Ending, Single
from flowd.store.entries import (
    Entry,
    Garbage,
    entry_order,
    id_of,
    name_in,
    parse_entry,
    queue_of,
)
from flowd.store.executions import now_ms
from flowd.store.facts import Facts
from flowd.store.limits import Limits, settle_arguments
from flowd.store.logs import LogSource, LogWriter, Silence
from flowd.store.queues import Queues, Reader
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import (
    Argument,
    Command,
    RedisClient,
    is_wrong_type,
    script_call,
    translate,
)
from flowd.store.waits import Waits
from flowd.workflow.ids import DEFAULT_QUEUE

# A node that was there at this many deaths of its worker, which prove nothing as others were there
# too, runs in a process of its own: if that dies as well, the node is given up.
DEATHS_BEFORE_APART: Final = 2
# One that goes on to lose its workers from in there is given up all the same, at this many.
DEATHS_MAX: Final = 10
# XPENDING and XRANGE pages: a hundred rows hold the server for well under a millisecond.
PAGE: Final = 100
BLOCK_MS: Final = 5_000


class Claim(NamedTuple):
    """A node that runs longer than one call to Redis, so that the world should hear of it."""

    entry: Entry
    record: str


@dataclass(slots=True)
class Exchange:
    """What one call brought back. The outcome words are those of the scripts, in order.

    So many entries were `asked` for. Those queued up to `halted_ms` may be of executions that are
    to start nothing; None where the call did not say.
    """

    completed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    claimed: list[str] = field(default_factory=list)
    entries: list[Entry | Garbage] = field(default_factory=list)
    is_group_missing: bool = False
    halted_ms: int | None = None
    asked: int = field(default=0, compare=False)


class Outstanding(NamedTuple):
    """What stands in a stream; `is_delivered` once it was given to somebody."""

    entry: Entry | Garbage
    is_delivered: bool


class TaskSession:
    """The conversation one worker has with the streams, under one consumer name."""

    def __init__(
        self,
        client: RedisClient,
        settings: Settings,
        consumer: str,
        queues: Sequence[str],
        logs: LogSource,
    ) -> None:
        self.consumer = consumer
        self._logs = logs
        self._log_writer = LogWriter(settings)
        self._stream = settings.tasks.stream
        self._group = settings.tasks.group
        self._session = client.new_session()
        # A blocked connection answers nothing else, so the doorbell has its own.
        self._doorbell = client.new_session()
        self._commits = Commits(self._stream, self._group, has_one_queue=len(queues) == 1)
        self._reader = Reader(self._stream, self._group, consumer, queues)

    @property
    def is_due(self) -> bool:
        """Whether something that nodes have said waits too long to be stored."""
        return self._logs.is_due

    def sort(self, completions: list[Advance]) -> None:
        """Into as few calls as they can be committed by."""
        self._commits.sort(completions)

    async def complete_and_claim(
        self,
        completions: Sequence[Advance],
        failures: Sequence[Single],
        claims: Sequence[Claim],
        read_max: int,
        room: int = 0,
    ) -> Exchange:
        """Commit what has ended and take up to `read_max` new entries, in one transaction.

        The read must not be a command of its own: another worker's blocked read would be served
        first, and every hop of a lone chain would change the process. Safe to send again after a
        lost reply: what was committed the first time is `stale` the second.

        Of the completions, which are all that advances dependents, and of the failures the first
        are sent, as many as one call bears; the outcomes say how many those were. What nodes have
        said travels with them. Places of limits that are given back put others in front of the
        workers in this very call: as many are read, where there is `room`.
        """
        advances = self._commits.advance_calls(completions)
        calls = advances + self._commits.calls(failures)
        commands = [script_call(*call) for call in calls]
        ended = (*completions[:COMMIT_MAX], *failures)
        holders = [one.entry for one in ended if one.entry.holds]
        if holders:
            commands.append(_settle_call(self._stream, holders))
            read_max = max(read_max, min(len(holders), room))
        if claims:
            commands.append(self._claim_call(claims))
        if read_max > 0:
            commands.append(self._reader.take(read_max, room))
        replies = await self._send(commands)

        exchange = Exchange(asked=read_max)
        if read_max > 0:
            self._take_entries(exchange, replies.pop())
        if claims:
            exchange.claimed = _outcomes(replies.pop())
        if holders:
            # What is damaged there is mended by the schedulers.
            is_wrong_type(replies.pop())
        for reply in replies[: len(advances)]:
            *outcomes, exchange.halted_ms = _outcomes(reply)
            exchange.completed += outcomes
        for reply in replies[len(advances) :]:
            outcome = _outcomes(reply)
            exchange.failed += outcome if isinstance(outcome, list) else [outcome]
        return exchange

    async def send_logs(self) -> None:
        """All that nodes have said, and nothing else: their attempts are given up."""
        while self._logs.is_pending:
            await self._send([])

    async def _send(self, commands: list[Command]) -> list[Any]:
        """Their replies. What nodes have said travels ahead of them."""
        pieces = self._logs.take() if self._logs.is_pending else ()
        if pieces:
            commands = [*map(self._log_writer.call, pieces), *commands]
        if not commands:
            return []
        replies = await self._converse(commands)
        replies = await self._with_scripts_loaded(commands, replies)
        if pieces:
            self._logs.settle(pieces, [*map(LogWriter.outcome, replies[: len(pieces)])])
        return replies[len(pieces) :]

    async def _converse(self, commands: Sequence[Command]) -> list[Any]:
        if len(commands) > 1:
            # Redis 7 at its memory limit refuses to queue a transaction, whatever is in it, but
            # takes each of these on its own. What was refused was not begun.
            with contextlib.suppress(StoreFull):
                return await self._session.transaction(commands)
        return await self._session.converse(commands)

    async def _with_scripts_loaded(
        self, commands: Sequence[Command], replies: list[Any]
    ) -> list[Any]:
        """Load and call again what the server did not have; the read has happened, keep it.

        Places are given back behind the endings, so that is called again as well.
        """
        forgotten = [
            at
            for at, reply in enumerate(replies)
            if isinstance(reply, Exception) and isinstance(translate(reply), MissingScript)
        ]
        if forgotten:
            missing = {commands[at][1] for at in forgotten}
            await self._session.load_scripts([one for one in scripts.ALL if one.sha in missing])
            behind = range(forgotten[0] + 1, len(commands))
            settled = [at for at in behind if commands[at][1] == scripts.SETTLE_LIMITS.sha]
            repeated = sorted({*forgotten, *settled})
            again = await self._session.converse([commands[at] for at in repeated])
            for at, reply in zip(repeated, again, strict=True):
                replies[at] = reply
        return replies

    def _take_entries(self, exchange: Exchange, reply: Any) -> None:
        exchange.entries, trouble = self._reader.taken(reply)
        if trouble is not None:
            error = translate(trouble)
            exchange.is_group_missing = isinstance(error, MissingGroup)
            # What was taken must not be lost; the next read meets the same trouble.
            if not exchange.is_group_missing and not exchange.entries:
                raise error from trouble

    def _claim_call(self, claims: Sequence[Claim]) -> Command:
        arguments: list[Argument] = [self._group, self.consumer]
        for entry, record in claims:
            arguments += (entry.name, entry.execution_id, entry.node_id, record)
        return script_call(scripts.CLAIM_NODES, (self._stream,), arguments)

    async def wait_for_entry(self) -> list[Entry | Garbage]:
        """Block until there is an entry, and take it; empty when none came for a while.

        Where several queues have one at once, it is one of each.
        """
        command = self._reader.wait(BLOCK_MS)
        reply = await self._doorbell.execute(*command, timeout_s=BLOCK_MS / 1000 + 5)
        return self._reader.entries(reply)

    async def own_entries(self) -> list[Entry | Garbage]:
        """Everything this consumer holds, also what came in replies that were lost."""
        found: list[Entry | Garbage] = []
        for stream in self._reader.streams:
            after = "0"
            while True:
                reply = await self._session.execute(*self._reader.own(stream, PAGE, after))
                rows = reply[0][1] if reply else []
                if not rows:
                    break
                found += self._reader.entries(reply)
                after = rows[-1][0]
        return found

    @property
    def queues(self) -> Sequence[str]:
        return self._reader.queues

    async def close(self) -> None:
        await self._doorbell.close()
        await self._session.close()


def _settle_call(stream: str, ended: Sequence[Entry]) -> Command:
    return script_call(scripts.SETTLE_LIMITS, (stream,), settle_arguments(ended))


def _outcomes(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise translate(reply) from reply
    return reply


class Tasks:
    """The streams as those see them who look after it: workers, leases, entries left behind."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._stream = settings.tasks.stream
        self._group = settings.tasks.group
        self._commits = Commits(self._stream, self._group)
        self.queues = Queues(client, self._stream, self._group)
        self.facts = Facts(client)
        self.cache = Cache(client, settings)
        self.limits = Limits(client, settings)
        self.waits = Waits(client, self._stream)

    def open_session(
        self,
        consumer: str,
        queues: Sequence[str] = (DEFAULT_QUEUE,),
        logs: LogSource | None = None,
    ) -> TaskSession:
        return TaskSession(self._client, self._settings, consumer, queues, logs or Silence())

    async def set_aside(self) -> list[str]:
        """Move what is damaged of the keys that all executions share out of the way; where to."""
        types = keys.shared_types(self._stream)
        with contextlib.suppress(WrongType):
            types |= dict.fromkeys(await self.queues.streams(), "stream")
        names = (keys.damaged(now_ms()), *types.values())
        moved: list[str] = await self._client.run(scripts.SET_ASIDE, tuple(types), *names)
        return moved

    async def enroll_worker(self, consumer: str, owner: bytes) -> None:
        """Give a worker its lease. `owner` (JSON) says which process it is."""
        names = (keys.LEASES, keys.WORKERS)
        await self._client.unconfirmed.run(scripts.ENROLL_WORKER, names, consumer, owner)

    async def renew_lease(self, consumer: str) -> bool:
        """False when the lease was given away: the worker must let go of everything it runs."""
        renew = self._client.unconfirmed.run
        outcome = await renew(scripts.RENEW_LEASE, (keys.LEASES,), consumer)
        return bool(outcome == "renewed")

    async def revoke_lease(self, consumer: str) -> None:
        """Take a worker's lease away; it hears so at its next renewal."""
        await self._client.execute("HDEL", keys.LEASES, consumer)

    async def leases(self) -> dict[str, int | None]:
        """Heartbeat sequence of every consumer, None for one without a lease that is any."""
        streams = await self.queues.streams()
        flat, *consumers = await self._client.converse(
            [
                ("HGETALL", keys.LEASES),
                *(("XINFO", "CONSUMERS", stream, self._group) for stream in streams),
            ]
        )
        found: dict[str, int | None] = {
            consumer: int(beat) if beat.isdecimal() else None
            for consumer, beat in zip(flat[::2], flat[1::2], strict=True)
        }
        for row in chain.from_iterable(consumers):
            described = dict(zip(row[::2], row[1::2], strict=True))
            found.setdefault(described["name"], None)
        return found

    async def owners(self) -> dict[str, str]:
        """What each enrolled consumer has said of itself (JSON), by consumer."""
        flat = await self._client.execute("HGETALL", keys.WORKERS)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def pending(self, consumer: str | None) -> list[str]:
        """The names of the entries of all queues that are delivered and not ended; of one consumer,
        or of all."""
        found: list[str] = []
        of_consumer = [consumer] if consumer else []
        for queue in await self.queues.known():
            start = "-"
            while True:
                command = ("XPENDING", self.queues.stream(queue), self._group, start, "+", PAGE)
                rows = await self._client.execute(*command, *of_consumer)
                if not rows:
                    break
                found += [name_in(queue, row[0]) for row in rows]
                start = f"({rows[-1][0]}"
        return found

    async def find_entry(self, name: str) -> Entry | Garbage | None:
        """None when it is not in its stream."""
        stream, entry_id = self.queues.stream(queue_of(name)), id_of(name)
        rows = await self._client.execute("XRANGE", stream, entry_id, entry_id)
        return parse_entry(name, rows[0][1]) if rows else None

    async def outstanding(self) -> AsyncIterator[list[Outstanding]]:
        """Everything outstanding, some at a time, the oldest of each queue first.

        What is delivered is read before what is there, so that who looks behind this at what is
        pending finds it, unless it ended meanwhile. Without a group nothing is.
        """
        for queue in await self.queues.known():
            stream = self.queues.stream(queue)
            last = (0, 0)
            with contextlib.suppress(MissingGroup):
                last = entry_order(await self.queues.last_delivered_id(stream))
            start = "-"
            while True:
                rows = await self._client.execute("XRANGE", stream, start, "+", "COUNT", 10 * PAGE)
                if not rows:
                    break
                page = ((name_in(queue, entry_id), fields) for entry_id, fields in rows)
                entries = [parse_entry(name, fields) for name, fields in page]
                yield [Outstanding(one, entry_order(one.name) <= last) for one in entries if one]
                start = f"({rows[-1][0]}"

    @property
    def failovers(self) -> int:
        """How often this process has met another primary than before."""
        return self._client.lineage.failovers

    async def entries_added(self) -> int:
        """How many entries the stream has had since it was made; none where there is no stream."""
        try:
            flat = await self._client.execute("XINFO", "STREAM", self._stream)
        except MissingGroup:
            return 0
        finally:
            self._client.lineage.note_heard()
        return int(dict(zip(flat[::2], flat[1::2], strict=True))["entries-added"])

    async def requeue_entry(
        self, name: str, consumer: str, *, is_death: bool = False
    ) -> tuple[str, Entry | Garbage | None]:
        """Give an entry's node to the others as its next attempt; see requeue_entry.lua."""
        outcome, *rest = await self._client.run(
            scripts.REQUEUE_ENTRY,
            (self._stream,),
            self._group,
            consumer,
            name,
            "1" if is_death else "0",
            DEATHS_MAX,
        )
        return outcome, parse_entry(name, rest[0] if rest else None)

    async def drop_ended(self, entries: Sequence[Entry]) -> int:
        """Take those that nobody has been given, and whose nodes run no more, out of queues that
        nobody reads; how many those were."""
        dropped = 0
        for at in range(0, len(entries), PAGE):
            named = ((one.name, one.execution_id, one.node_id) for one in entries[at : at + PAGE])
            arguments = chain([self._group], *named)
            dropped += await self._client.run(scripts.DROP_ENDED, (self._stream,), *arguments)
        return dropped

    async def end_attempt(self, ending: Ending) -> str:
        """Commit an ending outside of any worker; the outcome word of its script."""
        # Nobody knows here whether it holds a place; if so, that comes back in the same call.
        ending = ending._replace(entry=ending.entry._replace(holds=True))
        session = self.open_session(consumer="")
        try:
            if isinstance(ending, Single):
                exchange = await session.complete_and_claim([], [ending], [], read_max=0)
            else:
                exchange = await session.complete_and_claim([ending], [], [], read_max=0)
        finally:
            await session.close()
        (outcome,) = (*exchange.completed, *exchange.failed)
        return outcome

    async def bury_entry(self, name: str, reason: str) -> None:
        """Move an entry that nobody can run to the dead letters, with its raw fields."""
        await self._client.run(
            scripts.BURY_ENTRY,
            (self._stream, keys.DEAD_LETTERS),
            self._group,
            name,
            reason,
        )

    async def retire_worker(self, consumer: str) -> bool:
        """Forget a worker that holds nothing; False while it holds something."""
        outcome = await self._client.run(
            scripts.RETIRE_WORKER,
            (keys.LEASES, keys.WORKERS, *await self.queues.streams()),
            self._group,
            consumer,
        )
        return bool(outcome == "retired")
