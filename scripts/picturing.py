"""Pictures of the dashboard, on a private flowd with something in every view."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, Page, sync_playwright

from flowd.cli.private_flowd import START, PrivateFlowd
from flowd.client import Client

CONFIG: Final = """
[api]
port = 0
[redis]
mode = "embedded"
port = 0
data_dir = "data"
[handlers]
modules = ["rates"]
[handlers.shell]
enabled = true
"""
HANDLERS: Final = """
from flowd.handlers import Context, handler

RATES = {"2026-01-30": 1.07}

@handler("check_rates")
def check_rates(config: dict, context: Context) -> dict:
    context.logger.info("comparing 4 orders", day=config["day"])
    print("the rates were fetched at 06:30")
    return {"rate": rate_of(config["day"])}

def rate_of(day: str) -> float:
    return RATES[day]
"""
FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
)
NAMES: Final = ("import-orders", "sync-customers", "send-invoices", "train-model")


def node(node_id: str, *dependencies: str, handler: str = "noop", **more: Any) -> dict[str, Any]:
    return {"id": node_id, "handler": handler, "dependencies": list(dependencies), **more}


def shell(node_id: str, *dependencies: str, script: str, **more: Any) -> dict[str, Any]:
    config = {"command": ["sh", "-c", script]}
    return node(node_id, *dependencies, handler="shell", config=config, **more)


def report(retry: dict[str, Any]) -> dict[str, Any]:
    """A definition with most of what a graph can show."""
    day = {"day": "{{ input.day }}"}
    check = node("check", "fetch-orders", "fetch-rates", handler="check_rates", config=day)
    return {
        "name": "nightly-report",
        "labels": {"team": "finance"},
        "input": {"day": "2026-01-31", "region": "eu"},
        "input_schema": {
            "type": "object",
            "required": ["day"],
            "properties": {
                "day": {"type": "string", "description": "the day to report on"},
                "region": {"enum": ["eu", "us", "apac"]},
                "limit": {"type": "integer", "description": "only so many orders"},
                "dry_run": {"type": "boolean"},
            },
        },
        "dag": {
            "nodes": [
                shell("fetch-orders", script="echo '[1, 2, 3, 4]'"),
                shell("fetch-rates", script="sleep 0.1; echo 1.07"),
                check | retry,
                *(node(f"part-{one}", "check") for one in range(6)),
                node("join", *(f"part-{one}" for one in range(6))),
                node("send", "join"),
            ]
        },
    }


def seed(client: Client) -> dict[str, str]:
    """Something in every view; the `id` of an execution that failed, and of a `good` one."""
    client.put_definition("nightly-report", report({}))
    good = [client.run_definition("nightly-report", {"day": "2026-01-30"}) for _ in range(9)]
    again = {"retry": {"max_attempts": 2, "delay_s": 0.1}}
    client.put_definition("nightly-report", report(again))
    failed = [client.run_definition("nightly-report", {"day": "2026-01-31"}) for _ in range(4)]
    client.put_schedule("nightly", {"workflow": "nightly-report", "cron": "30 6 * * 1-5"})
    client.put_schedule("hourly-sync", {"workflow": "nightly-report", "every_s": 3600})
    client.put_schedule("weekly", {"workflow": "nightly-report", "cron": "0 3 * * 0"})
    client.pause_schedule("weekly")
    ask = {"id": "approve", "handler": "signal", "config": {"prompt": "Send 4 invoices?"}}
    client.submit(
        {"name": "send-invoices", "dag": {"nodes": [ask, node("send", "approve")]}}, trigger=True
    )
    flaky = shell("call", script="exit 1", retry={"max_attempts": 5, "delay_s": 60})
    client.submit({"name": "sync-customers", "dag": {"nodes": [flaky]}}, trigger=True)
    wait = node("wait", handler="delay", config={"seconds": 900})
    client.submit(
        {"name": "train-model", "dag": {"nodes": [wait, node("train", "wait")]}}, trigger=True
    )
    client.put_limit("openai", max=1)
    slow = shell("call", script="sleep 60", limit="openai")
    for one in (slow, slow, slow):
        client.submit({"name": "train-model", "dag": {"nodes": [one]}}, trigger=True)
    for at in range(40):
        name = NAMES[at % len(NAMES)]
        client.submit(
            {"name": name, "dag": {"nodes": [node("A"), node("B", "A")]}}, trigger=at % 9 != 8
        )
    for execution_id in failed:
        client.wait(execution_id, 30)
    return {"id": failed[-1], "good": good[-1]}


VIEWS: Final = {
    "now": "now",
    "executions": "executions",
    "execution": "executions/{id}",
    "execution-nodes": "executions/{id}/nodes",
    "execution-timeline": "executions/{id}/timeline",
    "execution-logs": "executions/{id}/logs",
    "execution-events": "executions/{id}/events",
    "execution-results": "executions/{id}/results",
    "execution-definition": "executions/{id}/definition",
    "node": "executions/{id}?node=check",
    "compare": "compare?left={good}&right={id}",
    "definitions": "definitions",
    "definition": "definitions/nightly-report",
    "definition-run": "definitions/nightly-report/run",
    "definition-versions": "definitions/nightly-report/versions",
    "schedules": "schedules",
    "schedule": "schedules/nightly",
    "dead-letters": "dead-letters",
    "limits": "limits",
    "limit": "limits/openai",
    "submit": "submit",
    "attempts": "executions/{id}?node=check",
    "rerun": "executions/{id}",
    "bulk": "executions?status=FAILED",
    "keys": "executions",
    "system": "system",
}
SUBMITTED: Final = """\
name: hello
dag:
  nodes:
    - id: greet
      handler: noop
    - {id: report, handler: noop, dependencies: [greet]}
