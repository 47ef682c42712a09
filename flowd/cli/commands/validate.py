"""`flowd validate`: what is wrong with workflows in files, found without a flowd that runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from flowd.cli.documents import (
    Document,
    Finding,
    Verdict,
    find_files,
    problems_of,
    read_documents,
)
from flowd.cli.exit_codes import FAILED
from flowd.cli.options import config_option
from flowd.cli.profiles import names_profile, profile_option
from flowd.cli.remote import (
    connected,
    json_option,
    plain,
    show_json,
    table_or_json_option,
    token_option,
)
from flowd.errors import Problem
from flowd.workflow.report import quote

if TYPE_CHECKING:
    from flowd.client import Client

_UNREADABLE: Final = "unreadable_file"


@click.command()
@click.option("--url", help="Ask the flowd of this URL, which may know other handlers.")
@profile_option
@token_option
@config_option
@table_or_json_option
@json_option
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(allow_dash=True)
)
def validate(url: str | None, config: Path | None, output: str, files: tuple[str, ...]) -> None:
    """Check workflows, and list everything that is wrong with them.

    FILE is JSON or YAML, or a folder of such files; `-` reads stdin. No flowd needs to run: your
    own handlers are those of the flowd.toml beside the file, else of this folder. Exits with 0 if
    all are valid, otherwise with 1.
    """
    if url or names_profile(click.get_current_context()):
        with connected(url) as client:
            reports = [_report(file, partial(_ask, client)) for file in find_files(files)]
    else:
        from flowd.cli.local_check import LocalCheck

        reports = [_report(file, LocalCheck(config)) for file in find_files(files)]
    if output == "json":
        show_json(_document(reports))
    else:
        _show(reports)
    sys.exit(FAILED if any(one.findings for one in reports) else 0)


class _Report(NamedTuple):
    """What there is to say of a file; `nodes` are those of its workflows that are valid."""

    file: str
    findings: list[Finding]
    nodes: int
    workflows: int
    schedules: int


def _report(file: str, check: Callable[[Document], Verdict]) -> _Report:
    name, findings = "stdin" if file == "-" else file, []
    nodes = workflows = schedules = 0
    names: dict[tuple[str, str], int] = {}
    try:
        for document in read_documents(file):
            if isinstance(document, Finding):
                findings.append(document)
                continue
            verdict = check(document)
            findings += document.findings([*verdict.problems, *_named_before(document, names)])
            nodes += verdict.nodes
            workflows += verdict.nodes > 0
            schedules += verdict.nodes == 0
    except click.ClickException as error:
        problem = Problem("", _UNREADABLE, error.message)
        findings.append(Finding(name, None, None, "", problem))
    return _Report(name, findings, nodes, workflows, schedules)


def _named_before(document: Document, names: dict[tuple[str, str], int]) -> Sequence[Problem]:
    """Whether a document of its kind and name stands before it in its file; notes where it does."""
    from flowd.cli.kinds import kind_of

    try:
        content = json.loads(document.body)
    except ValueError:
        return ()
    name = content.get("name") if isinstance(content, dict) else None
    if not isinstance(name, str):
        return ()
    kind = kind_of(content).name
    if (line := names.setdefault((kind, name), document.line)) == document.line:
        return ()
    text = f"the {kind} {quote(name)} stands in line {line} already"
    return (Problem("name", "duplicate_name", text),)


def _ask(client: Client, document: Document) -> Verdict:
    from flowd.cli.kinds import schedule_verdict
    from flowd.client import ApiError
    from flowd.errors import InvalidWorkflow
    from flowd.workflow.strict_json import parse_json

    try:
        content, _, hidden = parse_json(document.body)
    except InvalidWorkflow as error:
        return Verdict(error.problems)
    if verdict := schedule_verdict(content, hidden):
        return verdict
    try:
        return Verdict((), client.validate(document.body))
    except ApiError as error:
        if error.code != "invalid_workflow":
            raise
        return Verdict(problems_of(error))


def _show(reports: Sequence[_Report]) -> None:
    """For people, as compilers do."""
    for report in reports:
        for finding in report.findings:
            is_read = finding.problem.code != _UNREADABLE
            text = str(finding) if is_read else f"flowd: {finding.problem.message}"
            click.echo(plain(text), err=True)
        if not report.findings:
            click.echo(_praise(report), err=True)
    valid = sum(not report.findings for report in reports)
    if len(reports) > 1:
        click.echo(f"{valid:,} of {len(reports):,} files are valid", err=True)


def _praise(report: _Report) -> str:
    nodes = _count(report.nodes, "node")
    if (report.workflows, report.schedules) == (1, 0):
        return f"{report.file} is a valid workflow of {nodes}"
    parts = []
    if report.workflows:
        parts.append(f"{_count(report.workflows, 'workflow')} of {nodes}")
    if report.schedules:
        parts.append(_count(report.schedules, "schedule"))
    return f"{report.file} is valid: {', '.join(parts)}"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _document(reports: Sequence[_Report]) -> dict[str, Any]:
    return {
        "valid": not any(report.findings for report in reports),
        "nodes": sum(report.nodes for report in reports),
        "files": [
            {
                "file": report.file,
                "valid": not report.findings,
                "problems": [one.to_json() for one in report.findings],
            }
            for report in reports
        ],
    }
