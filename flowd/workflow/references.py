"""Check what nodes read of others: that it exists, is upstream, and is surely there by then."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, Final

from flowd.errors import Problem, TemplateError
from flowd.workflow.conditions import Condition
from flowd.workflow.definition import NODE_ID_PATTERN
from flowd.workflow.reachability import (
    Certainty,
    find_downstream,
    find_not_upstream,
    find_skippable,
    find_unsure,
    strong_components,
)
from flowd.workflow.repeating import OUTPUT
from flowd.workflow.report import Report, quote
from flowd.workflow.suggestions import Suggestions
from flowd.workflow.templating import (
    INDEX,
    INPUT,
    ITEM,
    Reference,
    Template,
    find_templates,
    parse_text,
)

# What a condition may read besides nodes: `state.B`, `execution.name`.
STATE: Final = "state"
EXECUTION: Final = "execution"
# `scheduled_at` is there where a schedule has started it.
EXECUTION_KEYS: Final = ("id", "name", "scheduled_at")
_NODE_ID: Final = re.compile(NODE_ID_PATTERN)
_BEGINNING: Final = re.compile("[A-Za-z0-9_-]*")
_BAD_IDS_MAX: Final = 100
# Besides, in `finally`: what the other nodes came to, and the first error among them, or null.
ENDING_KEYS: Final = ("status", "error")


@dataclass(slots=True)
class ReadingNode:
    """What could be read of a node; `id` and `handler` are None where they are no strings.

    Dependencies that could not be read are None. `lost_id` is an id of another type, as text.
    """

    path: str
    id: str | None
    handler: str | None
    dependencies: Sequence[Any]
    config: dict[str, Any]
    when: str | None = None
    after: str | None = None
    allow_failure: bool = False
    until: str | None = None
    # What a node with `map` takes its items from; empty where that could not be read.
    over: str | None = None
    timeout_s: float | None = None
    has_retry: bool = False
    is_finally: bool = False
    lost_id: str | None = None
    # Of its `limit` and its `cache`, where it has them, the templates of their keys, empty without.
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_output(self) -> bool:
        """What the execution is worth, and no node; `config` is then any JSON."""
        return self.path == OUTPUT

    @property
    def config_path(self) -> str:
        return self.path if self.is_output else f"{self.path}.config"

    @property
    def can_be_skipped(self) -> bool:
        return self.when is not None or self.after == "failed"


class Names:
    """What is wrong with the ids of a workflow's nodes: who reads such a node is not to blame."""

    def __init__(self, nodes: Sequence[ReadingNode]) -> None:
        self._nodes = nodes

    def is_twice(self, node_id: Any) -> bool:
        return isinstance(node_id, str) and self._times[node_id] > 1

    def may_hold(self, name: str, hint: str) -> bool:
        """Whether an unknown name may be that of a node without one, or begin a bad one."""
        return name in self._lost or (None in self._lost and not hint)

    def mislead(self, text: str) -> bool:
        """Whether it cannot be read because it names a bad id, as far as it is one of the first."""
        return any(one and one in text for one in self._bad[:_BAD_IDS_MAX])

    # Most workflows have no problem at all, and nobody asks.

    @cached_property
    def _times(self) -> Counter[str | None]:
        return Counter(node.id for node in self._nodes)

    @cached_property
    def _lost(self) -> set[str | None]:
        """Ids of nodes that have no usable one, and what bad ones begin with; None: not known."""
        lost = {node.lost_id for node in self._nodes if node.id is None}
        return lost | {_BEGINNING.match(one)[0] for one in self._bad}  # type: ignore[index]

    @cached_property
    def _bad(self) -> list[str]:
        return [one for one in self._times if one is not None and not _NODE_ID.fullmatch(one)]


def check_references(
    nodes: Sequence[ReadingNode],
    index_of: Mapping[str, int],
    dependencies: Mapping[int, list[int]],
    report: Report,
) -> None:
    """`index_of` is the position of each node by id, `dependencies` those by position."""
    _References(nodes, index_of, dependencies, report).check()


