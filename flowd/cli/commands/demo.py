"""`flowd demo`: run the sample workflows on a private stack and show every node as it moves."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from flowd.cli.exit_codes import FAILED
from flowd.cli.private_flowd import (
    FlowdFailed,
    PrivateFlowd,
    TemporaryFlowd,
    leave_on_signals,
)
from flowd.cli.samples import MORE, NAMES, SAVED, load_samples
from flowd.cli.watching import Sample, sample_view
from flowd.client import Client, ClientError
from flowd.errors import FlowdError
from flowd.store import Store, open_store
from flowd.supervisor.embedded_server import join_embedded
from flowd.workflow.graph import nodes_of
from flowd.workflow.states import ExecutionState, NodeState

# For the stack to be ready, and then for the samples to end.
START_S = 30.0
DEADLINE_S = 30.0
_POLL_S = 0.01
# What the samples call is written out: the demo must show the same whatever the defaults become.
_CONFIG = """\
[api]
host = "127.0.0.1"
port = 0

[redis]
mode = "embedded"
port = 0
data_dir = "data"

[workers]
count = 2

[shutdown]
grace_s = 2

[handlers.call_external_service]
simulated_hosts = ["service-a", "service-b", "service-c", "service-d", "consumer"]
"""


class DemoFailed(Exception):
    """An execution did not end as it should; the text says which and why."""


@click.command()
@click.option("--all", "has_more", is_flag=True, help="Also run the samples beyond the tour.")
def demo(has_more: bool) -> None:
    """Run the sample workflows on a private flowd.

    Boots a whole flowd on a free port with temporary data, submits and triggers the three samples
    over HTTP, shows each node's state as it changes, prints status and results, and stops it all.
    Needs no network and touches nothing of yours.
    """
    leave_on_signals()
    try:
        with TemporaryFlowd(_CONFIG) as flowd:
            flowd.start()
            try:
                _run(flowd, load_samples((*NAMES, *MORE)) if has_more else load_samples())
            except (ClientError, DemoFailed, FlowdError, OSError) as error:
                raise FlowdFailed(f"{error}{flowd.log_tail()}") from error
    except KeyboardInterrupt:
        sys.exit(130)
    except FlowdFailed as error:
        click.echo(f"demo failed: {error}", err=True)
        sys.exit(FAILED)


def _run(flowd: PrivateFlowd, definitions: Mapping[str, bytes]) -> None:
    click.echo("starting a private flowd ...", err=True)
    with (
        Client(str(flowd.wait_until_ready(START_S)["api"])) as client,
        asyncio.Runner() as runner,
    ):
        click.echo(f"its API listens on {client.url}", err=True)
        if not set(MORE).isdisjoint(definitions):
            for name, text in load_samples(SAVED).items():
                client.put_definition(name, text)
        samples = [Sample(name, client.submit(text)) for name, text in definitions.items()]
        store = open_store(join_embedded(flowd.settings))
        try:
            _watch(client, samples, runner, store)
        finally:
            runner.run(store.close())
        results = {sample.name: client.results(sample.execution_id) for sample in samples}
    _print_results(samples, results)
    _check(samples, results, definitions)


def _watch(client: Client, samples: Sequence[Sample], runner: asyncio.Runner, store: Store) -> None:
    """Trigger every sample and follow it to its end."""
    deadline = time.monotonic() + DEADLINE_S
    with sample_view() as show:
        runner.run(_read_nodes(store, samples))
        show(samples)
        for sample in samples:
            client.trigger(sample.execution_id)
            if sample.name == "race":
                # This sample is about being triggered again while it runs.
                client.trigger(sample.execution_id)
        while not all(sample.status.is_terminal for sample in samples):
            if time.monotonic() >= deadline:
                raise DemoFailed(f"not all executions had ended after {DEADLINE_S:g} s")
            time.sleep(_POLL_S)
            for sample in samples:
                sample.status = ExecutionState(client.status(sample.execution_id))
            runner.run(_read_nodes(store, samples))
            show(samples)


async def _read_nodes(store: Store, samples: Sequence[Sample]) -> None:
    for sample in samples:
        sample.nodes = await store.executions.node_states(sample.execution_id)


def _print_results(samples: Sequence[Sample], results: Mapping[str, dict[str, Any]]) -> None:
    for sample in samples:
        click.echo(f"\n{sample.name} {sample.status}")
        for node_id, output in sorted(results[sample.name].items()):
            click.echo(f"  {node_id} {json.dumps(output, ensure_ascii=False)}")


def _check(
    samples: Sequence[Sample],
    results: Mapping[str, dict[str, Any]],
    definitions: Mapping[str, bytes],
) -> None:
    for sample in samples:
        nodes = nodes_of(json.loads(definitions[sample.name]))
        may_fail = {node["id"] for node in nodes if node.get("allow_failure")}
        for node_id, state in sample.nodes.items():
            output = results[sample.name].get(node_id, {})
            if state is NodeState.SKIPPED or (state is NodeState.FAILED and node_id in may_fail):
                continue
            if state is not NodeState.COMPLETED or not output:
                reason = output.get("error", "it has no error")
                raise DemoFailed(f"node {node_id} of {sample.name} ended {state}: {reason}")
        if sample.status is not ExecutionState.COMPLETED:
            raise DemoFailed(f"{sample.name} ended {sample.status}")
