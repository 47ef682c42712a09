"""The graph's pure modules, in the browser they run in: folding, layout, states.

Graphs are drawn from a seed by the page itself, so that a failure names the seed that shows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

SEEDS = 60

PROPERTIES = Path(__file__).with_name("graph_properties.js").read_text()


@pytest.fixture
def blank(page: Page) -> Page:
    page.goto("executions")
    return page


def run(page: Page, name: str, given: Any = None) -> Any:
    return page.evaluate(PROPERTIES, {"name": name, "given": given})


def test_any_graph_is_laid_out_forward_without_overlap_and_the_same_each_time(blank: Page) -> None:
    wrong = run(blank, "laidOut", SEEDS)

    assert wrong == []


def test_folding_loses_no_node_and_only_folds_what_nobody_could_tell_apart(blank: Page) -> None:
    wrong = run(blank, "folded", SEEDS)

    assert wrong == []


@pytest.mark.parametrize(
    ("drawn", "kinds"),
    [
        ("fan", ["node × 1", "group × 9998", "node × 1"]),
        ("chain", ["run × 10000"]),
        ("lanes", ["runs × 10000"]),
        ("small", ["node × 1"] * 6),
    ],
)
def test_ten_thousand_nodes_become_a_handful_of_shapes(
    blank: Page, drawn: str, kinds: list[str]
) -> None:
    folded = run(blank, "shapesOf", drawn)

    assert folded == kinds


def test_nodes_that_people_look_for_stay_out_of_runs(blank: Page) -> None:
    folded = run(blank, "notable")

    assert folded == ["run 0", "node 20", "run 21", "node 40", "run 41"]


def test_counts_by_shape_follow_the_letters_and_name_what_has_changed(blank: Page) -> None:
    wrong = run(blank, "counted", SEEDS)

    assert wrong == []


def test_the_focus_holds_what_is_so_many_hops_away_and_no_more(blank: Page) -> None:
    wrong = run(blank, "focused", SEEDS)

    assert wrong == []


def test_a_drawing_survives_its_way_from_the_worker(blank: Page) -> None:
    wrong = run(blank, "packedAgain", SEEDS)

    assert wrong == []
