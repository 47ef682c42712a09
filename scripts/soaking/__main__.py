"""`python -m scripts.soaking`: exit code 0 when all holds, 1 when not, 2 when it proves nothing."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.soaking.faults import FAILOVERS, KINDS, LONG, UPGRADES
from scripts.soaking.report import as_dict, as_text
from scripts.soaking.soak import default_seed, soak

_LONG_FROM_MINUTES = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="the same faults and workflows")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--faults", help=f"comma separated, of {','.join(KINDS)}")
    parser.add_argument(
        "--upgrades",
        action="store_true",
        help="hosts change to an older version and back, with workflows that it knows, too",
    )
    parser.add_argument(
        "--failovers",
        action="store_true",
        help="Redis is a primary with a replica and Sentinels, and fails over",
    )
    parser.add_argument("--json", type=Path, help="write the report there, too")
    options = parser.parse_args(arguments)
    left_out = () if options.upgrades else (UPGRADES,)
    left_out += () if options.failovers else (FAILOVERS,)
    kinds = _kinds(options.faults, options.minutes, left_out)
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        parser.error(f"unknown faults {', '.join(unknown)}; there are {', '.join(KINDS)}")
    seed = default_seed() if options.seed is None else options.seed
    outcome = soak(seed, options.minutes, kinds)
    print(as_text(outcome))
    if options.json:
        options.json.write_text(json.dumps(as_dict(outcome), indent=2) + "\n")
    if outcome.exit_code == 0:
        shutil.rmtree(outcome.folder, ignore_errors=True)
    return outcome.exit_code


def _kinds(asked: str | None, minutes: float, left_out: tuple[str, ...]) -> list[str]:
    """When none was asked for, all but these (changes of the version, which an older process keeps
    the newest workflows out of, and failovers); those that take long only when there is the
    time."""
    if asked is not None:
        return [one.strip() for one in asked.split(",") if one.strip()]
    left_out += () if minutes >= _LONG_FROM_MINUTES else LONG
    return [kind for kind in KINDS if kind not in left_out]


if __name__ == "__main__":
    sys.exit(main())
