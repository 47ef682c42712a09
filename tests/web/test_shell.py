"""The shell round the views: addresses, tokens, the stream of events, and what is said when flowd
does not answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Request, Route, expect

from flowd.client import ApiError, Client
from flowd.tokens import SCOPES, TOKENS_FILE, change_tokens, new_token
from tests.daemon import wait_until
from tests.web.conftest import Submit, Visit, WebFlowd

VIEWS = (
    "now",
    "executions",
    "definitions",
    "schedules",
    "dead-letters",
    "limits",
    "submit",
    "system",
)
STREAM = re.compile(r"/events/bell")


@pytest.mark.parametrize("address", ["", "../ui", ".."])
def test_the_page_opens_at_the_first_view_whoever_leads_there(page: Page, address: str) -> None:
    page.goto(address)

    views = page.get_by_role("navigation", name="Views")
    expect(views.get_by_role("link", name="now")).to_have_attribute("aria-current", "page")
    expect(page.locator("h1.s-completed, h1.s-failed")).to_be_visible()


def test_the_name_of_the_page_and_what_is_not_found_lead_to_the_first_view(page: Page) -> None:
    page.goto("no/such/view")
    page.get_by_role("link", name="Go to the first one").click()
    expect(page.locator("h1.s-completed, h1.s-failed")).to_be_visible()

    page.goto("submit")
    page.get_by_role("link", name="flowd", exact=True).click()
    expect(page.locator("h1.s-completed, h1.s-failed")).to_be_visible()


def hide(page: Page, *, is_hidden: bool = True) -> None:
    page.evaluate(
        """state => {
          const visibility = {configurable: true, get: () => state};
          Object.defineProperty(document, 'visibilityState', visibility);
          document.dispatchEvent(new Event('visibilitychange'));
        }""",
        "hidden" if is_hidden else "visible",
    )


def row(page: Page, execution_id: str) -> Any:
    return page.locator(f"tr[data-id='{execution_id}']")


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_a_link_and_stands_in_the_navigation(page: Page, view: str) -> None:
    page.goto(view)

    link = page.get_by_role("navigation", name="Views").get_by_role(
        "link", name=view.replace("-", " ")
    )
    expect(link).to_have_attribute("aria-current", "page")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert page.evaluate("document.querySelectorAll('*').length") < 1500


def test_the_page_works_under_the_path_of_a_proxy(
    page: Page, flowd: WebFlowd, submit: Submit
) -> None:
    execution_id = submit("proxied")
    origin = flowd.url.rstrip("/")
    outside: list[str] = []

    def forward(route: Route) -> None:
        url = route.request.url
        if url.startswith(f"{origin}/deep/flowd/"):
            route.continue_(url=url.replace("/deep/flowd/", "/"))
        else:
            outside.append(url)
            route.abort()

    page.route("**/*", forward)
    page.goto(f"{origin}/deep/flowd/ui/definitions/no/such/view")
    expect(page.get_by_role("heading", name="Not found")).to_be_visible()
    page.get_by_role("link", name="Executions").click()

    expect(row(page, execution_id)).to_be_visible()
    assert page.url == f"{origin}/deep/flowd/ui/executions"
    assert outside == []


@pytest.fixture
def guarded(flowd: WebFlowd) -> Iterator[dict[str, str]]:
    """flowd asks for tokens: one that may read, and one that may do all."""
    made = {scope: new_token(scope, scope) for scope in SCOPES}
    change_tokens(flowd.data_dir, lambda _: tuple(token for token, _ in made.values()))
    yield {scope: text for scope, (_, text) in made.items()}
    (flowd.data_dir / TOKENS_FILE).unlink()
    wait_until(lambda: _asks_for_none(flowd), "no token to be needed")


def _asks_for_none(flowd: WebFlowd) -> bool:
    with contextlib.suppress(ApiError):
        return bool(flowd.client.token())
    return False


def test_a_token_is_asked_for_in_place_and_again_when_it_is_taken_back(
    page: Page, visit: Visit, flowd: WebFlowd, guarded: dict[str, str]
) -> None:
    visit.expected |= {401}
    wait_until_guarded(flowd)

    page.goto("executions?name=token*")
    page.get_by_role("textbox", name="Token").fill("flowd_" + "0" * 43)
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_text("this token is unknown, revoked or expired")).to_be_visible()
    page.get_by_role("textbox", name="Token").fill(guarded["admin"])
    page.keyboard.press("Enter")

    expect(page.get_by_text("No execution matches")).to_be_visible()
    expect(page.locator(".live")).to_contain_text("Live")
    assert page.evaluate("[document.cookie, localStorage.length]") == ["", 0]
    change_tokens(
        flowd.data_dir, lambda tokens: tuple(one for one in tokens if one.name != "admin")
    )
    with Client(flowd.url, guarded["trigger"]) as client:
        # An event: the stream looks whether it may go on.
        client.submit({"name": "other", "dag": {"nodes": [{"id": "A", "handler": "noop"}]}})
    expect(page.get_by_role("textbox", name="Token")).to_be_visible()
    page.get_by_role("textbox", name="Token").fill(guarded["read"])
    page.keyboard.press("Enter")
    expect(page.locator(".live")).to_contain_text("Live")


def wait_until_guarded(flowd: WebFlowd) -> None:
    def is_refused() -> bool:
        host, _, port = flowd.url.removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port.rstrip("/")))
        connection.request("GET", "/workflows")
        status = connection.getresponse().status
        connection.close()
        return status == 401

    wait_until(is_refused, "the tokens to be noticed")


def test_a_token_that_may_only_read_finds_no_action_enabled_and_the_api_refuses(
    page: Page, visit: Visit, flowd: WebFlowd, guarded: dict[str, str]
) -> None:
    visit.expected |= {401, 403}
    # Before the tokens are noticed nobody needs one.
    wait_until_guarded(flowd)
    page.add_init_script(f"sessionStorage.setItem('flowd.token', {json.dumps(guarded['read'])})")

    for view in VIEWS:
        page.goto(view)
        expect(page.get_by_role("heading", level=1).first).to_be_visible()
        page.wait_for_load_state("load")
        if view == "submit":
            page.get_by_label("Workflow").fill("name: x\ndag: {nodes: [{id: A, handler: noop}]}\n")
            expect(page.get_by_text("Valid: 1 node")).to_be_visible()
            button = page.get_by_role("button", name="Submit and trigger")
            expect(button).to_have_attribute("aria-disabled", "true")
            expect(button).to_have_attribute("title", re.compile("takes the scope “trigger”"))
            button.click(force=True)
        if view == "system":
            expect(page.get_by_text("Scope")).to_be_visible()
    status = page.evaluate(
        """async () => {
          const headers = {Authorization: `Bearer ${sessionStorage.getItem('flowd.token')}`};
          const answer = await fetch('../workflow', {method: 'POST', headers, body: '{}'});
          return answer.status;
        }"""
    )
    assert status == 403


def test_a_hidden_tab_asks_nothing_and_looks_again_when_it_is_seen(
    page: Page, context: BrowserContext, submit: Submit
) -> None:
    page.goto("executions?name=hidden")
    expect(page.locator(".live")).to_contain_text("Live")
    other = context.new_page()
    other.goto("executions?name=hidden")
    expect(other.locator(".live")).to_contain_text("Live")
    ended: list[Request] = []
    page.on("requestfailed", lambda request: ended.append(request))
    hide(page)
    wait_until(lambda: page.wait_for_timeout(20) or ended, "the stream to be closed")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))

    execution_id = submit("hidden")
    # The tab that is seen has asked, and waits for more: the other one would have asked by then.
    expect(other.get_by_role("button", name="1 new")).to_be_visible()
    other.get_by_role("button", name="1 new").click()
    expect(row(other, execution_id)).to_contain_text("Completed")

    assert sent == []
    hide(page, is_hidden=False)
    expect(page.get_by_role("button", name="1 new")).to_be_visible()


def test_pause_holds_what_is_shown_until_it_goes_on(page: Page, submit: Submit) -> None:
    page.goto("executions?name=held")
    expect(page.locator(".live")).to_contain_text("Live")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator(".live")).to_contain_text("Paused")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    submit("held")

    page.get_by_role("button", name="Go on").click()

    expect(page.get_by_role("button", name="1 new")).to_be_visible()
    assert any(STREAM.search(url) for url in sent)


def test_seven_windows_all_get_their_answers(context: BrowserContext, submit: Submit) -> None:
    """A browser opens six connections to a host: six streams left none for anything else."""
    execution_id = submit("seven")
    pages = [context.new_page() for _ in range(7)]
    for page in pages:
        page.goto("executions?name=seven")
        expect(row(page, execution_id)).to_be_visible()

    newest = submit("seven")

    for page in pages:
        page.get_by_role("button", name="1 new").click()
        expect(row(page, newest)).to_be_visible()
    said = [page.locator(".live span").first.inner_text() for page in pages]
    assert said.count("Live") <= 4
    assert "Every 5 s" in said


def test_an_api_that_dies_is_said_and_then_all_goes_on(
    page: Page, visit: Visit, flowd: WebFlowd, submit: Submit
) -> None:
    page.goto("executions?name=killed")
    expect(page.locator(".live")).to_contain_text("Live")
    visit.ignored.append("ERR_")
    # It is said for a second or two, and who looks now and then might look before and after.
    page.evaluate(
        """() => {
          const live = document.querySelector('.live');
          window.said = [];
          new MutationObserver(() => window.said.push(live.textContent))
            .observe(live, {childList: true, characterData: true, subtree: true});
        }"""
    )

    flowd.kill("api-1")

    page.wait_for_function("() => window.said.some(text => text.includes('Reconnecting'))")
    expect(page.locator(".live")).to_contain_text("Live")
    execution_id = submit("killed")
    page.get_by_role("button", name="1 new").click()
    expect(row(page, execution_id)).to_contain_text("Completed")


def test_a_gap_in_the_events_has_everything_asked_again(page: Page, submit: Submit) -> None:
    times = 0

    def answer(route: Route) -> None:
        nonlocal times
        times += 1
        body = 'event: gap\ndata: {"after": null, "oldest": null}\n\n' if times == 2 else ""
        route.fulfill(content_type="text/event-stream", body=body)

    page.route(STREAM, answer)
    page.goto("executions?name=gap")
    expect(page.get_by_text("No execution matches")).to_be_visible()

    submit("gap")

    expect(page.get_by_role("button", name="1 new")).to_be_visible()


@pytest.mark.parametrize(
    ("status", "code", "detail"),
    [
        (429, "rate_limited", "more than 10 requests a second; the setting is api.rate_limit"),
        (503, "store_unavailable", "Redis does not answer"),
    ],
)
def test_what_passes_is_said_in_its_words_and_asked_again(
    page: Page, visit: Visit, status: int, code: str, detail: str
) -> None:
    visit.expected.add(status)
    is_refused = True

    def answer(route: Route) -> None:
        if not is_refused:
            route.continue_()
            return
        problem = {"title": code, "status": status, "detail": detail, "code": code, "errors": []}
        headers = {"retry-after": "1", "content-type": "application/problem+json"}
        route.fulfill(status=status, headers=headers, body=json.dumps(problem))

    page.route(re.compile(r"/overview$"), answer)
    page.goto("now")
    expect(page.get_by_role("alert")).to_contain_text(detail)
    is_refused = False

    expect(page.get_by_text("flowd works")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_theme_and_clock_are_kept_and_the_theme_is_there_before_anything_is_drawn(
    page: Page, submit: Submit
) -> None:
    submit("clock")
    page.goto("executions?name=clock")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(background)

    page.get_by_label("Theme").select_option("Light")
    page.get_by_label("Clock").select_option("UTC")

    assert page.evaluate(background) != dark
    expect(page.locator("tr[data-id] time").first).to_have_text(re.compile("Z$"))
    page.reload()
    expect(page.locator("tr[data-id] time").first).to_have_text(re.compile("Z$"))
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_a_view_with_a_defect_says_so_and_the_others_stay(page: Page, visit: Visit) -> None:
    page.route(re.compile("/overview$"), lambda route: route.fulfill(json={"nonsense": 1}))
    visit.ignored.append("TypeError")
    page.goto("now")

    expect(page.get_by_role("alert")).to_contain_text("this view has a defect")
    page.get_by_role("link", name="Schedules").click()
    expect(page.get_by_role("heading", name="Schedules")).to_be_visible()


def test_the_address_of_a_redirect_for_browsers_leads_to_the_page(
    page: Page, flowd: WebFlowd
) -> None:
    page.goto(f"{flowd.url.rstrip('/')}/")

    expect(page).to_have_title(re.compile("flowd"))
    assert page.url.endswith("/ui/")