class _References:
    def __init__(
        self,
        nodes: Sequence[ReadingNode],
        index_of: Mapping[str, int],
        dependencies: Mapping[int, list[int]],
        report: Report,
    ) -> None:
        self._nodes = nodes
        self._index_of = index_of
        self._dependencies = dependencies
        self._report = report
        self._suggestions = Suggestions(index_of)
        self._names = Names([node for node in nodes if not node.is_output])
        # By reader and read node, the first place that reads it; and the first without a default.
        self._places: dict[int, dict[int, str]] = {}
        self._unguarded: dict[int, dict[int, str]] = {}

    def check(self) -> None:
        for index, node in enumerate(self._nodes):
            for found in self._found_in(node):
                if isinstance(found, Problem):
                    is_misled = found.code == "malformed_template" and self._names.mislead(
                        found.message
                    )
                    if not is_misled:
                        self._report.extend([found])
                elif found.node_id in self._index_of:
                    self._note(index, found)
                elif found.node_id == EXECUTION:
                    self._check_execution(node, found)
                elif not _is_given(node, found) and found.node_id not in node.dependencies:
                    self._report_unknown(found)
        missed = find_not_upstream(self._dependencies, self._places)
        if not missed:
            self._check_certainty()
            return
        loose = find_downstream(self._dependencies, self._loose())
        for index, target in sorted(missed):
            if index not in loose and not self._names.is_twice(self._nodes[target].id):
                self._report_not_upstream(index, target, self._places[index][target])

    def _loose(self) -> list[int]:
        """The nodes of which is not known what they depend on."""
        return [
            index
            for index, node in enumerate(self._nodes)
            if len(self._dependencies[index]) < len(node.dependencies)
            or any(map(self._names.is_twice, node.dependencies))
        ]

    def _found_in(self, node: ReadingNode) -> Iterator[Reference | Problem]:
        yield from find_templates(node.config, node.config_path)
        if node.when is not None:
            yield from self._found_in_condition(node.when, f"{node.path}.when")
        if node.until is not None:
            path = f"{node.path}.repeat.until"
            for found in self._found_in_condition(node.until, path):
                is_output = isinstance(found, Reference) and found.node_id == OUTPUT
                if not is_output or OUTPUT in self._index_of:
                    yield found
        if text := node.keys.get("limit"):
            yield from self._found_in_key(node, text)
        if text := node.keys.get("cache"):
            yield from find_templates({"key": text}, f"{node.path}.cache")
        if node.over:
            yield from _found_in_over(node.over, f"{node.path}.map.over")

    def _found_in_key(self, node: ReadingNode, text: str) -> Iterator[Reference | Problem]:
        path = f"{node.path}.limit"
        for found in find_templates({"key": text}, path):
            if isinstance(found, Problem) or (
                found.node_id not in self._index_of and _is_given(node, found)
            ):
                yield found
                continue
            known = "`input`, `item` and `index`" if node.over is not None else "`input`"
            message = f"the key of a limit reads {known}, and not {quote(found.node_id)}"
            yield Problem(found.path, "unknown_reference", message)

    def _found_in_condition(self, text: str, path: str) -> Iterator[Reference | Problem]:
        try:
            condition = Condition(text)
        except TemplateError as error:
            if not self._names.mislead(text):
                yield Problem(path, "malformed_condition", str(error))
            return
        for name, step, is_guarded in condition.reads:
            if name in self._index_of or name != STATE:
                yield Reference(path, name, is_guarded, step)
            elif isinstance(step, str):
                # A state is there whatever became of the node.
                yield Reference(path, step, is_guarded=True)
            else:
                message = f"cannot read {quote(f'{name}.{step}')}; there is state.NODE"
                yield Problem(path, "unknown_reference", message)

    def _check_execution(self, node: ReadingNode, found: Reference) -> None:
        known = (*EXECUTION_KEYS, *(ENDING_KEYS if node.is_finally else ()))
        if found.step in known:
            return
        read = EXECUTION if found.step is None else f"{EXECUTION}.{found.step}"
        hint = f"there is {', '.join(known[:-1])} and {known[-1]}"
        if found.step in ENDING_KEYS:
            hint += f"; {found.step} is known to nodes of dag.finally"
        self._report.add(found.path, "unknown_reference", f"cannot read {quote(read)}; {hint}")

    def _note(self, index: int, found: Reference) -> None:
        target = self._index_of[found.node_id]
        # What runs last has all others upstream.
        if not self._nodes[index].is_finally or self._nodes[target].is_finally:
            self._places.setdefault(index, {}).setdefault(target, found.path)
        if not found.is_guarded:
            self._unguarded.setdefault(index, {}).setdefault(target, found.path)

    def _report_unknown(self, found: Reference) -> None:
        hint = self._suggestions.hint(found.node_id)
        if self._names.may_hold(found.node_id, hint):
            return
        if found.node_id in (ITEM, INDEX):
            hint = "; `item` and `index` are read in the config of a node that has `map`"
        message = f"template reads the unknown node {quote(found.node_id)}{hint}"
        if _is_condition(found.path):
            message = message.replace("template", "condition", 1)
        self._report.add(found.path, "unknown_reference", message)

    def _report_not_upstream(self, index: int, target: int, path: str) -> None:
        reader, read = quote(self._nodes[index].id), quote(self._nodes[target].id)
        what = "condition" if _is_condition(path) else "template"
        if index == target:
            message = f"{what} in node {reader} reads the output of {read}, its own"
        elif self._nodes[target].is_finally and not self._nodes[index].is_finally:
            message = f"{what} reads node {read} of dag.finally, which runs after {reader}"
        else:
            message = (
                f"{what} reads node {read}, which is not upstream of {reader}; "
                f"add {read} to the dependencies of {reader}"
            )
        self._report.add(path, "not_upstream", message)

    def _check_certainty(self) -> None:
        """Whether what is read without a default is surely there: most workflows choose nothing."""
        chosen = [index for index, node in enumerate(self._nodes) if node.can_be_skipped]
        ended = [index for index, node in enumerate(self._nodes) if node.after == "ended"]
        may_fail = [index for index, node in enumerate(self._nodes) if node.allow_failure]
        has_last = any(node.is_finally for node in self._nodes)
        if not (chosen or ended or may_fail or has_last):
            return
        skippable = find_skippable(self._dependencies, chosen, ended)
        certainty = {
            index: Certainty(
                index in skippable, node.allow_failure, node.after in ("failed", "ended")
            )
            for index, node in enumerate(self._nodes)
        }
        unsure = find_unsure(self._dependencies, certainty, self._unguarded)
        if not unsure:
            return
        knots = (one for one in strong_components(self._dependencies) if len(one) > 1)
        loose = find_downstream(self._dependencies, [*self._loose(), *chain(*knots)])
        for index, target in sorted(unsure):
            if index not in loose:
                self._report_unsure(index, target)

    def _report_unsure(self, index: int, target: int) -> None:
        path, read = self._unguarded[index][target], self._nodes[target].id or ""
        example = f"{{{{ {read}.key | default(null) }}}}"
        if _is_condition(path):
            example = f"`{read}.key | default(false)` or `{read}.key is defined and {read}.key …`"
        message = (
            f"node {quote(read)} may be skipped or fail before this is read; say what to take "
            f"then: {example}"
        )
        self._report.add(path, "may_be_missing", message)


def _is_condition(path: str) -> bool:
    return path.endswith((".when", ".until"))


def _is_given(node: ReadingNode, found: Reference) -> bool:
    """Whether there is something of this name for the node besides other nodes."""
    if found.node_id == INPUT:
        return True
    places = tuple(f"{node.path}.{one}" for one in ("config", "repeat", "limit", "cache"))
    is_of_items = node.over is not None and found.path.startswith(places)
    return is_of_items and found.node_id in (ITEM, INDEX)


def _found_in_over(text: str, path: str) -> Iterator[Reference | Problem]:
    yield from find_templates({"over": text}, path.removesuffix(".over"))
    try:
        pieces = parse_text(text)
    except TemplateError:
        return
    if len(pieces) != 1 or not isinstance(pieces[0], Template) or pieces[0].node_id is None:
        message = f"{quote(text)} is no list; write one template, such as {{{{ list.rows }}}}"
        yield Problem(path, "not_a_list", message)
