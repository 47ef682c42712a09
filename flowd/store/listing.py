"""Executions in a list: the newest first, filtered, page by page; and one of them alone.

A page reads a bounded slice of the index. A row whose keys are damaged has nulls where nothing can
be said; an execution whose status is gone is being deleted, and is in no list any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from flowd.errors import CorruptExecution, UnknownExecution, WrongType
from flowd.store.budgets import TokenUsage
from flowd.store.indexes import Indexes
from flowd.store.origins import NOWHERE, Origin, read_origin
from flowd.store.redis import keys
from flowd.store.redis.client import Command, RedisClient, is_wrong_type, translate
from flowd.store.redis.text import raw_bytes, readable
from flowd.store.walks import ListWalk, Walk, shortest_walk
from flowd.workflow.graph import nodes_of
from flowd.workflow.ids import is_execution_id, time_of
from flowd.workflow.states import CANCELLING, ExecutionState, parse_status

# What one page may cost: executions looked at, and bytes of definitions read for their handlers.
SCANNED_MAX: Final = 2_000
DEFINITION_BYTES_MAX: Final = 16 * 1024 * 1024
_SLICE: Final = 200
_PLANS_KEPT_MAX: Final = 1_000
# A submission may take this long between the making of its id and its last call.
_SUBMISSION_MS: Final = 60_000
_ROW_FIELDS: Final = (
    "name",
    "nodes",
    "submitted_ms",
    "triggered_ms",
    "finished_ms",
    "rerun_of",
    "plan",
    "labels",
    "parent",
)
_RUN_FIELDS: Final = (
    *_ROW_FIELDS,
    "rerun_as",
    "error",
    "failure",
    "ends_as",
    *(f"tokens:{one}" for one in TokenUsage._fields),
)


@dataclass(frozen=True, slots=True)
class Filters:
    """What is listed; empty or None lets all pass. A `name` may end in `*`. Times are Unix ms."""

    statuses: frozenset[str] = frozenset()
    name: str | None = None
    handler: str | None = None
    submitted_after_ms: int | None = None
    submitted_before_ms: int | None = None
    # Each `name=value`; all have to be there.
    labels: tuple[str, ...] = ()
    # None that is the child of another one.
    roots_only: bool = False


@dataclass(frozen=True, slots=True)
class ExecutionRow:
    """`plan` is the digest of its definition. None where Redis holds nothing readable."""

    execution_id: str
    status: ExecutionState | None
    name: str | None = None
    nodes: int | None = None
    submitted_ms: int | None = None
    triggered_ms: int | None = None
    finished_ms: int | None = None
    rerun_of: str | None = None
    plan: str | None = None
    labels: frozenset[str] = frozenset()
    is_child: bool = False

    @property
    def duration_ms(self) -> int | None:
        if self.triggered_ms is None or self.finished_ms is None:
            return None
        return max(0, self.finished_ms - self.triggered_ms)


class ExecutionPage(NamedTuple):
    """`next_id` is where the next page begins, None at the end; a page may be short before it."""

    rows: list[ExecutionRow]
    next_id: str | None


@dataclass(frozen=True, slots=True)
class Details:
    """What the run hash says of an execution beyond its row: the newest one that reruns it, why it
    failed as a whole, the first node that failed, with why, what it has spent, and whether it was
    cancelled and runs its `finally`.
    """

    rerun_as: str | None
    error: str | None
    failure: str | None
    usage: TokenUsage
    is_cancelling: bool = False


class Listing:
    """Raises StoreUnavailable while Redis does not answer, CorruptStore when the index is none."""

    def __init__(self, client: RedisClient, indexes: Indexes) -> None:
        self._client = client
        self._indexes = indexes
        self._handlers: dict[str, frozenset[str]] = {}

    async def page(self, filters: Filters, count_max: int, after_id: str | None) -> ExecutionPage:
        """Up to `count_max` executions that pass, behind this one, the newest first.

        The index has their ids, and children share the time in that of their parent: the index
        tells them apart by nothing, and the page sorts those it has.
        """
        page = await self._page(filters, count_max, after_id)
        page.rows.sort(key=lambda row: (row.execution_id[:12], _submitted_ms(row)), reverse=True)
        return page

    async def _page(self, filters: Filters, count_max: int, after_id: str | None) -> ExecutionPage:
        rows: list[ExecutionRow] = []
        scan = _Scan(await self._walk(filters), filters, after_id)
        budget = DEFINITION_BYTES_MAX
        size = count_max + 1
        while scan.left > 0 and budget > 0:
            found = await self.rows(await scan.next(size))
            passing = [row for row in found if _passes(row, filters)]
            if filters.handler is not None:
                known, spent = await self._handlers_of(passing, budget)
                budget -= spent
            for row in passing:
                if filters.handler is not None:
                    handlers = known.get(_plan_name(row))
                    if handlers is None:
                        # Too much to read for one page: the next one goes on before this row.
                        return ExecutionPage(rows, _id_before(row.execution_id))
                    if filters.handler not in handlers:
                        continue
                if len(rows) == count_max:
                    return ExecutionPage(rows, rows[-1].execution_id)
                rows.append(row)
            if scan.is_over:
                return ExecutionPage(rows, None)
            # Few pass: the next slice is larger.
            size = _SLICE
        return ExecutionPage(rows, scan.last_id)

    async def _walk(self, filters: Filters) -> Walk:
        """Over what may pass. Until all executions are listed by state and name, over those with
        the first of the labels, or over all."""
        if (filters.statuses or filters.name) and await self._indexes.are_complete():
            return await shortest_walk(self._client, filters.statuses, filters.name, filters.labels)
        key = keys.label(filters.labels[0]) if filters.labels else keys.EXECUTIONS
        return ListWalk(self._client, key)

    async def execution(self, execution_id: str) -> tuple[ExecutionRow, Details]:
        """One execution. Raises UnknownExecution, or CorruptExecution for a damaged status."""
        status, run = await self._client.converse_freely(
            [
                ("GET", keys.status(execution_id)),
                ("HMGET", keys.run(execution_id), *_RUN_FIELDS),
            ]
        )
        values = [None] * len(_RUN_FIELDS) if is_wrong_type(run) else run
        if is_wrong_type(status):
            raise CorruptExecution(execution_id, "its status key is of another type")
        if status is None:
            raise UnknownExecution(execution_id)
        row = _row(execution_id, status, values)
        if row.status is None:
            raise CorruptExecution(execution_id, f"its status is {status!r}")
        rerun_as, error, failure, ends_as, *numbers = values[len(_ROW_FIELDS) :]
        is_cancelled = status == CANCELLING or ends_as == ExecutionState.CANCELLED
        return row, Details(
            rerun_as if rerun_as is not None and is_execution_id(rerun_as) else None,
            error and readable(error),
            failure and readable(failure),
            TokenUsage(*(_number(one) or 0 for one in numbers)),
            is_cancelled and not row.status.is_terminal,
        )

    async def origin(self, execution_id: str) -> Origin:
        """Where it comes from; nothing where that is damaged, or it is gone."""
        command = ("HMGET", keys.run(execution_id), *Origin._fields)
        (run,) = await self._client.converse_freely([command])
        return NOWHERE if is_wrong_type(run) else read_origin(run)

    async def given_input(self, execution_id: str) -> Any:
        """The input given at the trigger; None when there was none."""
        try:
            text = await self._client.execute("GET", keys.given_input(execution_id))
            return None if text is None else orjson.loads(raw_bytes(text))
        except (WrongType, ValueError) as error:
            raise CorruptExecution(execution_id, f"its input is damaged: {error}") from error

    async def rows(self, execution_ids: Sequence[str]) -> list[ExecutionRow]:
        """Those of these executions that there are."""
        if not execution_ids:
            return []
        commands: list[Command] = [("MGET", *(keys.status(one) for one in execution_ids))]
        commands += [("HMGET", keys.run(one), *_ROW_FIELDS) for one in execution_ids]
        statuses, *runs = await self._client.converse_freely(commands)
        if isinstance(statuses, Exception):
            raise translate(statuses) from statuses
        gone = await self._gone(
            [one for one, status in zip(execution_ids, statuses, strict=True) if status is None]
        )
        return [
            _row(one, status, [None] * len(_ROW_FIELDS) if is_wrong_type(run) else run)
            for one, status, run in zip(execution_ids, statuses, runs, strict=True)
            if one not in gone
        ]

    async def _gone(self, execution_ids: Sequence[str]) -> set[str]:
        """Of those without a readable status the ones that have none at all."""
        if not execution_ids:
            return set()
        types = await self._client.converse([("TYPE", keys.status(one)) for one in execution_ids])
        return {one for one, kind in zip(execution_ids, types, strict=True) if kind == "none"}

    async def _handlers_of(
        self, rows: Sequence[ExecutionRow], budget: int
    ) -> tuple[dict[str, frozenset[str]], int]:
        """The handlers of each plan among these, and the bytes that had to be read for it.

        Equal definitions have one digest and are read once. When the budget is spent the plans of
        the rows behind are left out; one is always read.
        """
        wanted = {_plan_name(row): row.execution_id for row in rows}
        known = {plan: self._handlers[plan] for plan in wanted if plan in self._handlers}
        unknown = [pair for pair in wanted.items() if pair[0] not in known]
        sizes = await self._client.converse_freely(
            [("STRLEN", keys.definition(one)) for _, one in unknown]
        )
        spent = 0
        for (plan, execution_id), size in zip(unknown, sizes, strict=True):
            if spent >= budget:
                break
            spent += 0 if is_wrong_type(size) else size
            known[plan] = await self._read_handlers(plan, execution_id)
        return known, spent

    async def _read_handlers(self, plan: str, execution_id: str) -> frozenset[str]:
        (text,) = await self._client.execute("MGET", keys.definition(execution_id))
        while len(self._handlers) >= _PLANS_KEPT_MAX:
            self._handlers.pop(next(iter(self._handlers)))
        self._handlers[plan] = found = _handlers_in(text)
        return found


class _Scan:
    """Walks from the newest id to the oldest, slice by slice."""

    def __init__(self, walk: Walk, filters: Filters, after_id: str | None) -> None:
        self._walk = walk
        self._below, self._least = after_id or "", ""
        if filters.submitted_before_ms is not None:
            # An id is made before its execution is submitted, so a younger one cannot pass.
            youngest = _id_at(filters.submitted_before_ms)
            self._below = min(self._below, youngest) if self._below else youngest
        if filters.submitted_after_ms is not None:
            self._least = _id_at(filters.submitted_after_ms - _SUBMISSION_MS)
        self.left = SCANNED_MAX
        self.last_id = after_id
        self.is_over = False

    async def next(self, size: int) -> list[str]:
        size = min(size, self.left)
        members = await self._walk.read(self._below, self._least, size)
        self.is_over = len(members) < size
        if members:
            self._below = members[-1]
        # Whatever else somebody has put there does not count, so that the scan gets past it.
        found = [one for one in members if is_execution_id(one)]
        self.left -= len(found)
        self.last_id = found[-1] if found else self.last_id
        return found


def _id_at(ms: int) -> str:
    """The lowest id an execution of this time can have."""
    return f"{min(max(ms, 0), 2**48 - 1):012x}"


def _submitted_ms(row: ExecutionRow) -> int:
    return time_of(row.execution_id) if row.submitted_ms is None else row.submitted_ms


def _id_before(execution_id: str) -> str:
    """The next higher id: a page that begins behind it begins with this execution."""
    return f"{min(int(execution_id, 16) + 1, 16**24 - 1):024x}"


def _passes(row: ExecutionRow, filters: Filters) -> bool:
    """Whether all filters let it pass but the one for handlers, which needs the definition."""
    if filters.statuses and row.status not in filters.statuses:
        return False
    if not row.labels.issuperset(filters.labels) or (filters.roots_only and row.is_child):
        return False
    if filters.name is not None and not _is_named(row.name, filters.name):
        return False
    submitted_ms = _submitted_ms(row)
    after_ms, before_ms = filters.submitted_after_ms, filters.submitted_before_ms
    if after_ms is not None and submitted_ms < after_ms:
        return False
    return before_ms is None or submitted_ms < before_ms


def _plan_name(row: ExecutionRow) -> str:
    return row.plan or row.execution_id


def _is_named(name: str | None, wanted: str) -> bool:
    if name is None:
        return False
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted


def _handlers_in(definition: str | None) -> frozenset[str]:
    try:
        nodes = nodes_of(orjson.loads(raw_bytes(definition or "")))
        return frozenset(node["handler"] for node in nodes)
    except (ValueError, TypeError, KeyError):
        return frozenset()


def _row(execution_id: str, status: str | None, run: Sequence[str | None]) -> ExecutionRow:
    name, nodes, submitted_ms, triggered_ms, finished_ms, rerun_of, plan, labels, parent = run[:9]
    return ExecutionRow(
        execution_id,
        _state(status),
        None if name is None else readable(name),
        _number(nodes),
        _number(submitted_ms),
        _number(triggered_ms),
        _number(finished_ms),
        rerun_of if rerun_of is not None and is_execution_id(rerun_of) else None,
        plan,
        frozenset(labels.split("\n")) if labels else frozenset(),
        parent is not None,
    )


def _state(text: str | None) -> ExecutionState | None:
    try:
        return parse_status(text or "")
    except ValueError:
        return None


def _number(text: str | None) -> int | None:
    # Eighteen digits fit the integers of JSON readers and of orjson.
    is_number = text is not None and len(text) <= 18 and text.isascii() and text.isdecimal()
    return int(text) if is_number and text is not None else None
