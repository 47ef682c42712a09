"""What fits into a window, wide or as narrow as a telephone: nothing is cut off or out of sight."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.web.conftest import Submit, WebFlowd
from tests.web.test_execution import failing, node

NARROW = {"viewport": {"width": 390, "height": 844}}
narrow = pytest.mark.parametrize("context", [NARROW], indirect=True)
INSIDE = """all => all.filter(one => {
  const { left, right } = one.getBoundingClientRect();
  return left < 0 || right > innerWidth;
}).map(one => one.textContent)"""
# More than what is rounded.
RUNS_OFF = "one => one.scrollWidth > one.clientWidth + 1"


def is_cut(one: Locator) -> Any:
    return one.evaluate(RUNS_OFF)


@narrow
def test_an_execution_can_be_looked_at_in_a_narrow_window(page: Page, submit: Submit) -> None:
    gate = node("ok", "a", handler="signal", config={"prompt": "Ship it?"})
    execution_id = submit("narrow", node("a"), failing("b"), gate, node("c", "ok"))
    page.goto(f"executions/{execution_id}")

    # The graph begins above the fold, and so does what leads to the answer.
    expect(page.locator(".g-host")).to_be_in_viewport(ratio=0.5)
    expect(page.get_by_role("link", name="Answer")).to_be_in_viewport()
    assert page.locator("header.side nav a").evaluate_all(INSIDE) == []
    page.locator("summary", has_text="Copy as").click()
    menu = page.locator(".menu-items.commands")
    expect(menu.get_by_role("button", name="flowd get")).to_be_visible()
    assert menu.evaluate_all(INSIDE) == []
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Answer").click()
    expect(page.locator(".drawer h2")).to_be_in_viewport()
    expect(page.get_by_role("button", name="Approve")).to_be_in_viewport()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Timeline", exact=True).click()
    track = page.locator("tr[data-id='a'] .track")
    expect(track).to_be_visible()
    assert track.bounding_box()["width"] > 300  # type: ignore[index]
    page.get_by_role("link", name="Logs", exact=True).click()
    expect(page.get_by_role("region", name="Log of all nodes")).to_be_in_viewport()


@narrow
def test_rows_of_a_narrow_window_name_what_they_show_and_stay_within(
    page: Page, flowd: WebFlowd
) -> None:
    labels = {f"label-{at}": "a-value" for at in range(3)}
    workflow = {"name": "rows", "labels": labels, "dag": {"nodes": [node("a")]}}
    flowd.client.put_definition("rows", workflow)
    rule = {"workflow": "rows", "cron": "30 6 * * 1-5", "timezone": "Europe/Berlin"}
    flowd.client.put_schedule("rows", rule)

    page.goto("schedules")
    row = page.locator("tr[data-id='rows']")
    for words in ("Runs rows@latest", "Europe/Berlin", "Next in", "Last –", "Missed 0"):
        expect(row.get_by_role("cell", name=words)).to_be_visible()
    for view in ("schedules", "definitions"):
        page.goto(view)
        expect(row).to_be_visible()
        frame = row.bounding_box()
        assert frame is not None
        for cell in row.locator("td").all():
            box = cell.bounding_box()
            assert box is not None and frame["y"] < box["y"]
            assert box["y"] + box["height"] < frame["y"] + frame["height"], cell.text_content()
    flowd.client.delete_schedule("rows")


def test_a_wide_window_shows_a_small_graph_whole_and_wraps_what_is_long(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    say = {"command": ["sh", "-c", f"echo {'a long line ' * 40}; echo {'x' * 900}"]}
    chain = [node("n0", handler="shell", config=say)]
    chain += [node(f"n{at}", f"n{at - 1}", handler=("noop", "delay")[at % 2]) for at in range(1, 7)]
    for one in chain[1::2]:
        one["config"] = {"seconds": 0}
    execution_id = submit("seven", *chain)
    flowd.client.wait(execution_id)
    page.goto(f"executions/{execution_id}")

    expect(page.locator(".g-box")).to_have_count(7)
    for one in page.locator(".g-box").all():
        expect(one).to_be_in_viewport(ratio=1)
    tabs = page.get_by_role("navigation", name="Views of the execution")
    assert tabs.evaluate("one => one.scrollHeight <= one.clientHeight")
    page.get_by_role("link", name="Logs", exact=True).click()
    lines = page.get_by_role("region", name="Log of all nodes")
    expect(lines).to_contain_text("a long line")
    expect(lines.locator("pre")).to_contain_text("xxx")
    assert not is_cut(lines)


def test_a_schedule_says_in_which_time_zone_it_runs(page: Page, flowd: WebFlowd) -> None:
    flowd.client.put_definition("zoned", {"name": "zoned", "dag": {"nodes": [node("a")]}})
    rule = {"workflow": "zoned", "cron": "30 6 * * 1-5", "timezone": "Europe/Berlin"}
    flowd.client.put_schedule("zoned", rule)

    page.goto("schedules")

    cell = page.locator("tr[data-id='zoned'] td", has_text="Europe/Berlin")
    expect(cell).to_be_visible()
    assert not is_cut(cell)
    flowd.client.delete_schedule("zoned")
