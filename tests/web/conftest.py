"""A Chromium and a flowd for all tests of the dashboard, and a page for each.

A page that asks another origin, breaks its own policy or writes an error on its console fails its
test. The browser is the one FLOWD_TEST_CHROMIUM names, or `chromium` on the path; without one these
tests are skipped, and `.ci/run` sees to it that there is one.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    expect,
    sync_playwright,
)

from flowd.client import Client
from tests.daemon import ended_with
from tests.process.flowd_process import CONFIG, Flowd

CHROMIUM = os.environ.get("FLOWD_TEST_CHROMIUM") or shutil.which("chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# A loaded machine is slow in everything.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)
# What Chromium says of an answer of 400 or more, which a page may well expect.
_REFUSED = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not CHROMIUM:
        reason = "no chromium: install it, or name one in FLOWD_TEST_CHROMIUM"
        for item in items:
            if Path(item.path).parent == Path(__file__).parent:
                item.add_marker(pytest.mark.skip(reason=reason))


# What only those may know who call with it.
CANARY = "canary-51b7c0ffee"
MODULE = "shop"
HANDLERS = """
import json
from pathlib import Path
from flowd.handlers import handler

@handler("price")
def price(config: dict) -> dict:
    rows = json.loads(Path(config["file"]).read_text())
    print(f"pricing {len(rows)} rows")
    return {"total": total(rows)}

def total(rows: list) -> int:
    return sum(row["price"] for row in rows)

@handler("leak")
def leak(config: dict) -> dict:
    print("spoken", config["key"])
    if config["fails"]:
        raise RuntimeError(f"it was {config['key']!r}")
    return {"key": config["key"], config["key"]: 1}
"""


class WebFlowd(Flowd):
    """With a shell, handlers of its own, a secret, and a client."""

    def __init__(self, folder: Path) -> None:
        config = f'[handlers]\nmodules = ["{MODULE}"]\n[handlers.shell]\nenabled = true\n'
        (folder / "flowd.toml").write_text(f"{CONFIG}{config}[workers]\ncount = 1\n")
        (folder / f"{MODULE}.py").write_text(HANDLERS)
        super().__init__(folder, ["start"], FLOWD_SECRET_CANARY=CANARY)
        self.wait_until_running()
        self.client = Client(self.url)


@pytest.fixture(scope="session")
def flowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebFlowd]:
    running: list[Flowd] = []
    with ended_with("tests of the dashboard", running):
        flowd = WebFlowd(tmp_path_factory.mktemp("web"))
        running.append(flowd)
        yield flowd
        flowd.client.close()


@contextmanager
def _at_home(loop: asyncio.AbstractEventLoop | None) -> Iterator[list[Any]]:
    """Playwright's loop counts as running only while one of its pages is used.

    It lives in a greenlet of this thread, and would refuse every other loop of the tests.
    """
    kept: list[Any] = []
    asyncio._set_running_loop(loop)
    try:
        yield kept
    finally:
        kept.append(asyncio._get_running_loop())
        asyncio._set_running_loop(None)


class Chromium:
    def __init__(self, browser: Browser, loop: asyncio.AbstractEventLoop | None) -> None:
        self.browser = browser
        self.loop = loop


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    with _at_home(None) as kept:
        driver = sync_playwright().start()
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
    chromium = Chromium(browser, kept[0])
    yield chromium
    with _at_home(chromium.loop):
        browser.close()
        driver.stop()


class Visit:
    """What pages of one test have done that they must not."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.wrong: list[str] = []
        # The statuses of answers a test expects to be refused with.
        self.expected: set[int] = set()
        # Words of what a test has gone wrong on purpose.
        self.ignored: list[str] = []

    def watch(self, page: Page) -> None:
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type != "error" or any(one in message.text for one in self.ignored):
            return
        refused = _REFUSED.match(message.text)
        if not (refused and int(refused[1]) in self.expected):
            self.wrong.append(f"console: {message.text} {message.location}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith(self.origin + "/"):
            self.wrong.append(f"request to another origin: {request.url}")


@pytest.fixture
def visit(flowd: WebFlowd) -> Visit:
    return Visit(flowd.url.rstrip("/"))


@pytest.fixture
def context(
    chromium: Chromium, visit: Visit, flowd: WebFlowd, request: pytest.FixtureRequest
) -> Iterator[BrowserContext]:
    """`@pytest.mark.parametrize("context", [{...}], indirect=True)` gives it other options."""
    options: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"}
    with _at_home(chromium.loop) as kept:
        options |= getattr(request, "param", {})
        context = chromium.browser.new_context(base_url=f"{flowd.url}/ui/", **options)
        context.on("page", visit.watch)
        try:
            yield context
        finally:
            context.close()
    chromium.loop = kept[0]
    assert visit.wrong == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


Submit = Callable[..., str]


@pytest.fixture
def submit(flowd: WebFlowd) -> Submit:
    """`submit("name", {"id": "A", "handler": "noop"}, trigger=True)`: the execution's id."""

    def submit(name: str, *nodes: dict[str, Any], trigger: bool = True, **more: Any) -> str:
        nodes = nodes or ({"id": "A", "handler": "noop"},)
        workflow = {"name": name, "dag": {"nodes": list(nodes)}, **more}
        execution_id: str = flowd.client.submit(workflow, trigger=trigger)
        return execution_id

    return submit
