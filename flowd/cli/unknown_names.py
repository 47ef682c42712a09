"""Warn of names that mean nothing yet: limits that nobody has made, queues that nobody reads, and
keys of an input of which its workflow knows nothing.

They need not be mistakes: limits and queues may come later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from flowd.cli.documents import Document, Finding, findings_in, nodes_of
from flowd.cli.remote import plain
from flowd.errors import Problem
from flowd.suggestions import did_you_mean
from flowd.workflow.ids import DEFAULT_QUEUE
from flowd.workflow.report import quote

if TYPE_CHECKING:
    from flowd.client import Client
    from flowd.config import Settings

LIMIT: Final = "limit"
QUEUE: Final = "queue"
_UNTIL_THEN: Final = {
    LIMIT: "; until somebody does, it holds nothing back",
    QUEUE: "; until one does, its nodes wait",
}


class Named(NamedTuple):
    kind: str
    path: str
    name: str


class Known(NamedTuple):
    """The names there are, and the beginning of a sentence of one that is none of them."""

    names: Set[str]
    nobody: str


def names_in(content: Any) -> list[Named]:
    """The limits and queues that a definition names, each once, at its first place."""
    first: dict[tuple[str, str], Named] = {}
    for one in _places(content):
        first.setdefault((one.kind, one.name), one)
    return list(first.values())


def _places(content: Any) -> Iterator[Named]:
    nodes = list(nodes_of(content))
    holders = [("", content), *((f"{path}.", node) for path, node in nodes)] if nodes else []
    for path, one in holders:
        if isinstance(queue := one.get("queue"), str):
            yield Named(QUEUE, f"{path}queue", queue)
    for path, node in nodes:
        limit = node.get("limit")
        name, where = (limit.get("name"), ".name") if isinstance(limit, dict) else (limit, "")
        if isinstance(name, str):
            yield Named(LIMIT, f"{path}.limit{where}", name)


def unknown_among(names: Iterable[Named], known: Mapping[str, Known]) -> list[Problem]:
    """Of the kinds of which something is known."""
    return [
        Problem(
            one.path,
            f"unknown_{one.kind}",
            f"{known[one.kind].nobody} the {one.kind} {quote(one.name)}"
            + (did_you_mean(one.name, known[one.kind].names) or _UNTIL_THEN[one.kind]),
        )
        for one in names
        if one.kind in known and one.name not in known[one.kind].names
    ]


def read_by(settings: Settings) -> Set[str]:
    """The queues that the workers of these settings read."""
    workers = settings.workers
    read = {name for group in workers.groups for name in group.queues}
    return read | set(workers.queues) if workers.count else read


def read_here() -> Set[str]:
    """The queues that the workers of the flowd of this folder read, once all of them run."""
    from flowd.cli.options import running_settings_of
    from flowd.errors import InvalidSettings

    try:
        return read_by(running_settings_of(None))
    except InvalidSettings:
        return frozenset()


class Installation:
    """What the flowd that answers knows, asked for when it is needed, once. `made` are limits that
    are about to be made, `read` queues that are read once more runs."""

    def __init__(
        self,
        client: Client,
        *,
        made: Iterable[str] = (),
        read: Callable[[], Set[str]] = frozenset,
    ) -> None:
        self._kinds: Mapping[str, Callable[[], Known | None]] = {
            LIMIT: partial(_limits, client, frozenset(made)),
            QUEUE: partial(_queues, client, read),
        }
        self._known: dict[str, Known | None] = {}

    def unknown_among(self, names: Iterable[Named]) -> list[Problem]:
        # Every worker reads it that is told nothing else.
        asked = [one for one in names if one != (QUEUE, one.path, DEFAULT_QUEUE)]
        for kind in {one.kind for one in asked} - self._known.keys():
            self._known[kind] = self._kinds[kind]()
        return unknown_among(asked, {kind: one for kind, one in self._known.items() if one})


def _limits(client: Client, made: frozenset[str]) -> Known | None:
    rows = _asked(client.limits)
    if rows is None:
        return None
    return Known(made | {one["name"] for one in rows}, "nobody has made")


def _queues(client: Client, read: Callable[[], Set[str]]) -> Known | None:
    rows = _asked(client.workers)
    alive = [one for one in rows or () if one["alive"]]
    # Where none lives that says so of each, nothing is known.
    if not alive or not all(one.get("queues") for one in alive):
        return None
    return Known({name for one in alive for name in one["queues"]} | read(), "no worker reads")


def _asked(call: Callable[[], list[Any]]) -> list[Any] | None:
    """None where it cannot be told: what is asked for only to warn fails nothing."""
    from flowd.client import ClientError

    try:
        return call()
    except ClientError:
        return None


def warn_of_inputs(content: Mapping[str, Any], given: Mapping[str, Any] | None) -> None:
    """Of what is given and a valid workflow does nothing with."""
    if not given:
        return
    # It knows the whole language of workflows, which `flowd validate --url` does not need.
    from flowd.workflow.inputs import known_inputs

    known = known_inputs(content)
    for name in sorted(given.keys() - known) if known is not None else ():
        hint = did_you_mean(name, known or ()) or (
            f"; it knows {', '.join(sorted(known))}" if known else "; it reads no input"
        )
        text = f"the workflow knows no input {quote(name)}{hint}"
        click.echo(plain(f"warning: --input: {text}"), err=True)


def warn_of_workflow(
    client: Client,
    body: bytes,
    file: str | None,
    name: str = "stdin",
    given_input: Mapping[str, Any] | None = None,
) -> None:
    """Of what it names that flowd does not know, and what of its input it does not know, once flowd
    has taken it. It has no file where it is saved, or was read from stdin; `name` is said in its
    place."""
    try:
        content = json.loads(body)
    except ValueError:
        return
    warn_of_inputs(content, given_input)
    problems = Installation(client).unknown_among(names_in(content))
    if problems and file not in (None, "-"):
        warn_of(findings_in(str(file), problems))
    elif problems:
        found = Document(name, 1, body).findings(problems)
        warn_of(replace(one, line=None) for one in found)


def warn_of(findings: Iterable[Finding]) -> None:
    for one in findings:
        click.echo(plain(f"warning: {one}"), err=True)
