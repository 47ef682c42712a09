"""Installing flowd as a service: what is refused before anything is changed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowd.cli.main import main
from flowd.installation import InstallationFailed, places, program
from flowd.installation.places import Places, find_places, version_of


@pytest.mark.parametrize("root", [[], ["--root", "/"]])
@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_who_is_not_root_stages_it_or_uses_sudo(
    verb: str, root: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)

    ended = CliRunner().invoke(main, [verb, *root])

    assert (ended.exit_code, "run it with sudo, or with --root DIR" in ended.output) == (1, True)


def test_what_apt_has_installed_is_left_to_apt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(places, "_is_package", lambda: True)

    with pytest.raises(InstallationFailed, match="apt-get upgrades and removes it"):
        find_places(None)
    assert find_places(tmp_path).stage == tmp_path


@pytest.mark.parametrize("home", ["/root/.pyenv/versions/3.11", "/home/ada/python"])
def test_an_interpreter_in_a_home_is_of_no_use_to_a_service(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "base_prefix", home)

    with pytest.raises(InstallationFailed, match="where a service may not read"):
        program._make_environment(tmp_path / "new", Places(), has_pip=False)
    assert list(tmp_path.iterdir()) == []


def test_versions_are_compared_as_numbers() -> None:
    assert version_of("flowd 0.10.0\n") > version_of("0.9.3")
    assert version_of("1.0") > version_of("0.99.99")
