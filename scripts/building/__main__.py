"""`scripts/build`: make what people install."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.building.debian_package import build_debian_package
from scripts.building.output import ROOT, write_checksum
from scripts.building.single_file import build_single_file
from scripts.building.wheel import build_wheel

KINDS = {"file": build_single_file, "deb": build_debian_package, "wheel": build_wheel}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/build", description=__doc__)
    parser.add_argument("kind", choices=KINDS, nargs="?", default="file")
    parser.add_argument("--into", type=Path, default=ROOT / "dist", help="default: dist")
    arguments = parser.parse_args()
    arguments.into.mkdir(parents=True, exist_ok=True)
    made = KINDS[arguments.kind](arguments.into.resolve())
    write_checksum(made)
    print(made)


if __name__ == "__main__":
    main()
