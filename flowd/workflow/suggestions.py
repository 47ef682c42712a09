"""Find what somebody probably meant by a name that does not exist."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import islice

from flowd.suggestions import nearest

# Comparing is slow, some 20 µs a pair, and a workflow of 10,000 nodes may hold as many typos: these
# are the pairs one workflow may cost. What is beyond goes without a suggestion.
COMPARISONS_MAX = 4000
NAME_CHARS_MAX = 64
LENGTH_DIFFERENCE_MAX = 3


class Suggestions:
    """The nearest of `names`; create one per workflow and kind of name."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._comparisons_left = COMPARISONS_MAX

    def hint(self, name: str) -> str:
        """`; did you mean 'fetch'?`, or nothing."""
        near = self.nearest(name)
        return f"; did you mean {near!r}?" if near else ""

    def nearest(self, name: str) -> str | None:
        if self._comparisons_left <= 0 or len(name) > NAME_CHARS_MAX:
            return None
        if name.casefold() in self._by_folded:
            self._comparisons_left -= 1
            return self._by_folded[name.casefold()]
        candidates = list(islice(self._of_similar_length(len(name)), self._comparisons_left))
        self._comparisons_left -= 1 + len(candidates)
        return nearest(name, candidates)

    def _of_similar_length(self, length: int) -> Iterator[str]:
        for difference in range(LENGTH_DIFFERENCE_MAX + 1):
            for near in sorted({length - difference, length + difference}):
                yield from self._by_length.get(near, ())

    # Most workflows need no suggestion at all: the names are sorted in when the first is wanted.

    @cached_property
    def _by_folded(self) -> dict[str, str]:
        return {name.casefold(): name for name in self._names}

    @cached_property
    def _by_length(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for name in self._names:
            found.setdefault(len(name), []).append(name)
        return found
