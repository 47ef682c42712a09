"""The view of one execution: what it shows, what can be done there, by hand and by keys alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.web.conftest import Submit, Visit, WebFlowd

HOSTILE = "<img src=x onerror=alert(1)>\u202etxt.exe\x07"


def node(name: str, *dependencies: str, handler: str = "noop", **more: Any) -> dict[str, Any]:
    return {"id": name, "handler": handler, "dependencies": list(dependencies), **more}


def failing(name: str, *dependencies: str) -> dict[str, Any]:
    config = {"command": ["sh", "-c", "echo out of stock >&2; exit 3"]}
    return node(name, *dependencies, handler="shell", config=config, retry={"max_attempts": 1})


def box(page: Page, name: str) -> Any:
    return page.locator(".g-box").filter(has_text=re.compile(rf"^{re.escape(name)}"))


def test_the_graph_shows_each_node_with_its_state_in_words(page: Page, submit: Submit) -> None:
    execution_id = submit("shown", node("a"), failing("b", "a"), node("c", "b"), node("d", "a"))

    page.goto(f"executions/{execution_id}")

    expect(page.get_by_role("heading", name="shown")).to_be_visible()
    expect(page.locator(".execution-title .state")).to_have_text("Failed")
    expect(page.locator(".live")).to_contain_text("Ended")
    expect(box(page, "b")).to_contain_text("failed · shell")
    expect(box(page, "c")).to_contain_text("failed (upstream) · noop")
    expect(box(page, "d")).to_contain_text("completed · noop")
    expect(page.locator(".execution-why")).to_contain_text("b")


def test_states_change_in_place_and_the_graph_is_asked_for_once(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    execution_id = submit("in place", node("a"), node("b", "a"), trigger=False)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[-1]))
    page.goto(f"executions/{execution_id}")
    expect(box(page, "a")).to_contain_text("pending")
    expect(page.locator(".live")).to_contain_text("Live")

    flowd.client.trigger(execution_id)

    expect(box(page, "b")).to_contain_text("completed")
    expect(page.locator(".execution-title .state")).to_have_text("Completed")
    assert asked.count("graph") == 1


def test_folded_counts_equal_those_of_the_summary(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    middle = [node(f"m{at}", "a") for at in range(60)]
    last = node("z", *(one["id"] for one in middle))
    execution_id = submit("folded", node("a"), *middle, last, failing("f"), node("g", "f"))
    flowd.client.wait(execution_id)

    page.goto(f"executions/{execution_id}")

    expect(box(page, "noop × 60")).to_contain_text("60 completed")
    expect(box(page, "f")).to_contain_text("failed")
    shown = page.locator(".legend").evaluate_all(
        "all => all.map(one => [one.querySelector('.word').textContent, "
        "Number(one.querySelector('b').textContent)])"
    )
    assert sum(count for _, count in shown) == 64
    counts = flowd.client.get(execution_id)["counts"]
    failed = sum(count for word, count in shown if word.startswith("Failed"))
    assert {"FAILED": failed, "COMPLETED": dict(shown)["Completed"]} == {
        state: count for state, count in counts.items() if count
    }


def test_the_graph_is_one_stop_whose_arrows_follow_the_edges(page: Page, submit: Submit) -> None:
    execution_id = submit("keys", node("a"), node("b", "a"), node("c", "a"), node("d", "b"))
    page.goto(f"executions/{execution_id}")
    expect(box(page, "d")).to_contain_text("completed")

    graph = page.get_by_role("application")
    graph.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".g-box.is-chosen")).to_contain_text("a")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".g-box.is-chosen")).to_contain_text("d")
    active = graph.get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-label") == "d, noop, completed"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")

    drawer = page.locator(".drawer")
    expect(drawer.get_by_role("heading", name="c")).to_be_visible()
    expect(page).to_have_url(re.compile(r"node=c"))
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    expect(graph).to_be_focused()


def test_the_nodes_stand_in_a_table_with_what_failed_first(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    execution_id = submit("table", node("a"), node("b"), failing("c"), node("d", "c"))
    flowd.client.wait(execution_id)

    page.goto(f"executions/{execution_id}/nodes")

    expect(page.locator("tr[data-id='c']")).to_contain_text("exit")
    names = page.locator("tr[data-id]").evaluate_all("all => all.map(one => one.dataset.id)")
    assert names == ["c", "d", "a", "b"]
    page.get_by_label("State", exact=True).select_option("UPSTREAM")
    expect(page.locator("tr[data-id]")).to_have_count(1)
    page.locator("tr[data-id='d']").click()
    expect(page.locator(".drawer .reasons")).to_contain_text("'c'")


def test_the_drawer_says_why_with_config_output_and_neighbours(page: Page, submit: Submit) -> None:
    echo = {"prompt": "say {{ a.status }}"}
    execution_id = submit("drawer", node("a"), node("b", "a", handler="llm", config=echo))
    page.goto(f"executions/{execution_id}?node=b")

    drawer = page.locator(".drawer")
    expect(drawer.locator(".neighbours")).to_contain_text("a")
    drawer.get_by_role("tab", name="Config").click()
    expect(drawer).to_contain_text("say {{ a.status }}")
    expect(drawer).to_contain_text("say ok")
    drawer.get_by_role("tab", name="Output").click()
    expect(drawer).to_contain_text("Simulated response for: say ok")
    drawer.get_by_role("tab", name="About").click()
    drawer.get_by_role("button", name="a").click()
    expect(drawer.get_by_role("heading", name="a")).to_be_visible()


def test_what_waits_is_approved_or_rejected_where_it_stands(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    gates = [
        node(name, handler="signal", config={"prompt": "Ship it? https://example.com/r/1"})
        for name in ("yes", "no")
    ]
    execution_id = submit("approval", *gates)
    page.goto(f"executions/{execution_id}?node=yes")

    answer = page.get_by_role("region", name="Answer")
    expect(answer.get_by_role("button", name="Approve")).to_be_enabled()
    link = answer.get_by_role("link", name="https://example.com/r/1")
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    answer.get_by_label("Data").fill("{no json")
    expect(answer.get_by_role("button", name="Send")).to_have_attribute("aria-disabled", "true")
    answer.get_by_label("Data").fill('{"by": "me"}')
    answer.get_by_role("button", name="Send").click()
    expect(answer).to_have_count(0)
    box(page, "no").click()
    answer.get_by_label("Reason").fill("not today")
    answer.get_by_role("button", name="Reject").click()

    expect(page.locator(".execution-title .state")).to_have_text("Failed")
    output = flowd.client.results(execution_id)["yes"]
    assert output["data"] == {"by": "me"}
    expect(page.locator(".drawer")).to_contain_text("not today")


def test_approve_sends_what_the_command_sends_and_the_header_leads_there(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    execution_id = submit("shipped", node("ok", handler="signal", config={"prompt": "Ship 1.4?"}))
    page.goto(f"executions/{execution_id}")

    why = page.locator(".execution-why")
    expect(why).to_contain_text("ok waits for an answer: Ship 1.4?")
    why.get_by_role("link", name="Answer").click()
    page.get_by_role("region", name="Answer").get_by_role("button", name="Approve").click()

    expect(page.locator(".execution-title .state")).to_have_text("Completed")
    assert flowd.client.results(execution_id)["ok"]["data"] == {"approved": True}


def test_what_has_to_fit_a_schema_is_asked_for_in_a_form(
    page: Page, submit: Submit, flowd: WebFlowd, visit: Visit
) -> None:
    schema = {
        "type": "object",
        "required": ["approved", "ticket"],
        "properties": {
            "approved": {"type": "boolean"},
            "ticket": {"type": "string", "pattern": "^T-"},
            "copies": {"type": "integer"},
        },
    }
    choice = {"enum": ["blue", "green"]}
    odd = {"type": "array", "items": {"type": "integer"}}
    asked = {"form": schema, "choice": choice, "odd": odd}
    gates = [node(one, handler="signal", config={"schema": asked[one]}) for one in asked]
    execution_id = submit("asked", *gates)
    page.goto(f"executions/{execution_id}?node=form")
    answer = page.get_by_role("region", name="Answer")

    # What does not fit is said once.
    visit.expected.add(400)
    expect(answer.get_by_label("approved")).to_be_checked()
    answer.get_by_label("ticket").fill("17")
    answer.get_by_role("button", name="Approve").click()
    expect(answer.get_by_role("alert")).to_have_text("data.ticket: '17' does not match '^T-'")
    answer.get_by_label("ticket").fill("T-17")
    answer.get_by_role("button", name="Approve").click()
    expect(answer).to_have_count(0)
    box(page, "choice").click()
    answer.get_by_label("Answer").select_option("green")
    answer.get_by_role("button", name="Send").click()
    expect(answer).to_have_count(0)
    box(page, "odd").click()
    answer.get_by_text("What fits").click()
    expect(answer.locator("pre")).to_contain_text('"items"')
    answer.get_by_label("Data").fill("[1, 2]")
    answer.get_by_role("button", name="Send").click()

    expect(page.locator(".execution-title .state")).to_have_text("Completed")
    results = flowd.client.results(execution_id)
    assert {one: results[one]["data"] for one in asked} == {
        "form": {"approved": True, "ticket": "T-17"},
        "choice": "green",
        "odd": [1, 2],
    }


def test_the_header_says_which_nodes_hold_it_up(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    flowd.client.put_limit("nobody", max=0)
    waits = node("waits", limit="nobody")
    later = node("later", handler="delay", config={"seconds": 900})
    execution_id = submit("held up", failing("bad"), node("after", "bad"), waits, later)

    page.goto(f"executions/{execution_id}")

    held = page.locator(".held")
    expect(held).to_contain_text("bad failed: 'sh' exited with 3: out of stock")
    expect(held).to_contain_text("waits – it waits for a place of the limit")
    expect(held).not_to_contain_text("after")
    held.get_by_role("link", name="bad").click()
    expect(page.locator(".drawer").get_by_role("heading", name="bad")).to_be_visible()
    flowd.client.cancel(execution_id)


def test_a_cancel_names_how_many_nodes_it_ends(page: Page, submit: Submit, flowd: WebFlowd) -> None:
    execution_id = submit("cancel", node("a", handler="signal"), node("b", "a"), node("c"))
    page.goto(f"executions/{execution_id}")
    expect(box(page, "c")).to_contain_text("completed")
    expect(box(page, "a")).to_contain_text("waiting")

    page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog", name="Cancel")
    expect(dialog).to_contain_text("2 nodes have not ended")
    dialog.get_by_text("Copy as").click()
    expect(dialog.get_by_role("button", name="flowd …")).to_be_visible()
    dialog.get_by_role("button", name="Cancel 2 nodes").click()

    expect(page.locator(".execution-title .state")).to_have_text("Cancelled")
    assert flowd.client.status(execution_id) == "CANCELLED"


def test_a_rerun_from_what_failed_shows_first_what_would_run(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    execution_id = submit("again", node("a"), failing("b", "a"), node("c", "b"))
    page.goto(f"executions/{execution_id}")

    page.get_by_role("button", name="Rerun from failed").click()
    dialog = page.get_by_role("dialog", name="Rerun from failed")
    expect(dialog).to_contain_text("runs 2 nodes and takes over 1 output")
    dialog.get_by_role("button", name="Run 2 nodes").click()

    expect(page).not_to_have_url(re.compile(execution_id))
    expect(page.locator(".execution-facts")).to_contain_text(execution_id)
    again = page.url.rsplit("/", 1)[-1]
    assert flowd.client.get(again)["rerun_of"] == execution_id
    flowd.client.wait(again)
    page.get_by_role("link", name="Compare").click()
    expect(page.locator(".compare")).to_contain_text("No node differs")


def test_two_executions_differ_first_where_they_do(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    good = submit("before", node("a"), node("b", "a"), node("c", "b"))
    bad = submit("after", node("a"), failing("b", "a"), node("c", "b"))
    for one in (good, bad):
        flowd.client.wait(one)

    page.goto(f"compare?left={good}&right={bad}")

    expect(page.locator(".compare-first")).to_contain_text("The first of 2 nodes that differ is b")
    expect(page.locator(".compare-first")).to_contain_text("state, definition")
    expect(page.locator("tr[data-id='c']")).to_contain_text("Failed (upstream)")


def test_two_executions_are_chosen_from_the_newest(page: Page, submit: Submit) -> None:
    left, right = submit("chosen", node("a")), submit("chosen", node("b"))
    page.goto("compare")
    expect(page.locator(".compare-heads")).to_contain_text("Choose the left one above.")
    expect(page.locator(f"#newest option[value='{right}']")).to_have_count(1)

    page.get_by_label("Id of the left execution").fill(left)
    expect(page).to_have_url(re.compile(f"left={left}"))
    page.get_by_label("Id of the right execution").fill(right)

    expect(page.locator(".compare-first")).to_contain_text("is a: only left")


def test_a_rerun_takes_a_corrected_workflow(page: Page, submit: Submit, flowd: WebFlowd) -> None:
    execution_id = submit("mended", node("a"), failing("b", "a"), node("old", "b"))
    flowd.client.wait(execution_id)
    page.goto(f"executions/{execution_id}")
    page.get_by_role("button", name="Rerun from failed").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("runs 2 nodes")

    dialog.get_by_label("With a corrected workflow").check()
    field = dialog.get_by_label("Workflow", exact=True)
    expect(field).to_have_value(re.compile("exit 3"))
    expect(dialog).to_contain_text("runs 2 nodes")
    field.fill("name: mended\ndag: [")
    expect(dialog.locator(".wrong")).to_contain_text("line 2: what begins here does not end")
    nodes = "{nodes: [{id: a, handler: noop}, {id: b, handler: noop, dependencies: [a]}]}"
    field.fill(f"name: mended\ndag: {nodes}\n")
    expect(dialog).to_contain_text("Is not there any more")
    dialog.get_by_role("button", name="Run 1 node").click()

    expect(page).not_to_have_url(re.compile(execution_id))
    expect(page.locator(".execution-title .state")).to_have_text("Completed")


@pytest.mark.parametrize(
    "tab", ["", "/nodes", "/timeline", "/logs", "/events", "/results", "/definition"]
)
def test_hostile_names_and_outputs_are_text_in_every_tab(
    page: Page, submit: Submit, tab: str
) -> None:
    long = "n" * 128
    execution_id = submit(
        HOSTILE,
        node(
            "echo", handler="llm", config={"prompt": f"{HOSTILE} javascript:alert(1) {'x' * 5000}"}
        ),
        node(long, "echo"),
        labels={"team": "<b>"},
    )

    page.goto(f"executions/{execution_id}{tab}?node=echo")

    expect(page.locator("h1")).to_contain_text("<img src=x onerror=alert(1)>\\u202etxt.exe\\u0007")
    expect(page.locator(".drawer dl")).to_be_visible()
    page.locator(".drawer").get_by_role("tab", name="Output").click()
    expect(page.locator(".drawer pre")).to_contain_text("<img src=x onerror=alert(1)>\\u202etxt")
    assert page.locator("main img").count() == 0
    assert page.locator("a[href^='javascript']").count() == 0


def test_who_may_only_read_sees_no_enabled_action(page: Page, submit: Submit) -> None:
    execution_id = submit("reader", node("ok", handler="signal"))

    def answer(route: Route) -> None:
        told = {"name": "eyes", "scope": "read", "expires_ms": None, "required": True}
        route.fulfill(json=told)

    page.route("**/token", answer)
    page.goto(f"executions/{execution_id}?node=ok")

    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    for name in ("Approve", "Pause", "Cancel"):
        button = page.locator("main").get_by_role("button", name=name)
        expect(button).to_have_attribute("aria-disabled", "true")
        expect(button).to_have_attribute("title", re.compile("trigger"))


def test_events_results_and_definition_show_what_happened(page: Page, submit: Submit) -> None:
    execution_id = submit("told", node("a"), failing("b"), output={"x": "{{ a.status }}"})

    page.goto(f"executions/{execution_id}/events")
    expect(page.locator(".events-view")).to_contain_text("execution.failed")
    expect(page.locator(".events-view")).to_contain_text("node.completed")
    page.get_by_role("link", name="Results", exact=True).click()
    expect(page.locator(".results-view")).to_contain_text('"status": "ok"')
    page.get_by_role("link", name="Definition", exact=True).click()
    expect(page.locator(".definition-view pre")).to_contain_text('"x": "{{ a.status }}"')
    page.get_by_role("link", name="Timeline", exact=True).click()
    expect(page.locator("tr[data-id='a'] .track")).to_have_attribute(
        "aria-label", re.compile("ran ")
    )


def test_each_attempt_keeps_its_error_and_its_log(page: Page, submit: Submit) -> None:
    config = {"command": ["sh", "-c", "echo looked at $FLOWD_ATTEMPT; echo no price >&2; exit 2"]}
    retry = {"max_attempts": 2, "delay_s": 0.1}
    execution_id = submit("attempts", node("a", handler="shell", config=config, retry=retry))

    page.goto(f"executions/{execution_id}?node=a")
    drawer = page.locator(".drawer")
    drawer.get_by_role("tab", name="Attempts").click()
    expect(drawer.locator(".attempts > li")).to_have_count(2)
    first = drawer.locator(".attempts > li").last
    expect(first).to_contain_text("no price")
    first.get_by_role("button", name="Log").click()
    expect(first.locator(".lines pre")).to_contain_text("looked at")

    page.get_by_role("link", name="Timeline", exact=True).click()
    expect(page.locator("tr[data-id='a'] .span.failed")).to_have_count(2)


def test_the_log_of_a_running_node_is_followed_line_by_line(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    config = {"command": ["sh", "-c", "i=0; while sleep 0.2; do i=$((i+1)); echo tick $i; done"]}
    execution_id = submit("followed", node("a", handler="shell", config=config))
    page.goto(f"executions/{execution_id}/logs")

    lines = page.locator(".log .lines pre")
    expect(lines).to_contain_text("a  tick 1")
    expect(lines).to_contain_text("tick 4")
    page.locator("tr[data-id='a']").click()
    expect(page.locator(".log-of h2")).to_have_text("a")
    expect(lines).to_contain_text("out    tick 1")
    flowd.client.cancel(execution_id)
    expect(page.locator(".execution-title .state")).to_have_text("Cancelled")
    expect(lines).to_contain_text("tick 4")


def test_the_timeline_shows_pauses_and_waits_that_are_over(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    waits = node("waits", handler="delay", config={"seconds": 0.3})
    fails = failing("fails") | {"retry": {"max_attempts": 2, "delay_s": 0.2}}
    execution_id = submit("gone by", waits, fails)
    flowd.client.wait(execution_id)

    page.goto(f"executions/{execution_id}/timeline")

    track = page.locator("tr[data-id='waits'] .track")
    expect(track.locator(".waited")).to_have_count(1)
    expect(track).to_have_attribute(
        "aria-label", re.compile(r"waited (3|4|5|6|7|8|9)\d\d ms|waited \d")
    )
    track = page.locator("tr[data-id='fails'] .track")
    expect(track.locator(".paused")).to_have_count(1)
    expect(track.locator(".failed")).to_have_count(2)


def test_what_waited_took_as_long_as_from_its_start_to_its_end(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    """Only the attempt after it was woken was counted, which takes no time."""
    say = {"command": ["sleep", "0.5"]}
    each = node("each", handler="shell", config=say) | {"map": {"over": "{{ input.list }}"}}
    waits = node("waits", handler="delay", config={"seconds": 0.5})
    execution_id = submit("long", each, waits, input={"list": [1]})
    flowd.client.wait(execution_id)

    half_a_second = re.compile(r"^([5-9]\d\d ms|[\d.]+ s)$")
    for tab in ("nodes", "timeline"):
        page.goto(f"executions/{execution_id}/{tab}")
        for one in ("each", "waits"):
            took = page.locator(f"tr[data-id='{one}'] td[data-head='Took']")
            expect(took).to_have_text(half_a_second)
    page.goto(f"executions/{execution_id}?node=each")
    facts = page.locator(".drawer .facts")
    expect(facts.locator("dt:text-is('Took') + dd")).to_have_text(half_a_second)
    # It has waited, and failed never.
    expect(page.get_by_role("tab", name="Attempts")).to_have_text("Attempts")


def test_what_has_nothing_to_run_again_offers_no_rerun(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    good, bad = submit("good", node("a")), submit("bad", failing("a"))
    for one in (good, bad):
        flowd.client.wait(one)

    for one, commands in (
        (good, ["flowd get", "flowd explain", "flowd rm"]),
        (bad, ["flowd get", "flowd explain", "flowd rerun", "flowd rm"]),
    ):
        page.goto(f"executions/{one}")
        page.locator("summary", has_text="Copy as").click()
        offered = page.locator(".menu-items.commands button.grow")
        expect(offered).to_have_text(commands)
        expect(page.get_by_role("button", name="Rerun from failed")).to_have_count(int(one == bad))
