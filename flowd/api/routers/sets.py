"""Remember what was applied together, so that what its files no longer hold can be found."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.model import Model
from flowd.api.contract.route import Endpoint
from flowd.api.contract.small_body import SmallBody, read_small_body
from flowd.api.http.responses import json_response
from flowd.api.shared import shared_of
from flowd.errors import InvalidRequest, Problem
from flowd.store.sets import Kind, Member
from flowd.workflow.ids import NAME_PATTERN, NAME_RULE, is_name
from flowd.workflow.report import quote

MEMBERS_MAX: Final = 10_000


class SetMember(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    name: Annotated[str, Field(pattern=NAME_PATTERN)]


class SetBody(SmallBody):
    members: Annotated[list[SetMember], Field(max_length=MEMBERS_MAX)]


class AppliedSet(Model):
    name: str
    members: list[SetMember]


def _requested_name(request: Request) -> str:
    name = str(request.path_params["name"])
    if not is_name(name):
        message = f"bad name {quote(name)}; use {NAME_RULE}"
        raise InvalidRequest([Problem("path.name", "bad_name", message)])
    return name


async def show_set(request: Request) -> Response:
    """Show what belongs to a set; one that nobody has put has no members."""
    return await _answer(request, _requested_name(request))


async def put_set(request: Request) -> Response:
    """Say what belongs to a set from now on; each member belongs to the set it was put into last.

    Nothing is made or deleted by this.
    """
    name = _requested_name(request)
    body, _ = await read_small_body(request, SetBody)
    members = [Member(one.kind, one.name) for one in body.members]
    await shared_of(request.app).store.saved.sets.put(name, members)
    return await _answer(request, name)


async def _answer(request: Request, name: str) -> Response:
    found = await shared_of(request.app).store.saved.sets.members(name)
    members = [SetMember(kind=one.kind, name=one.name) for one in found]
    return json_response(AppliedSet(name=name, members=members))


ROUTES = [
    Endpoint(
        "GET",
        "/sets/{name}",
        show_set,
        scope="read",
        answers={200: AppliedSet},
        problems=("invalid_request",),
    ),
    Endpoint(
        "PUT",
        "/sets/{name}",
        put_set,
        scope="trigger",
        answers={200: AppliedSet},
        problems=("invalid_request",),
        body=SetBody,
    ),
]
