"""An on-call's morning, from the page alone and by keys alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.web.conftest import Submit, WebFlowd

STOPS_MAX = 60
PRICED: list[dict[str, Any]] = [{"id": 16, "price": 3}]


def node(name: str, *dependencies: str, handler: str = "noop", **more: Any) -> dict[str, Any]:
    return {"id": name, "handler": handler, "dependencies": list(dependencies), **more}


def report(rows: Path) -> list[dict[str, Any]]:
    retry = {"max_attempts": 2, "delay_s": 0.1}
    check = node("check", "fetch", handler="price", config={"file": str(rows)}, retry=retry)
    return [node("fetch"), check, node("publish", "check")]


def tab_to(page: Page, name: str, within: str = "body", key: str = "Tab") -> None:
    """Press the key until what is called so in there has the focus."""
    for _ in range(STOPS_MAX):
        page.keyboard.press(key)
        text = page.evaluate(
            """within => {
              const { activeElement: stop } = document;
              return stop.closest(within) ? stop.textContent.trim() : null;
            }""",
            within,
        )
        if re.fullmatch(name, str(text)):
            return
    raise AssertionError(f"no stop is called {name!r}")


def open_row(page: Page, id_: str) -> None:
    """Go down the table to this row, and open it."""
    row = page.locator(f"tr[data-id='{id_}']")
    expect(row).to_be_visible()
    for _ in range(STOPS_MAX):
        page.keyboard.press("j")
        expect(page.locator("tr.current")).to_be_focused()
        if page.locator("tr.current").get_attribute("data-id") == id_:
            break
    page.keyboard.press("Enter")


def test_a_morning_by_keys_alone(
    page: Page, submit: Submit, flowd: WebFlowd, tmp_path: Path
) -> None:
    rows = {name: tmp_path / f"{name}.json" for name in ("monday", "tuesday")}
    rows["monday"].write_text(json.dumps(PRICED))
    rows["tuesday"].write_text(json.dumps([*PRICED, {"id": 17}]))
    good = submit("morning report", *report(rows["monday"]))
    assert flowd.client.wait(good) == "COMPLETED"
    bad = submit("morning report", *report(rows["tuesday"]))
    assert flowd.client.wait(bad) == "FAILED"
    gate = submit("morning gate", node("release", handler="signal"))
    title = page.locator(".execution-title .state")
    needs = page.locator(".attention")

    # Does anything need me? The newest failure comes first.
    page.goto("now")
    failed = page.get_by_role("region", name="Failed in the last 24 hours")
    expect(failed.get_by_role("listitem").first).to_contain_text("morning report")
    tab_to(page, r"morning report\s*check.*")
    page.keyboard.press("Enter")

    # What failed, and why?
    expect(page).to_have_url(re.compile(bad))
    expect(title).to_have_text("Failed")
    expect(page.locator(".execution-why")).to_contain_text("KeyError: 'price'")
    page.keyboard.press("2")
    open_row(page, "check")
    drawer = page.locator(".drawer")
    expect(drawer.get_by_role("heading", name="check")).to_be_visible()

    # The traceback: the line of its author, and what it is the last of.
    expect(drawer.locator(".traceback")).to_contain_text("in total")
    expect(drawer.locator(".traceback")).to_contain_text('sum(row["price"] for row in rows)')
    expect(drawer.locator(".traceback")).to_contain_text("KeyError: 'price'")

    # Which attempt, and what did each say?
    tab_to(page, r"Attempts.*")
    page.keyboard.press("Enter")
    expect(drawer.locator(".attempts > li")).to_have_count(2)
    for number in ("2", "1"):
        tab_to(page, "Log", ".attempts")
        page.keyboard.press("Enter")
        attempt = drawer.locator(".attempts > li", has=page.get_by_text(number, exact=True))
        expect(attempt.locator(".lines pre")).to_contain_text("pricing 2 rows")
        expect(attempt.locator(".lines pre")).to_contain_text("shop.py")
        expect(attempt.locator(".lines pre")).to_contain_text("KeyError: 'price'")
        page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)

    # What has changed against the last good run?
    expect(page.get_by_role("link", name="Compare with the last good run")).to_be_visible()
    tab_to(page, "Compare with the last good run", key="Shift+Tab")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"left={good}&right={bad}"))
    expect(page.locator(".compare-first")).to_contain_text("is check: state, definition")
    page.go_back()

    # Run it again from what failed, now that the file is mended.
    rows["tuesday"].write_text(json.dumps([*PRICED, {"id": 17, "price": 4}]))
    expect(page.get_by_role("button", name="Rerun from failed")).to_be_visible()
    tab_to(page, "Rerun from failed")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("runs 2 nodes and takes over 1 output")
    tab_to(page, "Run 2 nodes")
    page.keyboard.press("Enter")
    expect(page).not_to_have_url(re.compile(bad))
    expect(page.locator(".execution-facts")).to_contain_text(f"Rerun of {bad}")
    expect(title).to_have_text("Completed")

    # It needs nobody any more; somebody is waited for.
    page.keyboard.press("g")
    page.keyboard.press("n")
    expect(needs.locator(f"a[href*='{gate}']")).to_be_visible()
    expect(needs.locator(f"a[href*='{bad}']")).to_have_count(0)
    tab_to(page, r"morning gate\s*release.*")
    page.keyboard.press("Enter")

    # Approve what waits.
    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    tab_to(page, "Approve")
    page.keyboard.press("Enter")
    expect(title).to_have_text("Completed")
    assert flowd.client.status(gate) == "COMPLETED"
