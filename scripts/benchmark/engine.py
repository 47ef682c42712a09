"""Drive one flowd through its store: submit, trigger, wait for the end, and check what happened.

Many calls go out in one write, so that the bench is never what the engine waits for. They are the
store's own calls, caught where the store hands them to its client.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from flowd.config import Settings
from flowd.store.executions import Executions
from flowd.store.maps import Maps
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import script_call
from flowd.store.submissions import Submissions
from scripts.benchmark.line import Command, Line, Watch, pack
from scripts.benchmark.processes import Void
from scripts.benchmark.shapes import Shape
from scripts.benchmark.stack import Stack

_OF_AN_EXECUTION = re.compile(rb"workflow:([0-9a-f]{24})(?::|$)")
_SCAN_COUNT = 5000
_EXECUTIONS_PER_CHECK = 1000
_OUTPUT = b'{"status":"ok"}'


def memory_bytes(line: Line) -> int:
    """What the server's data takes: all it uses but the buffers of its connections."""
    info = line.ask("INFO", "memory").decode()
    facts = dict(row.split(":", 1) for row in info.splitlines() if ":" in row)
    return int(facts["used_memory"]) - int(facts["mem_clients_normal"])


class _Calls:
    """Stands where the store's client stands, and keeps the calls instead of making them."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.scripts: set[scripts.Script] = set()

    async def run(self, script: scripts.Script, key_names: Sequence[str], *arguments: Any) -> str:
        self.scripts.add(script)
        self.commands.append(script_call(script, key_names, arguments))
        # What lets a submission of many nodes go on to its last call.
        return "staged"

    async def execute(self, *command: Any) -> None:
        self.commands.append(command)

    async def converse(self, commands: Sequence[Command]) -> list[Any]:
        self.commands += commands
        return []


class BenchedEngine:
    """A stack that is ready, as one who measures it sees it."""

    def __init__(self, stack: Stack) -> None:
        self._settings = stack.settings
        self.socket_path = stack.socket_path
        self.line = Line(stack.socket_path)
        self._watch = Watch(stack.socket_path)
        self._entries_before = 0
        self._kept: frozenset[bytes] = frozenset()
        self._kept_entries = 0
        self._loaded: set[scripts.Script] = set()

    def __enter__(self) -> BenchedEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.close()
        self.line.close()

    @property
    def settings(self) -> Settings:
        return self._settings

    def run_one(self, shape: Shape) -> float:
        """Seconds from the trigger to the end of one execution, alone; checked and cleared."""
        (execution_id,) = self.submit(shape)
        trigger = pack(self._trigger_calls([execution_id]))
        self.expect_end(shape, execution_id)
        begin = time.perf_counter()
        self.line.send(trigger)
        end = self.await_end(shape, execution_id)
        self.line.read()
        self.check(shape, [execution_id])
        if self._kept:
            # A walk over all keys leaves nothing of what the next run needs in the caches.
            self.line.ask("UNLINK", *_keys(shape, execution_id))
        else:
            self.clear()
        return end - begin

    def expect_end(self, shape: Shape, execution_id: str) -> None:
        """Make ready for `await_end`, without waiting for anything."""
        self._watch.begin(keys.output(execution_id, shape.last))

    def await_end(self, shape: Shape, execution_id: str) -> float:
        """When the execution ended, which may have been before this call.

        The last node's output is written in the call that ends the execution. Where it was not,
        the status is waited for.
        """
        self._watch.wait_until_written(keys.output(execution_id, shape.last))
        end = time.perf_counter()
        if self._watch.wait_while(keys.status(execution_id), b"RUNNING"):
            end = time.perf_counter()
        return end

    def run_many(self, shape: Shape, count: int, *inputs: bytes) -> float:
        """Seconds from the first of `count` triggers to the last end; checked and cleared. With an
        input for each, or none."""
        execution_ids = self.submit(shape, count)
        triggers = pack(self._trigger_calls(execution_ids, inputs))
        begin = time.perf_counter()
        self.line.send(triggers)
        for _ in execution_ids:
            self.line.read()
        self.wait_until_idle()
        seconds = time.perf_counter() - begin
        self.check(shape, execution_ids)
        self.clear()
        return seconds

    def submit(self, shape: Shape, count: int = 1) -> list[str]:
        """The ids of new executions. What `check` counts begins here."""
        self.begin_to_count()
        calls, executions = self._catching()
        submissions = Submissions(calls, self._settings, executions, Maps(calls, self._settings))
        execution_ids = asyncio.run(_submit(submissions, shape, count))
        self._load(calls.scripts)
        self.line.ask_all(calls.commands)
        return execution_ids

    def begin_to_count(self) -> None:
        """The next `check` is told of everything that is run from now on."""
        self._entries_before = self._entries_added()

    def trigger(self, execution_ids: Sequence[str], *inputs: bytes) -> None:
        """With an input for each, or none."""
        self.line.ask_all(self._trigger_calls(execution_ids, inputs))

    def _trigger_calls(
        self, execution_ids: Sequence[str], inputs: Sequence[bytes] = ()
    ) -> list[Command]:
        calls, executions = self._catching()
        asyncio.run(_trigger(executions, execution_ids, inputs))
        self._load(calls.scripts)
        return calls.commands

    def _load(self, called: set[scripts.Script]) -> None:
        """Load what is called for the first time, as the store's client does."""
        for script in called - self._loaded:
            self.line.ask("SCRIPT", "LOAD", script.text)
        self._loaded |= called

    def _catching(self) -> tuple[_Calls, Executions]:
        calls = _Calls()
        return calls, Executions(calls, self._settings)

    def wait_until_idle(self) -> None:
        """Return when no execution runs any more.

        Waits for one of those that run, picked at random, and looks again: a dozen looks for
        thousands of executions, and the last of them is never missed.
        """
        while (execution_id := self.line.ask("SRANDMEMBER", keys.ACTIVE)) is not None:
            self._watch.wait_while(keys.status(execution_id.decode()), b"RUNNING")

    def keep(self, execution_ids: Sequence[str], entries: int | None = None) -> None:
        """Executions that every check and every clearing leaves be, with so many entries: of one
        running node each, by default."""
        self._kept = frozenset(one.encode() for one in execution_ids)
        self._kept_entries = len(self._kept) if entries is None else entries

    def check(self, shape: Shape, execution_ids: Sequence[str]) -> None:
        """Every node COMPLETED exactly once, since the count began. Raises Void.

        Each node has one output and ended in its first attempt, and the stream was given no more
        entries than there are nodes; a map has one for each item, and two of its own.
        """
        if shape.items:
            self._check_maps(shape, execution_ids)
        else:
            self.check_nodes(shape, execution_ids)
        added = self._entries_added() - self._entries_before
        expected = (shape.size + (2 if shape.items else 0)) * len(execution_ids)
        if added != expected:
            raise Void(f"{expected} nodes were given {added} entries")

    def _check_maps(self, shape: Shape, execution_ids: Sequence[str]) -> None:
        results = b",".join([_OUTPUT] * shape.items)
        expected = b'{"results":[%s],"count":%d,"failed":[]}' % (results, shape.items)
        for execution_id in execution_ids:
            status, output = self.line.ask_all(
                [
                    ("GET", keys.status(execution_id)),
                    ("GET", keys.output(execution_id, shape.last)),
                ]
            )
            if (status, output) != (b"COMPLETED", expected):
                raise Void(f"{shape.name} {execution_id} is {status!r}, or has another output")

    def check_nodes(self, shape: Shape, execution_ids: Sequence[str]) -> None:
        """As `check`, without the count of entries."""
        for at in range(0, len(execution_ids), _EXECUTIONS_PER_CHECK):
            self._check_executions(shape, execution_ids[at : at + _EXECUTIONS_PER_CHECK])
        stream, group = self._settings.tasks.stream, self._settings.tasks.group
        length, pending, dead = self.line.ask_all(
            [("XLEN", stream), ("XPENDING", stream, group), ("XLEN", keys.DEAD_LETTERS)]
        )
        running = self._kept_entries
        if (length, pending[0], dead) != (running, running, 0):
            raise Void(f"{length} entries, {pending[0]} pending, {dead} dead letters are left")

    def _check_executions(self, shape: Shape, execution_ids: Sequence[str]) -> None:
        replies = iter(self.line.ask_all([one for i in execution_ids for one in _reads(shape, i)]))
        for execution_id in execution_ids:
            status, states, outputs, records = (next(replies) for _ in range(4))
            found = f"{shape.name} {execution_id}"
            is_skipped = [one in shape.skipped for one in shape.node_ids]
            wanted = [b"SKIPPED" if skipped else b"COMPLETED" for skipped in is_skipped]
            if status != b"COMPLETED" or states != wanted:
                raise Void(f"{found} is {status!r}, its nodes {sorted(set(states), key=str)}")
            if outputs != [None if skipped else _OUTPUT for skipped in is_skipped]:
                raise Void(f"{found} has a node with another output")
            if len(records) != shape.size or not all(one.startswith(b"1 ") for one in records):
                raise Void(f"{found} has a node that did not end in its first attempt")

    def _entries_added(self) -> int:
        stream = self._settings.tasks.stream
        if not self.line.ask("EXISTS", stream):
            return 0
        facts = self.line.ask("XINFO", "STREAM", stream)
        return int(dict(zip(facts[::2], facts[1::2], strict=True))[b"entries-added"])

    def clear(self) -> None:
        """Remove everything that belongs to executions, so that no run carries another's load."""
        cursor = b""
        while cursor != b"0":
            cursor, names = self.line.ask("SCAN", cursor or b"0", "COUNT", _SCAN_COUNT)
            mine = [name for name in names if self._is_done_with(name)]
            if mine:
                self.line.ask("UNLINK", *mine)

    def _is_done_with(self, name: bytes) -> bool:
        found = _OF_AN_EXECUTION.match(name)
        return found is not None and found[1] not in self._kept


async def _submit(submissions: Submissions, shape: Shape, count: int) -> list[str]:
    return [await submissions.submit_workflow(shape.definition, shape.plan) for _ in range(count)]


async def _trigger(
    executions: Executions, execution_ids: Sequence[str], inputs: Sequence[bytes]
) -> None:
    for execution_id, given in zip_longest(execution_ids, inputs, fillvalue=b""):
        await executions.trigger_workflow(str(execution_id), bytes(given))


def _keys(shape: Shape, execution_id: str) -> list[str]:
    of_nodes = [
        key(execution_id, one) for key in (keys.node, keys.output) for one in shape.node_ids
    ]
    whole = (keys.definition, keys.status, keys.run, keys.attempts)
    return [*(key(execution_id) for key in whole), *of_nodes]


def _reads(shape: Shape, execution_id: str) -> list[Command]:
    """Status, node states, outputs and attempt records of one execution."""
    return [
        ("GET", keys.status(execution_id)),
        ("MGET", *(keys.node(execution_id, one) for one in shape.node_ids)),
        ("MGET", *(keys.output(execution_id, one) for one in shape.node_ids)),
        ("HVALS", keys.attempts(execution_id)),
    ]
