"""Profiles: which flowd a command addresses with them, and what their file may look like."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from flowd.cli.main import main
from tests.manual import blocks

SECRET = "flowd_of_production"
PROFILES = f"""
[profiles.prod]
url = "https://flowd.example.com"
token = "{SECRET}"
[profiles.lab]
url = "http://lab:8000"
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("FLOWD_URL", "FLOWD_TOKEN", "FLOWD_PROFILE", "FLOWD_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    write(tmp_path, PROFILES)


def write(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "flowd" / "config.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


class NoClient:
    """In place of a client: notes who was called with which token."""

    called: list[tuple[str, str | None]]

    def __init__(self, url: str, token: str | None = None) -> None:
        self.called.append((url, token or os.environ.get("FLOWD_TOKEN")))
        self.url = url

    def __enter__(self) -> NoClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def list(self, **_: object) -> Iterator[dict[str, Any]]:
        return iter(())


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    monkeypatch.setattr(NoClient, "called", [], raising=False)
    monkeypatch.setattr("flowd.client.Client", NoClient)
    return NoClient.called


PROD = ("https://flowd.example.com", SECRET)
LAB = "http://lab:8000"


@pytest.mark.parametrize(
    ("arguments", "environ", "place"),
    [
        (["--profile", "prod"], {}, PROD),
        ([], {"FLOWD_PROFILE": "prod"}, PROD),
        (["--profile", "prod"], {"FLOWD_PROFILE": "lab", "FLOWD_URL": "http://x"}, PROD),
        # What is given by hand is meant.
        (["--profile", "prod", "--token", "mine"], {}, (PROD[0], "mine")),
        # A token of the environment may be another flowd's.
        (["--profile", "prod"], {"FLOWD_TOKEN": "of another"}, PROD),
        (["--profile", "lab"], {"FLOWD_TOKEN": "of the lab"}, (LAB, "of the lab")),
        # No token goes where its profile does not say.
        (["--url", "http://x"], {"FLOWD_PROFILE": "prod"}, ("http://x", None)),
        ([], {"FLOWD_PROFILE": "prod", "FLOWD_URL": "http://x"}, ("http://x", None)),
        ([], {}, ("http://127.0.0.1:8000", None)),
    ],
)
def test_a_profile_says_where_flowd_is_and_opens_only_that(
    arguments: list[str],
    environ: dict[str, str],
    place: tuple[str, str | None],
    called: list[tuple[str, str | None]],
) -> None:
    ended = CliRunner().invoke(main, ["ls", *arguments], env=environ)

    assert ended.exit_code == 0, ended.output
    assert called == [place]


def test_a_file_may_begin_with_a_byte_order_mark(
    tmp_path: Path, called: list[tuple[str, str | None]]
) -> None:
    file = write(tmp_path, PROFILES)
    file.write_text(PROFILES, "utf-8-sig")

    ended = CliRunner().invoke(main, ["ls", "--profile", "lab"])

    assert ended.exit_code == 0, ended.output
    assert len(called) == 1


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610])
def test_a_file_others_may_read_is_refused_with_a_sentence(
    mode: int, tmp_path: Path, called: list[tuple[str, str | None]]
) -> None:
    file = write(tmp_path, PROFILES, mode)

    ended = CliRunner().invoke(main, ["ls", "--profile", "lab"])

    assert ended.exit_code == 78
    assert f"mode {mode:03o}" in ended.output
    assert f"run `chmod 600 {file}`" in ended.output
    assert called == []
    file.chmod(0o400)
    assert CliRunner().invoke(main, ["ls", "--profile", "lab"]).exit_code == 0


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, PROFILES)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    found = os.stat_result((0o100600, 0, 0, 1, 4712, 0, 0, 0, 0, 0))
    monkeypatch.setattr(os, "fstat", lambda _: found)

    ended = CliRunner().invoke(main, ["ls", "--profile", "lab"])

    assert (ended.exit_code, "belongs to another user" in ended.output) == (78, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no profile 'prod'; write [profiles.prod]"),
        ('[profiles.prob]\nurl = "x"', "there is no profile 'prod'; did you mean 'prob'?"),
        (f'[profiles.prod]\nurl = "x"\ntokn = "{SECRET}"', "unknown key 'tokn'; did you mean"),
        (f'[profiles.prod]\ntoken = "{SECRET}"', "profiles.prod has no url"),
        ("[profiles.prod]\nurl = 3", "what is no text"),
        ("profiles = 3", "it holds profiles and nothing else"),
        ("[prod]\nurl = 'x'", "it holds profiles and nothing else"),
        ("profiles]", "it is not TOML"),
        ('[profiles.prod]\nurl = "ftp://x"', "'ftp://x' is no address of a flowd"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_without_its_tokens(
    text: str, said: str, tmp_path: Path
) -> None:
    write(tmp_path, text)

    ended = CliRunner().invoke(main, ["ls", "--profile", "prod"])

    assert ended.exit_code in (2, 78)
    assert said in ended.output
    assert SECRET not in ended.output


def test_without_a_file_it_is_said_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "flowd" / "config.toml").unlink()

    ended = CliRunner().invoke(main, ["ls"], env={"FLOWD_PROFILE": "prod"})

    assert (ended.exit_code, "write one, [profiles.NAME]" in ended.output) == (78, True)


def test_two_names_of_a_flowd_are_wrong_usage() -> None:
    for arguments in (
        ["ls", "--url", "http://x", "--profile", "lab"],
        ["run", "--local", "--profile", "lab", "file.yaml"],
    ):
        ended = CliRunner().invoke(main, arguments)
        assert (ended.exit_code, "--profile" in ended.output) == (2, True), ended.output


def test_a_shell_is_offered_the_profiles() -> None:
    complete = ShellComplete(main, {}, "flowd", "_FLOWD_COMPLETE")

    assert [one.value for one in complete.get_completions(["ls", "--profile"], "")] == [
        "lab", "prod",
    ]  # fmt: skip
    assert [one.value for one in complete.get_completions(["ls", "--profile"], "p")] == ["prod"]


def test_every_command_that_takes_a_url_takes_a_profile() -> None:
    def leaves(group: click.Group) -> Iterator[click.Command]:
        for name in group.list_commands(click.Context(group)):
            command = group.get_command(click.Context(group), name)
            if isinstance(command, click.Group):
                yield from leaves(command)
            elif command is not None:
                yield command

    for command in leaves(main):
        options = {one.name for one in command.params}
        assert ("url" in options) == ("profile" in options), command.name


def test_the_profile_of_the_manual_is_taken(
    tmp_path: Path, called: list[tuple[str, str | None]]
) -> None:
    write(tmp_path, *blocks("Which flowd", "toml"))
    assert CliRunner().invoke(main, ["ls", "--profile", "prod"]).exit_code == 0
    assert called == [("https://flowd.example.com", "flowd_...")]
