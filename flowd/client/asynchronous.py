"""The client for an event loop: `Client`, with `await` and `async for`."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, Self, Unpack

import httpx2

from flowd.client import calls, steps
from flowd.client.calls import Call, Json, Workflow
from flowd.client.errors import ClientError, ConnectionFailed
from flowd.client.event_reader import Event, Listener, of_events, of_logs
from flowd.client.holding import AsyncHolding
from flowd.client.steps import Pages, Pause, Steps, T


class AsyncClient(AsyncHolding):
    """`url` is FLOWD_URL or this machine's port 8000 by default, `token` is FLOWD_TOKEN.

    Every method raises ApiError when flowd refuses, and ConnectionFailed when it does not answer.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self.url = calls.base_url(url)
        path = calls.socket_of(self.url)
        self._http = httpx2.AsyncClient(
            base_url=self.url if path is None else "http://localhost",
            headers=calls.base_headers(token),
            trust_env=path is None and not calls.is_nearby(self.url),
            transport=None if path is None else httpx2.AsyncHTTPTransport(uds=path),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the client cannot be used afterwards."""
        await self._http.aclose()

    async def _send(self, call: Call) -> Any:
        try:
            answer = await self._http.request(
                call.method,
                call.path,
                params=call.query,
                content=call.content,
                headers=dict(call.headers),
                timeout=call.timeout_s,
            )
        except httpx2.TransportError as error:
            raise ConnectionFailed(f"{self.url} does not answer: {error}") from error
        return calls.parse(self.url, answer.status_code, answer.content)

    async def _take(self, taken: Steps[T]) -> T:
        """Go through the steps, and return what comes of them."""
        answer: Any = None
        error: ClientError | None = None
        while True:
            try:
                step = taken.send(answer) if error is None else taken.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = error = None
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                continue
            try:
                answer = await self._send(step)
            except ClientError as failed:
                error = failed

    async def submit(
        self,
        workflow: Workflow,
        *,
        trigger: bool = False,
        input: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Store a workflow (a dict, or its JSON), and start it with `trigger`; its id."""
        return await self._take(
            steps.submit(
                workflow, trigger=trigger, given_input=input, idempotency_key=idempotency_key
            )
        )

    async def submit_batch(
        self,
        workflows: Sequence[Workflow],
        *,
        trigger: bool = False,
        idempotency_key: str | None = None,
    ) -> builtins.list[Json]:
        """Store up to 1,000 workflows, and start them with `trigger`; of each its `execution_id`,
        or the `problem` for which it was refused."""
        call = calls.submit_batch(workflows, trigger=trigger, idempotency_key=idempotency_key)
        return list((await self._send(call))["results"])

    async def validate(self, workflow: Workflow) -> int:
        """Check a workflow; the number of its nodes. Raises ApiError with all that is wrong."""
        return int((await self._send(calls.validate(workflow)))["nodes"])

    async def trigger(
        self,
        execution_id: str,
        input: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        """Start an execution. Starting it again changes nothing."""
        await self._send(calls.trigger(execution_id, input, idempotency_key))

    async def status(self, execution_id: str) -> str:
        """The state of an execution, such as RUNNING."""
        return str((await self._send(calls.look(execution_id)))["status"])

    async def results(self, execution_id: str) -> Json:
        """The outputs of all nodes that have ended, by node id."""
        return dict((await self._send(calls.look(execution_id, "/results")))["results"])

    async def output(self, execution_id: str) -> Any:
        """What an execution that completed is worth: its `output`, or else its results."""
        return (await self._send(calls.look(execution_id, "/output")))["output"]

    async def run(
        self,
        workflow: Workflow,
        input: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Json:
        """Submit, start and wait for the end; the outputs by node id.

        Raises WorkflowFailed unless it is COMPLETED, and StillRunning, a TimeoutError, after
        `timeout_s`: it runs on.
        """
        return await self._take(steps.run(workflow, input, timeout_s))

    async def wait(self, execution_id: str, timeout_s: float | None = None) -> str:
        """Wait for the end; the final state. Raises StillRunning after `timeout_s`."""
        return await self._take(steps.wait(execution_id, timeout_s))

    async def get(self, execution_id: str) -> Json:
        """The summary of an execution: times, nodes by state, tokens used, input and error."""
        return dict(await self._send(calls.look(execution_id, "/summary")))

    async def definition(self, execution_id: str) -> Json:
        """The workflow of an execution, as it was submitted."""
        return dict(await self._send(calls.look(execution_id, "/definition")))

    async def graph(self, execution_id: str) -> Json:
        """The graph of an execution, in columns: ids, handlers, dependencies. It never changes."""
        return dict(await self._send(calls.look(execution_id, "/graph")))

    async def states(self, execution_id: str) -> Json:
        """The states of all nodes, a letter each, in the order of the graph."""
        return dict(await self._send(calls.look(execution_id, "/states")))

    async def timeline(self, execution_id: str) -> Json:
        """When each node was queued, started and ended, in Unix ms."""
        return dict(await self._send(calls.look(execution_id, "/timeline")))

    async def callback(self, execution_id: str) -> Json:
        """The delivery of its callback. Raises ApiError if it has none."""
        return dict(await self._send(calls.look(execution_id, "/callback")))

    async def node(self, execution_id: str, node_id: str) -> Json:
        """One node: config, output, attempts, error and its traceback."""
        return dict(await self._send(calls.look_at_node(execution_id, node_id)))

    async def attempts(self, execution_id: str, node_id: str) -> list[Json]:
        """The last attempts of a node, the oldest first: when, where, and what they failed of."""
        return list((await self._send(calls.attempts(execution_id, node_id)))["attempts"])

    async def logs(
        self, execution_id: str, node_id: str | None = None, **which: Unpack[calls.Lines]
    ) -> Json:
        """What a node has said, or all: of this `attempt`, or its newest; only the last `lines`."""
        return dict(await self._send(calls.logs(execution_id, node_id, **which)))

    async def explain(self, execution_id: str, node_id: str | None = None) -> Json:
        """Explain why an execution, or one of its nodes, does not run."""
        return dict(await self._send(calls.explain(execution_id, node_id)))

    async def signal(
        self,
        execution_id: str,
        node_id: str,
        data: Any = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """Send data to a node that waits for a signal, or will; the decision.

        Raises ApiError if it was decided before, unless by the same under the same key.
        """
        call = calls.signal(execution_id, node_id, {"data": data}, idempotency_key)
        return dict((await self._send(call))["decision"])

    async def approve(
        self, execution_id: str, node_id: str, idempotency_key: str | None = None
    ) -> Json:
        """Signal `{"approved": true}`."""
        return await self.signal(execution_id, node_id, calls.APPROVED, idempotency_key)

    async def reject(
        self, execution_id: str, node_id: str, reason: str, idempotency_key: str | None = None
    ) -> Json:
        """Fail a node that waits for a signal, or will, for this reason; the decision."""
        call = calls.signal(execution_id, node_id, {"reject": reason}, idempotency_key)
        return dict((await self._send(call))["decision"])

    async def cancel(self, execution_id: str, *, force: bool = False) -> None:
        """Cancel an execution; running nodes are told to stop. Its `finally` runs, unless `force`
        leaves it out or breaks it off.
        """
        await self._send(calls.cancel(execution_id, force=force))

    async def pause(self, execution_id: str) -> None:
        """Pause an execution; running nodes finish."""
        await self._send(calls.hold(execution_id, "pause"))

    async def resume(self, execution_id: str) -> None:
        """Resume a paused execution."""
        await self._send(calls.hold(execution_id, "resume"))

    async def rerun(
        self,
        execution_id: str,
        start: str = "failed",
        *,
        preview: bool = False,
        trigger: bool = True,
        definition: Workflow | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """Run an ended execution again, from a node on or what failed; which nodes run. With a
        corrected definition, what that changes runs too."""
        call = calls.rerun(
            execution_id,
            start,
            preview=preview,
            is_triggered=trigger,
            definition=definition,
            idempotency_key=idempotency_key,
        )
        return dict(await self._send(call))

    async def delete(self, execution_id: str) -> None:
        """Delete an execution that does not run, with its outputs and events."""
        await self._send(calls.delete(execution_id))

    async def put_definition(self, name: str, workflow: Workflow) -> Json:
        """Save a workflow under a name; the `version`, and a message whether it is new. What equals
        the latest version stays that."""
        return dict(await self._send(calls.put_definition(name, workflow)))

    async def saved_definition(self, name: str, version: int | None = None) -> Json:
        """A version of a saved definition, or the latest: name, version, definition."""
        return dict(await self._send(calls.definitions(name, version=version)))

    async def delete_definition(self, name: str) -> None:
        """Delete a saved definition with all its versions. Its executions stay."""
        await self._send(calls.definitions(name, method="DELETE"))

    async def run_definition(
        self,
        name: str,
        input: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Run a saved definition: an execution is made and started in one step; its id."""
        call = calls.run_definition(name, {"input": input}, version, idempotency_key)
        return str((await self._send(call))["execution_id"])

    async def run_definition_each(
        self,
        name: str,
        inputs: Sequence[Mapping[str, Any]],
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
    ) -> builtins.list[str]:
        """Run a saved definition once for each input, up to 1,000; the ids, in their order."""
        call = calls.run_definition(name, {"inputs": list(inputs)}, version, idempotency_key)
        return [str(one) for one in (await self._send(call))["execution_ids"]]

    async def applied_set(self, name: str) -> builtins.list[Json]:
        """What belongs to a set: of each member its kind and name."""
        return [dict(one) for one in (await self._send(calls.applied_set(name)))["members"]]

    async def put_set(self, name: str, members: Sequence[Mapping[str, str]]) -> None:
        """Say what belongs to a set from now on; nothing is made or deleted by this."""
        await self._send(calls.put_set(name, members))

    async def put_schedule(self, name: str, schedule: Workflow) -> Json:
        """Make a schedule (a dict, or its JSON), or change it; the answer says which."""
        return dict(await self._send(calls.put_schedule(name, schedule)))

    async def schedule(self, name: str) -> Json:
        """A schedule: what it says, when it is due next, and what it has done."""
        return dict(await self._send(calls.schedules(name)))

    async def schedule_callback(self, name: str) -> Json:
        """The delivery of its callback. Raises ApiError if it has none."""
        return dict(await self._send(calls.schedules(name, "/callback")))

    async def next_times(self, name: str, count: int = 5) -> builtins.list[str]:
        """The next times of a schedule, in ISO 8601."""
        return builtins.list(
            (await self._send(calls.schedules(name, "/next", count=count)))["next"]
        )

    async def pause_schedule(self, name: str) -> None:
        """Pause a schedule; nothing is made up for later."""
        await self._send(calls.schedules(name, "/pause", method="POST"))

    async def resume_schedule(self, name: str) -> None:
        """Resume a schedule from now on."""
        await self._send(calls.schedules(name, "/resume", method="POST"))

    async def run_schedule(
        self,
        name: str,
        *,
        force: bool = False,
        input: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Run a schedule now, as far as its `overlap` lets it, or with `force`; the execution's id.

        What is given as `input` goes over that of the schedule, this once. Where it waits for
        another one to end, there is no such execution yet.
        """
        call = calls.run_schedule(name, force=force, input=input, idempotency_key=idempotency_key)
        return str((await self._send(call))["execution_id"])

    async def delete_schedule(self, name: str) -> None:
        """Delete a schedule. What it has started goes on."""
        await self._send(calls.schedules(name, method="DELETE"))

    async def act(
        self,
        action: str,
        ids: Sequence[str] | None = None,
        *,
        preview: bool = False,
        force: bool = False,
        idempotency_key: str | None = None,
        **filters: Any,
    ) -> Json:
        """Cancel, pause, resume, rerun or delete up to 1,000 executions: these, or those that pass
        the filters; what came of each. A `preview` only counts them and shows a few."""
        call = calls.act(
            action, ids, filters, preview=preview, force=force, idempotency_key=idempotency_key
        )
        return dict(await self._send(call))

    async def counts(self) -> Json:
        """How many executions there are, by status."""
        return dict(await self._send(calls.about("workflows/counts")))

    async def stats(self, bucket: str = "hour", **query: Any) -> Json:
        """What has ended, by the hour or the `day`; `since` when, and of which `name`."""
        return dict(await self._send(calls.about("workflows/stats", bucket=bucket, **query)))

    async def overview(self) -> Json:
        """How flowd is: health, counts, the queue, and what somebody should look at."""
        return dict(await self._send(calls.about("overview")))

    async def token(self) -> Json:
        """What the token of this client may do, and until when."""
        return dict(await self._send(calls.about("token")))

    async def handlers(self) -> builtins.list[Json]:
        """The handlers that a workflow may name, with what their configs may hold."""
        return builtins.list((await self._send(calls.about("handlers")))["handlers"])

    async def processes(self) -> Json:
        """The daemon that answers, and its processes."""
        return dict(await self._send(calls.about("processes")))

    async def workers(self) -> builtins.list[Json]:
        """The workers of all machines, with what they hold."""
        return builtins.list((await self._send(calls.about("workers")))["workers"])

    async def dead_letter(self, letter_id: str) -> Json:
        """One dead letter, with all fields of its entry."""
        return dict(await self._send(calls.dead_letters(letter_id)))

    async def redrive(self, letter_id: str) -> Json:
        """Run the node of a dead letter again, in a new execution."""
        return dict(await self._send(calls.dead_letters(letter_id, method="POST", verb="/redrive")))

    async def purge(self, letter_id: str = "") -> Json:
        """Delete one dead letter, or all; the answer says how many."""
        return dict(await self._send(calls.dead_letters(letter_id, method="DELETE")))

    async def list(self, *, count_max: int | None = None, **filters: Any) -> AsyncIterator[Json]:
        """Iterate over executions, the newest first. Filters are those of `GET /workflows`."""
        async for row in self._pages(calls.listing, "workflows", count_max, filters):
            yield row

    async def nodes(
        self, execution_id: str, *, count_max: int | None = None, **filters: Any
    ) -> AsyncIterator[Json]:
        """Iterate over the nodes of an execution, in the order of the definition."""
        page = partial(calls.look, execution_id, "/nodes")
        async for row in self._pages(page, "nodes", count_max, filters):
            yield row

    async def items(
        self, execution_id: str, node_id: str, *, count_max: int | None = None, **filters: Any
    ) -> AsyncIterator[Json]:
        """Iterate over the items of a node with `map`, in the order of its list."""
        page = partial(calls.items_page, execution_id, node_id)
        async for row in self._pages(page, "items", count_max, filters):
            yield row

    async def definitions(
        self, *, count_max: int | None = None, label: str | Sequence[str] | None = None
    ) -> AsyncIterator[Json]:
        """Iterate over the saved definitions, by name; those with all of these labels."""
        async for row in self._pages(calls.definitions, "definitions", count_max, {"label": label}):
            yield row

    async def versions(self, name: str, *, count_max: int | None = None) -> AsyncIterator[Json]:
        """Iterate over the versions of a saved definition, the newest first."""
        async for row in self._pages(partial(calls.versions, name), "versions", count_max, {}):
            yield row

    async def schedules(self, *, count_max: int | None = None) -> AsyncIterator[Json]:
        """Iterate over the schedules, by name."""
        async for row in self._pages(calls.schedules, "schedules", count_max, {}):
            yield row

    async def dead_letters(self, *, count_max: int | None = None) -> AsyncIterator[Json]:
        """Iterate over the dead letters, the newest first."""
        async for row in self._pages(calls.dead_letters, "dead_letters", count_max, {}):
            yield row

    async def _pages(
        self, page: Any, key: str, count_max: int | None, filters: Mapping[str, Any]
    ) -> AsyncIterator[Json]:
        pages = Pages(page, key, count_max, filters)
        while (call := pages.next_call()) is not None:
            for row in pages.take(await self._send(call)):
                yield row

    async def events(
        self, execution_id: str | None = None, last_event_id: str | None = None
    ) -> AsyncIterator[Event]:
        """Iterate over events, each once, even if the connection breaks: of one execution all that
        is kept, to its end; of all executions from now on, for ever."""
        async for event in self._listen(of_events(self.url, execution_id, last_event_id)):
            yield event

    async def follow_logs(
        self, execution_id: str, node_id: str | None = None, *, attempt: int | None = None
    ) -> AsyncIterator[Event]:
        """Iterate over what is said, to the end: `lines`, `dropped` (are not kept) and `end`."""
        async for event in self._listen(of_logs(self.url, execution_id, node_id, attempt)):
            yield event

    async def _listen(self, listener: Listener) -> AsyncIterator[Event]:
        while True:
            call = listener.next_call()
            try:
                async with self._http.stream(
                    call.method,
                    call.path,
                    params=call.query,
                    headers=dict(call.headers),
                    timeout=call.timeout_s,
                ) as answer:
                    kind = answer.headers.get("content-type", "")
                    if not listener.is_stream(answer.status_code, kind):
                        listener.refuse(answer.status_code, await answer.aread())
                    else:
                        async for chunk in answer.aiter_bytes():
                            for event in listener.read(chunk):
                                yield event
                            if listener.is_over:
                                break
                listener.end()
            except httpx2.TransportError as error:
                listener.break_off(error)
            if listener.is_over:
                return
            await asyncio.sleep(listener.pause_s())
