"""Make limits, look at who holds their places and who waits, and lift them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.model import Model
from flowd.api.contract.route import Endpoint
from flowd.api.contract.small_body import SmallBody, read_small_body
from flowd.api.http.responses import json_response
from flowd.api.shared import Shared, shared_of
from flowd.errors import CorruptExecution, InvalidRequest, Problem, UnknownExecution
from flowd.log import get_logger
from flowd.store.limits import Limit, Limits, Place, Turn, Whose
from flowd.workflow.ids import NAME_RULE, is_name
from flowd.workflow.limiting import split_place
from flowd.workflow.limits import LimitRule, UnknownLimit
from flowd.workflow.queues import NO_QUEUES, QueuePlan
from flowd.workflow.report import quote

log = get_logger(__name__)

KEYS_SHOWN_MAX: Final = 100
# Of these many the busiest are shown.
_KEYS_COUNTED_MAX: Final = 100_000


_Keyed = tuple[str | None, Turn]


class _Body(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LimitBody(SmallBody, LimitRule):
    """How many nodes run at once, and how many start a second; each key has this for itself."""


class LimitPut(_Body):
    name: str
    message: str


class LimitDeleted(_Body):
    name: str
    message: str


class LimitTurn(_Body):
    """A node, with the name of its workflow and its queue, null where nobody knows them, and since
    when it holds its place, or waits (Unix ms).
    """

    execution_id: str
    name: str | None
    node_id: str
    queue: str | None
    key: str | None
    since_ms: int


class LimitKey(_Body):
    """What holds places of a limit, and waits for them, under one key."""

    key: str
    holding: int
    waiting: int


class LimitRow(_Body):
    name: str
    max: int | None
    per_s: float | None
    burst: int | None
    holding: int
    waiting: int


class LimitView(LimitRow):
    """`keys` are the busiest of those that are in use, `holders` the oldest of all, and `waiters`
    those who are next, up to 100 of each.
    """

    keys: list[LimitKey]
    holders: list[LimitTurn]
    waiters: list[LimitTurn]


class LimitList(_Body):
    limits: list[LimitRow]


async def save_limit(request: Request) -> Response:
    """Make a limit, or change it: whom it holds back no more starts at once."""
    name = str(request.path_params["name"])
    if not is_name(name):
        message = f"bad name {quote(name)}; use {NAME_RULE}"
        raise InvalidRequest([Problem("path.name", "bad_name", message)])
    body, _ = await read_small_body(request, LimitBody)
    limit = Limit(name, body.max, body.per_s, body.burst)
    outcome = await shared_of(request.app).store.tasks.limits.put(limit)
    if outcome != "unchanged":
        log.info("limit.changed", limit=name)
    word = "created" if outcome == "made" else outcome
    answer = LimitPut(name=name, message=f"Limit {word}")
    return json_response(answer, 201 if outcome == "made" else 200)


async def list_limits(request: Request) -> Response:
    """List the limits by name, with how many hold their places and wait for them."""
    limits = shared_of(request.app).store.tasks.limits
    rows = [_row(limit, await _places(limits, limit.name)) for limit in await limits.all()]
    return json_response(LimitList(limits=rows))


async def show_limit(request: Request) -> Response:
    """Show a limit: what it says, who holds its places and who waits for them, by key."""
    name = str(request.path_params["name"])
    limits = shared_of(request.app).store.tasks.limits
    limit = await limits.find(name) if is_name(name) else None
    if limit is None:
        raise UnknownLimit(name[:128])
    places = await _places(limits, name)
    places.sort(key=lambda one: (-one.waiters, -one.holders, one.place))
    shown = places[:KEYS_SHOWN_MAX]
    keys = [(split_place(one.place)[1], one) for one in shown]
    holders: list[_Keyed] = []
    waiters: list[_Keyed] = []
    for key, one in keys:
        holders += [(key, turn) for turn in await limits.holders(one.place)]
        waiters += [(key, turn) for turn in await limits.waiters(one.place)]
    holders, waiters = _first(holders), _first(waiters)
    waiting_since = await limits.waiting_since([turn for _, turn in waiters])
    rows = _TurnRows(shared_of(request.app))
    await rows.look([turn for _, turn in (*holders, *waiters)])
    return json_response(
        LimitView(
            **_row(limit, places).model_dump(),
            keys=[
                LimitKey(key=key, holding=one.holders, waiting=one.waiters)
                for key, one in keys
                if key is not None
            ],
            holders=[rows.row(key, turn, turn.at_ms) for key, turn in holders],
            waiters=[
                rows.row(key, turn, since_ms)
                for (key, turn), since_ms in zip(waiters, waiting_since, strict=True)
                if since_ms is not None
            ],
        )
    )


async def delete_limit(request: Request) -> Response:
    """Lift a limit: everybody who waits for a place starts."""
    name = str(request.path_params["name"])
    limits = shared_of(request.app).store.tasks.limits
    if not is_name(name) or not await limits.delete(name):
        raise UnknownLimit(name[:128])
    log.info("limit.deleted", limit=name)
    return json_response(LimitDeleted(name=name, message="Limit deleted"))


async def _places(limits: Limits, name: str) -> list[Place]:
    places: list[Place] = []
    async for page in limits.pages(name):
        places += page
        if len(places) >= _KEYS_COUNTED_MAX:
            break
    return places


def _row(limit: Limit, places: list[Place]) -> LimitRow:
    return LimitRow(
        name=limit.name,
        max=limit.max,
        per_s=limit.per_s,
        burst=limit.burst,
        holding=sum(one.holders for one in places),
        waiting=sum(one.waiters for one in places),
    )


def _first(turns: list[_Keyed]) -> list[_Keyed]:
    return sorted(turns, key=lambda one: one[1].at_ms)[:KEYS_SHOWN_MAX]


class _TurnRows:
    """Says of turns what their executions are, once looked at."""

    def __init__(self, shared: Shared) -> None:
        self._limits, self._plans = shared.store.tasks.limits, shared.plans
        self._whose: Mapping[str, Whose] = {}
        # Of those executions that have some in other queues than the default one.
        self._queues: dict[str, QueuePlan | None] = {}

    async def look(self, turns: Sequence[Turn]) -> None:
        self._whose = await self._limits.whose(turn.execution_id for turn in turns)
        for execution_id, whose in self._whose.items():
            if whose.plan is not None:
                self._queues[execution_id] = await self._find_queues(execution_id, whose.plan)

    async def _find_queues(self, execution_id: str, digest: str) -> QueuePlan | None:
        try:
            return (await self._plans.load(execution_id, digest)).queues
        except (UnknownExecution, CorruptExecution):
            return None

    def row(self, key: str | None, turn: Turn, since_ms: int) -> LimitTurn:
        whose = self._whose[turn.execution_id]
        queues = self._queues.get(turn.execution_id, NO_QUEUES)
        return LimitTurn(
            execution_id=turn.execution_id,
            name=whose.name,
            node_id=turn.node_id,
            queue=queues.of(turn.node_id) if queues and whose.name else None,
            key=key,
            since_ms=since_ms,
        )


ROUTES = [
    Endpoint("GET", "/limits", list_limits, scope="read", answers={200: LimitList}),
    Endpoint(
        "PUT",
        "/limits/{name}",
        save_limit,
        scope="trigger",
        answers={200: LimitPut, 201: LimitPut},
        problems=("invalid_request",),
        body=LimitBody,
    ),
    Endpoint(
        "GET",
        "/limits/{name}",
        show_limit,
        scope="read",
        answers={200: LimitView},
        problems=("unknown_limit",),
    ),
    Endpoint(
        "DELETE",
        "/limits/{name}",
        delete_limit,
        scope="admin",
        answers={200: LimitDeleted},
        problems=("unknown_limit",),
    ),
]
