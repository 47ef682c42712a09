"""Show an execution while it runs: a live tree on a terminal, lines of changes elsewhere.

Messages go to stderr: what a command prints for others to read comes after it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from flowd.cli.node_tree import parents_of
from flowd.cli.progress import ENDED, count_ended, with_children
from flowd.cli.remote import STYLES, plain, why
from flowd.cli.times import node_took
from flowd.workflow.states import ExecutionState, NodeState

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.table import Table
    from rich.text import Text

    from flowd.client import Client

LOOK_EVERY_S: Final = 0.2
# Of more nodes than this, those that run and failed are shown: nobody reads more while they change.
SHOWN_MAX: Final = 20
_ORDER: Final = (
    *("FAILED", "RUNNING", "RETRYING", "WAITING", "QUEUED", "PENDING"),
    *("CANCELLED", "SKIPPED", "COMPLETED"),
)

Node = Mapping[str, Any]


def watch_execution(client: Client, execution_id: str, timeout_s: float | None = None) -> str:
    """Follow it until it ends, and say how. Raises TimeoutError when it has not by then."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        return _on_terminal(client, execution_id, timeout_s, console)
    return _in_lines(client, execution_id, timeout_s)


def _on_terminal(
    client: Client, execution_id: str, timeout_s: float | None, console: Console
) -> str:
    from rich.live import Live

    from flowd.client.errors import ClientError, OutageTolerance

    picture = _Picture(client, execution_id)
    patience = _Patience(execution_id, timeout_s)
    tolerance, status = OutageTolerance(), ""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            try:
                # The state first: what is drawn for an execution that has ended is all of it.
                status = client.status(execution_id)
                live.update(picture.draw(status), refresh=True)
                if status in ENDED:
                    return status
                tolerance.note_answer()
            except ClientError as error:
                tolerance.check(error)
            patience.wait(status)


def _in_lines(client: Client, execution_id: str, timeout_s: float | None) -> str:
    from flowd.client.errors import ClientError, OutageTolerance

    click.echo(execution_id, err=True)
    patience = _Patience(execution_id, timeout_s)
    changes = _Changes(err=True, first="PENDING")
    counts: Any = None
    tolerance, status = OutageTolerance(), ""
    while True:
        try:
            status = client.status(execution_id)
            before, counts = counts, client.get(execution_id)["counts"]
            if counts != before or status in ENDED:
                for node in client.nodes(execution_id):
                    changes.show(node["node_id"], str(node["state"]), why(node))
            if status in ENDED:
                click.echo(f"execution {status}", err=True)
                return status
            tolerance.note_answer()
        except ClientError as error:
            tolerance.check(error)
        patience.wait(status)


class _Changes:
    """A line for each state that changes; being `first` when it is first seen is no change."""

    def __init__(self, *, err: bool, first: str | None = None) -> None:
        self._err = err
        self._first = first
        self._shown: dict[str, str] = {}

    def show(self, name: str, state: str, error: str | None = None) -> None:
        if self._shown.get(name, self._first) != state:
            reason = f": {plain(error)}" if error else ""
            click.echo(f"{name} {state}{reason}", err=self._err)
        self._shown[name] = state


class _Patience:
    """How long to follow it, and how often to look."""

    def __init__(self, execution_id: str, timeout_s: float | None) -> None:
        self._execution_id = execution_id
        self._timeout_s = timeout_s
        self._began_s = time.monotonic()

    def wait(self, status: str) -> None:
        """Until the next look. Raises TimeoutError when there is none."""
        left_s = LOOK_EVERY_S
        if self._timeout_s is not None:
            left_s = self._began_s + self._timeout_s - time.monotonic()
            if left_s <= 0:
                message = f"execution {self._execution_id} is {status} after {self._timeout_s:g} s"
                raise TimeoutError(message)
        time.sleep(min(LOOK_EVERY_S, left_s))


