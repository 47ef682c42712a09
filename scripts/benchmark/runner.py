"""Run the chosen workloads, each several times, and keep what they read."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

from flowd.cli.private_flowd import FlowdFailed
from scripts.benchmark.bench import Bench, Workload
from scripts.benchmark.figures import FIGURES, Result
from scripts.benchmark.processes import Void, busy_percent
from scripts.benchmark.workloads import WORKLOADS

_LOOK_S = 0.5


def run_workloads(
    bench: Bench, names: Sequence[str], repetitions: int
) -> tuple[list[Result], dict[str, float]]:
    """The results in the order of the table, and how busy the machine was before each workload.

    A workload that broke off leaves void figures.
    """
    results: list[Result] = []
    busy: dict[str, float] = {}
    for name in names:
        print(f"{name} ", end="", file=sys.stderr, flush=True)
        busy[name] = round(busy_percent(_LOOK_S), 1)
        results += _run_workload(bench, name, WORKLOADS[name], repetitions)
        print(file=sys.stderr)
    return results, busy


def _run_workload(bench: Bench, name: str, workload: Workload, repetitions: int) -> list[Result]:
    results = {
        figure.id: Result(figure)
        for figure in FIGURES
        if figure.workload == name and (len(bench.durabilities) > 1 or not figure.is_durable)
    }
    try:
        with workload(bench) as repeat:
            for _ in range(repetitions):
                for figure, reading in repeat().items():
                    results[figure].readings.append(reading)
                print(".", end="", file=sys.stderr, flush=True)
    except Exception as error:  # noqa: BLE001 - the other workloads are still worth measuring
        if not isinstance(error, (Void, FlowdFailed)):
            traceback.print_exc()
        for result in results.values():
            result.void = str(error) or repr(error)
    return list(results.values())