"""


def open_log(page: Page) -> None:
    page.get_by_role("tab", name="Attempts").click()
    page.locator(".attempts").get_by_role("button", name="Log").first.click()


def ask_for_two(page: Page) -> None:
    page.locator("tr[data-id]").first.wait_for()
    for key in "jxjx":
        page.keyboard.press(key)
    page.get_by_role("button", name="Rerun").click()


# What is done in a view before its picture is taken.
GESTURES: Final[dict[str, Callable[[Page], object]]] = {
    "submit": lambda page: page.get_by_label("Workflow").fill(SUBMITTED),
    "attempts": open_log,
    "rerun": lambda page: page.get_by_role("button", name="Rerun from failed").click(),
    "bulk": ask_for_two,
    "keys": lambda page: page.keyboard.press("?"),
}
SIZES: Final = {"wide": (1280, 800), "narrow": (390, 844)}


def picture(browser: Browser, url: str, ids: dict[str, str], folder: Path, only: list[str]) -> None:
    for theme in ("light", "dark"):
        for size, (width, height) in SIZES.items():
            context = browser.new_context(
                color_scheme=theme,  # type: ignore[arg-type]
                viewport={"width": width, "height": height},
            )
            page = context.new_page()
            page.on("console", lambda said: print(said.type, said.text, file=sys.stderr))
            for name, path in VIEWS.items():
                if only and name not in only:
                    continue
                page.goto(f"{url}/ui/{path.format(**ids)}")
                page.wait_for_load_state("load")
                if name in GESTURES:
                    GESTURES[name](page)
                page.wait_for_timeout(900)
                page.screenshot(path=folder / f"{name}-{theme}-{size}.png")
            context.close()


def readme_pictures(browser: Browser, url: str, ids: dict[str, str], folder: Path) -> None:
    """Two small ones."""
    for name, view, theme in (("now", "now", "light"), ("execution", "node", "dark")):
        context = browser.new_context(
            color_scheme=theme,  # type: ignore[arg-type]
            viewport={"width": 1160, "height": 700},
            device_scale_factor=0.6,
        )
        page = context.new_page()
        page.goto(f"{url}/ui/{VIEWS[view].format(**ids)}")
        page.wait_for_timeout(900)
        page.screenshot(path=folder / f"{name}.png")
        context.close()


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="flowd-pictures-"))
    (home / "flowd.toml").write_text(CONFIG)
    (home / "rates.py").write_text(HANDLERS)
    flowd = PrivateFlowd(home, START)
    try:
        flowd.start()
        url = str(flowd.wait_until_ready()["api"])
        with Client(url) as client, sync_playwright() as driver:
            ids = seed(client)
            chromium = os.environ.get("FLOWD_TEST_CHROMIUM") or shutil.which("chromium")
            browser = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
            if folder.name == "pictures":
                readme_pictures(browser, url, ids, folder)
            else:
                picture(browser, url, ids, folder, sys.argv[2:])
            browser.close()
    finally:
        flowd.stop()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
