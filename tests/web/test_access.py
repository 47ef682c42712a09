"""The page for everybody: contrast, names, targets, a small window, no script in any name."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from tests.web.conftest import CANARY, Submit, Visit, WebFlowd
from tests.web.test_shell import VIEWS

HOSTILE = '<img src=x onerror="window.broken=1"><script>window.broken=1</script>'
TURNED = "invoice\u202egnp.exe\u0007"
# Text and its background by WCAG 2.2, 1.4.3; what is off is excepted there.
CONTRAST = """() => {
  const parse = text => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const part = one => (one <= 10.3 ? one / 3294.6 : ((one / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(one).backgroundColor);
      if (a > 0.99) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest('[aria-disabled=true], .visually-hidden, option, script')) continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const wanted = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const [a, b] = [light(parse(style.color)), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < wanted) poor.push(`${walk.currentNode.data.trim()}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
# 2.5.8: 24 by 24, or a link within a line of text, or a box within a label that is large enough.
SMALL = """() => [...document.querySelectorAll('a, button, select, input, summary, textarea')]
  .filter(one => one.checkVisibility() && !one.closest('.visually-hidden, .skip'))
  .filter(one => {
    const { width, height } = (one.closest('label') ?? one).getBoundingClientRect();
    const isInline = getComputedStyle(one).display === 'inline';
    return !isInline && (width < 24 || height < 24);
  }).map(one => one.outerHTML.slice(0, 120))"""
NAMELESS = """() => [...document.querySelectorAll('button, a, input, select, textarea, summary')]
  .filter(one => one.checkVisibility())
  .filter(one => !one.textContent.trim() && !one.getAttribute('aria-label') && !one.labels?.length)
  .map(one => one.outerHTML.slice(0, 120))"""

# 2.1.1: what scrolls can be scrolled by keys: it is a stop, or has one.
STUCK = """() => [...document.querySelectorAll('main *')]
  .filter(one => one.checkVisibility() && /auto|scroll/.test(getComputedStyle(one).overflow))
  .filter(one => one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1)
  .filter(one => one.tabIndex < 0 && !one.querySelector('a, button, input, [tabindex="0"]'))
  .map(one => one.outerHTML.slice(0, 120))"""


@pytest.fixture
def something(flowd: WebFlowd, submit: Submit) -> None:
    workflow = {"name": "seen", "dag": {"nodes": [{"id": "A", "handler": "noop"}]}}
    flowd.client.put_definition("seen", workflow)
    flowd.client.put_schedule("seen", {"workflow": "seen", "every_s": 86400})
    submit("seen", {"id": "A", "handler": "shell", "config": {"command": ["false"]}})
    submit("seen", {"id": "A", "handler": "noop"}, {"id": "B", "handler": "noop"}, trigger=False)


MORE = ("definitions/seen", "definitions/seen/run", "definitions/seen/versions", "schedules/seen")


@pytest.mark.usefixtures("something")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_and_everything_has_a_name_and_a_size(page: Page, theme: str) -> None:
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    wrong: list[str] = []
    for view in (*VIEWS, *MORE):
        page.goto(view)
        expect(page.get_by_role("heading", level=1).first).to_be_visible()
        expect(page.locator(".loading")).to_have_count(0)

        for check in (CONTRAST, SMALL, NAMELESS):
            wrong += [f"{view}: {one}" for one in page.evaluate(check)]
    assert wrong == []


@pytest.mark.usefixtures("something")
@pytest.mark.parametrize("context", [{"viewport": {"width": 320, "height": 640}}], indirect=True)
def test_a_window_of_320_pixels_scrolls_in_one_direction(page: Page) -> None:
    for view in (*VIEWS, *MORE):
        page.goto(view)
        expect(page.get_by_role("heading", level=1).first).to_be_visible()
        expect(page.locator(".loading")).to_have_count(0)

        assert page.evaluate("document.documentElement.scrollWidth") <= 320, view
        assert page.evaluate(STUCK) == [], view


@pytest.mark.parametrize("path", ["docs", "docs/handlers"])
def test_the_reference_is_no_wider_than_its_window_whatever_is_open(
    page: Page, flowd: WebFlowd, path: str
) -> None:
    """An enum that was opened made it twice as wide."""
    page.goto(f"{flowd.url.rstrip('/')}/{path}")
    expect(page.get_by_role("heading", level=1).first).to_be_visible()

    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")

    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_hostile_names_are_text_and_run_nothing(
    page: Page, submit: Submit, flowd: WebFlowd, visit: Visit
) -> None:
    fail = {"command": ["sh", "-c", f"printf '%s' '{HOSTILE}' >&2; exit 1"]}
    node = {"id": "A", "handler": "shell", "config": fail}
    marked = submit(HOSTILE, node)
    turned = submit(TURNED, {"id": "A" * 64, "handler": "noop"})
    long = submit("x" * 128)
    deep: Any = "leaf"
    for _ in range(90):
        deep = {HOSTILE: deep}
    flowd.client.put_definition(
        "hostile",
        {
            "name": HOSTILE,
            "input": {"deep": deep},
            "input_schema": {"properties": {HOSTILE: {"type": "string", "description": HOSTILE}}},
            "dag": {"nodes": [node]},
        },
    )
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))

    page.goto("executions")
    expect(page.locator(f"tr[data-id='{marked}']")).to_contain_text(HOSTILE)
    shown = page.locator(f"tr[data-id='{turned}'] bdi").first
    expect(shown).to_have_text("invoice\\u202egnp.exe\\u0007")
    expect(page.locator(f"tr[data-id='{long}']")).to_be_visible()
    for view in (
        "now",
        "definitions/hostile/run",
        "definitions/hostile/definition",
    ):
        page.goto(view)
        expect(page.get_by_text("onerror").first).to_be_attached()
    visit.expected.add(400)
    page.goto(f"executions?{urlencode({'name': HOSTILE, 'label': HOSTILE, 'status': HOSTILE})}")
    expect(page.get_by_role("alert")).to_be_visible()
    page.goto("submit")
    page.get_by_role("textbox", name="Workflow").fill(json.dumps({"name": HOSTILE, HOSTILE: 1}))
    expect(page.get_by_text("problem")).to_be_visible()

    assert page.evaluate("window.broken") is None
    assert dialogs == []
    assert page.locator("img[onerror]").count() == 0


# An error on the console fails a test.
WATCH_FOR = """new MutationObserver(() => {
  if (document.documentElement.innerHTML.includes('%s')) console.error('it is on the page');
}).observe(document, { childList: true, subtree: true, characterData: true, attributes: true });"""


def test_a_secret_is_on_no_page(page: Page, submit: Submit, flowd: WebFlowd) -> None:
    config = {"key": {"$secret": "CANARY"}}
    told = {"id": "told", "handler": "leak", "config": config | {"fails": False}}
    broke = {"id": "broke", "handler": "leak", "config": config | {"fails": True}}
    after = {"id": "after", "handler": "noop", "config": {"got": "{{ told.key }}"}}
    nodes = (told, broke | {"dependencies": ["told"]}, after | {"dependencies": ["told"]})
    execution_id = submit("secretive", *nodes)
    assert flowd.client.wait(execution_id) == "FAILED"
    flowd.client.put_definition("secretive", {"name": "secretive", "dag": {"nodes": list(nodes)}})
    page.add_init_script(WATCH_FOR % CANARY)
    main, drawer = page.locator("main"), page.locator(".drawer")

    for tab, said in (
        ("", "it was '********'"),
        ("/nodes", "it was '********'"),
        ("/timeline", "broke"),
        ("/logs", "spoken ********"),
        ("/events", "it was '********'"),
        ("/results", "********"),
        ("/definition", "$secret"),
    ):
        page.goto(f"executions/{execution_id}{tab}")
        expect(main).to_contain_text(said)
    for name, about, output in (
        ("told", "leak", "********"),
        ("broke", "RuntimeError: it was '********'", "It has no output."),
    ):
        page.goto(f"executions/{execution_id}?node={name}")
        for section, said in (
            ("About", about),
            ("Config", "$secret"),
            ("Output", output),
            ("Attempts", "Log"),
            ("Log", "spoken ********"),
        ):
            drawer.get_by_role("tab", name=section).click()
            expect(drawer).to_contain_text(said)
    for view in ("now", "definitions/secretive/definition"):
        page.goto(view)
        expect(main).to_contain_text("secretive")


def test_what_is_said_aloud_is_said_at_most_every_five_seconds(page: Page) -> None:
    page.goto("executions")
    expect(page.locator("[aria-live=polite]").last).to_contain_text("execution")

    said = page.evaluate(
        """async () => {
          const region = [...document.querySelectorAll('[aria-live=polite]')].at(-1);
          const said = [];
          new MutationObserver(() => said.push([performance.now(), region.textContent]))
            .observe(region, {childList: true, characterData: true, subtree: true});
          const app = document.querySelector('script[type=module]').src;
          const { announce } = await import(new URL('notices.js', app));
          const pause = ms => new Promise(resolve => setTimeout(resolve, ms));
          for (let at = 0; at < 20; at += 1) {
            announce(`change ${at}`);
            await pause(10);
          }
          while (said.at(-1)?.[1] !== 'change 19') await pause(50);
          return said;
        }"""
    )

    assert len(said) <= 2


NAVIGATION = """
- banner:
  - link "To the content"
  - link "flowd"
  - navigation "Views":
    - link "Now"
    - link "Executions"
    - link "Definitions"
    - link "Schedules"
    - link "Dead letters"
    - link "Limits"
    - link "Submit"
    - link "System"
"""
# What each view is to whoever does not see it: the beginning of its tree.
HEARD = {
    "now": """
- main:
  - heading /flowd/ [level=1]
  - link /Pending/
  - link /Running/
  - region "What needs you":
    - heading "What needs you" [level=2]
    - region "Failed in the last 24 hours":
      - heading /Failed in the last 24 hours \\d+$/ [level=3]
      - link "All"
      - list:
        - listitem:
          - link
          - time
""",
    "executions": """
- main:
  - heading "Executions" [level=1]
  - search "Executions":
    - searchbox "Name"
    - searchbox "Labels"
    - combobox "Submitted"
    - group "State":
      - button "Failed"
  - table "Executions":
    - rowgroup:
      - row:
        - columnheader "Select all that are loaded"
        - columnheader "State"
        - columnheader "Name"
""",
    "definitions/seen": """
- main:
  - heading /Definitions.*seen/ [level=1]
  - button "Delete"
""",
    "submit": """
- main:
  - heading "Submit" [level=1]
  - textbox "Workflow"
""",
}


@pytest.mark.usefixtures("something")
def test_what_is_heard_has_the_order_of_what_is_seen(page: Page) -> None:
    for view, heard in HEARD.items():
        page.goto(view)
        expect(page.get_by_role("heading", level=1).first).to_be_visible()
        expect(page.locator("body")).to_match_aria_snapshot(NAVIGATION)
        expect(page.locator("body")).to_match_aria_snapshot(heard)
