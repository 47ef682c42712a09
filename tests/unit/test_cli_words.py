"""How the commands say what is wrong, and what a shell is offered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

import flowd
from flowd.cli.main import main
from flowd.cli.remote import as_commands


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flowd.cli.options.MACHINE_FILE", tmp_path / "machine.toml")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"FLOWD_URL": "http://127.0.0.1:9"})


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--bogus"], 2, "No such option"),
        (["strat"], 2, "No such command 'strat'"),
        (["ls", "--limit", "x"], 2, "'x' is not a valid whole number"),
        (["scale", "x"], 2, "'x' is not a valid whole number"),
        (["run", "nothing.json", "--timeout", "x"], 2, "'x' is not a valid number"),
        (["dlq", "purge"], 2, "give the id of a dead letter, or --all"),
        (["dlq", "purge", "--all"], 2, "nobody is here to ask; --yes does it without"),
        (["validate", "nothing.json"], 1, "cannot read nothing.json"),
        (["get", "0" * 24], 69, "is it running?"),
        (["config", "check", "--config", "nothing.toml"], 78, "the settings cannot be used"),
        (["handlers", "shel"], 1, "there is no handler 'shel'; did you mean 'shell'?"),
    ],
)
def test_every_refusal_begins_in_one_way(arguments: list[str], code: int, said: str) -> None:
    ended = run(*arguments)

    assert ended.exit_code == code, ended.output
    assert "Error:" not in ended.output
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("flowd: ")]
    assert said in line


def test_a_group_without_a_command_shows_its_help() -> None:
    assert "Commands:" in run("dlq").output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("not yet: POST /workflow/trigger/0a1b", "not yet: `flowd trigger 0a1b`"),
        ("until POST /workflows/0a1b/resume", "until `flowd resume 0a1b`"),
        ("by POST /workflows/0a1b/nodes/ask.0/signal", "by `flowd approve 0a1b ask.0`"),
        (
            "GET /workflows/0a/nodes lists them, GET /workflows/0a/nodes/<node_id> has",
            "`flowd get 0a` lists them, `flowd results 0a NODE` has",
        ),
        ("no such letter; GET /dead-letters lists", "no such letter; `flowd dlq list` lists"),
        ("not saved; GET /definitions lists", "not saved; `flowd definitions ls` lists"),
        ("a child; GET /workflows/0a/explain says", "a child; `flowd explain 0a` says"),
        ("name the node to begin with", "name the node to begin with: `--from NODE`"),
        ("with `force` it runs beside", "with `--force` it runs beside"),
        ("nothing to call", "nothing to call"),
    ],
)  # fmt: skip
def test_a_call_of_the_api_is_said_as_a_command(text: str, shown: str) -> None:
    assert as_commands(text) == shown


def offered(arguments: list[str], incomplete: str = "") -> list[tuple[str, str]]:
    complete = ShellComplete(main, {}, "flowd", "_FLOWD_COMPLETE")
    return [(one.type, one.value) for one in complete.get_completions(arguments, incomplete)]


class Executions:
    """A client of a flowd with two executions."""

    def __init__(self, url: str, token: str | None = None) -> None:
        assert (url, token) == ("http://127.0.0.1:9", None)

    def __enter__(self) -> Executions:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def list(self, **_: object) -> list[dict[str, Any]]:
        return [{"execution_id": one, "name": "n", "status": "RUNNING"} for one in ("0b1", "0a1")]

    def definitions(self, **_: object) -> list[dict[str, Any]]:  # type: ignore[valid-type]
        return [{"name": "report", "version": 3}]


def test_a_shell_is_offered_ids_files_and_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWD_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("flowd.client.Client", Executions)
    status = {"processes": [{"name": "worker-1", "state": "RUNNING"}]}
    monkeypatch.setattr("flowd.supervisor.asking.ask", lambda *_, **__: status)

    for command in ("get", "watch", "cancel", "rerun", "events", "rm", "diff"):
        assert offered([command]) == [("plain", "@latest"), ("plain", "0b1"), ("plain", "0a1")]
    assert offered(["get"], "0a") == [("plain", "0a1")]
    assert offered(["diff", "0a1"], "@") == [("plain", "@latest")]
    for command in ("submit", "validate"):
        assert offered([command]) == [("file", "")]
    assert offered(["run"]) == [("plain", "report"), ("file", "")]
    assert offered(["run"], "x") == [("file", "x")]
    for command in ("get", "versions", "rm", "put"):
        assert offered(["definitions", command]) == [("plain", "report")]
    for command in ("restart", "logs"):
        assert offered([command], "wor") == [("plain", "worker-1")]


def test_where_nobody_answers_a_shell_is_offered_what_is_known() -> None:
    assert offered(["get"]) == [("plain", "@latest")]
    assert offered(["restart"]) == []


def test_what_the_clients_raise_is_imported_from_flowd() -> None:
    for name in flowd.__all__:
        assert getattr(flowd, name)
    assert issubclass(flowd.ApiError, flowd.ClientError)


def test_two_new_modules_of_one_folder_get_along(folder: Path) -> None:
    assert '"greet"' in run("new", "first").stdout
    assert '"second_greet"' in run("new", "second").stdout
    (folder / "flowd.toml").write_text('[handlers]\nmodules = ["first", "second"]\n')

    ended = subprocess.run(
        [sys.executable, "-m", "flowd.cli.main", "handlers", "second_greet"],
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 0, ended.stderr
    assert click.unstyle(ended.stdout).startswith("second_greet\n  Greets somebody")
    assert "count_words" not in ended.stdout


def test_what_equals_the_default_is_not_among_what_was_given(folder: Path) -> None:
    (folder / "flowd.toml").write_text('[api]\nport = 8000\n[redis]\ndata_dir = ".flowd"\ndb = 1\n')

    said = run("config", "check").stdout

    assert "1 are given" in said
    assert "redis.db" in said
    assert "api.port" not in said
    assert "data_dir" not in said
