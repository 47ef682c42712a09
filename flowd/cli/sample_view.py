"""Show sample executions while they run: a live table on a terminal, lines of changes elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flowd.workflow.states import ExecutionState, NodeState

_COLORS: Mapping[str, str] = {
    "PENDING": "dim",
    "QUEUED": "cyan",
    "RUNNING": "yellow",
    "COMPLETED": "green",
    "FAILED": "red",
}


@dataclass
class Sample:
    """One sample workflow on its way."""

    name: str
    execution_id: str
    status: ExecutionState = ExecutionState.PENDING
    nodes: dict[str, NodeState] = field(default_factory=dict)


class SampleView(Protocol):
    def __enter__(self) -> SampleView: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, samples: Sequence[Sample]) -> None: ...


def sample_view() -> SampleView:
    console = Console()
    return _LiveTable(console) if console.is_terminal else _Lines()


class _Lines:
    """One line per change, for pipes and files."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put back."""

    def show(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            for node_id, state in sample.nodes.items():
                self._line(f"{sample.name} {node_id}", state)
            self._line(sample.name, sample.status)

    def _line(self, name: str, state: str) -> None:
        if self._shown.get(name) != state:
            self._shown[name] = state
            click.echo(f"{name} {state}")


class _LiveTable:
    """A table that changes in place, for terminals."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> _LiveTable:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, samples: Sequence[Sample]) -> None:
        table = Table("workflow", "status", "nodes", box=None, padding=(0, 2, 0, 0))
        for sample in samples:
            nodes = Text("  ").join(
                Text.assemble(f"{node_id} ", _colored(state))
                for node_id, state in sample.nodes.items()
            )
            table.add_row(sample.name, _colored(sample.status), nodes)
        self._live.update(table, refresh=True)


def _colored(state: str) -> Text:
    return Text(state, style=_COLORS.get(state, ""))
