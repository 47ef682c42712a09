"""Installing flowd as a service: what is refused before anything is changed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowd.cli.main import main
from flowd.installation import InstallationFailed, installing, places, program, service
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


def test_of_many_files_that_cannot_be_copied_the_first_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk, where all that follow it cannot either."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / program.BUNDLE_MARK).touch()
    for at in range(9):
        os.mkfifo(bundle / f"pipe-{at}")
    monkeypatch.setattr(sys, "prefix", str(bundle))
    stage = Places(tmp_path / "stage")
    stage.program.mkdir(parents=True)

    with pytest.raises(InstallationFailed) as failed:
        program.put_program(stage)

    assert str(failed.value).count("is a named pipe") == 1
    assert list(stage.program.iterdir()) == []


def test_a_program_that_cannot_be_put_there_leaves_no_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_program(_places: Places) -> None:
        raise InstallationFailed("the disk is full")

    made: list[Places] = []
    monkeypatch.setattr(installing, "put_program", put_program)
    monkeypatch.setattr(installing, "make_user", made.append)

    with pytest.raises(InstallationFailed, match="the disk is full"):
        installing.install(Places(tmp_path))
    assert made == []


def test_a_program_that_still_runs_stays_beside_the_last_two(tmp_path: Path) -> None:
    stage = Places(tmp_path)
    programs = [stage.program / f"venv-{at}" for at in range(4)]
    for one in programs:
        one.mkdir(parents=True)
    sleep = shutil.copy(shutil.which("sleep") or "", programs[0])
    with subprocess.Popen([sleep, "600"]) as running:
        try:
            program.remove_old_programs(stage)
            while_it_ran = sorted(stage.program.iterdir())
        finally:
            running.kill()
    program.remove_old_programs(stage)

    assert while_it_ran == [programs[0], *programs[2:]]
    assert sorted(stage.program.iterdir()) == programs[2:]


@pytest.mark.parametrize(
    ("code", "said"), [(0, ""), (3, ""), (1, "it has not stopped yet\n")], ids=str
)
def test_what_runs_without_systemd_is_stopped_before_it_is_removed(
    code: int, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stage, asked = Places(tmp_path / "stage"), tmp_path / "asked"
    stage.installed.parent.mkdir(parents=True)
    stage.installed.write_text(
        f'#!/bin/sh\necho "$@" > {asked}\necho "it has not stopped yet" >&2\nexit {code}\n'
    )
    stage.installed.chmod(0o755)
    stage.settings.mkdir(parents=True)
    settings = stage.settings / "flowd.toml"
    settings.touch()

    assert "is removed" in installing.uninstall(stage)

    assert asked.read_text() == f"stop --config {settings}\n"
    assert capfd.readouterr().err == said
    assert not stage.program.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run something as another user")
@pytest.mark.parametrize(("code", "is_restarted"), [(0, True), (78, False)])
def test_what_would_not_start_again_is_not_restarted(
    code: int,
    is_restarted: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    ordered: list[tuple[str, ...]] = []
    monkeypatch.setattr(service, "USER", pwd.getpwuid(os.geteuid()).pw_name)
    monkeypatch.setattr(service, "_systemctl", lambda *arguments: ordered.append(arguments))
    monkeypatch.setattr(Places, "has_systemd", True)
    stage = Places(tmp_path / "stage")
    stage.data.mkdir(parents=True)
    stage.installed.parent.mkdir(parents=True)
    stage.installed.write_text(f'#!/bin/sh\necho "$@" >&2\nexit {code}\n')
    stage.installed.chmod(0o755)

    service.put_units(stage)

    settings = stage.settings / "flowd.toml"
    checked, *said = capfd.readouterr().err.splitlines()
    assert checked == f"config check --quiet --config {settings}"
    assert (("try-restart", "flowd.service") in ordered) is is_restarted
    assert [f"Mend {settings}, then" in line for line in said] == [True] * (not is_restarted)
