"""Random graphs for property tests, and slow but obvious answers about them."""

from __future__ import annotations

from hypothesis import strategies as st

Graph = dict[int, list[int]]


@st.composite
def graphs(draw: st.DrawFn, *, is_acyclic: bool = False, nodes_max: int = 8) -> Graph:
    """`{node: dependencies}`; an acyclic one depends on smaller numbers, in shuffled order."""
    count = draw(st.integers(1, nodes_max))
    graph: Graph = {}
    for node in draw(st.permutations(range(count))):
        candidates = range(node) if is_acyclic else range(count)
        some = st.lists(st.sampled_from(candidates), unique=True, max_size=3)
        graph[node] = draw(some) if candidates else []
    return graph


def upstream_of(graph: Graph, node: int) -> set[int]:
    """Everything `node` waits for, directly or not; itself only when it is in a cycle."""
    found: set[int] = set()
    pending = list(graph[node])
    while pending:
        dependency = pending.pop()
        if dependency not in found:
            found.add(dependency)
            pending += graph[dependency]
    return found
