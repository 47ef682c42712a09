"""`flowd apply`: make what is saved under names be as files say it is."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from flowd.cli.documents import (
    Document,
    Finding,
    child_names,
    find_files,
    problems_of,
    read_documents,
    unreadable,
)
from flowd.cli.exit_codes import FAILED
from flowd.cli.remote import (
    as_commands,
    connected,
    json_option,
    plain,
    server_options,
    show_json,
    table_or_json_option,
)
from flowd.cli.unknown_names import LIMIT, Installation, names_in, read_here, warn_of
from flowd.errors import Problem, UnknownDefinition

if TYPE_CHECKING:
    from flowd.cli.kinds import Kind
    from flowd.client import ApiError, Client

REFUSED: Final = "refused"
UNCHANGED: Final = "unchanged"
REMOVED: Final = "removed"
# Of one document, not of the whole: others may do better.
_OF_ONE: Final = range(400, 500)
_OF_ALL: Final = (401, 403, 429)


@click.command()
@server_options
@table_or_json_option
@json_option
@click.option("--diff", is_flag=True, help="Only show what would change.")
@click.option("--set", "set_name", metavar="NAME", help="What is applied belongs to this set.")
@click.option(
    "--prune", is_flag=True, help="Remove what belongs to the set and is not in the files any more."
)
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(allow_dash=True)
)
def apply(
    url: str | None,
    output: str,
    diff: bool,
    set_name: str | None,
    prune: bool,
    files: tuple[str, ...],
) -> None:
    """Save what files hold: definitions, schedules and limits, each under the name in it.

    FILE is JSON or YAML, of one document or several, or a folder of such files. Says what it
    changed, and a second time that nothing did. What is wrong with one document keeps no other
    from being applied; the exit code is 1 then.
    """
    if prune and set_name is None:
        raise click.UsageError("--prune removes what belongs to a set; name it with --set")
    # The last file of a set may have gone.
    wanted, broken = read_wanted(find_files(files, may_be_none=prune))
    with connected(url) as client:
        named = {one.name for one in wanted if one.kind.name == "definition"}
        applied = _Apply(client, named, is_preview=diff)
        members = applied.begin_set(set_name, wanted)
        results = [applied.do(one) for one in wanted]
        _warn_of_unknown(client, wanted, results)
        removed = []
        if prune and broken:
            click.echo("nothing is removed, as some files cannot be read", err=True)
        elif prune:
            removed = applied.prune(str(set_name), wanted, members)
    findings = [*broken, *(each for one in (*results, *removed) for each in one.findings)]
    if output == "json":
        show_json(_document(results, removed, broken))
    else:
        _show(results, removed, findings, is_preview=diff)
    sys.exit(FAILED if findings else 0)


class Wanted(NamedTuple):
    kind: Kind
    name: str
    document: Document
    content: dict[str, Any]


class Result(NamedTuple):
    """`changes` are the places that differ, in a preview."""

    kind: str
    name: str
    outcome: str
    findings: Sequence[Finding] = ()
    changes: Sequence[dict[str, Any]] = ()
    document: Document | None = None


def read_wanted(files: Iterable[str]) -> tuple[list[Wanted], list[Finding]]:
    """What is to be there, in the order in which it is made, and what cannot be understood."""
    from flowd.cli.kinds import KINDS

    wanted: dict[tuple[str, str], Wanted] = {}
    broken: list[Finding] = []
    for file in files:
        try:
            for document in read_documents(file):
                one = document if isinstance(document, Finding) else _wanted(document)
                if isinstance(one, Wanted) and (first := wanted.get((one.kind.name, one.name))):
                    place = f"{first.document.file}:{first.document.line}"
                    text = f"the {one.kind.name} {one.name!r} stands in {place} already"
                    broken += one.document.findings([Problem("name", "duplicate_name", text)])
                elif isinstance(one, Wanted):
                    wanted[one.kind.name, one.name] = one
                else:
                    broken += [one] if isinstance(one, Finding) else one
        except click.ClickException as error:
            broken.append(unreadable(file, error))
    order = [kind.name for kind in KINDS]
    return sorted(wanted.values(), key=lambda one: order.index(one.kind.name)), broken


def _wanted(document: Document) -> Wanted | list[Finding]:
    from flowd.cli.kinds import kind_of, name_problems
    from flowd.errors import InvalidWorkflow
    from flowd.workflow.strict_json import parse_json

    try:
        content, _, hidden = parse_json(document.body)
    except InvalidWorkflow as error:
        return document.findings(error.problems)
    if problems := [*name_problems(content), *hidden]:
        return document.findings(problems)
    return Wanted(kind_of(content), content["name"], document, content)


def _warn_of_unknown(client: Client, wanted: Sequence[Wanted], results: Sequence[Result]) -> None:
    """Of limits and queues that definitions name, unless these were refused."""
    made = {one.name for one in wanted if one.kind.name == LIMIT}
    installation = Installation(client, made=made, read=read_here)
    for one, result in zip(wanted, results, strict=True):
        if one.kind.name == "definition" and result.outcome != REFUSED:
            problems = installation.unknown_among(names_in(one.content))
            warn_of(one.document.findings(problems))


class _Apply:
    def __init__(self, client: Client, named: Set[str], *, is_preview: bool) -> None:
        self._client = client
        # The definitions in the files.
        self._named = named
        self._is_preview = is_preview
        # The definitions that a preview has found to get a version.
        self._new: set[str] = set()
        self._refused: set[str] = set()
        # Those that a preview would put.
        self._documents: dict[str, dict[str, Any]] = {}

    def begin_set(self, name: str | None, wanted: Sequence[Wanted]) -> set[tuple[str, str]]:
        """What the set has had. Whatever is made from here on is in it before it is there, so that
        one who is killed in the middle loses nothing of it."""
        if name is None:
            return set()
        before = {(one["kind"], one["name"]) for one in self._client.applied_set(name)}
        if not self._is_preview:
            self._put_set(name, before | _names(wanted))
        return before

    def _put_set(self, name: str, members: Iterable[tuple[str, str]]) -> None:
        self._client.put_set(
            name, [{"kind": kind, "name": member} for kind, member in sorted(members)]
        )

    def do(self, wanted: Wanted) -> Result:
        """Put it, or say what that would change."""
        from flowd.client import ApiError

        kind, name, document = wanted.kind, wanted.name, wanted.document
        try:
            if unknown := self._unknown_children(wanted):
                return self._refuse(wanted, unknown)
            if self._is_preview:
                return self._preview(wanted)
            # It is put field by field, and no document is sent for the API to refuse.
            if kind.name == "limit" and (problems := kind.problems(wanted.content)):
                return self._refuse(wanted, problems)
            outcome = kind.put(self._client, name, wanted.content, document.body)
        except ApiError as error:
            return self._refuse(wanted, _problems(error))
        return Result(kind.name, name, outcome, document=document)

    def _unknown_children(self, wanted: Wanted) -> list[Problem]:
        """Those of its children that neither stand in the files nor are saved: it would start, and
        at once be refused."""
        return [
            Problem(path, UnknownDefinition.code, str(UnknownDefinition(name)))
            for path, name in child_names(wanted.content)
            if name not in self._named and not self._latest(name)
        ]

    def _refuse(self, wanted: Wanted, problems: Sequence[Problem]) -> Result:
        kind, name, document = wanted.kind, wanted.name, wanted.document
        if kind.name == "definition":
            self._refused.add(name)
        elif wanted.content.get("workflow") in self._refused:
            problems = [_as_consequence(one) for one in problems]
        return Result(kind.name, name, REFUSED, document.findings(problems), document=document)

    def _preview(self, wanted: Wanted) -> Result:
        from flowd.cli.commands.diff import differences
        from flowd.cli.kinds import CHANGED, CREATED

        kind, name = wanted.kind, wanted.name
        if kind.name == "definition":
            self._client.validate(wanted.document.body)
        elif problems := kind.problems(wanted.content) or self._unsaved(kind, wanted.content):
            return self._refuse(wanted, problems)
        if kind.name == "definition":
            self._documents[name] = wanted.content
        elif kind.name == "schedule" and (misfits := self._misfits(wanted.content)):
            return self._refuse(wanted, misfits)
        there = kind.find(self._client, name)
        changes = [] if there is None else list(differences(there, kind.said(wanted.content)))
        outcome = CREATED if there is None else CHANGED if changes else UNCHANGED
        if kind.name == "definition" and outcome != UNCHANGED:
            self._new.add(name)
        return Result(kind.name, name, outcome, changes=changes, document=wanted.document)

    def _unsaved(self, kind: Kind, schedule: dict[str, Any]) -> list[Problem]:
        """What is wrong with what a schedule runs, once what stands before it is applied."""
        if kind.name != "schedule":
            return []
        name, version = schedule["workflow"], schedule.get("version", "latest")
        latest = self._latest(name) + (name in self._new)
        if version == "latest" and latest:
            return []
        if version == "latest":
            error = UnknownDefinition(name)
            return [Problem("workflow", error.code, str(error))]
        if version <= latest:
            return []
        error = UnknownDefinition(name, version, latest)
        return [Problem("version" if latest else "workflow", error.code, str(error))]

    def _misfits(self, schedule: dict[str, Any]) -> list[Problem]:
        """In what its input does not fit what it runs."""
        from flowd.handlers.json_schema import find_misfits

        name, version = schedule["workflow"], schedule.get("version", "latest")
        latest = self._latest(name) + (name in self._new)
        if name in self._documents and version in ("latest", latest):
            runs = self._documents[name]
        else:
            number = None if version == "latest" else version
            runs = self._client.saved_definition(name, number)["definition"]
        if (schema := runs.get("input_schema")) is None:
            return []
        given = {**(runs.get("input") or {}), **schedule.get("input", {})}
        found = find_misfits(schema, given, "input")
        return [Problem(path, "misfit", text) for path, text in found]

    def _latest(self, name: str) -> int:
        from flowd.client import ApiError

        try:
            return int(self._client.saved_definition(name)["latest"])
        except ApiError as error:
            if error.status != 404:
                raise
            return 0

    def prune(
        self, set_name: str, wanted: Sequence[Wanted], before: set[tuple[str, str]]
    ) -> list[Result]:
        """Remove what the files no longer hold, what refers to others first."""
        from flowd.cli.kinds import KINDS

        gone = before - _names(wanted)
        results = [
            one
            for kind in reversed(KINDS)
            for one in self._remove_all(
                kind, sorted(name for owner, name in gone if owner == kind.name)
            )
        ]
        if not self._is_preview:
            kept = {(one.kind, one.name) for one in results if one.outcome != REMOVED}
            self._put_set(set_name, _names(wanted) | kept)
        return results

    def _remove_all(self, kind: Kind, names: Sequence[str]) -> list[Result]:
        """What was refused is asked for again behind the others: one of them may have used it."""
        results: list[Result] = []
        while names:
            tried = [self._remove(kind, name) for name in names]
            results += [one for one in tried if one.outcome == REMOVED]
            refused = [one for one in tried if one.outcome != REMOVED]
            if len(refused) == len(names):
                return [*results, *refused]
            names = [one.name for one in refused]
        return results

    def _remove(self, kind: Kind, name: str) -> Result:
        from flowd.client import ApiError

        try:
            if not self._is_preview:
                kind.delete(self._client, name)
        except ApiError as error:
            if error.status != 404:
                problems = _problems(error)
                findings = [Finding(f"{kind.name} {name}", None, None, "", problems[0])]
                return Result(kind.name, name, REFUSED, findings)
        return Result(kind.name, name, REMOVED)


def _as_consequence(problem: Problem) -> Problem:
    """Of a schedule whose workflow stands in the files, and was refused."""
    if problem.code != UnknownDefinition.code:
        return problem
    return replace(problem, message="it is not saved: it was refused, as said above")


def _names(wanted: Iterable[Wanted]) -> set[tuple[str, str]]:
    return {(one.kind.name, one.name) for one in wanted}


def _problems(error: ApiError) -> list[Problem]:
    """What is wrong with one document. Raises it again where it is not about that."""
    if error.status not in _OF_ONE or error.status in _OF_ALL:
        raise error
    return problems_of(error) or [Problem("", error.code, error.detail)]


def _show(
    results: Sequence[Result],
    removed: Sequence[Result],
    findings: Sequence[Finding],
    *,
    is_preview: bool,
) -> None:
    would = "would be " if is_preview else ""
    for one in (*results, *removed):
        if one.outcome not in (UNCHANGED, REFUSED):
            click.echo(plain(f"{one.kind} {one.name} {would}{one.outcome}"))
        for change in one.changes:
            click.echo("\n".join(_lines(change)))
    for finding in findings:
        click.echo(plain(as_commands(str(finding))), err=True)
    counts: dict[str, int] = {}
    for one in (*results, *removed):
        word = one.outcome.partition(" ")[0]
        counts[word] = counts.get(word, 0) + 1
    order = sorted(counts, key=lambda word: (word in (UNCHANGED, REFUSED), word))
    said = ", ".join(
        f"{counts[word]:,} {'' if word in (UNCHANGED, REFUSED) else would}{word}" for word in order
    )
    if not counts.keys() - {UNCHANGED, REFUSED}:
        said = f"nothing {'would change' if is_preview else 'changed'}" + (f": {said}" * bool(said))
    click.echo(said, err=True)


def _lines(change: dict[str, Any]) -> Iterator[str]:
    from flowd.cli.commands.diff import shown

    yield plain(f"  {change['path']}")
    yield f"    - {shown(change['a'])}"
    yield f"    + {shown(change['b'])}"


def _document(
    results: Sequence[Result], removed: Sequence[Result], broken: Sequence[Finding]
) -> dict[str, Any]:
    return {
        "changed": any(one.outcome not in (UNCHANGED, REFUSED) for one in (*results, *removed)),
        "documents": [
            {
                "kind": one.kind,
                "name": one.name,
                "outcome": one.outcome,
                "file": one.document.file if one.document else None,
                "line": one.document.line if one.document else None,
                "changes": list(one.changes),
                "problems": [each.to_json() for each in one.findings],
            }
            for one in (*results, *removed)
        ],
        "broken": [{"file": one.file, **one.to_json()} for one in broken],
    }
