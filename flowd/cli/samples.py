"""The sample workflows that come with flowd."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

NAMES = ("linear", "fanout", "race")
# Beyond those of the tour.
MORE = ("choose", "map", "wait", "approve", "cleanup", "call", "hold")
# What those run as their children: saved under these names first.
SAVED = ("region",)


def load_samples(names: Sequence[str] = NAMES) -> dict[str, bytes]:
    """The definitions (JSON) by name."""
    folder = resources.files("flowd") / "samples"
    return {name: (folder / f"{name}.json").read_bytes() for name in names}
