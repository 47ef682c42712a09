"""The blocking client."""

from __future__ import annotations

import builtins
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self, Unpack

from flowd.client import calls, steps
from flowd.client.calls import Call, Json, Workflow
from flowd.client.connections import FAILURES, Connections, chunks
from flowd.client.errors import ClientError, ConnectionFailed
from flowd.client.event_reader import Event, Listener, of_events, of_logs
from flowd.client.holding import Holding
from flowd.client.steps import Pages, Pause, Steps, T


class Client(Holding):
    """`url` is FLOWD_URL or this machine's port 8000 by default, `token` is FLOWD_TOKEN.

    `unix:/run/flowd/api.sock` is the unix socket of that path.

    Every method raises ApiError when flowd refuses, and ConnectionFailed when it does not answer.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self.url = calls.base_url(url)
        self._http = Connections(self.url, calls.base_headers(token))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the client cannot be used afterwards."""
        self._http.close()

    def _send(self, call: Call) -> Any:
        try:
            status, body = self._http.send(call)
        except FAILURES as error:
            raise ConnectionFailed(f"{self.url} does not answer: {error}") from error
        return calls.parse(self.url, status, body)

    def _take(self, taken: Steps[T]) -> T:
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
                time.sleep(step.seconds)
                continue
            try:
                answer = self._send(step)
            except ClientError as failed:
                error = failed

    def submit(
        self,
        workflow: Workflow,
        *,
        trigger: bool = False,
        input: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Store a workflow (a dict, or its JSON), and start it with `trigger`; its id."""
        return self._take(
            steps.submit(
                workflow, trigger=trigger, given_input=input, idempotency_key=idempotency_key
            )
        )

    def submit_batch(
        self,
        workflows: Sequence[Workflow],
        *,
        trigger: bool = False,
        idempotency_key: str | None = None,
    ) -> builtins.list[Json]:
        """Store up to 1,000 workflows, and start them with `trigger`; of each its `execution_id`,
        or the `problem` for which it was refused."""
        call = calls.submit_batch(workflows, trigger=trigger, idempotency_key=idempotency_key)
        return list((self._send(call))["results"])

    def validate(self, workflow: Workflow) -> int:
        """Check a workflow; the number of its nodes. Raises ApiError with all that is wrong."""
        return int((self._send(calls.validate(workflow)))["nodes"])

    def trigger(
        self,
        execution_id: str,
        input: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        """Start an execution. Starting it again changes nothing."""
        self._send(calls.trigger(execution_id, input, idempotency_key))

    def status(self, execution_id: str) -> str:
        """The state of an execution, such as RUNNING."""
        return str((self._send(calls.look(execution_id)))["status"])

    def results(self, execution_id: str) -> Json:
        """The outputs of all nodes that have ended, by node id."""
        return dict((self._send(calls.look(execution_id, "/results")))["results"])

    def output(self, execution_id: str) -> Any:
        """What an execution that completed is worth: its `output`, or else its results."""
        return (self._send(calls.look(execution_id, "/output")))["output"]

    def run(
        self,
        workflow: Workflow,
        input: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Json:
        """Submit, start and wait for the end; the outputs by node id.

        Raises WorkflowFailed unless it is COMPLETED, and StillRunning, a TimeoutError, after
        `timeout_s`: it runs on.
        """
        return self._take(steps.run(workflow, input, timeout_s))

    def wait(self, execution_id: str, timeout_s: float | None = None) -> str:
        """Wait for the end; the final state. Raises StillRunning after `timeout_s`."""
        return self._take(steps.wait(execution_id, timeout_s))

    def get(self, execution_id: str) -> Json:
        """The summary of an execution: times, nodes by state, tokens used, input and error."""
        return dict(self._send(calls.look(execution_id, "/summary")))

    def definition(self, execution_id: str) -> Json:
        """The workflow of an execution, as it was submitted."""
        return dict(self._send(calls.look(execution_id, "/definition")))

    def graph(self, execution_id: str) -> Json:
        """The graph of an execution, in columns: ids, handlers, dependencies. It never changes."""
        return dict(self._send(calls.look(execution_id, "/graph")))

    def states(self, execution_id: str) -> Json:
        """The states of all nodes, a letter each, in the order of the graph."""
        return dict(self._send(calls.look(execution_id, "/states")))

    def timeline(self, execution_id: str) -> Json:
        """When each node was queued, started and ended, in Unix ms."""
        return dict(self._send(calls.look(execution_id, "/timeline")))

    def callback(self, execution_id: str) -> Json:
        """The delivery of its callback. Raises ApiError if it has none."""
        return dict(self._send(calls.look(execution_id, "/callback")))

    def node(self, execution_id: str, node_id: str) -> Json:
        """One node: config, output, attempts, error and its traceback."""
        return dict(self._send(calls.look_at_node(execution_id, node_id)))

    def attempts(self, execution_id: str, node_id: str) -> list[Json]:
        """The last attempts of a node, the oldest first: when, where, and what they failed of."""
        answer = self._send(calls.attempts(execution_id, node_id))
        return list(answer["attempts"])

    def logs(
        self, execution_id: str, node_id: str | None = None, **which: Unpack[calls.Lines]
    ) -> Json:
        """What a node has said, or all: of this `attempt`, or its newest; only the last `lines`."""
        return dict(self._send(calls.logs(execution_id, node_id, **which)))

    def explain(self, execution_id: str, node_id: str | None = None) -> Json:
        """Explain why an execution, or one of its nodes, does not run."""
        return dict(self._send(calls.explain(execution_id, node_id)))

    def signal(
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
        return dict((self._send(call))["decision"])

    def approve(self, execution_id: str, node_id: str, idempotency_key: str | None = None) -> Json:
        """Signal `{"approved": true}`."""
        return self.signal(execution_id, node_id, calls.APPROVED, idempotency_key)

    def reject(
        self, execution_id: str, node_id: str, reason: str, idempotency_key: str | None = None
    ) -> Json:
        """Fail a node that waits for a signal, or will, for this reason; the decision."""
        call = calls.signal(execution_id, node_id, {"reject": reason}, idempotency_key)
        return dict((self._send(call))["decision"])

    def cancel(self, execution_id: str, *, force: bool = False) -> None:
        """Cancel an execution; running nodes are told to stop. Its `finally` runs, unless `force`
        leaves it out or breaks it off.
        """
        self._send(calls.cancel(execution_id, force=force))

    def pause(self, execution_id: str) -> None:
        """Pause an execution; running nodes finish."""
        self._send(calls.hold(execution_id, "pause"))

    def resume(self, execution_id: str) -> None:
        """Resume a paused execution."""
        self._send(calls.hold(execution_id, "resume"))

    def rerun(
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
        return dict(self._send(call))

    def delete(self, execution_id: str) -> None:
        """Delete an execution that does not run, with its outputs and events."""
        self._send(calls.delete(execution_id))

    def put_definition(self, name: str, workflow: Workflow) -> Json:
        """Save a workflow under a name; the `version`, and a message whether it is new. What equals
        the latest version stays that."""
        return dict(self._send(calls.put_definition(name, workflow)))

    def saved_definition(self, name: str, version: int | None = None) -> Json:
        """A version of a saved definition, or the latest: name, version, definition."""
        return dict(self._send(calls.definitions(name, version=version)))

    def delete_definition(self, name: str) -> None:
        """Delete a saved definition with all its versions. Its executions stay."""
        self._send(calls.definitions(name, method="DELETE"))

    def run_definition(
        self,
        name: str,
        input: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Run a saved definition: an execution is made and started in one step; its id."""
        call = calls.run_definition(name, {"input": input}, version, idempotency_key)
        return str((self._send(call))["execution_id"])

    def run_definition_each(
        self,
        name: str,
        inputs: Sequence[Mapping[str, Any]],
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
    ) -> builtins.list[str]:
        """Run a saved definition once for each input, up to 1,000; the ids, in their order."""
        call = calls.run_definition(name, {"inputs": list(inputs)}, version, idempotency_key)
        return [str(one) for one in (self._send(call))["execution_ids"]]

    def applied_set(self, name: str) -> builtins.list[Json]:
        """What belongs to a set: of each member its kind and name."""
        return [dict(one) for one in (self._send(calls.applied_set(name)))["members"]]

    def put_set(self, name: str, members: Sequence[Mapping[str, str]]) -> None:
        """Say what belongs to a set from now on; nothing is made or deleted by this."""
        self._send(calls.put_set(name, members))

    def put_schedule(self, name: str, schedule: Workflow) -> Json:
        """Make a schedule (a dict, or its JSON), or change it; the answer says which."""
        return dict(self._send(calls.put_schedule(name, schedule)))

    def schedule(self, name: str) -> Json:
        """A schedule: what it says, when it is due next, and what it has done."""
        return dict(self._send(calls.schedules(name)))

    def schedule_callback(self, name: str) -> Json:
        """The delivery of its callback. Raises ApiError if it has none."""
        return dict(self._send(calls.schedules(name, "/callback")))

    def next_times(self, name: str, count: int = 5) -> builtins.list[str]:
        """The next times of a schedule, in ISO 8601."""
        return builtins.list((self._send(calls.schedules(name, "/next", count=count)))["next"])

    def pause_schedule(self, name: str) -> None:
        """Pause a schedule; nothing is made up for later."""
        self._send(calls.schedules(name, "/pause", method="POST"))

    def resume_schedule(self, name: str) -> None:
        """Resume a schedule from now on."""
        self._send(calls.schedules(name, "/resume", method="POST"))

    def run_schedule(
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
        return str((self._send(call))["execution_id"])

    def delete_schedule(self, name: str) -> None:
        """Delete a schedule. What it has started goes on."""
        self._send(calls.schedules(name, method="DELETE"))

    def act(
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
        return dict(self._send(call))

    def counts(self) -> Json:
        """How many executions there are, by status."""
        return dict(self._send(calls.about("workflows/counts")))

    def stats(self, bucket: str = "hour", **query: Any) -> Json:
        """What has ended, by the hour or the `day`; `since` when, and of which `name`."""
        return dict(self._send(calls.about("workflows/stats", bucket=bucket, **query)))

    def overview(self) -> Json:
        """How flowd is: health, counts, the queue, and what somebody should look at."""
        return dict(self._send(calls.about("overview")))

    def token(self) -> Json:
        """What the token of this client may do, and until when."""
        return dict(self._send(calls.about("token")))

    def handlers(self) -> builtins.list[Json]:
        """The handlers that a workflow may name, with what their configs may hold."""
        return builtins.list((self._send(calls.about("handlers")))["handlers"])

    def processes(self) -> Json:
        """The daemon that answers, and its processes."""
        return dict(self._send(calls.about("processes")))

    def workers(self) -> builtins.list[Json]:
        """The workers of all machines, with what they hold."""
        return builtins.list((self._send(calls.about("workers")))["workers"])

    def dead_letter(self, letter_id: str) -> Json:
        """One dead letter, with all fields of its entry."""
        return dict(self._send(calls.dead_letters(letter_id)))

    def redrive(self, letter_id: str) -> Json:
        """Run the node of a dead letter again, in a new execution."""
        return dict(self._send(calls.dead_letters(letter_id, method="POST", verb="/redrive")))

    def purge(self, letter_id: str = "") -> Json:
        """Delete one dead letter, or all; the answer says how many."""
        return dict(self._send(calls.dead_letters(letter_id, method="DELETE")))

    def list(self, *, count_max: int | None = None, **filters: Any) -> Iterator[Json]:
        """Iterate over executions, the newest first. Filters are those of `GET /workflows`."""
        yield from self._pages(calls.listing, "workflows", count_max, filters)

    def nodes(
        self, execution_id: str, *, count_max: int | None = None, **filters: Any
    ) -> Iterator[Json]:
        """Iterate over the nodes of an execution, in the order of the definition."""
        page = partial(calls.look, execution_id, "/nodes")
        yield from self._pages(page, "nodes", count_max, filters)

    def items(
        self, execution_id: str, node_id: str, *, count_max: int | None = None, **filters: Any
    ) -> Iterator[Json]:
        """Iterate over the items of a node with `map`, in the order of its list."""
        page = partial(calls.items_page, execution_id, node_id)
        yield from self._pages(page, "items", count_max, filters)

    def definitions(
        self, *, count_max: int | None = None, label: str | Sequence[str] | None = None
    ) -> Iterator[Json]:
        """Iterate over the saved definitions, by name; those with all of these labels."""
        yield from self._pages(calls.definitions, "definitions", count_max, {"label": label})

    def versions(self, name: str, *, count_max: int | None = None) -> Iterator[Json]:
        """Iterate over the versions of a saved definition, the newest first."""
        yield from self._pages(partial(calls.versions, name), "versions", count_max, {})

    def schedules(self, *, count_max: int | None = None) -> Iterator[Json]:
        """Iterate over the schedules, by name."""
        return self._pages(calls.schedules, "schedules", count_max, {})

    def dead_letters(self, *, count_max: int | None = None) -> Iterator[Json]:
        """Iterate over the dead letters, the newest first."""
        yield from self._pages(calls.dead_letters, "dead_letters", count_max, {})

    def _pages(
        self, page: Any, key: str, count_max: int | None, filters: Mapping[str, Any]
    ) -> Iterator[Json]:
        pages = Pages(page, key, count_max, filters)
        while (call := pages.next_call()) is not None:
            yield from pages.take(self._send(call))

    def events(
        self, execution_id: str | None = None, last_event_id: str | None = None
    ) -> Iterator[Event]:
        """Iterate over events, each once, even if the connection breaks in between.

        Of one execution all that is kept, to its end; of all executions from now on, for ever.
        """
        return self._listen(of_events(self.url, execution_id, last_event_id))

    def follow_logs(
        self, execution_id: str, node_id: str | None = None, *, attempt: int | None = None
    ) -> Iterator[Event]:
        """Iterate over what a node says, or all nodes of an execution, until the end.

        Events are `lines`, `dropped` (so many are not kept) and `end`.
        """
        return self._listen(of_logs(self.url, execution_id, node_id, attempt))

    def _listen(self, listener: Listener) -> Iterator[Event]:
        while True:
            call = listener.next_call()
            try:
                with self._http.stream(call) as answer:
                    kind = answer.getheader("content-type") or ""
                    if not listener.is_stream(answer.status, kind):
                        listener.refuse(answer.status, answer.read())
                    else:
                        for chunk in chunks(answer):
                            yield from listener.read(chunk)
                            if listener.is_over:
                                break
                listener.end()
            except FAILURES as error:
                listener.break_off(error)
            if listener.is_over:
                return
            time.sleep(listener.pause_s())
