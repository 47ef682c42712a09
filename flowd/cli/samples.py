"""The sample workflows that come with flowd."""

from __future__ import annotations

from flowd.cli.shipped import find_shipped

NAMES = ("linear", "fanout", "race")


def load_samples() -> dict[str, bytes]:
    """The definitions (JSON) by name. Raises FileNotFoundError saying what was looked for."""
    files = {name: find_shipped(f"samples/{name}.json", checkout="scripts") for name in NAMES}
    return {name: file.read_bytes() for name, file in files.items()}
