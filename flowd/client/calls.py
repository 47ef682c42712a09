"""The calls of the API as values, and what is made of their answers: all a client knows but how to
send."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypedDict
from urllib.parse import quote, urlsplit

from flowd.client.errors import ApiError, OtherServer

DEFAULT_URL: Final = "http://127.0.0.1:8000"
TIMEOUT_S: Final = 30.0
# A stream of events says something every 15 seconds, if only that it lives.
EVENTS_TIMEOUT_S: Final = 45.0
PAGE_SIZE: Final = 1000
ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})

Workflow = Mapping[str, Any] | bytes | str
Json = dict[str, Any]
# What an approval sends.
APPROVED: Final = {"approved": True}


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = TIMEOUT_S

    @property
    def query(self) -> dict[str, str]:
        return {name: _written(one) for name, one in self.params.items() if one is not None}


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def base_url(url: str | None) -> str:
    """With `http://` where no scheme is given; of a socket `unix:` and its path.

    Raises ValueError for what nobody can call.
    """
    text = url or os.environ.get("FLOWD_URL") or DEFAULT_URL
    if text.startswith("unix:"):
        return "unix:" + text.removeprefix("unix:").removeprefix("//")
    if "://" not in text:
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        is_sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_sound = False
    if not is_sound:
        raise ValueError(f"{text!r} is no address of a flowd, such as {DEFAULT_URL}")
    return text.rstrip("/")


def socket_of(url: str) -> str | None:
    """The path of the unix socket it names, if it is one."""
    return url.removeprefix("unix:") if url.startswith("unix:") else None


def is_nearby(url: str) -> bool:
    """Whether it is on this machine, where no proxy of the environment has a place."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def base_headers(token: str | None) -> dict[str, str]:
    """Raises ValueError for what is no token; the text is in no message."""
    token = (token or os.environ.get("FLOWD_TOKEN") or "").strip()
    if not (token.isascii() and token.isprintable()):
        raise ValueError("the token holds characters that no token has")
    return {"authorization": f"Bearer {token}"} if token else {}


def _id(text: str) -> str:
    return quote(text, safe="")


