"""Validate a submitted workflow, and report everything that is wrong with it at once.

The pydantic models decide; what they refuse is looked at again, piece by piece, to say why. Each
check is linear or nearly so, and none recurses: a body may hold any nonsense, and 16 MiB of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from flowd.errors import InvalidWorkflow, Problem
from flowd.workflow.caching import find_cache_problems
from flowd.workflow.children import find_child_problems
from flowd.workflow.concurrency import find_concurrency_problems
from flowd.workflow.definition import WorkflowDefinition
from flowd.workflow.limiting import find_limit_problems
from flowd.workflow.reachability import find_cycles
from flowd.workflow.reading import nodes_of, read_nodes, written_nodes
from flowd.workflow.references import Names, ReadingNode, check_references
from flowd.workflow.repeating import WAITING_HANDLERS
from flowd.workflow.report import Report, quote, shorten
from flowd.workflow.secret_places import SECRET_KEY, find_secret_problems
from flowd.workflow.signals import find_signal_problems
from flowd.workflow.strict_json import parse_json
from flowd.workflow.structure import explain_structure
from flowd.workflow.suggestions import Suggestions
from flowd.workflow.templating import OPENING

# Cycles are named by their path; one of 10,000 nodes is shown by its beginning and its end.
CYCLE_NODES_SHOWN_MAX = 10
CONFIG_LEVELS_MAX = 64
NODES_MAX = 100_000
# They are opened in the call that ends the last of the others.
FINALLY_NODES_MAX = 1_000

# The handlers there are, each with what checks a config for it: called with the config and the path
# of the node, it returns what is wrong. Templates are not rendered yet. None takes any config.
ConfigCheck = Callable[[dict[str, Any], str], Sequence[Problem]]
Handlers = Mapping[str, ConfigCheck | None]
# What is wrong with a JSON Schema itself, None where nothing is.
SchemaCheck = Callable[[dict[str, Any]], str | None]


def validate_workflow(
    body: bytes, handlers: Handlers, find_schema_flaw: SchemaCheck | None = None
) -> WorkflowDefinition:
    """The workflow this JSON describes. Raises InvalidWorkflow with all its problems."""
    document, compact, hidden = parse_json(body)
    _refuse_too_many_nodes(document)
    report = Report()
    workflow: WorkflowDefinition | None = None
    try:
        workflow = WorkflowDefinition.model_validate(document)
        nodes = nodes_of(workflow)
    except ValidationError:
        nodes = read_nodes(document)
    _Graph(nodes, report).check(
        handlers,
        has_templates=OPENING.encode() in compact,
        has_secrets=SECRET_KEY.encode() in compact,
        output=document.get("output") if isinstance(document, dict) else None,
    )
    schema = document.get("input_schema") if isinstance(document, dict) else None
    if find_schema_flaw and isinstance(schema, dict) and (flaw := find_schema_flaw(schema)):
        report.add("input_schema", "bad_schema", flaw)
    report.extend(find_concurrency_problems(document))
    if workflow is None:
        explain_structure(report, document)
    elif workflow.callback and isinstance(workflow.callback.secret, dict):
        secret = {SECRET_KEY: None} | workflow.callback.secret
        report.extend(find_secret_problems(secret, "callback.secret"))
    report.extend(hidden)
    problems = report.problems()
    if workflow is None or problems:
        raise InvalidWorkflow(problems)
    return workflow


def _refuse_too_many_nodes(document: Any) -> None:
    for part, limit in (("nodes", NODES_MAX), ("finally", FINALLY_NODES_MAX)):
        count = len(written_nodes(document, part))
        if count > limit:
            message = f"{count:,} nodes are more than the limit of {limit:,}"
            raise InvalidWorkflow([Problem(f"dag.{part}", "too_many_nodes", message)])


class _Graph:
    """The nodes by their position, and the checks that need to see all of them."""

    def __init__(self, nodes: list[ReadingNode], report: Report) -> None:
        self._nodes = nodes
        self._report = report
        self._names = Names(nodes)
        self._index_of: dict[str, int] = {}
        self._dependencies: dict[int, list[int]] = {}

    def check(
        self, handlers: Handlers, *, has_templates: bool, has_secrets: bool, output: Any
    ) -> None:
        ids = [node.id for node in self._nodes]
        for index, node_id in enumerate(ids):
            if node_id is not None:
                self._index_of.setdefault(node_id, index)
        self._dependencies = {
            index: self._known_dependencies(node) for index, node in enumerate(self._nodes)
        }
        # Cycles come first, so that a hundred other problems cannot crowd them out.
        if self._goes_back():
            self._check_cycles()
        suggest_handler = Suggestions(handlers)
        suggest_node = Suggestions(self._index_of)
        for index, node in enumerate(self._nodes):
            self._check_id(index, node)
            self._check_handler(node, handlers, suggest_handler)
            self._check_dependencies(node, suggest_node)
            self._check_repeat(node)
            self._report.extend(find_limit_problems(node))
            self._report.extend(find_cache_problems(node))
            if self._is_shallow(node):
                self._check_config(node, handlers)
                self._report.extend(find_signal_problems(node))
                self._report.extend(find_child_problems(node))
                if has_secrets:
                    self._report.extend(find_secret_problems(node.config, f"{node.path}.config"))
        if has_templates or any(one.when or one.until or one.over for one in self._nodes):
            self._check_references(output)

    def _check_references(self, output: Any) -> None:
        """`output` is read when all nodes have ended, as if by one that depends on them."""
        nodes, dependencies = self._nodes, self._dependencies
        if output is not None:
            last = ReadingNode("output", None, None, (), output)
            if self._is_shallow(last):
                dependencies = {**dependencies, len(nodes): list(range(len(nodes)))}
                nodes = [*nodes, last]
        check_references(nodes, self._index_of, dependencies, self._report)

    def _known_dependencies(self, node: ReadingNode) -> list[int]:
        """Those of its own kind: `finally` begins when all others have ended."""
        index_of, nodes = self._index_of, self._nodes
        known = (index_of.get(one) for one in node.dependencies if isinstance(one, str))
        return [
            index
            for index in known
            if index is not None and nodes[index].is_finally == node.is_finally
        ]

    def _goes_back(self) -> bool:
        """False when each node depends on earlier ones only, as most are written: no cycles."""
        return any(
            dependency >= index
            for index, dependencies in self._dependencies.items()
            for dependency in dependencies
        )

    def _check_cycles(self) -> None:
        for cycle in find_cycles(self._dependencies):
            if len(cycle) > 2:
                first, last = cycle[0], cycle[-2]
                position = self._nodes[first].dependencies.index(self._nodes[last].id)
                self._report.add(
                    f"{self._nodes[first].path}.dependencies[{position}]",
                    "cycle",
                    f"cycle {self._format_cycle(cycle)}; remove one of these dependencies",
                )

    def _format_cycle(self, cycle: Sequence[int]) -> str:
        ids = [shorten(str(self._nodes[index].id)) for index in cycle]
        hidden = len(ids) - CYCLE_NODES_SHOWN_MAX
        if hidden > 0:
            half = CYCLE_NODES_SHOWN_MAX // 2
            ids[half:-half] = [f"… {hidden:,} more …"]
        return " -> ".join(ids)

    def _check_id(self, index: int, node: ReadingNode) -> None:
        if node.id is not None and (first := self._index_of[node.id]) != index:
            self._report.add(
                f"{node.path}.id",
                "duplicate_id",
                f"duplicate node id {quote(node.id)}; {self._nodes[first].path} has it already",
            )

    def _check_handler(
        self, node: ReadingNode, handlers: Handlers, suggestions: Suggestions
    ) -> None:
        if node.handler is None or node.handler in handlers:
            return
        hint = suggestions.hint(node.handler)
        if not hint:
            hint = "; the handlers are " + ", ".join(sorted(handlers))
        message = f"unknown handler {quote(node.handler)}{hint}"
        self._report.add(f"{node.path}.handler", "unknown_handler", message)

    def _check_dependencies(self, node: ReadingNode, suggestions: Suggestions) -> None:
        seen: set[str] = set()
        for position, dependency in enumerate(node.dependencies):
            if not isinstance(dependency, str):
                continue
            path = f"{node.path}.dependencies[{position}]"
            if dependency in seen:
                message = f"duplicate dependency {quote(dependency)}; name it once"
                self._report.add(path, "duplicate_dependency", message)
            elif dependency == node.id:
                name = shorten(dependency)
                message = f"node {name!r} depends on itself, a cycle {name} -> {name}; remove it"
                self._report.add(path, "cycle", message)
            elif dependency not in self._index_of:
                hint = suggestions.hint(dependency)
                if not self._names.may_hold(dependency, hint):
                    message = f"unknown node {quote(dependency)}{hint}"
                    self._report.add(path, "unknown_dependency", message)
            elif self._nodes[self._index_of[dependency]].is_finally != node.is_finally:
                self._report.add(path, "other_phase", _other_phase(dependency, node))
            seen.add(dependency)

    def _check_repeat(self, node: ReadingNode) -> None:
        if node.until is not None and node.handler in WAITING_HANDLERS:
            message = f"{node.handler} waits by itself and is not repeated; remove this"
            self._report.add(f"{node.path}.repeat", "not_repeatable", message)

    def _check_config(self, node: ReadingNode, handlers: Handlers) -> None:
        check = handlers.get(node.handler) if node.handler is not None else None
        if check is not None:
            self._report.extend(check(node.config, node.path))

    def _is_shallow(self, node: ReadingNode) -> bool:
        pending = [one for one in (node.config,) if isinstance(one, dict | list)]
        for _ in range(CONFIG_LEVELS_MAX):
            pending = [child for value in pending for child in _containers(value)]
            if not pending:
                return True
        what = node.config_path.rpartition(".")[2]
        message = f"{what} is nested deeper than {CONFIG_LEVELS_MAX} levels"
        self._report.add(node.config_path, "too_deep", message)
        return False


def _other_phase(dependency: str, node: ReadingNode) -> str:
    if node.is_finally:
        return (
            f"{quote(dependency)} is of dag.nodes, all of which have ended before dag.finally "
            "begins; remove this dependency"
        )
    return f"{quote(dependency)} is of dag.finally, which begins when all of dag.nodes have ended"


def _containers(value: Any) -> Iterator[Any]:
    children = value.values() if isinstance(value, dict) else value
    return (child for child in children if isinstance(child, dict | list))
