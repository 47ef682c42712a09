"""An open tab of the dashboard: what the same work takes with one in sight, and without.

One flowd and one Chromium; the tab shows a view or nothing, by turns. The browser is on this
machine too, and takes processor time that it would take elsewhere: what the engine itself spends
more is the time of its processes.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import click
from playwright.sync_api import sync_playwright

from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.processes import Partner, cpu_of
from scripts.benchmark.shapes import chain, diamond, fan
from scripts.benchmark.stack import Stack
from scripts.picturing import FLAGS

WARM_UPS: Final = 3
NOTHING: Final = "about:blank"
SETTLES_S: Final = 0.5
HOPS: Final = chain(100)
DIAMOND: Final = diamond()
FAN: Final = fan(1000)
# So many that a turn takes some tenths of a second.
CHAINS, FANS, DIAMONDS = 10, 5, 1500


class Sample(NamedTuple):
    """Microseconds for each node: on the clock, and of processor time by who spent it."""

    took: float
    spent: dict[str, float]


def works(engine: BenchedEngine) -> dict[str, tuple[int, Callable[[], float]]]:
    """By what they are of: how many nodes one turn has, and the turn, which says what it took."""
    return {
        "W1 chain": (CHAINS * HOPS.size, lambda: sum(engine.run_one(HOPS) for _ in range(CHAINS))),
        "W2 fan": (FANS * FAN.size, lambda: sum(engine.run_one(FAN) for _ in range(FANS))),
        "W3 diamonds": (DIAMONDS * DIAMOND.size, lambda: engine.run_many(DIAMOND, DIAMONDS)),
    }


def processes_by_role(stack: Stack) -> dict[str, list[int]]:
    roles: dict[str, list[int]] = {"server": [stack.server_pid()]}
    for name, pid in stack.processes().items():
        roles.setdefault(name.split("-")[0], []).append(pid)
    return roles


def measure(nodes: int, work: Callable[[], float], roles: dict[str, list[int]]) -> Sample:
    before = {role: cpu_of(pids) for role, pids in roles.items()}
    took = work()
    spent = {role: cpu_of(pids) - before[role] for role, pids in roles.items()}
    return Sample(took * 1e6 / nodes, {role: s * 1e6 / nodes for role, s in spent.items()})


def open_tab() -> Callable[[str], None]:
    """A Chromium; the work is to show an address, until that is live."""
    chromium = os.environ.get("FLOWD_TEST_CHROMIUM") or shutil.which("chromium")
    driver = sync_playwright().start()
    page = driver.chromium.launch(executable_path=chromium, args=list(FLAGS)).new_page()

    def show(address: str) -> None:
        page.goto(address)
        if address != NOTHING:
            page.locator(".live", has_text="Live").wait_for()
        time.sleep(SETTLES_S)

    return show


@click.command()
@click.option("--pairs", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--view", default="now", show_default=True, help="What the tab shows.")
def main(pairs: int, view: str) -> None:
    """Measure the engine with an open tab and without, in pairs that alternate."""
    with ExitStack() as opened:
        tab = Partner(open_tab)
        opened.callback(tab.close)
        stack = opened.enter_context(Stack(Path(tempfile.gettempdir())))
        stack.start()
        stack.wait_until_ready()
        engine = opened.enter_context(BenchedEngine(stack))
        address = f"{stack.wait_until_ready()['api']}/ui/{view}"
        roles = processes_by_role(stack)
        all_works = works(engine)
        for _, work in all_works.values():
            for _ in range(WARM_UPS):
                work()
        samples: dict[str, list[dict[bool, Sample]]] = {name: [] for name in all_works}
        for at in range(pairs):
            print(".", end="", file=sys.stderr, flush=True)
            pair: dict[str, dict[bool, Sample]] = {name: {} for name in all_works}
            for is_open in (True, False) if at % 2 else (False, True):
                tab.order(address if is_open else NOTHING)
                tab.result()
                for name, (nodes, work) in all_works.items():
                    pair[name][is_open] = measure(nodes, work, roles)
            for name, both in pair.items():
                samples[name].append(both)
    for name, pairs_of_it in samples.items():
        report(name, pairs_of_it)


def report(name: str, pairs: list[dict[bool, Sample]]) -> None:
    ratio = median(one[True].took / one[False].took for one in pairs)
    took = " -> ".join(
        f"{median(one[is_open].took for one in pairs):.1f}" for is_open in (False, True)
    )
    click.echo(f"{name}: open / closed {ratio:.3f} ({took} us a node)")
    for role in pairs[0][True].spent:
        closed, opened = (
            median(one[is_open].spent[role] for one in pairs) for is_open in (False, True)
        )
        click.echo(f"  {role:12} {closed:8.2f} -> {opened:8.2f} us of a core a node")


if __name__ == "__main__":
    main(prog_name="measure_tab")