def _body(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def submit(
    workflow: Workflow, *, trigger: bool = False, idempotency_key: str | None = None
) -> Call:
    params = {"trigger": True} if trigger else {}
    return Call("POST", "/workflow", params, _body(workflow), _idempotent(idempotency_key))


def submit_batch(
    workflows: Sequence[Workflow], *, trigger: bool, idempotency_key: str | None
) -> Call:
    content = b'{"workflows":[%b]}' % b",".join(map(_body, workflows))
    params = {"trigger": True} if trigger else {}
    headers = _idempotent(idempotency_key)
    return Call("POST", "/workflows/batch", params, content, headers)


def _idempotent(key: str | None) -> dict[str, str]:
    return {"idempotency-key": key} if key else {}


def validate(workflow: Workflow) -> Call:
    return Call("POST", "/workflow/validate", content=_body(workflow))


def trigger(
    execution_id: str,
    given_input: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> Call:
    content = None if given_input is None else _body({"input": dict(given_input)})
    path = f"/workflow/trigger/{_id(execution_id)}"
    return Call("POST", path, content=content, headers=_idempotent(idempotency_key))


def look(execution_id: str, what: str = "", **params: Any) -> Call:
    """`what` is what comes behind the id: `/results`, `/summary` …"""
    return Call("GET", f"/workflows/{_id(execution_id)}{what}", params)


def look_at_node(execution_id: str, node_id: str) -> Call:
    return look(execution_id, f"/nodes/{_id(node_id)}")


def attempts(execution_id: str, node_id: str) -> Call:
    return look(execution_id, f"/nodes/{_id(node_id)}/attempts")


def items_page(execution_id: str, node_id: str, **params: Any) -> Call:
    return look(execution_id, f"/nodes/{_id(node_id)}/items", **params)


def explain(execution_id: str, node_id: str | None = None) -> Call:
    return look(execution_id, "/explain" if node_id is None else f"/explain/{_id(node_id)}")


def about(what: str, **params: Any) -> Call:
    """Of flowd itself: `overview`, `token`, `handlers`, `processes`, `workers` …"""
    return Call("GET", f"/{what}", params)


def act(
    action: str,
    ids: Sequence[str] | None,
    filters: Mapping[str, Any],
    *,
    preview: bool,
    force: bool,
    idempotency_key: str | None,
) -> Call:
    chosen: Json = {"ids": list(ids)} if ids is not None else {}
    if filters:
        listed = ("status", "label")
        chosen["filter"] = {
            name: [one] if name in listed and isinstance(one, str) else one
            for name, one in filters.items()
        }
    body = {"action": action, **chosen, "preview": preview, "force": force}
    headers = _idempotent(idempotency_key)
    return Call("POST", "/workflows/actions", content=_body(body), headers=headers)


def listing(**filters: Any) -> Call:
    return Call("GET", "/workflows", filters)


def signal(
    execution_id: str, node_id: str, body: Mapping[str, Any], idempotency_key: str | None = None
) -> Call:
    """`body` is `{"data": …}` or `{"reject": "why"}`."""
    path = f"/workflows/{_id(execution_id)}/nodes/{_id(node_id)}/signal"
    return Call("POST", path, content=_body(dict(body)), headers=_idempotent(idempotency_key))


def cancel(execution_id: str, *, force: bool) -> Call:
    content = _body({"force": True}) if force else None
    return Call("POST", f"/workflows/{_id(execution_id)}/cancel", content=content)


def hold(execution_id: str, verb: str) -> Call:
    """`pause` or `resume`."""
    return Call("POST", f"/workflows/{_id(execution_id)}/{verb}")


def rerun(
    execution_id: str,
    start: str,
    *,
    preview: bool,
    is_triggered: bool,
    definition: Workflow | None = None,
    idempotency_key: str | None = None,
) -> Call:
    content = _body({"from": start, "preview": preview, "trigger": is_triggered})
    if definition is not None:
        # As it is: flowd sees keys that are written twice, and says where.
        content = content[:-1] + b', "definition": ' + _body(definition) + b"}"
    headers = _idempotent(idempotency_key)
    return Call("POST", f"/workflows/{_id(execution_id)}/rerun", content=content, headers=headers)


def delete(execution_id: str) -> Call:
    return Call("DELETE", f"/workflows/{_id(execution_id)}")


def definitions(name: str = "", what: str = "", *, method: str = "GET", **params: Any) -> Call:
    """Of all saved definitions, or of one; `what` is what comes behind its name: `/versions`."""
    path = "/definitions" + (f"/{_id(name)}" if name else "") + what
    return Call(method, path, params)


def versions(name: str, **params: Any) -> Call:
    return definitions(name, "/versions", **params)


def put_definition(name: str, workflow: Workflow) -> Call:
    return Call("PUT", f"/definitions/{_id(name)}", content=_body(workflow))


def run_definition(
    name: str, body: Mapping[str, Any], version: int | None, idempotency_key: str | None
) -> Call:
    """`body` has an `input`, or `inputs`."""
    content = _body({name: one for name, one in {**body, "version": version}.items() if one})
    headers = _idempotent(idempotency_key)
    return Call("POST", f"/definitions/{_id(name)}/run", content=content, headers=headers)


def schedules(name: str = "", what: str = "", *, method: str = "GET", **params: Any) -> Call:
    """Of all schedules, or of one; `what` is what comes behind its name: `/next`, `/pause` …"""
    path = "/schedules" + (f"/{_id(name)}" if name else "") + what
    return Call(method, path, params)


def put_schedule(name: str, schedule: Workflow) -> Call:
    return Call("PUT", f"/schedules/{_id(name)}", content=_body(schedule))


def limits(name: str = "", *, method: str = "GET") -> Call:
    """Of all limits, or of one."""
    return Call(method, "/limits" + (f"/{_id(name)}" if name else ""))


def put_limit(name: str, rule: Mapping[str, float | None]) -> Call:
    said = {key: value for key, value in rule.items() if value is not None}
    return Call("PUT", f"/limits/{_id(name)}", content=_body(said))


def cache(handler: str | None = None, *, method: str = "GET", **params: Any) -> Call:
    if handler is None and params.get("key") is not None:
        raise ValueError("keys are those of a handler; give the handler, too")
    return Call(method, "/cache" if handler is None else f"/cache/{_id(handler)}", params=params)


def applied_set(name: str) -> Call:
    return Call("GET", f"/sets/{_id(name)}")


def put_set(name: str, members: Sequence[Mapping[str, str]]) -> Call:
    return Call("PUT", f"/sets/{_id(name)}", content=_body({"members": list(members)}))


def run_schedule(
    name: str,
    *,
    force: bool,
    input: Mapping[str, Any] | None,
    idempotency_key: str | None,
) -> Call:
    said: dict[str, Any] = {"force": True} if force else {}
    if input is not None:
        said["input"] = dict(input)
    content = _body(said) if said else None
    headers = _idempotent(idempotency_key)
    return Call("POST", f"/schedules/{_id(name)}/run", content=content, headers=headers)


def dead_letters(
    letter_id: str = "", *, method: str = "GET", verb: str = "", **params: Any
) -> Call:
    path = "/dead-letters" + (f"/{_id(letter_id)}" if letter_id else "") + verb
    return Call(method, path, params)


def events(execution_id: str | None, last_event_id: str | None) -> Call:
    headers = {"accept": "text/event-stream"}
    if last_event_id:
        headers["last-event-id"] = last_event_id
    path = "/events" if execution_id is None else f"/workflows/{_id(execution_id)}/events"
    return Call("GET", path, headers=headers, timeout_s=EVENTS_TIMEOUT_S)


class Lines(TypedDict, total=False):
    """Which of what was said."""

    attempt: int | None
    lines: int | None


def logs(execution_id: str, node_id: str | None, **params: Any) -> Call:
    what = "/logs" if node_id is None else f"/nodes/{_id(node_id)}/logs"
    headers = {"accept": "application/json"}
    return replace(look(execution_id, what, **params), headers=headers)


def follow_logs(
    execution_id: str, node_id: str | None, attempt: int | None, last_event_id: str | None
) -> Call:
    call = logs(execution_id, node_id, follow=True, attempt=attempt)
    headers = {"accept": "text/event-stream"}
    if last_event_id:
        headers["last-event-id"] = last_event_id
    return replace(call, headers=headers, timeout_s=EVENTS_TIMEOUT_S)


def parse(url: str, status: int, body: bytes) -> Any:
    """The answer's JSON. Raises ApiError for a refusal, OtherServer for an answer that is none."""
    is_refusal = not 200 <= status < 300
    try:
        document = json.loads(body) if body else None
    except ValueError:
        if not is_refusal:
            raise OtherServer(url, "what it sends is no JSON") from None
        document = None
    if not is_refusal:
        return document
    problem = document if isinstance(document, dict) else {}
    raise ApiError(
        status,
        str(problem.get("code", "unknown")),
        str(problem.get("detail", f"answered {status}")),
        problem.get("errors", ()),
    )


def node_errors(results: Mapping[str, Any]) -> Json:
    """What nodes failed with; those that did not run because of another one come last."""
    errors = {
        node_id: output["error"]
        for node_id, output in results.items()
        if isinstance(output, dict) and output.keys() == {"error"}
    }
    return dict(sorted(errors.items(), key=lambda pair: str(pair[1]).startswith("not run: ")))
