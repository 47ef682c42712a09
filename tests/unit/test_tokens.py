"""The file of tokens, and the commands that change it."""

from __future__ import annotations

import itertools
import json
import stat
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flowd.cli.main import main
from flowd.errors import InvalidSettings
from flowd.tokens import TOKENS_FILE, change_tokens, find_token, new_token, read_tokens
from tests.daemon import PATIENCE_S

NOW_MS = 1_764_000_000_000
TOKEN = asdict(new_token("a", "read")[0])


def run(folder: Path, *arguments: str) -> Result:
    (folder / "flowd.toml").touch()
    config = ["--config", str(folder / "flowd.toml")]
    return CliRunner().invoke(main, ["token", arguments[0], *config, *arguments[1:]], env={})


def kept(folder: Path) -> list[str]:
    return [one.name for one in read_tokens(folder / ".flowd") or ()]


def test_a_token_is_found_by_its_text_and_by_nothing_else() -> None:
    one, text = new_token("one", "read")
    two, other = new_token("two", "admin")
    two = replace(two, expires_ms=NOW_MS)

    assert find_token((one, two), text, NOW_MS) == one
    assert find_token((one, two), other, NOW_MS - 1) == two
    assert find_token((one, two), other, NOW_MS) is None
    for wrong in ("", text[:-1], text + "x", one.sha256, one.id, "\udcff"):
        assert find_token((one, two), wrong, NOW_MS) is None
    assert len(text) > 43


def test_a_scope_includes_the_ones_before_it() -> None:
    allowed = {
        scope: [
            needed
            for needed in ("read", "trigger", "admin")
            if new_token("x", scope)[0].allows(needed)
        ]
        for scope in ("read", "trigger", "admin")
    }

    assert allowed == {
        "read": ["read"],
        "trigger": ["read", "trigger"],
        "admin": ["read", "trigger", "admin"],
    }


def test_a_token_is_printed_once_and_only_its_hash_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A millisecond passes between any two looks at the clock, as it may.
    clock = itertools.count(NOW_MS * 1_000_000, 1_000_000)
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    made = run(tmp_path, "create", "--name", "ci", "--scope", "trigger", "--expires-days", "1")

    assert made.exit_code == 0
    text = made.stdout.strip()
    folder = tmp_path / ".flowd"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / TOKENS_FILE).stat().st_mode) == 0o600
    assert text not in (folder / TOKENS_FILE).read_text()
    (token,) = read_tokens(folder) or ()
    assert find_token((token,), text, token.created_ms) == token
    assert token.expires_ms == token.created_ms + 86_400_000
    listed = run(tmp_path, "list")
    assert "ci" in listed.stdout
    assert token.sha256 not in run(tmp_path, "list", "-o", "json").stdout
    assert sorted(one.name for one in folder.iterdir()) == [TOKENS_FILE, "tokens.lock"]


def test_a_name_is_given_once_and_well_formed(tmp_path: Path) -> None:
    assert run(tmp_path, "create", "--name", "ci", "--scope", "read").exit_code == 0

    again = run(tmp_path, "create", "--name", "ci", "--scope", "admin")
    assert (again.exit_code, kept(tmp_path)) == (1, ["ci"])
    assert "revoke it first" in again.stderr
    assert run(tmp_path, "create", "--name", "a b", "--scope", "read").exit_code == 2
    assert run(tmp_path, "create", "--name", "x", "--scope", "all").exit_code == 2


def test_a_token_is_revoked_by_name_or_id(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path, "create", "--name", name, "--scope", "read")
    (one, two) = read_tokens(tmp_path / ".flowd") or ()

    assert run(tmp_path, "revoke", "c").exit_code == 1
    assert run(tmp_path, "revoke", one.name).exit_code == 0
    assert kept(tmp_path) == ["b"]
    last = run(tmp_path, "revoke", two.id)
    assert "every request is rejected" in last.stderr
    # Not None: that would open the door again.
    assert read_tokens(tmp_path / ".flowd") == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"tokens": 1}',
        '{"tokens": [{}]}',
        json.dumps({"tokens": [TOKEN | {"scope": "root"}]}),
        json.dumps({"tokens": [TOKEN | {"scope": []}]}),
        json.dumps({"tokens": [TOKEN | {"sha256": "x" * 64}]}),
        json.dumps({"tokens": [TOKEN | {"sha256": 1}]}),
        json.dumps({"tokens": [TOKEN | {"expires_ms": ""}]}),
        json.dumps({"tokens": [TOKEN | {"more": 1}]}),
        "\x00\xff",
    ],
)
def test_a_damaged_file_is_said_and_left_alone(tmp_path: Path, text: str) -> None:
    folder = tmp_path / ".flowd"
    folder.mkdir()
    (folder / TOKENS_FILE).write_text(text)

    with pytest.raises(InvalidSettings, match="the tokens cannot be read"):
        read_tokens(folder)
    made = run(tmp_path, "create", "--name", "ci", "--scope", "read")
    assert made.exit_code == 78
    assert (folder / TOKENS_FILE).read_text() == text


def test_two_who_change_the_tokens_at_once_lose_nothing(tmp_path: Path) -> None:
    def add(prefix: str) -> None:
        for number in range(20):
            token, _ = new_token(f"{prefix}{number}", "read")
            change_tokens(tmp_path, lambda tokens, token=token: (*tokens, token))

    threads = [threading.Thread(target=add, args=(prefix,)) for prefix in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert len(read_tokens(tmp_path) or ()) == 40
    assert len(json.loads((tmp_path / TOKENS_FILE).read_text())["tokens"]) == 40
