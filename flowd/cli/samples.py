"""The sample workflows that come with flowd."""

from __future__ import annotations

from collections.abc import Sequence

from flowd.cli.shipped import find_shipped

NAMES = ("linear", "fanout", "race")
# Beyond those of the tour.
MORE = ("choose", "map", "wait", "approve", "cleanup")


def load_samples(names: Sequence[str] = NAMES) -> dict[str, bytes]:
    """The definitions (JSON) by name. Raises FileNotFoundError saying what was looked for."""
    files = {name: find_shipped(f"samples/{name}.json", checkout="scripts") for name in names}
    return {name: file.read_bytes() for name, file in files.items()}
