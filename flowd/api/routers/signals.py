"""Send a signal to a node: what it waits for, or that it is rejected."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.route import Endpoint
from flowd.api.contract.schemas import SignalDecision, Signalled
from flowd.api.contract.small_body import SmallBody, read_small_body
from flowd.api.http.responses import (
    IDEMPOTENCY_HEADER,
    json_response,
    requested_by,
    requested_execution_id,
    requested_idempotency_key,
)
from flowd.api.shared import shared_of
from flowd.errors import NoSignal, UnknownNode
from flowd.orchestrator.signals import send_signal
from flowd.workflow.signals import SIGNAL, Signal

BODY_BYTES_MAX: Final = 2**20
REASON_CHARS_MAX: Final = 2_000


class SignalBody(SmallBody):
    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["data"]}, {"required": ["reject"]}]}
    )

    data: Any = Field(default=None, description="what the node waits for; any JSON")
    reject: str = Field(
        default="",
        min_length=1,
        max_length=REASON_CHARS_MAX,
        description="in place of data: why the node is to fail",
    )

    @model_validator(mode="after")
    def _says_one_thing(self) -> SignalBody:
        if ("data" in self.model_fields_set) == ("reject" in self.model_fields_set):
            message = "give either data, any JSON, or reject, a reason"
            raise PydanticCustomError("signal", message)
        return self


async def signal(request: Request) -> Response:
    """Send a signal to a node that waits for one, or will.

    The first decides; 200 means that it is recorded.
    """
    shared, execution_id = shared_of(request.app), requested_execution_id(request)
    node_id = str(request.path_params["node_id"])
    body, text = await read_small_body(request, SignalBody, BODY_BYTES_MAX)
    key = requested_idempotency_key(request)
    await shared.store.executions.execution_status(execution_id)
    plan = await shared.plans.load(execution_id, "")
    node = plan.find(node_id)
    if node is None:
        raise UnknownNode(execution_id, node_id[:128])
    if node.handler != SIGNAL:
        has_items = node.map is not None and node.map.item.handler == SIGNAL
        raise NoSignal(execution_id, node_id, node.handler, has_items=has_items)
    schema = node.config.source.get("schema")
    if schema is not None and not body.reject:
        await shared.check_workflow.expect_data_fits(schema, body.data)
    sent = Signal(
        body.data,
        body.reject or None,
        requested_by(request),
        hashlib.sha256(key.encode()).hexdigest() if key else "",
        hashlib.sha256(text).hexdigest(),
    )
    answer = await send_signal(shared.store, plan, execution_id, node_id, sent)
    decision = SignalDecision(**answer._asdict())
    return json_response(Signalled(execution_id=execution_id, node_id=node_id, decision=decision))


ROUTES = [
    Endpoint(
        "POST",
        "/workflows/{execution_id}/nodes/{node_id}/signal",
        signal,
        scope="trigger",
        answers={200: Signalled},
        problems=(
            "unknown_execution",
            "unknown_node",
            "no_signal",
            "invalid_request",
            "wrong_state",
            "already_decided",
            "idempotency_mismatch",
        ),
        body=SignalBody,
        headers=IDEMPOTENCY_HEADER,
    ),
]
