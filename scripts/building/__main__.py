"""`scripts/build`: make what people install."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.building.output import ROOT, write_checksum
from scripts.building.wheel import build_wheel

KINDS = {"wheel": build_wheel}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/build", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--into", type=Path, default=ROOT / "dist", help="default: dist")
    arguments = parser.parse_args()
    arguments.into.mkdir(parents=True, exist_ok=True)
    made = KINDS[arguments.kind](arguments.into.resolve())
    write_checksum(made)
    print(made)


if __name__ == "__main__":
    main()
