"""Portions of what is read together, bounded by size and not by number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

# Of definitions.
DEFINITION_BYTES_MAX: Final = 1024 * 1024


def portions(sizes: Mapping[str, int], most: int) -> Iterator[list[str]]:
    """Of these names as many together as are no larger than `most`, or one that is."""
    portion: list[str] = []
    total = 0
    for name, size in sizes.items():
        if portion and total + size > most:
            yield portion
            portion, total = [], 0
        portion.append(name)
        total += size
    if portion:
        yield portion
