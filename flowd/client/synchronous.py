"""The client that blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx2

from flowd.client import calls
from flowd.client.calls import Call, Event, EventReader, Json, Workflow
from flowd.client.errors import ConnectionFailed, WorkflowFailed


class Client:
    """`url` is FLOWD_URL or this machine's port 8000 by default, `token` is FLOWD_TOKEN.

    Every method raises ApiError when flowd refuses, and ConnectionFailed when it does not answer.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self.url = calls.base_url(url)
        self._http = httpx2.Client(base_url=self.url, headers=calls.base_headers(token))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _send(self, call: Call) -> Any:
        try:
            answer = self._http.request(
                call.method,
                call.path,
                params=call.query,
                content=call.content,
                headers=dict(call.headers),
                timeout=call.timeout_s,
            )
        except httpx2.TransportError as error:
            raise ConnectionFailed(f"{self.url} does not answer: {error}") from error
        return calls.parse(answer.status_code, answer.content)

    def submit(
        self, workflow: Workflow, *, trigger: bool = False, idempotency_key: str | None = None
    ) -> str:
        """Store a workflow (a dict, or its JSON), and start it with `trigger`; its id."""
        call = calls.submit(workflow, trigger=trigger, idempotency_key=idempotency_key)
        return str((self._send(call))["execution_id"])

    def validate(self, workflow: Workflow) -> int:
        """How many nodes it has. Raises ApiError with all that is wrong with it."""
        return int((self._send(calls.validate(workflow)))["nodes"])

    def trigger(self, execution_id: str, given_input: Mapping[str, Any] | None = None) -> None:
        self._send(calls.trigger(execution_id, given_input))

    def status(self, execution_id: str) -> str:
        return str((self._send(calls.look(execution_id)))["status"])

    def results(self, execution_id: str) -> Json:
        """The outputs there are, by node id."""
        return dict((self._send(calls.look(execution_id, "/results")))["results"])

    def run(
        self,
        workflow: Workflow,
        given_input: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Json:
        """Submit, start and wait; the outputs by node id.

        Raises WorkflowFailed unless it is COMPLETED, and TimeoutError after `timeout_s`, when it
        runs on.
        """
        execution_id = self.submit(workflow)
        self.trigger(execution_id, given_input)
        status = self.wait(execution_id, timeout_s)
        results = self.results(execution_id)
        if status != "COMPLETED":
            raise WorkflowFailed(execution_id, status, calls.node_errors(results))
        return results

    def get(self, execution_id: str) -> Json:
        """Its summary: times, nodes by state, tokens used, input and error."""
        return dict(self._send(calls.look(execution_id, "/summary")))

    def definition(self, execution_id: str) -> Json:
        return dict(self._send(calls.look(execution_id, "/definition")))

    def timeline(self, execution_id: str) -> Json:
        return dict(self._send(calls.look(execution_id, "/timeline")))

    def node(self, execution_id: str, node_id: str) -> Json:
        return dict(self._send(calls.look_at_node(execution_id, node_id)))

    def explain(self, execution_id: str, node_id: str | None = None) -> Json:
        """Why it, or one of its nodes, does not run."""
        return dict(self._send(calls.explain(execution_id, node_id)))

    def cancel(self, execution_id: str) -> None:
        self._send(calls.hold(execution_id, "cancel"))

    def pause(self, execution_id: str) -> None:
        self._send(calls.hold(execution_id, "pause"))

    def resume(self, execution_id: str) -> None:
        self._send(calls.hold(execution_id, "resume"))

    def rerun(
        self,
        execution_id: str,
        start: str = "failed",
        *,
        preview: bool = False,
        trigger: bool = True,
    ) -> Json:
        """Run it again from a node on, or what failed; which nodes run and which are reused."""
        call = calls.rerun(execution_id, start, preview=preview, is_triggered=trigger)
        return dict(self._send(call))

    def delete(self, execution_id: str) -> None:
        self._send(calls.delete(execution_id))

    def dead_letter(self, letter_id: str) -> Json:
        return dict(self._send(calls.dead_letters(letter_id)))

    def redrive(self, letter_id: str) -> Json:
        """Run the node of a dead letter again, in a new execution."""
        return dict(self._send(calls.dead_letters(letter_id, method="POST", verb="/redrive")))

    def purge(self, letter_id: str = "") -> None:
        """Forget one dead letter, or all."""
        self._send(calls.dead_letters(letter_id, method="DELETE"))

    def list(self, *, count_max: int | None = None, **filters: Any) -> Iterator[Json]:
        """Executions, the newest first. Filters are those of `GET /workflows`."""
        yield from self._pages(calls.listing, "workflows", count_max, filters)

    def nodes(
        self, execution_id: str, *, count_max: int | None = None, **filters: Any
    ) -> Iterator[Json]:
        """Its nodes in the order of the definition."""

        def page(**params: Any) -> Call:
            return calls.look(execution_id, "/nodes", **params)

        yield from self._pages(page, "nodes", count_max, filters)

    def dead_letters(self, *, count_max: int | None = None) -> Iterator[Json]:
        """Tasks no worker could run, the newest first."""
        yield from self._pages(calls.dead_letters, "dead_letters", count_max, {})

    def _pages(
        self, page: Any, key: str, count_max: int | None, filters: Mapping[str, Any]
    ) -> Iterator[Json]:
        cursor, left = None, count_max
        while left is None or left > 0:
            limit = calls.PAGE_SIZE if left is None else min(left, calls.PAGE_SIZE)
            found = self._send(page(**filters, limit=limit, cursor=cursor))
            yield from found[key]
            left = None if left is None else left - len(found[key])
            cursor = found["next_cursor"]
            if cursor is None:
                return

    def events(
        self, execution_id: str | None = None, last_event_id: str | None = None
    ) -> Iterator[Event]:
        """What happens, each event once, also when the connection breaks in between.

        Of one execution all that is kept, to its end; of all executions from now on, for ever.
        """
        reader = EventReader(last_event_id)
        while True:
            call = calls.events(execution_id, reader.last_event_id)
            try:
                with self._http.stream(
                    call.method, call.path, headers=dict(call.headers), timeout=call.timeout_s
                ) as answer:
                    if answer.status_code == 204:
                        return
                    if answer.status_code != 200:
                        calls.parse(answer.status_code, answer.read())
                    for line in answer.iter_lines():
                        if (event := reader.feed(line)) is not None:
                            yield event
                            if execution_id is not None and event.type in calls.END_EVENTS:
                                return
            except httpx2.TransportError as error:
                if reader.last_event_id is None:
                    raise ConnectionFailed(f"{self.url} does not answer: {error}") from error
            time.sleep(calls.RECONNECT_PAUSE_S)

    def wait(self, execution_id: str, timeout_s: float | None = None) -> str:
        """The state it ends in. Raises TimeoutError when it has not ended by then."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s = 0.01
        while (status := self.status(execution_id)) not in calls.ENDED:
            if end_s is not None and time.monotonic() >= end_s:
                raise TimeoutError(f"execution {execution_id} is {status} after {timeout_s:g} s")
            time.sleep(pause_s if end_s is None else min(pause_s, max(0, end_s - time.monotonic())))
            pause_s = min(1.5 * pause_s, 1.0)
        return status