class _Picture:
    """What a terminal shows of an execution: a line, a bar, and its nodes."""

    def __init__(self, client: Client, execution_id: str) -> None:
        self._client = client
        self._id = execution_id
        self._dag: Mapping[str, Sequence[Node]] = {}

    def draw(self, status: str) -> Group:
        from rich.console import Group
        from rich.padding import Padding
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        summary = self._client.get(self._id)
        counts: Counter[str] = Counter(summary["counts"])
        done, total = count_ended(counts), sum(counts.values())
        counted = "  ".join(f"{state} {counts[state]}" for state in _ORDER if counts[state])
        head = Text.assemble(
            f"{plain(str(summary['name']))} {self._id} ",
            (status, STYLES.get(status, "")),
            f"{' (cancelling)' if summary['cancelling'] else ''}  {counted}",
        )
        # A bar does not end its line; padded, it has one of its own.
        bar = Padding(ProgressBar(total=max(total, 1), completed=done, width=60), 0)
        return Group(head, bar, *(self._tree() if total <= SHOWN_MAX else self._newest(total)))

    def _tree(self) -> list[RenderableType]:
        """Every node under the last it waits for; what else it waits for is said beside it."""
        from rich.tree import Tree

        if not self._dag:
            self._dag = self._client.definition(self._id)["dag"]
        written = [*self._dag["nodes"], *self._dag.get("finally", ())]
        last = {one["id"] for one in self._dag.get("finally", ())}
        dependencies = {one["id"]: one["dependencies"] for one in written}
        rows = with_children(self._client, self._client.nodes(self._id))
        nodes = {one["node_id"]: one for one in rows}
        trunk = Tree("", hide_root=True)
        branches: dict[str, Tree] = {}
        last_trunk: Tree | None = None
        for node_id, parent in parents_of(written).items():
            others = [one for one in dependencies[node_id] if one != parent]
            above = branches[parent] if parent is not None else trunk
            if parent is None and node_id in last:
                above = last_trunk = last_trunk or trunk.add("finally")
            branches[node_id] = above.add(_label(nodes[node_id], others))
        return [trunk]

    def _newest(self, total: int) -> list[RenderableType]:
        from rich.text import Text

        rows: list[Node] = []
        for state in ("FAILED", "RUNNING", "RETRYING", "WAITING", "QUEUED"):
            left = SHOWN_MAX - len(rows)
            rows += self._client.nodes(self._id, state=state, count_max=left)
        rows = list(with_children(self._client, rows))
        more = Text(f"… and {total - len(rows):,} more nodes", style="dim")
        return [*map(_label, rows), more]


def _label(node: Node, others: Sequence[str] = ()) -> Text:
    from rich.text import Text

    state = str(node["state"])
    also = f" (also after {', '.join(others)})" if others else ""
    took = f" {text}" if (text := node_took(node)) != "-" else ""
    told = f" {plain(why(node) or '')}" if why(node) else ""
    return Text.assemble(
        f"{node['node_id']} ",
        (state, STYLES.get(state, "")),
        f" {node['handler']}{took}{also}",
        (told, "red" if node["error"] else "dim"),
    )


@dataclass
class Sample:
    """One sample workflow on its way."""

    name: str
    execution_id: str
    status: ExecutionState = ExecutionState.PENDING
    nodes: dict[str, NodeState] = field(default_factory=dict)


@contextmanager
def sample_view() -> Iterator[Callable[[Sequence[Sample]], None]]:
    """What shows samples while they run: a live table on a terminal, lines of changes elsewhere."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda samples: live.update(_sample_table(samples), refresh=True)
    else:
        yield partial(_print_samples, _Changes(err=False))


def _print_samples(changes: _Changes, samples: Sequence[Sample]) -> None:
    for sample in samples:
        for node_id, state in sample.nodes.items():
            changes.show(f"{sample.name} {node_id}", state)
        changes.show(sample.name, sample.status)


def _sample_table(samples: Sequence[Sample]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("workflow", "status", "nodes", box=None, padding=(0, 2, 0, 0))
    for sample in samples:
        nodes = Text("  ").join(
            Text.assemble(f"{node_id} ", (state, STYLES.get(state, "")))
            for node_id, state in sample.nodes.items()
        )
        table.add_row(sample.name, Text(sample.status, STYLES.get(sample.status, "")), nodes)
    return table
