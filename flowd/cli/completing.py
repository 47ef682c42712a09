"""What a shell is offered for an id or a process; nothing where nobody answers soon."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from flowd.cli.profiles import Destination, locate
from flowd.errors import FlowdError

# A shell waits meanwhile.
_ANSWER_S: Final = 2.0
_EXECUTIONS_MAX: Final = 50

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def offering(find: Callable[[click.Context], Iterator[CompletionItem]]) -> Complete:
    """What completes an argument by what is found, as far as that begins as it does."""

    def complete(
        ctx: click.Context,
        _param: click.Parameter,
        incomplete: str,
    ) -> list[CompletionItem]:
        try:
            with _soon():
                items = list(find(ctx))
        except (OSError, ValueError, FlowdError, click.ClickException, click.exceptions.Exit):
            items = []
        return [one for one in items if one.value.startswith(incomplete)]

    return complete


@contextmanager
def _soon() -> Iterator[None]:
    """Raises TimeoutError when it has taken too long."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, _ANSWER_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def place_of(ctx: click.Context) -> Destination:
    """The flowd that the command line so far is about."""
    return locate(ctx, ctx.params.get("url") or os.environ.get("FLOWD_URL"), has_token=True)


def _executions(ctx: click.Context) -> Iterator[CompletionItem]:
    from flowd.client import Client, ClientError

    yield CompletionItem("@latest", help="the newest")
    try:
        with Client(*place_of(ctx)) as client:
            rows = list(client.list(count_max=_EXECUTIONS_MAX))
    except ClientError:
        return
    for row in rows:
        yield CompletionItem(row["execution_id"], help=f"{row['name']} {row['status']}")


def _definitions(ctx: click.Context) -> Iterator[CompletionItem]:
    from flowd.client import Client, ClientError

    try:
        with Client(*place_of(ctx)) as client:
            rows = list(client.definitions(count_max=_EXECUTIONS_MAX))
    except ClientError:
        return
    for row in rows:
        yield CompletionItem(row["name"], help=f"version {row['version']}")


def _processes(ctx: click.Context) -> Iterator[CompletionItem]:
    from flowd.cli.running import data_dir_of
    from flowd.supervisor.asking import ControlUnavailable, ask

    folder = data_dir_of(ctx.params.get("config"), ctx.params.get("data_dir"))
    try:
        answer: dict[str, Any] = ask(folder, "status", timeout_s=_ANSWER_S)
    except ControlUnavailable:
        return
    for process in answer["processes"]:
        yield CompletionItem(process["name"], help=process["state"])


complete_executions = offering(_executions)
complete_definitions = offering(_definitions)
complete_processes = offering(_processes)


def complete_runs(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The saved workflows, and whatever files there are."""
    files = CompletionItem(incomplete, type="file")
    return [*complete_definitions(ctx, param, incomplete), files]
