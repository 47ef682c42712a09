"""An on-call's morning, from the page alone and by keys alone."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Page, expect

from tests.web.conftest import Submit, WebFlowd

STOPS_MAX = 60


def node(name: str, *dependencies: str, handler: str = "noop", **more: Any) -> dict[str, Any]:
    return {"id": name, "handler": handler, "dependencies": list(dependencies), **more}


def report(exit_code: int) -> list[dict[str, Any]]:
    command = ["sh", "-c", f"echo row 17 has no price >&2; exit {exit_code}"]
    retry = {"max_attempts": 2, "delay_s": 0.1}
    check = node("check", "fetch", handler="shell", config={"command": command}, retry=retry)
    return [node("fetch"), check, node("publish", "check")]


def tab_to(page: Page, name: str) -> None:
    """Press Tab until what is called so has the focus."""
    for _ in range(STOPS_MAX):
        page.keyboard.press("Tab")
        text = page.evaluate("document.activeElement.textContent.trim()")
        if re.fullmatch(name, str(text)):
            return
    raise AssertionError(f"no stop is called {name!r}")


def open_first(page: Page, id_: str) -> None:
    expect(page.locator(f"tr[data-id='{id_}']")).to_be_visible()
    page.keyboard.press("j")
    expect(page.locator("tr.current")).to_have_attribute("data-id", id_)
    page.keyboard.press("Enter")


def test_a_morning_by_keys_alone(page: Page, submit: Submit, flowd: WebFlowd) -> None:
    good = submit("morning report", *report(0))
    flowd.client.wait(good)
    bad = submit("morning report", *report(2))
    flowd.client.wait(bad)
    gate = submit("morning gate", node("release", handler="signal"))
    title = page.locator(".execution-title .state")

    # Does anything need me?
    page.goto("now")
    failed = page.get_by_role("region", name="Failed in the last 24 hours")
    expect(failed.get_by_role("listitem").first).to_contain_text("morning report")
    tab_to(page, r"morning report\s*check.*")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(bad))

    # What failed in the night, and why?
    page.goto("executions?status=FAILED&name=morning*")
    open_first(page, bad)
    expect(title).to_have_text("Failed")
    expect(page.locator(".execution-why")).to_contain_text("row 17 has no price")
    page.keyboard.press("2")
    open_first(page, "check")
    drawer = page.locator(".drawer")
    expect(drawer.get_by_role("heading", name="check")).to_be_visible()

    # Which attempt, and what did it say?
    tab_to(page, r"Attempts.*")
    page.keyboard.press("Enter")
    expect(drawer.locator(".attempts > li")).to_have_count(2)
    tab_to(page, "Log")
    page.keyboard.press("Enter")
    expect(drawer.locator(".lines pre").first).to_contain_text("row 17 has no price")
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)

    # What has changed against the last good run?
    page.reload()
    expect(page.get_by_role("link", name="Compare with the last good run")).to_be_visible()
    tab_to(page, "Compare with the last good run")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"left={good}&right={bad}"))
    expect(page.locator(".compare-first")).to_contain_text("is check: state, definition")

    # Run it again from what failed.
    page.go_back()
    expect(page.get_by_role("button", name="Rerun from failed")).to_be_visible()
    tab_to(page, "Rerun from failed")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("runs 2 nodes and takes over 1 output")
    tab_to(page, "Run 2 nodes")
    page.keyboard.press("Enter")
    expect(page).not_to_have_url(re.compile(bad))
    expect(page.locator(".execution-facts")).to_contain_text(bad)

    # Approve what waits.
    page.goto("executions?name=morning+gate")
    open_first(page, gate)
    expect(title).to_have_text("Running")
    page.keyboard.press("2")
    open_first(page, "release")
    tab_to(page, "Approve")
    page.keyboard.press("Enter")
    expect(title).to_have_text("Completed")
    assert flowd.client.status(gate) == "COMPLETED"
