"""How long a value would be as JSON, without writing it.

What was put together from the same part many times is small in memory and may be of any length as
JSON: each part is measured once.
"""

from __future__ import annotations

from typing import Any, Final

_Container = dict[str, Any] | list[Any]
# A number, true, false or null is taken for this long.
_SCALAR_BYTES: Final = 4


class JsonSizes:
    """Remembers every object and array it has measured, and keeps it, so that none is replaced.

    Nothing that was measured may be changed afterwards. `measured` counts what was looked at.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[_Container, int]] = {}
        self.measured = 0

    def size(self, value: Any) -> int:
        """Bytes of it as compact JSON, at least: escapes and characters beyond ASCII take more."""
        if not isinstance(value, dict | list):
            return _scalar_size(value)
        pending: list[tuple[_Container, bool]] = [(value, False)]
        while pending:
            container, is_entered = pending.pop()
            if id(container) in self._known:
                continue
            children = container.values() if isinstance(container, dict) else container
            if is_entered:
                self._known[id(container)] = (container, self._total(container))
                continue
            self.measured += 1 + len(container)
            pending.append((container, True))
            pending.extend((one, False) for one in children if isinstance(one, dict | list))
        return self._known[id(value)][1]

    def _total(self, container: _Container) -> int:
        size = 2 + len(container)
        if isinstance(container, dict):
            size += sum(3 + len(key) for key in container)
            return size + sum(map(self._part, container.values()))
        return size + sum(map(self._part, container))

    def _part(self, value: Any) -> int:
        if isinstance(value, dict | list):
            return self._known[id(value)][1]
        return _scalar_size(value)


def json_size(value: Any) -> int:
    return JsonSizes().size(value)


def _scalar_size(value: Any) -> int:
    return len(value) + 2 if isinstance(value, str) else _SCALAR_BYTES
