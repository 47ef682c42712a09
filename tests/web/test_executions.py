"""The list of executions: filters, live changes that move no row, and what is done to many."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.web.conftest import Submit, Visit, WebFlowd


def rows(page: Page) -> list[str]:
    return [
        str(one)
        for one in page.locator("tr[data-id]").evaluate_all("r => r.map(x => x.dataset.id)")
    ]


def test_the_list_shows_what_there_is_and_filters_stand_in_the_address(
    page: Page, submit: Submit
) -> None:
    good = submit("list-good")
    bad = submit("list-bad", {"id": "A", "handler": "shell", "config": {"command": ["false"]}})

    page.goto("executions?name=list-*")
    expect(page.locator(f"tr[data-id='{bad}']")).to_contain_text("Failed")
    expect(page.locator(f"tr[data-id='{good}']")).to_contain_text("Completed")
    page.get_by_role("button", name="Completed").click()

    expect(page).to_have_url(re.compile(r"status=COMPLETED"))
    expect(page.locator(f"tr[data-id='{bad}']")).to_have_count(0)
    expect(page.locator(f"tr[data-id='{good}']")).to_be_visible()
    page.reload()
    expect(page.locator(f"tr[data-id='{good}']")).to_be_visible()
    page.go_back()
    expect(page.locator(f"tr[data-id='{bad}']")).to_be_visible()


def test_new_rows_wait_behind_a_pill_and_known_ones_change_in_place(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    first = submit("pill", trigger=False)
    page.goto("executions?name=pill")
    expect(page.locator(f"tr[data-id='{first}']")).to_contain_text("Pending")
    expect(page.locator(".live")).to_contain_text("Live")

    second = submit("pill", trigger=False)
    flowd.client.trigger(first)

    expect(page.get_by_role("button", name="1 new")).to_be_visible()
    expect(page.locator(f"tr[data-id='{first}']")).to_contain_text("Completed")
    assert rows(page) == [first]
    page.get_by_role("button", name="1 new").click()
    expect(page.locator(f"tr[data-id='{second}']")).to_be_visible()
    assert rows(page) == [second, first]


def test_several_are_cancelled_after_a_look_at_how_many(
    page: Page, submit: Submit, flowd: WebFlowd
) -> None:
    ended = submit("many")
    waiting = [submit("many", trigger=False) for _ in range(2)]
    page.goto("executions?name=many")
    expect(page.locator(f"tr[data-id='{ended}']")).to_contain_text("Completed")

    page.get_by_label("Select all that are loaded").check()
    page.get_by_role("region", name="Selected").get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog", name="Cancel 2 executions?")
    expect(dialog).to_contain_text("1 selected execution left as it is")
    dialog.get_by_role("button", name="Cancel 2").click()

    expect(dialog).to_have_count(0)
    assert {flowd.client.status(one) for one in waiting} == {"CANCELLED"}
    for one in waiting:
        expect(page.locator(f"tr[data-id='{one}']")).to_contain_text("Cancelled")


def test_keys_move_in_the_list_and_can_be_switched_off(page: Page, submit: Submit) -> None:
    older, newer = submit("keyed"), submit("keyed")
    page.goto("executions?name=keyed")
    expect(page.locator(f"tr[data-id='{older}']")).to_be_visible()

    page.keyboard.press("j")
    expect(page.locator("tr.current")).to_have_attribute("data-id", newer)
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator(f"tr[data-id='{older}']")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Escape")
    expect(page.locator(f"tr[data-id='{older}']")).to_have_attribute("aria-selected", "false")
    page.keyboard.press("/")
    expect(page.get_by_placeholder("name, or begin*")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    dialog.get_by_label("Keys of one letter are on").uncheck()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.keyboard.press("/")
    expect(page.get_by_placeholder("name, or begin*")).not_to_be_focused()


def test_a_definition_says_how_long_its_executions_take(page: Page, flowd: WebFlowd) -> None:
    nodes = [{"id": "A", "handler": "noop"}]
    flowd.client.put_definition("timed", {"name": "timed", "dag": {"nodes": nodes}})
    for _ in range(3):
        flowd.client.wait(flowd.client.run_definition("timed"))

    page.goto("definitions/timed")

    durations = page.get_by_role("group", name="Durations")
    expect(durations).to_contain_text("3of the newest 3 completed")
    for words in ("median", "90th percentile", "99th percentile", "longest"):
        expect(durations).to_contain_text(words)
    expect(page.locator(".grid rect.bar")).to_have_count(3)


def test_a_row_says_how_many_nodes_have_ended_and_what_it_is_of(
    page: Page, flowd: WebFlowd
) -> None:
    workflow = {"name": "counted", "labels": {"team": "blue"}}
    gate = {"id": "B", "handler": "signal", "dependencies": ["A"]}
    nodes = [{"id": "A", "handler": "noop"}, gate]
    flowd.client.put_definition("counted", workflow | {"dag": {"nodes": nodes}})
    execution_id = flowd.client.run_definition("counted")

    page.goto("executions?name=counted")

    row = page.locator(f"tr[data-id='{execution_id}']")
    expect(row).to_contain_text("1/2")
    expect(row).to_contain_text("v1 · team:blue")
    flowd.client.approve(execution_id, "B")
    expect(row).to_contain_text("2/2")


def test_a_definition_counts_all_its_nodes_and_the_time_of_what_still_runs(
    page: Page, flowd: WebFlowd
) -> None:
    gate = {"id": "A", "handler": "signal"}
    dag = {"nodes": [gate], "finally": [{"id": "Z", "handler": "noop"}]}
    flowd.client.put_definition("open", {"name": "open", "dag": dag})
    execution_id = flowd.client.run_definition("open")
    page.goto("definitions")
    expect(page.locator("tr[data-id='open']")).to_contain_text("2")

    page.goto("definitions/open")

    expect(page.locator(".toolbar")).to_contain_text("2 nodes")
    expect(page.locator(".grid-said")).to_contain_text("or has run until now (1)")
    flowd.client.cancel(execution_id)


def test_what_is_wrong_with_a_workflow_is_said_with_its_line_and_node(
    page: Page, visit: Visit
) -> None:
    visit.expected.add(400)
    page.goto("submit")
    expect(page.locator(".live")).to_have_text("")

    field = page.get_by_label("Workflow")
    written = "name: x\ndag:\n  nodes:\n    - id: A\n      handler: noop\n    - id: B\n"
    field.fill(f"{written}      handler: nop\n")

    expect(page.locator("#verdict")).to_contain_text("line 7 B: unknown handler 'nop'")
    page.get_by_role("button", name="line 7").click()
    chosen = "one => one.value.slice(one.selectionStart, one.selectionEnd)"
    assert field.evaluate(chosen) == "      handler: nop"


def test_who_waits_for_a_limit_is_named_by_its_workflow(
    page: Page, flowd: WebFlowd, submit: Submit
) -> None:
    flowd.client.put_limit("closed", max=0)
    execution_id = submit("patient", {"id": "A", "handler": "noop", "limit": "closed"})

    page.goto("limits/closed")

    expect(page.locator(f"a[href*='{execution_id}']")).to_contain_text("patient A")
    flowd.client.cancel(execution_id)
    flowd.client.delete_limit("closed")
