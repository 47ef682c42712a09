"""`flowd help`: every page of the manual, in a pipe as it is written."""

from __future__ import annotations

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from flowd.cli.main import main
from tests.manual import PAGES


def test_the_list_names_every_page() -> None:
    printed = CliRunner().invoke(main, ["help"]).stdout

    assert {line.split()[0] for line in printed.splitlines()[2:]} == set(PAGES)


@pytest.mark.parametrize("topic", PAGES)
def test_a_page_is_plain_in_a_pipe(topic: str) -> None:
    assert CliRunner().invoke(main, ["help", topic]).stdout == PAGES[topic]


def test_an_unknown_topic_is_told_with_the_one_that_is_near() -> None:
    ended = CliRunner().invoke(main, ["help", "secretz"])

    assert ended.exit_code == 1
    assert "there is no topic 'secretz'; did you mean 'secrets'?" in ended.stderr


def test_a_shell_completes_topics() -> None:
    completed = BashComplete(main, {}, "flowd", "_FLOWD_COMPLETE").get_completions(["help"], "temp")

    assert [one.value for one in completed] == ["templates"]
