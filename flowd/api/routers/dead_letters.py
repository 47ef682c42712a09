"""Dead letters: list them, look at one, run it again, delete one or all."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.cursor import read_cursor, write_cursor
from flowd.api.contract.model import Model
from flowd.api.contract.query import read_query
from flowd.api.contract.route import Endpoint
from flowd.api.http.responses import json_response
from flowd.api.shared import shared_of
from flowd.errors import UnknownDeadLetter, UnknownNode
from flowd.orchestrator.rerun import plan_rerun, run_again
from flowd.store import Store
from flowd.store.dead_letters import DeadLetter, is_letter_id
from flowd.store.executions import now_ms
from flowd.workflow.ids import new_execution_id

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000


class _Body(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeadLetterRow(_Body):
    """A node that was given up, or an entry of the task stream that nobody can run.

    Execution, node, attempt and worker are null where the entry did not name any.
    """

    dead_letter_id: str
    at_ms: int
    reason: str
    entry_id: str | None
    execution_id: str | None
    node_id: str | None
    attempt: int | None
    worker: str | None


class DeadLetterPage(_Body):
    dead_letters: list[DeadLetterRow]
    next_cursor: str | None


class EntryField(_Body):
    name: str
    value: str


class DeadLetterDetail(DeadLetterRow):
    """`fields` are those of an entry nobody can run, its bytes escaped where they are no text."""

    fields: list[EntryField] | None


class DeadLetterDeleted(_Body):
    dead_letter_id: str
    message: str


class DeadLetterRedriven(_Body):
    execution_id: str
    rerun_of: str


class DeadLettersPurged(_Body):
    deleted: int
    message: str


class DeadLettersQuery(Model):
    limit: int = Field(default=LIMIT_DEFAULT, ge=1, le=LIMIT_MAX)
    cursor: str | None = Field(default=None, description="`next_cursor` of the previous page")


async def list_dead_letters(request: Request) -> Response:
    """List dead letters, the newest first."""
    query = read_query(request, DeadLettersQuery)
    store = shared_of(request.app).store
    page = await store.health.dead_letters.page(
        query.limit, read_cursor(query.cursor, is_letter_id)
    )
    return json_response(
        DeadLetterPage(
            dead_letters=[DeadLetterRow(**_fields(letter)) for letter in page.letters],
            next_cursor=write_cursor(page.next_id),
        )
    )


async def show_dead_letter(request: Request) -> Response:
    """Show one dead letter with all fields of its entry."""
    store = shared_of(request.app).store
    letter = await store.health.dead_letters.letter(_requested_letter_id(request))
    fields = letter.fields
    return json_response(
        DeadLetterDetail(
            **_fields(letter),
            fields=None if fields is None else [EntryField(name=n, value=v) for n, v in fields],
        )
    )


async def redrive_dead_letter(request: Request) -> Response:
    """Run the node of a dead letter again, in a new execution, and delete the letter.

    However often it is asked for within a day, it is done once.
    """
    store, letter_id = shared_of(request.app).store, _requested_letter_id(request)
    # No header can hold this key.
    key = f"redrive\n{letter_id}"
    try:
        letter = await store.health.dead_letters.letter(letter_id)
    except UnknownDeadLetter:
        # It goes when it is done, and the answer may be lost.
        redriven = await _redriven(store, key)
        if redriven is None:
            raise
        return json_response(redriven)
    if letter.execution_id is None or letter.node_id is None:
        raise UnknownNode(letter.execution_id or "-", letter.node_id or "-")
    planned = await plan_rerun(store, letter.execution_id, letter.node_id)
    claimed = await store.submissions.idempotency.claim(
        key, letter_id.encode(), new_execution_id(now_ms())
    )
    await run_again(store, planned, claimed)
    with suppress(UnknownDeadLetter):
        await store.health.dead_letters.delete(letter_id)
    return json_response(
        DeadLetterRedriven(execution_id=claimed.execution_id, rerun_of=letter.execution_id)
    )


async def _redriven(store: Store, key: str) -> DeadLetterRedriven | None:
    """What was answered under this key before; None where the execution is not there."""
    execution_id = await store.submissions.idempotency.claimed(key)
    for row in await store.executions.listing.rows([execution_id] if execution_id else []):
        if row.rerun_of is not None:
            return DeadLetterRedriven(execution_id=row.execution_id, rerun_of=row.rerun_of)
    return None


async def delete_dead_letter(request: Request) -> Response:
    """Delete one dead letter."""
    letter_id = _requested_letter_id(request)
    await shared_of(request.app).store.health.dead_letters.delete(letter_id)
    return json_response(DeadLetterDeleted(dead_letter_id=letter_id, message="Dead letter deleted"))


async def purge_dead_letters(request: Request) -> Response:
    """Delete all dead letters."""
    deleted = await shared_of(request.app).store.health.dead_letters.purge()
    return json_response(DeadLettersPurged(deleted=deleted, message="Dead letters deleted"))


def _requested_letter_id(request: Request) -> str:
    letter_id = str(request.path_params["letter_id"])
    if not is_letter_id(letter_id):
        raise UnknownDeadLetter(letter_id[:64])
    return letter_id


def _fields(letter: DeadLetter) -> dict[str, Any]:
    record = letter.attempt
    return {
        "dead_letter_id": letter.letter_id,
        "at_ms": letter.at_ms,
        "reason": letter.reason,
        "entry_id": letter.entry_id,
        "execution_id": letter.execution_id,
        "node_id": letter.node_id,
        "attempt": record.attempt if record else None,
        "worker": record.worker if record else None,
    }


_PROBLEMS = ("corrupt_store", "store_unavailable")
_OF_ONE = (*_PROBLEMS, "unknown_dead_letter")

ROUTES = [
    Endpoint(
        "GET",
        "/dead-letters",
        list_dead_letters,
        scope="read",
        answers={200: DeadLetterPage},
        problems=(*_PROBLEMS, "invalid_request"),
        query=DeadLettersQuery,
    ),
    Endpoint(
        "DELETE",
        "/dead-letters",
        purge_dead_letters,
        scope="admin",
        answers={200: DeadLettersPurged},
        problems=_PROBLEMS,
    ),
    Endpoint(
        "GET",
        "/dead-letters/{letter_id}",
        show_dead_letter,
        scope="read",
        answers={200: DeadLetterDetail},
        problems=_OF_ONE,
    ),
    Endpoint(
        "POST",
        "/dead-letters/{letter_id}/redrive",
        redrive_dead_letter,
        scope="trigger",
        answers={200: DeadLetterRedriven},
        problems=(
            *_OF_ONE,
            *("unknown_execution", "unknown_node", "wrong_state", "older_process"),
            "limit_reached",
        ),
    ),
    Endpoint(
        "DELETE",
        "/dead-letters/{letter_id}",
        delete_dead_letter,
        scope="admin",
        answers={200: DeadLetterDeleted},
        problems=_OF_ONE,
    ),
]
