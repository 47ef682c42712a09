"""Turn a stored definition into the plan a worker runs from."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from flowd.workflow.caching import Cache
from flowd.workflow.choices import Choice
from flowd.workflow.concurrency import Concurrency, planned_concurrency
from flowd.workflow.definition import SECONDS_MAX, MapDefinition
from flowd.workflow.ids import MAP_HANDLER, SPENDING, STEPS, WORKFLOW, split_item
from flowd.workflow.language import language_of
from flowd.workflow.limiting import Limit
from flowd.workflow.queues import NO_QUEUES, QueuePlan, bare, plan_queues
from flowd.workflow.repeating import OUTPUT, Repeat
from flowd.workflow.templating import CompiledConfig


class PlannedMap(NamedTuple):
    """What a node with `map` says of its items; `item` is what each of them runs as."""

    concurrency: int
    max_failed: int
    fail_fast: bool
    results: bool
    item: PlannedNode


# Where a template or an expression reads it, as JSON: the quotes may be escaped.
_SCHEDULED_AT: Final = re.compile(rb"""execution\s*(?:\.\s*|\[\s*\\?['"])scheduled_at""")
# What stands in a definition whose nodes look at anything, besides those that choose.
_READING: Final = (b"{{", b'"repeat"', b'"map"', b'"limit"', b'"cache"')


class Asks(NamedTuple):
    """What a node asks before it starts: whether an equal call was made, and for a place."""

    limit: Limit | None
    cache: Cache | None

    @property
    def inputs(self) -> tuple[str, ...]:
        """What both of their keys read."""
        of_limit = self.limit.inputs if self.limit else ()
        return of_limit + self.cache.inputs if self.cache else of_limit


class PlannedNode(NamedTuple):
    """One node with everything that is needed to run it and to open what waits for it.

    `opens` are the dependents that wait for this node alone, by their full names: `queue/id` in
    another queue than the default one. `joins` are those that wait for
    others too, each with the number of all its dependencies. `retry` and `timeout_s` are None where
    the node leaves them to the settings. `choice` is None for a node that runs whenever it is
    opened; `looks` are the dependents, with their numbers, that look at a failure of this node;
    `repeat` is None for a node of which one call is enough.
    A node with `map` runs by itself to read its list, and to gather what has become of its items;
    those have ids such as `fan.17`, which no node has, and no dependents. `is_static` says that
    nothing in its workflow reads what another node has put out, is repeated, has items, a limit or
    is cached, and that it spends no tokens.
    """

    id: str
    handler: str
    config: CompiledConfig
    dependencies: tuple[str, ...]
    opens: tuple[str, ...]
    joins: tuple[tuple[str, int], ...]
    retry: Mapping[str, Any] | None = None
    timeout_s: float | None = None
    choice: Choice | None = None
    allow_failure: bool = False
    looks: tuple[tuple[str, int], ...] = ()
    repeat: Repeat | None = None
    is_static: bool = False
    map: PlannedMap | None = None
    asks: Asks | None = None

    @property
    def is_item(self) -> bool:
        """No id of a node has a dot."""
        return "." in self.id

    def call_limit_s(self, default_s: float) -> float:
        """How long one call of its handler may take. Steps of the engine wait for Redis as long as
        it takes: the time-out of their node is about the wait, or the items."""
        return SECONDS_MAX if self.handler in STEPS else self.timeout_s or default_s

    @property
    def lookers(self) -> set[str]:
        """The ids of the dependents that look at a failure of this node."""
        return {bare(one) for one, _ in self.looks}


class Outline(NamedTuple):
    """What storing a definition takes of its plan; `nodes` are the ids."""

    digest: str
    nodes: Collection[str]
    roots: Collection[str]
    name: str
    has_callback: bool
    finally_nodes: Collection[str] = ()
    finally_roots: Collection[str] = ()
    language: int = 0
    labels: Mapping[str, str] = MappingProxyType({})
    has_input_schema: bool = False
    has_children: bool = False
    concurrency: Concurrency | None = None
    queues: QueuePlan = NO_QUEUES


class Bounds(NamedTuple):
    """What an execution may spend, and how many of its kind run at a time; None without limit."""

    tokens: int | None = None
    concurrency: Concurrency | None = None


NO_BOUNDS: Final = Bounds()


@dataclass(frozen=True, slots=True)
class Plan:
    """A definition compiled for running; the same for every execution of equal definitions.

    `finally_nodes` are those that run when all others have ended; none of them is among `roots`.
    """

    digest: str
    nodes: Mapping[str, PlannedNode]
    roots: tuple[str, ...]
    name: str = ""
    default_input: Mapping[str, Any] = field(default_factory=dict)
    bounds: Bounds = NO_BOUNDS
    has_callback: bool = False
    has_choices: bool = False
    maps: tuple[str, ...] = ()
    finally_nodes: frozenset[str] = frozenset()
    # Which processes have to know to run it as it is meant; 0 for any.
    language: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    input_schema: Mapping[str, Any] | None = None
    # What an execution that completed is worth to a caller; its results where this is None.
    output: CompiledConfig | None = None
    queues: QueuePlan = NO_QUEUES

    @property
    def finally_roots(self) -> tuple[str, ...]:
        """As `roots`, of its `finally`."""
        return tuple(
            self.queues.called(one)
            for one, node in self.nodes.items()
            if one in self.finally_nodes and not node.dependencies
        )

    @property
    def budget_tokens(self) -> int | None:
        return self.bounds.tokens

    @property
    def concurrency(self) -> Concurrency | None:
        return self.bounds.concurrency

    @property
    def has_input_schema(self) -> bool:
        return self.input_schema is not None

    def find(self, node_id: str) -> PlannedNode | None:
        """The node of this id, or what an item of one runs as; None where there is none."""
        found = self.nodes.get(node_id)
        if found is not None:
            return found
        above, index = split_item(node_id)
        node = self.nodes.get(above)
        if node is None or node.map is None or not index:
            return None
        return node.map.item._replace(id=node_id)

    def node(self, node_id: str) -> PlannedNode:
        """As `find`. Raises KeyError where there is none."""
        found = self.find(node_id)
        if found is None:
            raise KeyError(node_id)
        return found

    @property
    def has_children(self) -> bool:
        """Whether one of its nodes runs another workflow."""
        ran_as = (node.map.item if node.map else node for node in self.nodes.values())
        return any(node.handler == WORKFLOW for node in ran_as)

    @property
    def outline(self) -> Outline:
        return Outline(
            self.digest,
            tuple(self.nodes),
            self.roots,
            self.name,
            self.has_callback,
            tuple(self.finally_nodes),
            self.finally_roots,
            self.language,
            self.labels,
            self.has_input_schema,
            self.has_children,
            self.concurrency,
            self.queues,
        )

    def downstream(self, node_id: str) -> tuple[str, ...]:
        """Every transitive dependent that cannot run without this node, the nearest first, each
        once: it ends at nodes that look at how their dependencies ended.
        """
        seen = {node_id, *(bare(one) for one, _ in self.nodes[node_id].looks)}
        queue = deque(self.dependents(node_id))
        found: list[str] = []
        while queue:
            dependent = queue.popleft()
            if dependent in seen:
                continue
            seen.add(dependent)
            found.append(dependent)
            seen.update(bare(one) for one, _ in self.nodes[dependent].looks)
            queue.extend(self.dependents(dependent))
        return tuple(found)

    def dependents(self, node_id: str) -> Iterable[str]:
        """By their ids."""
        node = self.nodes[node_id]
        yield from map(bare, node.opens)
        for dependent, _ in node.joins:
            yield bare(dependent)


def plan_digest(definition: bytes) -> str:
    """Name the plan of these exact bytes: 16 hex characters."""
    return hashlib.blake2b(definition, digest_size=8).hexdigest()


def nodes_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All nodes of a definition as `to_json` wrote it, those of `finally` behind the others."""
    dag = document["dag"]
    return [*dag["nodes"], *dag.get("finally", ())]


def compile_plan(definition: bytes) -> Plan:
    """Compile a definition as `WorkflowDefinition.to_json` wrote it; what it means is trusted.

    Raises ValueError, TypeError or KeyError for what has not its form: a hand changed it in Redis.
    Configs are compiled when they are first used: a worker rarely runs every node of a plan.
    """
    document = orjson.loads(definition)
    written = nodes_of(document)
    last = written[len(document["dag"]["nodes"]) :]
    queues = plan_queues(document, written)
    opens, joins = _dependents_in(written, queues)
    written_after = {node["id"] for node in written if "after" in node}
    choices = _choices(written, opens, joins)
    is_static = not choices and not any(word in definition for word in _READING)
    nodes = {}
    for node_id, node in ((node["id"], node) for node in written):
        single, joined = tuple(opens.get(node_id, ())), tuple(joins.get(node_id, ()))
        planned = nodes[node_id] = PlannedNode(
            node_id,
            node["handler"],
            CompiledConfig(node["config"]),
            tuple(node["dependencies"]),
            single,
            joined,
            node.get("retry"),
            node.get("timeout_s"),
            choices.get(node_id),
            node.get("allow_failure", False),
            _looks(written_after, single, joined) if written_after else (),
            Repeat(node["repeat"]) if "repeat" in node else None,
            is_static and node["handler"] not in SPENDING,
            asks=_asks(node),
        )
        if "map" in node:
            nodes[node_id] = _mapped(planned, node["map"])
    return Plan(
        plan_digest(definition),
        nodes,
        _roots(document["dag"]["nodes"], queues),
        document["name"],
        _object(document.get("input")),
        Bounds(_object(document.get("budget")).get("tokens"), planned_concurrency(document)),
        "callback" in document,
        bool(choices or last) or any(node.allow_failure for node in nodes.values()),
        tuple(node_id for node_id, node in nodes.items() if node.map),
        frozenset(node["id"] for node in last),
        _language(definition, document, written, queues),
        *_told_to_callers(document),
        queues,
    )


def _asks(node: Mapping[str, Any]) -> Asks | None:
    if "limit" not in node and "cache" not in node:
        return None
    return Asks(
        Limit(node["limit"]) if "limit" in node else None,
        Cache(node["cache"]) if "cache" in node else None,
    )


def _language(
    definition: bytes,
    document: Mapping[str, Any],
    written: list[dict[str, Any]],
    queues: QueuePlan,
) -> int:
    return language_of(
        written,
        has_finally=bool(document["dag"].get("finally")),
        has_places="concurrency" in document,
        has_queues=queues is not NO_QUEUES,
        reads_schedule=_SCHEDULED_AT.search(definition) is not None,
    )


def _told_to_callers(
    document: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any] | None, CompiledConfig | None]:
    """The labels, the schema of the input, and the output."""
    return (
        _object(document.get("labels")),
        _object(document["input_schema"]) if "input_schema" in document else None,
        CompiledConfig({OUTPUT: document["output"]}) if "output" in document else None,
    )


def _dependents_in(
    written: list[dict[str, Any]], queues: QueuePlan
) -> tuple[dict[str, list[str]], dict[str, list[tuple[str, int]]]]:
    """Who waits for each node alone, and who for others too; raises where one has no form."""
    opens: dict[str, list[str]] = {}
    joins: dict[str, list[tuple[str, int]]] = {}
    for node in written:
        _check_form(node)
        _register(queues.called(node["id"]), node["dependencies"], opens, joins)
    return opens, joins


def _roots(written: list[dict[str, Any]], queues: QueuePlan) -> tuple[str, ...]:
    return tuple(queues.called(node["id"]) for node in written if not node["dependencies"])


def _mapped(node: PlannedNode, written: dict[str, Any]) -> PlannedNode:
    """The node that reads the list and gathers, where the one given is that of an item."""
    said = MapDefinition.model_validate(written)
    item = node._replace(opens=(), joins=(), choice=None, allow_failure=False, looks=())
    return node._replace(
        handler=MAP_HANDLER,
        config=CompiledConfig(said.model_dump()),
        # What the list is wrong with is wrong with it at the next attempt too.
        retry={"max_attempts": 1},
        timeout_s=None,
        repeat=None,
        asks=None,
        map=PlannedMap(said.concurrency, said.max_failed, said.fail_fast, said.results, item),
    )


def _check_form(node: dict[str, Any]) -> None:
    retry, timeout_s = node.get("retry"), node.get("timeout_s")
    has_form = (
        isinstance(node["id"], str)
        and isinstance(node["handler"], str)
        and isinstance(node["config"], dict)
        and (retry is None or isinstance(retry, dict))
        and (timeout_s is None or isinstance(timeout_s, float | int))
        and isinstance(node.get("when", ""), str)
        and isinstance(node.get("limit", ""), str | dict)
        and isinstance(node.get("cache", {"ttl_s": 1})["ttl_s"], float | int)
        and isinstance(node.get("repeat", {"until": ""})["until"], str)
        and node.get("after", "ended") in ("completed", "failed", "ended")
    )
    if not has_form:
        raise TypeError("a node has not the form of one")


def _object(value: Any) -> dict[str, Any]:
    """Empty where there is none."""
    if not isinstance(value, dict | None):
        raise TypeError(f"{value!r} is no object")
    return value or {}


def _register(
    called: str,
    dependencies: list[str],
    opens: dict[str, list[str]],
    joins: dict[str, list[tuple[str, int]]],
) -> None:
    if len(dependencies) == 1:
        opens.setdefault(dependencies[0], []).append(called)
        return
    waiting = (called, len(dependencies))
    for dependency in dependencies:
        joins.setdefault(dependency, []).append(waiting)


def _looks(
    written_after: set[str], opens: tuple[str, ...], joins: tuple[tuple[str, int], ...]
) -> tuple[tuple[str, int], ...]:
    """Dependents that are not failed along with a node, since they say after what they run."""
    dependents = (*((one, 1) for one in opens), *joins)
    return tuple(one for one in dependents if bare(one[0]) in written_after)


def _choices(
    written: list[dict[str, Any]],
    opens: Mapping[str, list[str]],
    joins: Mapping[str, list[tuple[str, int]]],
) -> dict[str, Choice]:
    """The nodes that have to look before they run: those that say so, and all below one that may be
    skipped. Most workflows have none, and their nodes look at nothing.
    """
    pending = [node["id"] for node in written if "when" in node or "after" in node]
    chosen = set(pending)
    while pending:
        above = pending.pop()
        dependents = (*opens.get(above, ()), *(one for one, _ in joins.get(above, ())))
        new = [one for one in map(bare, dependents) if one not in chosen]
        chosen.update(new)
        pending += new
    return {
        node["id"]: Choice(
            node.get("after") or "completed",
            node.get("when"),
            len(node["dependencies"]),
            looks="after" in node or not chosen.isdisjoint(node["dependencies"]),
        )
        for node in written
        if node["id"] in chosen
    }
