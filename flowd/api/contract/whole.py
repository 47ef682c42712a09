"""Answers about one execution that are whole, also while it is deleted."""

from __future__ import annotations

import functools

from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.route import EndpointFunction
from flowd.api.http.responses import requested_execution_id
from flowd.api.shared import shared_of
from flowd.errors import CorruptExecution


def whole(answer: EndpointFunction) -> EndpointFunction:
    """Raise UnknownExecution in place of an answer that was put together of several reads while its
    execution was deleted. The status goes first: while it stands, nothing had gone."""

    @functools.wraps(answer)
    async def checked(request: Request) -> Response:
        executions = shared_of(request.app).store.executions
        execution_id = requested_execution_id(request)
        try:
            response = await answer(request)
        except CorruptExecution:
            await executions.expect_known(execution_id)
            raise
        await executions.expect_known(execution_id)
        return response

    return checked
