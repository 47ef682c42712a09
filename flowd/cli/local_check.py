"""Check documents as the flowd of this folder would, without one that runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Set
from pathlib import Path
from typing import NamedTuple

import click

from flowd.cli.documents import Document, Finding, Verdict, read_documents
from flowd.cli.exit_codes import FAILED
from flowd.cli.kinds import verdict_by_itself
from flowd.cli.options import MACHINE_FILE, config_of_running
from flowd.cli.remote import plain
from flowd.cli.unknown_names import QUEUE, Known, Named, read_by, unknown_among
from flowd.config.loading import load_settings
from flowd.errors import InvalidWorkflow, Problem
from flowd.handlers.config_checks import ConfigChecks, find_schema_flaw
from flowd.handlers.loading import open_registry
from flowd.home import DEFAULT_FILE, may_be_there
from flowd.workflow.strict_json import parse_json
from flowd.workflow.validator import Handlers, validate_workflow


class _Rules(NamedTuple):
    """`queues` are those that workers read, none where nothing is known of that."""

    handlers: Handlers
    bytes_max: int
    queues: Set[str]


def settings_file_of(file: str, named: Path | None) -> Path | None:
    """The settings that count for a workflow: those named, else the flowd.toml beside its file,
    else those of the flowd that commands are about; None where there are none to be read."""
    if named is not None:
        return named
    beside = Path(file).parent / DEFAULT_FILE
    if file not in ("-", "stdin") and beside.exists():
        return beside
    found = config_of_running(Path(DEFAULT_FILE) if may_be_there(Path(DEFAULT_FILE)) else None)
    # The service's may be for its own user alone, and a folder without one has the defaults.
    is_closed = found == MACHINE_FILE and not os.access(found, os.R_OK)
    return None if is_closed or (found is not None and os.path.isdir(found)) else found  # noqa: PTH112


class LocalCheck:
    """Call it with a document. Raises InvalidSettings, and BadHandlers where own handlers cannot be
    used. `named` is the settings file to take for all of them."""

    def __init__(self, named: Path | None = None) -> None:
        self._named = named
        self._rules: dict[Path | None, _Rules] = {}

    def unknown_among(self, document: Document, names: Iterable[Named]) -> list[Problem]:
        """Those queues that no worker of the settings reads which count for the document."""
        queues = self._rules_of(document).queues
        known = {QUEUE: Known(queues, f"no worker of {DEFAULT_FILE} reads")} if queues else {}
        return unknown_among(names, known)

    def _rules_of(self, document: Document) -> _Rules:
        settings_file = settings_file_of(document.file, self._named)
        if settings_file not in self._rules:
            self._rules[settings_file] = _read_rules(settings_file)
        return self._rules[settings_file]

    def __call__(self, document: Document) -> Verdict:
        rules = self._rules_of(document)
        if len(document.body) > rules.bytes_max:
            limit = f"the limit of {rules.bytes_max:,} bytes; the setting is api.body_max_mb"
            return Verdict([Problem("", "body_too_large", f"it is longer than {limit}")])
        try:
            content, _, hidden = parse_json(document.body)
            if verdict := verdict_by_itself(content, hidden):
                return verdict
            workflow = validate_workflow(document.body, rules.handlers, find_schema_flaw)
        except InvalidWorkflow as error:
            return Verdict(error.problems)
        return Verdict((), len(workflow.dag.nodes) + len(workflow.dag.finally_))


def refuse_wrong(file: str, named: Path | None) -> None:
    """Say what is wrong with the workflows of a file, and leave, unless nothing is."""
    check = LocalCheck(named)
    found: list[Finding] = []
    for one in read_documents(file):
        found += [one] if isinstance(one, Finding) else one.findings(check(one).problems)
    for finding in found:
        click.echo(plain(str(finding)), err=True)
    if found:
        sys.exit(FAILED)


def _read_rules(settings_file: Path | None) -> _Rules:
    settings = load_settings(settings_file)
    handlers = ConfigChecks(open_registry(settings), settings)
    queues = read_by(settings) if settings_file else frozenset()
    return _Rules(handlers, int(settings.api.body_max_mb * 2**20), queues)
