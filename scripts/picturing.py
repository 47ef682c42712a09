"""Pictures of the dashboard, on a private flowd with something in every view."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, sync_playwright

from flowd.cli.private_flowd import START, PrivateFlowd
from flowd.client import Client

CONFIG: Final = """
[api]
port = 0
[redis]
mode = "embedded"
port = 0
data_dir = "data"
[handlers.shell]
enabled = true
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


def report(check: str) -> dict[str, Any]:
    """A definition with most of what a graph can show."""
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
                shell("check", "fetch-orders", "fetch-rates", script=check),
                *(node(f"part-{one}", "check") for one in range(6)),
                node("join", *(f"part-{one}" for one in range(6))),
                node("send", "join"),
            ]
        },
    }


def seed(client: Client) -> str:
    """Something in every view; the id of an execution that failed."""
    client.put_definition("nightly-report", report("echo checked"))
    for _ in range(9):
        client.run_definition("nightly-report", {"day": "2026-01-30"})
    client.put_definition(
        "nightly-report",
        report("echo 'comparing 4 orders'; echo 'rate is missing for 2026-01-31' >&2; exit 3"),
    )
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
    return failed[-1]


VIEWS: Final = {
    "now": "now",
    "executions": "executions",
    "execution": "executions/{id}",
    "execution-nodes": "executions/{id}/nodes",
    "execution-timeline": "executions/{id}/timeline",
    "execution-logs": "executions/{id}/logs",
    "execution-events": "executions/{id}/events",
    "node": "executions/{id}?node=check",
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
SIZES: Final = {"wide": (1280, 800), "narrow": (320, 640)}


def picture(browser: Browser, url: str, execution_id: str, folder: Path, only: list[str]) -> None:
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
                page.goto(f"{url}/ui/{path.format(id=execution_id)}")
                page.wait_for_load_state("load")
                if name == "submit":
                    page.get_by_label("Workflow").fill(SUBMITTED)
                page.wait_for_timeout(900)
                page.screenshot(path=folder / f"{name}-{theme}-{size}.png")
            context.close()


def readme_pictures(browser: Browser, url: str, execution_id: str, folder: Path) -> None:
    """Two small ones."""
    for name, theme in (("now", "light"), ("execution", "dark")):
        context = browser.new_context(
            color_scheme=theme,  # type: ignore[arg-type]
            viewport={"width": 1160, "height": 700},
            device_scale_factor=0.6,
        )
        page = context.new_page()
        page.goto(f"{url}/ui/{VIEWS[name].format(id=execution_id)}")
        page.wait_for_timeout(900)
        page.screenshot(path=folder / f"{name}.png")
        context.close()


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="flowd-pictures-"))
    (home / "flowd.toml").write_text(CONFIG)
    flowd = PrivateFlowd(home, START)
    try:
        flowd.start()
        url = str(flowd.wait_until_ready()["api"])
        with Client(url) as client, sync_playwright() as driver:
            execution_id = seed(client)
            chromium = os.environ.get("FLOWD_TEST_CHROMIUM") or shutil.which("chromium")
            browser = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
            if folder.name == "pictures":
                readme_pictures(browser, url, execution_id, folder)
            else:
                picture(browser, url, execution_id, folder, sys.argv[2:])
            browser.close()
    finally:
        flowd.stop()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
