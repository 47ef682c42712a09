"""Large inputs of nodes: what a worker may hold of them at once."""

from __future__ import annotations

from typing import Final

# An input below this is read with the others and not counted.
SMALL_BYTES_MAX: Final = 64 * 1024
# Of JSON; as values it may take some six times as much.
BYTES_HELD_MAX: Final = 32 * 1024 * 1024


class LargeInputs:
    """By entry, from before they are read until the outcome of the node is known."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    def admit(self, entry_id: str, size: int) -> bool:
        """Whether so much more may be read now. One that is alone always may."""
        others = [held for other, held in self._sizes.items() if other != entry_id]
        if others and sum(others) + size > BYTES_HELD_MAX:
            return False
        self._sizes[entry_id] = size
        return True

    def release(self, entry_id: str) -> None:
        self._sizes.pop(entry_id, None)
