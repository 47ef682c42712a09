"""`flowd validate`: what is wrong with workflows in files, found without a flowd that runs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from flowd.cli.documents import (
    Document,
    Finding,
    Verdict,
    child_names,
    find_files,
    problems_of,
    read_documents,
    unreadable,
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
from flowd.cli.unknown_names import (
    LIMIT,
    Installation,
    Known,
    Named,
    names_in,
    unknown_among,
    warn_of,
)
from flowd.cli.workflow_file import name_of
from flowd.errors import Problem
from flowd.suggestions import did_you_mean
from flowd.workflow.report import quote

if TYPE_CHECKING:
    from flowd.client import Client


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
            reports, made = _reports(files, partial(_ask, client))
            installation = Installation(client, made=made)
            _warn_of_unknown(reports, lambda _, names: installation.unknown_among(names))
    else:
        from flowd.cli.local_check import LocalCheck

        check = LocalCheck(config)
        reports, made = _reports(files, check)
        here = {LIMIT: Known(made, "no file here makes")} if made else {}
        _warn_of_unknown(
            reports,
            lambda document, names: [
                *unknown_among(names, here),
                *check.unknown_among(document, names),
            ],
        )
    if output == "json":
        show_json(_document(reports))
    else:
        _show(reports)
    sys.exit(FAILED if any(one.findings for one in reports) else 0)


class _Report(NamedTuple):
    """What there is to say of a file: `kinds` counts its documents by theirs, `nodes` are those of
    its workflows that are valid. `refers` are the saved workflows that its documents name, each
    with the document and the path, `names` the limits and queues."""

    file: str
    findings: list[Finding]
    nodes: int
    kinds: Counter[str]
    refers: Sequence[tuple[str, Document, str]] = ()
    names: Sequence[tuple[Document, Sequence[Named]]] = ()


# Where what has a name of its kind stands first.
_Places = dict[tuple[str, str], tuple[str, int]]


def _reports(
    files: Sequence[str], check: Callable[[Document], Verdict]
) -> tuple[list[_Report], set[str]]:
    """Of all files together: what stands in one of them may be named in another. And the limits
    that they make."""
    places: _Places = {}
    reports = [_report(file, check, places) for file in find_files(files)]
    named = {name for kind, name in places if kind == "definition"}
    # What stands alone may run what is nowhere near.
    if named and sum(report.kinds.total() for report in reports) > 1:
        for report in reports:
            for name, document, path in report.refers:
                if name not in named:
                    _warn_of(name, named, document, path)
    return reports, {name for kind, name in places if kind == LIMIT}


def _warn_of_unknown(
    reports: Sequence[_Report],
    unknown: Callable[[Document, Sequence[Named]], Sequence[Problem]],
) -> None:
    for report in reports:
        for document, names in report.names:
            warn_of(document.findings(unknown(document, names)))


def _warn_of(name: str, named: Set[str], document: Document, path: str) -> None:
    """It may be saved by others; only `flowd apply` can tell."""
    hint = did_you_mean(name, named) or "; `flowd apply` refuses it unless it is saved"
    problem = Problem(path, "unknown_definition", f"no file here defines {quote(name)}{hint}")
    warn_of(document.findings([problem]))


def _report(file: str, check: Callable[[Document], Verdict], places: _Places) -> _Report:
    from flowd.cli.kinds import kind_of

    findings: list[Finding] = []
    nodes = 0
    refers: list[tuple[str, Document, str]] = []
    names: list[tuple[Document, Sequence[Named]]] = []
    kinds: Counter[str] = Counter()
    try:
        for document in read_documents(file):
            if isinstance(document, Finding):
                findings.append(document)
                continue
            verdict = check(document)
            content = _content(document)
            kind = kind_of(content).name
            twice = _named_before(places, kind, content, document)
            refers += ((one, document, path) for path, one in _named_in(content))
            if not verdict.problems and (named := names_in(content)):
                names.append((document, named))
            findings += document.findings([*verdict.problems, *twice])
            nodes += verdict.nodes
            kinds[kind] += 1
    except click.ClickException as error:
        findings.append(unreadable(file, error))
    return _Report(name_of(file), findings, nodes, kinds, refers, names)


def _content(document: Document) -> Any:
    try:
        return json.loads(document.body)
    except ValueError:
        return None


def _named_in(content: Any) -> Iterator[tuple[str, str]]:
    """The saved workflows that a definition or a schedule runs, each with its path."""
    yield from child_names(content)
    runs = content.get("workflow") if isinstance(content, dict) else None
    if isinstance(runs, str):
        yield "workflow", runs


def _named_before(
    places: _Places, kind: str, content: Any, document: Document
) -> Sequence[Problem]:
    """Whether one of its kind and name stands before it; notes where it does. Workflows in files of
    their own may have one name: they are not saved under it."""
    name = content.get("name") if isinstance(content, dict) else None
    here = (document.file, document.line)
    if not isinstance(name, str) or (first := places.setdefault((kind, name), here)) == here:
        return ()
    if first[0] == document.file:
        text = f"the {kind} {quote(name)} stands in line {first[1]} already"
    elif kind == "definition":
        return ()
    else:
        text = f"the {kind} {quote(name)} stands in {first[0]}:{first[1]} already"
    return (Problem("name", "duplicate_name", text),)


def _ask(client: Client, document: Document) -> Verdict:
    from flowd.cli.kinds import verdict_by_itself
    from flowd.client import ApiError
    from flowd.errors import InvalidWorkflow
    from flowd.workflow.strict_json import parse_json

    try:
        content, _, hidden = parse_json(document.body)
    except InvalidWorkflow as error:
        return Verdict(error.problems)
    if verdict := verdict_by_itself(content, hidden):
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
            click.echo(plain(str(finding)), err=True)
        if not report.findings:
            click.echo(_praise(report), err=True)
    valid = sum(not report.findings for report in reports)
    if len(reports) > 1:
        click.echo(f"{valid:,} of {len(reports):,} files are valid", err=True)


def _praise(report: _Report) -> str:
    from flowd.cli.kinds import KINDS

    nodes = _count(report.nodes, "node")
    if report.kinds == {"definition": 1}:
        return f"{report.file} is a valid workflow of {nodes}"
    counts = {kind.name: report.kinds[kind.name] for kind in KINDS if kind.name in report.kinds}
    parts = [
        f"{_count(count, 'workflow')} of {nodes}" if kind == "definition" else _count(count, kind)
        for kind, count in counts.items()
    ]
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
