"""The bench, on sizes so small that it says nothing about speed: it must measure, and notice."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from flowd.store.redis import keys
from scripts.benchmark import peers, runner
from scripts.benchmark.__main__ import main
from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import FIGURES, WORKLOADS, Figure, Reading, Result
from scripts.benchmark.picture import as_svg
from scripts.benchmark.processes import Void
from scripts.benchmark.report import goal_text, number, verdict
from scripts.benchmark.shapes import Shape, diamond
from scripts.benchmark.sizes import TINY
from tests.daemon import Daemon
from tests.private_server import PrivateServer

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"flowd": "1", "python": "3", "server": "redis", "cores": "2"}
SETTINGS = {"durability": "none", "repetitions": 1, "taken": "today"}


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A path that leaves room for the name of a unix socket."""
    with tempfile.TemporaryDirectory(prefix="flowd-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_workload_yields_each_of_its_figures(
    workload: str, tmp_path: Path, short_folder: Path
) -> None:
    options = ["--tiny", "--only", workload, "--folder", str(short_folder)]
    files = ["--json", "figures.json", "--svg", "figures.svg"]
    command = [sys.executable, "-m", "scripts.benchmark", *options, *files]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}

    with Daemon(command, tmp_path, tmp_path, environ) as bench:
        code = bench.wait_for_end()
        assert bench.survivors() == []

    assert code == 0, bench.stdout + bench.stderr
    expected = [figure.id for figure in FIGURES if figure.workload == workload]
    written = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert [one["id"] for one in written] == expected
    for one in written:
        (reading,) = one["readings"]
        assert reading["value"] >= 0
        assert (one["floor_is"] is None) == (reading["floor"] is None)
    rows = [line.split("  ")[0] for line in bench.stdout.splitlines()]
    assert [row for row in rows if row in expected] == expected
    ElementTree.parse(tmp_path / "figures.svg")
    assert list(short_folder.iterdir()) == []


def test_the_script_can_be_run() -> None:
    assert os.access(ROOT / "scripts" / "bench", os.X_OK)


@contextmanager
def _breaks_off(_bench: Bench) -> Iterator[Repetition]:
    def repeat() -> dict[str, Reading]:
        raise Void("a node ran twice")

    yield repeat


def test_a_void_figure_is_said_to_be_and_fails_the_bench(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runner, "WORKLOADS", {"W8": _breaks_off})

    result = CliRunner().invoke(main, ["--tiny", "--only", "w8", "--folder", str(tmp_path)])

    assert result.exit_code == 1
    assert "W8 is void: a node ran twice" in result.output


def test_a_workload_that_does_not_exist_is_refused() -> None:
    result = CliRunner().invoke(main, ["--only", "W1,W99"])

    assert result.exit_code == 2
    assert "there is no 'W99'" in result.output


class _Executed:
    """A diamond submitted through the bench, its keys as if a worker had run it once."""

    def __init__(self, engine: BenchedEngine) -> None:
        self.engine = engine
        self.shape: Shape = diamond()
        (self.execution_id,) = engine.submit(self.shape)
        self.engine.line.ask("SET", keys.status(self.execution_id), "COMPLETED")
        engine.line.ask("XGROUP", "CREATE", "workflow:tasks", "workflow_group", "0", "MKSTREAM")
        for node_id in self.shape.node_ids:
            self.set_node(node_id)
            self.add_entry(node_id)

    def set_node(self, node_id: str, state: str = "COMPLETED", record: str = "1 9 0 0 w") -> None:
        ask = self.engine.line.ask
        ask("SET", keys.node(self.execution_id, node_id), state)
        ask("SET", keys.output(self.execution_id, node_id), '{"status":"ok"}')
        ask("HSET", keys.attempts(self.execution_id), node_id, record)

    def add_entry(self, node_id: str, *, is_ended: bool = True) -> None:
        ask = self.engine.line.ask
        entry_id = ask("XADD", "workflow:tasks", "*", "node_id", node_id)
        if is_ended:
            ask("XDEL", "workflow:tasks", entry_id)

    def check(self) -> None:
        self.engine.check(self.shape, [self.execution_id])


@pytest.fixture
def executed() -> Iterator[_Executed]:
    server = PrivateServer()
    server.start()
    try:
        stack = SimpleNamespace(settings=server.settings(), socket_path=server.socket_path)
        with BenchedEngine(stack) as engine:  # type: ignore[arg-type]
            yield _Executed(engine)
    finally:
        server.stop()


def test_an_execution_that_ran_once_is_accepted_and_cleared(executed: _Executed) -> None:
    executed.check()
    executed.engine.clear()

    left = executed.engine.line.ask("KEYS", f"workflow:{executed.execution_id}*")
    assert left == []


def test_a_node_that_is_not_completed_voids_the_figure(executed: _Executed) -> None:
    executed.set_node("B", state="QUEUED")

    with pytest.raises(Void, match="QUEUED"):
        executed.check()


