"""A folder that is applied all through a soak, changed each time and often broken off, and what has
to be saved when it has been applied a last time."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import redis as redis_py

from flowd.cli.private_flowd import clean_environment
from flowd.store.redis import keys
from scripts.soaking.hosts import ROOT, Host
from scripts.soaking.schedules import WORKFLOW

SET: Final = "soak"
DEFINITIONS: Final = (WORKFLOW, *(f"applied-{number}" for number in range(6)))
SCHEDULES: Final = ("applied-often", "applied-seldom")
LIMIT: Final = "applied"
# Of all but what the schedules of the soak run.
_LEFT_OUT_SHARE: Final = 0.3
_APPLIED_IN_S: Final = 60.0
_SETTLED_IN_S: Final = 120.0


class Applies:
    """`wanted` are the members of the set, `kind name`, that the files hold now."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.wanted: set[str] = set()
        self._folder = folder
        # Nobody knows sets where every host is of the other version.
        self.is_settled = False
        self._chance = random.Random(f"applies {seed}")
        folder.mkdir()

    def change(self, *, with_schedules: bool = True) -> None:
        """Write other files; what they leave out is to go."""
        for path in self._folder.iterdir():
            path.unlink()
        chance = self._chance
        kept = [one for one in DEFINITIONS[1:] if chance.random() > _LEFT_OUT_SHARE]
        documents = {f"definition {one}": _definition(one, chance) for one in (WORKFLOW, *kept)}
        for name in SCHEDULES if with_schedules else ():
            if chance.random() > _LEFT_OUT_SHARE:
                documents[f"schedule {name}"] = _schedule(name, [WORKFLOW, *kept], chance)
        if chance.random() > _LEFT_OUT_SHARE:
            documents[f"limit {LIMIT}"] = {"name": LIMIT, "max": chance.randint(1, 5)}
        for member, document in documents.items():
            path = self._folder / f"{member.replace(' ', '-')}.json"
            path.write_text(json.dumps(document))
        self.wanted = set(documents)

    def apply(self, url: str, *, killed_after_s: float | None = None) -> tuple[int, str]:
        """Exit code, and what it has changed; whoever is killed has said nothing."""
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "flowd.cli.main", "apply", "--url", url),
                *(str(self._folder), "--set", SET, "--prune"),
            ],
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            said, _ = process.communicate(timeout=killed_after_s or _APPLIED_IN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return -9, ""
        return process.returncode, said

    def settle(self, hosts: Sequence[Host]) -> Iterator[str]:
        """Apply a last time, without schedules, which would go on; what cannot be done."""
        hosts = [one for one in hosts if one.is_of_this_version]
        if not hosts:
            return
        self.change(with_schedules=False)
        self.is_settled = True
        deadline = time.monotonic() + _SETTLED_IN_S
        while (found := self._apply_somewhere(hosts))[0] != 0:
            if time.monotonic() > deadline:
                yield f"a folder cannot be applied when all is healed: {found[1]}"
                return
            time.sleep(0.2)
        code, said = self._apply_somewhere(hosts)
        if code or not said.startswith("nothing changed"):
            yield f"a folder that was applied changes something the next time: {said}"

    def _apply_somewhere(self, hosts: Sequence[Host]) -> tuple[int, str]:
        urls = [url for one in hosts if (url := one.api_url())]
        return self.apply(self._chance.choice(urls)) if urls else (1, "no API is there")

    def check(self, redis: redis_py.Redis) -> Iterator[str]:
        """That what is saved is what the files hold, and the set owns just that."""
        if not self.is_settled:
            return
        owned = {member for member, owner in redis.hgetall(keys.SETS).items() if owner == SET}
        saved = {f"definition {one}" for one in redis.zrange(keys.DEFINITIONS, 0, -1)}
        saved |= {f"schedule {one}" for one in redis.zrange(keys.SCHEDULES, 0, -1)}
        saved |= {f"limit {one}" for one in redis.hkeys(keys.LIMITS)}
        for member in sorted(owned ^ self.wanted):
            yield f"{member}: the set {'owns' if member in owned else 'lacks'} it"
        for member in sorted((saved & _everything()) ^ self.wanted):
            yield f"{member}: it is {'saved, and in no file' if member in saved else 'not saved'}"


def _everything() -> set[str]:
    """What is applied now or then, and by nobody else."""
    members = {f"definition {one}" for one in DEFINITIONS}
    return members | {f"schedule {one}" for one in SCHEDULES} | {f"limit {LIMIT}"}


def _definition(name: str, chance: random.Random) -> dict[str, Any]:
    sleepy = {"handler": "ledger_sleepy", "config": {"seconds": round(chance.uniform(0, 0.6), 1)}}
    nodes = [{"id": "A", **sleepy}, {"id": "B", "handler": "ledger_quick", "dependencies": ["A"]}]
    return {"name": name, "dag": {"nodes": nodes[: chance.randint(1, 2)]}}


def _schedule(name: str, workflows: Sequence[str], chance: random.Random) -> dict[str, Any]:
    return {
        "name": name,
        "workflow": chance.choice(workflows),
        "every_s": chance.randint(2, 4) if name == SCHEDULES[0] else 3600,
        "input": {"turn": chance.randrange(3)},
        "overlap": chance.choice(("skip", "queue", "replace", "allow")),
    }
