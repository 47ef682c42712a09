"""`flowd config`: what a person who sets up flowd is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flowd.cli.main import main
from flowd.config import Settings, places
from flowd.config.loading import list_settings, load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of our own to run in, with nothing of this machine's environment."""
    for name in os.environ:
        if name.startswith(("FLOWD_", "REDIS_", "WORKER_")) or name in ("ENVIRONMENT", "DEBUG"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, ["config", *arguments], env=environ)


def shown(*arguments: str, **environ: str) -> dict[str, Any]:
    run = config("show", "-o", "json", *arguments, **environ)
    assert run.exit_code == 0, run.output
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def test_every_setting_is_shown_with_its_value_and_where_it_comes_from(folder: Path) -> None:
    (folder / "flowd.toml").write_text("[api]\nport = 1001\n[workers]\ncount = 7\n")
    (folder / ".env").write_text("\nREDIS_PORT=1002\n")

    found = shown("--workers", "3", REDIS_DB="4", FLOWD_SCHEDULER__INTERVAL_S="0.5")

    assert found.keys() == dict(list_settings(Settings())).keys()
    assert found["api.port"] == {"value": 1001, "origin": "flowd.toml:2"}
    assert found["workers.count"] == {"value": 3, "origin": "--workers"}
    assert found["redis.port"] == {"value": 1002, "origin": f"{folder}/.env:2: REDIS_PORT"}
    assert found["redis.db"] == {"value": 4, "origin": "REDIS_DB"}
    assert found["scheduler.interval_s"]["origin"] == "FLOWD_SCHEDULER__INTERVAL_S"
    assert found["redis.data_dir"] == {"value": str(folder / ".flowd"), "origin": "default"}
    assert found["redis.url"] == {"value": None, "origin": "default"}


def test_the_table_has_the_origins_when_they_are_asked_for() -> None:
    plain = config("show", REDIS_PORT="1002").stdout.splitlines()
    with_origin = config("show", "--origin", REDIS_PORT="1002").stdout.splitlines()

    assert [line.split() for line in plain if line.startswith("redis.port")] == [
        ["redis.port", "1002"]
    ]
    assert [line.split() for line in with_origin if line.startswith("redis.port")] == [
        ["redis.port", "REDIS_PORT", "1002"]
    ]
    assert plain[0].split() == ["SETTING", "VALUE"]
    assert len(plain) == len(with_origin) == 1 + len(dict(list_settings(Settings())))


@pytest.mark.parametrize(
    "arguments", [("show",), ("show", "--origin"), ("show", "-o", "json"), ("check",)]
)
def test_a_secret_is_never_shown(arguments: tuple[str, ...]) -> None:
    run = config(
        *arguments,
        FLOWD_HANDLERS__LLM__API_KEY="canary",
        FLOWD_REDIS__URL="redis://user:canary@redis.internal",
    )

    assert run.exit_code == 0
    assert "canary" not in run.output
    assert run.output.count("********") == 2


def test_check_says_what_was_given(folder: Path) -> None:
    (folder / "flowd.toml").write_text("[api]\nport = 1001\n")

    run = config("check", REDIS_DB="4")

    assert run.exit_code == 0
    first, _, *table = run.stdout.splitlines()
    assert first == "the settings are valid: 2 are given, the others have their default"
    assert [line.split() for line in table[1:]] == [
        ["api.port", "flowd.toml:2", "1001"],
        ["redis.db", "REDIS_DB", "4"],
    ]


def test_check_says_that_there_is_no_file() -> None:
    run = config("check")

    assert run.exit_code == 0
    assert run.stdout == (
        "there is no flowd.toml in this folder\n"
        "the settings are valid: 0 are given, the others have their default\n"
    )


def test_check_is_silent_when_it_is_told_to_be() -> None:
    run = config("check", "--quiet")

    assert (run.exit_code, run.output) == (0, "")


