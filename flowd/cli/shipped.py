"""Find files that come with flowd: in its checkout, else where the wheel put them."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import flowd


def find_shipped(name: str, *, checkout: str = ".") -> Path:
    """A file of share/flowd, in a checkout one of the folder `checkout`.

    Raises FileNotFoundError saying what was looked for.
    """
    file = Path(flowd.__file__).parents[1] / checkout / name
    if file.is_file():
        return file
    for installed in importlib.metadata.files("flowd") or ():
        if installed.match(f"share/flowd/{name}"):
            return Path(str(installed.locate())).resolve()
    raise FileNotFoundError(f"no {file}, and no {name} in flowd's installation")
