"""What the shell and the lists may cost. Times are held against a page without any script."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.web.conftest import Submit, WebFlowd

ELEMENTS_MAX = 1_500
HEAP_BYTES_MAX = 100 * 2**20
ROWS = 100_000
ROWS_OF_A_PAGE = 1_000
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
# Of the time in which a page without scripts is painted, which is some 50 ms here; noise included.
FIRST_PAINT_RATIO_MAX = 8
USABLE_RATIO_MAX = 20
LOOKS = 3
# What rows do not say of themselves is asked for where somebody rests.
# A slow page rests where a fast one scrolls by.
ASKED_MAX = 2_000


def painted(page: Page, url: str) -> float:
    page.goto(url)
    page.wait_for_function(f"() => {PAINT}")
    return float(page.evaluate(PAINT))


def test_the_first_paint_and_a_usable_list_come_soon(
    context: BrowserContext, flowd: WebFlowd, submit: Submit, figure: Callable[[str], None]
) -> None:
    submit("soon")
    plain, first, usable = [], [], []
    for _ in range(LOOKS):
        page = context.new_page()
        plain.append(painted(page, f"{flowd.url.rstrip('/')}/docs/tokens"))
        page.close()
        page = context.new_page()
        page.add_init_script(
            """new MutationObserver((_, observer) => {
              if (!document.querySelector('tr[data-id]')) return;
              window.usableMs = performance.now();
              observer.disconnect();
            }).observe(document, {childList: true, subtree: true});"""
        )
        first.append(painted(page, "executions"))
        page.wait_for_function("() => window.usableMs")
        usable.append(float(page.evaluate("window.usableMs")))
        page.close()

    figure(
        f"first paint {min(first):.0f} ms, list usable {min(usable):.0f} ms; "
        f"a page without scripts {min(plain):.0f} ms"
    )
    assert min(first) <= FIRST_PAINT_RATIO_MAX * min(plain)
    assert min(usable) <= USABLE_RATIO_MAX * min(plain)


def serve_rows(route: Route) -> None:
    """As many executions as the list ever has, in pages as an API would give them."""
    query = parse_qs(urlsplit(route.request.url).query)
    start = int(query.get("cursor", ["0"])[0])
    rows = [
        {
            "execution_id": f"{ROWS - at:024x}",
            "name": f"workflow-{at % 50}",
            "status": "COMPLETED" if at % 9 else "FAILED",
            "nodes": 3,
            "submitted_ms": 1_796_000_000_000 - at * 1000,
            "triggered_ms": 1_796_000_000_000 - at * 1000,
            "finished_ms": 1_796_000_000_500 - at * 1000,
            "duration_ms": 500,
            "rerun_of": None,
        }
        for at in range(start, min(ROWS, start + ROWS_OF_A_PAGE))
    ]
    end = start + ROWS_OF_A_PAGE
    route.fulfill(json={"workflows": rows, "next_cursor": str(end) if end < ROWS else None})


def heap(page: Page) -> int:
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used: dict[str, Any] = session.send("Runtime.getHeapUsage")
    return int(used["usedSize"])


def test_a_list_scrolled_through_a_hundred_thousand_stays_small(
    page: Page, figure: Callable[[str], None]
) -> None:
    asked: list[str] = []

    def serve_summary(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(json={"name": "workflow", "counts": {"COMPLETED": 2, "FAILED": 1}})

    page.route(re.compile(r"/workflows\?"), serve_rows)
    page.route(re.compile(r"/workflows/\w+/summary$"), serve_summary)
    page.goto("executions")
    expect(page.locator("tr[data-id]").first).to_be_visible()

    page.evaluate(
        """async () => {
          const list = document.querySelector('.table-scroll');
          while (!document.querySelector('.end')) {
            list.scrollTop = list.scrollHeight;
            await new Promise(requestAnimationFrame);
          }
        }"""
    )

    expect(page.get_by_text("100,000 executions, no more")).to_be_visible()
    elements = page.evaluate("document.querySelectorAll('*').length")
    used = heap(page)
    figure(f"{elements} elements, {used / 2**20:.0f} MiB of heap")
    assert elements <= ELEMENTS_MAX
    assert used <= HEAP_BYTES_MAX
    # Who scrolls by is not asked for.
    assert len(asked) <= ASKED_MAX
    page.keyboard.press("Home")
    page.evaluate("document.querySelector('.table-scroll').scrollTop = 1600000")
    expect(page.locator("tr[aria-rowindex='50002']")).to_be_visible()