def test_check_names_every_problem_and_exits_78(folder: Path) -> None:
    (folder / "bad.toml").write_text("[api]\nprot = 1\n[log]\nkeep = -1\n")

    run = config("check", "--config", "bad.toml", REDIS_PORT="many")

    assert run.exit_code == 78
    assert run.stdout == ""
    assert run.stderr == (
        "flowd: the settings cannot be used:\n"
        "  bad.toml:2: unknown key 'prot' in [api]; did you mean 'port'?\n"
        "  bad.toml:4: log.keep must be a whole number from 0 to 1000, -1 is not\n"
        "  REDIS_PORT: redis.port must be a whole number from 0 to 65535, 'many' is not\n"
    )


def test_init_writes_a_file_that_is_good_and_changes_nothing(folder: Path) -> None:
    before = load_settings(None, {}, {})

    run = config("init")

    assert (run.exit_code, run.stdout.split(";")[0]) == (0, "wrote flowd.toml")
    assert (folder / "flowd.toml").read_text().startswith("# ")
    assert config("check").exit_code == 0
    assert load_settings(None, {}, {}) == before


def test_init_leaves_a_file_that_is_there_as_it_is(folder: Path) -> None:
    (folder / "mine.toml").write_text("debug = false\n")

    run = config("init", "mine.toml")

    assert run.exit_code == 1
    assert run.stderr == "flowd: mine.toml exists already and was not changed; name another PATH\n"
    assert (folder / "mine.toml").read_text() == "debug = false\n"


def test_init_says_why_it_cannot_write() -> None:
    run = config("init", "absent/flowd.toml")

    assert run.exit_code == 1
    assert run.stderr == "flowd: cannot write absent/flowd.toml: No such file or directory\n"


def test_an_address_of_all_machines_is_checked_for_tokens() -> None:
    run = config("check", "--host", "0.0.0.0")

    assert run.exit_code == 78
    assert "flowd token create" in run.stderr
    assert config("check", "--host", "127.0.0.1").exit_code == 0


def test_everything_the_settings_name_and_nobody_has_made_is_listed(folder: Path) -> None:
    (folder / "flowd.toml").write_text(
        "[secrets]\nfolder = 'keys'\n[api]\nsocket = 'run/api.sock'\n"
        "[redis]\nserver = 'no-such-server'\n[log]\nfile = '.'\n"
    )

    refused = config("check")

    assert refused.exit_code == 78
    told = (f"no folder '{folder}/keys'", f"no folder '{folder}/run'", "no program 'no-such-serv")
    assert [one in refused.output for one in told] == [True] * 3
    assert f"log.file: '{folder}' is a folder" in refused.output
    # A command that looks at what runs does not need them.
    assert config("show").exit_code == 0

    (folder / "keys").mkdir()
    (folder / "run").mkdir()
    (folder / "flowd.toml").write_text(
        "[secrets]\nfolder = 'keys'\n[api]\nsocket = 'run/api.sock'\n[redis]\nserver = 'sh'\n"
    )
    assert config("check").exit_code == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_of_secrets_that_may_not_be_read_is_said(folder: Path) -> None:
    (folder / "keys").mkdir(mode=0)
    (folder / "flowd.toml").write_text("[secrets]\nfolder = 'keys'\n")

    assert "may not read" in config("check").output


def test_a_collector_of_traces_needs_the_extra_and_check_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "flowd.toml").write_text('[telemetry]\notlp_endpoint = "http://localhost:4318"\n')
    assert config("check", "-q").exit_code == 0

    monkeypatch.setattr(places, "_EXPORTER", "opentelemetry_is_not_here.exporter")
    run = config("check", "-q")

    assert run.exit_code == 78
    assert "telemetry.otlp_endpoint: OpenTelemetry is not installed here" in run.output
    assert "pip install 'flowd[telemetry]'" in run.output


def test_what_is_no_address_of_a_collector_is_refused(folder: Path) -> None:
    (folder / "flowd.toml").write_text('[telemetry]\notlp_endpoint = "localhost:4318"\n')

    run = config("check")

    assert run.exit_code == 78
    assert "http:// or https://" in run.output
