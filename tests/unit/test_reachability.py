"""Cycles and ancestry, against slow answers on random graphs, and on shapes of 10,000 nodes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from flowd.workflow.reachability import find_cycles, find_not_upstream, strong_components
from tests.unit.graphs import Graph, graphs, upstream_of

MANY = 10_000


def test_a_cycle_is_given_in_the_order_its_nodes_would_run() -> None:
    # B waits for A, C for B, and A for C.
    assert find_cycles({"A": ["C"], "B": ["A"], "C": ["B"]}) == [("A", "B", "C", "A")]


def test_a_node_that_waits_for_itself_is_a_cycle() -> None:
    assert find_cycles({"A": [], "B": ["A", "B"]}) == [("B", "B")]


def test_each_knot_gives_its_shortest_cycle_through_its_first_node() -> None:
    knots = {"A": ["B", "C"], "B": ["A"], "C": ["B"], "D": ["A", "E"], "E": ["D"], "F": ["E"]}
    assert find_cycles(knots) == [("A", "B", "A"), ("D", "E", "D")]


def test_dependencies_that_are_no_nodes_are_ignored() -> None:
    assert find_cycles({"A": ["ghost"], "B": ["A"]}) == []
    assert find_not_upstream({"A": ["ghost"]}, {"A": ["ghost"]}) == set()


@given(graphs())
def test_components_are_the_nodes_that_reach_each_other(graph: Graph) -> None:
    components = strong_components(graph)
    assert sorted(node for component in components for node in component) == sorted(graph)
    for component in components:
        for node in component:
            mutual = {
                other for other in upstream_of(graph, node) if node in upstream_of(graph, other)
            }
            assert set(component) == mutual | {node}


@given(graphs())
def test_a_component_comes_after_those_it_depends_on(graph: Graph) -> None:
    seen: set[int] = set()
    for component in strong_components(graph):
        seen.update(component)
        assert all(dependency in seen for node in component for dependency in graph[node])


@given(graphs())
def test_cycles_are_found_exactly_where_a_node_waits_for_itself(graph: Graph) -> None:
    cycles = find_cycles(graph)
    for cycle in cycles:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        for dependency, node in pairwise(cycle):
            assert dependency in graph[node]
    in_knots = {node for node in graph if node in upstream_of(graph, node)}
    assert {cycle[0] for cycle in cycles} <= in_knots
    assert bool(cycles) == bool(in_knots)


@given(graphs(nodes_max=10), st.data())
def test_not_upstream_agrees_with_a_plain_search(graph: Graph, data: st.DataObject) -> None:
    some = st.lists(st.sampled_from(sorted(graph)), unique=True)
    references = {node: data.draw(some) for node in graph}
    missed = find_not_upstream(graph, references)
    assert missed == {
        (node, target)
        for node, targets in references.items()
        for target in targets
        if target not in upstream_of(graph, node)
    }


def test_a_ring_of_ten_thousand_nodes_is_one_cycle() -> None:
    (cycle,) = find_cycles({node: [(node - 1) % MANY] for node in range(MANY)})
    assert cycle == (*range(MANY), 0)


def test_references_across_a_chain_of_ten_thousand_nodes() -> None:
    chain = {node: [node - 1] if node else [] for node in range(MANY)}
    backward = {node: [node // 2, 0] for node in range(1, MANY)}
    assert find_not_upstream(chain, backward) == set()
    assert find_not_upstream(chain, {5: [6, 4, 5]}) == {(5, 6), (5, 5)}


def test_more_references_than_fit_into_one_pass() -> None:
    star = {0: [], **{node: [0] for node in range(1, MANY)}, MANY: list(range(1, MANY))}
    behind = star | {MANY + 1: [MANY]}
    assert find_not_upstream(behind, {MANY + 1: [*range(MANY), MANY + 1]}) == {(MANY + 1, MANY + 1)}
