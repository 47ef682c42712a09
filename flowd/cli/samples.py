"""Find the sample workflows: beside the package in a checkout, else where the wheel put them."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import flowd

NAMES = ("linear", "fanout", "race")


def load_samples() -> dict[str, bytes]:
    """The definitions (JSON) by name. Raises FileNotFoundError saying what was looked for."""
    folder = _folder()
    return {name: (folder / f"{name}.json").read_bytes() for name in NAMES}


def _folder() -> Path:
    checkout = Path(flowd.__file__).parents[1] / "scripts" / "samples"
    if checkout.is_dir():
        return checkout
    for file in importlib.metadata.files("flowd") or ():
        if file.match("share/flowd/samples/linear.json"):
            return Path(str(file.locate())).resolve().parent
    raise FileNotFoundError(f"no sample workflows in {checkout} nor in flowd's installation")
