"""Large inputs of nodes: what a worker may hold of them at once.

An input is held from before it is read until the outcome of its node is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# An input below this is read with the others and not counted.
SMALL_BYTES_MAX: Final = 64 * 1024
# Of JSON; as values it may take some six times as much.
BYTES_HELD_MAX: Final = 32 * 1024 * 1024


def may_read(size: int, name: str, held: Mapping[str, int]) -> bool:
    """Whether a node may be given large inputs of this size beside what others hold, by entry. One
    that is alone always may.
    """
    others = sum(each for other, each in held.items() if other != name)
    return not others or others + size <= BYTES_HELD_MAX