def test_a_node_without_output_voids_the_figure(executed: _Executed) -> None:
    executed.engine.line.ask("DEL", keys.output(executed.execution_id, "C"))

    with pytest.raises(Void, match="another output"):
        executed.check()


def test_a_second_attempt_voids_the_figure(executed: _Executed) -> None:
    executed.set_node("D", record="2 9 0 0 w")

    with pytest.raises(Void, match="first attempt"):
        executed.check()


def test_a_node_that_was_queued_twice_voids_the_figure(executed: _Executed) -> None:
    executed.add_entry("A")

    with pytest.raises(Void, match="4 nodes were given 5 entries"):
        executed.check()


def test_an_entry_that_is_left_voids_the_figure(executed: _Executed) -> None:
    executed.engine.begin_to_count()
    executed.add_entry("A", is_ended=False)

    with pytest.raises(Void, match="1 entries"):
        executed.check()


def test_of_several_repetitions_the_median_counts_and_the_ratio_is_each_ones_own() -> None:
    figure = Figure("W0", "nothing", "nodes/s", floor="bare", ratio_goal=0.7)
    readings = [Reading(10, 20), Reading(30, 40), Reading(90, 100)]
    result = Result(figure, readings)

    assert (result.value, result.floor, result.ratio) == (30, 40, 0.75)


@pytest.mark.parametrize(
    ("less_is_better", "ratio_goal", "value_goal", "value", "word"),
    [
        (False, 0.7, None, 7, "yes"),
        (False, 0.7, None, 6.9, "no"),
        (True, 1.5, None, 15, "yes"),
        (True, 1.5, None, 15.1, "no"),
        # Another machine's figure does not decide where there is a ratio.
        (False, 0.7, 100, 7, "yes"),
        (True, None, 7, 7, "yes"),
        (True, None, 7, 7.1, "no"),
        (False, None, None, 7, ""),
    ],
)
def test_a_goal_is_met_on_its_better_side(
    less_is_better: bool,
    ratio_goal: float | None,
    value_goal: float | None,
    value: float,
    word: str,
) -> None:
    figure = Figure("W0", "", "ms", less_is_better, ratio_goal=ratio_goal, value_goal=value_goal)

    assert verdict(Result(figure, [Reading(value, 10)])) == word


def test_numbers_keep_three_digits_that_mean_something() -> None:
    texts = [number(value) for value in (57_349.0, 3_456.0, 345.6, 3.456, 0.08123)]

    assert texts == ["57,300", "3,460", "346", "3.46", "0.0812"]


def test_the_picture_shows_each_comparison_with_its_goal_and_leaves_void_ones_out() -> None:
    results = [
        Result(figure, [Reading(2.0, 1.0 if figure.floor else None)], void="")
        for figure in FIGURES
        if figure.floor or figure.value_goal
    ]
    results[0].void = "a node ran twice"

    drawn = as_svg(results, ENVIRONMENT, SETTINGS)

    root = ElementTree.fromstring(drawn)
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    labels = [text for text in texts if text.startswith("W")]
    assert labels == sorted(labels, key=lambda text: _is_fixed_goal(text))
    assert len(labels) == len(results) - 1
    goals = list(root.iter("{http://www.w3.org/2000/svg}path"))
    assert len(goals) == sum(goal_text(result.figure) != "" for result in results[1:])


def _is_fixed_goal(label: str) -> bool:
    figure = next(one for one in FIGURES if label == f"{one.id}: {one.what}")
    return not figure.floor


@pytest.mark.parametrize("peer", peers.PEERS, ids=[one.name for one in peers.PEERS])
def test_a_peer_yields_each_of_its_figures(peer: peers.Peer, short_folder: Path) -> None:
    if not peer.is_installed:
        pytest.skip(f"{peer.name} is not installed; ./scripts/bench --peers installs it")

    figures = peers.measure(peer, Bench(short_folder, TINY, "none"), 1)

    assert list(figures) == ["W1", "W2", "W3", "W5 run"]
    assert min(figures.values()) > 0


def test_a_peer_that_cannot_be_had_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    broken = [sys.executable, "-c", "import sys; sys.exit('no route to anywhere')"]
    there = peers.PEERS[0]
    absent = replace(there, name="Absent", command=("no-such-program",))
    failing = replace(there, name="Failing", install=lambda _folder: broken)

    reasons = {one.name: peers.install(one) for one in (absent, failing)}
    text = peers.table({"W1": 0.25}, {"Other": {"W1": 1.0}, **reasons})

    assert not any(one.is_installed for one in (absent, failing))
    assert [line.split() for line in text.splitlines()[2:4]] == [
        ["flowd", "0.25", "–", "–", "–"],
        ["Other", "1", "–", "–", "–"],
    ]
    assert text.splitlines()[4:] == [
        "Absent is left out: there is no no-such-program here",
        "Failing is left out: installing it failed: no route to anywhere",
    ]
