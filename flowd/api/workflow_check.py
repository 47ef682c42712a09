"""Check a submitted workflow, and what is sent to one, without holding up the API: what is small
here, the rest in a process.

A check of a megabyte takes a tenth of a second, and a JSON Schema or a pattern in it may take for
ever: what is not sure to be quick is checked where it can be killed.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

import orjson

from flowd.errors import InvalidRequest, InvalidWorkflow, Problem
from flowd.handlers.config_checks import find_schema_flaw, handlers_digest
from flowd.handlers.forked_calls import ForkedCalls, TookTooMuch
from flowd.workflow.graph import Outline, compile_plan
from flowd.workflow.queues import QueuePlan
from flowd.workflow.report import PROBLEMS_MAX
from flowd.workflow.validator import Handlers, validate_workflow

# Checked within a few milliseconds, if there is no schema in it.
SMALL_BYTES_MAX: Final = 16 * 1024
# Of workflows that were checked: they come again and again, and take up to so much to be kept.
_KEPT_MAX: Final = 256
_KEPT_BYTES_MAX: Final = 16 * 1024
# What a request to the process begins with.
_WORKFLOW: Final = b"w"
_DATA: Final = b"m"
_INPUTS: Final = b"i"


class CheckedWorkflow(NamedTuple):
    """A definition as it is stored, and the outline of its plan."""

    definition: bytes
    outline: Outline


def check_here(body: bytes, handlers: Handlers) -> CheckedWorkflow:
    """Raises InvalidWorkflow."""
    definition = validate_workflow(body, handlers, find_schema_flaw).to_json()
    return CheckedWorkflow(definition, compile_plan(definition).outline)


class WorkflowCheck:
    """Without `calls` everything is checked here."""

    def __init__(self, handlers: Handlers, calls: ForkedCalls | None = None) -> None:
        self._handlers = handlers
        self._calls = calls
        self._kept: OrderedDict[bytes, CheckedWorkflow] = OrderedDict()

    @cached_property
    def handlers_digest(self) -> str:
        return handlers_digest(self._handlers)

    @classmethod
    def forked(cls, handlers: Handlers) -> WorkflowCheck:
        """To be called before there is a loop, a thread or a connection."""
        calls = ForkedCalls("api checks", lambda request: _serve(request, handlers), _prepare)
        return cls(handlers, calls)

    async def __call__(self, body: bytes) -> CheckedWorkflow:
        """Raises InvalidWorkflow, also when the check takes too much.

        The same bytes are checked once: what comes of them depends on the handlers alone.
        """
        if len(body) > _KEPT_BYTES_MAX:
            return await self._check(body)
        digest = hashlib.sha256(body).digest()
        if (workflow := self._kept.get(digest)) is None:
            workflow = await self._check(body)
            self._kept[digest] = workflow
            if len(self._kept) > _KEPT_MAX:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(digest)
        return workflow

    async def _check(self, body: bytes) -> CheckedWorkflow:
        if self._calls is None or _is_quick(body):
            return check_here(body, self._handlers)
        try:
            answer = await self._calls.call(_WORKFLOW + body)
        except TookTooMuch as error:
            message = f"checking this workflow was given up: {error}"
            raise InvalidWorkflow([Problem("", "too_costly", message)]) from None
        length, _, rest = answer.partition(b"\n")
        facts = orjson.loads(rest[: int(length)])
        if "problems" in facts:
            raise InvalidWorkflow([Problem(*one) for one in facts["problems"]])
        own, others = facts.pop("queues")
        outline = Outline(**facts, queues=QueuePlan(own, others))
        return CheckedWorkflow(rest[int(length) :], outline)

    async def expect_data_fits(self, schema: Any, data: Any) -> None:
        """Raises InvalidRequest with everything in which data does not fit a schema that was
        checked at submit, or that looking at it takes too much."""
        await self._expect_fit(_DATA, orjson.dumps([schema, data]), "data")

    async def expect_inputs_fit(
        self, schema: Mapping[str, Any], default: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> None:
        """Raises InvalidRequest with everything in which inputs, over the workflow's own, do not
        fit its schema, or that looking at them takes too much. They are given by their paths."""
        asked = orjson.dumps([dict(schema), dict(default), dict(inputs)])
        await self._expect_fit(_INPUTS, asked, "")

    async def _expect_fit(self, kind: bytes, asked: bytes, root: str) -> None:
        try:
            call = self._calls.call(kind + asked) if self._calls else None
            found = orjson.loads(_MISFITS[kind](asked) if call is None else await call)
        except TookTooMuch as error:
            found = [(root, f"checking the {root or 'input'} was given up: {error}")]
        if found:
            raise InvalidRequest([Problem(path, "misfit", message) for path, message in found])

    def close(self) -> None:
        if self._calls is not None:
            self._calls.close()


def _prepare() -> None:
    # Takes longer than most checks.
    import flowd.handlers.json_schema  # noqa: F401


def _is_quick(body: bytes) -> bool:
    # A key may be written with escapes, of which any may stand for a letter.
    return len(body) <= SMALL_BYTES_MAX and b"schema" not in body and b"\\u00" not in body


def _serve(request: bytes, handlers: Handlers) -> bytes:
    """In the process: what was asked for by the first byte."""
    kind, body = request[:1], request[1:]
    if kind == _WORKFLOW:
        return _check(body, handlers)
    return _MISFITS[kind](body)


def _find_input_misfits(body: bytes) -> bytes:
    from flowd.handlers.json_schema import find_misfits

    schema, default, inputs = orjson.loads(body)
    found: list[tuple[str, str]] = []
    for path, given in inputs.items():
        found += find_misfits(schema, {**default, **given}, path)
        if len(found) >= PROBLEMS_MAX:
            break
    return orjson.dumps(found[:PROBLEMS_MAX])


def _find_data_misfits(body: bytes) -> bytes:
    from flowd.handlers.json_schema import find_misfits

    schema, value = orjson.loads(body)
    return orjson.dumps(find_misfits(schema, value, "data"))


_MISFITS: Final = {_DATA: _find_data_misfits, _INPUTS: _find_input_misfits}


def _check(body: bytes, handlers: Handlers) -> bytes:
    """The facts, their length before them, and the definition behind."""
    definition = b""
    facts: dict[str, Any]
    try:
        definition, outline = check_here(body, handlers)
        own, others = outline.queues
        facts = outline._asdict() | {"queues": [own, dict(others)]}
    except InvalidWorkflow as error:
        facts = {"problems": [(one.path, one.code, one.message) for one in error.problems]}
    except MemoryError:
        message = "checking this workflow was given up: it takes too much memory"
        facts = {"problems": [("", "too_costly", message)]}
    head = orjson.dumps(facts)
    return b"%d\n%b%b" % (len(head), head, definition)
