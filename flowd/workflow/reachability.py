"""Which nodes lead to which: knots of nodes that wait for each other, and who is upstream of whom.

Graphs are given as `{node: its dependencies}`; dependencies that are not keys are ignored. All of
it is linear or nearly so, and none of it recurses: a chain of 10,000 nodes is an ordinary input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

Node = TypeVar("Node", bound=Hashable)

# How many referenced nodes are followed in one pass. A set of them is one integer of this many
# bits per node, 512 bytes, whatever the size of the graph.
TARGETS_PER_PASS = 4096


def find_cycles(dependencies: Mapping[Node, Sequence[Node]]) -> list[tuple[Node, ...]]:
    """One cycle of every knot of nodes that wait for each other, in the order they would run.

    Each is closed, `("A", "B", "A")` where B depends on A and A on B, and is among the shortest
    through the first of its nodes. A node that depends on itself gives `("A", "A")`.
    """
    position = {node: index for index, node in enumerate(dependencies)}
    cycles = []
    for component in strong_components(dependencies):
        first = min(component, key=position.__getitem__)
        if len(component) > 1 or first in dependencies[first]:
            cycles.append(_shortest_cycle(dependencies, first, set(component)))
    return sorted(cycles, key=lambda cycle: position[cycle[0]])


def _shortest_cycle(
    dependencies: Mapping[Node, Sequence[Node]], start: Node, members: set[Node]
) -> tuple[Node, ...]:
    """Search from `start` along its dependencies, breadth first, until one leads back to it."""
    dependent_of: dict[Node, Node] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for dependency in dependencies[node]:
            if dependency == start:
                return start, *_path_up(dependent_of, node, start)
            if dependency in members and dependency not in dependent_of:
                dependent_of[dependency] = node
                queue.append(dependency)
    raise AssertionError("a strong component has a cycle through each of its nodes")


def _path_up(dependent_of: Mapping[Node, Node], node: Node, end: Node) -> Iterator[Node]:
    while node != end:
        yield node
        node = dependent_of[node]
    yield end


def strong_components(dependencies: Mapping[Node, Sequence[Node]]) -> list[list[Node]]:
    """Nodes that reach each other, grouped; a group comes after all groups it depends on.

    Without a cycle every group is one node, in an order in which they could run. Tarjan 1972.
    """
    return _Tarjan(dependencies).components()


class _Tarjan(Generic[Node]):
    """Depth first along the dependencies, with a stack of its own instead of recursion."""

    def __init__(self, dependencies: Mapping[Node, Sequence[Node]]) -> None:
        self._dependencies = dependencies
        self._entered: dict[Node, int] = {}
        self._lowest: dict[Node, int] = {}
        self._path: list[tuple[Node, Iterator[Node]]] = []
        self._open: list[Node] = []
        self._is_open: set[Node] = set()
        self._components: list[list[Node]] = []

    def components(self) -> list[list[Node]]:
        for root in self._dependencies:
            if root not in self._entered:
                self._explore(root)
        return self._components

    def _explore(self, root: Node) -> None:
        self._enter(root)
        while self._path:
            node, remaining = self._path[-1]
            # A list of one or none, as None may be a node.
            for dependency in self._next_unentered(node, remaining):
                self._enter(dependency)
                break
            else:
                self._leave(node)

    def _enter(self, node: Node) -> None:
        self._entered[node] = self._lowest[node] = len(self._entered)
        self._path.append((node, iter(self._dependencies[node])))
        self._open.append(node)
        self._is_open.add(node)

    def _next_unentered(self, node: Node, remaining: Iterator[Node]) -> Sequence[Node]:
        for dependency in remaining:
            if dependency in self._is_open:
                self._lowest[node] = min(self._lowest[node], self._entered[dependency])
            elif dependency not in self._entered and dependency in self._dependencies:
                return (dependency,)
        return ()

    def _leave(self, node: Node) -> None:
        self._path.pop()
        if self._path:
            parent = self._path[-1][0]
            self._lowest[parent] = min(self._lowest[parent], self._lowest[node])
        if self._lowest[node] == self._entered[node]:
            self._close_component(node)

    def _close_component(self, first: Node) -> None:
        component: list[Node] = []
        while not component or component[-1] != first:
            component.append(self._open.pop())
        self._is_open.difference_update(component)
        self._components.append(component)


def find_downstream(
    dependencies: Mapping[Node, Sequence[Node]], start: Collection[Node]
) -> set[Node]:
    """The nodes of `start`, and all that wait for one of these."""
    dependents: dict[Node, list[Node]] = {}
    for node, known in dependencies.items():
        for one in known:
            dependents.setdefault(one, []).append(node)
    found, pending = set(start), list(start)
    while pending:
        new = [one for one in dependents.get(pending.pop(), ()) if one not in found]
        found.update(new)
        pending += new
    return found


@dataclass(frozen=True, slots=True)
class Certainty:
    """What is known of a node before anything runs.

    `can_be_skipped`, `may_fail` (and its dependents run all the same), `follows_failures`: it runs
    although dependencies have failed.
    """

    can_be_skipped: bool = False
    may_fail: bool = False
    follows_failures: bool = False


def find_skippable(
    dependencies: Mapping[Node, Sequence[Node]], chosen: Collection[Node], ended: Collection[Node]
) -> set[Node]:
    """The nodes that may be skipped: the `chosen`, and those all of whose dependencies may be, but
    for nodes that run once these have `ended`. For graphs without cycles.
    """
    skippable = set(chosen)
    for component in strong_components(dependencies):
        for node in component:
            known = dependencies[node]
            if known and node not in ended and all(one in skippable for one in known):
                skippable.add(node)
    return skippable


def find_unsure(
    dependencies: Mapping[Node, Sequence[Node]],
    certainty: Mapping[Node, Certainty],
    references: Mapping[Node, Collection[Node]],
) -> set[tuple[Node, Node]]:
    """The pairs (node, referenced) where the referenced one need not have completed when the node
    runs. For graphs without cycles; nodes that `certainty` leaves out are plain ones.

    What is surely there for a node: what is for each dependency that cannot be skipped, and what
    is for every one of them, since one of them has completed.
    """
    components = strong_components(dependencies)
    targets = iter(dict.fromkeys(target for found in references.values() for target in found))
    unsure: set[tuple[Node, Node]] = set()
    while chunk := list(islice(targets, TARGETS_PER_PASS)):
        bit = {target: 1 << index for index, target in enumerate(chunk)}
        sure: dict[Node, int] = {}
        for node in (one for component in components for one in component):
            sure[node] = _sure_of(dependencies[node], certainty, certainty.get(node), sure, bit)
            unsure |= {
                (node, target)
                for target in references.get(node, ())
                if target in bit and not sure[node] & bit[target]
            }
    return unsure


def _sure_of(
    dependencies: Sequence[Node],
    certainty: Mapping[Node, Certainty],
    own: Certainty | None,
    sure: Mapping[Node, int],
    bit: Mapping[Node, int],
) -> int:
    if not dependencies or (own and own.follows_failures):
        return 0
    of_any, of_all = 0, -1
    for one in dependencies:
        known = certainty.get(one, _PLAIN)
        there = sure.get(one, 0) | (0 if known.may_fail else bit.get(one, 0))
        of_all &= there
        if not known.can_be_skipped:
            of_any |= there
    return of_any | of_all


_PLAIN = Certainty()


def find_not_upstream(
    dependencies: Mapping[Node, Sequence[Node]], references: Mapping[Node, Collection[Node]]
) -> set[tuple[Node, Node]]:
    """The pairs (node, referenced) of `references` where node does not wait for the referenced.

    Nodes of a cycle are upstream of each other and of themselves.
    """
    pending = {
        node: indirect
        for node, targets in references.items()
        if (indirect := list(set(targets).difference(dependencies[node])))
    }
    if not pending:
        return set()
    components = strong_components(dependencies)
    targets = iter(dict.fromkeys(target for found in pending.values() for target in found))
    missed: set[tuple[Node, Node]] = set()
    while chunk := list(islice(targets, TARGETS_PER_PASS)):
        missed |= _missed_targets(dependencies, components, pending, chunk)
    return missed


def _missed_targets(
    dependencies: Mapping[Node, Sequence[Node]],
    components: Sequence[Sequence[Node]],
    references: Mapping[Node, Sequence[Node]],
    targets: Sequence[Node],
) -> set[tuple[Node, Node]]:
    """One pass in running order that carries, as bits, which of `targets` lie upstream."""
    bit = {target: 1 << index for index, target in enumerate(targets)}
    upstream: dict[Node, int] = {}
    missed: set[tuple[Node, Node]] = set()
    for component in components:
        # In a knot every node is a dependency of another one, so all of them are reached.
        reached = 0
        for node in component:
            for dependency in dependencies[node]:
                reached |= upstream.get(dependency, 0) | bit.get(dependency, 0)
        for node in component:
            upstream[node] = reached
            for target in references.get(node, ()):
                if target in bit and not reached & bit[target]:
                    missed.add((node, target))
    return missed
