"""Where secrets come from, and where they may go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from flowd.config import Settings
from flowd.config.loading import list_settings, load_settings
from flowd.errors import Fail, InvalidSettings, InvalidWorkflow
from flowd.handlers.config_checks import config_checks
from flowd.handlers.registry import built_in_registry
from flowd.outgoing.secrets import Secrets
from flowd.redaction import MASK, REDACTOR
from flowd.workflow.templating import CompiledConfig
from flowd.workflow.validator import validate_workflow

KEY = {"$secret": "API_KEY"}


def settings_of(folder: Path, **flags: Any) -> Settings:
    config = folder / "flowd.toml"
    config.touch()
    return load_settings(config, {key.replace("__", "."): one for key, one in flags.items()}, {})


def test_a_secret_of_the_dotenv_file_is_one_that_the_environment_overrules(tmp_path: Path) -> None:
    """It was read over without a word: only the environment itself was looked at."""
    (tmp_path / ".env").write_text(
        "FLOWD_SECRET_A=dotenv-secret-a\nFLOWD_SECRET_B='dotenv b # 2'\n"
    )
    (tmp_path / "B").write_text("file-b-secret")
    settings = settings_of(tmp_path, secrets__folder=str(tmp_path))

    secrets = Secrets(settings, {"FLOWD_SECRET_A": "environ-secret-a"})

    assert [secrets.resolve(name) for name in "AB"] == ["environ-secret-a", "dotenv b # 2"]
    assert "dotenv b" not in repr(settings)
    assert REDACTOR.text("it said dotenv b # 2 aloud") == f"it said {MASK} aloud"


def test_no_secret_of_the_dotenv_file_is_shown_as_a_setting(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FLOWD_SECRET_A=dotenv-secret-a\n")

    assert "dotenv-secret-a" not in str(list(list_settings(settings_of(tmp_path))))


def filled(secrets: Secrets, config: dict[str, Any], handler: str = "shell") -> Any:
    compiled = CompiledConfig(config)
    return secrets.fill(compiled.render({}), compiled.secrets, handler)


def test_the_environment_comes_first_then_the_folder_then_the_credentials(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "A").write_text("credential-a\n")
    (credentials / "B").write_text("credential-b\n")
    # As an editor of Windows writes it.
    (tmp_path / "B").write_text("file-b\r\n", "utf-8-sig", newline="")
    environ: Mapping[str, str] = {
        "FLOWD_SECRET_C": "variable-c",
        "CREDENTIALS_DIRECTORY": str(credentials),
    }
    (tmp_path / "C").write_text("file-c")
    secrets = Secrets(settings_of(tmp_path, secrets__folder=str(tmp_path)), environ)

    found = [secrets.resolve(name) for name in "ABC"]
    assert found == ["credential-a", "file-b", "variable-c"]


def test_what_only_another_worker_uses_is_hidden_too(tmp_path: Path) -> None:
    (tmp_path / "FILE").write_text("a secret in a file\n")
    (tmp_path / "CERTIFICATE").write_text("-----BEGIN CERTIFICATE-----\nabc\n")
    (tmp_path / "folder").mkdir()
    environ = {"FLOWD_SECRET_X": "a secret in a variable", "FLOWD_SECRET_DEBUG": "false"}
    flags = {"secrets__folder": str(tmp_path), "handlers__llm__api_key": "sk-of-the-model"}
    Secrets(settings_of(tmp_path, **flags), environ)

    assert REDACTOR.text("a secret in a file") == MASK
    assert REDACTOR.text("sk-of-the-model") == MASK
    assert REDACTOR.text("a secret in a variable") == MASK
    # These are hidden when they are used: they would be found in innocent text.
    for text in ("false", "-----BEGIN CERTIFICATE-----"):
        assert REDACTOR.text(text) == text


def test_a_secret_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    secrets = Secrets(settings_of(tmp_path, secrets__folder=str(tmp_path)), {})
    with pytest.raises(Fail, match=r"FLOWD_SECRET_NOPE and the file .*/NOPE"):
        secrets.resolve("NOPE")


def test_one_that_is_too_short_to_be_kept_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Fail, match="shorter than 4"):
        Secrets(settings_of(tmp_path), {"FLOWD_SECRET_X": "abc"}).resolve("X")


def test_secrets_are_filled_in_wherever_they_stand(tmp_path: Path) -> None:
    secrets = Secrets(settings_of(tmp_path), {"FLOWD_SECRET_API_KEY": "s3cret"})
    source = {"env": {"A": KEY, "B": "plain", "C": [1, KEY]}, "n": 1}

    config, only = filled(secrets, source)

    assert config == {"env": {"A": "s3cret", "B": "plain", "C": [1, "s3cret"]}, "n": 1}
    assert only is None
    assert source["env"]["A"] == KEY  # type: ignore[index]


def test_an_output_that_looks_like_a_secret_is_data(tmp_path: Path) -> None:
    secrets = Secrets(settings_of(tmp_path), {"FLOWD_SECRET_API_KEY": "s3cret"})
    compiled = CompiledConfig({"env": "{{ A.evil }}"})
    rendered = compiled.render({"A": {"evil": KEY}})

    assert secrets.fill(rendered, compiled.secrets, "shell").config == {"env": KEY}


def test_the_argument_list_of_a_program_is_no_place_for_a_secret(tmp_path: Path) -> None:
    secrets = Secrets(settings_of(tmp_path), {"FLOWD_SECRET_API_KEY": "s3cret"})
    with pytest.raises(Fail, match="list of processes"):
        filled(secrets, {"command": ["curl", KEY]})
    assert filled(secrets, {"stdin": KEY}).config == {"stdin": "s3cret"}


def test_a_bound_secret_says_where_it_may_go(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, secrets__bound=["API_KEY@api.example.com", "API_KEY@*.int"])
    secrets = Secrets(settings, {"FLOWD_SECRET_API_KEY": "s3cret"})

    _, only = filled(secrets, {"headers": {"x": KEY}}, "call_external_service")
    assert [one.name for one in only] == ["api.example.com", "*.int"]
    with pytest.raises(Fail, match="bound to hosts"):
        filled(secrets, {"env": {"x": KEY}}, "shell")


@pytest.mark.parametrize(
    ("bound", "common"),
    [
        (["API_KEY@a.example", "API_KEY@b.example", "OTHER@b.example"], ["b.example"]),
        (["API_KEY@a.example", "OTHER@a.example", "OTHER@b.example"], ["a.example"]),
        (["API_KEY@a.example", "OTHER@b.example"], []),
        (["API_KEY@a.example"], ["a.example"]),
        (["OTHER@b.example"], ["b.example"]),
    ],
)
def test_a_call_goes_only_where_each_of_its_bound_secrets_may(
    tmp_path: Path, bound: list[str], common: list[str]
) -> None:
    environ = {"FLOWD_SECRET_API_KEY": "s3cret", "FLOWD_SECRET_OTHER": "an0ther"}
    secrets = Secrets(settings_of(tmp_path, secrets__bound=bound), environ)
    headers = {"x": KEY, "y": {"$secret": "OTHER"}}

    for config in (headers, dict(reversed(headers.items()))):
        _, only = filled(secrets, {"headers": config}, "call_external_service")
        assert [one.name for one in only] == common


@pytest.mark.parametrize("entry", ["API_KEY", "@host", "API-KEY@host", "API_KEY@", "K@1.2.3"])
def test_a_bad_binding_stops_the_start(tmp_path: Path, entry: str) -> None:
    with pytest.raises(InvalidSettings, match=r"secrets\.bound"):
        settings_of(tmp_path, secrets__bound=[entry])


def submitted(tmp_path: Path, config: dict[str, Any]) -> list[tuple[str, str]]:
    node = {"id": "A", "handler": "call_external_service", "config": config}
    body = orjson.dumps({"name": "x", "dag": {"nodes": [node]}})
    checks = config_checks(built_in_registry(), settings_of(tmp_path))
    try:
        validate_workflow(body, checks)
    except InvalidWorkflow as refused:
        return [(problem.path, problem.code) for problem in refused.problems]
    return []


def test_a_secret_may_stand_where_a_text_is_expected(tmp_path: Path) -> None:
    config = {"url": "http://x/", "auth": {"bearer": KEY}, "headers": {"x": KEY}}
    assert submitted(tmp_path, config) == []


@pytest.mark.parametrize("bad", [{"$secret": 1}, {"$secret": "a b"}, {"$secret": "A", "x": 1}])
def test_a_malformed_secret_is_refused_at_submit(tmp_path: Path, bad: dict[str, Any]) -> None:
    problems = submitted(tmp_path, {"url": "http://x/", "headers": {"x": bad}})
    assert "bad_secret" in [code for _, code in problems], problems
    assert all(path.startswith("dag.nodes[0].config.headers.x") for path, _ in problems)
